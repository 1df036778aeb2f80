"""Learner slot: joint batches -> optimisation steps.

A filling is built as `Filling(ranker, schema, config, optimiser, group)`, or, where it trains a ranker for each level
(`models.leveled`), as `Filling(leveled, schema, config, optimiser, group, schedule)`, and has

    step(batch | None, progress) -> {name: (loss sum, count)} over all workers,
    diagnostics() -> {name: number} worth following beside the losses, of the last step and over all workers,
    state_dict() / load_state_dict(state): everything but the ranker's weights,
    at_rest: whether the ranker can be validated and saved now; it always can at the end of an epoch,
    plan: the training in a line, where it has planned the whole of it; else empty,
    patience_from: the first epoch, from 0, after which training may be found to get no better: once a curriculum is at its end,
        and never where the whole training is planned,
    is_selectable: whether the ranker is by now of the kind that it is to be in the end, so that an epoch can be the best one.
"""

from collections.abc import Callable
from typing import Annotated

from pydantic import Discriminator

from models.learners.adaptive import Adaptive, AdaptiveConfig
from models.learners.cmlir import Cmlir, CmlirConfig
from models.learners.finetune import Finetune, FinetuneConfig
from models.learners.joint import Joint, JointConfig

LeveledConfig = CmlirConfig | FinetuneConfig
LearnerConfig = Annotated[JointConfig | AdaptiveConfig | LeveledConfig, Discriminator("kind")]
Learner = Joint | Adaptive | Cmlir | Finetune

LEARNERS: dict[str, Callable[..., Learner]] = {"joint": Joint, "adaptive": Adaptive}
LEVELED: dict[str, Callable[..., Learner]] = {"cmlir": Cmlir, "finetune": Finetune}
