"""What the checks found, as plain values with JSON both ways."""

from dataclasses import field as default
from typing import Literal

from models.config import config

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@config
class Common:
    """A common value: how it is written, and its rows (exact, or too low by at most `ColumnFacts.commonest_short`)."""

    value: str
    rows: int


@config
class ColumnFacts:
    """One column of one table.

    Attributes:
        holds: what the canonical table says it holds (`id`, `time`, `attribute`, ...); none where nothing reads it.
        types: files by type.
        is_read: by the schema; ids, times, actions and values of event tables always.
        rows: of the table; files that lack the column count as missing.
        missing: nulls; NaN stands apart.
        examined: False for lists, structs and other types of which only the nulls are counted.
        distinct: without nulls.
        distinct_is_exact: else it is off by about 0.8 %.
        commonest: the most frequent values.
        commonest_short: how far the counts of `commonest` may be too low.
        low, high: of finite numbers, of times (ms) and of integer ids.
        quantiles: at `QUANTILES`, of finite numbers that are no ids and no times.
        nan, infinite, negative: of numbers, in rows.
        sentinels: rows of values that often stand for "unknown", by value.
        high_without_sentinels: the largest other number.
        midnights, whole_hours: of times, rows at a midnight (of UTC or of the platform), and at a whole hour.
        future: of times, rows later than the check itself.
        implausible: of times, rows outside of `prepare.earliest` and `latest`.
        known_by_day: of event tables, rows with a value by day.
    """

    table: str
    name: str
    holds: str | None
    types: dict[str, int]
    is_read: bool
    rows: int
    missing: int
    examined: bool = True
    distinct: int = 0
    distinct_is_exact: bool = True
    commonest: tuple[Common, ...] = ()
    commonest_short: int = 0
    low: float | None = None
    high: float | None = None
    quantiles: tuple[float, ...] = ()
    nan: int = 0
    infinite: int = 0
    negative: int = 0
    sentinels: dict[str, int] = default(default_factory=dict)
    high_without_sentinels: float | None = None
    midnights: int = 0
    whole_hours: int = 0
    future: int = 0
    implausible: int = 0
    known_by_day: dict[str, int] = default(default_factory=dict)


@config
class DayFacts:
    """One day of the log.

    Attributes:
        split: of the tables that would be prepared; none for days without impressions.
        rows: by table.
        first, last: time of the first and the last row (ms), by table.
        actions: engagements by action; of no more than 64 actions.
        rates: engagements per impression by action, on days with impressions.
        reached: engagements that reach `at_least`, by binary target that asks for it.
        means: mean value of its engagements by value target.
        valued: engagements that those means are over.
        asked: engagements of actions that targets read, of the users compared row by row.
        credited: those of them that answer an impression in time.
        new_users, new_rooms: that no earlier day has shown; by `CheckFacts.ids` from a sample.
    """

    date: str
    split: Literal["train", "valid", "test"] | None
    rows: dict[str, int]
    first: dict[str, int]
    last: dict[str, int]
    actions: dict[str, int]
    rates: dict[str, float]
    reached: dict[str, int]
    means: dict[str, float]
    valued: dict[str, int]
    asked: int
    credited: int
    new_users: int
    new_rooms: int


@config
class Answers:
    """How engagements fit impressions, row by row.

    Attributes:
        user_share: share of the users that were compared; 1 is all of them.
        left_out: users with too many rows to be compared.
        asked: engagements of actions that targets read, on days with impressions.
        credited: those that answer an impression in time.
        early: those that answer an impression which was shown later.
        by_request: share of those asked that have a request id.
        median_seconds: middle time from impression to answer, of those that fit any impression of user and room.
    """

    user_share: float
    left_out: int
    asked: int
    credited: int
    early: int
    by_request: float
    median_seconds: float | None


@config
class Requests:
    """How request ids of impressions are used, among the users compared row by row.

    Attributes:
        rows: impressions with a request id.
        shared_rows: of them, those whose request id several users have.
        shared_ids: how many such ids.
        most_users: users of the request id that has the most of them.
        example: that request id as it is written in the log, or the number it is known by.
        reused_rows: impressions whose user has the same request id more than 6 hours apart.
    """

    rows: int
    shared_rows: int
    shared_ids: int
    most_users: int
    example: str
    reused_rows: int


@config
class Coverage:
    """How many of a log's ids an attribute table knows.

    Attributes:
        table: the attribute table.
        column: where the ids stand in the log.
        id_share: ids looked at; below 1 a sample of them.
        ids, rows: looked at.
        known_ids, known_rows: of them, those with a row in the attribute table.
    """

    table: str
    column: str
    id_share: float
    ids: int
    rows: int
    known_ids: int
    known_rows: int


@config
class Repeats:
    """Rows that are there twice, or ids of an attribute table with several rows.

    Attributes:
        rows: looked at; of users compared row by row, or of a sample of ids.
        repeated: of them, those that repeat an earlier one; of an attribute table, its id and `valid_from`.
        differing: of an attribute table, ids (or ids at a time) whose rows differ in a column that is read.
    """

    table: str
    rows: int
    repeated: int
    differing: int = 0


@config
class Lives:
    """Impressions beside the start and the end of their rooms.

    Attributes:
        rows: impressions of rooms with a known start.
        before: shown before it.
        example: room and moment of the one that was shown the longest before.
        ended_rows: impressions of rooms with a known end.
        after: shown after it.
    """

    rows: int = 0
    before: int = 0
    example: str = ""
    ended_rows: int = 0
    after: int = 0


@config
class Heavy:
    """A user with many rows, in all event tables together; `rows` may be too low by `CheckFacts.users_short`."""

    user: str
    rows: int
    share: float


@config
class Finding:
    """A warning.

    Attributes:
        kind: what was found, one word.
        subject: table, column, day, action or id that it is about.
        told: the finding with its numbers.
        way_out: what to do about it.
    """

    severity: Severity
    kind: str
    subject: str
    told: str
    way_out: str

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.subject}"


@config
class CheckFacts:
    """All that one pass over a log has counted.

    Attributes:
        rows: by table.
        users: distinct users of impressions, engagements and product clicks together.
        heavy: users with the most rows.
        users_short: how far the rows of `heavy` may be too low.
        id_share: share of the users and rooms by which new ones are counted; 1 is all of them.
        rooms_handed_on: rooms of several streamers, as the table `rooms` has it.
        now: when the log was checked (ms).
    """

    rows: dict[str, int]
    users: int
    columns: tuple[ColumnFacts, ...]
    days: tuple[DayFacts, ...]
    heavy: tuple[Heavy, ...]
    users_short: int
    id_share: float
    answers: Answers
    requests: Requests
    coverage: tuple[Coverage, ...]
    repeats: tuple[Repeats, ...]
    lives: Lives
    rooms_handed_on: int
    now: int


@config
class Checked:
    """What `check.json` holds.

    Attributes:
        findings: the heaviest first.
        accepted: names of findings that `check.accepted` takes for granted.
        seconds: for the pass over the log.
    """

    run: str
    facts: CheckFacts
    findings: tuple[Finding, ...]
    accepted: tuple[str, ...]
    seconds: float
