"""When things happen in a simulated world: days, slots of ten minutes, and how busy the platform is."""

import numpy as np

EPOCH_MS = 1_748_822_400_000  # Monday, 2 June 2025, 00:00 UTC: where day 0 of every world begins
DAY_MS, SLOT_MS = 86_400_000, 600_000
SLOTS_A_DAY = DAY_MS // SLOT_MS

_TRAFFIC = np.array([3, 2, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 11, 10, 8, 8, 8, 9, 11, 14, 17, 18, 14, 8], dtype=np.float64)


def traffic(slot: np.ndarray) -> np.ndarray:
    """How busy the platform is at an absolute slot, relative to its mean over the day."""
    return (_TRAFFIC / _TRAFFIC.mean())[(slot % SLOTS_A_DAY) * 24 // SLOTS_A_DAY]


def moments(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random times of a day (ms since its start, int64), dense where the platform is busy."""
    hour = rng.choice(24, count, p=_TRAFFIC / _TRAFFIC.sum())
    return (hour * 3_600_000 + rng.integers(0, 3_600_000, count)).astype(np.int64)


def date_of(day: int) -> str:
    """The date of a world's day, as in the names of its files."""
    return str(np.datetime64(EPOCH_MS + day * DAY_MS, "ms").astype("datetime64[D]"))
