"""What is remembered of a stream of values in bounded memory: distinct values, common ones, quantiles, ids."""

import numpy as np

from models.hashing import splitmix64
from pipelines.encode.sketch import ValueCounts, number_keys, quantiles, smallest_of

_BITS = 14
_REGISTERS = 1 << _BITS
_REST = np.uint64((1 << (64 - _BITS)) - 1)


class Distinct:
    """About how many distinct values there were (HyperLogLog: Flajolet, Fusy, Gandouet, Meunier 2007).

    16 kB, a standard error of 0.8 %; by linear counting, so nearly exact, up to some ten thousand values.

    >>> seen = Distinct()
    >>> seen.add(np.arange(5000) % 1000)
    >>> 990 < seen.count < 1010
    True
    """

    def __init__(self) -> None:
        self._ranks = np.zeros(_REGISTERS, np.uint8)

    def add(self, keys: np.ndarray) -> None:
        """Takes in values, int64."""
        hashes = splitmix64(keys)
        rest = (hashes & _REST).astype(np.float64)  # 50 bits, exact
        rank = (64 - _BITS + 1 - np.frexp(rest)[1]).astype(np.uint8)  # zeros before the first one bit, plus one
        np.maximum.at(self._ranks, (hashes >> np.uint64(64 - _BITS)).astype(np.int64), rank)

    @property
    def count(self) -> int:
        empty = int((self._ranks == 0).sum())
        correction = 0.7213 / (1 + 1.079 / _REGISTERS)
        estimate = correction * _REGISTERS**2 / np.ldexp(1.0, -self._ranks.astype(np.int32)).sum()
        if estimate <= 2.5 * _REGISTERS and empty:
            estimate = _REGISTERS * np.log(_REGISTERS / empty)
        return round(float(estimate))


class Commonest:
    """ValueCounts of the commonest values (Misra & Gries 1982; merged as by Agarwal et al. 2012).

    A count is never too high, and too low by at most `short`, which is below the number of rows divided by `capacity`.
    While there are at most `capacity` distinct values, all counts are exact.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._counts = ValueCounts(np.zeros(0, np.int64), np.zeros(0, np.int64))
        self.short = 0

    def add(self, counts: ValueCounts) -> None:
        merged = ValueCounts.merged([self._counts, counts])
        over = len(merged.values) - self._capacity
        if over > 0:
            cut = int(np.partition(merged.counts, over - 1)[over - 1])  # the largest count that finds no room
            left = merged.counts > cut
            merged = ValueCounts(merged.values[left], merged.counts[left] - cut)
            self.short += cut
        self._counts = merged

    @property
    def distinct(self) -> int | None:
        """How many values there were; None where some have been forgotten."""
        return None if self.short else len(self._counts.values)

    def top(self, most: int) -> list[tuple[int, int]]:
        """The commonest values with their counts, the commonest first; of equal ones the smallest."""
        counts = self._counts.counts
        least = np.partition(counts, -most)[-most] if len(counts) > most > 0 else 0
        chosen = np.flatnonzero(counts >= least)
        order = chosen[np.argsort(-counts[chosen], kind="stable")][:most]
        return [(int(self._counts.values[place]), int(counts[place])) for place in order]

    def above(self, least: int) -> list[tuple[int, int]]:
        """Values with more rows than `least`, the commonest first."""
        return [(value, count) for value, count in self.top(int((self._counts.counts > least).sum())) if count > least]


class Quantiles:
    """Numbers by size, to less than 1/4096 of themselves; coarser where they spread over more than 65,536 such steps."""

    _MOST = 1 << 16

    def __init__(self) -> None:
        self._counts = ValueCounts(np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._dropped = 0

    def add(self, numbers: np.ndarray, counts: np.ndarray) -> None:
        """Takes in distinct finite numbers with their counts."""
        keys = number_keys(numbers) >> self._dropped
        self._counts = _merged(self._counts, ValueCounts(keys, counts))
        while len(self._counts.values) > self._MOST:
            self._dropped += 1
            self._counts = _merged(ValueCounts(self._counts.values >> 1, self._counts.counts))

    def at(self, shares: tuple[float, ...]) -> tuple[float, ...]:
        """Quantiles at these shares; none where there was no number."""
        if not self._counts.total:
            return ()
        exact = ValueCounts(self._counts.values << self._dropped, self._counts.counts)
        with np.errstate(over="ignore", invalid="ignore"):
            found = quantiles(exact, np.array(shares))
        if not np.isfinite(found).all():  # the gap between two numbers is larger than a float
            places = np.rint(np.array(shares) * (exact.total - 1)).astype(np.int64)
            found = smallest_of(exact.values[np.searchsorted(np.cumsum(exact.counts), places, side="right")])
        return tuple(float(number) for number in found)


def _merged(*parts: ValueCounts) -> ValueCounts:
    return ValueCounts.merged(parts)


class Ids:
    """Distinct ids, each with its rows and one more number; beyond `most` ids those of a sample by hash, halved as needed.

    Attributes:
        level: one of `2 ** level` ids is kept.
    """

    def __init__(self, most: int, fold: np.ufunc = np.minimum) -> None:
        """`fold` says what is kept of the further numbers of an id: `np.minimum` or `np.maximum`."""
        self._most, self._fold = most, fold
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._unmerged = 0
        self._known = _no_ids()
        self.level = 0

    def add(self, ids: np.ndarray, numbers: np.ndarray) -> None:
        """Takes in a row each: its id, and a number (a day, a time), int64."""
        if self.level:
            chosen = sampled(ids, self.level)
            ids, numbers = ids[chosen], numbers[chosen]
        self._waiting.append(self._folded(ids, numbers, np.ones(len(ids), np.int64)))
        self._unmerged += len(self._waiting[-1][0])
        if self._unmerged > self._most:
            self._merge()

    def _folded(self, ids: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not len(ids):
            return _no_ids()
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        return ids[starts], self._fold.reduceat(numbers[order], starts), np.add.reduceat(rows[order], starts)

    def _merge(self) -> None:
        parts = [self._known, *self._waiting]
        self._known = self._folded(*(np.concatenate([part[place] for part in parts]) for place in range(3)))
        self._waiting, self._unmerged = [], 0
        while len(self._known[0]) > self._most:
            self.level += 1
            self._known = _thinned(self._known, self.level)

    def known(self, level: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, ascending, their numbers and rows; of a sample of this level, or of the own one where that is thinner."""
        if self._waiting:
            self._merge()
        return _thinned(self._known, level) if level > self.level else self._known


def _no_ids() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)


def _thinned(known: tuple[np.ndarray, np.ndarray, np.ndarray], level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chosen = sampled(known[0], level)
    return known[0][chosen], known[1][chosen], known[2][chosen]


def sampled(ids: np.ndarray, level: int) -> np.ndarray:
    """Which ids belong to the sample of one in `2 ** level`; a thinner sample is part of a thicker one."""
    if not level:
        return np.ones(len(ids), bool)
    return splitmix64(ids) >> np.uint64(64 - level) == 0
