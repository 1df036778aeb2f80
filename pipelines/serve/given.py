"""Values that a request gives, and what the store holds, as arrays."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from pipelines.encode.arrays import whole
from pipelines.encode.clock import NEVER, hours_since
from pipelines.logs.ids import IdKind, as_ids
from pipelines.serve.request import Place, RequestError, Value

Kind = Literal["id", "number"]
HASHED = "xxh64:"  # before the number that stands for a text id in prepared tables
_SPELLED = re.compile(HASHED + r"([0-9]{1,19})")
TYPES: dict[Kind, pa.DataType] = {"id": pa.int64(), "number": pa.float64()}


def array_of(values: Sequence[Value], kind: Kind, places: Sequence[Place], ids: IdKind | None = None) -> pa.Array:
    """Values of a request as int64 or float64.

    Args:
        ids: what the log's were, for a column of ids.

    Raises:
        RequestError: text where a number is needed, or a number with a fraction where something is named.
    """
    if kind == "number":
        for value, place in zip(values, places, strict=True):
            if isinstance(value, str):
                raise RequestError(place, f"is {value!r}, but this column holds numbers.")
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    for value, place in zip(values, places, strict=True):
        if isinstance(value, float):
            raise RequestError(place, f"is {value!r}, but this column holds ids or names: integers or text.")
    return pa.array(integers_of(values, ids), pa.int64())


def integers_of(values: Sequence[Value], ids: IdKind | None = None) -> list[int | None]:
    """Values that name something as the integers that stand for them, as in logs; both spellings of an id are the same id.

    Args:
        ids: what the log's were: of integers, a text of digits is its number; of texts, a number is the text of its digits.
            None where the log had none, or for words: a text stands for itself, and so does a number.
    """
    if ids == "text":
        values = [str(value) if type(value) is int else value for value in values]
    texts = sorted({value for value in values if isinstance(value, str)})
    if not texts:
        return [None if value is None else int(value) for value in values]
    known = dict(zip(texts, as_ids(pa.array(texts), ids).to_pylist(), strict=True))
    if ids == "text":
        found = {text: int(match[1]) for text in texts if (match := _SPELLED.fullmatch(text))}
        known |= {text: id for text, id in found.items() if id < 2**63}
    return [known[value] if isinstance(value, str) else None if value is None else int(value) for value in values]


def spelled(id: int, ids: IdKind | None) -> int | str:
    """An id of prepared tables as a request may give it: tables keep the hashes of a log's texts, not the texts."""
    return f"{HASHED}{id}" if ids == "text" else id


def plain(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values with 0 where missing, and whether each is known."""
    array = whole(array)
    known = array.is_valid().to_numpy(zero_copy_only=False)
    return array.fill_null(0).to_numpy(), known


def one_list(values: pa.Array) -> pa.ListArray:
    """The values as the one list of one feed."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def hours_before(moments: np.ndarray, known: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Hours up to the request, as offline: float32, and missing where nothing happened before."""
    hours = hours_since(np.where(known & (moments < at), moments, NEVER), np.full(len(moments), at))
    return hours, ~np.isnan(hours)
