"""Counting events before a moment, for many owners at once.

An event belongs to an owner (a user, a room, a pair of both) and has a time. Both are packed into one int64, so that
sorting is sorting of integers and "how many events of this owner before that time" is one binary search. All
searches are strict: an event at the very moment asked about is not before it.

    # E events, Q questions, O owners
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.encode.clock import NEVER
from pipelines.runs.order import run_starts


def codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values and, for every value, its place among them (int64).

    Hashes instead of sorting, and looks only once at values that repeat in a run.
    """
    if not len(values):
        return values[:0], np.zeros(0, np.int64)
    starts = run_starts(values)
    heads = values[starts] if len(starts) < len(values) // 2 else values
    encoded = pc.dictionary_encode(pa.array(heads))
    distinct = encoded.dictionary.to_numpy()
    order = np.argsort(distinct)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    code = place[encoded.indices.to_numpy()]
    if heads is not values:
        code = np.repeat(code, np.diff(starts, append=len(values)))
    return distinct[order], code


def find(sorted_values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Place of each wanted value among sorted distinct values, -1 where it is not there."""
    if not len(sorted_values):
        return np.full(len(wanted), -1, np.int64)
    place = np.searchsorted(sorted_values, wanted)
    np.minimum(place, len(sorted_values) - 1, out=place)
    return np.where(sorted_values[place] == wanted, place, -1)


class Moments:
    """Packs (owner, time) into one int64 that sorts by owner, then by time."""

    def __init__(self, owners: int, *times: np.ndarray) -> None:
        """`owners`: how many there are; `times`: all times that will be packed, ms, int64."""
        known = [(int(time.min()), int(time.max())) for time in times if len(time)]
        self.first = min((low for low, _ in known), default=0)
        self.bits = (max((high for _, high in known), default=0) - self.first + 2).bit_length()
        self.owners = owners
        if owners.bit_length() + self.bits > 62:
            raise ValueError(f"{owners} owners over {2**self.bits} ms do not fit into one bucket; use fewer rows_per_bucket.")

    def pack(self, owner: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Times outside of the known ones (a window that reaches back) count as the first or the last moment."""
        return (owner << self.bits) | np.clip(time - self.first, 0, (1 << self.bits) - 1)

    def time(self, key: np.ndarray) -> np.ndarray:
        return (key & ((1 << self.bits) - 1)) + self.first

    def borders(self) -> np.ndarray:
        """The smallest key of every owner and one behind the last."""
        return np.arange(self.owners + 1, dtype=np.int64) << self.bits


class Timeline:
    """Events of many owners in order of owner and time.

    Attributes:
        begins_O: where an owner's events begin; one entry more than owners.
    """

    def __init__(self, moments: Moments, owner_E: np.ndarray, time_E: np.ndarray) -> None:
        self.moments = moments
        self.key_E = np.sort(moments.pack(owner_E, time_E))
        self.begins_O = np.searchsorted(self.key_E, moments.borders())

    def position(self, owner_Q: np.ndarray, time_Q: np.ndarray) -> np.ndarray:
        """How many events of this owner *and of owners before it* stand before the moment."""
        return np.searchsorted(self.key_E, self.moments.pack(owner_Q, time_Q))

    def count(self, owner_Q: np.ndarray, time_Q: np.ndarray, window_ms: int | None = None) -> np.ndarray:
        """Events of the owner in [time - window, time), int64; all before `time` without a window."""
        position_Q = self.position(owner_Q, time_Q)
        if window_ms is None:
            return position_Q - self.begins_O[owner_Q]
        return position_Q - self.position(owner_Q, time_Q - window_ms)

    def last(self, owner_Q: np.ndarray, time_Q: np.ndarray) -> np.ndarray:
        """Time of the owner's last event before the moment; `NEVER` where there is none."""
        position_Q = self.position(owner_Q, time_Q)
        found_Q = position_Q > self.begins_O[owner_Q]
        last_Q = np.full(len(owner_Q), NEVER, np.int64)
        last_Q[found_Q] = self.moments.time(self.key_E[position_Q[found_Q] - 1])
        return last_Q

    def first_times(self) -> np.ndarray:
        """Time of every owner's first event; `NEVER` where there is none."""
        some_O = self.begins_O[1:] > self.begins_O[:-1]
        first = np.full(self.moments.owners, NEVER, np.int64)
        first[some_O] = self.moments.time(self.key_E[self.begins_O[:-1][some_O]])
        return first
