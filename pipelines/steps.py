"""The steps of an experiment and where each leaves its result, below `output/name`.

    source/     canonical logs (and, for simulated ones, the truth beside them)
    check/      report.html, check.json
    prepared/   feature and feed tables, encoder, snapshot for the endpoint
    search/     trials of a search
    train/      checkpoints, curves, the bundle
    bundles/    registered bundles
    live/       entries among the rooms that were live, for the report
    report/     report.html, metrics.json
    compare/    cells and baselines of a comparison, its table
    leaderboard/ the same of a leaderboard, with its page
    serve/      an endpoint that a process keeps: where it is, what it says
    store/      the endpoint's feature stores, each in a folder named after the prepared tables

A step that is finished says so and does nothing; one that was killed goes on. While one works in its folder, another
process that wants to is told who does (`pipelines.runs.claim`).
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models.config import ConfigError, from_dict, overlaid, replaced, to_dict
from pipelines.bundle import Bundle, DamagedBundle, load_bundle
from pipelines.check import Calendar, Checked, check_logs
from pipelines.cluster import connected
from pipelines.compare.comparison import Comparison
from pipelines.compare.execute import OnRay, carry_out
from pipelines.compare.leaderboard import FLOOR, board, protocol_of
from pipelines.compare.table import compared
from pipelines.encode.contract import differences
from pipelines.evaluate import evaluate
from pipelines.evaluate.config import Baseline
from pipelines.experiment import Experiment
from pipelines.live import live_feeds
from pipelines.logs import CanonicalConfig, CanonicalLogs, SimulateConfig, Work, materialise
from pipelines.logs.check import refuse_within
from pipelines.places import Remote, place
from pipelines.preflight import Needs, preflight
from pipelines.prepare import prepare
from pipelines.prepared import Prepared
from pipelines.report.comparison.compared import Compared
from pipelines.report.comparison.leaderboard import write_leaderboard
from pipelines.report.comparison.write import write_table
from pipelines.report.evaluation.entries import SearchShown
from pipelines.report.search.graphs import PICTURE, TABLE, StructureResult
from pipelines.report.search.trials import SearchResult
from pipelines.runs import claim, read_json
from pipelines.runs.runner import Workers
from pipelines.serve.store import build_store, discard_unused, is_built
from pipelines.train import TrainResult, train
from pipelines.tune import search, search_structure
from pipelines.tune.folder import GRAPH, SETTINGS, left_over
from pipelines.tune.registry import register, versions
from pipelines.tune.search import run_of, search_preview
from pipelines.tune.structure.search import run_of as run_of_structure
from pipelines.tune.structure.search import structure_preview

COMPARE, LEADERBOARD = "compare", "leaderboard"  # folders of the two kinds of comparisons
STORES = 3  # that are kept, beside those that are being read


@contextmanager
def on_ray(experiment: Experiment) -> Iterator[None]:
    """Inside, Ray is up, and all its nodes are fit for the experiment's work.

    Raises:
        ConfigError: no Ray, or a node that sees other places or runs other code (`pipelines.preflight`).
    """
    ray = sys.modules.get("ray")  # `connected` has things to say before it is imported
    if ray is not None and ray.is_initialized():  # within another
        yield
        return
    with connected(experiment.ray):
        logs = getattr(experiment.logs, "path", None)
        cpus = {"prepare.cpus_per_task": experiment.prepare.cpus_per_task if experiment.prepare.parallel == "ray" else 0}
        cpus |= {"train.cpus_per_worker": experiment.train.cpus_per_worker if experiment.train.workers else 0}
        preflight(experiment.folder, Needs(reads=() if logs is None else (logs,), cpus=cpus))
        yield


def logs_of(experiment: Experiment) -> CanonicalLogs:
    folder = experiment.folder / "source"
    if isinstance(experiment.logs, CanonicalConfig):
        logs = materialise(experiment.logs, folder)
        refuse_within(logs, experiment.folder)
        return logs
    config = experiment.prepare
    up = partial(on_ray, experiment) if config.parallel == "ray" else nullcontext
    work = Work(Workers(config.parallel, config.cpus_per_task), up, config.quarantine_limit)
    with claim(folder):
        return materialise(experiment.logs, folder, work)


def truth_of(experiment: Experiment) -> Path | None:
    """The simulator's own probabilities; None for real logs."""
    folder = experiment.folder / "source" / "truth"
    return folder if isinstance(experiment.logs, SimulateConfig) and folder.is_dir() else None


def check_step(experiment: Experiment) -> Checked:
    """Looks at the logs before they are prepared; days and splits are those of the tables to come."""
    days = experiment.prepare
    calendar = Calendar(
        clock=days.clock,
        valid_days=days.valid_days,
        test_days=days.test_days,
        earliest=days.earliest,
        latest=days.latest,
    )
    folder = experiment.folder / "check"
    logs = logs_of(experiment)
    with claim(folder):
        return check_logs(logs, experiment.schema, calendar, experiment.check, folder, run=experiment.name)


def prepare_step(experiment: Experiment, *, dry_run: bool = False) -> Prepared | None:
    """Logs to prepared tables; None after a dry run."""
    logs, folder = logs_of(experiment), experiment.folder / "prepared"
    with nullcontext() if dry_run else claim(folder):
        return prepare(logs, experiment.schema, experiment.prepare, folder, dry_run=dry_run)


def prepared_of(experiment: Experiment) -> Prepared:
    """The finished tables.

    Raises:
        ConfigError: not prepared yet, or prepared for another schema.
    """
    folder = experiment.folder / "prepared"
    if not folder.is_dir():
        raise ConfigError(f"nothing is prepared in {folder}. Run `python -m jobs.prepare` with the same --config and --set.")
    prepared = Prepared.open(folder)
    differing = differences(prepared.schema, experiment.schema)
    if differing:
        raise ConfigError(
            f"{folder} was prepared for another schema (they differ in {', '.join(differing)}). "
            "Run `python -m jobs.prepare` again, or give the experiment another `name`."
        )
    return replace(prepared, schema=experiment.schema)


def train_step(experiment: Experiment, *, restart: bool = False) -> TrainResult:
    prepared, folder = prepared_of(experiment), experiment.folder / "train"
    with claim(folder):
        return train(prepared, experiment.system, experiment.train, output=folder, resume=not restart)


def search_plan(experiment: Experiment, *, resume: bool = False, restart: bool = False) -> list[str]:
    """What a search is going to do, in lines, once it has been checked.

    Args:
        resume: insist that there is a search to go on with.
        restart: an earlier one is going to be thrown away.

    Raises:
        ConfigError: a space, targets or metrics that the experiment does not allow; `resume` without an earlier search.
    """
    _check_search(experiment)
    folder, spelling, path = experiment.folder / "search", to_dict(experiment), prepared_of(experiment).path
    is_structure = experiment.tune.structure is not None
    before = left_over((run_of_structure if is_structure else run_of)(folder))
    if resume and (restart or not before):
        raise ConfigError(
            "--resume goes on with the search that is there and --restart throws it away; give one of them."
            if restart
            else f"there is no search at {folder} to go on with. Start one without --resume."
        )
    plan = (structure_preview if is_structure else search_preview)(spelling, path, experiment.tune, folder, resume=not restart)
    if before:
        plan.append(f"{before} {'It is thrown away.' if restart else 'Going on with it; for a new one say --restart.'}")
    return plan


def search_step(experiment: Experiment, *, restart: bool = False) -> SearchResult | StructureResult:
    """Searches settings or the graph of targets; goes on with what was begun before, unless told to restart."""
    _check_search(experiment)
    way = search if experiment.tune.structure is None else search_structure
    folder = experiment.folder / "search"
    with claim(folder):
        return way(to_dict(experiment), prepared_of(experiment).path, experiment.tune, folder, resume=not restart)


def _check_search(experiment: Experiment) -> None:
    if experiment.tune.structure is not None:
        _refuse_store(experiment, "a search for the graph of targets", "its trainings")


def _refuse_store(experiment: Experiment, what: str, parts: str) -> None:
    if isinstance(experiment.folder, Remote):
        raise ConfigError(
            f"`output` is {experiment.output}, a store of objects, and {what} keeps {parts} in a folder that all nodes reach. "
            "Give it such an `output`; `logs` may lie in a store."
        )


def with_best(experiment: Experiment, found: SearchResult | StructureResult) -> Experiment:
    """The experiment with what a search has found in place: the best settings, or the graph of targets."""
    if isinstance(found, StructureResult):
        return replace(experiment, schema=found.schema)
    changes: dict[str, Any] = {}
    for path, value in found.best.values.items():
        changes = replaced(changes, path, value)
    return from_dict(Experiment, overlaid(to_dict(experiment), changes))


def searched_of(experiment: Experiment, bundles: Collection[Bundle]) -> SearchShown | None:
    """What the report shows of the experiment's search; None without a finished one, or where no bundle won one."""
    if not any({SETTINGS, GRAPH} & bundle.provenance.keys() for bundle in bundles):
        return None
    folder = experiment.folder / "search"
    for run, table, picture in ((run_of(folder), "search.csv", "search.png"), (run_of_structure(folder), TABLE, PICTURE)):
        if run.is_finished:
            summary = read_json(folder / run.result, way_out="Delete it and search again.")["summary"]
            return SearchShown(summary=tuple(summary), picture=folder / picture, table=folder / table)
    return None


def registry_of(experiment: Experiment) -> Path:
    return experiment.folder / "bundles"


def register_step(experiment: Experiment, bundle: Path) -> Path:
    return register(bundle, registry_of(experiment), experiment.name)


def bundle_of(experiment: Experiment, path: str | None = None) -> Bundle:
    """The bundle at `path`, or the experiment's newest registered one; a damaged one is passed over, which is said."""
    if path is not None:
        return load_bundle(place(path))
    newest, *older = versions(registry_of(experiment), experiment.name)
    try:
        return load_bundle(newest)
    except DamagedBundle as error:
        for version in older:
            with suppress(DamagedBundle):
                bundle = load_bundle(version)
                print(f"{error} Meanwhile {version.name}, the one before, is taken.", flush=True)
                return bundle
        raise


def evaluate_step(experiment: Experiment, bundles: list[Bundle]) -> Path:
    folder = experiment.folder / "report"
    with claim(folder):
        return evaluate(
            prepared_of(experiment),
            bundles,
            experiment.evaluate,
            folder,
            truth=truth_of(experiment),
            run=experiment.name,
            search=searched_of(experiment, bundles),
            live=live_of(experiment),
        )


def live_of(experiment: Experiment) -> Path | None:
    """The feeds of rooms that were live, made unless they are there; None where `evaluate.candidates` does not ask."""
    if experiment.evaluate.candidates == "logged":
        return None
    _refuse_store(experiment, "an evaluation among rooms that were live", "its feeds")
    folder = experiment.folder / "live"
    with claim(folder), on_ray(experiment) if experiment.prepare.parallel == "ray" else nullcontext():
        return live_feeds(logs_of(experiment), prepared_of(experiment), experiment.prepare, experiment.evaluate, folder)


@contextmanager
def claimed_comparison(experiment: Experiment, *, only: Collection[str] = (), folder: str = COMPARE) -> Iterator[Comparison]:
    """The comparison for a process that is going to run it, which no other does meanwhile."""
    with claim(experiment.folder / folder):
        yield comparison_of(experiment, only=only, folder=folder)


def comparison_of(experiment: Experiment, *, only: Collection[str] = (), folder: str = COMPARE) -> Comparison:
    """The experiment's comparison, with what earlier runs left of it.

    Args:
        folder: of the comparison, below the experiment's.

    Raises:
        ConfigError: there is no section `compare`, or it does not fit the prepared data.
    """
    if experiment.compare is None:
        raise ConfigError(
            "the experiment has no section `compare`. Add one, for example: "
            "compare: {systems: {mmoe: {system: mmoe}, ple: {system: ple}}, seeds: [0, 1, 2]}."
        )
    _refuse_store(experiment, "a comparison", "its cells")
    return Comparison(
        experiment.compare,
        prepared_of(experiment),
        experiment.schema,
        experiment.train,
        experiment.evaluate,
        experiment.folder / folder,
        truth_of(experiment),
        only=only,
    )


def compare_step(experiment: Experiment, comparison: Comparison, *, run: bool = True) -> Compared:
    """Runs what is left of a comparison, on Ray, and writes the table.

    Args:
        run: False writes the table of what is there.
    """
    if run:
        carry_out(comparison, OnRay(comparison.config), say=lambda line: print(line, flush=True))
    table = compared(comparison, experiment.name)
    path = write_table(comparison.output, table, experiment.schema)
    for line in (*table.warnings, *(str(each) for each in table.claims if each.test is not None)):
        print(line)
    for why, number in Counter(each.untested for each in table.claims if each.test is None).items():
        print(f"{number} {'claim is' if number == 1 else 'claims are'} not tested: {why}")
    print(f"Table: {path}")
    return table


def board_of(experiment: Experiment, systems: Sequence[str] = ()) -> tuple[Experiment, dict[str, str]]:
    """The experiment with a leaderboard's comparison in place, and why systems of the zoo cannot be on it, by name.

    Args:
        systems: of the zoo; none means all, or those of `compare.systems` where the experiment has that section.
    """
    prepared = prepared_of(experiment)
    config, left_out = board(experiment.compare, experiment.schema, prepared.encoder.table_sizes, systems)
    baselines: tuple[Baseline, ...] = tuple(dict.fromkeys((*FLOOR, *experiment.evaluate.baselines)))
    return replace(experiment, compare=config, evaluate=replace(experiment.evaluate, baselines=baselines)), left_out


def leaderboard_step(
    experiment: Experiment, comparison: Comparison, left_out: Mapping[str, str], *, run: bool = True
) -> Compared:
    """Runs what is left of a leaderboard's comparison, and writes its page and numbers beside the table.

    Args:
        experiment, left_out: of `board_of`.
        run: as in `compare_step`.
    """
    table = compare_step(experiment, comparison, run=run)
    protocol = protocol_of(comparison, experiment.logs.kind)
    path = write_leaderboard(comparison.output, table, protocol, left_out, experiment.schema)
    print(f"Leaderboard: {path}")
    return table


def store_of(experiment: Experiment) -> Path:
    """The endpoint's feature store of what is prepared now, built from its snapshot unless it is there.

    Each store has a folder of its own, since one that is being served is never written again; the last `STORES` are kept, and
    any other that is being read.
    """
    prepared, folder = prepared_of(experiment), experiment.folder / "store"
    store = folder / prepared.fingerprint
    if is_built(prepared, store):  # which may lie on a disk that can only be read, or is full
        return store
    with claim(folder):
        build_store(prepared, store)
        built = sorted(folder.glob("*/store.json"), key=lambda file: file.stat().st_mtime)
        for old in built[:-STORES]:
            if discard_unused(old.parent):
                print(f"Removed the store {old.parent}: the last {STORES} are kept, and any that is read.", flush=True)
    return store


def endpoint_of(experiment: Experiment) -> Path:
    """The folder of the endpoint of this name, while a process of its own keeps it: on this machine, as the process is."""
    run = experiment.folder
    if isinstance(run, Remote):
        run = Path("runs", experiment.name).resolve()
    return run / "serve" / experiment.serve.name
