"""The table of a comparison as plain numbers: what Markdown, HTML and JSON show."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from models.config import to_dict
from pipelines.compare.cells import Floor
from pipelines.compare.comparison import Comparison
from pipelines.compare.config import Claim, Parameters, System
from pipelines.compare.curves import Drawn, drawn_of
from pipelines.compare.notes import about_of, warnings_of, words_of
from pipelines.compare.scores import Score, metrics_of, score_of, value_in
from pipelines.compare.statistics import (
    Paired,
    Verdict,
    gap_closed,
    merit,
    paired,
    relative_improvement,
    spread,
    verdict,
)
from pipelines.report.words import p_shown, percent, spread_shown

Role = Literal["system", "floor", "truth"]


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
        note: what a floor is, or why it is not there.
        settings: of the ranker, and what the row changes of targets and epochs.
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
    """

    better: str
    worse: str
    or_equal: bool
    path: str
    means: tuple[float, float] | None
    test: Paired | None
    gap: float | None
    verdict: Verdict

    @property
    def stands(self) -> bool:
        return self.verdict in ("holds", "no difference shows")

    def __str__(self) -> str:
        name = f"{self.better} {'≥' if self.or_equal else '>'} {self.worse} on {self.path}"
        if self.test is None:
            return f"{name}: not tested, no seed of both is finished"
        seeds = f"{self.test.seeds} seed{'s' if self.test.seeds > 1 else ''}"
        parts = [f"{spread_shown(self.test.mean, self.test.std, sign=True)} ({seeds})", p_shown(self.test.p)]
        if self.gap is not None and self.gap > 0:
            parts.append(f"{percent(self.gap, sign=False)} of the gap to the truth")
        return f"{name}: {', '.join(parts)}: {self.verdict}"


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
    curves: list[Drawn]
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


def compared(comparison: Comparison, name: str) -> Compared:
    """Everything that the finished cells say."""
    every = [_system_row(comparison, system) for system in comparison.every]
    base = next(row for row in every if row.label == comparison.config.base_label)
    every = [replace(row, cost=_relative(row.cost, base.cost)) for row in every]
    rows, beside = every[: len(comparison.systems)], every[len(comparison.systems) :]
    rows += [_floor_row(comparison, floor) for floor in comparison.floors]
    rows = _placed(rows, comparison.columns, base)
    return Compared(
        name=name,
        about=about_of(comparison, name),
        words=words_of(comparison, [*rows, *beside]),
        warnings=warnings_of(comparison, rows, beside),
        columns=comparison.columns,
        base=base.label,
        rows=rows,
        beside=beside,
        by_level=_by_level(comparison),
        claims=[tested for claim in comparison.config.claims for tested in _tested(claim, comparison)],
        curves=drawn_of(comparison),
        failed=sum(len(row.failures) for row in [*rows, *beside]),
        missing=sum(row.expected - len(row.seeds) for row in every),
    )


# -- rows ----------------------------------------------------------------------------------------------------------


def _system_row(comparison: Comparison, system: System) -> Row:
    cells = comparison.cells(system)
    results = {cell.seed: comparison.results[cell.folder] for cell in cells if cell.folder in comparison.results}
    metrics = metrics_of(comparison, system)
    failures = {
        cell.name.removeprefix(system.label).strip(): comparison.failures[cell.folder]
        for cell in cells or comparison.trials(system)
        if cell.folder in comparison.failures
    }
    tried = comparison.scores_of_rates(system) if len(comparison.rates()) > 1 else {}
    changed = {
        mine.name: {key: value for key, value in to_dict(mine).items() if to_dict(shared)[key] != value}
        for mine, shared in zip(system.schema.targets, comparison.table.schema.targets, strict=True)
        if mine != shared
    }
    return Row(
        label=system.label,
        role="system",
        seeds=sorted(results),
        expected=len(comparison.config.seeds),
        failures=failures,
        rate=comparison.rate_of(system) if cells else None,
        rates={rate: score for rate, score in tried.items() if rate is not None},
        scores={path: score_of(metrics, path) for path in comparison.columns},
        cost=_cost(comparison.parameters[system.label], [result["training"] for result in results.values()]),
        settings={"model": to_dict(system.model)}
        | ({"targets": changed} if changed else {})
        | ({"epochs": system.epochs} if system.epochs is not None else {}),
    )


def _cost(parameters: Parameters, training: list[Mapping[str, Any]]) -> Cost:
    kept = ("seconds", "candidates_per_second", "epochs", "best_epoch")
    means = {key: sum(each[key] for each in training) / len(training) for key in kept} if training else {}
    return Cost(dense=parameters.dense, tables=parameters.tables, **means)


def _relative(cost: Cost | None, base: Cost | None) -> Cost | None:
    if cost is None or base is None:
        return cost
    ours, theirs = cost.candidates_per_second, base.candidates_per_second
    return replace(
        cost,
        dense_times=cost.dense / base.dense if base.dense else None,
        step_times=theirs / ours if ours and theirs else None,
    )


def _floor_row(comparison: Comparison, floor: Floor) -> Row:
    result = comparison.results.get(floor.folder)
    metrics = None if result is None else result.get("metrics")
    error = comparison.failures.get(floor.folder)
    return Row(
        label=floor.name,
        role="truth" if floor.name == "truth" else "floor",
        failures={} if error is None else {"": error},
        scores={path: Score(mean=None if metrics is None else value_in(metrics, path)) for path in comparison.columns},
        note="not run yet" if result is None else result.get("left_out") or result["note"],
    )


def _by_level(comparison: Comparison) -> dict[str, dict[str, dict[str, Score]]]:
    schema = comparison.table.schema
    metrics = {system.label: metrics_of(comparison, system) for system in comparison.systems}
    found = {}
    for target in schema.targets:
        asks = (f"{target.name}.gini", f"{target.name}.auc_by_level.")
        if target.is_binary and any(path.startswith(asks) for path in comparison.columns):
            paths = {level: f"{asks[1]}{level}" for level in schema.levels.names} | {"gini": asks[0]}
            found[target.name] = {
                label: {name: score_of(own, path) for name, path in paths.items()} for label, own in metrics.items()
            }
    return found


def _placed(rows: list[Row], columns: tuple[str, ...], base: Row) -> list[Row]:
    """Rows with RelaImpr, places and tests against the best other system; floors and truth get RelaImpr alone."""
    for path in columns:
        reference = base.scores[path].mean
        means = {row.label: mean for row in rows if row.role == "system" and (mean := row.scores[path].mean) is not None}
        racing = sorted(means, key=lambda label: merit(means[label], path), reverse=True)
        marked = racing[: min(2, len(racing) - 1)]  # the second of two would be the last
        by_seed = {row.label: row.scores[path].by_seed for row in rows}
        placed = []
        for row in rows:
            score = row.scores[path]
            if score.mean is not None and reference is not None and row.label != base.label:
                score = replace(score, relaimpr=relative_improvement(score.mean, reference, path))
            other = next((label for label in racing if label != row.label), None)
            if row.label in racing and other is not None:
                test = paired(score.by_seed, by_seed[other], path)
                place = marked.index(row.label) + 1 if row.label in marked else None
                score = replace(score, against=other, test=test, place=place)
            placed.append(replace(row, scores={**row.scores, path: score}))
        rows = placed
    return rows


# -- claims --------------------------------------------------------------------------------------------------------


def _tested(claim: Claim, comparison: Comparison) -> list[Tested]:
    """A claim taken apart: one test a metric and system."""
    metrics = {system.label: metrics_of(comparison, system) for system in comparison.systems}
    truth = next((comparison.results.get(floor.folder) for floor in comparison.floors if floor.name == "truth"), None)
    found = []
    for path in claim.metrics or comparison.columns:
        first = score_of(metrics[claim.better], path).by_seed
        ceiling = value_in(truth["metrics"], path) if truth is not None and "metrics" in truth else None
        for label in claim.than:
            second = score_of(metrics[label], path).by_seed
            shared = sorted(first.keys() & second.keys())
            means = [spread([values[seed] for seed in shared])[0] for values in (first, second)] if shared else None
            test = paired(first, second, path)
            found.append(
                Tested(
                    better=claim.better,
                    worse=label,
                    or_equal=claim.or_equal,
                    path=path,
                    means=None if means is None else (means[0], means[1]),
                    test=test,
                    gap=None if means is None or ceiling is None else gap_closed(means[0], means[1], ceiling, path),
                    verdict=verdict(test, or_equal=claim.or_equal),
                )
            )
    return found
