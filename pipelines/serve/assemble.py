"""A request and what the store knows, as one raw feed in exactly the columns that offline feeds have.

Precedence, column by column: what the request says, else what the store holds, else the default of a user, room or
streamer that nothing has happened to: counts 0, everything else missing. Counts and preferences of the store are those
at the end of the log it was built from; hours are counted up to the request's own moment.

    # N candidates
"""

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.catalogue import ROOM, USER
from pipelines.encode.clock import Clock
from pipelines.serve.candidate_part import candidate_columns
from pipelines.serve.feed_part import feed_columns, history_columns
from pipelines.serve.given import integers_of, one_list
from pipelines.serve.request import RankRequest, RequestError
from pipelines.serve.store import Store
from pipelines.serve.wanted import Wanted


@dataclass(frozen=True)
class Assembled:
    """A raw feed, and what is to be said about it.

    Attributes:
        features: one row.
        at: the request's moment, ms.
        user_known: whether anything was read of the user, stored or given.
        room_known_N: whether each room's features are stored or were given.
        ignored: columns that were given but are not read.
    """

    features: pa.Table
    at: int
    user_known: bool
    room_known_N: np.ndarray
    ignored: tuple[str, ...]


def assemble(request: RankRequest, wanted: Wanted, store: Store | None, clock: Clock) -> Assembled:
    """The request as a feed with all base columns of the schema; without a store all must come inline.

    Args:
        clock: the encoder's, which says what day it is.

    Raises:
        RequestError: a value of the wrong type, a column that does not exist, a history entry that is not in the past.
    """
    at = request.at if request.at is not None else time.time_ns() // 1_000_000
    ignored: dict[str, None] = {}
    (user_id,) = integers_of([request.user_id], wanted.ids.get(USER.key))
    stored = store.user(user_id) if store is not None and user_id is not None else None
    room_N = _rooms(request, wanted)

    columns: dict[str, pa.Array] = {
        "feed_id": pa.array([0], pa.int64()),
        "user_id": pa.array([user_id], pa.int64()),
        "at": pa.array([at], pa.int64()),
        "day": pa.array(clock.day(np.array([at])), pa.int32()),
        "room_id": one_list(pa.array(room_N)),
    }
    columns |= feed_columns(request, wanted, stored, at, ignored)
    for history in wanted.histories:
        columns |= history_columns(request, wanted, history, stored, at, ignored)
    for history in request.histories.keys() - wanted.histories.keys():
        ignored[history] = None
    of_candidates, found_N = candidate_columns(request.candidates, wanted, store, stored, room_N, at, ignored)
    inline_N = np.array([bool(item.features) for item in request.candidates])
    return Assembled(
        features=pa.table(columns | of_candidates),
        at=at,
        user_known=_is_read(request, wanted, is_stored=stored is not None),
        room_known_N=found_N | inline_N,
        ignored=tuple(ignored),
    )


def _is_read(request: RankRequest, wanted: Wanted, *, is_stored: bool) -> bool:
    given = any(value is not None and name in wanted.feed for name, value in request.user.items())
    told = any(bool(entries) and history in wanted.histories for history, entries in request.histories.items())
    return given or told or (is_stored and wanted.reads_users)


def _rooms(request: RankRequest, wanted: Wanted) -> np.ndarray:
    """Ids of the candidates' rooms.

    Raises:
        RequestError: a room that is there twice, in two spellings.
    """
    given = [item.room_id for item in request.candidates]
    rooms = integers_of(given, wanted.ids.get(ROOM.key))
    first: dict[int | None, int] = {}
    for row, room in enumerate(rooms):
        if (other := first.setdefault(room, row)) != row:
            same = f"{given[row]!r} is among the rooms twice."
            otherwise = f"{given[row]!r} is the same room as {given[other]!r}, spelled otherwise."
            raise RequestError(("candidates", row, "room_id"), same if given[row] == given[other] else otherwise)
    return np.array(rooms, np.int64)
