"""Counts of values that can be merged over any number of files, in any order, with the same result."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MANTISSA_BITS = 12
_SHIFT = np.int64(52 - _MANTISSA_BITS)
_ALL_BUT_SIGN = np.int64(0x7FFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True)
class ValueCounts:
    """How often every value was seen.

    Attributes:
        values: distinct, ascending, int64.
        counts: of the same length, int64.
    """

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "ValueCounts":
        counted = pc.value_counts(pa.array(values, pa.int64()))
        distinct, counts = (counted.field(name).to_numpy() for name in ("values", "counts"))
        order = np.argsort(distinct)
        return cls(distinct[order], counts[order].astype(np.int64))

    @classmethod
    def merged(cls, parts: Sequence["ValueCounts"]) -> "ValueCounts":
        values = np.concatenate([part.values for part in parts])
        order = np.argsort(values, kind="stable")
        values, counts = values[order], np.concatenate([part.counts for part in parts])[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.zeros(0, np.int64)
        return cls(values[starts], np.add.reduceat(counts, starts) if len(starts) else counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())


def number_keys(values: np.ndarray) -> np.ndarray:
    """Maps float64 to int64 in the same order, so that close numbers share a key and `ValueCounts` of keys stay small.

    A key is the number cut to 12 bits behind the leading one: integers from 0 to 8192 are exact, all else is off by less
    than 1/4096 of itself. A factor of two in range costs at most 4096 keys. NaN has no key and must not be passed.
    """
    bits = (values + 0.0).view(np.int64)  # + 0.0 makes one zero of two
    return (bits ^ (bits >> np.int64(63) & _ALL_BUT_SIGN)) >> _SHIFT


def smallest_of(keys: np.ndarray) -> np.ndarray:
    """The smallest number with each key: `x >= smallest_of(key)` exactly if `number_keys(x) >= key`."""
    bits = keys << _SHIFT
    return (bits ^ (bits >> np.int64(63) & _ALL_BUT_SIGN)).view(np.float64)


def numbers_at(counts: ValueCounts, places: np.ndarray) -> np.ndarray:
    """The numbers at these places (from 0) when all that `counts` of `number_keys` hold are laid out by size."""
    return smallest_of(counts.values[np.searchsorted(np.cumsum(counts.counts), places, side="right")])


def quantiles(counts: ValueCounts, shares: np.ndarray) -> np.ndarray:
    """Quantiles of the numbers that `counts` of `number_keys` hold, interpolated linearly as `numpy.quantile` does.

    >>> quantiles(ValueCounts.of(number_keys(np.array([1.0, 2.0, 4.0]))), np.array([0.0, 0.5, 0.75, 1.0]))
    array([1., 2., 3., 4.])
    """
    place = shares * (counts.total - 1)
    below, above = (numbers_at(counts, whole(place).astype(np.int64)) for whole in (np.floor, np.ceil))
    return below + (place - np.floor(place)) * (above - below)


def equal_frequency_edges(values: np.ndarray, counts: np.ndarray, bins: int) -> np.ndarray:
    """Where to cut ascending `values` into at most `bins` bins of about the same count; bin i starts at edge i - 1.

    A value heavier than a bin gets one for itself, and the rest is shared among the bins that are left.

    >>> equal_frequency_edges(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 1, 1, 1]), 2)
    array([3.])
    >>> equal_frequency_edges(np.array([0.0, 1.0, 2.0]), np.array([90, 5, 5]), 3)
    array([1., 2.])
    """
    reached = np.cumsum(counts)
    edges, start, done = [], 0, 0
    for left in range(bins, 1, -1):
        if start >= len(values):
            break
        quota = (reached[-1] - done) / left
        end = int(np.searchsorted(reached, done + quota)) + 1  # the bin holds values[start:end]
        if end >= len(values):
            break
        edges.append(values[end])
        start, done = end, reached[end - 1]
    return np.array(edges, np.float64)
