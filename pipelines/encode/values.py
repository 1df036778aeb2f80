"""Columns of a feature table as the encoder reads them: flat values, checked against the schema's encoding of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.config import ConfigError
from models.schema import Number
from pipelines.encode.arrays import floats, is_list, lengths
from pipelines.encode.numbers import logarithm, measured, standard
from pipelines.encode.rows import BinRows, TableRows
from pipelines.encode.state import Scale
from pipelines.logs.ids import as_ids

SHARES = np.linspace(0, 1, 257)  # at which labels' quantiles are kept


@dataclass(frozen=True)
class Lists:
    """How flat values are cut into the lists of a table's rows."""

    lengths: np.ndarray
    starts: np.ndarray  # one more than lists, int32; the last is the number of values
    offsets: pa.Array

    @classmethod
    def of(cls, lists: pa.Array) -> "Lists":
        count = lengths(lists)
        starts = np.zeros(len(count) + 1, np.int32)
        np.cumsum(count, out=starts[1:])
        return cls(count, starts, pa.array(starts))

    def flat(self, arrays: Mapping[str, pa.Array], name: str) -> pa.Array:
        column = column_of(arrays, name)
        if pa.types.is_null(column.type):
            return pa.nulls(int(self.starts[-1]))
        if not is_list(column.type):
            raise ConfigError(f"column `{name}` holds one {column.type} a feed where a list is needed.")
        if len(column) and not column.null_count:
            offsets = column.offsets.to_numpy()
            if np.array_equal(offsets - offsets[0], self.starts):
                return column.values.slice(offsets[0], self.starts[-1])  # as `flatten`, at a tenth of its cost per call
        found = lengths(column)
        if not np.array_equal(found, self.lengths):
            row = int(np.flatnonzero(found != self.lengths)[0])
            raise ConfigError(f"column `{name}` holds {found[row]} values in row {row} where {self.lengths[row]} are needed.")
        return column.flatten()

    def cut(self, values: np.ndarray) -> pa.Array:
        return pa.ListArray.from_arrays(self.offsets, pa.array(values))


def one_a_feed(arrays: Mapping[str, pa.Array], name: str) -> pa.Array:
    column = column_of(arrays, name)
    if is_list(column.type):
        raise ConfigError(f"column `{name}` holds {column.type} where one value a feed is needed.")
    return column


def rows_of(values: pa.Array, column: str, table: TableRows) -> np.ndarray:
    if isinstance(table, BinRows):
        return table.rows(floats_of(values, column))
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):  # every distinct value is looked up once
        rows = np.append(rows_of(ids_of(values.dictionary, column), column, table), np.int32(0))  # the last: for missing ones
        return rows[values.indices.fill_null(len(rows) - 1).to_numpy()]
    ids = ids_of(values, column)
    if not ids.null_count:
        return table.rows(ids.to_numpy())
    rows = table.rows(ids.fill_null(0).to_numpy())
    rows[ids.is_null().to_numpy(zero_copy_only=False)] = 0
    return rows


def transformed(values: pa.Array, column: str, how: Number) -> np.ndarray:
    """float64 after the transform, NaN where missing: under log1p, what is below zero as well."""
    numbers = floats_of(values, column)
    return logarithm(numbers) if how.transform == "log1p" else numbers


def standardised(values: pa.Array, column: str, how: Number, scale: Scale) -> np.ndarray:
    """float32, 0 where missing, wild numbers included."""
    return standard(transformed(values, column, how), scale.mean, scale.deviation, scale.wild_from)


def floats_of(values: pa.Array, column: str) -> np.ndarray:
    """float64, NaN where missing; infinite numbers and those that float32 does not hold measure nothing, and are missing."""
    try:
        return measured(floats(values))
    except ValueError as error:
        raise ConfigError(f"column `{column}` {error} Encode it as a vocabulary or a hash.") from None


def ids_of(values: pa.Array, column: str) -> pa.Array:
    if pa.types.is_int64(values.type):
        return values
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_dictionary(values.type) and pa.types.is_boolean(values.type.value_type):
        values = values.dictionary_decode().cast(pa.int8())
    try:
        return as_ids(values)
    except ValueError as error:
        raise ConfigError(f"column `{column}`: {error}") from None


def column_of(arrays: Mapping[str, pa.Array], name: str) -> pa.Array:
    if name not in arrays:
        raise ConfigError(f"the feature table has no column `{name}`, which the schema reads. It has: {', '.join(arrays)}.")
    return arrays[name]


def stage_means(arrays: Mapping[str, pa.Array], columns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Running preferences of the targets that stages are told by."""
    return {rate: floats_of(one_a_feed(arrays, column), column) for rate, column in columns.items()}
