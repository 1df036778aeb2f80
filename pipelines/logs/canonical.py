"""The canonical log tables: which columns they have, where their files lie, and how they are read.

A canonical log is a folder of Parquet: a table is `NAME.parquet` or a folder `NAME/` of Parquet files (see
`pipelines.logs.layout`), in any order of rows. `impressions` and `engagements` must be there. Times are Unix
milliseconds, UTC, or timestamps. What else a column may be written as says `pipelines.logs.types`; whether a log fits
is asked by `pipelines.logs.check`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from models.config import ConfigError, config
from pipelines import places
from pipelines.logs.ids import IdKind, id_kind
from pipelines.logs.layout import parquet_files, path_values, stem
from pipelines.logs.types import (
    ATTRIBUTE,
    COUNT,
    DAY,
    EXPECTED,
    ID,
    REAL,
    TIME,
    WORD,
    as_plain,
    common_type,
    of_path,
    plain_type,
)


@config
class Column:
    """What one column holds (see `pipelines.logs.types`), and whether a table can do without it."""

    holds: str
    required: bool = True


T = TypeVar("T")


def _may(holds: str) -> Column:
    return Column(holds=holds, required=False)


VALID_FROM = "valid_from"  # of attribute tables: from when on a row holds; without it a table has one row an id
_FROM = {VALID_FROM: _may(DAY)}
ARRIVED_AT = "arrived_at"  # of event tables: when the platform knew, not before it happened; without it, as it happened
_ARRIVED = {ARRIVED_AT: _may(TIME)}

TABLES: dict[str, dict[str, Column]] = {
    "impressions": {
        "request_id": _may(ID),
        "user_id": Column(holds=ID),
        "room_id": Column(holds=ID),
        "shown_at": Column(holds=TIME),
        **_ARRIVED,
        "split": _may(WORD),  # of a log without times, see `SPLIT_AT`
        "position": _may(COUNT),
        "context.*": _may(ATTRIBUTE),  # of the feed: device, scene, ...
        "state.*": _may(ATTRIBUTE),  # of the room at the moment shown: viewers, product on screen, ...
    },
    "engagements": {
        "event_id": _may(ID),  # says which rows are one event, delivered more than once
        "user_id": Column(holds=ID),
        "room_id": Column(holds=ID),
        "at": Column(holds=TIME),
        **_ARRIVED,
        "action": Column(holds=WORD),  # enter, goods_bag, product_click, follow, comment, like, order, ...
        "value": _may(REAL),  # seconds of stay for `enter`, price for `order`
        "request_id": _may(ID),
        "split": _may(WORD),  # as for impressions
    },
    "product_clicks": {
        "event_id": _may(ID),
        "user_id": Column(holds=ID),
        "product_id": Column(holds=ID),
        "at": Column(holds=TIME),
        **_ARRIVED,
    },
    "users": {"user_id": Column(holds=ID), **_FROM, "*": _may(ATTRIBUTE)},
    "rooms": {
        "room_id": Column(holds=ID),
        "streamer_id": _may(ID),
        "start_at": _may(DAY),
        "end_at": _may(DAY),
        **_FROM,
        "*": _may(ATTRIBUTE),
    },
    "streamers": {"streamer_id": Column(holds=ID), **_FROM, "*": _may(ATTRIBUTE)},
    "products": {"product_id": Column(holds=ID), **_FROM, "*": _may(ATTRIBUTE)},
}
ON_SCREEN = ("impressions", "state.product_id")  # an attribute of the room that is an id of the table `products`
REQUIRED_TABLES = ("impressions", "engagements")

DAY_MS = 86_400_000
SPLIT_AT = {"train": 978_350_400_000, "valid": 978_350_400_000 + DAY_MS, "test": 978_350_400_000 + 2 * DAY_MS}
"""A log without times says of every impression and engagement which split it is of. All of a split is then of one moment, at
noon (UTC) of 1, 2 and 3 January 2001, and nothing that asks for a time can be read from the log."""
TIMES = {"impressions": "shown_at", "engagements": "at"}  # which such a log does not have


_SMALL = 8 << 20  # bytes of a file in a store that is read at once


@dataclass(frozen=True)
class LogFile:
    """A file of a table.

    Attributes:
        named: declared columns that stand in the names of its folders, with their value; those of the file go before.
    """

    table: str
    path: Path
    named: Mapping[str, pa.Scalar]

    def schema_of(self, footer: pq.FileMetaData) -> pa.Schema:
        """Columns and their types as written."""
        there = footer.schema.to_arrow_schema()
        more = [pa.field(name, value.type) for name, value in self.named.items() if name not in there.names]
        return pa.schema([*there, *more])

    def batches(
        self, columns: pa.Schema, rows: int, *, row_groups: Sequence[int] | None = None, as_written: Collection[str] = ()
    ) -> Iterator[pa.Table]:
        """These columns as the types given, at most `rows` rows at a time; one that the file does not have is missing.

        Args:
            as_written: those to leave as they are, whatever their type.

        Raises:
            ConfigError: the file is damaged, or a column holds what its type promises not to.
        """
        try:
            with pq.ParquetFile(places.source(self.path, whole_below=_SMALL)) as file:
                wanted = [*columns.names, "split"] if self._is_timeless(file.schema_arrow) else columns.names
                there = [name for name in wanted if name in file.schema_arrow.names]
                for batch in file.iter_batches(rows, row_groups=row_groups, columns=there, use_threads=False):
                    yield pa.table({field.name: self._column(batch, field, as_written) for field in columns})
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path} is damaged ({str(error).splitlines()[0]}). Fetch or write it again.") from None

    def _is_timeless(self, schema: pa.Schema) -> bool:
        return self.table in TIMES and TIMES[self.table] not in (*schema.names, *self.named)

    def _column(self, batch: pa.RecordBatch, field: pa.Field, as_written: Collection[str]) -> pa.Array:
        place = batch.schema.get_field_index(field.name)
        if field.name == TIMES.get(self.table) and self._is_timeless(batch.schema):
            return _moments_of_splits(batch)
        if place < 0:
            value = self.named.get(field.name)
            written = pa.nulls(batch.num_rows) if value is None else pa.repeat(value, batch.num_rows)
        else:
            written = batch.column(place)
        if field.name in as_written:
            return written
        declared = declaration(self.table, field.name)
        assert declared is not None, field.name
        try:
            return as_plain(written, field.type, declared.holds)
        except ValueError as error:
            raise ConfigError(f"{self.path}: column `{field.name}`: {error}") from None


def _moments_of_splits(batch: pa.RecordBatch) -> pa.Array:
    """What stands for the splits of rows, null for what names none."""
    if "split" not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.int64())
    place = pc.index_in(as_plain(batch["split"], pa.string(), WORD), pa.array(list(SPLIT_AT)))
    return pa.array(list(SPLIT_AT.values()), pa.int64()).take(place)


@dataclass(frozen=True)
class CanonicalLogs:
    """A folder of canonical log tables. Its files are asked for anew by every question, unless it was taken `as_now`."""

    path: Path
    _seen: dict[tuple[str, str], Any] | None = default(default=None, compare=False, repr=False)

    def as_now(self) -> "CanonicalLogs":
        """The same logs, whose folders are listed and whose footers are read once, whatever happens to them meanwhile."""
        return CanonicalLogs(self.path, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return CanonicalLogs, (self.path,)  # what was seen stays in this process

    def _once(self, what: str, table: str, find: Callable[[], T]) -> T:
        if self._seen is None:
            return find()
        if (what, table) not in self._seen:
            self._seen[what, table] = find()
        return self._seen[what, table]

    @property
    def has_times(self) -> bool:
        """Whether the log knows when things happened; otherwise which split they are of (see `SPLIT_AT`)."""
        return not self.types("impressions", ["split"]).names

    def has(self, table: str) -> bool:
        return bool(self.files(table))

    def places(self, table: str) -> list[Path]:
        """Where a table lies: one file or folder, or none.

        Raises:
            KeyError: no canonical table has that name.
            ConfigError: there are several of that name.
        """
        if table not in TABLES:
            raise KeyError(f"no canonical table `{table}`; there are: {', '.join(TABLES)}")
        found = sorted(entry for entry in self.path.iterdir() if stem(entry.name) == table) if self.path.is_dir() else []
        if len(found) > 1:
            names = " and ".join(f"{entry.name}/" if entry.is_dir() else entry.name for entry in found)
            raise ConfigError(f"{self.path} has both {names}. Leave one of them.")
        return found

    def files(self, table: str) -> list[Path]:
        """The Parquet files of a table in order of their names; none if the log has no such table.

        Raises:
            KeyError: no canonical table has that name.
            ConfigError: the table is there twice, or something in its folder cannot be read.
        """
        return self._once("files", table, lambda: [file for place in self.places(table) for file in parquet_files(place)])

    def footers(self, table: str) -> list[pq.FileMetaData]:
        """Of `files`, read side by side.

        Raises:
            ConfigError: a file is no whole Parquet.
        """
        return self._once("footers", table, lambda: places.side_by_side(read_footer, self.files(table)))

    def rows(self, table: str) -> int:
        return sum(footer.num_rows for footer in self.footers(table))

    def parts(self, table: str) -> list[LogFile]:
        """The files of a table with the columns that stand in the names of their folders.

        Raises:
            KeyError, ConfigError: as `files`.
        """
        return self._once("parts", table, lambda: self._parts(table))

    def _parts(self, table: str) -> list[LogFile]:
        place, files = self.places(table), self.files(table)
        values = [path_values(file, place[0]) for file in files]
        columns: dict[str, list[pa.Scalar]] = {}
        for name in dict.fromkeys(name for each in values for name in each):
            declared = declaration(table, name)
            if declared is not None:
                try:
                    columns[name] = of_path([each.get(name) for each in values], declared.holds)
                except ValueError as error:
                    raise ConfigError(f"{place[0]}: `{name}=` in the names of its folders: {error}") from None
        return [
            LogFile(table, file, {name: of_files[number] for name, of_files in columns.items() if name in values[number]})
            for number, file in enumerate(files)
        ]

    def types(self, table: str, columns: Collection[str]) -> pa.Schema:
        """Of these columns, those that some file has, in order of their names, with the one type they are read as.

        Raises:
            ConfigError: a column has a type that it cannot have, or two files disagree.
        """
        found: dict[str, list[tuple[pa.DataType, Path]]] = {name: [] for name in sorted(set(columns))}
        for schema, file in self._schemas(table):
            for name in found:
                if name in schema.names:
                    found[name].append((fitting(table, schema.field(name), file), file))
        return pa.schema([(name, common_type(kinds, name)) for name, kinds in found.items() if kinds])

    def _schemas(self, table: str) -> list[tuple[pa.Schema, Path]]:
        """As written in every file; files without rows count only where no other is there, they have types of their own."""
        return self._once("schemas", table, lambda: self._read_schemas(table))

    def _read_schemas(self, table: str) -> list[tuple[pa.Schema, Path]]:
        footers = list(zip(self.parts(table), self.footers(table), strict=True))
        full = [(part, footer) for part, footer in footers if footer.num_rows] or footers
        return [(part.schema_of(footer), part.path) for part, footer in full]

    def id_kinds(self) -> dict[str, IdKind]:
        """What the ids of each kind are, by column: of users, rooms, streamers and products, where the log has some."""
        found: dict[str, IdKind] = {}
        for table, columns in TABLES.items():
            ids = [name for name, column in columns.items() if column.holds == ID and not name.startswith(("request", "event"))]
            wanted = [*ids, ON_SCREEN[1]] if table == ON_SCREEN[0] else ids
            for schema, _ in self._schemas(table):
                for name in wanted:
                    kind = id_kind(schema.field(name).type) if name in schema.names else None
                    if kind is not None:
                        found.setdefault(name.removeprefix("state."), kind)
        return found

    def fingerprint(self) -> str:
        """16 hex digits that change with any file's name, size or footer (which holds its rows, offsets and ranges).

        Copies of a log have the same fingerprint: times of files are not looked at.
        """
        digest = xxhash.xxh64()
        for table in TABLES:
            files = self.files(table)
            self.footers(table)  # which makes sure that all are whole
            for file, of_file in zip(files, places.side_by_side(_digest_of_footer, files), strict=True):
                digest.update(f"{file.relative_to(self.path)}\0{of_file}\0".encode())
        return digest.hexdigest()

    @property
    def truth(self) -> Path | None:
        """Where a simulator left its truth (beside the log, never in it); None for logs of the real world."""
        folder = self.path.parent / "truth"
        return folder if (folder / "impressions").is_dir() else None


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


def fitting(table: str, field: pa.Field, file: Path) -> pa.DataType:
    """The type that a declared column is read as.

    Raises:
        ConfigError: it cannot be of the type it has.
    """
    declared = declaration(table, field.name)
    assert declared is not None, field.name
    plain = plain_type(field.type, declared.holds)
    if plain is None:
        expected, way_out = EXPECTED[declared.holds]
        raise ConfigError(f"{file}: column `{field.name}` is {field.type}, expected {expected}. {way_out}")
    return plain


def read_footer(file: Path) -> pq.FileMetaData:
    """The footer of a Parquet file.

    Raises:
        ConfigError: the file is truncated, damaged or no Parquet.
        PermissionError: this user may not read it.
    """
    try:
        return pq.read_metadata(places.source(file))
    except PermissionError as error:
        raise PermissionError(error.errno, "not permitted", str(file)) from None  # whose own words hold no name
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"{file} is not a whole Parquet file ({reason}). Write it again or take it out of the log.") from None


def file_digest(file: Path) -> str:
    """16 hex digits of a Parquet file's size and footer; the footer's length stands before the closing magic.

    Raises:
        ConfigError: as `read_footer`.
    """
    read_footer(file)
    return _digest_of_footer(file)


def _digest_of_footer(file: Path) -> str:
    with file.open("rb") as stream:
        size = stream.seek(-8, 2) + 8
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(-8 - length, 2)
        return xxhash.xxh64_hexdigest(size.to_bytes(8, "little") + stream.read(length))
