"""The ranks of a training run, over `torch.distributed` (gloo on CPU, NCCL on GPU).

Every function here is collective: all ranks call it, in the same order.
"""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from models.learners.workers import WorkerGroup

PIECE_BYTES = 64 << 20  # that a rank sends in one operation: far below a second even on a slow network


class TorchGroup:
    """The `WorkerGroup` of the default process group, which whoever starts the workers has set up (Ray Train, a test).

    Tensors lie on the device of the group's backend.
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


def device_of_group() -> torch.device:
    """Where tensors must lie that go through the default process group."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def exchange_bytes(parts: Sequence[bytes], group: WorkerGroup) -> list[bytes | bytearray]:
    """Sends `parts[r]` to rank r; returns what every rank sent to this one, in rank order.

    However long the parts are, no single operation moves more than `PIECE_BYTES` out of a rank, so none lasts long.

    # W ranks
    """
    if group.size == 1:
        return list(parts)
    device = device_of_group()
    lengths_WW = torch.zeros(group.size, group.size, dtype=torch.int64, device=device)  # from rank, to rank
    lengths_WW[group.rank] = torch.tensor([len(part) for part in parts])
    group.sum_(lengths_WW)
    lengths = lengths_WW.tolist()
    piece = max(1, PIECE_BYTES // group.size)
    received = [bytearray(row[group.rank]) for row in lengths]
    for start in range(0, max(map(max, lengths)), piece):
        length = lambda source, target: min(max(lengths[source][target] - start, 0), piece)  # noqa: B023
        out = [length(group.rank, target) for target in range(group.size)]
        into = [length(source, group.rank) for source in range(group.size)]
        sent = np.frombuffer(b"".join(part[start : start + piece] for part in parts), np.uint8)
        got = torch.empty(sum(into), dtype=torch.uint8, device=device)
        dist.all_to_all_single(got, torch.tensor(sent, device=device), into, out)
        for target, some in zip(received, got.cpu().split(into), strict=True):
            target[start : start + len(some)] = some.numpy().tobytes()
    return list(received)


def all_objects(value: Any, group: WorkerGroup) -> list[Any]:
    """Every rank's small picklable value in rank order, on every rank."""
    if group.size == 1:
        return [value]
    spelled = pickle.dumps(value)
    return [pickle.loads(part) for part in exchange_bytes([spelled] * group.size, group)]


def from_rank_0(value: Any, group: WorkerGroup) -> Any:
    """Rank 0's small picklable value, on every rank."""
    return all_objects(value if group.rank == 0 else None, group)[0]
