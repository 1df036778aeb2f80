"""The workers of a training run, over `torch.distributed` (gloo on CPU, NCCL on GPU)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from models.learners.workers import WorkerGroup


class TorchWorld:
    """The `World` of the default process group, which whoever starts the workers has set up (Ray Train, a test).

    All methods are collective: every rank calls them in the same order, with tensors on the device of its backend.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def sum_(self, tensor: Tensor) -> None:
        """Adds the tensors of all ranks, in place; of equal shape and dtype on every rank."""
        dist.all_reduce(tensor)

    def gather_rows(self, ids_U: Tensor, rows_UD: Tensor) -> tuple[Tensor, Tensor]:
        """All ranks' ids and rows, concatenated in rank order; U may differ from rank to rank and be 0."""
        counts_W = torch.zeros(self.size, dtype=torch.int64, device=ids_U.device)
        counts_W[self.rank] = len(ids_U)
        self.sum_(counts_W)
        counts = counts_W.tolist()
        return self._gather(ids_U, counts), self._gather(rows_UD, counts)

    def _gather(self, values_U: Tensor, counts: list[int]) -> Tensor:
        # gloo gathers equal shapes only, so all are padded to the longest.
        padded = values_U.new_zeros(max(counts), *values_U.shape[1:])
        padded[: len(values_U)] = values_U
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_objects(value: Any, world: WorkerGroup) -> list[Any] | None:
    """Every rank's picklable value in rank order, on rank 0; None elsewhere."""
    if world.size == 1:
        return [value]
    values = [None] * world.size if world.rank == 0 else None
    dist.gather_object(value, values)
    return values


def from_rank_0(value: Any, world: WorkerGroup) -> Any:
    """Rank 0's value, on every rank."""
    if world.size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
