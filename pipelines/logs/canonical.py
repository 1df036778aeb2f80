"""The canonical log tables: which columns they have, where their files lie, and an early look at whether they fit.

A canonical log is a folder of Parquet: a table is `NAME.parquet` or a folder `NAME/` of Parquet files, in any order of
rows. `impressions` and `engagements` must be there. Times are Unix milliseconds, UTC.

`check` reads nothing but the footers of the files, so it is over in a moment even on logs of terabytes, before anything
long is started. Rows themselves are judged, and quarantined, by the prepare step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from models.config import ConfigError, config


@config
class Column:
    """What one column holds, how to bring another type there, and whether a table can do without it."""

    holds: str
    required: bool = True


# An id is an integer or a string (see `as_ids`), a time int64 milliseconds, an attribute any single number or word.
_ID, _TIME, _COUNT, _REAL, _WORD, _ATTRIBUTE = "id", "time", "integer", "number", "string", "attribute"


def _may(holds: str) -> Column:
    return Column(holds=holds, required=False)


TABLES: dict[str, dict[str, Column]] = {
    "impressions": {
        "request_id": _may(_ID),
        "user_id": Column(holds=_ID),
        "room_id": Column(holds=_ID),
        "shown_at": Column(holds=_TIME),
        "position": _may(_COUNT),
        "context.*": _may(_ATTRIBUTE),  # of the feed: device, scene, ...
        "state.*": _may(_ATTRIBUTE),  # of the room at the moment shown: viewers, product on screen, ...
    },
    "engagements": {
        "user_id": Column(holds=_ID),
        "room_id": Column(holds=_ID),
        "at": Column(holds=_TIME),
        "action": Column(holds=_WORD),  # enter, goods_bag, product_click, follow, comment, like, order, ...
        "value": _may(_REAL),  # seconds of stay for `enter`, price for `order`
        "request_id": _may(_ID),
    },
    "product_clicks": {"user_id": Column(holds=_ID), "product_id": Column(holds=_ID), "at": Column(holds=_TIME)},
    "users": {"user_id": Column(holds=_ID), "*": _may(_ATTRIBUTE)},
    "rooms": {
        "room_id": Column(holds=_ID),
        "streamer_id": _may(_ID),
        "start_at": _may(_TIME),
        "end_at": _may(_TIME),
        "*": _may(_ATTRIBUTE),
    },
    "streamers": {"streamer_id": Column(holds=_ID), "*": _may(_ATTRIBUTE)},
    "products": {"product_id": Column(holds=_ID), "*": _may(_ATTRIBUTE)},
}
REQUIRED_TABLES = ("impressions", "engagements")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


# What a column holds: (does this type hold it, what was expected, the way out).
_FITS: dict[str, tuple[Callable[[pa.DataType], bool], str, str]] = {
    _ID: (
        lambda kind: pa.types.is_integer(kind) or _is_text(kind),
        "int64 or string",
        "Cast it to one of them; floats lose large ids.",
    ),
    _TIME: (
        lambda kind: kind in (pa.int64(), pa.uint64()),
        "int64 (Unix milliseconds, UTC)",
        "Convert it, for timestamps with polars: pl.col(...).dt.epoch('ms').",
    ),
    _COUNT: (pa.types.is_integer, "an integer", "Cast it to int32."),
    _REAL: (_is_number, "float64", "Cast it to float64."),
    _WORD: (_is_text, "string", "Write the action's name, for example `enter`."),
    _ATTRIBUTE: (
        lambda kind: _is_number(kind) or _is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind),
        "a number, a string or a boolean",
        "Turn it into one of them or leave the column out.",
    ),
}
_YEAR_2000, _YEAR_2100 = 946_684_800_000, 4_102_444_800_000  # Unix milliseconds


@dataclass(frozen=True)
class CanonicalLogs:
    """A folder of canonical log tables."""

    path: Path

    def has(self, table: str) -> bool:
        return bool(self.files(table))

    def files(self, table: str) -> list[Path]:
        """The Parquet files of a table in order of their names; none if the log has no such table.

        Raises:
            KeyError: no canonical table has that name.
            ConfigError: there is both a file and a folder of that name.
        """
        if table not in TABLES:
            raise KeyError(f"no canonical table `{table}`; there are: {', '.join(TABLES)}")
        single, folder = self.path / f"{table}.parquet", self.path / table
        if folder.exists() and single.exists():
            raise ConfigError(f"{self.path} has both {folder.name}/ and {single.name}. Leave one of them.")
        if single.is_file():
            return [single]
        if single.is_dir():  # as Spark writes them
            folder = single
        return sorted(file for file in folder.glob("**/*.parquet") if not _is_hidden(file.relative_to(folder)))

    def fingerprint(self) -> str:
        """16 hex digits that change with any file's name, size or footer (which holds its rows, offsets and ranges).

        Copies of a log have the same fingerprint: times of files are not looked at.
        """
        digest = xxhash.xxh64()
        for table in TABLES:
            for file in self.files(table):
                digest.update(f"{file.relative_to(self.path)}\0{file_digest(file)}\0".encode())
        return digest.hexdigest()

    @property
    def truth(self) -> Path | None:
        """Where a simulator left its truth (beside the log, never in it); None for logs of the real world."""
        folder = self.path.parent / "truth"
        return folder if (folder / "impressions.parquet").is_file() else None


def check(logs: CanonicalLogs) -> list[str]:
    """Looks at the footers of all files; returns remarks on columns that no one will read.

    Raises:
        ConfigError: a table, column or row is missing, a column has the wrong type, a file is no whole Parquet file,
            ids or attributes change their type from file to file or ids from table to table, or all times of a file
            lie outside of 2000-2100 (seconds or microseconds instead of milliseconds).
    """
    if not logs.path.is_dir():
        raise ConfigError(f"there are no logs at {logs.path}: not a folder. Expected one with {_needed()}.")
    remarks: list[str] = []
    id_kinds: dict[str, tuple[str, Path]] = {}  # ids are compared across tables, so they are all integers or all strings
    for table, columns in TABLES.items():
        files = logs.files(table)
        if not files:
            if table in REQUIRED_TABLES:
                there = ", ".join(sorted(entry.name for entry in logs.path.iterdir())) or "nothing"
                raise ConfigError(f"the logs at {logs.path} have no table `{table}`. Expected {_needed()}; there is: {there}.")
            continue
        rows = 0
        seen: dict[str, tuple[pa.DataType, Path]] = {}
        for file in files:
            footer = read_footer(file)
            rows += footer.num_rows
            schema = footer.schema.to_arrow_schema()
            for name, column in columns.items():
                if "*" not in name and column.required and name not in schema.names:
                    raise ConfigError(
                        f"{file}: column `{name}` ({_FITS[column.holds][1]}) is missing. It has: {', '.join(schema.names)}."
                    )
            for field in schema:
                declared = declaration(table, field.name)
                if declared is None:
                    remarks.append(f"{table}: column `{field.name}` is not read; prefix it with `context.` or `state.`.")
                    continue
                _check_type(file, field, declared)
                before, where = seen.setdefault(field.name, (field.type, file))
                if _family(before) != _family(field.type):
                    raise ConfigError(
                        f"{file}: column `{field.name}` is {field.type}, but {before} in {where}. "
                        "Write one type in all files of a table."
                    )
                if declared.holds == _ID and not pa.types.is_null(field.type):
                    family, where = id_kinds.setdefault(field.name, (_family(field.type), file))
                    if family != _family(field.type):
                        raise ConfigError(
                            f"{file}: `{field.name}` is {field.type}, but {family} in {where}; equal ids would not meet. "
                            "Write one type in all tables."
                        )
                if declared.holds == _TIME:
                    _check_range(file, field.name, footer)
        if rows == 0 and table in REQUIRED_TABLES:
            raise ConfigError(f"table `{table}` at {logs.path} has no rows ({len(files)} files).")
    return list(dict.fromkeys(remarks))


def declaration(table: str, column: str) -> Column | None:
    """The declared column that `column` of a canonical table is; None if nothing reads it.

    >>> declaration("impressions", "context.device").holds
    'attribute'
    """
    columns = TABLES[table]
    if column in columns:
        return columns[column]
    prefix = column.split(".")[0] + ".*" if "." in column else "*"
    return columns.get(prefix) or columns.get("*")


def read_footer(file: Path) -> pq.FileMetaData:
    """The footer of a Parquet file.

    Raises:
        ConfigError: the file is truncated, unreadable or no Parquet.
    """
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"{file} is not a whole Parquet file ({reason}). Write it again or take it out of the log.") from None


def file_digest(file: Path) -> str:
    """16 hex digits of a Parquet file's size and footer; the footer's length stands before the closing magic.

    Raises:
        ConfigError: as `read_footer`.
    """
    read_footer(file)
    with file.open("rb") as stream:
        size = stream.seek(-8, 2) + 8
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(-8 - length, 2)
        return xxhash.xxh64_hexdigest(size.to_bytes(8, "little") + stream.read(length))


def _needed() -> str:
    return " and ".join(f"`{table}/*.parquet` (or `{table}.parquet`)" for table in REQUIRED_TABLES)


def _check_type(file: Path, field: pa.Field, declared: Column) -> None:
    fits, expected, way_out = _FITS[declared.holds]
    if not fits(field.type) and not (pa.types.is_null(field.type) and not declared.required):
        raise ConfigError(f"{file}: column `{field.name}` is {field.type}, expected {expected}. {way_out}")


def _check_range(file: Path, column: str, footer: pq.FileMetaData) -> None:
    ranges = list(_ranges(footer, column))
    if not ranges:
        return
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low > _YEAR_2100 or high < _YEAR_2000:
        unit = "seconds" if high < _YEAR_2000 else "microseconds or nanoseconds"
        raise ConfigError(
            f"{file}: column `{column}` goes from {low} to {high}, which as Unix milliseconds lies outside of the years "
            f"2000-2100. Are these {unit}? Convert them to milliseconds."
        )


def _ranges(footer: pq.FileMetaData, column: str) -> Iterator[tuple[int, int]]:
    """Smallest and largest value of each row group that says so."""
    index = footer.schema.names.index(column)
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(index).statistics
        if statistics is not None and statistics.has_min_max:
            yield statistics.min, statistics.max


def _family(kind: pa.DataType) -> str:
    """Types that hold the same values in other widths are of one family."""
    if _is_text(kind):
        return "string"
    return "number" if _is_number(kind) else str(kind)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
