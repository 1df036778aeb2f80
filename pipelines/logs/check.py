"""An early look at whether logs fit, before anything long is started.

`check` reads nothing but the footers of the files, so it is over in a moment even on logs of terabytes. Rows themselves
are judged, and quarantined, by the prepare step. What the schema of an experiment does not read may be of any type.
"""

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from models.config import ConfigError
from pipelines.logs.canonical import (
    ON_SCREEN,
    REQUIRED_TABLES,
    TABLES,
    TIMES,
    VALID_FROM,
    CanonicalLogs,
    LogFile,
    declaration,
    fitting,
    read_footer,
)
from pipelines.logs.ids import id_kind
from pipelines.logs.layout import hidden_parquet, is_hidden, is_parquet_name, parquet_files, path_values, stem
from pipelines.logs.types import DAY, EXPECTED, ID, TIME

_YEAR_2000, _YEAR_2100 = 946_684_800_000, 4_102_444_800_000  # Unix milliseconds


def check(logs: CanonicalLogs) -> list[str]:
    """Looks at the footers of all files; returns remarks on what no one will read and on what is taken for something.

    Raises:
        ConfigError: a table, column or row is missing, a column has the wrong type or is there twice, a file is no whole
            Parquet file, ids change their type from file to file or from table to table, only some files of a table say from
            when their rows hold, or all times of a file lie outside of 2000-2100 (seconds or microseconds instead of
            milliseconds).
    """
    if not logs.path.is_dir():
        raise ConfigError(f"there are no logs at {logs.path}: not a folder. Expected one with {_needed()}.")
    remarks = _strays(logs)
    has_times = logs.has_times
    id_kinds: dict[str, tuple[str, str, Path]] = {}  # ids are compared across tables: all integers or all texts
    for table in TABLES:
        parts = logs.parts(table)
        if not parts:
            if table in REQUIRED_TABLES:
                there = ", ".join(sorted(entry.name for entry in logs.path.iterdir())) or "nothing"
                raise ConfigError(f"the logs at {logs.path} have no table `{table}`. Expected {_needed()}; there is: {there}.")
            continue
        rows = 0
        schemas: list[tuple[pa.Schema, Path]] = []
        for part, footer in zip(parts, logs.footers(table), strict=True):
            if not footer.num_rows:  # says nothing of its columns: many writers give it none, or types of their own
                continue
            rows += footer.num_rows
            schema = part.schema_of(footer)
            schemas.append((schema, part.path))
            _check_columns(part, schema, has_times=has_times)
            for field in schema:
                remarks += _check_field(part, field, footer, id_kinds) + _meant(table, field.name, schema.names)
        if rows == 0 and table in REQUIRED_TABLES:
            raise ConfigError(f"table `{table}` at {logs.path} has no rows ({len(parts)} files).")
        remarks += _of_path(logs, table, parts) + _partly_there(table, schemas)
        unnamed = [part.path for part in parts if not is_parquet_name(part.path.name)]
        if unnamed:
            remarks.append(f"{table}: {len(unnamed)} files are read as Parquet by what they hold, for example {unnamed[0]}.")
        remarks += [f"{file} is not read: its name is hidden." for file in hidden_parquet(logs.places(table)[0])]
    return list(dict.fromkeys(remarks))


def refuse_within(logs: CanonicalLogs, output: Path) -> None:
    """
    Raises:
        ConfigError: results would lie in the folder of a table, all of whose files are read.
    """
    for place in (place for table in TABLES for place in logs.places(table)):
        if output.resolve().is_relative_to(place.resolve()):
            raise ConfigError(f"results would go to {output}, into the logs' table {place}. Name another `output`.")


def _check_columns(part: LogFile, schema: pa.Schema, *, has_times: bool) -> None:
    needed = {name for name, column in TABLES[part.table].items() if column.required and "*" not in name}
    if not has_times and part.table in TIMES:
        needed = needed - {TIMES[part.table]} | {"request_id", "split"}
        if TIMES[part.table] in schema.names:
            raise ConfigError(
                f"{part.path} has a column `{TIMES[part.table]}`, but impressions say their `split`, which only a log without "
                "times may. Take out `split` and let days divide the log, or take out the times."
            )
    for name, column in TABLES[part.table].items():
        if name in needed and name not in schema.names:
            raise ConfigError(
                f"{part.path}: column `{name}` ({EXPECTED[column.holds][0]}) is missing. It has: {', '.join(schema.names)}."
            )
    for name in dict.fromkeys(schema.names):
        if schema.names.count(name) > 1 and declaration(part.table, name) is not None:
            raise ConfigError(f"{part.path}: column `{name}` is there {schema.names.count(name)} times. Leave one of them.")


def _check_field(
    part: LogFile, field: pa.Field, footer: pq.FileMetaData, id_kinds: dict[str, tuple[str, str, Path]]
) -> list[str]:
    declared = declaration(part.table, field.name)
    if declared is None:
        way_out = "; prefix it with `context.` or `state.`" if part.table == "impressions" else ""
        return [f"{part.table}: column {_shown(field.name)} is not read{way_out}."]
    if (declared.holds == ID or (part.table, field.name) == ON_SCREEN) and (kind := id_kind(field.type)):
        before, spelled, where = id_kinds.setdefault(field.name.removeprefix("state."), (kind, str(field.type), part.path))
        if before != kind:
            raise ConfigError(
                f"{part.path}: `{field.name}` is {field.type}, but {spelled} in {where}; equal ids would not meet. "
                "Write one type in all tables."
            )
    if field.name not in TABLES[part.table]:
        return []  # an attribute; whoever reads it asks for its type
    fitting(part.table, field, part.path)
    if declared.holds in (TIME, DAY):
        if pa.types.is_timestamp(field.type):
            zone = f"with zone {field.type.tz}" if field.type.tz else "without a zone, taken as UTC"
            return [f"{part.table}: `{field.name}` is a timestamp {zone}; read as Unix milliseconds."]
        if pa.types.is_date(field.type):
            return [f"{part.table}: `{field.name}` is a date; read as its first moment, 0:00 UTC."]
        if field.name == VALID_FROM:
            return []  # any time before the log says "always"; the rows themselves tell whether it is in another unit
        if pa.types.is_integer(field.type) and field.name in footer.schema.to_arrow_schema().names:
            _check_range(part.path, field.name, footer)
    return []


def _meant(table: str, name: str, there: Collection[str]) -> list[str]:
    """Whether a column looks like one that the file does not have: `Value`, `streamerId`, a name with a mark before it."""
    bare = lambda spelled: "".join(filter(str.isalnum, spelled)).lower()
    near = [known for known in TABLES[table] if known not in there and "*" not in known and bare(known) == bare(name)]
    return (
        [f"{table}: column {_shown(name)} looks like `{near[0]}`, but has another name, so it is not taken for it."]
        if near
        else []
    )


def _shown(name: str) -> str:
    return f"`{name}`" if name.isprintable() else ascii(name)


def _of_path(logs: CanonicalLogs, table: str, parts: list[LogFile]) -> list[str]:
    place = logs.places(table)[0]
    remarks = []
    for part in parts:
        for name in path_values(part.path, place):
            if name not in part.named:
                remarks.append(f"{table}: `{name}=` in the names of folders is not read; the table knows no such column.")
            elif name in read_footer(part.path).schema.to_arrow_schema().names:
                remarks.append(f"{table}: `{name}` is in the files and in the names of folders; that of the files is read.")
    return remarks


def _partly_there(table: str, schemas: list[tuple[pa.Schema, Path]]) -> list[str]:
    """Columns that only some of a table's files have: a log that grew by one, or a name that changed.

    Raises:
        ConfigError: some files do not say from when their rows hold.
    """
    remarks = []
    for name in dict.fromkeys(name for schema, _ in schemas for name in schema.names):
        lacking = [file for schema, file in schemas if name not in schema.names]
        if lacking and name == VALID_FROM and name in TABLES[table]:
            having = next(file for schema, file in schemas if name in schema.names)
            raise ConfigError(
                f"{lacking[0]}: column `{name}` is missing, but {having} has it: from when do these rows hold? Give all files "
                f"of `{table}` the column (1970-01-01 for rows that hold from the beginning), or none."
            )
        if lacking and declaration(table, name) is not None:
            remarks.append(
                f"{table}: column `{name}` is in {len(schemas) - len(lacking)} of {len(schemas)} files with rows, and missing "
                f"in the others, for example in {lacking[0]}."
            )
    return remarks


def _strays(logs: CanonicalLogs) -> list[str]:
    """What lies beside the tables and looks as if it were meant to be read."""
    remarks = []
    for entry in sorted(logs.path.iterdir()):
        name = stem(entry.name)
        if is_hidden(entry.name) or name in TABLES:
            continue
        try:
            holds = bool(parquet_files(entry))
        except ConfigError:
            holds = False
        if holds:
            near = difflib.get_close_matches(name.lower(), TABLES, 1)
            meant = f" Is it `{near[0]}`?" if near else ""
            remarks.append(f"{entry} is not read: no table has that name; there are {', '.join(TABLES)}.{meant}")
    return remarks


def _needed() -> str:
    return " and ".join(f"`{table}/*.parquet` (or `{table}.parquet`)" for table in REQUIRED_TABLES)


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
    index = _leaf(footer.schema.to_arrow_schema(), column)
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(index).statistics
        if statistics is not None and statistics.has_min_max:
            yield statistics.min, statistics.max


def _leaf(schema: pa.Schema, column: str) -> int:
    """Place of a flat column among the leaves of all columns: structs have several, which may be named alike."""
    return sum(_leaves(field.type) for field in list(schema)[: schema.get_field_index(column)])


def _leaves(kind: pa.DataType) -> int:
    return sum(_leaves(kind.field(number).type) for number in range(kind.num_fields)) or 1
