"""Exact sums of floats, which therefore depend neither on the order of the rows nor on how workers divide them.

Every finite float64 is a whole number of 2 ** -UNIT, so a sum of floats is one Python integer, and adding the integers of
two workers loses nothing. Only the last division rounds, once and correctly.

    # N rows, G groups
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIT = 1074  # the smallest float64 is 2 ** -1074
DIGIT = 26  # bits that are summed at a time
CHUNK = 1 << 16  # rows at a time: they stay in a core's cache, and sums of their digits far below 2 ** 53


def exact_sum(values_N: NDArray) -> int:
    """The sum of floats in units of 2 ** -UNIT.

    Raises:
        ValueError: one of them is not finite.
    """
    chunks = (values_N[start : start + CHUNK] for start in range(0, len(values_N), CHUNK))
    return sum(int(digit_N.sum()) << place for chunk in chunks for digit_N, place in _digits(chunk))


def exact_sums(values_N: NDArray, group_N: NDArray, groups: int) -> list[int]:
    """As `exact_sum`, of every group on its own.

    Args:
        group_N: from 0 to groups - 1.
    """
    totals = [0] * groups
    for start in range(0, len(values_N), CHUNK):
        own_N = group_N[start : start + CHUNK]
        for digit_N, place in _digits(values_N[start : start + CHUNK]):
            for group, digit in enumerate(np.bincount(own_N, weights=digit_N, minlength=groups).tolist()):
                totals[group] += int(digit) << place
    return totals


@dataclass(frozen=True)
class Mean:
    """A mean that can be added to the mean of other rows.

    Attributes:
        total: the sum in units of 2 ** -UNIT.
        count: what it is divided by.
    """

    total: int = 0
    count: int = 0

    @classmethod
    def of(cls, values_N: NDArray) -> "Mean":
        """The mean of floats or bools."""
        return (
            cls.share(int(values_N.sum()), len(values_N)) if values_N.dtype == bool else cls(exact_sum(values_N), len(values_N))
        )

    @classmethod
    def share(cls, part: int, whole: int) -> "Mean":
        """How many of a whole."""
        return cls(part << UNIT, whole)

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float | None:
        """None where there is nothing to divide by."""
        return self.total / (self.count << UNIT) if self.count else None  # Python rounds the quotient of integers correctly


def _digits(values_N: NDArray) -> Iterator[tuple[NDArray, int]]:
    """Whole numbers below 2 ** DIGIT in size, float64, and a place each: values are the sum of digit 2 ** (place - UNIT)."""
    if not np.isfinite(values_N).all():
        raise ValueError("only finite numbers have an exact sum, and here are others.")
    rest_N = values_N.astype(np.float64)
    exponent = int(np.frexp(np.abs(rest_N).max())[1])  # every value is below 2 ** exponent
    while rest_N.any():
        exponent = max(exponent - DIGIT, -UNIT)
        digit_N = np.trunc(np.ldexp(rest_N, -exponent))
        yield digit_N, exponent + UNIT
        rest_N = rest_N - np.ldexp(digit_N, exponent)  # the bits below, so nothing is rounded
