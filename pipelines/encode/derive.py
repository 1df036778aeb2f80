"""Which raw columns a schema may read, and the ones that are computed from others just before encoding.

*Base* columns are what the data steps write and the endpoint's store holds: counts, ages, attributes, histories,
running preferences.
*Derived* columns (hours, smoothed rates, ranks) follow from base columns of the same row alone. One function derives
them offline and in the endpoint, so both see the same numbers.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa

from models.config import ConfigError
from models.schema import Schema
from pipelines.encode.arrays import arrays_of, flat, floats, lengths, listed, nullable
from pipelines.encode.clock import HOUR_MS, Clock
from pipelines.encode.feeds import EARLIER, META, PREFERENCE_PREFIX
from pipelines.encode.stages import stage_columns

WINDOWS = ("10m", "1h", "life")
PRIOR_IMPRESSIONS = 20.0  # how many impressions at the training days' entry rate a smoothed rate starts with

FEED_PREFIXES = ("user.", "context.")
CANDIDATE_PREFIXES = ("room.", "streamer.", "state.", "product.")
FEED_COLUMNS = ("user_id", "user_feeds", "user_impressions", "user_entries", "user_last_seen_hours")
CANDIDATE_COLUMNS = (
    "room_id",
    "streamer_id",
    "position",
    *(
        f"{owner}_{what}.{window}"
        for owner in ("room", "streamer")
        for what in ("impressions", "entries")
        for window in WINDOWS
    ),
    "room_age_hours",
    "streamer_age_hours",
    *(f"pair_{owner}_{what}" for owner in ("streamer", "room") for what in ("impressions", "entries", "hours")),
)
UNRANKED = ("room_id", "streamer_id", "position")  # ids and the logged order
HISTORY_COLUMNS = {
    "engagements": ("room_id", "streamer_id", "stay_seconds"),
    "product_clicks": ("product_id",),
}
HISTORY_PREFIXES = {"engagements": ("room.", "streamer."), "product_clicks": ("product.",)}
HOURS_AGO = "hours_ago"
RANK_PREFIX = "feed_rank."

Of = Literal["feed", "candidate"]


@dataclass(frozen=True)
class Column:
    """A raw column: what it belongs to, and the columns it is derived from (none: it is a base column)."""

    of: Of
    inputs: tuple[str, ...] = ()


def preference_columns(schema: Schema) -> dict[str, tuple[str, ...]]:
    """Columns of running preferences by target, and of the impressions they are means over by `EARLIER`; one for each window.

    Those of the schema's first window have the plain name, others say their days: `preference.click`,
    `preference.click.30d`.
    """
    others = [f".{repr(days).removesuffix('.0')}d" for days in schema.preference_days[1:]]
    named = {**{target: PREFERENCE_PREFIX + target for target in schema.target_names}, EARLIER: EARLIER}
    return {of: (name, *(name + window for window in others)) for of, name in named.items()}


def column(name: str, schema: Schema) -> Column | None:
    """What a raw column outside histories is; None where no such column exists."""
    if name in FEED_COLUMNS or _has_prefix(name, FEED_PREFIXES) or name in _preferences(schema):
        return Column("feed")
    if name in CANDIDATE_COLUMNS or _has_prefix(name, CANDIDATE_PREFIXES):
        return Column("candidate")
    if name in _DERIVED:
        of, inputs, _ = _DERIVED[name]
        return Column(of, inputs)
    if name.startswith(RANK_PREFIX):
        ranked = name.removeprefix(RANK_PREFIX)
        inner = None if ranked in UNRANKED or ranked.startswith(RANK_PREFIX) else column(ranked, schema)
        return Column("candidate", (ranked,)) if inner and inner.of == "candidate" else None
    return None


def base_columns(schema: Schema, extra_columns: Iterable[str] = ()) -> set[str]:
    """Base columns (beside `META`) that the schema's fields, histories, levels and stages need, and `extra_columns`.

    Derived columns are resolved to what they are derived from. A history's columns are named `history.column`;
    `history.at` is always among them.

    Raises:
        ConfigError: a column that does not exist, or a feed column read for a candidate or the other way round.
    """
    found: set[str] = set()

    def need(name: str, user: str, of: Of | None = None) -> None:
        known = column(name, schema)
        if known is None:
            raise ConfigError(f"{user} reads column `{name}`, which does not exist. {_nearest(name, _known(schema))}")
        if of is not None and known.of != of:
            raise ConfigError(
                f"{user} is declared of `{of}`, but its column `{name}` belongs to the {known.of}: `of: {known.of}`."
            )
        for source in known.inputs:
            if source not in META.names:
                need(source, user)
        if not known.inputs:
            found.add(name)
        if name.startswith("product."):  # attributes of the product on screen
            found.add("state.product_id")

    for field in schema.fields:
        need(field.column, f"field `{field.name}`", field.of)
    need(schema.levels.column or f"{schema.levels.of}_id", "levels", "candidate")
    if schema.stages is not None:
        found.update(stage_columns(schema.stages).values())
    for name in extra_columns:
        need(name, "extra_columns")
    for history in schema.histories:
        found.add(f"{history.name}.at")
        allowed, prefixes = HISTORY_COLUMNS[history.events], HISTORY_PREFIXES[history.events]
        for item in history.fields:
            if item.column in allowed or _has_prefix(item.column, prefixes):
                found.add(f"{history.name}.{item.column}")
            elif item.column != HOURS_AGO:
                known = [*allowed, HOURS_AGO, *(prefix + "*" for prefix in prefixes)]
                raise ConfigError(
                    f"history field `{history.name}.{item.name}` reads column `{item.column}`, which entries of "
                    f"{history.events} do not have. {_nearest(item.column, known)}"
                )
    return found - set(META.names)


@lru_cache(maxsize=64)
def derived_columns(schema: Schema) -> tuple[str, ...]:
    """Derived columns that the schema's fields and histories read, those that others need first."""
    names: dict[str, None] = {}
    for field in schema.fields:
        if field.column.startswith(RANK_PREFIX) and field.column.removeprefix(RANK_PREFIX) in _DERIVED:
            names[field.column.removeprefix(RANK_PREFIX)] = None
        if field.column in _DERIVED or field.column.startswith(RANK_PREFIX):
            names[field.column] = None
    for history in schema.histories:
        if any(item.column == HOURS_AGO for item in history.fields):
            names[f"{history.name}.{HOURS_AGO}"] = None
    return tuple(names)


def derive(features: pa.Table, schema: Schema, *, entry_rate: float, clock: Clock) -> pa.Table:
    """The table with the derived columns that `schema` reads; those already there are computed anew.

    Args:
        features: base columns, one row a feed; may have no rows.
        entry_rate: entries per impression on training days; what smoothed rates start from.

    Raises:
        ConfigError: a base column that the schema needs is not in the table.
    """
    return derive_columns(features, derived_columns(schema), entry_rate=entry_rate, clock=clock)


def derive_columns(features: pa.Table, names: Iterable[str], *, entry_rate: float, clock: Clock) -> pa.Table:
    """As `derive`, for columns by name (histories' as `history.hours_ago`); inputs that are derived come first."""
    return pa.table(derive_arrays(arrays_of(features), names, entry_rate=entry_rate, clock=clock))


def derive_arrays(
    given: Mapping[str, pa.Array], names: Iterable[str], *, entry_rate: float, clock: Clock
) -> dict[str, pa.Array]:
    """As `derive_columns`, on arrays by column name."""
    arrays = dict(given)
    context = _Context(
        given=arrays, lengths=lengths(_of(arrays, "room_id", "every feed table")), entry_rate=entry_rate, clock=clock
    )
    for name in names:
        arrays[name] = _compute(name, context)
    return arrays


@dataclass(frozen=True)
class _Context:
    given: Mapping[str, pa.Array]
    lengths: np.ndarray
    entry_rate: float
    clock: Clock

    def array(self, name: str, user: str) -> pa.Array:
        return _of(self.given, name, user)

    def floats(self, name: str, user: str) -> np.ndarray:
        array = flat(_of(self.given, name, user))
        try:
            return floats(array)
        except ValueError as error:
            raise ConfigError(f"column `{name}`, needed for `{user}`, {error}") from None


def _compute(name: str, context: _Context) -> pa.Array:
    if name in _DERIVED:
        return _DERIVED[name][2](name, context)
    if name.startswith(RANK_PREFIX):
        values = context.floats(name.removeprefix(RANK_PREFIX), name)
        return listed(feed_rank(values, context.lengths), context.lengths)
    history, _, what = name.rpartition(".")
    if what != HOURS_AGO:
        raise ConfigError(f"`{name}` is not a derived column. {_nearest(name, list(_DERIVED))}")
    entries = context.array(f"{history}.at", name)
    count = lengths(entries)
    now = np.repeat(context.array("at", name).to_numpy(), count)
    return listed((now - flat(entries).to_numpy()) / HOUR_MS, count)


def feed_rank(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rank of every candidate within its feed by descending value: 0 the best, 1 the worst, ties averaged.

    A missing value (NaN) has no rank (NaN) and does not count; the only candidate ranks 0.

    >>> feed_rank(np.array([3.0, 9.0, 3.0, 5.0]), np.array([3, 1]))
    array([0.75, 0.  , 0.75, 0.  ])
    """
    rank = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return rank
    feed, value = np.repeat(np.arange(len(lengths)), lengths)[known], values[known]
    order = np.lexsort((-value, feed))
    feed, value = feed[order], value[order]
    new_feed = np.r_[True, feed[1:] != feed[:-1]]
    new_run = new_feed | np.r_[True, value[1:] != value[:-1]]
    first, size = _runs(new_feed)
    run_first, run_size = _runs(new_run)
    middle = run_first + (run_size - 1) / 2 - first
    rank[known[order]] = middle / np.maximum(size - 1, 1)
    return rank


def _runs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position and size of the run that each position lies in."""
    first = np.flatnonzero(starts)
    size = np.diff(np.r_[first, len(starts)])
    return np.repeat(first, size), np.repeat(size, size)


def _hour(name: str, context: _Context) -> pa.Array:
    return pa.array(context.clock.hour(context.array("at", name).to_numpy()))


def _weekday(name: str, context: _Context) -> pa.Array:
    return pa.array(context.clock.weekday(context.array("at", name).to_numpy()))


def _feed_size(name: str, context: _Context) -> pa.Array:
    return pa.array(context.lengths.astype(np.int64))


def _rate(name: str, context: _Context) -> pa.Array:
    of, (entries, impressions), _ = _DERIVED[name]
    values = (context.floats(entries, name) + PRIOR_IMPRESSIONS * context.entry_rate) / (
        context.floats(impressions, name) + PRIOR_IMPRESSIONS
    )
    return nullable(values) if of == "feed" else listed(values, context.lengths)


_DERIVED: Mapping[str, tuple[Of, tuple[str, ...], Callable[[str, _Context], pa.Array]]] = {
    "hour": ("feed", ("at",), _hour),
    "weekday": ("feed", ("at",), _weekday),
    "feed_size": ("feed", ("room_id",), _feed_size),
    "user_entry_rate": ("feed", ("user_entries", "user_impressions"), _rate),
    **{
        f"{owner}_entry_rate.{window}": ("candidate", (f"{owner}_entries.{window}", f"{owner}_impressions.{window}"), _rate)
        for owner in ("room", "streamer")
        for window in WINDOWS
    },
    **{
        f"pair_{owner}_entry_rate": ("candidate", (f"pair_{owner}_entries", f"pair_{owner}_impressions"), _rate)
        for owner in ("streamer", "room")
    },
}


def _of(given: Mapping[str, pa.Array], name: str, user: str) -> pa.Array:
    if name not in given:
        raise ConfigError(
            f"the feature table has no column `{name}`, which `{user}` is derived from. {_nearest(name, list(given))}"
        )
    return given[name]


def _has_prefix(name: str, prefixes: Iterable[str]) -> bool:
    return any(name.startswith(prefix) and len(name) > len(prefix) for prefix in prefixes)


def _preferences(schema: Schema) -> list[str]:
    return [name for windows in preference_columns(schema).values() for name in windows]


def _known(schema: Schema) -> list[str]:
    prefixes = [prefix + "*" for prefix in FEED_PREFIXES + CANDIDATE_PREFIXES]
    return [*FEED_COLUMNS, *CANDIDATE_COLUMNS, *_preferences(schema), *_DERIVED, f"{RANK_PREFIX}*", *prefixes]


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
    return f"{'Nearest' if len(close) <= 3 else 'Known'}: {', '.join(f'`{item}`' for item in close)}."
