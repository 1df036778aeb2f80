"""A comparison as plain numbers: what its page, its Markdown and its JSON show."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipelines.report.words import p_shown, percent, spread_shown

SIGNIFICANT = 0.05  # two-sided

Role = Literal["system", "baseline", "truth"]
Verdict = Literal["holds", "no difference shows", "does not show", "reversed", "not tested"]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Differences of two systems over the seeds that both have.

    Attributes:
        mean: of the differences in merit; above 0 the first is better.
        std: of the differences (n - 1); None for one seed.
        p: of the paired t-test, two-sided; None for one seed.
    """

    seeds: int
    mean: float
    std: float | None
    p: float | None

    @property
    def is_significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True, kw_only=True)
class Score:
    """A row's values of one metric.

    Attributes:
        by_seed: the values of a system's seeds; a baseline has only the one in `mean`.
        std: over seeds (n - 1); None for one.
        relaimpr: of the mean, against the base row's.
        against: the best other system, which the row was tested against.
        test: of the row against it.
        place: 1 for the best system, 2 for the second; else None.
        untaught: the row gives the target no weight in training, so what it says of it follows from other targets.
        positives: that a metric with drawn labels rests on; too few of them, and there is no value.
    """

    mean: float | None = None
    std: float | None = None
    by_seed: dict[int, float] = field(default_factory=dict)
    relaimpr: float | None = None
    against: str | None = None
    test: Paired | None = None
    place: int | None = None
    untaught: bool = False
    positives: int | None = None

    @property
    def is_significant(self) -> bool:
        """Whether it is above every other system, and the difference to the next is no chance."""
        return self.place == 1 and self.test is not None and self.test.is_significant


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a system's cells took, on the mean over its seeds; `times` are relative to the base row.

    Attributes:
        dense, tables: parameters outside and inside of embedding tables.
        seconds: of training steps.
        step_times: seconds a candidate, relative to the base.
    """

    dense: int
    tables: int
    seconds: float | None = None
    candidates_per_second: float | None = None
    epochs: float | None = None
    best_epoch: float | None = None
    dense_times: float | None = None
    step_times: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        seeds: that were finished; `expected` is how many there should be.
        failures: first lines of errors, by cell.
        rates: validation score by rate, where several were tried; None for one that failed.
        note: what a baseline is, or why it is not there.
        settings: of the ranker, and what the row changes of targets, epochs and optimiser.
    """

    label: str
    role: Role
    seeds: list[int] = field(default_factory=list)
    expected: int = 1
    failures: dict[str, str] = field(default_factory=dict)
    rate: float | None = None
    rates: dict[float, float | None] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    cost: Cost | None = None
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A claim on one metric against one system.

    Attributes:
        better, worse: labels; the claim is that the first is better (with `or_equal`: or no difference shows).
        means: of both over the seeds that both have; None without one.
        test: of the gain, above 0 if the first is better, for errors too; None without shared seeds.
        gap: share of the worse one's distance to the truth that is closed; None without a ceiling.
        untested: why there is no test; empty where there is one.
    """

    better: str
    worse: str
    or_equal: bool
    path: str
    means: tuple[float, float] | None
    test: Paired | None
    gap: float | None
    verdict: Verdict
    untested: str = ""

    @property
    def stands(self) -> bool:
        return self.verdict in ("holds", "no difference shows")

    def __str__(self) -> str:
        name = f"{self.better} {'≥' if self.or_equal else '>'} {self.worse} on {self.path}"
        if self.test is None:
            return f"{name}: not tested, {self.untested}"
        seeds = f"{self.test.seeds} seed{'s' if self.test.seeds > 1 else ''}"
        parts = [f"{spread_shown(self.test.mean, self.test.std, sign=True)} ({seeds})", p_shown(self.test.p)]
        if self.gap is not None and self.gap > 0:
            parts.append(f"{percent(self.gap, sign=False)} of the gap to the truth")
        return f"{name}: {', '.join(parts)}: {self.verdict}"


@dataclass(frozen=True, kw_only=True)
class CurveDrawn:
    """A curve as numbers.

    Attributes:
        of: label of the system that is varied.
        axis: path of the setting.
        title: of the axis.
        values: as the axis shows them.
        labels: of the values' systems.
        own: place of the system's own value.
        scores: by metric, of every value.
    """

    of: str
    axis: str
    title: str
    values: list[str]
    labels: list[str]
    own: int
    scores: dict[str, list[Score]]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The whole table.

    Attributes:
        about: facts on top: data, days, candidates, seeds.
        words: how to read it, by term.
        warnings: what a reader must not miss.
        columns: metrics as `target.metric`.
        base: label of the row that RelaImpr and costs refer to.
        beside: systems of curves that are no rows of the table.
        by_level: AUC of every level and `gini`, by target and system; of targets with one of these among the columns.
        failed: cells that failed, those of curves included.
        missing: cells that are not there, failed or not run, those of curves included.
    """

    name: str
    about: dict[str, str]
    words: dict[str, str]
    warnings: list[str]
    columns: tuple[str, ...]
    base: str
    rows: list[Row]
    beside: list[Row]
    by_level: dict[str, dict[str, dict[str, Score]]]
    claims: list[Tested]
    curves: list[CurveDrawn]
    failed: int
    missing: int

    @property
    def systems(self) -> list[Row]:
        return [row for row in self.rows if row.role == "system"]

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `compare.json` holds them."""
        spelled = asdict(self)
        for row, plain in zip(self.rows, spelled["rows"], strict=True):
            for path, score in row.scores.items():
                plain["scores"][path]["significant"] = score.is_significant
        return spelled | {"claims": [{**asdict(claim), "text": str(claim)} for claim in self.claims]}
