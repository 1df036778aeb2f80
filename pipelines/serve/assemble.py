"""A request and what the store knows, as one raw feed in exactly the columns that offline feeds have.

Precedence, column by column: what the request says, else what the store holds, else the default of a user, room or
streamer that nothing has happened to: counts 0, everything else missing. Counts and preferences of the store are those
at the end of the log it was built from; hours are counted up to the request's own moment.

    # N candidates, P pairs of this user
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa

from models.config import ConfigError
from models.schema import Bins, Encoding, Number, Schema
from pipelines.encode.arrays import flat, whole
from pipelines.encode.clock import DAY_MS, NEVER, hours_since
from pipelines.encode.derive import (
    CANDIDATE_COLUMNS,
    FEED_COLUMNS,
    HISTORY_COLUMNS,
    HISTORY_PREFIXES,
    HOURS_AGO,
    base_columns,
    column,
)
from pipelines.encode.feeds import EARLIER
from pipelines.encode.stages import stage_columns
from pipelines.logs.ids import as_ids
from pipelines.serve.request import CandidateRequest, RankRequest, RequestError, Value
from pipelines.serve.store import PARTS, Records, Store

Kind = Literal["id", "number"]
_TYPES: Mapping[Kind, pa.DataType] = {"id": pa.int64(), "number": pa.float64()}
_COUNTS = {
    name for name in (*FEED_COLUMNS, *CANDIDATE_COLUMNS) if any(what in name for what in ("_impressions", "_entries", "_feeds"))
}
_PAIR_LAST = {"streamer": "pair.streamer_last_entry_at", "room": "pair.room_last_shown_at"}


@dataclass(frozen=True)
class Wanted:
    """The base columns that a schema reads.

    Attributes:
        feed, candidate: names.
        histories: names without the history's, by history; `at` first.
        kinds: by full name, `id` where some field needs the exact value, `number` otherwise.
    """

    schema: Schema
    feed: tuple[str, ...]
    candidate: tuple[str, ...]
    histories: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, Kind]

    @classmethod
    def by(cls, schema: Schema) -> "Wanted":
        names = base_columns(schema)
        histories = {}
        for history in schema.histories:
            prefix = f"{history.name}."
            inner = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
            histories[history.name] = ("at", *(name for name in inner if name != "at"))
            names -= {prefix + name for name in inner}
        of = {name: found.of for name in sorted(names) if (found := column(name, schema)) is not None}
        return cls(
            schema=schema,
            feed=tuple(name for name in of if of[name] == "feed"),
            candidate=tuple(name for name in of if of[name] == "candidate"),
            histories=histories,
            kinds=_kinds(schema),
        )

    def check(self, store: Store) -> None:
        """
        Raises:
            ConfigError: the store lacks columns; it was built for another schema.
        """
        of_user = [name for name in self.feed if not name.startswith("context.")]
        of_user += [f"{history}.{name}" for history, names in self.histories.items() for name in names]
        of_user += [name for name in self.candidate if name.startswith("pair_")]
        of_room = [name for name in self.candidate if not name.startswith("pair_")]
        missing = [name for name in of_user if _stored_as(name) not in store.user_schema.names]
        missing += [name for name in of_room if _stored_as(name) not in store.layouts["rooms"].names]
        if missing:
            raise ConfigError(
                f"the store at `{store.path}` lacks {', '.join(missing)}, which the bundle's schema reads. "
                "Build it from a prepared folder of that schema."
            )


@dataclass(frozen=True)
class Assembled:
    """A raw feed, and what is to be said about it.

    Attributes:
        features: one row.
        room_known_N: whether each room's features are stored or were given.
        ignored: columns that were given but are not read.
    """

    features: pa.Table
    user_known: bool
    room_known_N: np.ndarray
    ignored: tuple[str, ...]


def assemble(request: RankRequest, wanted: Wanted, store: Store | None) -> Assembled:
    """The request as a feed with all base columns of the schema; without a store all must come inline.

    Raises:
        RequestError: a value of the wrong type, a column that does not exist, a history entry that is not in the past.
    """
    at = request.at if request.at is not None else time.time_ns() // 1_000_000
    ignored: dict[str, None] = {}
    (user_id,) = _integers([request.user_id])
    stored = store.user(user_id) if store is not None and user_id is not None else None
    room_ids = np.array(_integers([item.room_id for item in request.candidates]), np.int64)

    columns: dict[str, pa.Array] = {
        "feed_id": pa.array([0], pa.int64()),
        "user_id": pa.array([user_id], pa.int64()),
        "at": pa.array([at], pa.int64()),
        "day": pa.array([at // DAY_MS], pa.int32()),
        "room_id": _list_of(pa.array(room_ids)),
    }
    columns |= _feed_columns(request, wanted, stored, at, ignored)
    for history in wanted.histories:
        columns |= _history(request, wanted, history, stored, at, ignored)
    for history in request.histories.keys() - wanted.histories.keys():
        ignored[history] = None
    of_candidates, found_N = _candidate_columns(request.candidates, wanted, store, stored, room_ids, at, ignored)
    columns |= of_candidates
    inline_N = np.array([bool(item.features) for item in request.candidates])
    return Assembled(
        features=pa.table(columns),
        user_known=stored is not None or bool(request.user) or bool(request.histories),
        room_known_N=found_N | inline_N,
        ignored=tuple(ignored),
    )


# -- feed ------------------------------------------------------------------------------------------------------


def _feed_columns(
    request: RankRequest, wanted: Wanted, stored: pa.RecordBatch | None, at: int, ignored: dict[str, None]
) -> dict[str, pa.Array]:
    given: dict[str, tuple[tuple[str | int, ...], Value]] = {}
    for name, value in request.user.items():
        known = column(name, wanted.schema)
        if known is None or known.of != "feed" or known.inputs or name == "user_id" or name.startswith("context."):
            raise RequestError(("user", name), f"`{name}` is no column of a user. This model reads: {_users(wanted)}.")
        given[name] = (("user", name), value)
    for name, value in request.context.items():
        given[f"context.{name}"] = (("context", name), value)
    found: dict[str, pa.Array] = {}
    for name in wanted.feed:
        if name in given:
            where, value = given.pop(name)
            found[name] = _array([value], wanted.kinds[name], [where])
        elif stored is not None and name == "user_last_seen_hours":
            found[name] = _hours(stored["user_last_at"], at)
        elif stored is not None and name in stored.schema.names:
            found[name] = stored[name]
        else:
            found[name] = pa.array([0 if _is_count(name) else None], _TYPES[wanted.kinds[name]])
    ignored.update(dict.fromkeys(given))
    return found


def _history(
    request: RankRequest, wanted: Wanted, name: str, stored: pa.RecordBatch | None, at: int, ignored: dict[str, None]
) -> dict[str, pa.Array]:
    """The history's columns, one list each: the last entries that were known before the request."""
    history = wanted.schema.history(name)
    inner = wanted.histories[name]
    if name in request.histories:
        entries = request.histories[name]
        kept = range(max(0, len(entries) - history.length), len(entries))
        for place, entry in enumerate(entries):
            _check_moment(entry, at, ("histories", name, place))
            for key in entry:
                if key not in inner:
                    if key not in HISTORY_COLUMNS[history.events] and not key.startswith(HISTORY_PREFIXES[history.events]):
                        raise RequestError(
                            ("histories", name, place, key),
                            f"entries of {history.events} have no `{key}`; {name} reads {', '.join(inner)}.",
                        )
                    ignored[f"{name}.{key}"] = None
        columns = {}
        for item in inner:
            values = [entries[place].get(item) for place in kept]
            where = [("histories", name, place, item) for place in kept]
            columns[f"{name}.{item}"] = _list_of(_array(values, wanted.kinds[f"{name}.{item}"], where))
        return columns
    if stored is None:
        return {f"{name}.{item}": _list_of(pa.array([], _TYPES[wanted.kinds[f"{name}.{item}"]])) for item in inner}
    past = flat(stored[f"{name}.at"]).to_numpy() < at
    if past.all():
        return {f"{name}.{item}": stored[f"{name}.{item}"] for item in inner}
    return {f"{name}.{item}": _list_of(flat(stored[f"{name}.{item}"]).filter(pa.array(past))) for item in inner}


def _check_moment(entry: Mapping[str, Value], at: int, where: tuple[str | int, ...]) -> None:
    moment = entry.get("at")
    if isinstance(moment, bool) or not isinstance(moment, int):
        raise RequestError((*where, "at"), "every entry needs `at`, ms since 1970 as an integer.")
    if moment >= at:
        raise RequestError((*where, "at"), f"is {moment}, not before the request's own time {at}.")


# -- candidates ------------------------------------------------------------------------------------------------


class _Columns:
    """Candidate columns under construction: values [N] and whether each is known [N]."""

    def __init__(self, wanted: Wanted, candidates: int) -> None:
        self.kinds = wanted.kinds
        self.values: dict[str, np.ndarray] = {
            name: np.zeros(candidates, _numpy_type(wanted.kinds[name])) for name in wanted.candidate
        }
        self.known = {name: np.zeros(candidates, np.bool_) for name in wanted.candidate}

    def put(self, name: str, values: np.ndarray, known: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Takes over values, missing ones too, in all rows or some."""
        where = slice(None) if rows is None else rows
        self.values[name][where] = np.where(known, values, 0)
        self.known[name][where] = known

    def take(self, records: Records, name: str, stored_as: str, at: int, rows: np.ndarray | None = None) -> None:
        """A column of the store; what is stored as a moment becomes hours."""
        values, known = records.column(stored_as)
        if name.endswith("_age_hours"):
            values, known = _hours_before(values, known, at)
        self.put(name, values, known, rows)


def _candidate_columns(
    candidates: Sequence[CandidateRequest],
    wanted: Wanted,
    store: Store | None,
    user: pa.RecordBatch | None,
    room_ids: np.ndarray,
    at: int,
    ignored: dict[str, None],
) -> tuple[dict[str, pa.Array], np.ndarray]:
    columns = _Columns(wanted, len(candidates))
    given = _given(candidates, wanted, ignored)
    found_N = np.zeros(len(candidates), np.bool_)
    streamer_N, has_streamer_N = np.zeros(len(candidates), np.int64), np.zeros(len(candidates), np.bool_)
    if store is not None:
        rooms = store.records("rooms", room_ids)
        found_N = rooms.found_N
        for name in wanted.candidate:
            if not name.startswith("pair_") and rooms.has(_stored_as(name)):
                columns.take(rooms, name, _stored_as(name), at)
        if rooms.has("streamer_id"):
            streamer_N, has_streamer_N = (array.copy() for array in rooms.column("streamer_id"))
    for part, (key, prefixes) in PARTS.items():
        if key in given:
            rows, ids, known = given[key]
            records = store.records(part, np.where(known, ids, -1)) if store is not None else None
            _of_another(
                columns, records, [name for name in wanted.candidate if _stored_as(name).startswith(prefixes)], rows, at
            )
    if "streamer_id" in given:
        rows, ids, known = given["streamer_id"]
        streamer_N[rows], has_streamer_N[rows] = ids, known
    _count_from_zero(columns, has_streamer_N)
    _pairs(
        columns,
        wanted,
        user,
        {"room": (room_ids, np.ones(len(candidates), np.bool_)), "streamer": (streamer_N, has_streamer_N)},
        at,
    )
    for name, (rows, values, known) in given.items():
        if name in columns.values:
            columns.put(name, values, known, rows)
    arrays = {
        name: _list_of(pa.array(values, _TYPES[wanted.kinds[name]], mask=~columns.known[name]))
        for name, values in columns.values.items()
    }
    return arrays, found_N


def _of_another(columns: _Columns, records: Records | None, names: Sequence[str], rows: np.ndarray, at: int) -> None:
    """A room of which the request says who streams, or what is on screen, has the columns of those, not the stored room's."""
    for name in names:
        if records is not None and records.has(_stored_as(name)):
            columns.take(records, name, _stored_as(name), at, rows)
        else:
            columns.put(name, np.zeros(len(rows)), np.zeros(len(rows), np.bool_), rows)


def _count_from_zero(columns: _Columns, has_streamer_N: np.ndarray) -> None:
    """Counts that nobody knows are 0; but of a streamer that nobody knows there is no count, as offline."""
    for name, known in columns.known.items():
        if _is_count(name):
            known |= has_streamer_N if name.startswith(("streamer_", "pair_streamer_")) else True


def _pairs(
    columns: _Columns,
    wanted: Wanted,
    user: pa.RecordBatch | None,
    owners: Mapping[str, tuple[np.ndarray, np.ndarray]],
    at: int,
) -> None:
    """What there was between the user and each candidate's room and streamer."""
    for owner, (id_N, known_N) in owners.items():
        prefix = f"pair_{owner}_"
        asked = [name for name in wanted.candidate if name.startswith(prefix)]
        if not asked or user is None or f"pair.{owner}_id" not in user.schema.names:
            continue
        id_P = flat(user[f"pair.{owner}_id"]).to_numpy()
        order = np.argsort(id_P, kind="stable")
        place = np.searchsorted(id_P, id_N, sorter=order)
        place = order[np.minimum(place, len(order) - 1)] if len(order) else place
        met_N = known_N & (id_P[place] == id_N) if len(order) else np.zeros(len(id_N), np.bool_)
        rows = np.flatnonzero(met_N)
        for name in asked:
            stored = flat(user[_stored_as(name)]).take(pa.array(place[rows]))
            values, known = _plain(stored)
            if name.endswith("_hours"):
                values, known = _hours_before(values, known, at)
            columns.put(name, values, known, rows)


def _given(
    candidates: Sequence[CandidateRequest], wanted: Wanted, ignored: dict[str, None]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By column that the request gives: rows, values, and whether each is known."""
    cells: dict[str, tuple[list[int], list[Value], list[tuple[str | int, ...]]]] = {}

    def add(name: str, row: int, value: Value, where: tuple[str | int, ...]) -> None:
        rows, values, places = cells.setdefault(name, ([], [], []))
        rows.append(row)
        values.append(value)
        places.append(where)

    readable = set(wanted.candidate)
    for row, item in enumerate(candidates):
        for key, value in item.state.items():
            name = f"state.{key}"
            if name in readable:
                add(name, row, value, ("candidates", row, "state", key))
            else:
                ignored[name] = None
        for name, value in item.features.items():
            if name in readable or name == "streamer_id":
                add(name, row, value, ("candidates", row, "features", name))
                continue
            known = column(name, wanted.schema)
            if known is None or known.of != "candidate" or known.inputs or name == "room_id":
                raise RequestError(
                    ("candidates", row, "features", name),
                    f"`{name}` is no raw column of a candidate. This model reads: {', '.join(wanted.candidate)}.",
                )
            ignored[name] = None
    found = {}
    for name, (rows, given, places) in cells.items():
        found[name] = (np.array(rows), *_plain(_array(given, wanted.kinds.get(name, "id"), places)))
    return found


# -- values ----------------------------------------------------------------------------------------------------


def _kinds(schema: Schema) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}

    def use(name: str, kind: Kind) -> None:
        known = column(name, schema)
        inputs = known.inputs if known else ()
        for source in inputs:
            use(source, "number")
        if not inputs and kinds.get(name) != "id":
            kinds[name] = kind

    for field in schema.fields:
        use(field.column, _kind(field.encoding))
    if schema.stages is not None:
        for name in stage_columns(schema.stages).values():
            use(name, "number")
    if schema.levels.column:
        use(schema.levels.column, "number")
    else:
        use(f"{schema.levels.of}_id", "id")
    for history in schema.histories:
        kinds[f"{history.name}.at"] = "id"
        for item in history.fields:
            if item.column != HOURS_AGO:
                name = f"{history.name}.{item.column}"
                kinds[name] = "id" if kinds.get(name) == "id" else _kind(item.encoding)
    for name in base_columns(schema):
        kinds.setdefault(name, "id")
    return kinds


def _kind(encoding: Encoding) -> Kind:
    return "number" if isinstance(encoding, Bins | Number) else "id"


def _array(values: Sequence[Value], kind: Kind, where: Sequence[tuple[str | int, ...]]) -> pa.Array:
    """Values of a request as int64 or float64.

    Raises:
        RequestError: text where a number is needed, or a number with a fraction where something is named.
    """
    if kind == "number":
        for value, place in zip(values, where, strict=True):
            if isinstance(value, str):
                raise RequestError(place, f"is {value!r}, but this column holds numbers.")
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    for value, place in zip(values, where, strict=True):
        if isinstance(value, float):
            raise RequestError(place, f"is {value!r}, but this column holds ids or names: integers or text.")
    return pa.array(_integers(values), pa.int64())


def _integers(values: Sequence[Value]) -> list[int | None]:
    """Text as the id it stands for, as in logs; numbers and truth values as they are."""
    texts = sorted({value for value in values if isinstance(value, str)})
    if not texts:
        return [None if value is None else int(value) for value in values]
    ids = dict(zip(texts, as_ids(pa.array(texts)).to_pylist(), strict=True))
    return [ids[value] if isinstance(value, str) else None if value is None else int(value) for value in values]


def _plain(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values with 0 where missing, and whether each is known."""
    array = whole(array)
    known = array.is_valid().to_numpy(zero_copy_only=False)
    return array.fill_null(0).to_numpy(), known


def _list_of(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _hours(moment: pa.Array, at: int) -> pa.Array:
    values, known = _hours_before(*_plain(moment), at)
    return pa.array(values, mask=~known)


def _hours_before(moments: np.ndarray, known: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Hours up to the request, as offline: float32, and missing where nothing happened before."""
    hours = hours_since(np.where(known & (moments < at), moments, NEVER), np.full(len(moments), at))
    return hours, ~np.isnan(hours)


@lru_cache(maxsize=4096)
def _stored_as(name: str) -> str:
    """The store's column that a base column comes from."""
    if name == "user_last_seen_hours":
        return "user_last_at"
    if name.endswith("_age_hours"):
        return name.replace("_age_hours", "_first_at")
    for owner, last in _PAIR_LAST.items():
        if name == f"pair_{owner}_hours":
            return last
        if name.startswith(f"pair_{owner}_"):
            return f"pair.{name.removeprefix('pair_')}"
    return name


def _is_count(name: str) -> bool:
    return name in _COUNTS or name.startswith(EARLIER)


def _numpy_type(kind: Kind) -> type:
    return np.int64 if kind == "id" else np.float64


def _users(wanted: Wanted) -> str:
    return ", ".join(name for name in wanted.feed if not name.startswith("context.")) or "none"
