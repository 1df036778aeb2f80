"""Impressions and engagements of a sample of users row by row: who answers what, and what is there twice.

# N impressions, E engagements
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.hashing import splitmix64
from pipelines.check.facts import Answers, Repeats, Requests
from pipelines.check.sketches import sampled
from pipelines.encode.clock import HOUR_MS

_REUSED_MS = 6 * HOUR_MS
_SKEW_MS = 60_000  # an engagement so long before an impression of its user and room may be of a clock that runs behind
_MOST_LEFT_OUT = 1000

Rows = dict[str, np.ndarray]


class UserSample:
    """All event rows of as many users as there is room for; first of all users, then of every second, fourth, ...

    A user whose rows take more than a tenth of the room is left out, so that one bot does not push out all the others.

    Attributes:
        level: one of `2 ** level` users is kept.
        left_out: ids of those with too many rows.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: dict[str, list[Rows]] = {}
        self._rows = 0
        self.level = 0
        self.left_out: set[int] = set()

    def chosen(self, users: np.ndarray) -> np.ndarray:
        """Whose rows are kept, bool."""
        chosen = sampled(users, self.level)
        if self.left_out:
            chosen &= ~np.isin(users, np.fromiter(self.left_out, np.int64))
        return chosen

    def add(self, table: str, rows: Rows) -> None:
        """Takes in rows of chosen users; `user` is among the columns."""
        self._parts.setdefault(table, []).append(rows)
        self._rows += len(rows["user"])
        while self._rows > self._most:
            self._thin()

    def _thin(self) -> None:
        tables = {table: self.rows(table) for table in self._parts}
        users, rows = np.unique(np.concatenate([table["user"] for table in tables.values()]), return_counts=True)
        heavy = users[rows > max(self._most // 10, 1)]
        if len(heavy) and len(self.left_out) < _MOST_LEFT_OUT:
            self.left_out |= set(heavy.tolist())
        else:
            self.level += 1
        self._rows = 0
        for table, columns in tables.items():
            chosen = self.chosen(columns["user"])
            self._parts[table] = [{name: values[chosen] for name, values in columns.items()}]
            self._rows += int(chosen.sum())

    def rows(self, table: str) -> Rows:
        """All that is kept of a table; no columns where nothing was ever added."""
        parts = self._parts.get(table, [])
        return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


@dataclass(frozen=True)
class Compared:
    """What comes of comparing.

    Attributes:
        asked, credited: by day.
        example: key of the request id that most users share; None where none is shared.
    """

    answers: Answers
    requests: Requests
    repeats: tuple[Repeats, ...]
    asked: Mapping[int, int]
    credited: Mapping[int, int]
    example: int | None


def compare(sample: UserSample, windows_ms: Mapping[int, float], days: frozenset[int]) -> Compared:
    """Compares engagements with impressions as the labels do.

    One with a request id answers the latest impression of that request, user and room that is not later, or the first. One
    without answers the latest impression of user and room that is not later. Both inside their action's window.

    Args:
        windows_ms: by code of an action that a target reads; other engagements are not asked for.
        days: with impressions; engagements of other days are not asked for.
    """
    shown, done = sample.rows("impressions"), sample.rows("engagements")
    nobody = np.zeros(0, np.int64)
    asked_E = np.zeros(0, bool)
    credited_E = early_E = np.zeros(0, bool)
    lag_E = np.zeros(0)
    if done:
        asked_E = np.isin(done["action"], list(windows_ms)) & np.isin(done["day"], list(days))
        done = {name: values[asked_E] for name, values in done.items()}
        window_E = np.array([windows_ms[action] for action in done["action"].tolist()], float)
        credited_E, early_E, lag_E = _answered(shown or _EMPTY, done, window_E)
    day_E = done["day"] if done else nobody
    known_lag = lag_E[~np.isnan(lag_E)]
    repeats = []
    for table in ("impressions", "engagements", "product_clicks"):
        if rows := sample.rows(table):
            repeats.append(Repeats(table=table, rows=len(rows["row"]), repeated=_again(rows["row"])))
    requests, example = _requests(shown or _EMPTY)
    answers = Answers(
        user_share=0.5**sample.level,
        left_out=len(sample.left_out),
        asked=len(day_E),
        credited=int(credited_E.sum()),
        early=int(early_E.sum()),
        by_request=float(done["has_request"].mean()) if len(day_E) else 0.0,
        median_seconds=float(np.median(known_lag)) / 1000 if len(known_lag) else None,
    )
    return Compared(answers, requests, tuple(repeats), _by_day(day_E), _by_day(day_E[credited_E]), example)


def _not_later(key_N: np.ndarray, at_N: np.ndarray, key_E: np.ndarray, at_E: np.ndarray, otherwise_E: np.ndarray) -> np.ndarray:
    """The latest row of the same key that is not later, among rows by key and time; `otherwise_E` where all are later."""
    order = np.lexsort((np.r_[np.zeros(len(key_N)), np.ones(len(key_E))], np.r_[at_N, at_E], np.r_[key_N, key_E]))
    last = np.maximum.accumulate(np.where(order < len(key_N), order, -1))  # rows are in order, so the largest is the last
    before_E = np.empty(len(key_E), np.int64)
    asked = order >= len(key_N)
    before_E[order[asked] - len(key_N)] = last[asked]
    same = (before_E >= 0) & (key_N[before_E] == key_E)
    return np.where(same, before_E, otherwise_E)


_EMPTY: Rows = {
    **{name: np.zeros(0, np.int64) for name in ("user", "room", "request", "at")},
    "has_request": np.zeros(0, bool),
}


def _answered(shown: Rows, done: Rows, window_E: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each engagement answers an impression, whether one that came later, and after how many ms (NaN: none)."""
    count = len(done["user"])
    credited_E, early_E, lag_E = np.zeros(count, bool), np.zeros(count, bool), np.full(count, np.nan)
    asked = np.flatnonzero(done["has_request"])
    if len(asked):
        with_request = np.flatnonzero(shown["has_request"])
        key_N = _key(*(shown[name][with_request] for name in ("user", "request", "room")))
        order = np.lexsort((shown["at"][with_request], key_N))
        key_N, at_N = key_N[order], shown["at"][with_request][order]
        key_E = _key(*(done[name][asked] for name in ("user", "request", "room")))
        place = np.searchsorted(key_N, key_E)
        found = place < len(key_N)
        found[found] = key_N[place[found]] == key_E[found]
        rows, place = asked[found], place[found]
        lag_E[rows] = done["at"][rows] - at_N[_not_later(key_N, at_N, key_E[found], done["at"][rows], place)]
        credited_E[rows] = lag_E[rows] <= window_E[rows]
        early_E[rows] = lag_E[rows] < 0
    unasked = np.flatnonzero(~done["has_request"])
    if len(unasked) and len(shown["user"]):
        pair_N = _key(shown["user"], shown["room"])
        pairs, pair_N = np.unique(pair_N, return_inverse=True)
        wanted = _key(done["user"][unasked], done["room"][unasked])
        pair_E = np.searchsorted(pairs, wanted)
        there = pair_E < len(pairs)
        there[there] = pairs[pair_E[there]] == wanted[there]
        rows, pair_E = unasked[there], pair_E[there]
        # engagements among the impressions of their pair: those at one moment with an impression stand behind it
        pair = np.concatenate([pair_N, pair_E])
        at = np.concatenate([shown["at"], done["at"][rows]])
        is_done = np.r_[np.zeros(len(pair_N), bool), np.ones(len(rows), bool)]
        order = np.lexsort((is_done, at, pair))
        pair, at, is_done = pair[order], at[order], is_done[order]
        place = np.arange(len(order))
        before = np.maximum.accumulate(np.where(is_done, -1, place))
        after = np.minimum.accumulate(np.where(is_done, len(order), place)[::-1])[::-1]
        mine = np.flatnonzero(is_done)
        row = rows[order[mine] - len(pair_N)]
        since = _distance(pair, at, mine, before[mine])
        until = _distance(pair, at, mine, after[mine])
        lag_E[row] = np.where(np.isnan(since) | (-until < since), until, since)  # to the nearest impression
        credited_E[row] = since <= window_E[row]
        early_E[row] = ~credited_E[row] & (until >= -_SKEW_MS)
    return credited_E, early_E, lag_E


def _distance(pair: np.ndarray, at: np.ndarray, mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From another row of the same pair to each of mine in ms; NaN where there is none."""
    there = (other >= 0) & (other < len(pair))
    place = np.where(there, other, 0)
    there &= pair[place] == pair[mine]
    return np.where(there, at[mine] - at[place], np.nan)


def _requests(shown: Rows) -> tuple[Requests, int | None]:
    rows = np.flatnonzero(shown["has_request"])
    request, user, at = (shown[name][rows] for name in ("request", "user", "at"))
    order = np.lexsort((at, user, request))
    request, user, at = request[order], user[order], at[order]
    if not len(request):
        return Requests(rows=0, shared_rows=0, shared_ids=0, most_users=1, example="", reused_rows=0), None
    new_request = np.r_[True, request[1:] != request[:-1]]
    new_user = new_request | np.r_[True, user[1:] != user[:-1]]
    first, starts = np.flatnonzero(new_user), np.flatnonzero(new_request)
    sizes = np.diff(np.r_[first, len(at)])
    last = first + sizes - 1
    users_of_request = np.add.reduceat(new_user.astype(np.int64), starts)
    rows_of_request = np.diff(np.r_[starts, len(at)])
    shared = users_of_request > 1
    most = int(np.argmax(users_of_request))
    found = Requests(
        rows=len(at),
        shared_rows=int(rows_of_request[shared].sum()),
        shared_ids=int(shared.sum()),
        most_users=int(users_of_request[most]),
        example="",
        reused_rows=int(sizes[at[last] - at[first] > _REUSED_MS].sum()),
    )
    return found, int(request[starts[most]]) if shared.any() else None


def _key(*parts: np.ndarray) -> np.ndarray:
    key = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        key = splitmix64((key ^ part.view(np.uint64)).view(np.int64))
    return key


def _by_day(day: np.ndarray) -> dict[int, int]:
    days, rows = np.unique(day, return_counts=True)
    return dict(zip(days.tolist(), rows.tolist(), strict=True))


def _again(hashes: np.ndarray) -> int:
    """Rows that repeat an earlier one."""
    ordered = np.sort(hashes)
    return int((ordered[1:] == ordered[:-1]).sum())
