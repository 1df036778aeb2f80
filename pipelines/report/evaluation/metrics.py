"""The result of an evaluation: how good predictions are, target by target, as a table or a file holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from models.config import from_dict, to_dict
from models.metrics.names import value_of

Values = Mapping[str, float | None]
"""Numbers by name; None where one is not defined."""


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """Mean prediction and mean label of the candidates in one bin of predictions."""

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A sign that predictions cannot be right, with the targets that show it."""

    kind: str
    targets: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True)
class ActivityGroup:
    """How many users are in a third by activity, and the fewest and most impressions that one of them was shown."""

    users: int
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Into which thirds the users of a split fall, by the impressions they were shown in so many `days` before."""

    days: float
    groups: dict[str, ActivityGroup]


@dataclass(frozen=True, kw_only=True)
class ByGroup:
    """Numbers of candidates divided into groups.

    Attributes:
        groups: by what was computed and divided by (`auc_by_level`, `rows_by_activity`), then by group.
        histories: by what was computed (`auc_by_history`), by history, then by how much of it was there.
    """

    groups: Mapping[str, Values] = field(default_factory=dict)
    histories: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TargetMetrics:
    """The metrics of one target.

    Attributes:
        rows: candidates.
        mean_label: of a binary target the share of positives.
        positives: None for a value.
        untaught: whether its weight was 0 in training, so that it follows from other targets alone.
        values: by name, those that `models.metrics` names and the shares of the feeds and users that they could be computed on.
        by: the same in groups of candidates.
        calibration_curve: from the smallest prediction up.
    """

    kind: Literal["binary", "value"]
    rows: int
    mean_label: float
    positives: int | None = None
    untaught: bool = False
    values: Values = field(default_factory=dict)
    by: ByGroup = field(default_factory=ByGroup)
    calibration_curve: tuple[CalibrationPoint, ...] = ()

    @property
    def is_binary(self) -> bool:
        return self.kind == "binary"

    def group_values(self, name: str) -> Values:
        """By group; nothing where this was not computed."""
        return self.by.groups.get(name, {})

    def with_more(self, by: ByGroup | None = None, values: Values | None = None) -> "TargetMetrics":
        """With further numbers, of groups and of all candidates."""
        more = by or ByGroup()
        return replace(
            self,
            values={**self.values, **(values or {})},
            by=ByGroup(
                groups={**self.by.groups, **more.groups},
                histories={**self.by.histories, **more.histories},
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """As `models.metrics.Evaluation` gives it: all numbers by name on one level, so that a path such as
        `click.auc_by_level.tail` leads to one."""
        counts: dict[str, Any] = {"mean": self.mean_label}
        if self.is_binary:
            counts = {"positives": self.positives, "positive_rate": self.mean_label}
        curve = [to_dict(point) for point in self.calibration_curve]
        numbers = {**self.values, **self.by.groups, **self.by.histories}
        marked = {"untaught": True} if self.untaught else {}
        return {"kind": self.kind, "rows": self.rows, **marked, **counts, **numbers, "calibration_curve": curve}

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> "TargetMetrics":
        plain = dict(spelling)
        kind, rows = plain.pop("kind"), plain.pop("rows")
        curve, untaught = plain.pop("calibration_curve", ()), plain.pop("untaught", False)
        nested = {name: plain.pop(name) for name in list(plain) if isinstance(plain[name], Mapping)}
        return cls(
            kind=kind,
            rows=rows,
            untaught=untaught,
            positives=plain.pop("positives") if kind == "binary" else None,
            mean_label=plain.pop("positive_rate" if kind == "binary" else "mean"),
            values=plain,
            by=ByGroup(
                groups={name: values for name, values in nested.items() if not name.endswith("_by_history")},
                histories={name: values for name, values in nested.items() if name.endswith("_by_history")},
            ),
            calibration_curve=tuple(CalibrationPoint(**point) for point in curve),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """How good the predictions of one model or baseline are.

    Attributes:
        rows, feeds, users: that the metrics were computed on.
        user_share: the part of all users that these are.
        targets: by name, those that were predicted.
        mean: of every metric over the binary targets.
        funnel: by `child<=parent`, the share of candidates whose predictions break it.
        funnel_labels: the share whose labels do.
        activity: the thirds of users that `*_by_activity` refers to; None where it is not known what users had been shown.
        fused: shares of candidates of little exposure at the top, in the order of the fused score.
    """

    rows: int
    feeds: int
    users: int
    user_share: float
    targets: dict[str, TargetMetrics]
    mean: Values = field(default_factory=dict)
    funnel: dict[str, float] = field(default_factory=dict)
    funnel_labels: dict[str, float] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()
    activity: Activity | None = None
    fused: Values = field(default_factory=dict)

    @cached_property
    def _spelled(self) -> dict[str, Any]:
        return self.to_dict()

    def value(self, path: str) -> float | None:
        """The metric at `target.metric`, `mean.metric`, `fused.metric`, `target.auc_by_level.level` or
        `target.auc_by_history.history.group`; None where it is not defined.

        Raises:
            KeyError: there is none, naming what there is instead.
        """
        return value_of(self._spelled, path)

    def find(self, path: str) -> float | None:
        """As `value`, but None also where there is no such metric: the truth, say, predicts no values."""
        try:
            return self.value(path)
        except KeyError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `metrics.json` holds them; `activity` and `fused` only where they are known."""
        return {
            "rows": self.rows,
            "feeds": self.feeds,
            "users": self.users,
            "user_share": self.user_share,
            "targets": {name: metrics.to_dict() for name, metrics in self.targets.items()},
            "mean": dict(self.mean),
            "funnel": self.funnel,
            "funnel_labels": self.funnel_labels,
            "alarms": [to_dict(alarm) for alarm in self.alarms],
            **({} if self.activity is None else {"activity": to_dict(self.activity)}),
            **({"fused": dict(self.fused)} if self.fused else {}),
        }

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> "EvaluationResult":
        """Reads what `to_dict` and `models.metrics.Evaluation` give."""
        activity = spelling.get("activity")
        return cls(
            rows=spelling["rows"],
            feeds=spelling["feeds"],
            users=spelling["users"],
            user_share=spelling["user_share"],
            targets={name: TargetMetrics.from_dict(metrics) for name, metrics in spelling["targets"].items()},
            mean=spelling["mean"],
            funnel=spelling["funnel"],
            funnel_labels=spelling["funnel_labels"],
            alarms=tuple(from_dict(Alarm, alarm) for alarm in spelling["alarms"]),
            activity=from_dict(Activity, activity) if activity else None,
            fused=spelling.get("fused", {}),
        )
