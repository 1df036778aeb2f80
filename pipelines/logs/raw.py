"""Reading rows as their owner wrote them: piece by piece, typed, and with every row that makes no sense told apart.

A `Layout` says which columns a file has and what they hold. A file is cut into pieces that tasks read on their own: a
stretch of bytes of a plain CSV file, some row groups of a Parquet file, the whole of what is compressed. A piece is read in
batches of bounded size. All of a CSV file is read as text first, so one value that is no number spoils its row and nothing
else:

    rows of a batch = rows of its frame + its bad rows
"""

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from models.config import ConfigError
from pipelines.logs.canonical import read_footer
from pipelines.logs.ids import as_ids, is_number, is_text
from pipelines.logs.inputs import Input
from pipelines.logs.types import ATTRIBUTE, EXPECTED, as_plain, plain_type
from pipelines.places import source

INTEGER, NUMBER, TEXT, ID, TIME, DAY, ANY = "an integer", "a number", "text", "an id", "a time", "a day", "any value"
"""What a column holds: an id is an integer, or any text, of which its hash is taken; a time a number since 1970 or a date with
a time; a day a date too, with or without hyphens. Both become Unix milliseconds. Any value stays as it is: text in CSV."""
IDS, NUMBERS, TIMES = "a list of ids", "a list of numbers", "a list of times"  # of Parquet files; ids that are integers

MISSING_TEXTS = ("", "NULL", "null", "\\N", "NaN", "nan")
PIECE_BYTES = 128 << 20
_BLOCK = 8 << 20  # bytes of a CSV file in a batch; no row is longer
_TEXT_SHOWN = 500  # characters of a bad row that are kept
_DATES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d")
NOT_UTF8 = "bytes that are not UTF-8"
_MARK = "\ufdd0"  # stands for such bytes while a CSV file is read: a code point that no text has


@dataclass(frozen=True)
class Raw:
    """What a column of a file holds.

    Attributes:
        there: the file must have it.
        filled: every row must have a value.
    """

    holds: str
    there: bool = True
    filled: bool = False


def key(holds: str) -> Raw:
    """A column without which a row says nothing."""
    return Raw(holds, filled=True)


def value(holds: str) -> Raw:
    """A column that the file must have, though a row may be empty there."""
    return Raw(holds)


def maybe(holds: str) -> Raw:
    """A column that some versions of the file have."""
    return Raw(holds, there=False)


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        columns: those that are read, by name.
        passed: those that are known to be there, and of no use.
        names: of all columns, in order, where the file has no header.
        separator: between the values of a CSV file.
        unit: of times that are written as numbers.
        utc_offset_hours: of dates and times that are written without a zone.
        rows_at_once: of a Parquet file; fewer where a row is long.
    """

    columns: Mapping[str, Raw]
    passed: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    separator: str = ","
    unit: Literal["s", "ms", "us", "ns"] = "ms"
    utc_offset_hours: float = 0.0
    rows_at_once: int = 200_000


@dataclass(frozen=True)
class Piece:
    """What one task reads of a file.

    Attributes:
        number: among the pieces of the file.
        names: of the file's columns, in order.
        begin, end: of a plain CSV file, bytes; a row belongs to the piece in which it begins. Else 0.
        quoted: whether texts in quotes may hold line breaks.
        groups: row groups of a Parquet file.
        rows: about.
    """

    input: Input
    number: int
    names: tuple[str, ...]
    begin: int = 0
    end: int = 0
    quoted: bool = False
    groups: tuple[int, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class Bad:
    """A row that makes no sense.

    Attributes:
        row: within the piece, from 0.
        text: as it stands there, or the beginning of it.
    """

    row: int
    reason: str
    text: str


@dataclass(frozen=True)
class Batch:
    """Rows of a piece.

    Attributes:
        frame: the sound ones, with the columns of the layout that the file has.
        row_N: where each of them stands in the piece.
        bad: the others.
    """

    frame: pl.DataFrame
    row_N: np.ndarray
    bad: list[Bad]

    @property
    def rows(self) -> int:
        return len(self.frame) + len(self.bad)


@dataclass
class Ending:
    """What was seen of the bytes of a CSV file that have been read.

    Attributes:
        last: the last one; empty for an empty file.
        is_marked: whether some were not UTF-8.
    """

    last: bytes = b""
    is_marked: bool = False


# -- before reading --------------------------------------------------------------------------------------------------


def pieces_of(each: Input, layout: Layout) -> list[Piece]:
    """The pieces of a file, from its first bytes or its footer.

    Raises:
        ConfigError: a column is missing or there twice, the number of columns is another, the file is damaged.
    """
    if each.form == "parquet":
        return _pieces_of_parquet(each, layout)
    with damage_told(each), opened(each) as stream:
        head = stream.read(1 << 20)
    if not head.strip():
        raise ConfigError(f"{each} is empty. Fetch it again, or take it out of the folder.")
    line, _, rest = head.partition(b"\n")
    first = _cells(each, line, layout)
    names = _checked_names(each, first, layout)
    if each.compression or each.member:
        return [Piece(each, 0, names, quoted=True, rows=_guess(each.size, head))]
    start = 0 if layout.names else len(line) + 1
    if b'"' in rest:  # a text in quotes may hold a line break, so a line may begin within a row
        return [Piece(each, 0, names, start, each.size, quoted=True, rows=_guess(each.size, head))]
    parts = max(1, -(-(each.size - start) // PIECE_BYTES))
    edges = [start + (each.size - start) * part // parts for part in range(parts + 1)]
    return [
        Piece(each, part, names, edges[part], edges[part + 1], rows=_guess(edges[part + 1] - edges[part], head))
        for part in range(parts)
    ]


def unread_columns(piece: Piece, layout: Layout) -> list[str]:
    """Columns of a file that its layout does not know."""
    return [name for name in piece.names if name not in (*layout.columns, *layout.passed, *layout.names)]


def absent_columns(piece: Piece, layout: Layout) -> list[str]:
    """Columns that the layout knows and the file can do without, and does."""
    return [name for name in layout.columns if name not in piece.names]


def _pieces_of_parquet(each: Input, layout: Layout) -> list[Piece]:
    footer = read_footer(each.path)
    names = _checked_names(each, footer.schema.to_arrow_schema().names, layout, header=True)
    pieces: list[Piece] = []
    groups: list[int] = []
    rows = size = 0
    for group in range(footer.num_row_groups):
        about = footer.row_group(group)
        groups.append(group)
        rows, size = rows + about.num_rows, size + about.total_byte_size
        if size >= PIECE_BYTES or group == footer.num_row_groups - 1:
            pieces.append(Piece(each, len(pieces), names, groups=tuple(groups), rows=rows))
            groups, rows, size = [], 0, 0
    return pieces


def _cells(each: Input, line: bytes, layout: Layout) -> list[str]:
    try:
        text = line.decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{each} does not begin with a line of UTF-8 text; is it a CSV file?") from None
    return next(csv.reader([text], delimiter=layout.separator), [])


def _checked_names(each: Input, first: Sequence[str], layout: Layout, *, header: bool = False) -> tuple[str, ...]:
    if layout.names and not header:
        if len(first) != len(layout.names):
            raise ConfigError(
                f"{each} has {len(first)} columns, expected {len(layout.names)}: {', '.join(layout.names)}. Is it of another "
                "version, or is the separator another one?"
            )
        return layout.names
    twice = [name for name in dict.fromkeys(first) if first.count(name) > 1 and name in layout.columns]
    if twice:
        raise ConfigError(f"{each}: column `{twice[0]}` is there {first.count(twice[0])} times. Leave one of them.")
    missing = [name for name, raw in layout.columns.items() if raw.there and name not in first]
    if missing:
        shown = ", ".join(first[:40])
        raise ConfigError(f"{each}: column `{missing[0]}` is missing. Needed: {', '.join(_needed(layout))}. It has: {shown}.")
    return tuple(first)


def _needed(layout: Layout) -> list[str]:
    return [name for name, raw in layout.columns.items() if raw.there]


def _guess(size: int, head: bytes) -> int:
    """About how many rows there are in so many bytes, told by the first ones."""
    return max(1, size * head.count(b"\n") // max(1, len(head)))


# -- reading -----------------------------------------------------------------------------------------------------------


def batches(piece: Piece, layout: Layout, ending: Ending | None = None) -> Iterator[Batch]:
    """All rows of a piece, a batch at a time.

    Args:
        ending: is told the last byte of a CSV file.

    Raises:
        ConfigError: the file is cut short or damaged, or a row is longer than a batch may be.
    """
    if piece.input.form == "parquet":
        return _batches_of_parquet(piece, layout)
    return _batches_of_csv(piece, layout, ending or Ending())


def _batches_of_parquet(piece: Piece, layout: Layout) -> Iterator[Batch]:
    columns = [name for name in layout.columns if name in piece.names]
    row = 0
    with damage_told(piece.input), pq.ParquetFile(source(piece.input.path)) as file:
        for batch in file.iter_batches(layout.rows_at_once, row_groups=list(piece.groups), columns=columns, use_threads=False):
            table = pa.Table.from_batches([batch]).select(columns)
            yield typed(table, np.arange(row, row + len(table)), piece.input, layout)
            row += len(table)


def _batches_of_csv(piece: Piece, layout: Layout, ending: Ending) -> Iterator[Batch]:
    columns = [name for name in layout.columns if name in piece.names]
    torn: list[Bad] = []

    def tell(found: pyarrow.csv.InvalidRow) -> str:
        reason = f"{found.actual_columns} columns instead of {found.expected_columns}"
        torn.append(Bad(found.number - 1, reason, found.text.replace(_MARK, "\ufffd")[:_TEXT_SHOWN]))
        return "skip"

    names = [name if name in columns else f"{place}" for place, name in enumerate(piece.names)]  # unread ones may repeat
    read = pyarrow.csv.ReadOptions(column_names=names, block_size=_BLOCK, use_threads=False)
    parse = pyarrow.csv.ParseOptions(
        delimiter=layout.separator, newlines_in_values=piece.quoted, invalid_row_handler=tell, ignore_empty_lines=True
    )
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=columns,
        null_values=list(MISSING_TEXTS),
        strings_can_be_null=True,
        check_utf8=False,  # `_Stretch` lets nothing else through
    )
    sound = told = 0
    with damage_told(piece.input), _data_of(piece, layout, ending) as stream:
        try:
            reader = pyarrow.csv.open_csv(stream, read, parse, convert)
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise
        for batch in reader:
            table = pa.Table.from_batches([batch])
            row_N = _among(torn, np.arange(sound, sound + len(table)))
            sound += len(table)
            last = int(row_N[-1]) if len(row_N) else -1
            before = [bad for bad in torn[told:] if bad.row <= last]
            told += len(before)
            found = typed(table, row_N, piece.input, layout, _marked(table) if ending.is_marked else None)
            yield Batch(found.frame, found.row_N, [*before, *found.bad])
    if torn[told:]:
        yield Batch(_nothing(layout, columns), np.zeros(0, np.int64), torn[told:])


def _nothing(layout: Layout, columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema={name: _TYPES[layout.columns[name].holds] for name in columns})


def _among(torn: Sequence[Bad], sound_N: np.ndarray) -> np.ndarray:
    """Where the sound rows stand among all, torn ones included."""
    gaps = np.array([bad.row - place for place, bad in enumerate(torn)], np.int64)
    return sound_N + np.searchsorted(gaps, sound_N, side="right")


# -- types -------------------------------------------------------------------------------------------------------------

_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    INTEGER: pl.Int64,
    NUMBER: pl.Float64,
    TEXT: pl.String,
    ID: pl.Int64,
    TIME: pl.Int64,
    DAY: pl.Int64,
    ANY: pl.String,
    IDS: pl.List(pl.Int64),
    NUMBERS: pl.List(pl.Float64),
    TIMES: pl.List(pl.Int64),
}
_PER_UNIT = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}  # milliseconds


def typed(table: pa.Table, row_N: np.ndarray, each: Input, layout: Layout, marked_N: np.ndarray | None = None) -> Batch:
    """Columns as what they hold; rows that hold something else, or nothing where something is needed, are bad.

    Args:
        marked_N: rows that held bytes that are not UTF-8.

    Raises:
        ConfigError: a column of a Parquet file has another type.
    """
    columns: dict[str, pl.Series] = {}
    why: dict[str, np.ndarray] = {}  # rows by reason, the first reason counts
    if marked_N is not None and marked_N.any():
        why[NOT_UTF8] = marked_N
    for name in table.column_names:
        raw, column = layout.columns[name], table[name].combine_chunks()
        if pa.types.is_binary(column.type) and (wrong := _not_utf8(column)) is not None:
            why[NOT_UTF8] = why.get(NOT_UTF8, np.zeros(len(table), bool)) | wrong
            column = pa.array([None if bad else text for bad, text in zip(wrong, column.to_pylist(), strict=True)], pa.binary())
        found = _as(column, raw.holds, f"{each}: column `{name}`", layout)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        empty = found.is_null().to_numpy()
        if (unfit := empty & there).any():
            why[f"`{name}` is not {raw.holds}"] = unfit
        if raw.filled and (missing := ~there).any():
            why[f"`{name}` is missing"] = missing
        columns[name] = found
    frame = pl.DataFrame(columns)
    if not why:
        return Batch(frame, row_N, [])
    bad_N = np.zeros(len(table), bool)
    bad: list[Bad] = []
    for reason, where in why.items():
        rows = np.flatnonzero(where & ~bad_N)
        bad += [Bad(int(row_N[row]), reason, _shown(table, int(row))) for row in rows.tolist()]
        bad_N[rows] = True
    return Batch(frame.filter(pl.Series(~bad_N)), row_N[~bad_N], bad)


def _shown(table: pa.Table, row: int) -> str:
    """The values of a row that are read, for whoever looks for it."""
    return ",".join(_text_of(table[name][row].as_py()) for name in table.column_names)[:_TEXT_SHOWN]


def _text_of(cell: object) -> str:
    if cell is None:
        return ""
    text = cell.decode("utf-8", "backslashreplace") if isinstance(cell, bytes) else str(cell)
    return text.replace(_MARK, "\ufffd")


def _marked(table: pa.Table) -> np.ndarray:
    found = np.zeros(len(table), bool)
    for column in table.columns:
        found |= pc.fill_null(pc.match_substring(column, _MARK), False).to_numpy()
    return found


def _not_utf8(column: pa.Array) -> np.ndarray | None:
    try:
        column.cast(pa.string())
        return None
    except pa.ArrowInvalid:
        pass
    found = np.zeros(len(column), bool)
    for place, text in enumerate(column.to_pylist()):
        try:
            (text or b"").decode()
        except UnicodeDecodeError:
            found[place] = True
    return found


def _as(column: pa.Array, holds: str, where: str, layout: Layout) -> pl.Series:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return pl.Series([None] * len(column), dtype=_TYPES[holds])
    if is_text(kind):
        return _of_texts(column, holds, layout)
    try:
        return _of_values(column, kind, holds, layout)
    except (ValueError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0].rstrip('.')}.") from None


def _of_texts(column: pa.Array, holds: str, layout: Layout) -> pl.Series:
    if holds == ID:
        if pa.types.is_string(column.type):  # 1001.0 is how a column of integers with gaps is written by pandas
            column = pc.replace_substring_regex(column, r"^(0|-?[1-9][0-9]*)\.0+$", r"\1")
        return cast(pl.Series, pl.from_arrow(as_ids(column, "integer")))
    texts = cast(pl.Series, pl.from_arrow(column.cast(pa.string())))
    match holds:
        case "text" | "any value":
            return texts
        case "an integer":
            return _integers(texts)
        case "a number":
            return texts.cast(pl.Float64, strict=False)
    if holds == DAY:
        texts = texts.str.replace(r"^(\d{4})(\d{2})(\d{2})$", "$1-$2-$3")
    numbers = _milliseconds(_integers(texts) if layout.unit == "ms" else texts.cast(pl.Float64, strict=False), layout)
    if numbers.null_count() == texts.null_count():
        return numbers
    dates = texts.to_frame("text").select(
        pl.coalesce(pl.col("text").str.to_datetime(format, strict=False, time_unit="ms") for format in _DATES)
    )
    moments = dates.to_series().dt.epoch("ms") - round(layout.utc_offset_hours * 3_600_000)
    return numbers.zip_with(numbers.is_not_null(), moments)


def _milliseconds(numbers: pl.Series, layout: Layout) -> pl.Series:
    """Numbers since 1970 in Unix milliseconds; what is beyond all time becomes null."""
    if layout.unit == "ms":
        return numbers
    return (numbers.cast(pl.Float64) * _PER_UNIT[layout.unit]).round().cast(pl.Int64, strict=False)


def _integers(texts: pl.Series) -> pl.Series:
    """Whole numbers; those that were written as floats (`17200.0`) too, where a float holds them."""
    found = texts.cast(pl.Int64, strict=False)
    if found.null_count() == texts.null_count():
        return found
    floats = texts.cast(pl.Float64, strict=False)
    whole = (floats == floats.floor()) & (floats.abs() < 2**53)
    return found.zip_with(found.is_not_null() | ~whole.fill_null(False), floats.cast(pl.Int64, strict=False))


def _of_values(column: pa.Array, kind: pa.DataType, holds: str, layout: Layout) -> pl.Series:
    """Of a Parquet file's own types.

    Raises:
        ValueError: the type holds something else.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if holds in (IDS, NUMBERS, TIMES):
        return _lists(column, holds)
    of_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if holds in (TIME, DAY) and of_time:
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        moments = column.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())
        found = cast(pl.Series, pl.from_arrow(moments))
        return found if zone else found - round(layout.utc_offset_hours * 3_600_000)
    if holds == ANY:
        if (plain := plain_type(kind, ATTRIBUTE)) is None:
            raise ValueError(f"is {kind}, expected {EXPECTED[ATTRIBUTE][0]}")
        return cast(pl.Series, pl.from_arrow(as_plain(column, plain, ATTRIBUTE)))
    if pa.types.is_boolean(kind) and holds in (INTEGER, NUMBER):
        return cast(pl.Series, pl.from_arrow(column)).cast(_TYPES[holds])
    if holds == TEXT and (is_number(kind) or pa.types.is_boolean(kind)):
        return cast(pl.Series, pl.from_arrow(column.cast(pa.string())))
    if not is_number(kind):
        raise ValueError(f"is {kind}, expected {holds}")
    if holds == NUMBER:
        return cast(pl.Series, pl.from_arrow(column.cast(pa.float64())))
    found = cast(pl.Series, pl.from_arrow(as_ids(column)))
    if holds == TIME:
        return _milliseconds(found, layout)
    return _of_texts(found.cast(pl.String).to_arrow(), DAY, layout) if holds == DAY else found


def _lists(column: pa.Array, holds: str) -> pl.Series:
    """
    Raises:
        ValueError: the column holds something else.
    """
    of = column.type.value_type if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) else None
    fits = of is not None and (pa.types.is_timestamp(of) or pa.types.is_integer(of) if holds == TIMES else is_number(of))
    if not fits and not (of is not None and pa.types.is_null(of)):
        raise ValueError(f"is {column.type}, expected {holds}")
    found = cast(pl.Series, pl.from_arrow(column))
    if holds == TIMES and of is not None and pa.types.is_timestamp(of):
        return found.list.eval(pl.element().dt.epoch("ms"))
    return found.cast(_TYPES[holds])


# -- bytes -------------------------------------------------------------------------------------------------------------


@contextmanager
def damage_told(each: Input) -> Iterator[None]:
    """What the libraries raise over a damaged file, as one line.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        yield
    except (EOFError, zlib.error, OSError, zipfile.BadZipFile, pa.ArrowException, pl.exceptions.PolarsError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if "straddl" in reason or "block_size" in reason:
            raise ConfigError(f"{each}: a row is longer than {_BLOCK >> 20} MiB. Is a quote not closed?") from None
        raise ConfigError(f"{each} is cut short or damaged ({reason}). Fetch or write it again.") from None


@contextmanager
def opened(each: Input) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked as they are read."""
    if each.member:
        with (
            each.path.open("rb") as file,
            zipfile.ZipFile(file) as packed,
            _member(packed, each) as member,
            _unpacked(member, each.compression) as stream,
        ):
            yield stream
    else:
        with each.path.open("rb") as file, _unpacked(file, each.compression) as stream:
            yield stream


def _member(packed: zipfile.ZipFile, each: Input) -> IO[bytes]:
    """
    Raises:
        ConfigError: it is encrypted, or packed by a method that Python does not know (Deflate64, of large files on Windows).
    """
    try:
        return packed.open(each.member)
    except (NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"{each} cannot be read within its zip ({str(error).rstrip('.')}). Unpack it first.") from None


@contextmanager
def _unpacked(stream: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    if compression == "gzip":
        with gzip.open(stream) as unpacked:
            yield cast(IO[bytes], unpacked)
    elif compression:
        with pa.CompressedInputStream(stream, compression) as unpacked:
            yield cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, unpacked)))
    else:
        yield stream


class _Stretch(io.RawIOBase):
    """The bytes of a file from where it stands, so many at most, as UTF-8: what is not becomes `_MARK`; notes the last byte.

    So the reader can tell every row that is torn, and none of them is lost because its text cannot be shown.
    """

    def __init__(self, stream: IO[bytes], ending: Ending, size: int | None = None) -> None:
        self._stream, self._ending, self._left = stream, ending, size
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._waiting = memoryview(b"")
        self._begun = False  # within a character

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def,override]
        while not self._waiting:
            wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
            read = self._stream.read(wanted) if wanted else b""
            if self._left is not None:
                self._left -= len(read)
            if read:
                self._ending.last = read[-1:]
            self._waiting = memoryview(self._as_utf8(read))
            if not read:
                break
        size = min(len(buffer), len(self._waiting))
        buffer[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size

    def _as_utf8(self, read: bytes) -> bytes:
        if not self._begun and read.isascii():
            return read
        text = self._decoder.decode(read, final=not read)
        self._begun = bool(self._decoder.getstate()[0])
        try:
            return text.encode()
        except UnicodeEncodeError:
            self._ending.is_marked = True
            return re.sub("[\udc80-\udcff]", _MARK, text).encode()


@contextmanager
def _data_of(piece: Piece, layout: Layout, ending: Ending) -> Iterator[IO[bytes]]:
    """The rows of a piece, without the header."""
    each = piece.input
    with opened(each) as stream:
        if each.compression or each.member:
            if not layout.names:
                stream.readline()
            yield cast(IO[bytes], _Stretch(stream, ending))
            return
        begin, end = (_line_from(stream, at, each.size) if at > _start(piece) else at for at in (piece.begin, piece.end))
        stream.seek(begin)
        yield cast(IO[bytes], _Stretch(stream, ending, end - begin))


def _start(piece: Piece) -> int:
    """Where the rows of the file begin: the first piece knows."""
    return piece.begin if piece.number == 0 else 0


def _line_from(stream: IO[bytes], at: int, size: int) -> int:
    """Where the first line begins that begins at this byte or later."""
    if at >= size:
        return size
    stream.seek(at - 1)
    stream.readline()
    return stream.tell()
