"""Ids as int64, the same on every machine, in every version, offline and in the endpoint."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

_LOW_63_BITS = (1 << 63) - 1


def as_ids(column: pa.Array | pa.ChunkedArray) -> pa.Int64Array:
    """Turns a column of ids into int64. Integers pass through, strings are hashed, null stays null.

    A string becomes the low 63 bits of the xxHash64 (seed 0) of its UTF-8 bytes, so it is never negative. With a
    million distinct strings two of them share an id with a probability of about 5e-8.

    Raises:
        ValueError: floats (they do not hold large ids exactly) and every other type that names nothing.

    >>> as_ids(pa.array([7, None])).to_pylist()
    [7, None]
    >>> as_ids(pa.array(["room-7", "room-7"])).to_pylist()
    [1295752840305592928, 1295752840305592928]
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # several chunks stay several where their type overflows one
            column = pa.concat_arrays([as_ids(chunk) for chunk in column.chunks])
    kind = column.type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.int64())
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise ValueError(f"an id of type {kind} is larger than int64 holds; write such ids as strings.") from None
    if pa.types.is_dictionary(kind):
        return as_ids(column.dictionary).take(column.indices.cast(pa.int64()))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        encoded = pc.dictionary_encode(column)
        return _hashed(encoded.dictionary).take(encoded.indices)
    raise ValueError(f"ids are integers or strings, got a column of type {kind}; cast it before it becomes a log.")


def _hashed(strings: pa.Array) -> pa.Int64Array:
    hashes = [xxhash.xxh64_intdigest(utf8) & _LOW_63_BITS for utf8 in strings.cast(pa.large_binary()).to_pylist()]
    return pa.array(np.array(hashes, dtype=np.int64))
