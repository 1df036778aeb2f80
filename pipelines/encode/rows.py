"""From a value to its table row: by vocabulary, by hash, by bin. Row 0 of every table stands for unknown and missing."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from models.hashing import splitmix64

_DENSE_SPAN = 1 << 22  # ids that span no more than this are looked up in an array of that size
_MANY = 1 << 16  # from so many values on it pays to look every distinct one up only once


@dataclass(frozen=True)
class VocabularyRows:
    """Row of a value: its position among the kept values plus one; 0 for every other."""

    values: np.ndarray  # kept, ascending, int64

    @property
    def size(self) -> int:
        return len(self.values) + 1

    def rows(self, ids: np.ndarray) -> np.ndarray:
        if not len(self.values):
            return np.zeros(len(ids), np.int32)
        if self._dense is not None:
            place = (ids - self.values[0]).view(np.uint64)  # what lies before the first value wraps to the far end
            return self._dense[np.minimum(place, np.uint64(len(self._dense) - 1))]
        if len(ids) >= _MANY:
            encoded = pa.array(ids).dictionary_encode()
            return self._searched(encoded.dictionary.to_numpy())[encoded.indices.to_numpy()]
        return self._searched(ids)

    def _searched(self, ids: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.values, ids)
        place[place == len(self.values)] = 0
        return np.where(self.values[place] == ids, place + 1, 0).astype(np.int32)

    @cached_property
    def _dense(self) -> np.ndarray | None:
        span = int(self.values[-1]) - int(self.values[0]) + 1
        if span > max(_DENSE_SPAN, 8 * len(self.values)):
            return None
        rows = np.zeros(span + 1, np.int32)  # one more: row 0 for all ids outside
        rows[self.values - self.values[0]] = np.arange(1, self.size)
        return rows


@dataclass(frozen=True)
class HashRows:
    """Row of a value: SplitMix64 (Steele, Lea, Flood 2014, finaliser of Stafford's variant 13) modulo buckets - 1, plus 1."""

    size: int

    def rows(self, ids: np.ndarray) -> np.ndarray:
        return (splitmix64(ids) % np.uint64(self.size - 1)).astype(np.int32) + np.int32(1)


@dataclass(frozen=True)
class BinRows:
    """Row of a number: 1 below the first edge, one more with every edge reached."""

    edges: np.ndarray  # ascending, float64

    @property
    def size(self) -> int:
        return len(self.edges) + 2

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        rows = np.searchsorted(self.edges, numbers, side="right").astype(np.int32) + np.int32(1)
        rows[np.isnan(numbers)] = 0
        return rows


TableRows = VocabularyRows | HashRows | BinRows
