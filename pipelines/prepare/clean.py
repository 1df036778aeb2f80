"""The first step: a chunk of a log file is judged row by row, and what is sound goes to the bucket of its user.

A malformed row goes to quarantine with its reason. What can only be seen with all rows of a user at hand (an
impression logged twice in different files) is found in the next step.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.catalogue import ENTER
from models.config import ConfigError
from models.schema import Schema
from pipelines.encode.arrays import integers, present
from pipelines.logs.canonical import CanonicalLogs, read_footer
from pipelines.logs.ids import as_ids
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.exchange import ExchangeWriter, bucket_of
from pipelines.prepare.timeline import codes, find, run_starts
from pipelines.runs import written

ENTER_CODE = 0
EVENTS = ("impressions", "engagements", "product_clicks")
LONGEST_STAY_SECONDS = 366 * 86_400.0

# Why a row is malformed; the first reason that holds is the one given.
MISSING = "missing id, time or action"
NEGATIVE = "negative id"
IMPLAUSIBLE = "time outside of the plausible years"
NOT_FINITE = "value is not a finite number"
STAY = "stay below zero or above a year"
TWO_USERS = "request of another user"
REPEATED = "impression logged twice"

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
class Chunk:
    """Row groups of one log file that one task cleans."""

    table: str
    file: str
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    number: int  # among all chunks of the table, in order of files and rows

    @property
    def name(self) -> str:
        return f"{self.table}-{self.number:05d}"


def chunks_of(logs: CanonicalLogs, rows_per_chunk: int, tables: tuple[str, ...] = EVENTS) -> list[Chunk]:
    """All chunks of the event tables, from the footers of the files.

    Raises:
        ConfigError: a file is truncated.
    """
    chunks: list[Chunk] = []
    for table in tables:
        number = 0
        for file in logs.files(table):
            footer = read_footer(file)
            groups: list[int] = []
            first_row = rows = 0
            for group in range(footer.num_row_groups):
                groups.append(group)
                rows += footer.row_group(group).num_rows
                if rows and (rows >= rows_per_chunk or group == footer.num_row_groups - 1):
                    chunks.append(Chunk(table, str(file), tuple(groups), first_row, rows, number))
                    groups, first_row, rows, number = [], first_row + rows, 0, number + 1
    return chunks


def actions_of(schema: Schema, counted: Iterable[str] = ()) -> list[str]:
    """The actions that matter, in the order of their codes; `enter` is the first.

    Args:
        counted: actions that some counter counts, beside those of targets.
    """
    return [ENTER, *sorted({target.action for target in schema.targets}.union(counted) - {ENTER})]


def clean(
    chunk: Chunk,
    actions: Sequence[str],
    config: PrepareConfig,
    *,
    extra: pa.Schema,
    buckets: int,
    output: Path,
    quarantine: Path,
) -> dict:
    """Writes the sound rows of a chunk to `output` by bucket of their user, the others to `quarantine`; returns counts.

    Args:
        actions: in the order of their codes, see `actions_of`; engagements of others are left out.
        extra: columns of impressions beside ids and times (`position`, `context.*`, `state.*`) to carry on.

    Raises:
        ConfigError: a whole column of times is in seconds, or in microseconds.
    """
    judge = {"impressions": _impressions, "engagements": _engagements, "product_clicks": _product_clicks}[chunk.table]
    counts: dict = {"rows": 0, "sound": 0, "unused": 0, "latest": None, "quarantined": {}}
    bad_rows: list[pa.Table] = []
    with written(output) as draft:
        writer = None
        first_row, time = chunk.first_row, "shown_at" if chunk.table == "impressions" else "at"
        for batch in _batches(chunk, extra, config.rows_per_chunk):
            sound, reason, ids = judge(batch, actions, config, chunk.file)
            is_bad = reason > 0
            used = ~is_bad if sound is None else ~is_bad & sound
            good = ids if used.all() else ids.filter(pa.array(used))
            if writer is None:
                writer = ExchangeWriter(draft, good.schema, buckets)
            writer.write(good, bucket_of(good["user_id"].to_numpy(), buckets))
            counts["rows"] += len(reason)
            if len(good):
                counts["latest"] = max(counts["latest"] or 0, int(good[time].to_numpy().max()))
            counts["sound"] += len(good)
            counts["unused"] += int((~is_bad).sum()) - len(good)
            if is_bad.any():
                rows = np.flatnonzero(is_bad)
                bad_rows.append(_quarantined(chunk, ids.take(rows), first_row + rows, reason[rows]))
                for number, count in enumerate(np.bincount(reason[rows]).tolist()):
                    if count:
                        counts["quarantined"][_REASONS[number]] = counts["quarantined"].get(_REASONS[number], 0) + count
            first_row += len(reason)
        if writer is not None:
            writer.file.close()
    if bad_rows:
        with written(quarantine) as draft:
            pq.write_table(pa.concat_tables(bad_rows), draft, compression="zstd")
    return counts


_REASONS = ("", MISSING, NEGATIVE, IMPLAUSIBLE, NOT_FINITE, STAY, TWO_USERS)


def _batches(chunk: Chunk, extra: pa.Schema, rows: int) -> Iterator[pa.Table]:
    extra = extra if chunk.table == "impressions" else pa.schema([])
    with pq.ParquetFile(chunk.file) as file:
        there = file.schema_arrow.names
        columns = [name for name in (*_COLUMNS[chunk.table], *extra.names) if name in there]
        for batch in file.iter_batches(rows, row_groups=list(chunk.row_groups), columns=columns, use_threads=False):
            table = pa.Table.from_batches([batch])
            for field in extra:
                if field.name not in there:
                    table = table.append_column(field, pa.nulls(len(table), field.type))
                elif table.schema.field(field.name).type != field.type:
                    place = table.schema.get_field_index(field.name)
                    table = table.set_column(place, field, table[field.name].cast(field.type))
            yield table


_COLUMNS = {
    "impressions": ("request_id", "user_id", "room_id", "shown_at"),
    "engagements": ("request_id", "user_id", "room_id", "at", "action", "value"),
    "product_clicks": ("user_id", "product_id", "at"),
}


def _impressions(
    batch: pa.Table, actions: Sequence[str], config: PrepareConfig, file: str
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    ids = {name: as_ids(batch[name]) for name in ("user_id", "room_id")}
    request = as_ids(batch["request_id"]) if "request_id" in batch.column_names else pa.nulls(len(batch), pa.int64())
    reason = _first_reasons(ids, request, batch["shown_at"], config, f"{file}: column `shown_at`")
    _mark(reason, TWO_USERS, _foreign(integers(ids["user_id"]), integers(request), present(request) & (reason == 0)))
    own = {"request_id": request, **ids, "shown_at": batch["shown_at"].cast(pa.int64())}
    others = [name for name in batch.column_names if name not in own]
    return None, reason, pa.table({**own, **{name: batch[name] for name in others}})


def _engagements(
    batch: pa.Table, actions: Sequence[str], config: PrepareConfig, file: str
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    ids = {name: as_ids(batch[name]) for name in ("user_id", "room_id")}
    request = as_ids(batch["request_id"]) if "request_id" in batch.column_names else pa.nulls(len(batch), pa.int64())
    reason = _first_reasons(ids, request, batch["at"], config, f"{file}: column `at`")
    action = batch["action"].combine_chunks()
    action = action if pa.types.is_dictionary(action.type) else action.dictionary_encode()
    action = action.chunk(0) if isinstance(action, pa.ChunkedArray) else action
    _mark(reason, MISSING, ~present(action))
    names = action.dictionary.to_pylist()
    code_of_name = np.array([actions.index(name) if name in actions else -1 for name in names] or [-1], np.int8)
    code = code_of_name[integers(action.indices)]
    value = batch["value"].cast(pa.float64()) if "value" in batch.column_names else pa.nulls(len(batch), pa.float64())
    number = value.fill_null(0.0).to_numpy()
    _mark(reason, NOT_FINITE, ~np.isfinite(number))
    _mark(reason, STAY, (code == ENTER_CODE) & ~((number >= 0) & (number <= LONGEST_STAY_SECONDS)))
    table = {"request_id": request, **ids, "at": batch["at"].cast(pa.int64()), "action": pa.array(code), "value": value}
    return code >= 0, reason, pa.table(table)


def _product_clicks(
    batch: pa.Table, actions: Sequence[str], config: PrepareConfig, file: str
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    ids = {name: as_ids(batch[name]) for name in ("user_id", "product_id")}
    reason = _first_reasons(ids, None, batch["at"], config, f"{file}: column `at`")
    return None, reason, pa.table({**ids, "at": batch["at"].cast(pa.int64())})


def _first_reasons(
    ids: dict[str, pa.Array], request: pa.Array | None, at: pa.ChunkedArray, config: PrepareConfig, where: str
) -> np.ndarray:
    """Reasons that all event tables share; 0 where there is none, int8."""
    time = integers(at)
    there = present(at)
    _check_unit(time[there], where)
    reason = np.zeros(len(time), np.int8)
    missing, negative = ~there, np.zeros(len(time), bool)
    for column in ids.values():
        missing |= ~present(column)
        negative |= integers(column) < 0
    if request is not None:
        negative |= integers(request) < 0
    _mark(reason, MISSING, missing)
    _mark(reason, NEGATIVE, negative)
    earliest, latest = config.plausible
    _mark(reason, IMPLAUSIBLE, (time < earliest) | (time >= latest))
    return reason


def _mark(reason: np.ndarray, why: str, where: np.ndarray) -> None:
    reason[where & (reason == 0)] = _REASONS.index(why)


def _check_unit(time: np.ndarray, where: str) -> None:
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


def _foreign(user: np.ndarray, request: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Rows whose request id this batch saw with another user before, bool."""
    foreign = np.zeros(len(user), bool)
    rows = np.flatnonzero(asked)
    if not len(rows):
        return foreign
    heads = rows[run_starts(request[rows], user[rows])]
    distinct, code = codes(request[heads])
    if len(distinct) == len(heads):  # every request is one run of one user
        return foreign
    first = np.full(len(distinct), len(heads), np.int64)
    np.minimum.at(first, code, np.arange(len(heads)))
    foreign[rows] = user[rows] != user[heads[first]][find(distinct, request[rows])]
    return foreign


def _quarantined(chunk: Chunk, bad: pa.Table, row: np.ndarray, reason: np.ndarray) -> pa.Table:
    count = len(bad)
    column = lambda name: bad[name] if name in bad.column_names else pa.nulls(count, pa.int64())
    return pa.table(
        {
            "table": pa.array([chunk.table] * count, pa.string()),
            "file": pa.array([chunk.file] * count, pa.string()),
            "row": pa.array(row, pa.int64()),
            "reason": pa.array([_REASONS[number] for number in reason.tolist()], pa.string()),
            "request_id": column("request_id"),
            "user_id": column("user_id"),
            "room_id": column("room_id"),
            "at": column("shown_at" if chunk.table == "impressions" else "at"),
        },
        schema=QUARANTINE,
    )
