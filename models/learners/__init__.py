"""Learner slot: a batch -> one optimisation step.

A filling is built as `Filling(ranker, schema, config, optimiser, world)` and has

    step(batch | None, progress) -> {name: (loss sum, count)} over all workers,
    told() -> {name: number} worth following beside the losses, of the last step and over all workers,
    state_dict() / load_state_dict(state): everything but the ranker's weights.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator

from models.learners.adaptive import Adaptive, AdaptiveConfig
from models.learners.joint import Joint, JointConfig
from models.learners.world import World
from models.optim import OptimiserConfig
from models.schema import Schema

if TYPE_CHECKING:
    from models.ranker import Ranker

LearnerConfig = Annotated[JointConfig | AdaptiveConfig, Discriminator("kind")]
Learner = Joint | Adaptive

LEARNERS: dict[str, Callable[..., Learner]] = {"joint": Joint, "adaptive": Adaptive}


def build_learner(
    ranker: "Ranker", schema: Schema, learner_config: LearnerConfig, optimiser_config: OptimiserConfig, world: World
) -> Learner:
    """Trains `ranker`, which must already lie on its device; optimiser state is made beside it."""
    return LEARNERS[learner_config.kind](ranker, schema, learner_config, optimiser_config, world)
