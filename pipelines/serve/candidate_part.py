"""What each candidate of a request has of its own: columns of its room, streamer and product, and of the user's pairs.

# N candidates, P pairs of this user
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.catalogue import PAIRS, ROOM, STATE_FAMILY, STREAMER, Column, Hours, stored_ids
from pipelines.encode.arrays import flat
from pipelines.encode.columns import column as column_of
from pipelines.serve.given import TYPES, array_of, hours_before, one_list, plain
from pipelines.serve.request import CandidateRequest, Place, RequestError, Value
from pipelines.serve.store import PARTS, Records, Store
from pipelines.serve.wanted import Wanted


@dataclass(frozen=True)
class Given:
    """A column that the request gives for some of its candidates: their rows, the values (0 where missing), which are known."""

    rows: np.ndarray
    values: np.ndarray
    known: np.ndarray


def candidate_columns(
    candidates: Sequence[CandidateRequest],
    wanted: Wanted,
    store: Store | None,
    user: pa.RecordBatch | None,
    room_N: np.ndarray,
    at: int,
    ignored: dict[str, None],
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Columns of the candidates, one list each, and which of their rooms the store knows, bool [N].

    Args:
        user: the stored row of the request's user.
        room_N: their ids.
        ignored: takes the names of what is given but not read.

    Raises:
        RequestError: a value of the wrong type, or a column that does not exist.
    """
    count = len(candidates)
    columns = _Columns(wanted, count, at)
    given = _given(candidates, wanted, ignored)
    found_N = np.zeros(count, np.bool_)
    streamer_N, has_streamer_N = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    if store is not None:
        rooms = store.records("rooms", room_N)
        found_N = rooms.found_N
        for each in wanted.of_rooms:
            if rooms.has(each.stored):
                columns.take(rooms, each)
        if rooms.has(STREAMER.key):
            streamer_N, has_streamer_N = (array.copy() for array in rooms.column(STREAMER.key))
    for part, subject in PARTS.items():
        asked = wanted.of(subject)
        if asked and subject.key in given:
            ids = given[subject.key]
            records = None if store is None else store.records(part, np.where(ids.known, ids.values, -1))
            columns.take_others(records, asked, ids.rows)
    if STREAMER.key in given:
        ids = given[STREAMER.key]
        streamer_N[ids.rows], has_streamer_N[ids.rows] = ids.values, ids.known
    owners = {ROOM.key: (room_N, np.ones(count, np.bool_)), STREAMER.key: (streamer_N, has_streamer_N)}
    for each in wanted.counts:  # what nobody knows is 0; but of a streamer that nobody knows there is no count, as offline
        columns.known[each.name] |= owners[each.of.key][1]
    if user is not None:
        for other, of_pair in wanted.of_pairs.items():
            _pairs(columns, of_pair, user, other, *owners[PAIRS[other].key])
    for name, cells in given.items():
        if name in columns.values:
            columns.put(name, cells.values, cells.known, cells.rows)
    return columns.lists(), found_N


class _Columns:
    """Candidate columns under construction: values [N] and whether each is known [N]."""

    def __init__(self, wanted: Wanted, candidates: int, at: int) -> None:
        self.kinds, self.at = wanted.kinds, at
        self.values: dict[str, np.ndarray] = {
            name: np.zeros(candidates, np.int64 if wanted.kinds[name] == "id" else np.float64) for name in wanted.candidate
        }
        self.known = {name: np.zeros(candidates, np.bool_) for name in wanted.candidate}

    def put(self, name: str, values: np.ndarray, known: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Takes over values, missing ones too, in all rows or some."""
        where = slice(None) if rows is None else rows
        self.values[name][where] = np.where(known, values, 0)
        self.known[name][where] = known

    def put_stored(self, column: Column, values: np.ndarray, known: np.ndarray, rows: np.ndarray | None = None) -> None:
        """As `put`, from what the store keeps: a moment becomes hours."""
        if isinstance(column.how, Hours):
            values, known = hours_before(values, known, self.at)
        self.put(column.name, values, known, rows)

    def take(self, records: Records, column: Column, rows: np.ndarray | None = None) -> None:
        self.put_stored(column, *records.column(column.stored), rows)

    def take_others(self, records: Records | None, asked: Iterable[Column], rows: np.ndarray) -> None:
        """Rooms of which the request says who streams, or what is on screen, have the columns of those, not the stored ones."""
        for column in asked:
            if records is not None and records.has(column.stored):
                self.take(records, column, rows)
            else:
                self.put(column.name, np.zeros(len(rows)), np.zeros(len(rows), np.bool_), rows)

    def lists(self) -> dict[str, pa.Array]:
        return {
            name: one_list(pa.array(values, TYPES[self.kinds[name]], mask=~self.known[name]))
            for name, values in self.values.items()
        }


def _pairs(
    columns: _Columns, asked: Sequence[Column], user: pa.RecordBatch, other: str, id_N: np.ndarray, known_N: np.ndarray
) -> None:
    """What there was between the user and each candidate's room, or its streamer."""
    if stored_ids(other) not in user.schema.names:
        return
    id_P = flat(user[stored_ids(other)]).to_numpy()
    if not len(id_P):
        return
    order = np.argsort(id_P, kind="stable")
    place_N = order[np.minimum(np.searchsorted(id_P, id_N, sorter=order), len(order) - 1)]
    rows = np.flatnonzero(known_N & (id_P[place_N] == id_N))
    places = pa.array(place_N[rows])
    for column in asked:
        columns.put_stored(column, *plain(flat(user[column.stored]).take(places)), rows)


def _given(candidates: Sequence[CandidateRequest], wanted: Wanted, ignored: dict[str, None]) -> Mapping[str, Given]:
    """What the request says of its candidates, by column."""
    cells: dict[str, tuple[list[int], list[Value], list[Place]]] = {}

    def add(name: str, row: int, value: Value, place: Place) -> None:
        rows, values, places = cells.setdefault(name, ([], [], []))
        rows.append(row)
        values.append(value)
        places.append(place)

    for row, item in enumerate(candidates):
        for key, value in item.state.items():
            name = f"{STATE_FAMILY}.{key}"
            if name in wanted.candidate:
                add(name, row, value, ("candidates", row, "state", key))
            else:
                ignored[name] = None
        for name, value in item.features.items():
            if name in wanted.candidate or name == STREAMER.key:
                add(name, row, value, ("candidates", row, "features", name))
                continue
            known = column_of(name, wanted.schema)
            if known is None or known.level != "candidate" or known.is_derived or name == ROOM.key:
                raise RequestError(
                    ("candidates", row, "features", name),
                    f"`{name}` is no raw column of a candidate. This model reads: {', '.join(wanted.candidate)}.",
                )
            ignored[name] = None
    return {
        name: Given(np.array(rows), *plain(array_of(values, wanted.kinds.get(name, "id"), places, wanted.ids_of(name))))
        for name, (rows, values, places) in cells.items()
    }
