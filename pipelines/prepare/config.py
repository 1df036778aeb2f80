"""What the prepare step may be told, beside the schema."""

from dataclasses import field as default
from datetime import UTC, date, datetime
from typing import Literal

from models.config import config
from pipelines.encode.clock import DAY_MS, Clock

_MOST_DAYS = 36_525  # a century
_MOST_ROWS = 2**31 - 1  # what an index of 32 bits reaches


@config
class PrepareConfig:
    """How logs become feeds.

    A feed is one user, one request id and one stretch of time: rows of a request further apart than the feed gap are feeds
    of their own. A request id that names nothing (an empty text, 0 and all zeros, anything negative, `null`, `none`, `nan`,
    `undefined`, `unknown` and the like) counts as missing. What was delivered twice counts once (see
    `pipelines.prepare.deliveries`).

    Attributes:
        clock: local time of the platform, and the hour at which a day begins.
        valid_days, test_days: the log's last days are for testing, those before them for validation, all others for training.
        feed_gap_seconds: impressions of a request, or without request id, are of one feed while each follows within this gap.
        feed_most: a feed without request id has at most this many candidates; further ones open the next feed.
        quarantine_limit: the job stops where more than this share of a table's rows is malformed, and before that where more of
            the rows of a file of a public data set, or of one's own CSV files, make no sense. What was delivered twice goes to
            quarantine too, and is not counted here.
        until: the moment up to which the log is known (UTC where no offset is given). Rows that arrived then or later are left
            out, as if they were not there yet; what the log is silent of before it did not happen. None for the moment after
            the last row.
        open_labels: what becomes of labels whose window (the target's `attribution_seconds` from the impression on) has not
            closed by then. `mask` leaves them out of losses, metrics and baselines, target by target, also those that are
            positive already; `as_is` takes what is known so far for the label.
        warmup_days: the first days of the log that only fill histories and counters; they are in no split.
        earliest, latest: rows with a time outside of these dates (UTC) are malformed.
        extra_columns: base columns to write beside those that the schema needs.
        user_most: rows that one user may have, of all event tables together. What a user does from the moment on at which
            they have had so many is left out, which is told: it is a bot, or many people under one id. With it grows the memory
            of the task that holds such a user.
        rows_per_chunk: rows of a log file that one cleaning task reads at a time.
        rows_per_bucket: log rows (of all kinds) that one task after cleaning works on; with it grows a task's memory.
        feeds_per_file: most feeds in one file of the result; with it grows a task's memory as well.
        row_group_feeds: feeds in one Parquet row group of the encoded tables.
        parallel: `ray` spreads tasks over the cluster, `none` runs them one after the other in this process; for conversions of
            logs too.
        cpus_per_task: what a task reserves on the cluster.
    """

    clock: Clock = default(default_factory=Clock)
    valid_days: int = 1
    test_days: int = 1
    feed_gap_seconds: float = 60.0
    feed_most: int = 500
    quarantine_limit: float = 0.01
    until: datetime | None = None
    open_labels: Literal["mask", "as_is"] = "mask"
    warmup_days: int = 0
    earliest: date = date(2000, 1, 1)
    latest: date = date(2100, 1, 1)
    extra_columns: tuple[str, ...] = ()
    user_most: int = 200_000
    rows_per_chunk: int = 500_000
    rows_per_bucket: int = 500_000
    feeds_per_file: int = 16_384
    row_group_feeds: int = 2048
    parallel: Literal["ray", "none"] = "ray"
    cpus_per_task: float = 1.0

    def __post_init__(self) -> None:
        sizes = ("rows_per_chunk", "rows_per_bucket", "feeds_per_file", "row_group_feeds", "cpus_per_task")
        for name in ("valid_days", "feed_most", "user_most", *sizes):
            if getattr(self, name) <= 0:
                raise ValueError(f"prepare needs {name} > 0, got {getattr(self, name)}.")
        for name in ("test_days", "warmup_days", "feed_gap_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"prepare needs {name} >= 0, got {getattr(self, name)}.")
        most = {"valid_days": _MOST_DAYS, "test_days": _MOST_DAYS, **dict.fromkeys(sizes, _MOST_ROWS)}
        for name, largest in most.items():
            if getattr(self, name) > largest:
                raise ValueError(f"prepare needs {name} <= {largest:,}, got {getattr(self, name)}.")
        if not 0 <= self.quarantine_limit <= 1:
            raise ValueError(f"prepare needs 0 <= quarantine_limit <= 1, got {self.quarantine_limit}.")
        if self.earliest >= self.latest:
            raise ValueError(f"prepare needs earliest < latest, got {self.earliest}, {self.latest}.")

    @property
    def gap_ms(self) -> int:
        return round(self.feed_gap_seconds * 1000)

    @property
    def until_ms(self) -> int | None:
        if self.until is None:
            return None
        moment = self.until if self.until.tzinfo is not None else self.until.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)

    @property
    def plausible(self) -> tuple[int, int]:
        """First and last plausible time, ms."""
        epoch = date(1970, 1, 1)
        return (self.earliest - epoch).days * DAY_MS, (self.latest - epoch).days * DAY_MS
