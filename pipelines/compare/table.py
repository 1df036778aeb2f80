"""Makes the table of a comparison from what its finished cells say."""

from collections.abc import Mapping
from dataclasses import replace

from models.config import to_dict
from pipelines.compare.cells import Baseline
from pipelines.compare.comparison import Comparison
from pipelines.compare.config import Claim, Parameters, System, spelled
from pipelines.compare.notes import about_of, warnings_of, words_of
from pipelines.compare.results import TrainingTook
from pipelines.compare.scores import score_of
from pipelines.compare.statistics import gap_closed, merit, paired, relative_improvement, spread, verdict
from pipelines.report.comparison.compared import Compared, Cost, CurveDrawn, Row, Score, Tested
from pipelines.report.evaluation.metrics import EvaluationResult


def compared(comparison: Comparison, name: str) -> Compared:
    """Everything that the finished cells say."""
    every = [_system_row(comparison, system) for system in comparison.every]
    base = next(row for row in every if row.label == comparison.config.base_label)
    every = [replace(row, cost=_relative(row.cost, base.cost)) for row in every]
    rows, beside = every[: len(comparison.systems)], every[len(comparison.systems) :]
    rows += [_baseline_row(comparison, baseline) for baseline in comparison.baselines]
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
        curves=_curves(comparison),
        failed=sum(len(row.failures) for row in [*rows, *beside]),
        missing=sum(row.expected - len(row.seeds) for row in every),
    )


# -- rows ----------------------------------------------------------------------------------------------------------


def _system_row(comparison: Comparison, system: System) -> Row:
    cells = comparison.cells(system)
    results, fewest = comparison.results_of(system), comparison.config.fewest_positives
    finished = (comparison.results[cell.folder].cell for cell in cells if cell.folder in comparison.results)
    training = [cell.training for cell in finished if cell is not None]
    failures = {
        cell.name.removeprefix(system.label).strip(): comparison.failures[cell.folder]
        for cell in cells or comparison.trials(system)
        if cell.folder in comparison.failures
    }
    tried = comparison.scores_of_rates(system) if len(comparison.rates(system)) > 1 else {}
    changed = {
        mine.name: {key: value for key, value in to_dict(mine).items() if to_dict(shared)[key] != value}
        for mine, shared in zip(system.schema.targets, comparison.shared.schema.targets, strict=True)
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
        scores={path: score_of(results, path, fewest) for path in comparison.columns},
        cost=_cost(comparison.parameters[system.label], training),
        settings={"model": to_dict(system.model)}
        | ({"targets": changed} if changed else {})
        | {key: value for key, value in (("epochs", system.epochs), ("rate", system.rate)) if value is not None}
        | ({"optimiser": dict(system.optimiser)} if system.optimiser else {}),
    )


def _cost(parameters: Parameters, training: list[TrainingTook]) -> Cost:
    kept = ("seconds", "candidates_per_second", "epochs", "best_epoch")
    means = {key: sum(getattr(each, key) for each in training) / len(training) for key in kept} if training else {}
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


def _baseline_row(comparison: Comparison, baseline: Baseline) -> Row:
    result, metrics = comparison.results.get(baseline.folder), comparison.evaluated(baseline)
    error, fewest = comparison.failures.get(baseline.folder), comparison.config.fewest_positives
    return Row(
        label=baseline.name,
        role="truth" if baseline.name == "truth" else "baseline",
        failures={} if error is None else {"": error},
        scores={
            path: Score() if metrics is None else replace(score_of({0: metrics}, path, fewest), std=None, by_seed={})
            for path in comparison.columns
        },
        note="not run yet" if result is None else result.note,
    )


def _by_level(comparison: Comparison) -> dict[str, dict[str, dict[str, Score]]]:
    schema = comparison.shared.schema
    results = {system.label: comparison.results_of(system) for system in comparison.systems}
    found, fewest = {}, comparison.config.fewest_positives
    for target in schema.targets:
        asks = (f"{target.name}.gini", f"{target.name}.auc_by_level.")
        if target.is_binary and any(path.startswith(asks) for path in comparison.columns):
            paths = {level: f"{asks[1]}{level}" for level in schema.levels.names} | {"gini": asks[0]}
            found[target.name] = {
                label: {name: score_of(own, path, fewest) for name, path in paths.items()}
                for label, own in results.items()
                for label, own in results.items()
            }
    return found


def _placed(rows: list[Row], columns: tuple[str, ...], base: Row) -> list[Row]:
    """Rows with RelaImpr, places and tests against the best other system; baselines and truth get RelaImpr alone."""
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


# -- curves -------------------------------------------------------------------------------------------------------


def _curves(comparison: Comparison) -> list[CurveDrawn]:
    """What the finished cells say of the curves."""
    of_all = [path for path in comparison.columns if path.count(".") == 1] or list(comparison.columns)
    found, fewest = [], comparison.config.fewest_positives
    for varied in comparison.curves:
        results = [comparison.results_of(system) for system in varied.systems]
        found.append(
            CurveDrawn(
                of=varied.curve.of,
                axis=varied.curve.axis,
                title=varied.curve.name,
                values=[spelled(value) for value in varied.values],
                labels=[system.label for system in varied.systems],
                own=varied.own,
                scores={path: [score_of(each, path, fewest) for each in results] for path in varied.curve.metrics or of_all},
            )
        )
    return found


# -- claims --------------------------------------------------------------------------------------------------------


def _tested(claim: Claim, comparison: Comparison) -> list[Tested]:
    """A claim taken apart: one test a metric and system."""
    results = {system.label: comparison.results_of(system) for system in comparison.systems}
    truth = next((comparison.evaluated(baseline) for baseline in comparison.baselines if baseline.name == "truth"), None)
    found, fewest = [], comparison.config.fewest_positives
    for path in claim.metrics or comparison.columns:
        first = score_of(results[claim.better], path, fewest).by_seed
        ceiling = None if truth is None else truth.find(path)
        for label in claim.than:
            second = score_of(results[label], path, fewest).by_seed
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
                    untested=_why_untested(results[claim.better], results[label], path, fewest) if test is None else "",
                )
            )
    return found


def _why_untested(better: Mapping[int, EvaluationResult], worse: Mapping[int, EvaluationResult], path: str, fewest: int) -> str:
    """A claim without a test waits for cells, rests on too few positives, or on a metric that these rows do not have."""
    if not better.keys() & worse.keys():
        return "no seed of both is finished"
    positives = [known for each in (better, worse) if (known := score_of(each, path, fewest).positives) is not None]
    if positives and min(positives) < fewest:
        return f"{min(positives)} positives are behind it, fewer than compare.fewest_positives ({fewest})"
    return "the metric is undefined in the seeds that both have"
