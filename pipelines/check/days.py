"""What happens on each day: rows, first and last moment, actions and their values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.schema import Schema
from pipelines.check.columns import counted
from pipelines.check.config import NO_DAY
from pipelines.logs.values import LARGEST

_MOST_ACTIONS = 64
OTHERS = "(others)"


class Actions:
    """Codes of actions in order of their first appearance; those beyond the first 64 share one."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def code(self, name: str | None) -> int:
        """-1 for a missing action."""
        if name is None:
            return -1
        if name not in self.names:
            if len(self.names) >= _MOST_ACTIONS:
                name = OTHERS
            if name not in self.names:
                self.names.append(name)
        return self.names.index(name)


@dataclass
class DayTally:
    """Counts of one day.

    Attributes:
        rows, first, last: by table.
        actions: engagements by code of the action.
        reached: engagements by binary target with `at_least`.
        sums, valued: sum and number of values by value target; of those that measure something.
    """

    rows: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    actions: dict[int, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    valued: dict[str, int] = field(default_factory=dict)


class Days:
    """All days of a log by their number."""

    def __init__(self, schema: Schema, actions: Actions) -> None:
        self.tallies: dict[int, DayTally] = {}
        self._actions = actions
        self._reaching = [target for target in schema.targets if target.at_least is not None]
        self._values = [target for target in schema.targets if not target.is_binary]

    def add(self, table: str, day: np.ndarray, at: np.ndarray) -> None:
        """Takes in rows of a table; days `NO_DAY` do not count."""
        order = None
        for key, rows in counted(day):
            if key == NO_DAY:
                continue
            if rows == len(day):
                moments = at
            elif order is None and rows > len(day) // 8:
                moments = at[day == key]
            else:  # many days: in order of time, so of days
                order = np.argsort(day, kind="stable") if order is None else order
                left, right = np.searchsorted(day, [key, key + 1], sorter=order)
                moments = at[order[left:right]]
            tally = self.tallies.setdefault(key, DayTally())
            low, high = int(moments.min()), int(moments.max())
            tally.rows[table] = tally.rows.get(table, 0) + rows
            tally.first[table] = min(tally.first.get(table, low), low)
            tally.last[table] = max(tally.last.get(table, high), high)

    def add_actions(self, day: np.ndarray, action: np.ndarray, value: np.ndarray) -> None:
        """Takes in engagements.

        Args:
            action: codes.
            value: NaN where there is none.
        """
        for code, key, rows in _pairs(action, day):
            actions = self.tallies[key].actions
            actions[code] = actions.get(code, 0) + rows
        for target in self._reaching:
            mine = (action == self._actions.code(target.action)) & (value >= target.at_least)
            for key, rows in counted(day[mine]):
                if key != NO_DAY:
                    reached = self.tallies[key].reached
                    reached[target.name] = reached.get(target.name, 0) + rows
        for target in self._values:
            mine = (action == self._actions.code(target.action)) & (np.abs(value) <= LARGEST) & (day != NO_DAY)
            days, place = np.unique(day[mine], return_inverse=True)
            sums, counts = np.bincount(place, value[mine]).tolist(), np.bincount(place).tolist()
            for key, total, rows in zip(days.tolist(), sums, counts, strict=True):
                tally = self.tallies[key]
                tally.sums[target.name] = tally.sums.get(target.name, 0.0) + total
                tally.valued[target.name] = tally.valued.get(target.name, 0) + rows


def _pairs(action: np.ndarray, day: np.ndarray) -> list[tuple[int, int, int]]:
    """Code, day and rows of all pairs that occur, but for missing ones."""
    chosen = (action >= 0) & (day != NO_DAY)
    pairs, rows = np.unique(day[chosen] * (_MOST_ACTIONS + 1) + action[chosen], return_counts=True)
    codes, days = pairs % (_MOST_ACTIONS + 1), pairs // (_MOST_ACTIONS + 1)
    return list(zip(codes.tolist(), days.tolist(), rows.tolist(), strict=True))


def rates(tally: DayTally, names: list[str]) -> Mapping[str, float]:
    """Engagements per impression by action; none on days without impressions."""
    shown = tally.rows.get("impressions", 0)
    return {names[code]: rows / shown for code, rows in sorted(tally.actions.items())} if shown else {}
