"""The second step: all impressions of a bucket of users become feeds, and every engagement finds its impression.

A feed is one request of one user. Impressions without request id belong to one feed while they follow each other
closely. Its time is that of its first impression, and everything else about it is asked strictly before that time.

    # N impressions, R feeds, E engagements
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.catalogue import CANDIDATE, CONTEXT, ROOM, logged
from models.hashing import splitmix64
from pipelines.encode.arrays import integers, present
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.timeline import Moments, codes, find, run_starts, stable_order


@dataclass(frozen=True)
class Bucket:
    """The log of some users in order.

    Attributes:
        feeds: a row a feed by user and time: feed_id, user_id, at, day, size (of candidates), `context.*`.
        impressions: a row a candidate, feed by feed in logged order: room_id, shown_at, `position`, `state.*`.
        engagements: by user and time: user_id, room_id, at, action, value, row (the impression that is credited,
            -1 for none), by_request.
        repeated: impressions that were logged twice, as they came.
    """

    feeds: pa.Table
    impressions: pa.Table
    engagements: pa.Table
    repeated: pa.Table


def cut(impressions: pa.Table, engagements: pa.Table, config: PrepareConfig) -> Bucket:
    """Orders a bucket's impressions into feeds and credits its engagements.

    Args:
        impressions: request_id, user_id, room_id, shown_at and further columns, in logged order.
        engagements: request_id, user_id, room_id, at, action (code), value, in logged order.
    """
    user_id, room_id, shown_at = (integers(impressions[name]) for name in ("user_id", "room_id", "shown_at"))
    request, has_request = integers(impressions["request_id"]), present(impressions["request_id"])
    users_U, user_N = codes(user_id)
    rooms_M, room_N = codes(room_id)
    keep_N = np.ones(len(user_id), bool)
    group_N = np.full(len(user_id), -1, np.int64)

    asked = np.flatnonzero(has_request)
    requests, request_N = codes(request[asked])
    _, by_request = codes(user_N[asked] * max(len(requests), 1) + request_N)
    keep_N[asked] = ~repeated(by_request * max(len(rooms_M), 1) + room_N[asked])
    group_N[asked] = by_request
    groups = int(by_request.max(initial=-1)) + 1

    unasked = np.flatnonzero(~has_request)
    unasked = unasked[np.lexsort((shown_at[unasked], user_N[unasked]))]
    moment = np.zeros(len(unasked), np.int64)
    moment[run_starts(user_N[unasked], shown_at[unasked])[1:]] = 1
    same = repeated(np.cumsum(moment) * max(len(rooms_M), 1) + room_N[unasked])
    keep_N[unasked[same]] = False
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
        **{name: impressions[name].take(pa.array(rows)) for name in own},
    }
    credited = _credited(
        engagements,
        users_U,
        rooms_M,
        user_N=user_N[rows],
        room_N=room_N[rows],
        feed_N=feed_N,
        shown_at_N=shown_at[rows],
        request_R=np.where(has_request, request, -1)[head_R],
    )
    return Bucket(pa.table(feeds), pa.table(candidates), credited, impressions.take(pa.array(np.flatnonzero(~keep_N))))


def repeated(key: np.ndarray) -> np.ndarray:
    """True where a key was there in an earlier row."""
    again = np.zeros(len(key), bool)
    ordered = np.sort(key)
    if (ordered[1:] == ordered[:-1]).any():
        again[:] = True
        again[np.unique(key, return_index=True)[1]] = False
    return again


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
) -> pa.Table:
    """Engagements with the row of the impression they answer, by user and time.

    One with a request id answers the impression of that request, user and room; a clock that runs behind (answered
    before shown) is set right. One without answers the latest impression of user and room that is not later; whether
    it came soon enough is asked target by target.
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
        feed_E = _places(key_R, user_E[asked] * len(requests) + request_E)
        key_N = feed_N * len(rooms_M) + room_N
        row_E[asked] = _places(key_N, np.where(feed_E >= 0, feed_E * len(rooms_M) + room_E[asked], -1))
    by_request_E = row_E >= 0
    at = np.where(by_request_E, np.maximum(at, shown_at_N[row_E] if len(shown_at_N) else at), at)

    unasked = np.flatnonzero(known_E & ~has_request)
    if len(unasked):
        pairs, pair_E = codes(user_E[unasked] * len(rooms_M) + room_E[unasked])
        pair_N = find(pairs, user_N * len(rooms_M) + room_N)
        rows = np.flatnonzero(pair_N >= 0)
        moments = Moments(len(pairs), shown_at_N[rows], at[unasked])
        key_N = moments.pack(pair_N[rows], shown_at_N[rows])
        order_N = np.argsort(key_N, kind="stable")
        place = np.searchsorted(key_N[order_N], moments.pack(pair_E, at[unasked]), side="right") - 1
        found = (place >= 0) & (pair_N[rows[order_N[place]]] == pair_E) if len(rows) else np.zeros(len(unasked), bool)
        row_E[unasked[found]] = rows[order_N[place[found]]]

    order = np.lexsort((at, user_id))
    columns = {
        "user_id": user_id[order],
        "room_id": room_id[order],
        "at": at[order],
        "action": integers(engagements["action"])[order].astype(np.int8),
        "value": engagements["value"].take(pa.array(order)),
        "row": row_E[order],
        "by_request": by_request_E[order],
    }
    return pa.table(columns)


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
