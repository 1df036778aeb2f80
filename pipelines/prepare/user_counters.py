"""What a user had done before a moment: counts, running preferences, and what there was between a user and a room.

# N impressions, R feeds, E engagements, C product clicks, Q questions (a user at a moment), P pairs
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.catalogue import EARLIER, ENTER, FEEDS, IMPRESSIONS, PAIRS, ROOM, STREAMER, USER, Count, Hours, counters
from models.schema import Schema, Target
from pipelines.encode.arrays import integers
from pipelines.encode.clock import DAY_MS, NEVER, hours_since
from pipelines.encode.columns import preference_columns
from pipelines.prepare.histories import Entries
from pipelines.prepare.labels import Credits, arrivals
from pipelines.prepare.room_counters import Rooms, counted_actions, counter_type
from pipelines.prepare.timeline import Moments, Timeline, codes, find


@dataclass(frozen=True)
class Log:
    """The log of a bucket of users as arrays; users and rooms as places in `users` and `rooms.ids`.

    `known_*` is when a row arrived; what came before a moment is what had arrived by then.
    """

    users: np.ndarray
    rooms: Rooms
    user_R: np.ndarray
    at_R: np.ndarray
    known_R: np.ndarray  # when the first of its impressions arrived
    offsets_R: np.ndarray  # candidates of feed r are offsets_R[r] .. offsets_R[r + 1]
    feed_N: np.ndarray
    room_N: np.ndarray
    known_N: np.ndarray
    user_E: np.ndarray
    room_E: np.ndarray
    at_E: np.ndarray
    credits: Credits
    user_C: np.ndarray  # product clicks
    product_C: np.ndarray
    at_C: np.ndarray
    known_C: np.ndarray
    ending: int

    @property
    def user_N(self) -> np.ndarray:
        return self.user_R[self.feed_N]

    def events(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """User and arrival of all events of a kind that a counter counts."""
        if kind == FEEDS:
            return self.user_R, self.known_R
        if kind == IMPRESSIONS:
            return self.user_N, self.known_N
        did = self.credits.did(kind)
        return self.user_E[did], self.credits.known_at_E[did]

    def rooms_of(self, kind: str) -> np.ndarray:
        """Rooms of the same events."""
        return self.room_N if kind == IMPRESSIONS else self.room_E[self.credits.did(kind)]


class UserSide:
    """Answers what is asked of a user at a moment, for feeds and for the snapshot alike."""

    def __init__(self, log: Log, schema: Schema, columns: Collection[str]) -> None:
        self.log, self.schema, self.columns = log, schema, columns
        over_at_E = log.credits.over_at_E
        self.moments = Moments(
            len(log.users), log.known_N, log.at_R, log.at_E, over_at_E, log.known_C, np.array([log.ending], np.int64)
        )
        self.entries: dict[str, Entries] = {}
        self._lines: dict[str, Timeline] = {}
        self._pairs: dict[str, Pairs] = {}
        self._running: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.source: dict[str, np.ndarray] = {}  # what the entries of a history are positions in
        for history in schema.histories:
            if history.events == "engagements":
                stay = np.nan_to_num(log.credits.value_E)
                rows = np.flatnonzero(log.credits.did(ENTER) & (stay >= history.min_stay_seconds))
                self.entries[history.name] = Entries(history, self.moments, log.user_E[rows], over_at_E[rows])
            else:
                rows = np.arange(len(log.at_C))
                self.entries[history.name] = Entries(history, self.moments, log.user_C, log.known_C)
            self.source[history.name] = rows[self.entries[history.name].order_E]

    def feed_columns(self, user_Q: np.ndarray, at_Q: np.ndarray, columns: Collection[str]) -> dict[str, pa.Array]:
        """Of these columns, counters and hours of the user and running preferences."""
        found: dict[str, pa.Array] = {}
        for column in counters(columns, USER):
            match column.how:
                case Count(events=events) as counter:
                    found[column.name] = pa.array(self.line(events).count(user_Q, at_Q, counter.window_ms))
                case Hours(events=events):
                    found[column.name] = optional(hours_since(self.line(events).last(user_Q, at_Q), at_Q))
        return found | self._preferences(user_Q, at_Q, columns)

    def moments_of(self, user_Q: np.ndarray, at_Q: np.ndarray, columns: Collection[str]) -> dict[str, pa.Array]:
        """What hours of the user are counted from, of these columns and `user_last_at`, by the names in the store."""
        found: dict[str, pa.Array] = {}
        for column in counters({*columns, "user_last_seen_hours"}, USER):
            if isinstance(column.how, Hours):
                last_Q = self.line(column.how.events).last(user_Q, at_Q)
                found[column.stored] = pa.array(last_Q, mask=last_Q == NEVER)
        return found

    def line(self, events: str) -> Timeline:
        """All users' events of a kind."""
        if events not in self._lines:
            user_E, at_E = self.log.events(events)
            self._lines[events] = Timeline(self.moments, user_E, at_E)
        return self._lines[events]

    def _preferences(self, user_Q: np.ndarray, at_Q: np.ndarray, columns: Collection[str]) -> dict[str, pa.Array]:
        """In every window before the moment: impressions, and per impression what was known of each target's labels."""
        names, days = preference_columns(self.schema), self.schema.preference_days
        windows = [window for window in range(len(days)) if any(of[window] in columns for of in names.values())]
        if not windows:
            return {}
        now_Q = self.moments.pack(user_Q, at_Q)
        since = {window: self.moments.pack(user_Q, at_Q - round(days[window] * DAY_MS)) for window in windows}
        shown_E = self.line(IMPRESSIONS).key_E
        shown_Q = np.searchsorted(shown_E, now_Q)
        count = {window: shown_Q - np.searchsorted(shown_E, then_Q) for window, then_Q in since.items()}
        found = {names[EARLIER][window]: pa.array(count[window]) for window in windows if names[EARLIER][window] in columns}
        for target in self.schema.targets:
            asked = [window for window in windows if names[target.name][window] in columns]
            if not asked:
                continue
            key, total = self._known(target)
            until_Q = total[np.searchsorted(key, now_Q)]
            for window in asked:
                sum_Q = until_Q - total[np.searchsorted(key, since[window])]
                mean_Q = sum_Q / 1000 / np.maximum(count[window], 1)
                found[names[target.name][window]] = pa.array(mean_Q.astype(np.float32), mask=count[window] == 0)
        return found

    def _known(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """When each amount of a target's labels was known, as keys in order, and their running sum from 0, in thousandths."""
        if target.name not in self._running:
            row, at, thousandths = self.log.credits.known(target)
            key = self.moments.pack(self.log.user_N[row], at)
            order = np.argsort(key, kind="stable")
            self._running[target.name] = key[order], np.r_[0, np.cumsum(thousandths[order])]
        return self._running[target.name]

    def pair_columns(self) -> dict[str, pa.Array]:
        """The asked columns of pairs, for every impression."""
        found: dict[str, pa.Array] = {}
        at_N = self.log.at_R[self.log.feed_N]
        for owner, subject in PAIRS.items():
            asked = counters(self.columns, subject)
            if not asked:
                continue
            pairs = self.pairs(owner)
            unknown_N = pairs.pair_N < 0
            if owner == STREAMER.name and self.log.rooms.change:  # named after the feed, before this impression of it
                unknown_N |= self.log.rooms.streamer(self.log.room_N, at_N) < 0
            pair_N = np.where(unknown_N, 0, pairs.pair_N)
            if not len(pairs.user_P):
                found.update({column.name: pa.nulls(len(at_N), counter_type(column)) for column in asked})
                continue
            for column in asked:
                match column.how:
                    case Count(events=events) as counter:
                        count_N = pairs.lines[events].count(pair_N, at_N, counter.window_ms)
                        found[column.name] = pa.array(count_N, mask=unknown_N)
                    case Hours(events=events):
                        hours_N = hours_since(pairs.lines[events].last(pair_N, at_N), at_N)
                        found[column.name] = pa.array(hours_N, mask=np.isnan(hours_N) | unknown_N)
        return found

    def pairs(self, owner: str) -> "Pairs":
        """All pairs of a user with a room, or with a streamer that is known, between which something happened."""
        if owner not in self._pairs:
            self._pairs[owner] = self._find_pairs(owner)
        return self._pairs[owner]

    def _find_pairs(self, owner: str) -> "Pairs":
        log = self.log
        of_room = owner == ROOM.name
        ids = log.rooms.ids if of_room else log.rooms.streamer_ids
        kinds = [IMPRESSIONS, *counted_actions(counters(self.columns, PAIRS[owner]))]
        users, times = zip(*(log.events(kind) for kind in kinds), strict=True)
        rooms = [log.rooms_of(kind) for kind in kinds]
        owners = rooms if of_room else [log.rooms.streamer(room, at) for room, at in zip(rooms, times, strict=True)]
        owner_B = np.concatenate(owners)  # B: events of all kinds, one kind behind the other
        known_B = owner_B >= 0
        distinct, code = codes((np.concatenate(users) * max(len(ids), 1) + owner_B)[known_B])
        pair_B = np.full(len(owner_B), -1, np.int64)
        pair_B[known_B] = code
        pairs = np.split(pair_B, np.cumsum([len(each) for each in owners])[:-1])
        ending = np.array([log.ending], np.int64)
        moments = Moments(len(distinct), log.known_N, log.credits.known_at_E, log.at_R, ending)
        return Pairs(
            user_P=distinct // max(len(ids), 1),
            id_P=ids[distinct % max(len(ids), 1)] if len(ids) else distinct,
            pair_N=pairs[0],
            lines={
                kind: Timeline(moments, pair[pair >= 0], at[pair >= 0])
                for kind, pair, at in zip(kinds, pairs, times, strict=True)
            },
        )


@dataclass(frozen=True)
class Pairs:
    """Pairs in order of user and id, and what happened between them.

    Attributes:
        pair_N: place of every impression's pair, -1 where its streamer was not known when it was shown.
        lines: impressions, entries and what else is counted, by kind of events.
    """

    user_P: np.ndarray
    id_P: np.ndarray
    pair_N: np.ndarray
    lines: Mapping[str, Timeline]


def optional(values: np.ndarray) -> pa.Array:
    """A float array in which NaN is null."""
    return pa.array(values, mask=np.isnan(values))


def read_log(
    feeds: pa.Table,
    impressions: pa.Table,
    engagements: pa.Table,
    clicks: pa.Table,
    more_users: np.ndarray,
    rooms_of: Callable[[np.ndarray], Rooms],
    actions: Sequence[str],
    ending: int,
) -> Log:
    """The tables of one bucket (see `log_to_feeds.Bucket`) as arrays.

    Args:
        clicks: user_id, product_id, at, maybe arrived_at, in logged order.
        more_users: users of the bucket who may have done nothing.
        rooms_of: from sorted room ids to `Rooms`.
    """
    user_ids = [integers(table["user_id"]) for table in (feeds, engagements, clicks)]
    users = np.unique(np.concatenate([*(ids[_changes(ids)] for ids in user_ids), more_users]))
    user_R, user_E, user_C = (find(users, ids) for ids in user_ids)
    size = integers(feeds["size"])
    room_N, room_E = integers(impressions["room_id"]), integers(engagements["room_id"])
    room_ids, room = codes(np.r_[room_N, room_E])
    shown_at = integers(impressions["shown_at"])
    known_N, offsets_R = arrivals(impressions, "shown_at"), np.r_[0, np.cumsum(size)]
    known_C = arrivals(clicks, "at")
    by_time = np.lexsort((known_C, user_C))
    return Log(
        users=users,
        rooms=rooms_of(room_ids),
        user_R=user_R,
        at_R=integers(feeds["at"]),
        known_R=np.minimum.reduceat(known_N, offsets_R[:-1]) if len(size) else known_N,
        offsets_R=offsets_R,
        feed_N=np.repeat(np.arange(len(size)), size),
        room_N=room[: len(room_N)],
        known_N=known_N,
        user_E=user_E,
        room_E=room[len(room_N) :],
        at_E=integers(engagements["at"]),
        credits=Credits(engagements, shown_at, actions),
        user_C=user_C[by_time],
        product_C=integers(clicks["product_id"])[by_time],
        at_C=integers(clicks["at"])[by_time],
        known_C=known_C[by_time],
        ending=ending,
    )


def _changes(ids: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1)) if len(ids) else np.zeros(0, np.int64)
