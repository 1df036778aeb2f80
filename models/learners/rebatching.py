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
from models.learners.workers import WorkerGroup

SALT = 1000  # of the draw of candidates that are kept, far from those of targets
NEARLY = 1 - 1e-9  # of a step's worth, so that fractions that sum to 1 are not missed by rounding


class Rebatcher:
    """Rebatcher that all workers fill together, one a level or otherwise.

    Args:
        group: the workers; all of them then find the same queues due.
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
                is the step of them alone, so they are not copied but sooner due. None for once.
            queue_N: the queue of every candidate, int64; None for its level.

        Returns:
            Rebatcher that are due.
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
        """Rebatcher with any candidates."""
        return [level for level, worth in enumerate(self.worth) if worth > 0]

    def take(self, queue: int) -> FeedBatch | None:
        """Empties a queue; None if nothing of it lies with this worker."""
        waiting, self.waiting[queue], self.worth[queue] = self.waiting[queue], [], 0.0
        return joined(waiting) if waiting else None


def draw_kept(batch: FeedBatch, kept: Sequence[float], progress: float) -> Tensor:
    """Whether each candidate is kept [N], by a draw of its own against the share that its level keeps."""
    share_N = torch.tensor(kept, dtype=torch.float64, device=batch.level_N.device)[batch.level_N]
    return uniform_N(batch, progress, SALT) < share_N
