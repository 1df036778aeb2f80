"""Ranking among what was live, as numbers."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from models.config import config, to_dict

Numbers = dict[str, float | None]


@config
class LiveSample:
    """What was ranked.

    Attributes:
        target: whose positives are the entries.
        feeds, entries: how many.
        not_live: entries left out, since the log says that their room was not live.
        most: rooms of a feed that are ranked at most, drawn where more were live.
        live, ranked: rooms that were live, and that are ranked, a feed.
        popularity: the counter by which the floor ranks; None without one.
    """

    target: str
    feeds: int
    entries: int
    not_live: int
    most: int
    live: float
    ranked: float
    popularity: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    def __str__(self) -> str:
        drawn = "" if self.live == self.ranked else f", of which {self.ranked:,.1f} are ranked (at most {self.most:,}, drawn)"
        left_out = f"; {self.not_live:,} entries into rooms that were not live by the log are left out" if self.not_live else ""
        return f"{self.entries:,} entries in {self.feeds:,} feeds, {self.live:,.1f} rooms live{drawn}{left_out}"


@config
class LiveRanks:
    """How far up the entered rooms stand in one order.

    Attributes:
        values: `entries`, and the metrics of `models.metrics.entered`.
        by: the same by level, stage and age of the room, by group.
    """

    values: Numbers
    by: dict[str, dict[str, Numbers]] = field(default_factory=dict)


@config
class LiveRanking:
    """The section of a report: `ranks` by entry, then by order."""

    sample: LiveSample
    ranks: dict[str, dict[str, LiveRanks]]

    def to_dict(self) -> Mapping[str, Any]:
        return to_dict(self)
