"""The log's last moment as the endpoint's store needs it: users with their histories and pairs, rooms with their counters.

A user is asked as if a feed were shown one millisecond after the end of the log, by the code that asks for real feeds.
Only columns that the schema needs are there.

| users, one row each | |
| --- | --- |
| `user_id`, `user_last_at` | time of the last impression, null if there was none |
| `user.*`, `user_feeds`, ..., `preference.*` | feed-level columns as of that moment |
| `HISTORY.at`, `HISTORY.*` | lists, oldest first |
| `pair.streamer_id`, `pair.streamer_impressions`, ... | counters and moments of pairs with streamers, parallel lists |
| `pair.room_id`, `pair.room_impressions`, ... | with rooms |

| rooms, one row each | |
| --- | --- |
| `room_id`, `streamer_id`, `room.*`, `streamer.*` | attributes |
| `state.*`, `product.*` | as last shown |
| `room_impressions.10m`, ..., `streamer_entries.life` | counters as of that moment |
| `room_first_at`, `streamer_first_at` | what ages count from |

Names are those of the catalogue (`models.catalogue`), where a column says under which name it is stored.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from models import catalogue
from models.catalogue import ENTER, IMPRESSIONS, PAIRS, ROOM, Column, Count, Hours, Subject, counters, logged, stored_ids
from pipelines.encode.arrays import integers
from pipelines.encode.clock import NEVER
from pipelines.prepare.features import AttributeTables, Features, frame, lists_of, rooms_frame, shown_products
from pipelines.prepare.room_counters import Counting
from pipelines.prepare.timeline import codes, find
from pipelines.prepare.user_counters import UserSide
from pipelines.runs.order import spread


def user_rows(features: Features, side: UserSide, users: np.ndarray, served: Collection[str]) -> pa.Table:
    """One row a user: user_id, user_last_at, feed-level columns, histories, and pairs as parallel lists.

    Args:
        users: ascending places in `side.log.users`.
        served: base columns that the endpoint needs; running preferences beside them are for training alone.
    """
    log = side.log
    ending = np.full(len(users), log.ending)
    attributes = features.users(users, ending)
    return pa.table(
        {
            "user_id": pa.array(log.users[users]),
            **side.moments_of(users, ending, served),
            **{column.name: column.to_arrow() for column in attributes},
            **side.feed_columns(users, ending, served),
            **features.histories(users, ending),
            **_pairs(features, side, users),
        }
    )


def _pairs(features: Features, side: UserSide, users: np.ndarray) -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {}
    for owner, subject in PAIRS.items():
        if not counters(features.columns, subject):
            continue
        pairs = side.pairs(owner)
        first = np.searchsorted(pairs.user_P, users)
        rows, offsets = spread(first, np.searchsorted(pairs.user_P, users, side="right") - first)
        ending = np.full(len(rows), side.log.ending)
        columns: dict[str, np.ndarray | pa.Array] = {stored_ids(owner): pairs.id_P[rows]}
        for column in _kept(subject, features.columns):
            match column.how:
                case Count(events=events) as counter:
                    columns[column.stored] = pairs.lines[events].count(rows, ending, counter.window_ms)
                case Hours(events=events):
                    last = pairs.lines[events].last(rows, ending)
                    columns[column.stored] = pa.array(last, mask=last == NEVER)
        found.update(lists_of(frame(columns, len(rows)), offsets))
    return found


def _kept(subject: Subject, asked: Collection[str]) -> list[Column]:
    """Of a kind of pairs: what is asked for, and all that impressions and entries tell, so that the store fits more schemas."""
    every = counters([column.name for column in catalogue.CATALOGUE.columns], subject)
    return [column for column in every if column.name in asked or column.events in (IMPRESSIONS, ENTER)]


def last_seen(impressions: pa.Table) -> pa.Table:
    """Of every room the impression shown last: room_id, shown_at, feed_id, `state.*`.

    Of several at the same moment it is that of the feed with the largest id, however users are put into buckets.
    """
    rooms, room = codes(integers(impressions["room_id"]))
    shown_at = integers(impressions["shown_at"])
    newest = np.full(len(rooms), NEVER, np.int64)
    np.maximum.at(newest, room, shown_at)
    candidates = np.flatnonzero(shown_at == newest[room])
    candidates = candidates[np.argsort(integers(impressions["feed_id"])[candidates], kind="stable")]
    last = np.empty(len(rooms), np.int64)
    last[room[candidates]] = candidates  # of several the one that stands last
    names = logged(impressions.column_names, ROOM)
    return impressions.select(["room_id", "shown_at", "feed_id", *names]).take(pa.array(last))


def room_rows(
    counting: Counting,
    counters: Mapping[str, pa.Array],
    seen: pa.Table,
    columns: Collection[str],
    attributes: AttributeTables,
    ending: int,
) -> pa.Table:
    """One row a room.

    Args:
        counters: at the end of the log, a value a room.
        seen: `last_seen` of every bucket of users.
        ending: the moment after the log as of which attributes are taken.
    """
    rooms = counting.rooms
    every, at = np.arange(len(rooms.ids)), np.full(len(rooms.ids), ending)
    seen = last_seen(seen)
    place = find(integers(seen["room_id"]), rooms.ids)
    states = seen.select(logged(seen.column_names, ROOM)).take(pa.array(place, mask=place < 0))
    of_room = rooms_frame(rooms, attributes, every, at)
    began: dict[str, pa.Array] = {}
    for column in counting.columns:
        if isinstance(column.how, Hours):
            first = counting.began(column.of, every, at)
            began[column.stored] = pa.array(first, mask=first == NEVER)
    counts = [column.name for column in counting.columns if isinstance(column.how, Count)]
    return pa.table(
        {
            **{column.name: column.to_arrow() for column in of_room},
            **{name: column for name, column in zip(states.column_names, states.columns, strict=True)},
            **{column.name: column.to_arrow() for column in shown_products(states, columns, attributes, at)},
            **{name: counters[name] for name in counts},
            **began,
        }
    )
