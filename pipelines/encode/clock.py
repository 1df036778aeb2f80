"""Times in ms since 1970, and the local time of the platform."""

import numpy as np

from models.config import config

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NEVER = np.iinfo(np.int64).min  # stands for a moment that has not been


@config
class Clock:
    """Local time of the platform: what `hour` and `weekday` mean, and where one day ends and the next begins.

    Attributes:
        utc_offset_hours: of the local time; half hours are allowed (India: 5.5).
        day_starts_hour: local hour at which a day begins; days and splits are cut there. Hours and weekdays are the calendar's.
    """

    utc_offset_hours: float = 0.0
    day_starts_hour: float = 0.0

    def __post_init__(self) -> None:
        if not -14 <= self.utc_offset_hours <= 14:
            raise ValueError(f"a clock needs -14 <= utc_offset_hours <= 14, got {self.utc_offset_hours}.")
        if not 0 <= self.day_starts_hour < 24:
            raise ValueError(f"a clock needs 0 <= day_starts_hour < 24, got {self.day_starts_hour}.")

    def day(self, at: np.ndarray) -> np.ndarray:
        """Days since 1970, int64, of times in ms."""
        return (at + round((self.utc_offset_hours - self.day_starts_hour) * HOUR_MS)) // DAY_MS

    def hour(self, at: np.ndarray) -> np.ndarray:
        """Hour of the day, 0 to 23, of times in ms."""
        return self._local(at) // HOUR_MS % 24

    def weekday(self, at: np.ndarray) -> np.ndarray:
        """Day of the week, 0 = Monday; 1970-01-01 was a Thursday."""
        return (self._local(at) // DAY_MS + 3) % 7

    def _local(self, at: np.ndarray) -> np.ndarray:
        return at + round(self.utc_offset_hours * HOUR_MS)


def hours_since(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Hours from `then` to `now`, float32; NaN where `then` is `NEVER` or not yet."""
    hours = ((now - then) / HOUR_MS).astype(np.float32)
    hours[(then == NEVER) | (then > now)] = np.nan
    return hours
