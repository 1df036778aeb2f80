"""Attributes of users, rooms, streamers and products, sorted by id and memory-mapped.

A task finds its ids by binary search and touches only their rows; all tasks of a machine share the pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from models import catalogue
from models.catalogue import Attribute
from pipelines.encode.arrays import integers, present
from pipelines.encode.arrays import whole as single
from pipelines.encode.clock import NEVER
from pipelines.logs.canonical import CanonicalLogs
from pipelines.logs.values import tidied
from pipelines.prepare.timeline import find
from pipelines.runs.exchange import read_table, write_table

FAMILIES = {family.how.table: family for family in catalogue.FAMILIES if isinstance(family.how, Attribute)}
KEYS = {family.how.table: family.how.key for family in catalogue.FAMILIES if isinstance(family.how, Attribute)}
_ROWS = 500_000  # read at a time


def sort_table(logs: CanonicalLogs, table: str, columns: Sequence[str], output: Path) -> dict:
    """Writes `columns` of an attribute table to `output`, one row per id, ascending; the last of repeated ids counts."""
    key = KEYS[table]
    types = pa.schema([pa.field(key, pa.int64()), *(field for field in logs.types(table, columns) if field.name != key)])
    parts = [part for file in logs.parts(table) for part in file.batches(types, _ROWS)]
    whole = pa.concat_tables(parts).combine_chunks() if parts else types.empty_table()
    rows = len(whole)
    missing: dict[str, dict[str, int]] = {}
    for place, field in enumerate(types):
        column, found = tidied(single(whole[field.name]))
        if found:
            missing[field.name] = found
            whole = whole.set_column(place, field, column)
    whole = whole.filter(pa.array(present(whole[key])))
    ids = integers(whole[key])
    order = np.argsort(ids, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = ids[order][1:] != ids[order][:-1]
    write_table(output, whole.take(pa.array(order[last])))
    return {"rows": rows, "without_id": rows - len(ids), "ids": int(last.sum()), "missing": missing}


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
    def ids(self) -> np.ndarray:
        return integers(self.table[self.key])

    def of(self, ids: np.ndarray, columns: Sequence[str], missing: np.ndarray | None = None) -> pa.Table:
        """The columns' values for each id; null where the id or its value is not known, or `missing` says so."""
        place = find(self.ids, ids)
        unknown = place < 0 if missing is None else (place < 0) | missing
        rows = pa.array(place, mask=unknown)
        return self.table.select(list(columns)).take(rows)


def times(column: pa.ChunkedArray) -> np.ndarray:
    """A nullable column of times as int64, `NEVER` where missing."""
    return integers(column, NEVER)
