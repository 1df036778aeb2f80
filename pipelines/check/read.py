"""One pass over the files of a log, a batch of rows at a time; memory does not grow with the log."""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa

from models.schema import Schema
from pipelines.check.answers import UserSample, compare
from pipelines.check.columns import ColumnTally
from pipelines.check.config import NO_DAY, Calendar, CheckConfig, date_of
from pipelines.check.days import Actions, Days, rates
from pipelines.check.facts import CheckFacts, Coverage, DayFacts, Heavy, Lives, Repeats
from pipelines.check.lives import RoomLives
from pipelines.check.sketches import Commonest, Distinct, Ids
from pipelines.encode.arrays import integers, present
from pipelines.encode.clock import HOUR_MS
from pipelines.encode.columns import base_columns
from pipelines.logs.canonical import TABLES, TIMES, VALID_FROM, CanonicalLogs, LogFile, declaration, read_footer
from pipelines.logs.ids import as_ids, is_text
from pipelines.logs.types import ID, TIME
from pipelines.logs.values import tidied

EVENTS = {"impressions": "shown_at", "engagements": "at", "product_clicks": "at"}  # and their times
ATTRIBUTES = {"users": "user_id", "rooms": "room_id", "streamers": "streamer_id", "products": "product_id"}  # and their ids
_PREFIXES = {"user.": "users", "room.": "rooms", "streamer.": "streamers", "product.": "products"}
# Where an attribute table's ids stand in the log.
_USES = {
    ("impressions", "user_id"): "users",
    ("impressions", "room_id"): "rooms",
    ("rooms", "streamer_id"): "streamers",
    ("product_clicks", "product_id"): "products",
    ("impressions", "state.product_id"): "products",
}
_ROWS_AT_ONCE = 131_072
_MOST_IDS = 1 << 19
_USERS_COUNTED = 1 << 16
_TOLD = 20
Batch = dict[str, pa.Array | pa.ChunkedArray]
_NEVER, _ALWAYS = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def columns_read(schema: Schema) -> set[tuple[str, str]]:
    """Columns of the log, as (table, column), that the schema reads beside ids, times, actions and values."""
    histories = tuple(f"{history.name}." for history in schema.histories)
    found = set()
    for name in base_columns(schema):
        name = name.removeprefix(next((history for history in histories if name.startswith(history)), ""))
        prefix = name.split(".")[0] + "."
        if name.startswith(("context.", "state.")):
            found.add(("impressions", name))
        elif prefix in _PREFIXES and "." in name:
            found.add((_PREFIXES[prefix], name.removeprefix(prefix)))
        elif name == "room_age_hours":
            found.add(("rooms", "start_at"))
    return found


def read(logs: CanonicalLogs, schema: Schema, calendar: Calendar, config: CheckConfig, *, now: int) -> CheckFacts:
    """Counts everything that `CheckFacts` holds.

    Raises:
        ConfigError: a file is damaged, or a column that is read holds what it may not, as prepare has it.
    """
    passing = _Pass(schema, calendar, config, now, has_times=logs.has_times)
    for table in (*ATTRIBUTES, *EVENTS):  # rooms before the impressions that are held beside them
        passing.table(logs, table)
    return passing.facts()


class _Pass:
    def __init__(self, schema: Schema, calendar: Calendar, config: CheckConfig, now: int, *, has_times: bool) -> None:
        self.schema, self.calendar, self.now = schema, calendar, now
        self.made_up = {} if has_times else TIMES  # columns that the log does not have, see `SPLIT_AT`
        self.reads = columns_read(schema)
        self.rows: dict[str, int] = {}
        self.columns: dict[tuple[str, str], ColumnTally] = {}
        self.actions = Actions()
        self.days = Days(schema, self.actions)
        self.sample = UserSample(config.sample_rows)
        self.lives = RoomLives()
        self.ids = {table: Ids(_MOST_IDS) for table in ATTRIBUTES}
        # of ids, or of ids at the time from which a row holds: the least and the largest hash of what is read of them
        self.said = {table: (Ids(_MOST_IDS, np.minimum), Ids(_MOST_IDS, np.maximum)) for table in ATTRIBUTES}
        self.streamers = (Ids(_MOST_IDS, np.minimum), Ids(_MOST_IDS, np.maximum))  # of rooms, likewise
        self.used = {column: Ids(_MOST_IDS) for column in _USES}
        self.users, self.heavy = Distinct(), Commonest(_USERS_COUNTED)
        self.names: dict[int, str] = {}

    def table(self, logs: CanonicalLogs, table: str) -> None:
        parts = logs.parts(table)
        if not parts:
            return
        total = sum(read_footer(part.path).num_rows for part in parts)
        known = [name for name in TABLES[table] if "*" not in name and name != "position"]  # which no schema reads
        read = logs.types(table, {*known, *(name for where, name in self.reads if where == table)})
        started = printed = time.monotonic()
        rows = 0
        for number, part in enumerate(parts, 1):
            columns, as_written = self._types(part, read)
            if table in self.made_up:
                columns = columns.append(pa.field(self.made_up[table], pa.int64()))
            for batch in part.batches(columns, _ROWS_AT_ONCE, as_written=as_written):
                self._batch(table, {name: batch[name].combine_chunks() for name in batch.column_names}, len(batch))
                rows += len(batch)
                if time.monotonic() - printed > 2:
                    printed = time.monotonic()
                    print(f"  {table}: file {number}/{len(parts)}, {rows:,} of {total:,} rows", flush=True)
        self.rows[table] = rows
        seconds = max(time.monotonic() - started, 1e-3)
        print(f"  {table}: {rows:,} rows of {len(parts)} files, {rows / seconds:,.0f} rows/s", flush=True)

    def _types(self, part: LogFile, read: pa.Schema) -> tuple[pa.Schema, set[str]]:
        """The columns of a file, those in the names of its folders too; and which of them to take as they are written.

        These are what nobody reads, which may be anything, and ids that are texts, to be named as they are spelled.
        """
        found: dict[str, pa.DataType] = {}
        as_written: set[str] = set()
        written = part.schema_of(read_footer(part.path))
        for field in written:
            if written.names.count(field.name) > 1:  # of what is read there is one
                continue
            tally = self._column(part.table, field.name)
            tally.types[str(field.type)] = tally.types.get(str(field.type), 0) + 1
            found[field.name] = read.field(field.name).type if field.name in read.names else field.type
            is_spelled = tally.holds == ID and (is_text(field.type) or pa.types.is_uint64(field.type))
            if field.name not in read.names or is_spelled:
                as_written.add(field.name)
        return pa.schema(found), as_written

    def _column(self, table: str, name: str) -> ColumnTally:
        if (table, name) not in self.columns:
            declared = declaration(table, name)
            holds = declared.holds if declared else None
            holds = TIME if declared and name == VALID_FROM else holds
            is_read = (table, name) in self.reads or (table in EVENTS and name in TABLES[table]) or name in ATTRIBUTES.values()
            self.columns[table, name] = ColumnTally(table, name, holds, is_read, self.calendar, self.now)
        return self.columns[table, name]

    def _batch(self, table: str, batch: Batch, rows: int) -> None:
        day, at = None, None
        if table in EVENTS:
            at = integers(_whole(batch[EVENTS[table]]))
            earliest, latest = self.calendar.plausible
            sound = present(_whole(batch[EVENTS[table]])) & (at >= earliest) & (at < latest)
            day = np.where(sound, self.calendar.day(at), NO_DAY)
            self.days.add(table, day, at)
        for name, values in batch.items():
            if name == self.made_up.get(table):
                continue
            tally = self._column(table, name)
            for chunk, part in _chunks(values, day):
                counts = tally.add(chunk, part)
                if counts is not None and name == "user_id" and table in EVENTS:
                    self.users.add(counts.values)
                    self.heavy.add(counts)
                    for key, _ in self.heavy.top(_TOLD):
                        if key not in self.names and (name_ := tally.spelled_lately(key)) is not None:
                            self.names[key] = name_
        ids = {name: as_ids(_whole(values)) for name, values in batch.items() if _names_ids(table, name, values.type)}
        self._count_ids(table, ids, day)
        if table in ATTRIBUTES:
            self._count_said(table, batch, ids)
        if table == "rooms" and "start_at" in batch:
            start = integers(_whole(batch["start_at"]), _NEVER)
            end = integers(_whole(batch["end_at"]), _ALWAYS) if "end_at" in batch else np.full(rows, _ALWAYS)
            known = present(ids["room_id"])
            self.lives.add(integers(ids["room_id"])[known], start[known], end[known])
        if at is not None and day is not None:
            self._events(table, batch, ids, at, day)

    def _count_ids(self, table: str, ids: dict[str, pa.Array], day: np.ndarray | None) -> None:
        for name, column in ids.items():
            known = present(column)
            if day is not None:
                known &= day != NO_DAY
            keys = integers(column)[known]
            numbers = day[known] if day is not None else np.zeros(len(keys), np.int64)
            if ATTRIBUTES.get(table) == name:
                self.ids[table].add(keys, numbers)
            if (table, name) in _USES:
                self.used[table, name].add(keys, numbers)

    def _count_said(self, table: str, batch: Batch, ids: dict[str, pa.Array]) -> None:
        """What the rows of an attribute table say, so that several of one id, or of one id and time, can be compared."""
        key = ATTRIBUTES[table]
        sound = present(ids[key])
        who = {key: ids[key]}
        if VALID_FROM in batch:
            who[VALID_FROM] = _whole(batch[VALID_FROM])
            sound &= present(who[VALID_FROM])
        read = {name for where, name in self.reads if where == table} | {"streamer_id", "start_at"} - {key}
        said = {name: tidied(_whole(values))[0] for name, values in batch.items() if name in read}
        keys = integers(ids[key])[sound] if VALID_FROM not in who else _hashed(who)[sound]
        content = _hashed(said)[sound] if said else np.zeros(len(keys), np.int64)
        for kept in self.said[table]:
            kept.add(keys, content)
        if table == "rooms" and "streamer_id" in ids:
            named = present(ids[key]) & present(ids["streamer_id"])
            for kept in self.streamers:
                kept.add(integers(ids[key])[named], integers(ids["streamer_id"])[named])

    def _events(
        self,
        table: str,
        batch: Batch,
        ids: dict[str, pa.Array],
        at: np.ndarray,
        day: np.ndarray,
    ) -> None:
        user, sound = integers(ids["user_id"]), present(ids["user_id"]) & (day != NO_DAY)
        other = "product_id" if table == "product_clicks" else "room_id"
        room, sound = integers(ids[other]), sound & present(ids[other])
        if table == "impressions":
            self.lives.compare(room[sound], at[sound])
        columns = {"user": user, "room": room, "at": at, "day": day}
        if table != "product_clicks":
            request = ids.get("request_id", pa.nulls(len(at), pa.int64()))
            columns |= {"request": integers(request), "has_request": present(request)}
        if table == "engagements":
            encoded = _whole(batch["action"]).dictionary_encode()
            codes = np.array([self.actions.code(name) for name in encoded.dictionary.to_pylist()] + [-1], np.int64)
            columns["action"] = codes[integers(encoded.indices, len(codes) - 1)]
            value = batch.get("value")
            numbers = np.full(len(at), np.nan) if value is None else _whole(value).to_numpy(zero_copy_only=False)
            self.days.add_actions(day, columns["action"], numbers)
        chosen = np.flatnonzero(sound & self.sample.chosen(user))
        if not len(chosen):
            return
        rows = {name: values[chosen] for name, values in columns.items()}
        same = {name: _whole(values).take(pa.array(chosen)) for name, values in batch.items() if _is_plain(values.type)}
        rows["row"] = _hashed(same)
        self.sample.add(table, rows)

    def facts(self) -> CheckFacts:
        shown = frozenset(day for day, tally in self.days.tallies.items() if tally.rows.get("impressions"))
        windows: dict[int, float] = {}
        for target in self.schema.targets:
            if target.action in self.actions.names:
                code = self.actions.code(target.action)
                windows[code] = max(windows.get(code, 0.0), target.attribution_seconds * 1000)
        compared = compare(self.sample, windows, shown)
        requests = compared.requests
        if compared.example is not None:
            spelled = self.columns["impressions", "request_id"].spelled(compared.example)
            requests = replace(requests, example=spelled)
        level = max(self.used[column].level for column in (("impressions", "user_id"), ("impressions", "room_id")))
        total = sum(self.rows.get(table, 0) for table in EVENTS)
        return CheckFacts(
            rows=self.rows,
            users=self.users.count if self.heavy.distinct is None else self.heavy.distinct,
            columns=tuple(tally.facts(self.rows[table]) for (table, _), tally in self.columns.items()),
            days=self._days(compared.asked, compared.credited, shown),
            heavy=tuple(
                Heavy(user=self.names.get(key, str(key)), rows=rows, share=rows / total) for key, rows in self.heavy.top(_TOLD)
            ),
            users_short=self.heavy.short,
            id_share=0.5**level,
            answers=compared.answers,
            requests=requests,
            coverage=tuple(self._coverage()),
            repeats=(*compared.repeats, *self._repeated_ids()),
            lives=self._lives(),
            rooms_handed_on=int((self.streamers[0].known()[1] != self.streamers[1].known()[1]).sum()),
            now=self.now,
        )

    def _days(self, asked: Mapping[int, int], credited: Mapping[int, int], shown: Collection[int]) -> tuple[DayFacts, ...]:
        new = {column: self._new(column) for column in ("user_id", "room_id")}
        last = max((day for day in shown if not self._is_future(day)), default=0)
        test, valid = last - self.calendar.test_days, last - self.calendar.test_days - self.calendar.valid_days
        days = []
        for day, tally in sorted(self.days.tallies.items()):
            days.append(
                DayFacts(
                    date=date_of(day),
                    split=None if day not in shown else "test" if day > test else "valid" if day > valid else "train",
                    rows=tally.rows,
                    first=tally.first,
                    last=tally.last,
                    actions={self.actions.names[code]: rows for code, rows in sorted(tally.actions.items())},
                    rates=dict(rates(tally, self.actions.names)),
                    reached=tally.reached,
                    means={name: tally.sums[name] / tally.valued[name] for name in tally.sums},
                    valued=tally.valued,
                    asked=asked.get(day, 0),
                    credited=credited.get(day, 0),
                    new_users=new["user_id"].get(day, 0),
                    new_rooms=new["room_id"].get(day, 0),
                )
            )
        return tuple(days)

    def _is_future(self, day: int) -> bool:
        return day > int(self.calendar.day(np.array(self.now)))

    def _new(self, column: str) -> dict[int, int]:
        ids = self.used["impressions", column]
        days, count = np.unique(ids.known()[1], return_counts=True)
        return dict(zip(days.tolist(), (count << ids.level).tolist(), strict=True))

    def _coverage(self) -> list[Coverage]:
        found = []
        for (table, column), attributes in _USES.items():
            if attributes not in self.rows or not self.used[table, column].known()[0].size:
                continue
            level = max(self.used[table, column].level, self.ids[attributes].level)
            ids, _, rows = self.used[table, column].known(level)
            known = np.isin(ids, self.ids[attributes].known(level)[0])
            found.append(
                Coverage(
                    table=attributes,
                    column=f"{table}.{column}",
                    id_share=0.5**level,
                    ids=len(ids),
                    rows=int(rows.sum()),
                    known_ids=int(known.sum()),
                    known_rows=int(rows[known].sum()),
                )
            )
        return found

    def _repeated_ids(self) -> list[Repeats]:
        found = []
        for table, (least, largest) in self.said.items():
            if table in self.rows:
                (_, low, rows), (_, high, _) = least.known(), largest.known()
                differing = int((low != high).sum())
                repeated = int(rows.sum()) - len(rows)
                found.append(Repeats(table=table, rows=int(rows.sum()), repeated=repeated, differing=differing))
        return found

    def _lives(self) -> Lives:
        lives, example = self.lives, ""
        if lives.earliest is not None:
            room, at, ms = lives.earliest
            example = f"room {room} at {self.calendar.local(at)}, {ms / HOUR_MS:,.1f} h before"
        return Lives(rows=lives.rows, before=lives.before, example=example, ended_rows=lives.ended_rows, after=lives.after)


def _names_ids(table: str, name: str, kind: pa.DataType) -> bool:
    declared = declaration(table, name)
    is_used = (table, name) in _USES or (declared is not None and declared.holds == "id")
    return is_used and not pa.types.is_floating(kind)


def _hashed(columns: Mapping[str, pa.Array]) -> np.ndarray:
    """A hash of every row, int64."""
    rows = pl.from_arrow(pa.table(dict(columns)))
    assert isinstance(rows, pl.DataFrame)
    return rows.hash_rows().to_numpy().view(np.int64)


def _is_plain(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values


def _chunks(values: pa.Array | pa.ChunkedArray, day: np.ndarray | None) -> list[tuple[pa.Array, np.ndarray | None]]:
    """Parts of a column that are one array each, with the days of their rows."""
    if isinstance(values, pa.Array):
        return [(values, day)]
    ends = np.cumsum([len(chunk) for chunk in values.chunks])
    return [
        (chunk, None if day is None else day[end - len(chunk) : end])
        for chunk, end in zip(values.chunks, ends.tolist(), strict=True)
    ]
