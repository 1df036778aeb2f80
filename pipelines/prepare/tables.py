"""Attributes of users, rooms, streamers and products, sorted by id and memory-mapped.

A task finds its ids by binary search and touches only their rows; all tasks of a machine share the pages.

A table with a column `valid_from` has a row for each time that the attributes of an id changed, and is sorted by that as well.
As of a moment the latest row counts that begins at that moment or before it, as a whole: what is missing in it is missing.
Before its first row nothing is known of an id. Without the column a table has one row an id, which holds at all times.

    # Q questions: an id at a moment
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from models import catalogue
from models.catalogue import Attribute
from pipelines.encode.arrays import integers, present
from pipelines.encode.clock import NEVER
from pipelines.logs.canonical import VALID_FROM
from pipelines.prepare.timeline import codes, find
from pipelines.runs.exchange import read_table
from pipelines.runs.order import run_starts, spread

FAMILIES = {family.how.table: family for family in catalogue.FAMILIES if isinstance(family.how, Attribute)}
KEYS = {family.how.table: family.how.key for family in catalogue.FAMILIES if isinstance(family.how, Attribute)}


@dataclass(frozen=True)
class Attributes:
    """A sorted table; one without rows stands for a table that the log does not have."""

    key: str
    table: pa.Table

    @classmethod
    def open(cls, folder: Path, table: str) -> "Attributes":
        path = folder / f"{table}.arrow"
        return cls(KEYS[table], read_table(path) if path.exists() else pa.table({KEYS[table]: pa.array([], pa.int64())}))

    @property
    def changes(self) -> bool:
        """Whether what is known of an id depends on the moment."""
        return VALID_FROM in self.table.column_names

    @cached_property
    def ids(self) -> np.ndarray:
        """Distinct ones, ascending."""
        ids = self._id_of_row
        return ids[run_starts(ids)] if self.changes else ids

    def of(self, ids: np.ndarray, at: np.ndarray | None, columns: Sequence[str], missing: np.ndarray | None = None) -> pa.Table:
        """The columns' values for each id as of each moment; null where they are not known, or `missing` says so.

        Args:
            at: ms [Q]; a table that does not change is not asked for it.
        """
        row = self.rows(ids, at)
        unknown = row < 0 if missing is None else (row < 0) | missing
        return self.table.select(list(columns)).take(pa.array(row, mask=unknown))

    def rows(self, ids: np.ndarray, at: np.ndarray | None) -> np.ndarray:
        """The row of each id as of each moment, -1 where there is none, int64 [Q]."""
        if not self.changes:
            return find(self._id_of_row, ids)
        assert at is not None
        distinct, code = codes(ids)
        first, end = self._range(distinct)
        low, high = first[code], end[code]
        for _ in range(int((end - first).max(initial=0)).bit_length()):  # all questions halve the rows of their id at once
            middle = (low + high) >> 1
            is_open = low < high
            begun = is_open & (self._begins[np.where(is_open, middle, 0)] <= at)
            low, high = np.where(begun, middle + 1, low), np.where(is_open & ~begun, middle, high)
        return np.where(low > first[code], low - 1, -1)

    def early(self, ids: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Whether an id is known, but only from a later moment on, bool [Q]."""
        if not self.changes or not len(self.table):
            return np.zeros(len(ids), bool)
        distinct, code = codes(ids)
        first, end = self._range(distinct)
        begins = self._begins[np.minimum(first, len(self.table) - 1)]
        return (first < end)[code] & (begins[code] > at)

    def begun(self, ids: np.ndarray, at: int) -> np.ndarray:
        """Those of some ids of the table of which something is known at a moment."""
        return ids[~self.early(ids, np.full(len(ids), at))]

    def ever(self, ids: np.ndarray, column: str) -> tuple[pa.Array | pa.ChunkedArray, np.ndarray]:
        """Of distinct ids the first value that a column has, and since when; null and `NEVER` for none.

        In a table that does not change a value holds since ever, which is `NEVER` too.
        """
        since = np.full(len(ids), NEVER)
        if not self.changes:
            return self.of(ids, None, [column])[column], since
        first, end = self._range(ids)
        row, offsets = spread(first, end - first)
        known = present(self.table[column].take(pa.array(row)))
        of = np.repeat(np.arange(len(ids)), np.diff(offsets))[known]
        heads = run_starts(of)
        found = np.full(len(ids), -1)
        found[of[heads]] = row[known][heads]
        since[of[heads]] = self._begins[found[of[heads]]]
        return self.table[column].take(pa.array(found, mask=found < 0)), since

    def _range(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of each id begin and end."""
        return np.searchsorted(self._id_of_row, ids), np.searchsorted(self._id_of_row, ids, side="right")

    @property
    def _id_of_row(self) -> np.ndarray:
        return integers(self.table[self.key])

    @cached_property
    def _begins(self) -> np.ndarray:
        return integers(self.table[VALID_FROM])


def times(column: pa.ChunkedArray) -> np.ndarray:
    """A nullable column of times as int64, `NEVER` where missing."""
    return integers(column, NEVER)
