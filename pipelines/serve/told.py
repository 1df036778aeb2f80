"""What a request says, read against what a schema reads: everything that can be wrong with it is found here.

# N candidates
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.catalogue import CONTEXT_FAMILY, ENTRIES, ROOM, STATE_FAMILY, STREAMER, USER, Id
from pipelines.encode.columns import column
from pipelines.encode.plan import Flat
from pipelines.serve.given import flat_of, integer_of
from pipelines.serve.request import Place, RankRequest, RequestError, Value
from pipelines.serve.wanted import Wanted


@dataclass(frozen=True)
class Cells:
    """A column that is told for some candidates: their rows, and its values."""

    rows: np.ndarray
    values: Flat


@dataclass(frozen=True)
class Told:
    """A request, in the columns that the schema reads.

    Attributes:
        room_N: ids.
        user_id: None for nobody.
        feed: by column, one value each.
        candidate: by column; `streamer_id` even where it is not read itself, for what is known of the streamer.
        histories: by name and column of an entry, the entries that are read.
        has_features_N: whether features of the room were told.
        ignored: columns that are not read.
    """

    at: int
    user_id: int | None
    room_N: np.ndarray
    feed: Mapping[str, Flat]
    candidate: Mapping[str, Cells]
    histories: Mapping[str, Mapping[str, Flat]]
    has_features_N: np.ndarray
    ignored: tuple[str, ...]

    @property
    def of_user(self) -> bool:
        """Whether anything of the user is told."""
        known = any(bool(values.known[0]) for name, values in self.feed.items() if not name.startswith(f"{CONTEXT_FAMILY}."))
        return known or any(len(columns["at"].values) > 0 for columns in self.histories.values())


def told(request: RankRequest, wanted: Wanted, now: int) -> Told:
    """
    Args:
        now: ms, the moment of a request that names none.

    Raises:
        RequestError: a value of the wrong type, a column that does not exist, a history entry that is not in the past, a room
            that is there twice.
    """
    at = now if request.at is None else request.at
    ignored: dict[str, None] = {}
    return Told(
        at=at,
        user_id=integer_of(request.user_id, wanted.ids.get(USER.key)),
        room_N=_rooms(request, wanted),
        feed=_feed(request, wanted, ignored),
        histories=_histories(request, wanted, at, ignored),
        candidate=_candidates(request, wanted, ignored),
        has_features_N=np.array([bool(item.features) for item in request.candidates]),
        ignored=tuple(ignored),
    )


def _rooms(request: RankRequest, wanted: Wanted) -> np.ndarray:
    ids = wanted.ids.get(ROOM.key)
    given = [item.room_id for item in request.candidates]
    plain = ids != "text" and all(type(room) is int for room in given)
    rooms: Sequence[int | str | None] = given if plain else [integer_of(room, ids) for room in given]
    if len(set(rooms)) < len(rooms):
        first: dict[int | str | None, int] = {}
        for row, room in enumerate(rooms):
            if (other := first.setdefault(room, row)) != row:
                one, two = given[other], given[row]
                otherwise = f"{two!r} is the same room as {one!r}, spelled otherwise."
                same = f"{two!r} is among the rooms twice."
                raise RequestError(("candidates", row, "room_id"), same if one == two else otherwise)
    return np.array(rooms, np.int64)


def _feed(request: RankRequest, wanted: Wanted, ignored: dict[str, None]) -> dict[str, Flat]:
    given: dict[str, tuple[Place, Value]] = {}
    for name, value in request.user.items():
        known = column(name, wanted.schema)
        if known is None or known.of != USER or known.is_derived or isinstance(known.how, Id):
            raise RequestError(("user", name), f"`{name}` is no column of a user. This model reads: {wanted.of_users}.")
        given[name] = (("user", name), value)
    for name, value in request.context.items():
        given[f"{CONTEXT_FAMILY}.{name}"] = (("context", name), value)
    ignored.update(dict.fromkeys(name for name in given if name not in wanted.feed))
    return {
        name: flat_of([value], wanted.kinds[name], [place]) for name, (place, value) in given.items() if name in wanted.feed
    }


def _histories(request: RankRequest, wanted: Wanted, at: int, ignored: dict[str, None]) -> dict[str, dict[str, Flat]]:
    found: dict[str, dict[str, Flat]] = {}
    for name, entries in request.histories.items():
        inner = wanted.histories.get(name)
        if inner is None:
            ignored[name] = None
            continue
        history = wanted.schema.history(name)
        for number, entry in enumerate(entries):
            _check_moment(entry, at, ("histories", name, number))
            for key in entry:
                if key not in inner:
                    known = ENTRIES[history.events].find(key)
                    if known is None or known.is_derived:
                        raise RequestError(
                            ("histories", name, number, key),
                            f"entries of {history.events} have no `{key}`; {name} reads {', '.join(inner)}.",
                        )
                    ignored[f"{name}.{key}"] = None
        kept = range(max(0, len(entries) - history.length), len(entries))
        found[name] = {}
        for key in inner:
            full, places = f"{name}.{key}", [("histories", name, number, key) for number in kept]
            values = [entries[number].get(key) for number in kept]
            found[name][key] = flat_of(values, wanted.kinds[full], places, wanted.ids_of(full))
    return found


def _check_moment(entry: Mapping[str, Value], at: int, place: Place) -> None:
    moment = entry.get("at")
    if isinstance(moment, bool) or not isinstance(moment, int):
        raise RequestError((*place, "at"), "every entry needs `at`, ms since 1970 as an integer.")
    if moment >= at:
        raise RequestError((*place, "at"), f"is {moment}, not before the request's own time {at}.")


def _candidates(request: RankRequest, wanted: Wanted, ignored: dict[str, None]) -> dict[str, Cells]:
    cells: dict[str, tuple[list[int], list[Value], list[Place]]] = {}

    def add(name: str, row: int, value: Value, place: Place) -> None:
        rows, values, places = cells.setdefault(name, ([], [], []))
        rows.append(row)
        values.append(value)
        places.append(place)

    for row, item in enumerate(request.candidates):
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
            known = column(name, wanted.schema)
            if known is None or known.level != "candidate" or known.is_derived or name == ROOM.key:
                raise RequestError(
                    ("candidates", row, "features", name),
                    f"`{name}` is no raw column of a candidate. This model reads: {', '.join(wanted.candidate)}.",
                )
            ignored[name] = None
    return {
        name: Cells(np.array(rows), flat_of(values, wanted.kinds.get(name, "id"), places, wanted.ids_of(name)))
        for name, (rows, values, places) in cells.items()
    }
