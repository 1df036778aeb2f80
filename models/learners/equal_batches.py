"""Batches of one size for every level, drawn from the candidates that went by in a stretch of training.

What is measured on a batch, such as the norm of a gradient, depends on its size: the norm of what is noise in it falls with the
root of the number of candidates. So levels can be compared only on batches of one size, however many candidates each has.

    # N candidates of this worker's share, P candidates that wait, C levels
"""

import torch
from torch import Tensor

from models.batch import FeedBatch, joined
from models.layers.draws import uniform_N
from models.learners.workers import WorkerGroup

SALT = 1001  # of the draw that orders candidates, beside that of `rebatching`


class EqualBatches:
    """Offers every candidate once, and draws without replacement: each of a level's candidates is as likely as any other.

    A candidate gets a number by a hash (`layers.draws`), and those with the smallest numbers are taken, in their order. So the
    batches are the same for any number of workers, and only as many candidates as can still be taken are held. Candidates with
    equal numbers, of two feeds that one user has in a joint batch, are taken together.

    Args:
        batches: how many are to be drawn.
        size: candidates of a batch, over all workers, at most.
        device: where the candidates lie.
    """

    def __init__(self, levels: int, batches: int, size: int, group: WorkerGroup, device: torch.device) -> None:
        self.levels, self.batches, self.size = levels, batches, size
        self.group, self.device = group, device
        self._clear()

    def add(self, batch: FeedBatch | None, progress: float) -> None:
        """Takes in this worker's share of a joint batch."""
        if batch is None:
            return
        number_N = uniform_N(batch, progress, SALT)
        for level in range(self.levels):
            taken_N = (batch.level_N == level) & (number_N <= self._largest[level])
            if taken_N.any():
                self._waiting[level].append((number_N[taken_N], batch.of_candidates(taken_N)))
                if sum(len(number_P) for number_P, _ in self._waiting[level]) > 2 * self.batches * self.size:
                    self._drop(level)

    def draw(self) -> tuple[int, list[list[FeedBatch | None]]]:
        """Draws the batches, and forgets all candidates; all workers take part.

        Levels that have fewer candidates than there are batches get none.

        Returns:
            candidates of each batch over all workers; by batch and level, this worker's part of it, None if it has none.
        """
        waiting = [
            None if not found else (torch.cat([number_P for number_P, _ in found]), joined([batch for _, batch in found]))
            for found in self._waiting
        ]
        in_order = self._in_order([None if found is None else found[0] for found in waiting])
        self._clear()
        counts = [len(number_P) for number_P in in_order if len(number_P) >= self.batches]
        if not counts:
            return 0, [[None] * self.levels for _ in range(self.batches)]
        size = min(self.size, min(counts) // self.batches)
        parts: list[list[FeedBatch | None]] = [[None] * self.levels for _ in range(self.batches)]
        for level, found in enumerate(waiting):
            numbers = in_order[level]
            if found is None or len(numbers) < self.batches:
                continue
            number_P, batch = found
            bounds = torch.cat([numbers, numbers.new_full((1,), torch.inf)])[: self.batches * size + 1 : size]
            for place in range(self.batches):
                taken_P = (number_P >= bounds[place]) & (number_P < bounds[place + 1])
                if taken_P.any():
                    parts[place][level] = batch.of_candidates(taken_P)
        return size, parts

    def _clear(self) -> None:
        # by level: numbers [P] and the candidates that have them; and the largest number that may still be taken
        self._waiting: list[list[tuple[Tensor, FeedBatch]]] = [[] for _ in range(self.levels)]
        self._largest = [1.0] * self.levels

    def _drop(self, level: int) -> None:
        """Drops what is not among the smallest that can be taken."""
        found = self._waiting[level]
        number_P = torch.cat([number_P for number_P, _ in found])
        largest = number_P.kthvalue(self.batches * self.size).values
        self._largest[level] = float(largest)
        kept = [(number_P, batch, number_P <= largest) for number_P, batch in found]
        self._waiting[level] = [
            (number_P[kept_P], batch.of_candidates(kept_P)) for number_P, batch, kept_P in kept if kept_P.any()
        ]

    def _in_order(self, numbers: list[Tensor | None]) -> list[Tensor]:
        """By level, the numbers of all workers' candidates, ascending."""
        nothing = torch.zeros(0, dtype=torch.float64, device=self.device)
        own = [nothing if number_P is None else number_P for number_P in numbers]
        level_P = torch.cat([torch.full((len(each),), level, device=self.device) for level, each in enumerate(own)])
        level_P, number_P1 = self.group.gather_rows(level_P, torch.cat(own).unsqueeze(1))
        return [number_P1[level_P == level, 0].sort().values for level in range(self.levels)]
