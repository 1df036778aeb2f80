"""The workers of a training, as a learner sees them.

# U rows of this worker, D width
"""

from typing import Protocol

from torch import Tensor


class WorkerGroup(Protocol):
    """All workers of a data-parallel training. Every worker makes the same calls in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def sum_(self, tensor: Tensor) -> None:
        """Replaces `tensor`, of one shape on all workers, by its sum over them."""

    def gather_rows(self, ids_U: Tensor, rows_UD: Tensor) -> tuple[Tensor, Tensor]:
        """All workers' ids and rows, one after the other in rank order; U may differ between workers and be 0."""


class SingleWorker:
    """The group of a training with one worker."""

    rank = 0
    size = 1

    def sum_(self, tensor: Tensor) -> None:
        pass

    def gather_rows(self, ids_U: Tensor, rows_UD: Tensor) -> tuple[Tensor, Tensor]:
        return ids_U, rows_UD
