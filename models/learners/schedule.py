"""What a learner that plans ahead knows of the training before it begins.

# C levels
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a training is going to be, and how its candidates are divided.

    Attributes:
        epochs: passes over the data.
        steps: joint batches of an epoch.
        max_steps: joint batches of the whole training at most; None for no such limit.
        candidates_of_level: training candidates of each level of the schema.
    """

    epochs: int
    steps: int
    max_steps: int | None = None
    candidates_of_level: tuple[int, ...]

    @property
    def total(self) -> int:
        """Joint batches of the whole training."""
        whole = self.epochs * self.steps
        return whole if self.max_steps is None else min(whole, self.max_steps)

    def rounds(self, per_epoch: int, least: int = 1) -> list["Round"]:
        """The training cut into rounds, none of which reaches over the end of an epoch.

        Args:
            per_epoch: rounds that each epoch is cut into evenly; fewer where they would be shorter than `least`.
            least: joint batches of a round; only an epoch that has fewer has a shorter one.
        """
        found = []
        for begin in range(0, self.total, self.steps):
            length = min(self.steps, self.total - begin)
            count = max(1, min(per_epoch, length // least))
            ends = [begin + (place + 1) * length // count for place in range(count)]
            found += [Round(start, end) for start, end in zip([begin, *ends], ends, strict=False)]
        return found


@dataclass(frozen=True)
class Round:
    """Joint batches from `start` up to `end`, which is not one of them, counted over the whole training."""

    start: int
    end: int


def least_filled(candidates_of_level: Sequence[int]) -> int:
    """Candidates of the smallest level that has any."""
    return min((count for count in candidates_of_level if count), default=0)
