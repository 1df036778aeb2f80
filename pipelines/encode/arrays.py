"""Columns of a feed table as flat arrays and back: what derivation and encoding share."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array; copies only where it has several chunks."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def arrays_of(table: pa.Table) -> dict[str, pa.Array]:
    """Every column as one array; looking one up is then free of Arrow's cost per call."""
    return {name: whole(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def lengths(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Length of every list, int64; a missing list has length 0."""
    array = whole(column)
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64)
    if array.null_count:
        return array.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    return np.diff(array.offsets.to_numpy()).astype(np.int64)


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """All values of all lists in a row; a column that is no list as it is."""
    array = whole(column)
    return array.flatten() if is_list(array.type) else array


def floats(array: pa.Array) -> np.ndarray:
    """Values as float64, NaN where missing.

    Raises:
        ValueError: the values are not numbers.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"holds {kind}, which is not a number.")
    return array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def in_lists(values: np.ndarray | pa.Array, lengths: np.ndarray, kind: pa.DataType | None = None) -> pa.ListArray:
    """Flat values cut into lists of the given lengths; NaN becomes null."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    array = values if isinstance(values, pa.Array) else nullable(values, kind)
    return pa.ListArray.from_arrays(pa.array(offsets), array)


def nullable(values: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    """An Arrow array in which NaN is null."""
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        if missing.any():
            return pa.array(values, kind, mask=missing)
    return pa.array(values, kind)


def integers(column: pa.ChunkedArray | pa.Array, missing: int = 0) -> np.ndarray:
    """An integer column as int64 with `missing` for nulls."""
    filled = pc.fill_null(column, missing) if column.null_count else column
    return filled.to_numpy().astype(np.int64, copy=False)


def present(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """True where a column has a value."""
    if not column.null_count:
        return np.ones(len(column), bool)
    return (
        pc.is_valid(column).to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else pc.is_valid(column).to_numpy()
    )
