"""What all users did to a room or its streamer before the moment a candidate is asked about.

Rows come in by bucket of the streamer (of the room, where no streamer is known) and go out by bucket of the user, in
the order of that bucket's candidates, so they are put in place without a join. A bucket is worked on in slices of
time: a streamer with half of all impressions needs no more memory than any other.

    # Q candidates asked about, E events, O owners (rooms, or streamers)
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.encode.arrays import integers
from pipelines.encode.clock import NEVER, hours_since
from pipelines.prepare.exchange import ExchangeWriter
from pipelines.prepare.tables import Attributes, times
from pipelines.prepare.timeline import Moments, Timeline, find
from pipelines.runs import written

WINDOWS_MS = {"10m": 600_000, "1h": 3_600_000, "life": None}
LONGEST_WINDOW_MS = 3_600_000
OWNERS = ("room", "streamer")
COUNTERS = (
    *(f"{owner}_{what}.{window}" for owner in OWNERS for what in ("impressions", "entries") for window in WINDOWS_MS),
    *(f"{owner}_age_hours" for owner in OWNERS),
)
ROW = pa.field("row", pa.int32())  # of a candidate within its bucket of users
_EVER = (np.iinfo(np.int64).min // 2, np.iinfo(np.int64).max // 2)


def counter_types(columns: Sequence[str]) -> list[pa.Field]:
    return [pa.field(name, pa.float32() if name.endswith("_age_hours") else pa.int64()) for name in columns]


@dataclass(frozen=True)
class Rooms:
    """The rooms of a bucket: sorted ids, the streamer of each, and since when it is known to run (`NEVER`: it is not)."""

    ids: np.ndarray
    streamer_ids: np.ndarray
    streamer_of_room: np.ndarray  # place in `streamer_ids`, -1 where unknown
    start_at: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, attributes: Attributes) -> "Rooms":
        streamer, known = streamers_of(ids, attributes)
        streamer_ids = np.unique(streamer[known])
        start_at = np.full(len(ids), NEVER, np.int64)
        if "start_at" in attributes.table.column_names:
            start_at = times(attributes.of(ids, ["start_at"])["start_at"])
        return cls(ids, streamer_ids, np.where(known, find(streamer_ids, streamer), -1), start_at)


def streamers_of(room_ids: np.ndarray, rooms: Attributes) -> tuple[np.ndarray, np.ndarray]:
    """Streamer of every room, and where it is known (elsewhere 0), as `rooms` says."""
    if "streamer_id" not in rooms.table.column_names:
        return np.zeros(len(room_ids), np.int64), np.zeros(len(room_ids), bool)
    column = rooms.of(room_ids, ["streamer_id"])["streamer_id"]
    return integers(column), integers(column, -1) != -1


@dataclass
class _Past:
    """What happened to the owners of one kind so long before a slice of time that no window reaches it."""

    impressions_O: np.ndarray
    entries_O: np.ndarray
    first_O: np.ndarray  # first impression, `NEVER` until there is one

    @classmethod
    def none(cls, owners: int) -> "_Past":
        return cls(np.zeros(owners, np.int64), np.zeros(owners, np.int64), np.full(owners, NEVER, np.int64))


@dataclass
class _Slice:
    """The events that questions of one slice of time are about."""

    room_Q: np.ndarray
    at_Q: np.ndarray
    shown_room_E: np.ndarray
    shown_at_E: np.ndarray
    entered_room_E: np.ndarray
    entered_at_E: np.ndarray


@dataclass
class Counting:
    """Counters of the rooms of a bucket and of their streamers, slice of time by slice of time."""

    rooms: Rooms
    columns: Sequence[str]
    past: dict[str, _Past] = field(init=False)

    def __post_init__(self) -> None:
        self.past = {"room": _Past.none(len(self.rooms.ids)), "streamer": _Past.none(len(self.rooms.streamer_ids))}

    def count(self, part: _Slice) -> dict[str, pa.Array]:
        """The asked columns for every question. Events reach back far enough for the longest window."""
        found: dict[str, pa.Array] = {}
        for owner in OWNERS:
            asked = [name for name in self.columns if name.startswith(f"{owner}_")]
            if asked:
                found.update(self._count(owner, asked, part))
        return {name: found[name] for name in self.columns}

    def forget(self, part: _Slice, before: int) -> None:
        """Moves the slice's events before a moment into the past."""
        for owner, past in self.past.items():
            shown, entered = self._owners(owner, part.shown_room_E), self._owners(owner, part.entered_room_E)
            old = (part.shown_at_E < before) & (shown >= 0)
            past.impressions_O += np.bincount(shown[old], minlength=len(past.first_O))
            first_O = np.full(len(past.first_O), np.iinfo(np.int64).max)
            np.minimum.at(first_O, shown[old], part.shown_at_E[old])
            new = (past.first_O == NEVER) & (first_O < np.iinfo(np.int64).max)
            past.first_O[new] = first_O[new]
            old = (part.entered_at_E < before) & (entered >= 0)
            past.entries_O += np.bincount(entered[old], minlength=len(past.first_O))

    def _owners(self, owner: str, room: np.ndarray) -> np.ndarray:
        return room if owner == "room" else self.rooms.streamer_of_room[room]

    def _count(self, owner: str, columns: Sequence[str], part: _Slice) -> dict[str, pa.Array]:
        past = self.past[owner]
        owner_Q = self._owners(owner, part.room_Q)
        if not len(past.first_O):
            return {item.name: pa.nulls(len(owner_Q), item.type) for item in counter_types(columns)}
        moments = Moments(len(past.first_O), part.shown_at_E, part.entered_at_E, part.at_Q)
        # Questions in the order of the events find their place several times as fast; S stands for sorted questions.
        order_S = np.argsort(moments.pack(np.maximum(owner_Q, 0), part.at_Q))
        unknown_S = owner_Q[order_S] < 0
        owner_S, at_S = np.where(unknown_S, 0, owner_Q[order_S]), part.at_Q[order_S]
        lines = {}
        for what, room_E, at_E in (
            ("impressions", part.shown_room_E, part.shown_at_E),
            ("entries", part.entered_room_E, part.entered_at_E),
        ):
            owner_E = self._owners(owner, room_E)
            known = owner_E >= 0
            lines[what] = Timeline(moments, owner_E[known], at_E[known])
        older = {"impressions": past.impressions_O, "entries": past.entries_O}
        position = {what: line.position(owner_S, at_S) for what, line in lines.items()}
        found: dict[str, pa.Array] = {}
        unknown_Q = owner_Q < 0
        for name in columns:
            if name.endswith("_age_hours"):
                first_S = self.began(owner, lines["impressions"])[owner_S]
                hours = _unsorted(hours_since(np.where(first_S < at_S, first_S, NEVER), at_S), order_S)
                found[name] = pa.array(hours, mask=np.isnan(hours) | unknown_Q)
                continue
            what, window = name.removeprefix(f"{owner}_").split(".")
            line, window_ms = lines[what], WINDOWS_MS[window]
            if window_ms is None:
                count_S = older[what][owner_S] + position[what] - line.first_U[owner_S]
            else:
                count_S = position[what] - line.position(owner_S, at_S - window_ms)
            found[name] = pa.array(_unsorted(count_S, order_S), mask=unknown_Q)
        return found

    def began(self, owner: str, shown: Timeline | None = None) -> np.ndarray:
        """When each owner began: a room's start if the log knows it, else the first impression, past or in `shown`."""
        first_O = self.past[owner].first_O
        if shown is not None:
            first_O = np.where(first_O == NEVER, shown.first_times(), first_O)
        if owner == "room":
            first_O = np.where(self.rooms.start_at == NEVER, first_O, self.rooms.start_at)
        return first_O


def _unsorted(values_S: np.ndarray, order_S: np.ndarray) -> np.ndarray:
    values = np.empty_like(values_S)
    values[order_S] = values_S
    return values


def count_bucket(
    shown: Sequence[pa.RecordBatch],
    entered: Sequence[pa.RecordBatch],
    counting: Counting,
    *,
    rows_per_slice: int,
    ending: int,
    output: Path,
) -> dict[str, pa.Array]:
    """Writes the counters of all candidates of a bucket of streamers, by bucket of users; returns those at the end.

    Args:
        shown: by bucket of users: row, room_id, shown_at, feed_at (the moment to be asked about).
        entered: room_id, at.
        ending: a moment after all events; each room's counters then are what is returned.
    """
    schema = pa.schema([ROW, *counter_types(counting.columns)])
    with written(output) as draft, ExchangeWriter(draft, schema, len(shown)) as writer:
        for begin, end in _slices(shown, rows_per_slice):
            since = begin - LONGEST_WINDOW_MS
            part, rows = _load(shown, entered, counting.rooms.ids, since, begin, end)
            found = counting.count(part)
            start = 0
            for row in rows:
                stop = start + len(row)
                values = [found[name].slice(start, stop - start) for name in counting.columns]
                writer.write_sorted(pa.table([pa.array(row, pa.int32()), *values], schema=schema))
                start = stop
            if end < _EVER[1]:
                counting.forget(part, end - LONGEST_WINDOW_MS)
    rooms = np.arange(len(counting.rooms.ids))
    part.room_Q, part.at_Q = rooms, np.full(len(rooms), ending)
    found = counting.count(part)
    counting.forget(part, _EVER[1])
    return found


def _slices(shown: Sequence[pa.RecordBatch], rows_per_slice: int) -> Iterator[tuple[int, int]]:
    """Moments that cut the questions into parts of about that many rows."""
    rows = sum(len(batch) for batch in shown)
    parts = max(1, -(-rows // rows_per_slice))
    sample = np.concatenate([integers(batch["feed_at"])[:: max(1, rows // 100_000)] for batch in shown])
    inner = np.unique(np.quantile(sample, np.arange(1, parts) / parts).astype(np.int64)) if parts > 1 else sample[:0]
    borders = [_EVER[0], *inner.tolist(), _EVER[1]]
    yield from itertools.pairwise(borders)


def _load(
    shown: Sequence[pa.RecordBatch], entered: Sequence[pa.RecordBatch], rooms: np.ndarray, since: int, begin: int, end: int
) -> tuple[_Slice, list[np.ndarray]]:
    """Questions in [begin, end), events in [since, end), and the rows of the questions by bucket of users."""
    rows, room_Q, at_Q, shown_room, shown_at, entered_room, entered_at = ([] for _ in range(7))
    for batch in shown:
        room, feed_at, at = (integers(batch[name]) for name in ("room_id", "feed_at", "shown_at"))
        room = find(rooms, room)
        asked, event = (feed_at >= begin) & (feed_at < end), (at >= since) & (at < end)
        rows.append(batch["row"].to_numpy()[asked])
        room_Q.append(room[asked])
        at_Q.append(feed_at[asked])
        shown_room.append(room[event])
        shown_at.append(at[event])
    for batch in entered:
        at = integers(batch["at"])
        event = (at >= since) & (at < end)
        entered_room.append(find(rooms, integers(batch["room_id"])[event]))
        entered_at.append(at[event])
    join = lambda parts: np.concatenate([np.zeros(0, np.int64), *parts])
    return _Slice(*map(join, (room_Q, at_Q, shown_room, shown_at, entered_room, entered_at))), rows
