"""A level's candidates of several joint batches, put together until they are worth a step.

Optimisers such as Adam take steps of one length whatever the batch is. How much a level moves the parameters is therefore
decided by the number of its steps, not by the number of its candidates in them, and a sampling plan such as CMLIR's Eq. 3
has to become one of steps. So a level's candidates wait until they are as many as the largest level has in a joint batch:
that level takes a step a batch, one with a tenth of its candidates a step in ten batches, on batches of the same size.

    # N candidates of this worker's share, C levels
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.batch import FeedBatch, joined
from models.layers.draws import uniform_N
from models.learners.world import World

SALT = 1000  # of the draw of candidates that are kept, far from those of targets
NEARLY = 1 - 1e-9  # of a step's worth, so that fractions that sum to 1 are not missed by rounding


class Pools:
    """One pool a level.

    Args:
        world: the workers that fill pools together; all of them then find the same levels due.
        device: where workers exchange counts.
    """

    def __init__(self, levels: int, world: World, device: torch.device) -> None:
        self.world = world
        self.device = device
        self.waiting: list[list[FeedBatch]] = [[] for _ in range(levels)]
        self.worth = [0.0] * levels

    def add(self, batch: FeedBatch | None, kept: Sequence[float], repeats: Sequence[float], progress: float) -> list[int]:
        """Takes in this worker's share of a joint batch.

        Args:
            kept: share of its candidates that a level keeps, drawn anew at every progress.
            repeats: how often each of them counts, for over-sampling: a step of few candidates that are repeated is the
                step of them alone, so they are not copied but sooner due.

        Returns:
            Levels that are due.
        """
        levels = len(self.waiting)
        counts = torch.zeros(2, levels, dtype=torch.float64, device=self.device)
        if batch is not None:
            keep_N = keeps(batch, kept, progress)
            counts[0] = torch.bincount(batch.level_N, minlength=levels)
            counts[1] = torch.bincount(batch.level_N[keep_N], minlength=levels)
            for level in range(levels):
                own_N = keep_N & (batch.level_N == level)
                if own_N.any():
                    self.waiting[level].append(batch.of_candidates(own_N))
        self.world.sum_(counts)
        all_of_level, kept_of_level = counts.tolist()
        largest = max(all_of_level)
        for level, (candidates, times) in enumerate(zip(kept_of_level, repeats, strict=True)):
            self.worth[level] += times * candidates / largest if largest else 0.0
        return [level for level, worth in enumerate(self.worth) if worth >= NEARLY]

    def left(self) -> list[int]:
        """Levels with candidates that were not worth a step."""
        return [level for level, worth in enumerate(self.worth) if worth > 0]

    def take(self, level: int) -> FeedBatch | None:
        """Empties a pool; None if nothing of it lies with this worker."""
        waiting, self.waiting[level], self.worth[level] = self.waiting[level], [], 0.0
        return joined(waiting) if waiting else None


def keeps(batch: FeedBatch, kept: Sequence[float], progress: float) -> Tensor:
    """Whether each candidate is kept [N], by a draw of its own against the share of its level."""
    share_N = torch.tensor(kept, dtype=torch.float64, device=batch.level_N.device)[batch.level_N]
    return uniform_N(batch, progress, SALT) < share_N
