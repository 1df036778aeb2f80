"""Ids as int64, the same on every machine, in every version, offline and in the endpoint.

A log's ids are integers or texts. An integer is itself; a text becomes the low 63 bits of the xxHash64 (seed 0) of its
UTF-8 bytes, so it is never negative (with a million distinct texts two of them share an id with a probability of about
5e-8). An integer that int64 does not hold goes by its decimal digits, as a text. An empty text names nothing.
"""

import re
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

IdKind = Literal["integer", "text"]
LARGEST_WHOLE = 2**53  # below it a float64 holds every integer
_LOW_63_BITS = (1 << 63) - 1
_INTEGER = re.compile(rb"0|-?[1-9][0-9]*")


def is_text(kind: pa.DataType) -> bool:
    """Text, or bytes that may be; in whatever layout."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def id_kind(kind: pa.DataType) -> IdKind | None:
    """What ids of a column of this Arrow type are; None where it holds none."""
    return "text" if is_text(kind) else "integer" if is_number(kind) else None


def as_ids(column: pa.Array | pa.ChunkedArray, kind: IdKind | None = None) -> pa.Int64Array:
    """Turns a column of ids into int64; null and empty texts become null.

    Args:
        kind: what the log's ids are, where the column may spell them otherwise (JavaScript must send large integers as
            text): of "integer", a text of decimal digits is that integer; of "text", an integer is the text of its
            digits. By default the column is taken as it is.

    Raises:
        ValueError: a float or decimal that is not whole, a float of 2**53 or more (it has lost digits), and every other
            type that names nothing.

    >>> as_ids(pa.array([7, None])).to_pylist()
    [7, None]
    >>> as_ids(pa.array(["room-7", "room-7", ""])).to_pylist()
    [1295752840305592928, 1295752840305592928, None]
    >>> as_ids(pa.array(["7300000000000000001"]), "integer").to_pylist()
    [7300000000000000001]
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # several chunks stay several where their type overflows one
            column = pa.concat_arrays([as_ids(chunk, kind) for chunk in column.chunks])
    given = column.type
    if pa.types.is_null(given):
        return pa.nulls(len(column), pa.int64())
    if pa.types.is_dictionary(given):
        return as_ids(column.dictionary, kind).take(column.indices.cast(pa.int64()))
    if is_text(given):
        encoded = pc.dictionary_encode(column)
        return _of_texts(encoded.dictionary, digits=kind == "integer").take(encoded.indices)
    if pa.types.is_floating(given):
        column = _whole(column)
    elif pa.types.is_decimal(given):
        try:
            column = column.cast(pa.decimal256(76, 0))
        except pa.ArrowInvalid:
            raise ValueError(f"ids are whole numbers, but this column of type {given} holds fractions.") from None
    elif not pa.types.is_integer(given):
        raise ValueError(f"ids are integers or strings, got a column of type {given}; cast it before it becomes a log.")
    if kind == "text":
        return as_ids(column.cast(pa.string()))
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        encoded = pc.dictionary_encode(column.cast(pa.string()))
        return _of_texts(encoded.dictionary, digits=True).take(encoded.indices)


def _whole(floats: pa.Array) -> pa.Array:
    numbers = floats.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    missing = np.isnan(numbers)
    lost = ~missing & ((np.abs(numbers) >= LARGEST_WHOLE) | (numbers != np.floor(numbers)))
    if lost.any():
        found = float(numbers[np.flatnonzero(lost)[0]])
        raise ValueError(
            f"ids are whole numbers, but this column of type {floats.type} holds {found:.17g}; floats lose the digits of large "
            "ids. Write it as int64 or string."
        )
    return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing)


def id_of(text: str, kind: IdKind | None = None) -> int | None:
    """One text as `as_ids` turns it into an id.

    Args:
        kind: as in `as_ids`.
    """
    return _of_text(text.encode(), digits=kind == "integer")


def _of_texts(texts: pa.Array, *, digits: bool) -> pa.Int64Array:
    spelled = texts.cast(pa.large_binary()).to_pylist()
    return pa.array([None if utf8 is None else _of_text(utf8, digits=digits) for utf8 in spelled], pa.int64())


def _of_text(utf8: bytes, *, digits: bool) -> int | None:
    if not utf8:
        return None
    return _of_digits(utf8) if digits else xxhash.xxh64_intdigest(utf8) & _LOW_63_BITS


def _of_digits(utf8: bytes) -> int:
    if _INTEGER.fullmatch(utf8) and -(2**63) <= (number := int(utf8)) < 2**63:
        return number
    return xxhash.xxh64_intdigest(utf8) & _LOW_63_BITS
