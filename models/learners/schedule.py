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

    def rounds(self, count: int) -> list["Round"]:
        """The training cut into rounds of about one length, none of which reaches over the end of an epoch.

        Args:
            count: rounds of the whole training. There are more where it has more epochs, for each has one at least, and fewer
                where an epoch has fewer joint batches than its share of the rounds.
        """
        found = []
        for begin in range(0, self.total, self.steps):
            length = min(self.steps, self.total - begin)
            share = count * (begin + length) // self.total - count * begin // self.total
            here = max(1, min(share, length))
            ends = [begin + (place + 1) * length // here for place in range(here)]
            found += [Round(start, end) for start, end in zip([begin, *ends], ends, strict=False)]
        return found

    @property
    def passes(self) -> int:
        """Epochs that are begun."""
        return -(-self.total // self.steps)


@dataclass(frozen=True)
class Round:
    """Joint batches from `start` up to `end`, which is not one of them, counted over the whole training."""

    start: int
    end: int


def least_filled(candidates_of_level: Sequence[int]) -> int:
    """Candidates of the smallest level that has any."""
    return min((count for count in candidates_of_level if count), default=0)
