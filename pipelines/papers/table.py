"""Makes a paper's page from what the finished cells of its worlds say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from models.config import ConfigError, to_dict
from models.system import is_leveled
from pipelines.compare.cells import Cell
from pipelines.compare.comparison import Comparison
from pipelines.compare.config import Claim, System
from pipelines.compare.paper import MAIN
from pipelines.compare.scores import positives_of
from pipelines.compare.statistics import gap_closed, holm, merit, over_worlds, smallest_effect, spread, variance
from pipelines.papers.study import Rates, Study, changes_of
from pipelines.report.papers.result import Gain, PaperResult, PaperRow, PaperScore, Variant
from pipelines.report.words import EXPECTED
from pipelines.runs import read_json
from pipelines.train.monitor import Monitor

HISTORY = "history.json"
PLACES = ("name", "output", "ray")  # of an experiment: where it runs, which says nothing of what it is

ByWorld = Mapping[int, Comparison]
"""Comparisons of finished worlds, by the world's seed."""

Pair = tuple[str, str, str]
"""A gain: better, worse, path."""


def result_of(study: Study, pilots: ByWorld, variants: Mapping[str, ByWorld], rates: Rates) -> PaperResult:
    """Everything that is known by now; worlds that are still to be run are missing."""
    tables = [_variant(study, name, worlds, pilots, rates) for name, worlds in variants.items()]
    every = [*(world for worlds in variants.values() for world in worlds.values()), *pilots.values()]
    first = every[0]
    return PaperResult(
        name=study.name,
        title=study.paper.title,
        premise=study.paper.premise,
        about=_about(study, first, every),
        words=_words(study, first),
        warnings=_warnings(study, tables, pilots),
        columns=first.columns,
        variants=tables,
        pilot={
            f"{better} > {worse} on {path}": {"between worlds": known.worlds, "between seeds": known.seeds}
            for _, (better, worse, path) in tests_of(study, first)
            if (known := variance(gains_by_seed(pilots, (better, worse, path)))) is not None
        },
        curve=study.paper.curve,
        tables=tuple(published.table for published in study.paper.published),
        command=study.command(),
        again=study.command(again=f"{MAIN}/{study.paper.worlds[0]}/{study.rows[0]}/{study.compare.seeds[0]}"),
    )


# -- gains ---------------------------------------------------------------------------------------------------------


def tests_of(study: Study, comparison: Comparison) -> list[tuple[Claim, Pair]]:
    """Every claim taken apart: one test a metric and system, of those that are trained."""
    return [
        (claim, (claim.better, worse, path))
        for claim in study.compare.claims
        for path in claim.metrics or comparison.columns
        for worse in claim.than
        if {claim.better, worse} <= set(study.rows)
    ]


def gains_by_seed(worlds: ByWorld, pair: Pair) -> dict[int, dict[int, float]]:
    """By world and seed, what `better` gains on `worse` with the same seed; worlds without a shared seed are left out."""
    better, worse, path = pair
    found = {}
    for world, comparison in worlds.items():
        ours, theirs = (_values(comparison, label, path) for label in (better, worse))
        if shared := sorted(ours.keys() & theirs.keys()):
            found[world] = {seed: merit(ours[seed], path) - merit(theirs[seed], path) for seed in shared}
    return found


def gains_of(study: Study, worlds: ByWorld, pilots: ByWorld) -> list[Gain]:
    """The claims in the worlds of a variant; p values are corrected for the number of claims, apart from that of premises."""
    comparison = next(iter((*worlds.values(), *pilots.values())))
    fewest, seeds = study.compare.fewest_positives, len(study.compare.seeds)
    claims = tests_of(study, comparison)
    found: list[Gain] = []
    for is_premise in (True, False):
        family = [(claim, pair) for claim, pair in claims if claim.premise == is_premise]
        tested = []
        for claim, (better, worse, path) in family:
            pair = better, worse, path
            counts = [count for each in worlds.values() if (count := _positives(each, path)) is not None]
            enough = not counts or min(counts) >= fewest
            by_seed = gains_by_seed(worlds, pair) if enough else {}
            over = over_worlds({world: spread(list(own.values()))[0] for world, own in by_seed.items()})
            known = variance(gains_by_seed(pilots, pair))
            figures = [study.paper.published_figure(label, path) for label in (better, worse)]
            published = None if None in figures else merit(figures[0], path) - merit(figures[1], path)  # type: ignore[arg-type]
            effects = [
                None if known is None else smallest_effect(known, len(study.paper.worlds), seeds, tests=tests)
                for tests in (1, len(family))
            ]
            tested.append(
                Gain(
                    better=better,
                    worse=worse,
                    path=path,
                    or_equal=claim.or_equal,
                    is_premise=is_premise,
                    positives=min(counts) if counts else None,
                    over=over,
                    smallest=effects[0],
                    smallest_of_all=effects[1],
                    gap=_gap(worlds, pair) if enough else None,
                    published=published,
                    fewest=fewest,
                )
            )
        corrected = holm([None if gain.over is None else gain.over.p for gain in tested])
        found += [replace(gain, corrected=p) for gain, p in zip(tested, corrected, strict=True)]
    return found


def _gap(worlds: ByWorld, pair: Pair) -> float | None:
    """The share of the distance to the truth that is closed, on the mean over worlds."""
    better, worse, path = pair
    shares = []
    for comparison in worlds.values():
        ceiling = _truth(comparison, path)
        means = [spread(list(values.values()))[0] for label in (better, worse) if (values := _values(comparison, label, path))]
        if ceiling is not None and len(means) == 2 and (share := gap_closed(means[0], means[1], ceiling, path)) is not None:
            shares.append(share)
    return spread(shares)[0] if shares else None


def _values(comparison: Comparison, label: str, path: str) -> dict[int, float]:
    """A row's values by seed; none where the comparison lacks the row."""
    system = next((system for system in comparison.systems if system.label == label), None)
    results = {} if system is None else comparison.results_of(system)
    return {seed: value for seed, result in results.items() if (value := result.find(path)) is not None}


def _truth(comparison: Comparison, path: str) -> float | None:
    metrics = next((comparison.evaluated(each) for each in comparison.baselines if each.name == "truth"), None)
    return None if metrics is None else metrics.find(path)


def _positives(comparison: Comparison, path: str) -> int | None:
    results = (result for system in comparison.systems for result in comparison.results_of(system).values())
    return next((count for result in results if (count := positives_of(result, path)) is not None), None)


# -- rows ----------------------------------------------------------------------------------------------------------


def _variant(study: Study, name: str, worlds: ByWorld, pilots: ByWorld, rates: Rates) -> Variant:
    first = next(iter(worlds.values()), None)
    if first is None:
        return Variant(name=name, changes=changes_of(study, name), worlds=[], candidates=0, rows=[], gains=[])
    rows = [_system_row(study, system, worlds, pilots, rates) for system in first.systems]
    rows += [_baseline_row(study, baseline.name, worlds) for baseline in first.baselines]
    seed = study.paper.worlds[0]
    return Variant(
        name=name,
        changes=changes_of(study, name),
        worlds=sorted(worlds),
        candidates=first.prepared.manifest.splits["train"].candidates,
        rows=rows,
        gains=gains_of(study, worlds, pilots),
        config={key: value for key, value in to_dict(study.world(name, seed, rates)).items() if key not in PLACES},
    )


def _system_row(study: Study, system: System, worlds: ByWorld, pilots: ByWorld, rates: Rates) -> PaperRow:
    label, trained, courses, failures = system.label, [], {}, {}
    for world, comparison in worlds.items():
        own = next(each for each in comparison.systems if each.label == label)
        for cell in comparison.cells(own):
            result = comparison.results.get(cell.folder)
            if result is not None and result.cell is not None:
                trained.append(result.cell.training)
                courses[f"{world}/{cell.seed}"] = _course(comparison, cell)
            elif cell.folder in comparison.failures:
                failures[f"{world}/{cell.seed}"] = comparison.failures[cell.folder]
    mean = lambda of: sum(map(of, trained)) / len(trained) if trained else None
    searched = next(iter(pilots.values()), None)
    tried = {} if searched is None else searched.scores_of_rates(next(e for e in searched.systems if e.label == label))
    return PaperRow(
        label=label,
        role="system",
        scores={path: _score(study, label, path, worlds) for path in next(iter(worlds.values())).columns},
        rate=rates.get(label),
        rates={rate: score for rate, score in tried.items() if rate is not None} if len(tried) > 1 else {},
        epochs=mean(lambda each: each.epochs),
        best_epoch=mean(lambda each: each.best_epoch),
        steps=mean(lambda each: each.steps),
        seconds=mean(lambda each: each.seconds),
        courses=courses,
        failures=failures,
    )


def _score(study: Study, label: str, path: str, worlds: ByWorld) -> PaperScore:
    published = study.paper.published_figure(label, path)
    counts = [count for each in worlds.values() if (count := _positives(each, path)) is not None]
    positives = min(counts) if counts else None
    if positives is not None and positives < study.compare.fewest_positives:
        return PaperScore(positives=positives, published=published)
    by_world = {world: values for world, comparison in worlds.items() if (values := _values(comparison, label, path))}
    means = [spread(list(values.values()))[0] for values in by_world.values()]
    mean, std = spread(means) if means else (None, None)
    return PaperScore(by_world=by_world, mean=mean, std=std, positives=positives, published=published)


def _baseline_row(study: Study, name: str, worlds: ByWorld) -> PaperRow:
    scores = {}
    for path in next(iter(worlds.values())).columns:
        by_world = {}
        for world, comparison in worlds.items():
            baseline = next(each for each in comparison.baselines if each.name == name)
            metrics = comparison.evaluated(baseline)
            value = None if metrics is None else metrics.find(path)
            count = None if metrics is None else positives_of(metrics, path)
            if value is not None and (count is None or count >= study.compare.fewest_positives):
                by_world[world] = {0: value}
        means = [values[0] for values in by_world.values()]
        mean, std = spread(means) if means else (None, None)
        scores[path] = PaperScore(by_world=by_world, mean=mean, std=std)
    return PaperRow(label=name, role="truth" if name == "truth" else "baseline", scores=scores)


def _course(comparison: Comparison, cell: Cell) -> list[float]:
    """The monitored metric on the validation split, epoch by epoch; ends where it is not known."""
    monitor, values = Monitor(cell.system.schema, cell.train.monitor), []
    if not (cell.folder / HISTORY).is_file():
        return []
    for epoch in read_json(cell.folder / HISTORY, of=list, way_out="Delete the cell's folder, and it runs again."):
        if epoch.get("metrics") is None:
            break
        try:
            values.append(monitor.value(epoch["metrics"]))
        except ConfigError:
            break
    return values


# -- around --------------------------------------------------------------------------------------------------------


def _about(study: Study, first: Comparison, every: list[Comparison]) -> dict[str, str]:
    paper, train = study.paper, study.experiment.train
    split = first.prepared.manifest.splits["train"]
    commits = sorted({result.made.get("git_commit") or "unknown" for each in every for result in each.results.values()})
    return {
        "Worlds": f"seeds {', '.join(map(str, paper.worlds))}; pilot {', '.join(map(str, paper.pilot))}",
        "Seeds of trainings": ", ".join(map(str, study.compare.seeds)),
        "Size": f"{study.experiment.logs.users:,} users, {split.candidates:,} training candidates",  # type: ignore[union-attr]
        "Best epoch": (
            f"by {Monitor(study.experiment.schema, train.monitor).name} on the validation day, patience {train.patience}"
        ),
        "Code": ", ".join(commit[:8] + ("+" if commit.endswith("+") else "") for commit in commits),
        "Made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _words(study: Study, first: Comparison) -> dict[str, str]:
    paper, compare, train = study.paper, study.compare, study.experiment.train
    rates = ", ".join(f"{rate:g}" for rate in compare.rates) or "that of the config"
    words = {
        "gain": (
            f"mean over {len(paper.worlds)} worlds of the mean over {len(compare.seeds)} seeds, above 0 in favour of the "
            "first, for errors too; in brackets the interval that covers it with 95 %, worlds being the units"
        ),
        "p": "paired t-test over worlds, two-sided; corrected for the number of claims (Holm), and apart for that of premises",
        "seen": (
            "the smallest gain that this design finds with 80 %, by the pilot's variance, computed before the worlds were run"
        ),
        "rates": (
            f"of {rates}, as many trials for every row, each row's best on the validation day of pilot world {paper.pilot[0]}"
        ),
        "regime": f"at most {train.epochs} epochs of {train.batch_feeds} feeds a step, alike for all that do not say their own",
    }
    if any(path.split(".")[1].startswith(EXPECTED) for path in first.columns):
        words["E"] = "expected under the world's true probabilities: no drawn label blurs it"
    return words


def _warnings(study: Study, tables: list[Variant], pilots: ByWorld) -> list[str]:
    found = []
    if left_out := [label for label in study.compare.systems if label not in study.rows]:
        found.append(f"not trained, and no claim about them tested: {', '.join(left_out)} (paper.rows)")
    for table in tables:
        missing = [str(world) for world in study.paper.worlds if world not in table.worlds]
        if missing:
            found.append(f"{table.name}: worlds {', '.join(missing)} are still to be run")
        for row in table.rows:
            found += [f"{table.name}: {row.label} {cell} failed: {error}" for cell, error in row.failures.items()]
    if tables:
        found += [
            f"{gain.better} {'≥' if gain.or_equal else '>'} {gain.worse} on {gain.path} {gain.verdict}: a premise, without "
            "which the claims cannot be expected to hold here"
            for gain in tables[0].gains
            if gain.is_premise and gain.verdict in ("reversed", *(() if gain.or_equal else ("does not show",)))
        ]
    if tables and tables[0].rows:
        rates = study.compare.rates
        systems = [row for row in tables[0].rows if row.role == "system"]
        if ends := [row.label for row in systems if row.rates and row.rate in (min(rates), max(rates))]:
            found.append(f"the rate lies at the end of the list for {', '.join(ends)}: a wider list may do better")
        planned = {system.label for each in pilots.values() for system in each.systems if is_leveled(system.model.learner)}
        if late := [row.label for row in systems if row.label not in planned and _is_last(row)]:
            found.append(f"the best epoch is the last one in most trainings of {', '.join(late)}: more epochs may do better")
    return found


def _is_last(row: PaperRow) -> bool:
    return row.best_epoch is not None and row.epochs is not None and row.best_epoch > row.epochs - 0.5
