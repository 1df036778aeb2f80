"""Embedding tables of one width as one matrix, read once per batch.

    # R feeds, N candidates, L history length, F fields, D width, K looked-up rows, U different rows among them

A training step must not cost more because a vocabulary is large. So training reads the batch's different rows into a
small leaf tensor (`TableSet.gather`), differentiates with respect to that, and hands rows and gradients to an optimiser
that touches nothing else (`models.optim`). Without a leaf, rows are read from the whole matrix, which is what
prediction needs; autograd then works too, at the cost of a gradient as large as the tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import FeedBatch, HistoryBatch

TABLE_STD = 0.01


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Which table each field reads: field name -> table name, on each level and in each history."""

    feed: Mapping[str, str]
    candidate: Mapping[str, str]
    histories: Mapping[str, Mapping[str, str]]

    def tables(self) -> list[str]:
        """Every table once, in order of first mention."""
        names = [*self.feed.values(), *self.candidate.values()]
        for history in self.histories.values():
            names += history.values()
        return list(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The different rows that a batch reads.

    Attributes:
        ids_U: rows of the set's matrix, ascending, int64.
        rows_UD: their values: a leaf that wants a gradient.
        inverse_K: position in `ids_U` of every looked-up row, int64.
    """

    ids_U: Tensor
    rows_UD: Tensor
    inverse_K: Tensor


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Embedded fields, in the order of `Reads`; None where a level has no field of this width."""

    feed_RFD: Tensor | None
    candidate_NFD: Tensor | None
    histories: Mapping[str, Tensor]
    """[R, L, F, D] by history; histories without a field of this width are absent. With an entry of another user beside it
    (`batch.Others`), that is the last of L + 1."""


class TableSet(nn.Module):
    """Tables of one width, stacked: a table's row `i` is row `offset + i` of `weight`.

    Args:
        reads: which fields read which tables.
        table_sizes: rows of each table, row 0 (unknown or missing) included.
        width: D.
        std: deviation of the normal distribution the rows start from.

    Raises:
        ValueError: a table without a size, or a batch whose row lies outside its table.
    """

    padded_rows: Tensor

    def __init__(self, reads: Reads, table_sizes: Mapping[str, int], width: int, std: float = TABLE_STD) -> None:
        super().__init__()
        missing = [table for table in reads.tables() if table not in table_sizes]
        if missing:
            raise ValueError(f"no size for the tables {', '.join(missing)}; sizes are given for: {', '.join(table_sizes)}.")
        self.reads = reads
        self.width = width
        self.sizes = {table: table_sizes[table] for table in reads.tables()}
        starts, total = {}, 0
        for table, size in self.sizes.items():
            starts[table] = total
            total += size
        self.starts = starts
        self.weight = nn.Parameter(torch.randn(total, width) * std)
        self._groups = [("feed", reads.feed), ("candidate", reads.candidate), *reads.histories.items()]
        for index, (_, fields) in enumerate(self._groups):  # constants, so they move with the module but are not saved
            self.register_buffer(f"starts_{index}", _ints([starts[table] for table in fields.values()]), persistent=False)
            self.register_buffer(f"sizes_{index}", _ints([self.sizes[table] for table in fields.values()]), persistent=False)
        padded = sorted({starts[table] for history in reads.histories.values() for table in history.values()})
        self.register_buffer("padded_rows", _ints(padded), persistent=False)

    def table(self, name: str) -> Tensor:
        """One table's rows [size, D], a view."""
        return self.weight[self.starts[name] : self.starts[name] + self.sizes[name]]

    def gather(self, batch: FeedBatch) -> Gathered:
        """Reads the batch's different rows into a new leaf.

        Row 0 of a history's tables stands where histories are padded, so it is read from every batch: an optimiser moves what
        was read, and how long a worker's longest history is must not decide what it moves.
        """
        ids_K, _ = self._ids(batch)
        ids_U, inverse_K = torch.unique(torch.cat([ids_K, self.padded_rows]), return_inverse=True)
        rows_UD = self.weight.detach().index_select(0, ids_U).requires_grad_()
        return Gathered(ids_U=ids_U, rows_UD=rows_UD, inverse_K=inverse_K[: len(ids_K)])

    def forward(self, batch: FeedBatch, gathered: Gathered | None = None) -> Looked:
        """Embeds all fields of the set with one gather, from `gathered` if given and from the whole matrix if not."""
        if gathered is None:
            ids_K, shapes = self._ids(batch)
            values_KD = self.weight.index_select(0, ids_K)
        else:
            shapes = self._shapes(batch)
            values_KD = gathered.rows_UD.index_select(0, gathered.inverse_K)
        blocks = values_KD.split([_count(shape) for shape in shapes])
        feed_RFD, candidate_NFD, *histories = [  # by place: a history may be called `feed`
            block.view(*shape, self.width) if fields else None
            for (_, fields), block, shape in zip(self._groups, blocks, shapes, strict=True)
        ]
        named = zip(self.reads.histories, histories, strict=True)
        found = {name: block_RLFD for name, block_RLFD in named if block_RLFD is not None}
        return Looked(feed_RFD=feed_RFD, candidate_NFD=candidate_NFD, histories=found)

    def _columns(self, batch: FeedBatch) -> list[tuple[str, Mapping[str, Tensor], tuple[int, ...]]]:
        return [
            ("feed", batch.feed, (batch.feeds,)),
            ("candidate", batch.candidate, (batch.candidates,)),
            *((name, *_with_others(batch.histories[name])) for name in self.reads.histories),
        ]

    def _shapes(self, batch: FeedBatch) -> list[tuple[int, ...]]:
        groups = zip(self._groups, self._columns(batch), strict=True)
        return [(*shape, len(fields)) for (_, fields), (_, _, shape) in groups]

    def _ids(self, batch: FeedBatch) -> tuple[Tensor, list[tuple[int, ...]]]:
        """Rows of `weight` for all fields, flat, and the shape of every group among them."""
        parts = []
        for index, ((name, fields), (_, columns, _)) in enumerate(zip(self._groups, self._columns(batch), strict=True)):
            if not fields:
                continue
            rows = torch.stack([columns[field] for field in fields], dim=-1)
            if bool(((rows < 0) | (rows >= getattr(self, f"sizes_{index}"))).any()):
                self._complain(name, fields, columns)
            parts.append((rows + getattr(self, f"starts_{index}")).reshape(-1))
        return torch.cat(parts), self._shapes(batch)

    def _complain(self, group: str, fields: Mapping[str, str], columns: Mapping[str, Tensor]) -> None:
        for field, table in fields.items():
            low, high = int(columns[field].min()), int(columns[field].max())
            if low < 0 or high >= self.sizes[table]:
                raise ValueError(
                    f"{group} field `{field}` holds rows from {low} to {high}, but table `{table}` has rows 0 to "
                    f"{self.sizes[table] - 1}. Were these feeds encoded by another encoder than the model's?"
                )


def _with_others(history: HistoryBatch) -> tuple[Mapping[str, Tensor], tuple[int, ...]]:
    """Rows by field and their shape; an entry of another user stands behind the padding."""
    feeds, length = history.is_real_RL.shape
    if history.others is None:
        return history.rows, (feeds, length)
    others = history.others.rows
    return {name: torch.cat([rows, others[name].unsqueeze(1)], dim=1) for name, rows in history.rows.items()}, (
        feeds,
        length + 1,
    )


def _ints(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
