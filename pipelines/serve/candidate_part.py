"""What each candidate of a request has of its own: columns of its room, streamer and product, and of the user's pairs.

# N candidates of all requests, P pairs of one user
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from models.catalogue import PAIRS, ROOM, STREAMER, Column, Hours, stored_ids
from pipelines.encode.plan import Flat
from pipelines.serve.given import DTYPES, hours_before
from pipelines.serve.records import Block, Records, User
from pipelines.serve.store import PARTS, Store
from pipelines.serve.told import Cells, Told
from pipelines.serve.wanted import Wanted


class CandidatePart:
    """How columns of candidates come about: what is told, else what the store holds, else the default."""

    def __init__(self, wanted: Wanted, store: Store | None) -> None:
        self._wanted, self._store = wanted, store
        self._asked = {part: wanted.of(subject) for part, subject in PARTS.items()}

    def columns(
        self, requests: Sequence[Told], users: Sequence[User | None], at_N: np.ndarray, starts: Sequence[int]
    ) -> tuple[dict[str, Flat], np.ndarray]:
        """[N] by column, and which of the rooms the store knows, bool [N].

        Args:
            users: as the store knows them.
            at_N: the moment of each candidate's request.
            starts: the first candidate of each request, and one more.
        """
        room_N = _joined([request.room_N for request in requests])
        all_N = np.ones(len(room_N), np.bool_)
        columns = _Columns(self._wanted, at_N)
        told = _told(requests, starts)
        found_N = np.zeros(len(room_N), np.bool_)
        streamer_N, has_streamer_N = np.zeros(len(room_N), np.int64), np.zeros(len(room_N), np.bool_)
        if self._store is not None:
            rooms = self._store.records("rooms", room_N.tolist())
            found_N = rooms.found_N
            for each in self._wanted.of_rooms:
                if rooms.has(each.stored):
                    columns.take(rooms, each)
            if rooms.has(STREAMER.key):
                streamer_N, has_streamer_N = (array.copy() for array in rooms.column(STREAMER.key))
        for part, asked in self._asked.items():
            if asked and (cells := told.get(PARTS[part].key)) is not None:
                others = None if self._store is None else self._store.records(part, _ids(cells).tolist())
                columns.take_others(others, asked, cells.rows)
        if (cells := told.get(STREAMER.key)) is not None:
            streamer_N[cells.rows], has_streamer_N[cells.rows] = cells.values.values, cells.values.known
        owners = {ROOM.key: (room_N, all_N), STREAMER.key: (streamer_N, has_streamer_N)}
        for (
            each
        ) in self._wanted.counts:  # what nobody knows is 0; but of a streamer that nobody knows there is no count, as offline
            columns.known[each.name] |= owners[each.of.key][1]
        for other, asked in self._wanted.of_pairs.items():
            id_N, known_N = owners[PAIRS[other].key]
            for user, start, end in zip(users, starts, starts[1:], strict=False):
                if user is not None:
                    columns.take_pairs(user, asked, other, id_N[start:end], known_N[start:end], start)
        for name, cells in told.items():
            if name in columns.values:
                columns.put(name, cells.values.values, cells.values.known, cells.rows)
        flats = {name: Flat(values, columns.known[name]) for name, values in columns.values.items()}
        return {**flats, ROOM.key: Flat(room_N, all_N)}, found_N


class _Columns:
    """Candidate columns under construction: values [N] and whether each is known [N]."""

    def __init__(self, wanted: Wanted, at_N: np.ndarray) -> None:
        self.at_N = at_N
        self.values: dict[str, np.ndarray] = {
            name: np.zeros(len(at_N), DTYPES[wanted.kinds[name]]) for name in wanted.candidate
        }
        self.known = {name: np.zeros(len(at_N), np.bool_) for name in wanted.candidate}

    def put(self, name: str, values: np.ndarray, known: np.ndarray, rows: np.ndarray | slice = slice(None)) -> None:
        """Takes over values, missing ones too, in all rows or some."""
        self.values[name][rows] = np.where(known, values, 0)
        self.known[name][rows] = known

    def take(self, records: Records | Block, column: Column, rows: np.ndarray | slice = slice(None)) -> None:
        """As `put`, from what the store keeps: a moment becomes hours."""
        values, known = records.column(column.stored)
        if isinstance(column.how, Hours):
            values, known = hours_before(values, known, self.at_N[rows])
        self.put(column.name, values, known, rows)

    def take_others(self, records: Records | None, asked: Iterable[Column], rows: np.ndarray) -> None:
        """Rooms of which the request says who streams, or what is on screen, have the columns of those, not the stored ones."""
        for column in asked:
            if records is not None and records.has(column.stored):
                self.take(records, column, rows)
            else:
                self.put(column.name, np.zeros(len(rows)), np.zeros(len(rows), np.bool_), rows)

    def take_pairs(
        self, user: User, asked: Sequence[Column], other: str, id_N: np.ndarray, known_N: np.ndarray, start: int
    ) -> None:
        """What there was between the user and each room of one request, or its streamer; `start` is its first candidate."""
        pairs = user.lists.get(f"pair.{other}")
        if pairs is None or not pairs.values_CN.shape[1]:
            return
        id_P = pairs.column(stored_ids(other))[0]
        order = np.argsort(id_P, kind="stable")
        place_N = order[np.minimum(np.searchsorted(id_P, id_N, sorter=order), len(order) - 1)]
        rows = np.flatnonzero(known_N & (id_P[place_N] == id_N))
        if len(rows):
            found = Block(pairs.layout, pairs.values_CN[:, place_N[rows]], pairs.known_CN[:, place_N[rows]])
            for column in asked:
                self.take(found, column, start + rows)


def _told(requests: Sequence[Told], starts: Sequence[int]) -> Mapping[str, Cells]:
    """What all requests say of their candidates, by column."""
    names = dict.fromkeys(name for request in requests for name in request.candidate)
    found = {}
    for name in names:
        cells = [
            (each.rows + start, each.values)
            for request, start in zip(requests, starts, strict=False)
            if (each := request.candidate.get(name)) is not None
        ]
        values = Flat(_joined([flat.values for _, flat in cells]), _joined([flat.known for _, flat in cells]))
        found[name] = Cells(_joined([rows for rows, _ in cells]), values)
    return found


def _ids(cells: Cells) -> np.ndarray:
    """-1, which is nobody's, where missing."""
    return np.where(cells.values.known, cells.values.values, -1)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
