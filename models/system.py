"""A system: a ranker's slots and the learner that trains it."""

from collections.abc import Mapping
from dataclasses import field as default

import torch
from typing_extensions import TypeIs

from models.config import ConfigError, config
from models.learners import LEARNERS, LEVELED, Learner, LearnerConfig, LeveledConfig
from models.learners.joint import JointConfig
from models.learners.schedule import Schedule
from models.learners.workers import WorkerGroup
from models.leveled import Leveled
from models.optim import OptimiserConfig
from models.ranker import Ranker, RankerConfig
from models.schema import Schema


@config
class SystemConfig(RankerConfig):
    """One filling for each slot of a ranker, and one for the learner; the section `model` of an experiment.

    Attributes:
        learner: how the ranker is trained; told apart by `kind`, as the slots of the ranker are.
    """

    learner: LearnerConfig = default(default_factory=JointConfig)


def is_leveled(config: LearnerConfig) -> TypeIs[LeveledConfig]:
    """Whether the learner trains a ranker for each level, and so plans the whole training."""
    return config.kind in LEVELED


def build_ranker(schema: Schema, system: SystemConfig, table_sizes: Mapping[str, int]) -> Ranker | Leveled:
    """The ranker of a system: one for all levels, or, if its learner tells them apart, one for each.

    Raises:
        ConfigError: a filling that cannot work on this schema.
    """
    if not is_leveled(system.learner):
        return Ranker(schema, system, table_sizes)
    if len(schema.levels.names) < 2:
        raise ConfigError(
            f"`learner: {{kind: {system.learner.kind}}}` learns weights for each level, but the schema has only "
            f"`{schema.levels.names[0]}`. Name more in `schema.levels`, or take another learner."
        )
    return Leveled(schema, system, table_sizes, tied=system.learner.specific == "dense")


def ranker_without_weights(schema: Schema, system: SystemConfig) -> Ranker | Leveled:
    """The ranker of a system on torch's device `meta`: shapes are checked, no memory is taken.

    Raises:
        ConfigError: a filling that cannot work on this schema.
    """
    with torch.device("meta"):
        return build_ranker(schema, system, dict.fromkeys(schema.tables, 2))


def build_learner(
    ranker: Ranker | Leveled,
    schema: Schema,
    learner: LearnerConfig,
    optimiser: OptimiserConfig,
    group: WorkerGroup,
    schedule: Schedule | None = None,
) -> Learner:
    """The learner that trains `ranker` (of `build_ranker`), which must already lie on its device; optimiser state is made
    beside it.

    Args:
        schedule: of the training; only learners that train a ranker for each level want it.
    """
    if not is_leveled(learner):
        return LEARNERS[learner.kind](ranker, schema, learner, optimiser, group)
    assert schedule is not None, f"the learner `{learner.kind}` plans the whole training, so it wants its schedule"
    return LEVELED[learner.kind](ranker, schema, learner, optimiser, group, schedule)
