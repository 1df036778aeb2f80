"""Runs what a paper's tables have left: the pilot, then world by world; every world that ends is told and written."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.config import ConfigError
from pipelines.compare.comparison import Comparison
from pipelines.compare.execute import Executor, OnRay
from pipelines.compare.execute import carry_out as carry_out_cells
from pipelines.experiment import Experiment
from pipelines.papers.study import Rates, Study
from pipelines.papers.table import gains_of, result_of
from pipelines.report.papers.result import Gain
from pipelines.report.papers.write import write_page
from pipelines.report.words import shown
from pipelines.runs import write_text
from pipelines.steps import claimed_comparison, comparison_of, prepare_step, prepared_of

PILOT = "pilot.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What the pilot has found.

    Attributes:
        rates: of every row.
        comparisons: of its worlds, by seed.
    """

    rates: Rates
    comparisons: Mapping[int, Comparison]


def carry_out(
    study: Study,
    folder: Path,
    say: Say,
    *,
    executor: Executor | None = None,
    pilot_alone: bool = False,
    variants: Sequence[str] = (),
    replace: bool = False,
) -> int:
    """Runs the pilot, says how small an effect can be seen, runs all worlds of all variants, and writes the page after each.

    Args:
        folder: of the page.
        executor: of cells; None runs them on Ray, which must be up.
        variants: that are run, in this order; none means all. The page shows those that were run before as well.
        replace: throws away results that were made with other settings.

    Returns:
        how many cells have failed.
    """
    found = pilot(study, say, executor, replace)
    if pilot_alone:
        return failed_in(found.comparisons.values())
    done = {variant: finished_worlds(study, variant, found.rates) for variant in study.variants}
    page = folder / f"{study.name}.md"
    for variant in variants or study.variants:
        for seed in study.paper.worlds:
            say(f"-- {variant}, world {seed}")
            done[variant][seed] = run_world(study.world(variant, seed, found.rates), say, executor, replace)
            page = write_page(folder, result_of(study, found.comparisons, done, found.rates), study.experiment.schema)
        for gain in gains_of(study, done[variant], found.comparisons):
            say(f"{variant}: {told(gain)}")
    say(f"Page: {page}")
    return failed_in([*found.comparisons.values(), *(each for worlds in done.values() for each in worlds.values())])


def failed_in(comparisons: Iterable[Comparison]) -> int:
    return sum(len(comparison.failures) for comparison in comparisons)


def pilot(study: Study, say: Say, executor: Executor | None, replace: bool) -> Found:
    """Chooses every row's learning rate in the first pilot world, and trains what claims are about in all of them."""
    first, *others = study.paper.pilot
    say(f"-- pilot, world {first}: learning rates")
    searched = run_world(study.pilot(first, None), say, executor, replace)
    if stuck := [system.label for system in searched.systems if not searched.has_rate(system)]:
        raise ConfigError(f"no learning rate of {', '.join(stuck)} could be trained in the pilot; see {searched.output}.")
    rates = {system.label: searched.rate_of(system) for system in searched.systems}
    comparisons = {first: searched}
    for seed in others:
        say(f"-- pilot, world {seed}")
        comparisons[seed] = run_world(study.pilot(seed, rates), say, executor, replace)
    return noted(study, Found(rates=rates, comparisons=comparisons), say)


def noted(study: Study, found: Found, say: Say) -> Found:
    """Says and keeps how small an effect the design can see, before any world that is compared has been run."""
    gains = gains_of(study, {}, found.comparisons)
    for gain in gains:
        if gain.smallest is not None:
            say(
                f"{gain.better} > {gain.worse} on {gain.path}: {len(study.paper.worlds)} worlds x {len(study.compare.seeds)} "
                f"seeds see {shown(gain.smallest)} with 80 % (alone; {shown(gain.smallest_of_all)} as the first of all)"
                + (f"; the paper printed {shown(gain.published, sign=True)}" if gain.published is not None else "")
            )
    kept = {
        "rates": dict(found.rates),
        "smallest": {f"{gain.better} > {gain.worse} on {gain.path}": [gain.smallest, gain.smallest_of_all] for gain in gains},
    }
    write_text(study.folder / PILOT, json.dumps(kept, indent=1) + "\n")
    return found


def run_world(experiment: Experiment, say: Say, executor: Executor | None, replace: bool) -> Comparison:
    """Makes a world, prepares it and runs its cells; what is done is never done again."""
    prepare_step(experiment)
    with claimed_comparison(experiment) as comparison:
        comparison.begin(replace=replace)
        if comparison.left():
            carry_out_cells(comparison, executor or OnRay(comparison.config), say)
    return comparison


def told(gain: Gain) -> str:
    """A gain in one line: `pimm > aitm on order.expected_auc: +.0020 [.0004, .0036], p = .03 of 4: holds`."""
    name = f"{gain.better} {'≥' if gain.or_equal else '>'} {gain.worse} on {gain.path}"
    if gain.over is None:
        return f"{name}: {gain.verdict}"
    interval = "" if gain.over.low is None else f" [{shown(gain.over.low)}, {shown(gain.over.high)}]"
    p = "" if gain.corrected is None else f", p {shown(gain.corrected)} (Holm)"
    return f"{name}: {shown(gain.over.mean, sign=True)}{interval}{p}: {gain.verdict}"


def table_of(study: Study, folder: Path) -> Path:
    """Writes the page of what is there; runs nothing.

    Raises:
        ConfigError: the pilot has not been run.
    """
    first, *others = study.paper.pilot
    searched = finished(study.pilot(first, None))
    if searched is None or not all(searched.has_rate(system) for system in searched.systems):
        raise ConfigError(f"the pilot is not finished in {study.folder}. Run `{study.command()}` first.")
    rates = {system.label: searched.rate_of(system) for system in searched.systems}
    pilots = {first: searched}
    pilots |= {seed: known for seed in others if (known := finished(study.pilot(seed, rates))) is not None}
    done = {variant: finished_worlds(study, variant, rates) for variant in study.variants}
    return write_page(folder, result_of(study, pilots, done, rates), study.experiment.schema)


def finished_worlds(study: Study, variant: str, rates: Rates) -> dict[int, Comparison]:
    """What is there of a variant, by world."""
    found = {seed: finished(study.world(variant, seed, rates)) for seed in study.paper.worlds}
    return {seed: known for seed, known in found.items() if known is not None and known.results}


def finished(experiment: Experiment) -> Comparison | None:
    """What is there of a world; None if it has not been prepared."""
    try:
        prepared_of(experiment)
    except ConfigError:
        return None
    return comparison_of(experiment)


def overview(study: Study) -> str:
    """How much there is to do."""
    paper, compare = study.paper, study.compare
    rows, claimed = len(study.rows), len(study.claimed)
    tried = rows * len(compare.rates) if len(compare.rates) > 1 else 0
    trials = (
        tried
        + rows * (len(paper.pilot_seeds) - (1 if tried else 0))
        + claimed * len(paper.pilot_seeds) * (len(paper.pilot) - 1)
    )
    cells = rows * len(compare.seeds) * len(paper.worlds)
    lines = [
        f"{paper.title}: {rows} rows; about {trials} trainings in {len(paper.pilot)} pilot worlds, then {cells} "
        f"({len(paper.worlds)} worlds x {len(compare.seeds)} seeds) for each of {len(study.variants)} kinds of worlds: "
        f"{', '.join(study.variants)}.",
        f"Folder: {study.folder}",
    ]
    return "\n".join(lines)
