"""Columns that are computed from others just before encoding.

Derived columns (hours, smoothed rates, ranks) follow from base columns of the same row alone. One function derives them
offline and in the endpoint, so both see the same numbers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models import catalogue
from models.catalogue import HOURS_AGO, Column, Derived
from models.config import ConfigError
from models.schema import Schema
from pipelines.encode.arrays import arrays_of, flat, floats, in_lists, lengths, nullable
from pipelines.encode.clock import HOUR_MS, Clock
from pipelines.encode.columns import derived_columns, nearest

PRIOR_IMPRESSIONS = 20.0  # how many impressions at the training days' entry rate a smoothed rate starts with


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

    def floats_of(name: str, user: str) -> np.ndarray:
        try:
            return floats(flat(_of(arrays, name, user)))
        except ValueError as error:
            raise ConfigError(f"column `{name}`, needed for `{user}`, {error}") from None

    known = Inputs(
        at_R=lambda user: _of(arrays, "at", user).to_numpy(),
        lengths_R=lengths(_of(arrays, "room_id", "every feed table")),
        floats=floats_of,
        entry_rate=entry_rate,
        clock=clock,
    )
    for name in names:
        arrays[name] = _array(name, arrays, known)
    return arrays


def _array(name: str, arrays: Mapping[str, pa.Array], known: "Inputs") -> pa.Array:
    column = catalogue.find(name)
    if column is not None and column.is_derived:
        values = derived(column, known)
        return in_lists(values, known.lengths_R) if column.level == "candidate" else nullable(values)
    history, _, entry = name.rpartition(".")
    if entry != HOURS_AGO.name:
        raise ConfigError(f"`{name}` is not a derived column. {nearest(name, _derived_names())}")
    entries = _of(arrays, f"{history}.at", name)
    count = lengths(entries)
    return in_lists(hours_ago(flat(entries).to_numpy(), known.at_R(name), count), count)


@dataclass(frozen=True)
class Inputs:
    """What columns of some feeds are derived from.

    Attributes:
        at_R: moments of the feeds, for the column that is named; int64.
        lengths_R: candidates of every feed, int64.
        floats: values of the first column, as float64 with NaN where missing, for the second, which is named if they are none.
    """

    at_R: Callable[[str], np.ndarray]
    lengths_R: np.ndarray
    floats: Callable[[str, str], np.ndarray]
    entry_rate: float
    clock: Clock


def derived(column: Column, known: Inputs) -> np.ndarray:
    """A derived column of feeds [R] or of their candidates [N]; float64 with NaN where missing, or int64."""
    assert isinstance(column.how, Derived)
    return _COMPUTE[column.how.by](column, known)


def hours_ago(at_E: np.ndarray, at_R: np.ndarray, lengths_R: np.ndarray) -> np.ndarray:
    """Hours from every entry of every feed's history to the feed, float64 [E]."""
    return (np.repeat(at_R, lengths_R) - at_E) / HOUR_MS


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


def _hour(column: Column, known: Inputs) -> np.ndarray:
    return known.clock.hour(known.at_R(column.name))


def _weekday(column: Column, known: Inputs) -> np.ndarray:
    return known.clock.weekday(known.at_R(column.name))


def _feed_size(column: Column, known: Inputs) -> np.ndarray:
    return known.lengths_R.astype(np.int64)


def _rate(column: Column, known: Inputs) -> np.ndarray:
    entries, impressions = (known.floats(name, column.name) for name in column.inputs)
    return (entries + PRIOR_IMPRESSIONS * known.entry_rate) / (impressions + PRIOR_IMPRESSIONS)


def _rank(column: Column, known: Inputs) -> np.ndarray:
    (ranked,) = column.inputs
    return feed_rank(known.floats(ranked, column.name), known.lengths_R)


_COMPUTE: Mapping[str, Callable[[Column, Inputs], np.ndarray]] = {
    "hour": _hour,
    "weekday": _weekday,
    "feed_size": _feed_size,
    "rate": _rate,
    "rank": _rank,
}


def _derived_names() -> list[str]:
    return [column.name for column in catalogue.CATALOGUE.columns if column.is_derived]


def _of(given: Mapping[str, pa.Array], name: str, user: str) -> pa.Array:
    if name not in given:
        raise ConfigError(
            f"the feature table has no column `{name}`, which `{user}` is derived from. {nearest(name, list(given))}"
        )
    return given[name]
