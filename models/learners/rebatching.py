"""Batches of one level, made of its candidates in several joint batches.

Optimisers such as Adam take steps of the same length whatever the batch size is. How far a level moves the parameters is
therefore decided by the number of its steps and not by the number of candidates in them, so a sampling plan such as CMLIR's
Eq. 3 has to be turned into numbers of steps. A level's candidates wait here until they are as many as the largest level has
in one joint batch. The largest level then takes a step with every joint batch, and a level with a tenth of its candidates
takes one step in ten, all on batches of the same size.

    # N candidates of this worker's share, C levels
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.batch import FeedBatch, joined
from models.layers.draws import uniform_N
from models.learners.workers import WorkerGroup

SALT = 1000  # of the draw of candidates that are kept, far from those of targets
NEARLY = 1 - 1e-9  # of a step's worth, so that fractions that sum to 1 are not missed by rounding


class Rebatcher:
    """Queues of candidates, usually one for each level, that all workers fill together.

    Args:
        group: the workers, all of which find the same queues due.
        device: where workers exchange counts.
    """

    def __init__(self, queues: int, group: WorkerGroup, device: torch.device) -> None:
        self.group = group
        self.device = device
        self.waiting: list[list[FeedBatch]] = [[] for _ in range(queues)]
        self.worth = [0.0] * queues

    def add(
        self,
        batch: FeedBatch | None,
        keep_N: Tensor | None,
        repeats: Sequence[float] | None = None,
        queue_N: Tensor | None = None,
    ) -> list[int]:
        """Takes in this worker's share of a joint batch.

        Args:
            keep_N: the candidates to take, bool; None without a batch.
            repeats: how often each candidate of a queue counts, for over-sampling: a step of few candidates that are repeated
                is the step of them alone, so they are not copied but due sooner. None for once.
            queue_N: the queue of every candidate, int64; None for its level.

        Returns:
            The queues whose candidates are worth a step now.
        """
        queues = len(self.waiting)
        counts = torch.zeros(2, queues, dtype=torch.float64, device=self.device)
        if batch is not None:
            assert keep_N is not None
            queue_N = batch.level_N if queue_N is None else queue_N
            counts[0] = torch.bincount(queue_N, minlength=queues)
            counts[1] = torch.bincount(queue_N[keep_N], minlength=queues)
            for queue in range(queues):
                own_N = keep_N & (queue_N == queue)
                if own_N.any():
                    self.waiting[queue].append(batch.of_candidates(own_N))
        self.group.sum_(counts)
        there, kept = counts.tolist()
        largest = max(there)
        for queue, candidates in enumerate(kept):
            times = 1.0 if repeats is None else repeats[queue]
            self.worth[queue] += times * candidates / largest if largest else 0.0
        return [queue for queue, worth in enumerate(self.worth) if worth >= NEARLY]

    def filled(self) -> list[int]:
        """The queues that hold any candidates."""
        return [level for level, worth in enumerate(self.worth) if worth > 0]

    def take(self, queue: int) -> FeedBatch | None:
        """Empties a queue: this worker's part of its candidates as one batch, None if it has none of them."""
        waiting, self.waiting[queue], self.worth[queue] = self.waiting[queue], [], 0.0
        return joined(waiting) if waiting else None


def draw_kept(batch: FeedBatch, kept: Sequence[float], progress: float) -> Tensor:
    """Whether each candidate is kept, bool [N]: a draw for every candidate against the share that its level keeps."""
    share_N = torch.tensor(kept, dtype=torch.float64, device=batch.level_N.device)[batch.level_N]
    return uniform_N(batch, progress, SALT) < share_N
