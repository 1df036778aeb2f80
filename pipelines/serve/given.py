"""Values that a request gives, and what the store holds, as arrays."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from pipelines.encode.arrays import whole
from pipelines.encode.clock import NEVER, hours_since
from pipelines.logs.ids import as_ids
from pipelines.serve.request import RequestError, Value

Kind = Literal["id", "number"]
Place = tuple[str | int, ...]  # of a value in the body of a request
TYPES: dict[Kind, pa.DataType] = {"id": pa.int64(), "number": pa.float64()}


def array_of(values: Sequence[Value], kind: Kind, places: Sequence[Place]) -> pa.Array:
    """Values of a request as int64 or float64.

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
    return pa.array(integers_of(values), pa.int64())


def integers_of(values: Sequence[Value]) -> list[int | None]:
    """Text as the id it stands for, as in logs; numbers and truth values as they are."""
    texts = sorted({value for value in values if isinstance(value, str)})
    if not texts:
        return [None if value is None else int(value) for value in values]
    ids = dict(zip(texts, as_ids(pa.array(texts)).to_pylist(), strict=True))
    return [ids[value] if isinstance(value, str) else None if value is None else int(value) for value in values]


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
