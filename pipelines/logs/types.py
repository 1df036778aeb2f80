"""What a column of a log may be written as, and how it is read: one plain type for all spellings of the same values."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.config import ConfigError
from pipelines.logs.ids import as_ids, is_number, is_text

# What a column holds. An id is an integer or a text (see `as_ids`), a time Unix milliseconds, an attribute any single value.
ID, TIME, DAY, COUNT, REAL, WORD, ATTRIBUTE = "id", "time", "time or day", "integer", "number", "string", "attribute"

# What was expected, and the way out.
EXPECTED: dict[str, tuple[str, str]] = {
    ID: ("int64 or string", "Cast it to one of them."),
    TIME: (
        "int64 (Unix milliseconds, UTC) or a timestamp",
        "Convert it, with polars: pl.col(...).str.to_datetime() for texts.",
    ),
    DAY: ("int64 (Unix milliseconds, UTC), a timestamp or a date", "Convert it, with polars: pl.col(...).str.to_datetime()."),
    COUNT: ("an integer", "Cast it to int32."),
    REAL: ("a number", "Cast it to float64."),
    WORD: ("string", "Write the action's name, for example `enter`."),
    ATTRIBUTE: ("a number, a string, a boolean or a time", "Turn it into one of them."),
}


_MONTH = re.compile(r"\d{4}-\d{2}")
_FIXED = {ID: pa.int64(), TIME: pa.int64(), DAY: pa.int64(), REAL: pa.float64(), WORD: pa.string()}


def plain_type(kind: pa.DataType, holds: str) -> pa.DataType | None:
    """The type that a column of Arrow type `kind` is read as; None where it does not hold that.

    Columns that are all missing (of type null) hold anything, and stay null where what they hold may be of several types.

    >>> plain_type(pa.decimal128(12, 2), REAL), plain_type(pa.timestamp("us", "UTC"), TIME), plain_type(pa.date32(), TIME)
    (DataType(double), DataType(int64), None)
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return _FIXED.get(holds, kind)
    match holds:
        case "id":
            return pa.int64() if is_text(kind) or is_number(kind) else None
        case "time":
            return pa.int64() if is_number(kind) or pa.types.is_timestamp(kind) else None
        case "time or day":
            return pa.int64() if is_number(kind) or _is_moment(kind) else None
        case "integer":
            return kind if pa.types.is_integer(kind) else pa.int64() if is_number(kind) else None
        case "number":
            return pa.float64() if is_number(kind) else None
        case "string":
            return pa.string() if is_text(kind) else None
    if is_text(kind):
        return pa.string()
    if _is_moment(kind):
        return pa.int64()
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind if is_number(kind) or pa.types.is_boolean(kind) else None


def as_plain(column: pa.Array, to: pa.DataType, holds: str) -> pa.Array:
    """A column as the type that `plain_type` and `common_type` gave for it. Times become Unix milliseconds; naive ones are UTC.

    Raises:
        ValueError: ids that are not whole, integers that are not, bytes that are not UTF-8.
    """
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_null(to):
        return pa.nulls(len(column), to)
    if holds == ID:
        return as_ids(column)
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if _is_moment(kind):
        return _milliseconds(column)
    if holds in (TIME, DAY):
        if not pa.types.is_integer(kind):
            column = column.cast(pa.float64())
            column = pc.if_else(pc.is_nan(column), None, column)
        return column.cast(pa.int64(), safe=False)  # what wraps is no plausible time, and is told as that
    if is_text(kind):
        try:
            text = column.cast(pa.string())
            text.validate(full=True)
        except pa.ArrowInvalid:
            raise ValueError("holds bytes that are not UTF-8. Write it as UTF-8 text.") from None
        return text
    if kind == to:
        return column
    if pa.types.is_integer(to) and not pa.types.is_integer(kind) and not pa.types.is_boolean(kind):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        return column.cast(to, safe=holds != REAL)  # a measure beyond 2**53 is a wild one, and loses its last digits
    except pa.ArrowInvalid as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"of type {kind} does not fit {to} ({why}). Mend these values, or leave them empty.") from None


def common_type(found: Iterable[tuple[pa.DataType, Path]], column: str) -> pa.DataType:
    """One type for a column's plain types in several files; the smallest that holds all their values.

    Raises:
        ConfigError: two files disagree: texts in one, numbers in the other.
    """
    common, first = pa.null(), Path()
    for kind, file in found:
        if pa.types.is_null(common):
            common, first = kind, file
        elif not pa.types.is_null(kind) and family(kind) != family(common):
            raise ConfigError(
                f"{file}: column `{column}` is {kind}, but {common} in {first}. Write one type in all files of a table."
            )
        elif not pa.types.is_null(kind):
            both = [pa.schema([(column, each)]) for each in (common, kind)]
            common = pa.unify_schemas(both, promote_options="permissive").field(0).type
    return common


def family(kind: pa.DataType) -> str:
    """Types that hold the same values in other widths are of one family."""
    return "string" if is_text(kind) else "number" if is_number(kind) else "time" if _is_moment(kind) else str(kind)


def of_path(values: list[str | None], holds: str) -> list[pa.Scalar]:
    """Values that stand in paths as a column would hold them: integers where all are spelled as such, numbers, days as times.

    Raises:
        ValueError: one of several is no time, or no number, where the others are.

    >>> [scalar.as_py() for scalar in of_path(["7", "-1", None], ATTRIBUTE)]
    [7, -1, None]
    >>> [scalar.as_py() for scalar in of_path(["07", "8"], ATTRIBUTE)], of_path(["1970-01-02"], DAY)[0].as_py()
    (['07', '8'], 86400000)
    """
    known = [value for value in values if value is not None]
    if known and holds in (TIME, DAY):
        return _scalars(values, _moment, pa.int64())
    if known and all(map(_is_integer, known)):
        return _scalars(values, int, pa.int64())
    return _scalars(values, _number, pa.float64()) if holds == REAL else _scalars(values, str, pa.string())


def _scalars(values: list[str | None], read: Callable[[str], Any], kind: pa.DataType) -> list[pa.Scalar]:
    return [pa.scalar(None if value is None else read(value), kind) for value in values]


def _number(spelled: str) -> float:
    try:
        return float(spelled)
    except ValueError:
        raise ValueError(f"`{spelled}` is no number.") from None


def _moment(spelled: str) -> int:
    """Unix milliseconds of a day (2025-11-29, 20251129), a month (its first day), a time (of no zone: UTC), or such a number.

    Raises:
        ValueError: it is none of these.
    """
    if _is_integer(spelled) and len(spelled) != len("20251129"):
        return int(spelled)
    try:
        moment = datetime.fromisoformat(f"{spelled}-01" if _MONTH.fullmatch(spelled) else spelled)
    except ValueError:
        raise ValueError(f"`{spelled}` is no time. Write it as 2025-11-29.") from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(milliseconds=1)


def _is_integer(spelled: str) -> bool:
    digits = spelled.removeprefix("-")
    return digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0") and len(digits) < 19


def _is_moment(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _milliseconds(column: pa.Array) -> pa.Array:
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    return column.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())
