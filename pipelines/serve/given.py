"""Values that a request gives as arrays."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipelines.encode.clock import NEVER, hours_since
from pipelines.encode.plan import Flat
from pipelines.logs.ids import IdKind, id_of
from pipelines.serve.request import Place, RequestError, Value

Kind = Literal["id", "number"]
HASHED = "xxh64:"  # before the number that stands for a text id in prepared tables
_SPELLED = re.compile(HASHED + r"([0-9]{1,19})")
DTYPES: dict[Kind, type] = {"id": np.int64, "number": np.float64}


def flat_of(values: Sequence[Value], kind: Kind, places: Sequence[Place], ids: IdKind | None = None) -> Flat:
    """Values of a request as int64 or float64.

    Args:
        ids: what the log's were, for a column of ids.

    Raises:
        RequestError: text where a number is needed, or a number with a fraction where something is named.
    """
    numbers: list[int | float | None] = []
    for value, place in zip(values, places, strict=True):
        if kind == "number" and isinstance(value, str):
            raise RequestError(place, f"is {_shown(value)}, but this column holds numbers.")
        if kind == "id" and isinstance(value, float):
            raise RequestError(place, f"is {value!r}, but this column holds ids or names: integers or text.")
        numbers.append(value if kind == "number" and not isinstance(value, str) else integer_of(value, ids))
    known = [number is not None for number in numbers]
    return Flat(np.array([number or 0 for number in numbers], DTYPES[kind]), np.array(known, np.bool_))


def integer_of(value: Value, ids: IdKind | None = None) -> int | None:
    """The integer that stands for what names something, as in logs; both spellings of an id are the same id.

    Args:
        ids: what the log's were: of integers, a text of digits is its number; of texts, a number is the text of its digits.
            None where the log had none, or for words: a text stands for itself, and so does a number.
    """
    if value is None:
        return None
    if ids == "text":
        value = str(value) if type(value) is int else value
        if isinstance(value, str) and (spelled := _SPELLED.fullmatch(value)) and (number := int(spelled[1])) < 2**63:
            return number
    return id_of(value, ids) if isinstance(value, str) else int(value)


def spelled(id: int, ids: IdKind | None) -> int | str:
    """An id of prepared tables as a request may give it: tables keep the hashes of a log's texts, not the texts."""
    return f"{HASHED}{id}" if ids == "text" else id


def hours_before(moments: np.ndarray, known: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hours up to the request, as offline: float32, and missing where nothing happened before."""
    hours = hours_since(np.where(known & (moments < at), moments, NEVER), at)
    return hours, ~np.isnan(hours)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 50 else f"{text[:50]}...")
