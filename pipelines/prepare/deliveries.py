"""Events that were delivered more than once: a client's retry, a queue that delivers at least once, a day exported twice.

A row that repeats another exactly is the same event and counts once. Where a log has `event_id`, that decides instead: of
one user, room and action it names one event. Rows that are alike in user, room, action and instant, and differ in
something else, are all taken for events, and told. So is an event id that comes again at another time: a delivery has the
time of its event, and a counter that starts anew, or a word for "none", would make one event of many.

    # E events
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.encode.arrays import integers, present
from pipelines.prepare.timeline import find
from pipelines.runs.order import run_starts

_ODD = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93))


def engagements_again(engagements: pa.Table) -> tuple[np.ndarray, int]:
    """Which rows an earlier row told of already, bool [E]; and how many of the others are as another but for details."""
    user, room, at, action = (integers(engagements[name]) for name in ("user_id", "room_id", "at", "action"))
    alike = again((user, room, at, action))
    value = engagements["value"].to_numpy().view(np.int64)  # NaN where null, and nowhere else
    twice = _again_of(
        engagements, alike, (user, room, action), (user, room, at, action, value, integers(engagements["request_id"], -1))
    )
    if not alike.any():
        return twice, 0
    rows = np.flatnonzero(~twice)
    return twice, int(again((user[rows], room[rows], at[rows], action[rows])).sum())


def clicks_again(clicks: pa.Table) -> np.ndarray:
    """Which product clicks an earlier row told of, bool [E]."""
    user, product, at = (integers(clicks[name]) for name in ("user_id", "product_id", "at"))
    return _again_of(clicks, again((user, product, at)), (user, product), (user, product, at))


def far_apart(events: pa.Table, twice: np.ndarray, who: Sequence[str], gap_ms: int) -> int:
    """How many rows repeat an `event_id`, and so count as delivered twice, further than the gap from its first row."""
    if "event_id" not in events.column_names or not twice.any():
        return 0
    rows = np.flatnonzero(present(events["event_id"]))
    event = integers(events["event_id"])[rows]
    rows = rows[find(np.unique(integers(events["event_id"])[twice]), event) >= 0]
    columns = [integers(events[name])[rows] for name in ("event_id", *who)]
    order = np.lexsort(columns)  # stable: the one that counts comes first
    starts = run_starts(*(column[order] for column in columns))
    at = integers(events["at"])[rows][order]
    first = np.repeat(at[starts], np.diff(starts, append=len(at)))
    return int((np.abs(at - first) > gap_ms).sum())


def _again_of(events: pa.Table, alike: np.ndarray, who: Sequence[np.ndarray], everything: Sequence[np.ndarray]) -> np.ndarray:
    if "event_id" not in events.column_names:
        return again(everything) if alike.any() else alike
    twice = np.zeros(len(alike), bool)
    named = present(events["event_id"])
    event, rows = integers(events["event_id"]), np.flatnonzero(named)
    twice[rows] = again((event[rows], *(column[rows] for column in who)))
    if alike.any():
        rows = np.flatnonzero(~named)
        twice[rows] = again([column[rows] for column in everything])
    return twice


def again(columns: Sequence[np.ndarray]) -> np.ndarray:
    """True where a row is equal to an earlier one in all of these int64 columns."""
    found = np.zeros(len(columns[0]), bool)
    mixed = np.zeros(len(found), np.uint64)
    for place, column in enumerate(columns):
        mixed += column.astype(np.int64, copy=False).view(np.uint64) * _ODD[place % 4]
        mixed ^= mixed >> np.uint64(29)
    ordered = np.sort(mixed)
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return found
    rows = np.flatnonzero(find(np.unique(ordered[1:][same]), mixed) >= 0)  # all that share a hash; few
    rows = rows[np.lexsort([column[rows] for column in columns])]  # stable: of equal rows the earlier comes first
    starts = run_starts(*(column[rows] for column in columns))
    found[rows] = True
    found[rows[starts]] = False
    return found
