"""What all users did to a room or its streamer before the moment a candidate is asked about.

Rows come in by bucket of the streamer (of the room, where no streamer is known) and go out by bucket of the user, in
the order of that bucket's candidates, so they are put in place without a join. A bucket is worked on in slices of
time: a streamer with half of all impressions needs no more memory than any other.

    # Q candidates asked about, E events, O owners (rooms, or streamers)
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.catalogue import ENTER, FEEDS, IMPRESSIONS, ROOM, STREAMER, WINDOWS, Column, Count, Hours, Subject
from pipelines.encode.arrays import integers
from pipelines.encode.clock import NEVER, hours_since
from pipelines.prepare.tables import Attributes, times
from pipelines.prepare.timeline import Moments, Timeline, find
from pipelines.runs import written
from pipelines.runs.exchange import ExchangeWriter

OWNERS = (ROOM, STREAMER)
START_AT = "start_at"  # of the table `rooms`
LONGEST_WINDOW_MS = max(window for window in WINDOWS.values() if window is not None)
ROW = pa.field("row", pa.int32())  # of a candidate within its bucket of users
_EVER = (np.iinfo(np.int64).min // 2, np.iinfo(np.int64).max // 2)


def counted_actions(columns: Iterable[Column]) -> list[str]:
    """Actions that these counters and hours ask for, and `ENTER`, which always counts: a room that was entered is known."""
    kinds = {column.events for column in columns}
    return [ENTER, *sorted(kinds - {ENTER, IMPRESSIONS, FEEDS})]


def counter_type(column: Column) -> pa.DataType:
    """Of a counter's or an age's values."""
    return pa.int64() if isinstance(column.how, Count) else pa.float32()


@dataclass(frozen=True)
class Rooms:
    """The rooms of a bucket.

    A room has one streamer. Where the table `rooms` has `valid_from`, it is known from the first row on that names it; what
    happened in the room before counts for no streamer. When a room started is as the latest row says.

    Attributes:
        ids: sorted.
        streamer_of_room: place in `streamer_ids`, -1 where no row names one.
        streamer_since: from when on it is known.
    """

    ids: np.ndarray
    streamer_ids: np.ndarray
    streamer_of_room: np.ndarray
    streamer_since: np.ndarray
    attributes: Attributes

    @classmethod
    def of(cls, ids: np.ndarray, attributes: Attributes) -> "Rooms":
        streamer, known, since = streamers_of(ids, attributes)
        streamer_ids = np.unique(streamer[known])
        return cls(ids, streamer_ids, np.where(known, find(streamer_ids, streamer), -1), since, attributes)

    @property
    def change(self) -> bool:
        """Whether what is known of a room depends on the moment."""
        return self.attributes.changes

    def streamer(self, room: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Place of the streamer of each room as of each moment, -1 where it is not known then."""
        streamer = self.streamer_of_room[room]
        return np.where(self.streamer_since[room] <= at, streamer, -1) if self.change else streamer

    def start_at(self, room: np.ndarray, at: np.ndarray) -> np.ndarray:
        """When each room started, as of each moment; `NEVER` where that is not known then."""
        if START_AT not in self.attributes.table.column_names:
            return np.full(len(room), NEVER)
        if self.change:
            return times(self.attributes.of(self.ids[room], at, [START_AT])[START_AT])
        return self._start_of_room[room]

    @cached_property
    def _start_of_room(self) -> np.ndarray:
        return times(self.attributes.of(self.ids, None, [START_AT])[START_AT])


def streamers_of(room_ids: np.ndarray, rooms: Attributes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Streamer of every room, where it is known at all (elsewhere 0), and since when, as `rooms` says."""
    if STREAMER.key not in rooms.table.column_names:
        return np.zeros(len(room_ids), np.int64), np.zeros(len(room_ids), bool), np.full(len(room_ids), NEVER)
    column, since = rooms.ever(room_ids, STREAMER.key)
    return integers(column), integers(column, -1) != -1, since


@dataclass
class _Past:
    """What happened to the owners of one kind so long before a slice of time that no window reaches it."""

    counts_O: dict[str, np.ndarray]  # by kind of events
    first_O: np.ndarray  # first impression, `NEVER` until there is one

    @classmethod
    def none(cls, owners: int, events: Iterable[str]) -> "_Past":
        return cls({kind: np.zeros(owners, np.int64) for kind in events}, np.full(owners, NEVER, np.int64))


@dataclass(frozen=True)
class _Events:
    """What happened to rooms: their places in `Rooms.ids`, and when that arrived."""

    room_E: np.ndarray
    at_E: np.ndarray


@dataclass(frozen=True)
class _Slice:
    """The questions of one slice of time, and by their kind the events that they are about."""

    room_Q: np.ndarray
    at_Q: np.ndarray
    events: Mapping[str, _Events]


class Counting:
    """Counters of the rooms of a bucket and of their streamers, slice of time by slice of time.

    Attributes:
        codes: of the actions that are counted.
    """

    def __init__(self, rooms: Rooms, columns: Sequence[Column], actions: Sequence[str]) -> None:
        """`columns`: counters and hours of rooms and streamers; `actions`: in the order of their codes."""
        self.rooms = rooms
        self.columns = columns
        self.codes = {action: actions.index(action) for action in counted_actions(columns)}
        kinds = (IMPRESSIONS, *self.codes)
        self.past = {ROOM: _Past.none(len(rooms.ids), kinds), STREAMER: _Past.none(len(rooms.streamer_ids), kinds)}

    def count(self, part: _Slice) -> dict[str, pa.Array]:
        """The asked columns for every question. Events reach back far enough for the longest window."""
        found: dict[str, pa.Array] = {}
        for owner in OWNERS:
            asked = [column for column in self.columns if column.of == owner]
            if asked:
                found.update(self._count(owner, asked, part))
        return {column.name: found[column.name] for column in self.columns}

    def forget(self, part: _Slice, before: int) -> None:
        """Moves the slice's events before a moment into the past."""
        for owner, past in self.past.items():
            for kind, events in part.events.items():
                owner_E = self.owners(owner, events.room_E, events.at_E)
                old = (events.at_E < before) & (owner_E >= 0)
                past.counts_O[kind] += np.bincount(owner_E[old], minlength=len(past.first_O))
                if kind == IMPRESSIONS:
                    first_O = np.full(len(past.first_O), np.iinfo(np.int64).max)
                    np.minimum.at(first_O, owner_E[old], events.at_E[old])
                    new = (past.first_O == NEVER) & (first_O < np.iinfo(np.int64).max)
                    past.first_O[new] = first_O[new]

    def owners(self, owner: Subject, room: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Place of each room's owner among those of the kind, as of each moment; -1 where there is none."""
        return room if owner == ROOM else self.rooms.streamer(room, at)

    def _count(self, owner: Subject, columns: Sequence[Column], part: _Slice) -> dict[str, pa.Array]:
        past, owner_Q = self.past[owner], self.owners(owner, part.room_Q, part.at_Q)
        if not len(past.first_O):
            return {column.name: pa.nulls(len(owner_Q), counter_type(column)) for column in columns}
        moments = Moments(len(past.first_O), *(events.at_E for events in part.events.values()), part.at_Q)
        # Questions in the order of the events find their place several times as fast; S stands for sorted questions.
        order_S = np.argsort(moments.pack(np.maximum(owner_Q, 0), part.at_Q))
        unknown_S = owner_Q[order_S] < 0
        owner_S, at_S = np.where(unknown_S, 0, owner_Q[order_S]), part.at_Q[order_S]
        lines, position = {}, {}
        for kind in {column.events for column in columns}:
            events = part.events[kind]
            owner_E = self.owners(owner, events.room_E, events.at_E)
            known = owner_E >= 0
            lines[kind] = Timeline(moments, owner_E[known], events.at_E[known])
            position[kind] = lines[kind].position(owner_S, at_S)
        found: dict[str, pa.Array] = {}
        unknown_Q = owner_Q < 0
        for column in columns:
            match column.how:
                case Count(events=kind) as counter if counter.window_ms is None:
                    count_S = past.counts_O[kind][owner_S] + position[kind] - lines[kind].begins_O[owner_S]
                    found[column.name] = pa.array(_unsorted(count_S, order_S), mask=unknown_Q)
                case Count(events=kind) as counter:
                    count_S = position[kind] - lines[kind].position(owner_S, at_S - counter.window_ms)
                    found[column.name] = pa.array(_unsorted(count_S, order_S), mask=unknown_Q)
                case Hours(events=kind):
                    first_S = self.began(owner, part.room_Q[order_S], at_S, lines[kind])
                    hours = _unsorted(hours_since(np.where(first_S < at_S, first_S, NEVER), at_S), order_S)
                    found[column.name] = pa.array(hours, mask=np.isnan(hours) | unknown_Q)
        return found

    def began(self, owner: Subject, room: np.ndarray, at: np.ndarray, shown: Timeline | None = None) -> np.ndarray:
        """When the owner of each room began, as of each moment; `NEVER` where that is not known.

        That is a room's start if the log knows it, else the first impression, past or in `shown`.
        """
        first_O = self.past[owner].first_O
        if shown is not None:
            first_O = np.where(first_O == NEVER, shown.first_times(), first_O)
        first = np.append(first_O, NEVER)[self.owners(owner, room, at)]  # the last stands for no owner
        if owner == ROOM:
            start = self.rooms.start_at(room, at)
            first = np.where(start == NEVER, first, start)
        return first


def _unsorted(values_S: np.ndarray, order_S: np.ndarray) -> np.ndarray:
    values = np.empty_like(values_S)
    values[order_S] = values_S
    return values


def count_bucket(
    shown: Sequence[pa.RecordBatch],
    done: Sequence[pa.RecordBatch],
    counting: Counting,
    *,
    rows_per_slice: int,
    ending: int,
    output: Path,
) -> tuple[dict[str, pa.Array], ExchangeWriter]:
    """Writes the counters of all candidates of a bucket of streamers, by bucket of users; returns those at the end, and
    what wrote the file.

    Args:
        shown: by bucket of users: row, room_id, known_at (when it arrived), feed_at (the moment to be asked about).
        done: room_id, known_at, action (code), of the counted actions.
        ending: a moment after all events; each room's counters then are what is returned.
    """
    schema = pa.schema([ROW, *(pa.field(column.name, counter_type(column)) for column in counting.columns)])
    with written(output, durable=False) as draft, ExchangeWriter(draft, schema, len(shown)) as writer:
        for begin, end in _slices(shown, rows_per_slice):
            part, rows = _load(shown, done, counting, begin, end)
            found = counting.count(part)
            start = 0
            for row in rows:
                stop = start + len(row)
                values = [found[column.name].slice(start, stop - start) for column in counting.columns]
                writer.write_sorted(pa.table([pa.array(row, pa.int32()), *values], schema=schema))
                start = stop
            if end < _EVER[1]:
                counting.forget(part, end - LONGEST_WINDOW_MS)
    rooms = np.arange(len(counting.rooms.ids))
    last = replace(part, room_Q=rooms, at_Q=np.full(len(rooms), ending))
    found = counting.count(last)
    counting.forget(last, _EVER[1])
    return found, writer


def _slices(shown: Sequence[pa.RecordBatch], rows_per_slice: int) -> Iterator[tuple[int, int]]:
    """Moments that cut the questions into parts of about that many rows."""
    rows = sum(len(batch) for batch in shown)
    parts = max(1, -(-rows // rows_per_slice))
    sample = np.concatenate([integers(batch["feed_at"])[:: max(1, rows // 100_000)] for batch in shown])
    inner = np.unique(np.quantile(sample, np.arange(1, parts) / parts).astype(np.int64)) if parts > 1 else sample[:0]
    borders = [_EVER[0], *inner.tolist(), _EVER[1]]
    yield from itertools.pairwise(borders)


def _load(
    shown: Sequence[pa.RecordBatch], done: Sequence[pa.RecordBatch], counting: Counting, begin: int, end: int
) -> tuple[_Slice, list[np.ndarray]]:
    """Questions in [begin, end), events from the longest window before on, and the rows of the questions by bucket of users."""
    since, ids = begin - LONGEST_WINDOW_MS, counting.rooms.ids
    rows: list[np.ndarray] = []
    room_Q: list[np.ndarray] = []
    at_Q: list[np.ndarray] = []
    events: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {kind: [] for kind in (IMPRESSIONS, *counting.codes)}
    for batch in shown:
        room, feed_at, at = (integers(batch[name]) for name in ("room_id", "feed_at", "known_at"))
        room = find(ids, room)
        asked, event = (feed_at >= begin) & (feed_at < end), (at >= since) & (at < end)
        rows.append(batch["row"].to_numpy()[asked])
        room_Q.append(room[asked])
        at_Q.append(feed_at[asked])
        events[IMPRESSIONS].append((room[event], at[event]))
    for batch in done:
        at, action = integers(batch["known_at"]), batch["action"].to_numpy()
        in_time = (at >= since) & (at < end)
        for kind, code in counting.codes.items():
            event = in_time & (action == code)
            events[kind].append((find(ids, integers(batch["room_id"])[event]), at[event]))
    join = lambda parts: np.concatenate([np.zeros(0, np.int64), *parts])
    found = {kind: _Events(*(join(part) for part in zip(*parts, strict=True))) for kind, parts in events.items() if parts}
    nothing = _Events(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return _Slice(join(room_Q), join(at_Q), {kind: found.get(kind, nothing) for kind in events}), rows
