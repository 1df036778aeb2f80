"""Columns of rooms that nobody need have shown to the user, as they were at the moment of a feed.

Counters and moments are added up over the ordered log of one bucket of users after the other, so that memory is that of the
questions and of one bucket. They mean what they mean in the preparation: everything that had arrived before the feed.

    # Q questions (a user and a room at a moment), E events of a bucket, O owners
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from models.catalogue import (
    CANDIDATE,
    IMPRESSIONS,
    ROOM,
    STREAMER,
    USER_ROOM,
    USER_STREAMER,
    Column,
    Count,
    Hours,
    Subject,
    counters,
    logged,
)
from pipelines.encode.arrays import integers
from pipelines.encode.clock import NEVER, hours_since
from pipelines.prepare.features import AttributeTables, frame, rooms_frame, shown_products
from pipelines.prepare.labels import arrivals
from pipelines.prepare.room_counters import Rooms, counter_type
from pipelines.prepare.tables import Attributes
from pipelines.prepare.timeline import Moments, Timeline, codes, find

_NOBODY = -1


@dataclass(frozen=True)
class Events:
    """What happened in a bucket: who, where, when it arrived; -1 for a streamer that was not known then."""

    user_E: np.ndarray
    room_E: np.ndarray
    streamer_E: np.ndarray
    at_E: np.ndarray


@dataclass
class Owners:
    """Of whom questions ask: rooms, streamers, or pairs of a user with one of them.

    Attributes:
        owner_Q: place among the owners, -1 where the streamer is not known.
        columns: that are asked of them.
        counts_Q: so far, by column.
        moment: so far, by column of hours: each owner's first impression, or every question's last event.
    """

    subject: Subject
    ids: tuple[np.ndarray, ...]  # sorted: of the user, where it is a pair, and of the other
    keys: np.ndarray  # sorted: of the owners, made of places in `ids`
    owner_Q: np.ndarray
    columns: Sequence[Column]
    counts_Q: dict[str, np.ndarray] = field(default_factory=dict)
    moments: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: Subject, columns: Sequence[Column], *id_Q: np.ndarray) -> "Owners":
        """`id_Q`: of the user, where it is a pair, and of the other, -1 for nobody."""
        ids = tuple(np.unique(each[each != _NOBODY]) for each in id_Q)
        keys_Q = _keys(ids, id_Q)
        keys = np.unique(keys_Q[keys_Q >= 0])
        return cls(subject, ids, keys, find(keys, keys_Q), columns)

    def take(self, events: Mapping[str, Events], at_Q: np.ndarray) -> None:
        """Adds what a bucket holds of the asked kinds."""
        lines: dict[str, Timeline] = {}
        known_Q = np.maximum(self.owner_Q, 0)
        for column in self.columns:
            if column.events not in lines:
                lines[column.events] = self._line(events[column.events], at_Q)
            line = lines[column.events]
            if not len(self.keys):
                continue
            match column.how:
                case Count() as counter:
                    found = line.count(known_Q, at_Q, counter.window_ms)
                    self.counts_Q[column.name] = self.counts_Q.get(column.name, 0) + found
                case Hours(since="first"):
                    first = line.first_times()
                    first = np.where(first == NEVER, np.iinfo(np.int64).max, first)
                    self.moments[column.name] = np.minimum(self.moments.get(column.name, first), first)
                case Hours():
                    last = line.last(known_Q, at_Q)
                    self.moments[column.name] = np.maximum(self.moments.get(column.name, last), last)

    def _line(self, events: Events, at_Q: np.ndarray) -> Timeline:
        other = events.room_E if self.subject in (ROOM, USER_ROOM) else events.streamer_E
        given = (events.user_E, other) if len(self.ids) == 2 else (other,)
        owner_E = find(self.keys, _keys(self.ids, given))
        mine = owner_E >= 0
        moments = Moments(max(len(self.keys), 1), events.at_E[mine], at_Q)
        return Timeline(moments, owner_E[mine], events.at_E[mine])

    def found(self, at_Q: np.ndarray, start_Q: np.ndarray) -> dict[str, pa.Array]:
        """The columns' values.

        Args:
            start_Q: when the rooms started as was known then, `NEVER` where it was not.
        """
        unknown_Q = self.owner_Q < 0
        values: dict[str, pa.Array] = {}
        for column in self.columns:
            if not len(self.keys):
                values[column.name] = pa.nulls(len(at_Q), counter_type(column))
            elif isinstance(column.how, Count):
                values[column.name] = pa.array(self.counts_Q[column.name], mask=unknown_Q)
            else:
                moment_Q = self.moments[column.name]
                if isinstance(column.how, Hours) and column.how.since == "first":
                    moment_Q = moment_Q[np.maximum(self.owner_Q, 0)]
                    if self.subject == ROOM:
                        moment_Q = np.where(start_Q == NEVER, moment_Q, start_Q)
                    moment_Q = np.where(moment_Q < at_Q, moment_Q, NEVER)
                hours_Q = hours_since(moment_Q, at_Q)
                values[column.name] = pa.array(hours_Q, mask=np.isnan(hours_Q) | unknown_Q)
        return values


class LiveColumns:
    """All columns of candidates that a schema's fields read, for any user, room and moment.

    Args:
        columns: base columns to compute.
        actions: of the plan, in the order of their codes.
    """

    def __init__(
        self,
        columns: frozenset[str],
        actions: Sequence[str],
        attributes: AttributeTables,
        user_Q: np.ndarray,
        room_Q: np.ndarray,
        at_Q: np.ndarray,
    ) -> None:
        self.columns, self.actions, self.attributes, self.at_Q = columns, actions, attributes, at_Q
        self.rooms = Rooms.of(np.unique(room_Q), attributes.tables["rooms"])
        self.place_Q = find(self.rooms.ids, room_Q)
        streamer_Q = streamers(self.rooms, self.place_Q, at_Q)
        asked = {
            ROOM: (room_Q,),
            STREAMER: (streamer_Q,),
            USER_ROOM: (user_Q, room_Q),
            USER_STREAMER: (user_Q, streamer_Q),
        }
        self.owners = [Owners.of(subject, own, *id_Q) for subject, id_Q in asked.items() if (own := counters(columns, subject))]
        self.kinds = sorted({column.events for owners in self.owners for column in owners.columns})
        self.states: pa.Table | None = None
        self.state_of_Q = (np.full(len(at_Q), NEVER), np.full(len(at_Q), NEVER))  # when it was shown last, and in which feed

    def take(self, feeds: pa.Table, impressions: pa.Table, engagements: pa.Table) -> None:
        """Adds the ordered log of a bucket of users, as `log_to_feeds.Bucket` has it."""
        size = integers(feeds["size"])
        user_N = np.repeat(integers(feeds["user_id"]), size)
        room_N, known_N = integers(impressions["room_id"]), arrivals(impressions, "shown_at")
        user_E, room_E, known_E = (
            *(integers(engagements[name]) for name in ("user_id", "room_id")),
            arrivals(engagements, "at"),
        )
        action_E = integers(engagements["action"])
        tables = self.attributes.tables["rooms"]
        events = {}
        for kind in self.kinds:
            if kind == IMPRESSIONS:
                events[kind] = _events(tables, user_N, room_N, known_N)
            else:
                did = action_E == self.actions.index(kind)
                events[kind] = _events(tables, user_E[did], room_E[did], known_E[did])
        for owners in self.owners:
            owners.take(events, self.at_Q)
        self._see(impressions, room_N, known_N, np.repeat(integers(feeds["feed_id"]), size))

    def _see(self, impressions: pa.Table, room_N: np.ndarray, known_N: np.ndarray, feed_N: np.ndarray) -> None:
        """Looks for a later impression of the questions' rooms: the state it shows is what was known of the room."""
        names = [name for name in logged(impressions.column_names, ROOM) if name in self.columns]
        if not names:
            return
        shown = impressions.select(names)
        if self.states is None:
            nothing = pa.nulls(len(self.at_Q))
            self.states = pa.table({name: nothing.cast(shown.schema.field(name).type) for name in names})
        place_N = find(self.rooms.ids, room_N)
        rows = np.flatnonzero(place_N >= 0)
        rows = rows[np.lexsort((feed_N[rows], known_N[rows], place_N[rows]))]
        if not len(rows):
            return
        moments = Moments(len(self.rooms.ids), known_N[rows], self.at_Q)
        line = Timeline(moments, place_N[rows], known_N[rows])  # in the order of `rows`, but for equal moments
        position_Q = line.position(self.place_Q, self.at_Q)
        has_Q = position_Q > line.begins_O[self.place_Q]
        row_Q = rows[np.maximum(position_Q - 1, 0)]
        at_Q, feed_Q = self.state_of_Q
        is_later_Q = has_Q & ((known_N[row_Q] > at_Q) | ((known_N[row_Q] == at_Q) & (feed_N[row_Q] > feed_Q)))
        index_Q = np.where(is_later_Q, len(at_Q) + row_Q, np.arange(len(at_Q)))
        self.states = pa.concat_tables([self.states, shown]).combine_chunks().take(pa.array(index_Q))
        self.state_of_Q = np.where(is_later_Q, known_N[row_Q], at_Q), np.where(is_later_Q, feed_N[row_Q], feed_Q)

    def table(self) -> pl.DataFrame:
        """A row a question: room_id and all asked columns of candidates that a request can have."""
        of_room = rooms_frame(self.rooms, self.attributes, self.place_Q, self.at_Q)
        parts = [of_room.select([name for name in of_room.columns if name == "room_id" or name in self.columns])]
        start_Q = self.rooms.start_at(self.place_Q, self.at_Q)
        for owners in self.owners:
            parts.append(frame(owners.found(self.at_Q, start_Q), len(self.at_Q)))
        if self.states is not None:
            parts.append(frame({name: self.states[name] for name in self.states.column_names}, len(self.at_Q)))
            parts.append(shown_products(self.states, self.columns, self.attributes, self.at_Q))
        unknown = [name for name in logged(self.columns, CANDIDATE)]
        parts.append(frame({name: pa.nulls(len(self.at_Q), pa.int32()) for name in unknown}, len(self.at_Q)))
        return pl.concat([part for part in parts if part.width], how="horizontal")


def streamers(rooms: Rooms, place_Q: np.ndarray, at_Q: np.ndarray) -> np.ndarray:
    """Ids of the rooms' streamers as of a moment each, -1 where none was known."""
    streamer_Q = rooms.streamer(place_Q, at_Q)
    return np.where(streamer_Q >= 0, np.append(rooms.streamer_ids, 0)[streamer_Q], _NOBODY)


def _events(tables: Attributes, user_E: np.ndarray, room_E: np.ndarray, at_E: np.ndarray) -> Events:
    ids, code = codes(room_E)
    return Events(user_E, room_E, streamers(Rooms.of(ids, tables), code, at_E), at_E)


def _keys(ids: tuple[np.ndarray, ...], given: tuple[np.ndarray, ...]) -> np.ndarray:
    """One number for every user and other, -1 where one of them is not among the ids."""
    places = [find(own, each) for own, each in zip(ids, given, strict=True)]
    if len(places) == 1:
        return places[0]
    user, other = places
    return np.where((user >= 0) & (other >= 0), user * max(len(ids[1]), 1) + other, -1)
