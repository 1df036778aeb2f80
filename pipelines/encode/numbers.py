"""From numbers as they were measured to numbers as a model reads them, on arrays of any shape; NaN stands for missing."""

import numpy as np

from pipelines.logs.values import LARGEST

FARTHEST = 2.0**16  # deviations from the mean; among n training values none is farther than the square root of n


def measured(numbers: np.ndarray) -> np.ndarray:
    """Infinite numbers and those that float32 does not hold measure nothing, and are missing."""
    large = np.abs(numbers) > LARGEST
    return np.where(large, np.nan, numbers) if large.any() else numbers


def logarithm(numbers: np.ndarray) -> np.ndarray:
    """log(1 + x); what is below zero is missing."""
    if (numbers < 0).any():
        numbers = np.where(numbers < 0, np.nan, numbers)
    return np.log1p(numbers)


def standard(
    numbers: np.ndarray, mean: float | np.ndarray, deviation: float | np.ndarray, limit: float | np.ndarray
) -> np.ndarray:
    """float32, 0 where missing. Wild numbers are missing: `limit` or more, or `FARTHEST` deviations from the mean."""
    places = (numbers - mean) / deviation
    known = np.abs(places) < FARTHEST  # not where NaN
    known &= np.abs(numbers) < limit
    return np.where(known, places, 0.0).astype(np.float32)
