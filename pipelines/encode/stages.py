"""Rule-based stages of users (STAN, Sec. 2.1): medians fitted on training days, applied by the same code everywhere.

A user's rates at a moment are clicks an impression, seconds a click and orders a click, from the running preferences of
the first window. The medians are those over users, each as of the last of its training feeds that has a history; of the
two rates a click, over the users who clicked. Of an even number of users the lower middle one counts. (Users are told
apart within a file of features: one with more feeds than a file may hold counts once for each of its files.)

Rates are compared as keys of a sketch, to less than 1/4096 of themselves, so that medians can be had from counts that
are merged over any number of files, and users at the median fall on one side of it.

# R feeds
"""

from collections.abc import Mapping

import numpy as np

from models.schema import STAGES, Stages
from pipelines.encode.feeds import PREFERENCE_PREFIX
from pipelines.encode.sketch import ValueCounts, number_keys, numbers_at

RATES = ("click", "stay", "order")


def stage_columns(stages: Stages) -> dict[str, str]:
    """The feature column behind each rate: the running preference of its target in the first window."""
    return {rate: PREFERENCE_PREFIX + getattr(stages, rate) for rate in RATES}


def rates_of(preferences: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Clicks an impression, seconds and orders a click, float64 [R]; NaN where there was no impression, or no click.

    Args:
        preferences: by `RATES`, means an impression, float64 [R], NaN without earlier impressions.
    """
    click_R = preferences["click"]
    clicks_R = np.where(click_R > 0, click_R, np.nan)
    return {"click": click_R, "stay": preferences["stay"] / clicks_R, "order": preferences["order"] / clicks_R}


def counted_rates(user_R: np.ndarray, at_R: np.ndarray, preferences: Mapping[str, np.ndarray]) -> dict[str, ValueCounts]:
    """What these feeds contribute to the medians: the rates of every user's last feed with a history."""
    known = np.flatnonzero(~np.isnan(preferences["click"]))
    order = known[np.lexsort((at_R[known], user_R[known]))]
    last = order[np.append(user_R[order][1:] != user_R[order][:-1], True)] if len(order) else order
    rates = rates_of({name: values[last] for name, values in preferences.items()})
    return {name: ValueCounts.of(_keys(values[~np.isnan(values)])) for name, values in rates.items()}


def medians_of(rates: Mapping[str, ValueCounts]) -> dict[str, float]:
    """Median of each rate; 0 where no user has one."""
    middle = lambda counts: float(numbers_at(counts, np.array([(counts.total - 1) // 2]))[0])
    return {name: middle(counts) if counts.total else 0.0 for name, counts in rates.items()}


def stages_of(preferences: Mapping[str, np.ndarray], medians: Mapping[str, float]) -> np.ndarray:
    """Index into `STAGES` of every feed's user, int8 [R]; who has no history is new."""
    above = {name: _above(values, medians[name]) for name, values in rates_of(preferences).items()}
    low = [~above["click"], ~above["stay"], ~above["order"]]
    return np.select(low, [STAGES.index(name) for name in ("new", "wander", "stick")], STAGES.index("loyal")).astype(np.int8)


def _above(values: np.ndarray, median: float) -> np.ndarray:
    known = ~np.isnan(values)
    return known & (_keys(np.where(known, values, 0.0)) > _keys(np.array([median]))[0])


def _keys(rates: np.ndarray) -> np.ndarray:
    """`number_keys` a little further up: 1/2 and what rounding makes of 1/2 are one rate."""
    return number_keys(rates * (1 + 2.0**-16))
