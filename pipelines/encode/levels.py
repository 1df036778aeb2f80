"""Levels of candidates: cuts on a measure such that the training days' impressions are shared out as declared."""

import numpy as np

from models.schema import Levels


def level_cuts(values: np.ndarray, impressions: np.ndarray, levels: Levels) -> np.ndarray:
    """Smallest measure of every level but the first, float64, ascending; infinite where a level stays empty.

    Owners of one value share a level: the one in which the middle of their impressions falls when all impressions
    are laid out by ascending value and divided by the declared shares.

    Args:
        values: distinct measures, ascending.
        impressions: impressions on training days of all owners with that measure.

    >>> level_cuts(np.array([1.0, 5.0, 9.0]), np.array([20, 30, 50]), Levels())
    array([5., 9.])
    """
    cuts = np.full(len(levels.names) - 1, np.inf)
    reached = np.cumsum(impressions)
    middle = reached - impressions / 2
    bounds = np.cumsum(levels.shares)[:-1] * (reached[-1] if len(reached) else 0)
    level = np.searchsorted(bounds, middle, side="right")
    for number in range(1, len(levels.names)):
        at_least = np.flatnonzero(level >= number)
        if len(at_least):
            cuts[number - 1] = values[at_least[0]]
    return cuts


def level_of(measure: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Level of every measure, int8; a missing one (NaN) belongs to the first level."""
    return np.where(np.isnan(measure), 0, np.searchsorted(cuts, measure, side="right")).astype(np.int8)
