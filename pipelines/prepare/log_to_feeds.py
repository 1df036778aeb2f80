"""The second step: all impressions of a bucket of users become feeds, and every engagement finds its impression.

A feed is one user, one request id and one stretch of time: rows of a request that follow each other within the feed gap.
Ids of requests are used again (by a counter that starts anew, for a session, as a mark of "none"), and one request is not
shown on two days. Impressions without request id belong to one feed while they follow each other that closely. A feed's
time is that of its first impression, and everything else about it is asked strictly before that time.

Rows that carry `arrived_at` are taken in the order in which they arrived, so that a log that was cut off earlier is the
beginning of this one; others in the order in which they are written.

    # N impressions, R feeds, E engagements
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.catalogue import CANDIDATE, CONTEXT, ROOM, logged
from models.hashing import splitmix64
from pipelines.encode.arrays import integers, present
from pipelines.logs.canonical import ARRIVED_AT
from pipelines.prepare.clean import QUARANTINE, REPEATED, TWICE
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.deliveries import clicks_again, engagements_again, far_apart
from pipelines.prepare.timeline import Moments, codes, find
from pipelines.runs.order import run_starts, stable_order

_TOLD = 5  # of the request ids that are used again the most


@dataclass(frozen=True)
class Bucket:
    """The log of some users in order.

    Attributes:
        feeds: a row a feed by user and time: feed_id, user_id, at, day, size (of candidates), `context.*`.
        impressions: a row a candidate, feed by feed in logged order: room_id, shown_at, maybe arrived_at, `position` and
            `state.*`.
        engagements: by user and time: user_id, room_id, at, maybe arrived_at, action, value, row (the impression that is
            credited, -1 for none).
        quarantined: impressions that were logged twice and engagements that were delivered twice, as `QUARANTINE`.
        told: `alike`, engagements as another but for details; `apart`, copies of an event at another time; `again`, requests
            that became several feeds; `shared`, request ids of several users of this bucket.
    """

    feeds: pa.Table
    impressions: pa.Table
    engagements: pa.Table
    quarantined: pa.Table
    told: dict[str, Any]


def cut(impressions: pa.Table, engagements: pa.Table, config: PrepareConfig) -> Bucket:
    """Orders a bucket's impressions into feeds and credits its engagements.

    Args:
        impressions: request_id, user_id, room_id, shown_at, maybe arrived_at and further columns, in logged order.
        engagements: request_id, user_id, room_id, at, action (code), value and maybe event_id and arrived_at, in logged order.
    """
    impressions, engagements = by_arrival(impressions), by_arrival(engagements)
    twice_E, alike = engagements_again(engagements)
    apart = far_apart(engagements, twice_E, ("user_id", "room_id", "action"), config.gap_ms)
    delivered = engagements.filter(pa.array(~twice_E)) if twice_E.any() else engagements
    user_id, room_id, shown_at = (integers(impressions[name]) for name in ("user_id", "room_id", "shown_at"))
    request, has_request = integers(impressions["request_id"]), present(impressions["request_id"])
    users_U, user_N = codes(user_id)
    rooms_M, room_N = codes(room_id)
    keep_N = np.ones(len(user_id), bool)
    copy_N = np.zeros(len(user_id), bool)
    group_N = np.full(len(user_id), -1, np.int64)

    asked = np.flatnonzero(has_request)
    requests, request_N = codes(request[asked])
    pairs, by_request = codes(user_N[asked] * max(len(requests), 1) + request_N)
    stretch_N = _stretches(by_request, shown_at[asked], config.gap_ms)
    again = first_of(stretch_N * max(len(rooms_M), 1) + room_N[asked])
    if again is not None:
        repeated = again < np.arange(len(asked))
        keep_N[asked[repeated]] = False
        copy_N[asked] = repeated & (shown_at[asked][again] == shown_at[asked])
    group_N[asked] = stretch_N
    groups = int(stretch_N.max(initial=-1)) + 1

    unasked = np.flatnonzero(~has_request)
    unasked = unasked[np.lexsort((shown_at[unasked], user_N[unasked]))]
    moment = np.zeros(len(unasked), np.int64)
    moment[run_starts(user_N[unasked], shown_at[unasked])[1:]] = 1
    again = first_of(np.cumsum(moment) * max(len(rooms_M), 1) + room_N[unasked])
    if again is not None:
        same = again < np.arange(len(unasked))
        keep_N[unasked[same]] = False
        copy_N[unasked[same]] = True
        unasked = unasked[~same]
    if len(unasked):
        group_N[unasked] = groups + _by_gap(user_N[unasked], shown_at[unasked], config.gap_ms, config.feed_most)
        groups = int(group_N[unasked[-1]]) + 1

    kept = np.flatnonzero(keep_N)
    group_K = group_N[kept]
    at_G = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(at_G, group_K, shown_at[kept])
    head_G = np.full(groups, len(user_id))  # the first logged row of every group
    np.minimum.at(head_G, group_K, kept)
    order_G = np.lexsort((head_G, at_G, user_N[head_G]))
    place_G = np.empty(groups, np.int64)
    place_G[order_G] = np.arange(groups)
    feed_K = place_G[group_K]
    order_K = stable_order(feed_K)
    rows, feed_N = kept[order_K], feed_K[order_K]

    head_R, at_R = head_G[order_G], at_G[order_G]
    told_apart = np.where(has_request, request, room_id ^ _hashed(shown_at))[head_R]
    feed_id = _hashed(_hashed(_hashed(users_U[user_N[head_R]]) ^ at_R) ^ told_apart ^ has_request[head_R])
    context = logged(impressions.column_names, CONTEXT)
    feeds = {
        "feed_id": pa.array(feed_id & np.iinfo(np.int64).max),
        "user_id": pa.array(users_U[user_N[head_R]]),
        "at": pa.array(at_R),
        "day": pa.array(config.clock.day(at_R).astype(np.int32)),
        "size": pa.array(np.bincount(feed_N, minlength=groups)),
        **{name: impressions[name].take(pa.array(head_R)) for name in context},
    }
    own = logged(impressions.column_names, ROOM, CANDIDATE)
    candidates = {
        "room_id": pa.array(room_id[rows]),
        "shown_at": pa.array(shown_at[rows]),
        **_arrivals(impressions, rows),
        **{name: impressions[name].take(pa.array(rows)) for name in own},
    }
    credited = _credited(
        delivered,
        users_U,
        rooms_M,
        user_N=user_N[rows],
        room_N=room_N[rows],
        feed_N=feed_N,
        shown_at_N=shown_at[rows],
        request_R=np.where(has_request, request, -1)[head_R],
        at_R=at_R,
        gap_ms=config.gap_ms,
    )
    return Bucket(
        pa.table(feeds),
        pa.table(candidates),
        credited,
        pa.concat_tables(
            [
                quarantined("impressions", impressions, copy_N, TWICE),
                quarantined("impressions", impressions, ~keep_N & ~copy_N, REPEATED),
                quarantined("engagements", engagements, twice_E, TWICE),
            ]
        ),
        {"alike": alike, "apart": apart, **_used_again(requests, request_N, pairs, by_request, stretch_N)},
    )


def by_arrival(rows: pa.Table) -> pa.Table:
    """In the order of arrival, where that is told; rows that arrived together in logged order."""
    if ARRIVED_AT not in rows.column_names:
        return rows
    arrived = integers(rows[ARRIVED_AT])
    return rows if (arrived[1:] >= arrived[:-1]).all() else rows.take(pa.array(stable_order(arrived)))


def _arrivals(rows: pa.Table, which: np.ndarray) -> dict[str, pa.Array]:
    return {ARRIVED_AT: integers(rows[ARRIVED_AT])[which]} if ARRIVED_AT in rows.column_names else {}


def quarantined(table: str, rows: pa.Table, which: np.ndarray, reason: str) -> pa.Table:
    """Some rows of several files as `QUARANTINE`."""
    found = rows.filter(pa.array(which))
    count = len(found)
    there = {"at": "shown_at" if table == "impressions" else "at"}
    column = lambda name: found[name] if name in found.column_names else pa.nulls(count, pa.int64())
    told = {"table": pa.array([table] * count, pa.string()), "reason": pa.array([reason] * count, pa.string())}
    nowhere = {"file": pa.nulls(count, pa.string()), "row": pa.nulls(count, pa.int64())}
    ids = {name: column(there.get(name, name)) for name in ("request_id", "user_id", "room_id", "at")}
    return pa.table({**told, **nowhere, **ids}).select(QUARANTINE.names).cast(QUARANTINE)


def once(clicks: pa.Table, gap_ms: int) -> tuple[pa.Table, pa.Table, int]:
    """A bucket's product clicks (user_id, product_id, at, maybe event_id and arrived_at), each once; the copies as
    `QUARANTINE`; and how many of these are further than the gap from the event they repeat."""
    clicks = by_arrival(clicks)
    twice = clicks_again(clicks)
    kept = clicks.filter(pa.array(~twice)) if twice.any() else clicks
    columns = [name for name in ("user_id", "product_id", "at", ARRIVED_AT) if name in kept.column_names]
    copies = quarantined("product_clicks", clicks, twice, TWICE)
    return kept.select(columns), copies, far_apart(clicks, twice, ("user_id", "product_id"), gap_ms)


def first_of(key: np.ndarray) -> np.ndarray | None:
    """For every row the first one of the same key; None where all are distinct, which is quickly seen."""
    ordered = np.sort(key)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return first[place]


def _stretches(group: np.ndarray, at: np.ndarray, gap_ms: int) -> np.ndarray:
    """Groups cut where a row follows the one before it in time by more than the gap; pieces are numbered after all groups."""
    if not len(group):
        return group
    groups = int(group.max()) + 1
    starts = run_starts(group)
    first, last = np.full(groups, np.iinfo(np.int64).max), np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(first, group[starts], np.minimum.reduceat(at, starts))
    np.maximum.at(last, group[starts], np.maximum.reduceat(at, starts))
    wide = last - first > gap_ms
    if not wide.any():
        return group
    rows = np.flatnonzero(wide[group])
    rows = rows[np.lexsort((at[rows], group[rows]))]
    of, when = group[rows], at[rows]
    cuts = np.zeros(len(rows), np.int64)
    cuts[1:] = (of[1:] == of[:-1]) & (when[1:] - when[:-1] > gap_ms)
    total = np.cumsum(cuts)
    heads = run_starts(of)
    before = np.repeat(total[heads], np.diff(heads, append=len(rows)))
    pieces = group.copy()
    pieces[rows] = np.where(total > before, groups - 1 + total, of)
    return pieces


def _used_again(
    requests: np.ndarray, request_N: np.ndarray, pairs: np.ndarray, by_request: np.ndarray, stretch_N: np.ndarray
) -> dict[str, Any]:
    """Of requests that became several feeds: how many, how many feeds, and the ids with the most; the like of shared ids."""
    told: dict[str, Any] = {"again": {"requests": 0, "feeds": 0, "most": []}, "shared": {"ids": 0, "most": []}}
    if not len(requests):
        return told
    request_P = pairs % len(requests)
    if (more := stretch_N >= len(pairs)).any():
        stretch, row = np.unique(stretch_N[more], return_index=True)
        pair, extra = np.unique(by_request[more][row], return_counts=True)
        feeds = np.bincount(request_P[pair], extra + 1, minlength=len(requests)).astype(np.int64)
        told["again"] = {"requests": len(pair), "feeds": len(pair) + len(stretch), "most": _most(requests, feeds, 1)}
    if len(pairs) > len(requests):
        users = np.bincount(request_P, minlength=len(requests))
        told["shared"] = {"ids": int((users > 1).sum()), "most": _most(requests, users, 2)}
    return told


def _most(requests: np.ndarray, count: np.ndarray, least: int) -> list[list[int]]:
    order = np.argsort(-count, kind="stable")[:_TOLD]
    return [[int(requests[place]), int(count[place])] for place in order if count[place] >= least]


def _by_gap(user: np.ndarray, shown_at: np.ndarray, gap_ms: int, most: int) -> np.ndarray:
    """Number of the feed of impressions in order of user and time."""
    new = np.ones(len(user), bool)
    new[1:] = (user[1:] != user[:-1]) | (shown_at[1:] - shown_at[:-1] > gap_ms)
    start = np.flatnonzero(new)
    within = np.arange(len(user)) - np.repeat(start, np.diff(start, append=len(user)))
    return np.cumsum(new | (within % most == 0)) - 1


def _credited(
    engagements: pa.Table,
    users_U: np.ndarray,
    rooms_M: np.ndarray,
    *,
    user_N: np.ndarray,
    room_N: np.ndarray,
    feed_N: np.ndarray,
    shown_at_N: np.ndarray,
    request_R: np.ndarray,
    at_R: np.ndarray,
    gap_ms: int,
) -> pa.Table:
    """Engagements with the row of the impression they answer, by user and time.

    One with a request id answers the impression of that request, user and room; a clock that runs behind (answered
    before shown) is set right. One without answers the latest impression of user and room that is not later. So does one
    whose request became several feeds, among their impressions; where none is earlier, it answers the next, if that is of a
    feed that had begun, or of the first, or follows within the gap: so a feed that comes later changes nothing of it.
    Whether it came soon enough is asked target by target.
    """
    user_id, room_id, at = (integers(engagements[name]) for name in ("user_id", "room_id", "at"))
    request, has_request = integers(engagements["request_id"]), present(engagements["request_id"])
    user_E, room_E = find(users_U, user_id), find(rooms_M, room_id)
    row_E = np.full(len(at), -1, np.int64)
    known_E = (user_E >= 0) & (room_E >= 0)

    asked = np.flatnonzero(known_E & has_request)
    if len(asked) and (request_R >= 0).any():
        user_R = user_N[np.searchsorted(feed_N, np.arange(len(request_R)))]
        requests, request_E = codes(request[asked])
        request_of_R = find(requests, request_R)
        key_R = np.where(request_of_R >= 0, user_R * len(requests) + request_of_R, -1)
        key_E = user_E[asked] * len(requests) + request_E
        feed_E = _places(key_R, key_E)
        key_N = feed_N * len(rooms_M) + room_N
        row_E[asked] = _places(key_N, np.where(feed_E >= 0, feed_E * len(rooms_M) + room_E[asked], -1))
        several, first_R, many_R = np.unique(key_R, return_index=True, return_counts=True)  # feeds of a user stand by time
        several, first_R = several[(several >= 0) & (many_R > 1)], first_R[(several >= 0) & (many_R > 1)]
        if len(several):
            of_E = find(several, key_E)
            mine = asked[of_E >= 0]
            pair_E = key_E[of_E >= 0] * len(rooms_M) + room_E[mine]
            earlier, after = _around(key_R[feed_N] * len(rooms_M) + room_N, shown_at_N, pair_E, at[mine])
            feed = feed_N[after]
            near = (at_R[feed] <= at[mine]) | (feed == first_R[of_E[of_E >= 0]]) | (shown_at_N[after] - at[mine] <= gap_ms)
            row_E[mine] = np.where(earlier >= 0, earlier, np.where((after >= 0) & near, after, -1))

    unasked = np.flatnonzero(known_E & ~has_request)
    if len(unasked):
        pair_E = user_E[unasked] * len(rooms_M) + room_E[unasked]
        row_E[unasked] = _around(user_N * len(rooms_M) + room_N, shown_at_N, pair_E, at[unasked])[0]
    if len(shown_at_N):
        at = np.where(row_E >= 0, np.maximum(at, shown_at_N[row_E]), at)

    order = np.lexsort((at, user_id))
    columns = {
        "user_id": user_id[order],
        "room_id": room_id[order],
        "at": at[order],
        **{name: np.maximum(column, at[order]) for name, column in _arrivals(engagements, order).items()},
        "action": integers(engagements["action"])[order].astype(np.int8),
        "value": engagements["value"].take(pa.array(order)),
        "row": row_E[order],
    }
    return pa.table(columns)


def _around(key_N: np.ndarray, shown_at_N: np.ndarray, key_E: np.ndarray, at_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The latest impression of the same key that is not later, and the next one; -1 for none."""
    earlier_E, after_E = np.full(len(key_E), -1, np.int64), np.full(len(key_E), -1, np.int64)
    pairs, pair_E = codes(key_E)
    pair_N = find(pairs, key_N)
    rows = np.flatnonzero(pair_N >= 0)
    if not len(rows):
        return earlier_E, after_E
    moments = Moments(len(pairs), shown_at_N[rows], at_E)
    packed_N = moments.pack(pair_N[rows], shown_at_N[rows])
    order_N = np.argsort(packed_N, kind="stable")
    place_E = np.searchsorted(packed_N[order_N], moments.pack(pair_E, at_E), side="right")
    for found_E, beside_E in ((earlier_E, place_E - 1), (after_E, place_E)):
        row_E = rows[order_N[np.clip(beside_E, 0, len(rows) - 1)]]
        same = (beside_E >= 0) & (beside_E < len(rows)) & (pair_N[row_E] == pair_E)
        found_E[same] = row_E[same]
    return earlier_E, after_E


def _places(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted key stands among distinct keys in any order, -1 where nowhere; negative keys are nobody's."""
    few, code = codes(wanted)  # fewer than keys as a rule, so these are the ones to be sorted
    found = find(few, keys)
    place = np.full(len(few), -1, np.int64)
    there = np.flatnonzero((found >= 0) & (keys >= 0))
    place[found[there]] = there
    return place[code]


def _hashed(values: np.ndarray) -> np.ndarray:
    return splitmix64(values).view(np.int64)
