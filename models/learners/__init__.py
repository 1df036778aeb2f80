"""Learner slot: joint batches -> optimisation steps.

A filling is built as `Filling(ranker, schema, config, optimiser, world)`, or, where it trains a ranker a level
(`models.leveled`), as `Filling(ranker, schema, config, optimiser, world, span)`, and has

    step(batch | None, progress) -> {name: (loss sum, count)} over all workers,
    told() -> {name: number} worth following beside the losses, of the last step and over all workers,
    state_dict() / load_state_dict(state): everything but the ranker's weights,
    at_rest: whether the ranker can be validated and saved now; it always can at the end of an epoch,
    scheduled: whether it has planned the whole training, which then is not to be stopped early,
    is_itself: whether the ranker is of the kind by now that it is to be in the end, so that an epoch can have been the best.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator
from typing_extensions import TypeIs

from models.learners.adaptive import Adaptive, AdaptiveConfig
from models.learners.cmlir import Cmlir, CmlirConfig
from models.learners.finetune import Finetune, FinetuneConfig
from models.learners.joint import Joint, JointConfig
from models.learners.span import Span
from models.learners.world import World
from models.optim import OptimiserConfig
from models.schema import Schema

if TYPE_CHECKING:
    from models.leveled import Leveled
    from models.ranker import Ranker

LeveledConfig = CmlirConfig | FinetuneConfig
LearnerConfig = Annotated[JointConfig | AdaptiveConfig | LeveledConfig, Discriminator("kind")]
Learner = Joint | Adaptive | Cmlir | Finetune

LEARNERS: dict[str, Callable[..., Learner]] = {"joint": Joint, "adaptive": Adaptive}
LEVELED: dict[str, Callable[..., Learner]] = {"cmlir": Cmlir, "finetune": Finetune}


def is_leveled(config: LearnerConfig) -> TypeIs[LeveledConfig]:
    """Whether the learner trains a ranker a level, and so plans the whole training."""
    return config.kind in LEVELED


def build_learner(
    ranker: "Ranker | Leveled",
    schema: Schema,
    learner_config: LearnerConfig,
    optimiser_config: OptimiserConfig,
    world: World,
    span: Span | None = None,
) -> Learner:
    """Trains `ranker` (`models.leveled.ranker_of`), which must already lie on its device; optimiser state is made beside it.

    Args:
        span: of the training; only learners that train a ranker a level want it.
    """
    if not is_leveled(learner_config):
        return LEARNERS[learner_config.kind](ranker, schema, learner_config, optimiser_config, world)
    assert span is not None, f"the learner `{learner_config.kind}` plans the whole training, so it wants its span"
    return LEVELED[learner_config.kind](ranker, schema, learner_config, optimiser_config, world, span)
