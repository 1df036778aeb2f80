"""What discoverability is measured against."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SplitExposure:
    """Who counts as poor in exposure, and how many of them the split's own order and a random one place first.

    Attributes:
        level: the lowest one, whose candidates are poor.
        of: what has a level, room or streamer.
        column: that the level is derived from; None for impressions on training days.
        feeds: with more than k candidates, by k.
        logged, random: `poor@k` and, where it is known, `new@k`; None where no feed is larger than k.
    """

    level: str
    of: str
    column: str | None
    feeds: dict[str, int]
    logged: dict[str, float | None]
    random: dict[str, float | None]
