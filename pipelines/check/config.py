"""What the checks may be told, and how a log is cut into days and splits."""

from datetime import UTC, date, datetime, timedelta

import numpy as np

from models.config import config
from pipelines.encode.clock import DAY_MS, Clock

NO_DAY = -1_000_000  # of rows whose time is missing or implausible


@config
class CheckConfig:
    """From where on something is worth a warning.

    Attributes:
        user_rows: a user with more rows than this, in all event tables together, is named by id.
        user_share: so is one who has at least this share of a table's rows, and ten times as many as the mean user.
        jump: a rate or a mean that differs by this factor from that of the other days is worth one.
        credited: the least share of engagements that should answer an impression.
        covered: the least share of a log's rows whose ids an attribute table should know.
        sample_rows: event rows of which an impression and its engagements are compared one by one; where a log has more,
            they are those of a sample of its users. With it grows the memory: about 0.2 kB a row.
        accepted: warnings that are known and fine, by kind (`missing_day`) or by name (`constant:impressions.position`);
            they are counted, not shown.
    """

    user_rows: int = 100_000
    user_share: float = 0.1
    jump: float = 10.0
    credited: float = 0.5
    covered: float = 0.95
    sample_rows: int = 2_000_000
    accepted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("user_rows", "sample_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"check needs {name} >= 1, got {getattr(self, name)}.")
        for name in ("user_share", "credited", "covered"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"check needs 0 <= {name} <= 1, got {getattr(self, name)}.")
        if self.jump <= 1:
            raise ValueError(f"check needs jump > 1, got {self.jump}.")


@config
class Calendar:
    """How times become days, and days splits; the same as for the tables that are prepared from the log.

    Attributes:
        clock: local time, and the hour at which a day begins.
        valid_days, test_days: the last days with impressions are for testing, those before them for validation.
        earliest, latest: times outside of these dates (UTC) are malformed.
    """

    clock: Clock
    valid_days: int
    test_days: int
    earliest: date
    latest: date

    @property
    def plausible(self) -> tuple[int, int]:
        """First and last plausible time, ms."""
        epoch = date(1970, 1, 1)
        return (self.earliest - epoch).days * DAY_MS, (self.latest - epoch).days * DAY_MS

    def day(self, at: np.ndarray) -> np.ndarray:
        """Days since 1970 of times in ms."""
        return self.clock.day(at)

    def local(self, at: int) -> str:
        """A moment in the platform's time, to the minute."""
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at, hours=self.clock.utc_offset_hours)
        return moment.strftime("%Y-%m-%d %H:%M")


def date_of(day: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days=day))
