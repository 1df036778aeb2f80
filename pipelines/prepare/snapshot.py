"""The log's last moment as the endpoint's store needs it: users with their histories and pairs, rooms with their counters.

A user is asked as if a feed were shown one millisecond after the end of the log, by the code that asks for real feeds.
Only columns that the schema needs are there.

| users, one row each | |
| --- | --- |
| `user_id`, `user_last_at` | time of the last impression, null if there was none |
| `user.*`, `user_feeds`, ..., `preference.*` | feed-level columns as of that moment |
| `HISTORY.at`, `HISTORY.*` | lists, oldest first |
| `pair.streamer_id`, `pair.streamer_impressions`, `pair.streamer_entries`, `pair.streamer_last_entry_at` | parallel lists |
| `pair.room_id`, `pair.room_impressions`, `pair.room_entries`, `pair.room_last_shown_at` | parallel lists |

| rooms, one row each | |
| --- | --- |
| `room_id`, `streamer_id`, `room.*`, `streamer.*` | attributes |
| `state.*`, `product.*` | as last shown |
| `room_impressions.10m`, ..., `streamer_entries.life` | counters as of that moment |
| `room_first_at`, `streamer_first_at` | what ages count from |
"""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from pipelines.encode.arrays import integers
from pipelines.encode.clock import NEVER
from pipelines.prepare.features import AttributeTables, Features, frame, listed, picked, rooms_frame, shown_products
from pipelines.prepare.room_counters import OWNERS, Counting
from pipelines.prepare.timeline import codes, find, spread
from pipelines.prepare.user_counters import UserSide


def user_rows(features: Features, side: UserSide, users: np.ndarray, served: Collection[str]) -> pa.Table:
    """One row a user: user_id, user_last_at, feed-level columns, histories, and pairs as parallel lists.

    Args:
        users: ascending places in `side.log.users`.
        served: base columns that the endpoint needs; running preferences beside them are for training alone.
    """
    log = side.log
    ending = np.full(len(users), log.ending)
    last = side.shown.last(users, ending)
    attributes = picked(features.of_user, users)
    return pa.table(
        {
            "user_id": pa.array(log.users[users]),
            "user_last_at": pa.array(last, mask=last == NEVER),
            **{column.name: column.to_arrow() for column in attributes},
            **side.feed_columns(users, ending, served),
            **features.histories(users, ending),
            **_pairs(features, side, users),
        }
    )


def _pairs(features: Features, side: UserSide, users: np.ndarray) -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {}
    for owner in ("streamer", "room"):
        if not any(name.startswith(f"pair_{owner}_") for name in features.columns):
            continue
        pairs = side.pairs(owner)
        first = np.searchsorted(pairs.user_P, users)
        rows, offsets = spread(first, np.searchsorted(pairs.user_P, users, side="right") - first)
        ending = np.full(len(rows), side.log.ending)
        line, last_name = (pairs.entered, "last_entry_at") if owner == "streamer" else (pairs.shown, "last_shown_at")
        last = line.last(rows, ending)
        columns = {
            f"pair.{owner}_id": pairs.id_P[rows],
            f"pair.{owner}_impressions": pairs.shown.count(rows, ending),
            f"pair.{owner}_entries": pairs.entered.count(rows, ending),
            f"pair.{owner}_{last_name}": pa.array(last, mask=last == NEVER),
        }
        found.update(listed(frame(columns, len(rows)), offsets))
    return found


def last_seen(impressions: pa.Table) -> pa.Table:
    """Of every room the impression shown last: room_id, shown_at, `state.*`."""
    rooms, room = codes(integers(impressions["room_id"]))
    shown_at = integers(impressions["shown_at"])
    newest = np.full(len(rooms), NEVER, np.int64)
    np.maximum.at(newest, room, shown_at)
    candidates = np.flatnonzero(shown_at == newest[room])
    last = np.empty(len(rooms), np.int64)
    last[room[candidates]] = candidates  # of several at the same moment the one that stands last
    names = [name for name in impressions.column_names if name.startswith("state.")]
    return impressions.select(["room_id", "shown_at", *names]).take(pa.array(last))


def room_rows(
    counting: Counting,
    counters: Mapping[str, pa.Array],
    seen: pa.Table,
    columns: Collection[str],
    attributes: AttributeTables,
) -> pa.Table:
    """One row a room.

    Args:
        counters: at the end of the log, a value a room.
        seen: `last_seen` of every bucket of users.
    """
    rooms = counting.rooms
    seen = last_seen(seen)
    place = find(integers(seen["room_id"]), rooms.ids)
    states = seen.select([name for name in seen.column_names if name.startswith("state.")]).take(
        pa.array(place, mask=place < 0)
    )
    of_room = rooms_frame(rooms, attributes)
    ages: dict[str, pa.Array] = {}
    for owner in OWNERS:
        if f"{owner}_age_hours" in columns:
            owner_of_room = np.arange(len(rooms.ids)) if owner == "room" else rooms.streamer_of_room
            began = np.append(counting.began(owner), NEVER)[owner_of_room]  # the last stands for no owner at all
            ages[f"{owner}_first_at"] = pa.array(began, mask=began == NEVER)
    return pa.table(
        {
            **{column.name: column.to_arrow() for column in of_room},
            **{name: column for name, column in zip(states.column_names, states.columns, strict=True)},
            **{column.name: column.to_arrow() for column in shown_products(states, columns, attributes)},
            **{name: values for name, values in counters.items() if not name.endswith("_age_hours")},
            **ages,
        }
    )
