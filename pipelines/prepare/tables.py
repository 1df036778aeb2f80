"""Attributes of users, rooms, streamers and products, sorted by id and memory-mapped.

A task finds its ids by binary search and touches only their rows; all tasks of a machine share the pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models import catalogue
from models.catalogue import Attribute
from pipelines.encode.arrays import integers, present
from pipelines.encode.clock import NEVER
from pipelines.logs.canonical import CanonicalLogs
from pipelines.logs.ids import as_ids
from pipelines.prepare.exchange import read_table, write_table
from pipelines.prepare.timeline import find

FAMILIES = {family.how.table: family for family in catalogue.FAMILIES if isinstance(family.how, Attribute)}
KEYS = {family.how.table: family.how.key for family in catalogue.FAMILIES if isinstance(family.how, Attribute)}


def common_types(files: Iterable[Path], columns: Iterable[str]) -> pa.Schema:
    """Of these columns, those that some file has, with a type that holds all files' values; words as strings."""
    wanted = sorted(set(columns))
    found: list[pa.Schema] = []
    for file in files:
        schema = pq.read_schema(file)
        fields = [schema.field(name) for name in wanted if name in schema.names]
        found.append(pa.schema([pa.field(field.name, _plain(field.type)) for field in fields]))
    return pa.unify_schemas(found, promote_options="permissive") if found else pa.schema([])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def sort_table(logs: CanonicalLogs, table: str, columns: Sequence[str], output: Path) -> dict:
    """Writes `columns` of an attribute table to `output`, one row per id, ascending; the last of repeated ids counts."""
    key = KEYS[table]
    types = common_types(logs.files(table), columns)
    parts = []
    rows = 0
    for file in logs.files(table):
        there = pq.read_schema(file).names
        part = pq.read_table(file, columns=[key, *(name for name in types.names if name in there)], use_threads=False)
        rows += len(part)
        cast = {
            field.name: part[field.name].cast(field.type) if field.name in there else pa.nulls(len(part), field.type)
            for field in types
        }
        parts.append(pa.table({key: as_ids(part[key]), **cast}))
    whole = pa.concat_tables(parts).combine_chunks()
    whole = whole.filter(pa.array(present(whole[key])))
    ids = integers(whole[key])
    order = np.argsort(ids, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = ids[order][1:] != ids[order][:-1]
    write_table(output, whole.take(pa.array(order[last])))
    return {"rows": rows, "ids": int(last.sum())}


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
