"""The search for the graph of targets: what a graph scores, what a search leaves, and how it goes on after a kill.

Every graph is an ordinary training of the experiment with other `parents`; the prepared data are the same. Scores lie in the
folders of the trainings, so a search that is started again repeats its steps from them and trains only what is missing, also
with another budget, tolerance, order or more seeds.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from models.config import ConfigError
from pipelines.report.search.graphs import Finalist, Graph, Step, StructureResult
from pipelines.report.search.structure import draw
from pipelines.runs import RunFolder, write_json, write_text
from pipelines.tune.config import TuneConfig
from pipelines.tune.folder import GRAPH, WAY_OUT, note
from pipelines.tune.structure.graphs import SURE, Noise, StructureSearch, spelled
from pipelines.tune.structure.problem import Problem, identity, posed_of
from pipelines.tune.structure.result import (
    TARGETS,
    spelled_result,
    summary,
    targets_yaml,
    write_table,
)
from pipelines.tune.structure.trainings import Say, Trainings

RESULT = "structure.json"


def search_structure(
    experiment_spelling: Mapping[str, Any],
    prepared_path: Path,
    config: TuneConfig,
    output: Path,
    resume: bool = True,
    *,
    say: Say = lambda line: print(line, flush=True),
) -> StructureResult:
    """Searches the graph of targets whose validation score is best (`pipelines.tune.structure.graphs`); Ray must be up.

    Started again after a kill it goes on; started on a finished search it says so and trains nothing. What failed is tried
    again then.

    Args:
        experiment_spelling, prepared_path, config: as of `pipelines.tune.search`; `config.structure` says what is searched.
        output: holds `structure.csv`, `.md`, `.json`, `.png`, `targets.yaml` (the found graph, to be put into
            `schema.targets`) and `trials/` (trainings); all nodes must reach it.
        resume: False throws away what an earlier search left in `output`.

    Raises:
        ConfigError: targets that there are not or that are not trained for, a model whose targets have no graph, graphs that
            cannot be, no validation feeds, or the first graph could not be trained.
    """
    posed = posed_of(experiment_spelling, prepared_path, config, output)
    problem = posed.problem
    run = run_of(problem.folder)
    if not resume:
        run.clear()
    run.begin(identity(problem), way_out=WAY_OUT)
    structure = problem.structure
    trainings = Trainings(problem, say)

    def after_round(step: Step) -> None:
        write_table(problem, search, trainings)
        if trainings.fresh:
            _say_step(search, step, say)

    search = StructureSearch(posed.order, structure, lambda graphs: trainings.scores(graphs, structure.seeds), after_round)
    try:
        found = search.run(posed.start)
    except ConfigError as error:
        raise ConfigError(" ".join([str(error), *dict.fromkeys(trainings.failures.values())])) from None
    first = next(iter(search.tried))
    roles = {"found": found.graph, "first": first, "reference": posed.reference}
    final, final_error = _last_comparison(problem, trainings, search, roles)
    bundle = _best_bundle(problem, found.graph)
    result = StructureResult(
        found=found,
        schema=problem.schema_with(found.graph),
        tried=tuple(search.tried.values()),
        steps=tuple(search.steps),
        tolerance=search.tolerance,
        final=final,
        final_seeds=structure.final_seeds or structure.seeds,
        final_error=final_error,
        final_tolerance=SURE * final_error if structure.min_gain is None and final_error is not None else search.tolerance,
        over_budget=search.over_budget,
        bundle_path=bundle,
        metric=problem.metric,
        folder=problem.folder,
        fresh=trainings.fresh,
    )
    if not trainings.fresh:
        say(f"Already searched: {result.table}. For a new search give another output folder, or --restart (resume=False).")
    write_table(problem, search, trainings, result)
    write_text(problem.folder / TARGETS, targets_yaml(result.schema))
    draw(result.picture, result, problem.names)
    note(bundle, GRAPH, {"graph": spelled(found.graph), "graphs": len(search.tried), "metric": problem.metric})
    write_json(problem.folder / RESULT, spelled_result(result, structure, problem.names))
    for line in summary(result):
        say(line)
    say(f"Table: {result.table} · picture: {result.picture} · bundle: {bundle}")
    return result


def run_of(output: Path) -> RunFolder:
    return RunFolder(Path(output), RESULT)


def structure_preview(
    experiment_spelling: Mapping[str, Any], prepared_path: Path, config: TuneConfig, output: Path, resume: bool = True
) -> list[str]:
    """What `search_structure` would do, in lines.

    Raises:
        ConfigError: as there.
    """
    posed = posed_of(experiment_spelling, prepared_path, config, output)
    problem, structure = posed.problem, posed.problem.structure
    if resume:
        run_of(problem.folder).refuse_another(identity(problem), way_out=WAY_OUT)
    have = len({key for key, _, _ in (path.parent.parent.name.partition("-") for path in problem.bundled())})
    if posed.start is None:
        what = "from no edges, target by target" + (", then local variations" if structure.vary else "")
    else:
        what = f"local variations of {spelled(posed.start)}"
    return [
        f"Searching the graph of {len(posed.order)} targets, in this order: {', '.join(posed.order)}.",
        f"Way: {what}; at most {structure.budget} graphs, {len(structure.seeds)} trainings each"
        + (f" (of {have} graphs there are some already)." if have else "."),
        f"Score: {problem.metric}, on the validation split. A gain counts above "
        + ("two standard errors of a difference." if structure.min_gain is None else f"{structure.min_gain:g}."),
    ]


def _last_comparison(
    problem: Problem, trainings: Trainings, search: StructureSearch, graphs: Mapping[str, Graph | None]
) -> tuple[tuple[Finalist, ...], float | None]:
    """The graphs beside each other with the final seeds, and the standard error of their differences."""
    structure = problem.structure
    roles: dict[Graph, list[str]] = {}
    for role, graph in graphs.items():
        if graph is not None:
            roles.setdefault(graph, []).append(role)
    seeds = structure.final_seeds or structure.seeds
    names = {graph: f"last comparison: {' and '.join(called)}" for graph, called in roles.items()}
    scores = trainings.scores(list(roles), seeds, names)
    if graphs["found"] not in scores:
        raise ConfigError(
            f"the found graph could not be trained with the final seeds: {trainings.failures[search.found.graph]}"
        )
    found_S = scores[search.found.graph]
    final = tuple(
        Finalist(roles=tuple(called), graph=graph, scores=scores[graph], difference=fmean(found_S) - fmean(scores[graph]))
        for graph, called in roles.items()
        if graph in scores
    )
    blocks: list[list[tuple[float, ...]]] = [[each.scores for each in search.tried.values()]]
    if structure.final_seeds:
        blocks.append(list(scores.values()))
    error = Noise(*blocks).of_difference(len(seeds))
    return final, error if np.isfinite(error) else None


def _best_bundle(problem: Problem, graph: Graph) -> Path:
    structure = problem.structure
    scores = [(problem.score(graph, seed), seed) for seed in (*structure.seeds, *structure.final_seeds)]
    _, best = max((score, seed) for score, seed in scores if score is not None)
    return problem.folder_of(graph, best) / "bundle"


def _say_step(search: StructureSearch, step: Step, say: Say) -> None:
    stands = search.found
    if step.taken:
        say(f"Round {step.round}: graph {stands.number} is taken ({stands.change}; tolerance {step.tolerance:.4f})")
    elif step.round:
        say(f"Round {step.round}: graph {stands.number} stays (tolerance {step.tolerance:.4f})")
