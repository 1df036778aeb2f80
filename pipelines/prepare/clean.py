"""The first step: a chunk of a log file is judged row by row, and what is sound goes to the bucket of its user.

A malformed row goes to quarantine with its reason. What can only be seen with all rows of a user at hand (an
impression logged twice in different files) is found in the next step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.catalogue import ENTER
from models.config import ConfigError
from models.schema import Number, Schema
from pipelines.encode.arrays import integers, present
from pipelines.logs.canonical import ARRIVED_AT, CanonicalLogs, LogFile
from pipelines.logs.ids import as_ids, is_text
from pipelines.logs.types import WORD, as_plain
from pipelines.logs.values import INFINITE, NAN, tidied
from pipelines.prepare.config import PrepareConfig
from pipelines.prepared import EVENTS
from pipelines.runs import FileNote, written
from pipelines.runs.exchange import ExchangeWriter, bucket_of
from pipelines.runs.noted import noted
from pipelines.runs.runner import Done

ENTER_CODE = 0
CHUNK_BYTES = 256 << 20  # of columns, unpacked, that a task cleans at most, but for a row group that is larger
OPENING = CHUNK_BYTES >> 9  # what opening a file counts as: so many small ones make a task
LONGEST_STAY_SECONDS = 366 * 86_400.0
LARGEST_VALUE = 1e12  # its thousandths can be added up by the million in an int64

# Why a row is malformed; the first reason that holds is the one given.
MISSING = "missing id, time or action"
NEGATIVE = "negative id"
IMPLAUSIBLE = "time outside of the plausible years"
NOT_FINITE = "value is not a finite number"
STAY = "stay below zero or above a year"
OUT_OF_RANGE = "value below zero or above a trillion"
REPEATED = "impression logged twice"

# Why a sound row does not count: it is there already.
TWICE = "delivered twice"

BELOW_ZERO = "below zero under log1p"
NOT_GIVEN, TOO_EARLY = "none", "before it happened"  # of arrivals; the event's own time counts then
_NO_REQUEST = frozenset(
    (
        "(none)",
        "(not set)",
        "(null)",
        "<na>",
        "<null>",
        "#n/a",
        "\\n",
        "n/a",
        "na",
        "nan",
        "nil",
        "none",
        "null",
        "undefined",
        "unknown",
    )
)
_NAMES_KEPT = 5  # of the commonest request ids of a chunk, for messages

QUARANTINE = pa.schema(
    [
        ("table", pa.string()),
        ("file", pa.string()),  # null where rows of several files were compared
        ("row", pa.int64()),  # within the file, from 0
        ("reason", pa.string()),
        ("request_id", pa.int64()),
        ("user_id", pa.int64()),
        ("room_id", pa.int64()),
        ("at", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Piece:
    """Row groups of one log file, one after the other."""

    file: LogFile
    row_groups: tuple[int, ...]
    first_row: int
    rows: int


@dataclass(frozen=True)
class Chunk:
    """What of a table one task cleans: a part of a large file, or many small ones."""

    table: str
    pieces: tuple[Piece, ...]
    number: int  # among all chunks of the table, in order of files and rows

    @property
    def name(self) -> str:
        return f"{self.table}-{self.number:05d}"

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


def chunks_of(logs: CanonicalLogs, rows_per_chunk: int, tables: tuple[str, ...] = EVENTS) -> list[Chunk]:
    """All chunks of the event tables, from the footers of the files: as many as there are rows and bytes, not files.

    Raises:
        ConfigError: a file is truncated.
    """
    chunks: list[Chunk] = []
    for table in tables:
        pieces: list[Piece] = []
        number = rows = size = 0

        def end(table: str = table) -> None:
            nonlocal pieces, number, rows, size
            if pieces:
                chunks.append(Chunk(table, tuple(pieces), number))
                pieces, number, rows, size = [], number + 1, 0, 0

        for file, footer in zip(logs.parts(table), logs.footers(table), strict=True):
            size += OPENING
            groups: list[int] = []
            first_row = rows_of_piece = 0
            for group in range(footer.num_row_groups):
                found = footer.row_group(group)
                groups.append(group)
                rows_of_piece += found.num_rows
                size += found.total_byte_size
                is_full = rows + rows_of_piece >= rows_per_chunk or size >= CHUNK_BYTES
                if rows_of_piece and (is_full or group == footer.num_row_groups - 1):
                    pieces.append(Piece(file, tuple(groups), first_row, rows_of_piece))
                    rows += rows_of_piece
                    groups, first_row, rows_of_piece = [], first_row + rows_of_piece, 0
                    if is_full:
                        end()
        end()
    return chunks


def actions_of(schema: Schema, counted: Iterable[str] = ()) -> list[str]:
    """The actions that matter, in the order of their codes; `enter` is the first.

    Args:
        counted: actions that some counter counts, beside those of targets.
    """
    return [ENTER, *sorted({target.action for target in schema.targets}.union(counted) - {ENTER})]


@dataclass(frozen=True)
class Asked:
    """What is read of the rows of a table.

    Attributes:
        schema: whose targets say which actions' values are read, and whose fields take logarithms.
        actions: in the order of their codes, see `actions_of`; engagements of others are left out.
        extra: columns of impressions beside ids and times (`position`, `context.*`, `state.*`) to carry on.
        has_events: whether some file of the table has the column `event_id`.
        has_times: whether the log knows when things happened; else a row without request id belongs to nothing.
        has_arrivals: whether some file of the table has the column `arrived_at`.
    """

    schema: Schema
    actions: Sequence[str]
    extra: pa.Schema
    has_events: bool
    has_arrivals: bool
    has_times: bool


@dataclass
class _Told:
    """What a task found in the rows of its chunk, beside malformed ones.

    Attributes:
        missing: by column, how many values count as missing, by what they are.
        placeholders: by column, how many rows have an id that names nothing, by its spelling.
        names: texts of the commonest request ids, by the id they became.
    """

    missing: dict[str, Counter[str]] = field(default_factory=dict)
    placeholders: dict[str, Counter[str]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def add(self, what: dict[str, Counter[str]], column: str, counts: dict[str, int]) -> None:
        if counts:
            what.setdefault(column, Counter()).update(counts)


def clean(
    chunk: Chunk,
    asked: Asked,
    config: PrepareConfig,
    *,
    buckets: int,
    folder: Path,
) -> Done:
    """Writes the sound rows of a chunk by bucket of their user, the others to quarantine, below `folder`.

    Of the counts, `rows` = `sound` + `unused` + `late` + the sum of `quarantined`; late is what arrived from `prepare.until`
    on. Beside them stand `files`, how many were quarantined by log file, `missing`, `placeholders` and `names` (see `_Told`),
    and two times: `latest`, when the last row arrived, and of impressions `latest_shown`. The files are of the kinds `clean`
    and `quarantine`.

    Raises:
        ConfigError: a whole column of times is in seconds, or in microseconds; an id is not whole; the file is damaged, or
            has other rows than when the job began.
    """
    output, quarantine = folder / "work" / "clean" / f"{chunk.name}.arrow", folder / "quarantine" / f"{chunk.name}.parquet"
    judge = {"impressions": _impressions, "engagements": _engagements, "product_clicks": _product_clicks}[chunk.table]
    told = _Told()
    counts: dict = {"rows": 0, "sound": 0, "unused": 0, "late": 0, "latest": None, "latest_shown": None}
    counts |= {"quarantined": {}, "files": {}}
    bad_rows: list[pa.Table] = []
    time = "shown_at" if chunk.table == "impressions" else "at"
    with written(output, durable=False) as draft:
        rounds = _Rounds(draft, buckets, config.rows_per_chunk)
        for piece, first_row, batch in _batches(chunk, asked, config.rows_per_chunk):
            used, reason, ids = judge(batch, asked, config, piece.file.path, told)
            is_bad = reason > 0
            used = ~is_bad if used is None else ~is_bad & used
            counts["unused"] += int((~is_bad).sum() - used.sum())
            arrival = integers(ids[ARRIVED_AT if ARRIVED_AT in ids.column_names else time])
            kept = used if config.until_ms is None else used & (arrival < config.until_ms)
            counts["late"] += int(used.sum() - kept.sum())
            good = ids if kept.all() else ids.filter(pa.array(kept))
            rounds.write(good)
            counts["rows"] += len(reason)
            if len(good):
                counts["latest"] = max(counts["latest"] or 0, int(arrival[kept].max()))
                counts["latest_shown"] = max(counts["latest_shown"] or 0, int(integers(good[time]).max()))
            counts["sound"] += len(good)
            if is_bad.any():
                rows = np.flatnonzero(is_bad)
                bad_rows.append(_quarantined(piece.file, ids.take(rows), first_row + rows, reason[rows]))
                file = str(piece.file.path)
                counts["files"][file] = counts["files"].get(file, 0) + len(rows)
                for number, count in enumerate(np.bincount(reason[rows]).tolist()):
                    if count:
                        counts["quarantined"][_REASONS[number]] = counts["quarantined"].get(_REASONS[number], 0) + count
        writer = rounds.end()
    files = {"clean": [writer.note(output, folder)]}
    if bad_rows:
        files["quarantine"] = [kept_apart(pa.concat_tables(bad_rows), quarantine, folder)]
    names = {str(number): name for number, name in told.names.items()}
    return Done(counts | {"missing": told.missing, "placeholders": told.placeholders, "names": names}, files)


def kept_apart(rows: pa.Table, path: Path, folder: Path) -> FileNote:
    """Writes a part of the quarantine, as `QUARANTINE`."""
    with written(path) as draft:
        pq.write_table(rows, draft, compression="zstd")
    return noted(path, folder, rows=len(rows))


_REASONS = ("", MISSING, NEGATIVE, IMPLAUSIBLE, NOT_FINITE, STAY, OUT_OF_RANGE)
_INT = pa.int64()
_COLUMNS = {
    "impressions": pa.schema([("request_id", _INT), ("user_id", _INT), ("room_id", _INT), ("shown_at", _INT)]),
    "engagements": pa.schema(
        [
            ("request_id", _INT),
            ("user_id", _INT),
            ("room_id", _INT),
            ("at", _INT),
            ("action", pa.string()),
            ("value", pa.float64()),
        ]
    ),
    "product_clicks": pa.schema([("user_id", _INT), ("product_id", _INT), ("at", _INT)]),
}
_AS_WRITTEN = ("request_id", "event_id", "action")  # their spelling says more than their value


class _Rounds:
    """Sound rows on their way to the exchange: those of small files together, so that it does not come in crumbs."""

    def __init__(self, draft: Path, buckets: int, rows: int) -> None:
        self._draft, self._buckets, self._rows = draft, buckets, rows
        self._waiting: list[pa.Table] = []
        self._writer: ExchangeWriter | None = None

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._rows:
            self._flush()

    def _flush(self) -> None:
        together = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = ExchangeWriter(self._draft, together.schema, self._buckets)
        self._writer.write(together, bucket_of(together["user_id"].to_numpy(), self._buckets))
        self._waiting = []

    def end(self) -> ExchangeWriter:
        if self._waiting:
            self._flush()
        assert self._writer is not None  # a chunk has rows
        self._writer.close()
        return self._writer


def _batches(chunk: Chunk, asked: Asked, rows: int) -> Iterator[tuple[Piece, int, pa.Table]]:
    """With the piece and the place in its file that the first row of each has.

    Raises:
        ConfigError: a file is damaged, or has other rows than when the job began.
    """
    columns = _COLUMNS[chunk.table]
    if chunk.table == "impressions":
        columns = pa.schema([*columns, *asked.extra])
    elif asked.has_events:
        columns = columns.append(pa.field("event_id", _INT))
    if asked.has_arrivals:
        columns = columns.append(pa.field(ARRIVED_AT, _INT))
    for piece in chunk.pieces:
        read = 0
        for batch in piece.file.batches(columns, rows, row_groups=piece.row_groups, as_written=_AS_WRITTEN):
            yield piece, piece.first_row + read, batch
            read += len(batch)
        if read != piece.rows:
            raise ConfigError(
                f"{piece.file.path}: {read:,} rows were read where its footer had {piece.rows:,}. Was it written anew "
                "meanwhile? Start again."
            )


def _impressions(
    batch: pa.Table, asked: Asked, config: PrepareConfig, file: Path, told: _Told
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    request = _naming(batch, "request_id", file, told)
    reason = _first_reasons(batch, ("user_id", "room_id"), "shown_at", config, file)
    if not asked.has_times:
        _mark(reason, MISSING, ~present(request))
    arrived = _arrived(batch, "shown_at", reason, config, file, told)
    own = {"request_id": request, **{name: batch[name] for name in ("user_id", "room_id", "shown_at")}}
    logarithmic = {field.column for field in asked.schema.fields if field.encoding == Number(transform="log1p")}
    others: dict[str, pa.Array] = {}
    for name in asked.extra.names:
        others[name], missing = tidied(_one(batch[name]))
        told.add(told.missing, name, missing)
        if name in logarithmic:
            told.add(told.missing, name, below_zero(others[name]))
    return None, reason, pa.table({**own, **arrived, **others})


def below_zero(numbers: pa.Array) -> dict[str, int]:
    """How many numbers a logarithm cannot take, as the encoder has it; nothing where they are no numbers."""
    if pa.types.is_string(numbers.type) or pa.types.is_boolean(numbers.type):
        return {}
    smallest = pc.min(numbers).as_py()
    if smallest is None or smallest >= 0:
        return {}
    return {BELOW_ZERO: pc.sum(pc.less(numbers, 0)).as_py()}


def _engagements(
    batch: pa.Table, asked: Asked, config: PrepareConfig, file: Path, told: _Told
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    request = _naming(batch, "request_id", file, told)
    reason = _first_reasons(batch, ("user_id", "room_id"), "at", config, file)
    if not asked.has_times:
        _mark(reason, MISSING, ~present(request))
    action = _one(batch["action"])
    action = action if pa.types.is_dictionary(action.type) else action.dictionary_encode()
    action = action.chunk(0) if isinstance(action, pa.ChunkedArray) else action
    try:
        names = as_plain(action.dictionary, pa.string(), WORD).to_pylist()
    except ValueError as error:
        raise ConfigError(f"{file}: column `action` {error}") from None
    known = asked.actions
    code_of_name = np.array([known.index(name) if name in known else -1 for name in names] or [-1], np.int8)
    index = integers(action.indices)
    code = np.where(present(action), code_of_name[index], np.int8(-1))
    empty = np.array([not name for name in names] or [True])
    _mark(reason, MISSING, ~present(action) | empty[index])

    value = _one(batch["value"])
    number = (value.fill_null(0.0) if value.null_count else value).to_numpy()
    summed = np.array([any(t.action == name and not t.is_binary for t in asked.schema.targets) for name in known])
    read = summed | np.array([any(t.action == name and t.at_least is not None for t in asked.schema.targets) for name in known])
    read[ENTER_CODE] = True
    is_used = code >= 0
    nan, wild = np.isnan(number), ~(is_used & read[code]) & (np.abs(number) > LARGEST_VALUE)
    if nan.any() or wild.any():  # where nobody reads the value, a wild one spoils no row
        told.add(told.missing, "value", {what: int(of.sum()) for what, of in ((NAN, nan), (INFINITE, wild)) if of.any()})
        value = pc.if_else(pa.array(nan | wild), pa.scalar(None, pa.float64()), value)
        number = np.where(nan | wild, 0.0, number)
    _mark(reason, NOT_FINITE, is_used & read[code] & np.isinf(number))
    _mark(reason, STAY, (code == ENTER_CODE) & ~((number >= 0) & (number <= LONGEST_STAY_SECONDS)))
    _mark(reason, OUT_OF_RANGE, is_used & (read[code] & (np.abs(number) > LARGEST_VALUE) | summed[code] & (number < 0)))
    ids = {"request_id": request, **{name: batch[name] for name in ("user_id", "room_id", "at")}}
    more = {**_event(batch, file, told), **_arrived(batch, "at", reason, config, file, told)}
    return is_used, reason, pa.table({**ids, "action": pa.array(code), "value": value, **more})


def _product_clicks(
    batch: pa.Table, asked: Asked, config: PrepareConfig, file: Path, told: _Told
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    reason = _first_reasons(batch, ("user_id", "product_id"), "at", config, file)
    ids = {name: batch[name] for name in ("user_id", "product_id", "at")}
    more = {**_event(batch, file, told), **_arrived(batch, "at", reason, config, file, told)}
    return None, reason, pa.table({**ids, **more})


def _event(batch: pa.Table, file: Path, told: _Told) -> dict[str, pa.Array]:
    return {"event_id": _naming(batch, "event_id", file, told)} if "event_id" in batch.column_names else {}


def _arrived(
    batch: pa.Table, time: str, reason: np.ndarray, config: PrepareConfig, file: Path, told: _Told
) -> dict[str, pa.Array]:
    """When the rows arrived, where the log tells. A row never arrives before it happened: clocks of two machines differ, so
    the later of both times is taken, and the event is seen by nothing that came before either."""
    if ARRIVED_AT not in batch.column_names:
        return {}
    happened, arrived, there = integers(batch[time]), integers(batch[ARRIVED_AT]), present(batch[ARRIVED_AT])
    check_unit(arrived[there], f"{file}: column `{ARRIVED_AT}`")
    earliest, latest = config.plausible
    _mark(reason, IMPLAUSIBLE, there & ((arrived < earliest) | (arrived >= latest)))
    early = there & (arrived < happened) & (reason == 0)
    kinds = {NOT_GIVEN: int((~there & (reason == 0)).sum()), TOO_EARLY: int(early.sum())}
    told.add(told.missing, ARRIVED_AT, {kind: count for kind, count in kinds.items() if count})
    return {ARRIVED_AT: pa.array(np.where(there, np.maximum(arrived, happened), happened))}


def _naming(batch: pa.Table, column: str, file: Path, told: _Told) -> pa.Array:
    """A column of ids of requests or events, null where what stands there names none: `""`, 0, -1, `null`, ..."""
    written = _one(batch[column])
    try:
        if not is_text(written.type):
            ids = as_ids(written)
            numbers = integers(ids, 1)
            none = numbers <= 0
            if not none.any():
                return ids
            spelled, counts = np.unique(numbers[none], return_counts=True)
            told.add(told.placeholders, column, dict(zip(map(str, spelled.tolist()), counts.tolist(), strict=True)))
            return pa.array(numbers, mask=none | ~present(ids))
        encoded = written if pa.types.is_dictionary(written.type) else written.dictionary_encode()
        texts = encoded.dictionary.cast(pa.large_binary()).to_pylist()
        rows = np.bincount(integers(encoded.indices)[present(encoded)], minlength=len(texts))
        names = {
            place: text.decode("utf-8", "replace") for place, text in enumerate(texts) if text is not None and len(text) < 48
        }
        none_of = np.zeros(len(texts), bool)
        none_of[[place for place, name in names.items() if _names_nothing(name)]] = True
        for place in np.flatnonzero(none_of & (rows > 0)).tolist():
            told.add(told.placeholders, column, {repr(names[place]): int(rows[place])})
        ids_of = as_ids(encoded.dictionary)
        if column == "request_id":
            for place in np.argsort(-rows)[:_NAMES_KEPT].tolist():
                if place in names and not none_of[place]:
                    told.names[ids_of[place].as_py()] = names[place]
        if none_of.any():
            ids_of = pc.if_else(pa.array(none_of), pa.scalar(None, pa.int64()), ids_of)
        return ids_of.take(encoded.indices.cast(pa.int64()))
    except ValueError as error:
        raise ConfigError(f"{file}: column `{column}`: {error}") from None


def _names_nothing(text: str) -> bool:
    plain = text.strip().lower()
    return not plain.strip("0-.") or plain in _NO_REQUEST or (plain[0] == "-" and plain[1:].isdigit())


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _first_reasons(batch: pa.Table, ids: tuple[str, str], at: str, config: PrepareConfig, file: Path) -> np.ndarray:
    """Reasons that all event tables share; 0 where there is none, int8."""
    time, there = integers(batch[at]), present(batch[at])
    check_unit(time[there], f"{file}: column `{at}`")
    reason = np.zeros(len(time), np.int8)
    missing, negative = ~there, np.zeros(len(time), bool)
    for name in ids:
        missing |= ~present(batch[name])
        negative |= integers(batch[name]) < 0
    _mark(reason, MISSING, missing)
    _mark(reason, NEGATIVE, negative)
    earliest, latest = config.plausible
    _mark(reason, IMPLAUSIBLE, (time < earliest) | (time >= latest))
    return reason


def _mark(reason: np.ndarray, why: str, where: np.ndarray) -> None:
    reason[where & (reason == 0)] = _REASONS.index(why)


def check_unit(time: np.ndarray, where: str) -> None:
    """Refuses a column that is in another unit as a whole; single strange times are for the quarantine."""
    if not len(time):
        return
    middle = int(np.partition(time, len(time) // 2)[len(time) // 2])
    year_2000, year_2100 = 946_684_800, 4_102_444_800
    for unit, per_second in (("seconds", 1), ("microseconds", 10**6), ("nanoseconds", 10**9)):
        if year_2000 * per_second <= middle < year_2100 * per_second:
            raise ConfigError(
                f"{where} holds times that look like {unit} (half of them are below {middle}); "
                "milliseconds since 1970 are needed. Convert the column and start again."
            )


def _quarantined(file: LogFile, bad: pa.Table, row: np.ndarray, reason: np.ndarray) -> pa.Table:
    count = len(bad)
    column = lambda name: bad[name] if name in bad.column_names else pa.nulls(count, pa.int64())
    return pa.table(
        {
            "table": pa.array([file.table] * count, pa.string()),
            "file": pa.array([str(file.path)] * count, pa.string()),
            "row": pa.array(row, pa.int64()),
            "reason": pa.array([_REASONS[number] for number in reason.tolist()], pa.string()),
            "request_id": column("request_id"),
            "user_id": column("user_id"),
            "room_id": column("room_id"),
            "at": column("shown_at" if file.table == "impressions" else "at"),
        },
        schema=QUARANTINE,
    )
