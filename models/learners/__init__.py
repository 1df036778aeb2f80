"""Learner slot: a batch -> one optimisation step.

A filling is built as `Filling(ranker, schema, config, optimiser, world)` and has

    step(batch | None, progress) -> {name: (loss sum, count)} over all workers,
    state_dict() / load_state_dict(state): everything but the ranker's weights.
"""

from typing import TYPE_CHECKING

from models.learners.joint import Joint, JointConfig
from models.learners.world import World
from models.optim import OptimiserConfig
from models.schema import Schema

if TYPE_CHECKING:
    from models.ranker import Ranker

LearnerConfig = JointConfig

LEARNERS = {"joint": Joint}


def build_learner(
    ranker: "Ranker", schema: Schema, learner_config: LearnerConfig, optimiser_config: OptimiserConfig, world: World
) -> Joint:
    """Trains `ranker`, which must already lie on its device; optimiser state is made beside it."""
    return LEARNERS[learner_config.kind](ranker, schema, learner_config, optimiser_config, world)
