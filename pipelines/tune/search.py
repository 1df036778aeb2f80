"""The search for the best configuration: checked before it starts, resumable, left as a table, a picture and a bundle."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from models.config import ConfigError, to_dict
from models.system import ranker_without_weights
from pipelines.places import is_whole, place
from pipelines.prepared import Prepared
from pipelines.report.search.picture import draw
from pipelines.report.search.trials import Axis, SearchResult, Trial
from pipelines.runs import RunFolder, read_json, write_json, write_text
from pipelines.train.defined import check_defined
from pipelines.train.monitor import Monitor
from pipelines.train.progress import read_history
from pipelines.train.training import identity_of as identity_of_training
from pipelines.tune.config import Choice, Int, LogUniform, TuneConfig, check_space, configs, schema_of
from pipelines.tune.folder import SETTINGS, WAY_OUT, note, say_where_to_watch
from pipelines.tune.objectives import Objectives, objectives_of

RESULT = "search.json"


def search_preview(
    experiment_spelling: Mapping[str, Any], prepared_path: Path, config: TuneConfig, output: Path, resume: bool = True
) -> list[str]:
    """What `search` is going to do with these, in lines.

    Raises:
        ConfigError: as `search`, of what can be known before it starts.
    """
    prepared, objectives, tried = _checked(experiment_spelling, place(prepared_path).resolve(), config)
    if resume:
        run_of(output).refuse_another(identity_of(experiment_spelling, prepared, config), way_out=WAY_OUT)
    largest = {"max": "large", "min": "small"}
    wanted = ", ".join(f"{name} ({largest[mode]})" for name, mode in zip(objectives.names, objectives.modes, strict=True))
    ends = {"asha": "stops trials that are behind (asha)", "none": "trains all trials to their end"}[config.scheduler_taken]
    width = max(map(len, config.space))
    return [
        f"Search: {config.trials} trials of at most {_most_epochs(experiment_spelling, config)} epochs on {prepared.path}, "
        f"{config.max_concurrent} at a time; {config.searcher}, {ends}.",
        f"By validation metrics: {wanted}",
        *(f"  {path:<{width}}  {dimension}" for path, dimension in config.space.items()),
        f"Checked: {tried} combinations of ends build rankers. Results: {output}",
    ]


def _checked(spelling: Mapping[str, Any], prepared_path: Path, config: TuneConfig) -> tuple[Prepared, Objectives, int]:
    """The data, what is searched by, and how many combinations of values were tried out."""
    prepared = Prepared.open(prepared_path, schema=schema_of(spelling))
    if not prepared.files("valid"):
        raise ConfigError(f"`{prepared_path}` has no validation feeds to search by; set prepare.valid_days to 1 or more.")
    tried = check_space(spelling, config, prepared.schema)
    model, train = configs(spelling, {}, config)
    trained = ranker_without_weights(prepared.schema, model).trained
    check_defined(prepared, config.metrics or (train.monitor,), trained, "tune.metric" if config.metrics else "train.monitor")
    return prepared, objectives_of(config, Monitor(prepared.schema, train.monitor, trained)), tried


def search(
    experiment_spelling: Mapping[str, Any],
    prepared_path: Path,
    config: TuneConfig,
    output: Path,
    resume: bool = True,
    *,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> SearchResult:
    """Searches with Ray Tune over `model` and `train` of an experiment; Ray must be up (`pipelines.cluster.connected`).

    Started again after a kill it goes on; started on a finished search it says so and does nothing.

    Args:
        experiment_spelling: the experiment as plain dicts; its `model` and `train` sections are what varies. Targets are
            trained for as its `schema` says, or as the folder's where it has none.
        prepared_path: the prepared folder; all nodes must reach it.
        output: holds `search.csv`, `search.md`, `search.png`, `trials/` and Ray's own state; all nodes must reach it.
        resume: False throws away what an earlier search left in `output`.

    Raises:
        ConfigError: a path or value of the space that the experiment does not allow, an `output` that holds another search,
            no validation feeds, or every trial failed.
    """
    output, prepared_path = place(output).resolve(), place(prepared_path).resolve()
    prepared, objectives, _ = _checked(experiment_spelling, prepared_path, config)
    run = run_of(output)
    if resume is False:
        run.clear()
    run.begin(identity_of(experiment_spelling, prepared, config), way_out=WAY_OUT)
    if run.is_finished:
        finished = _finished(output, objectives.names[0])
        say(f"Already searched: {finished.table}. For a new search give another output folder, or --restart (resume=False).")
        return finished

    from pipelines.tune.ray_tune import Job, run_trials  # only here is Ray needed

    say_where_to_watch(f"Searching with {config.trials} trials.", output / "trials", config, say)
    job = Job(
        spelling=experiment_spelling,
        prepared=prepared_path,
        folder=output,
        config=config,
        epochs=_most_epochs(experiment_spelling, config),
        objectives=objectives,
    )
    trials = [
        _trial(ended.number, ended.id, ended.values, ended.failure, job.trials / ended.id, objectives, ended.refusal)
        for ended in sorted(run_trials(job, say), key=lambda ended: ended.number)
    ]
    trials = _with_front(_sorted(trials, objectives), objectives)
    _write_tables(output, trials, config, objectives)
    for trial in trials:
        if trial.reason:
            say(f"trial {trial.number} {'failed' if trial.status == 'failed' else 'was refused'}: {trial.reason}")
    done = [trial for trial in trials if trial.status == "done" and trial.score is not None]
    if not done:
        reasons = dict.fromkeys(trial.reason for trial in trials if trial.reason)
        raise ConfigError(f"no trial of {len(trials)} was trained to its end: {'; '.join(reasons) or 'see ' + str(job.trials)}")
    draw(output / "search.png", trials, axes_of(config), objectives.names, largest=objectives.modes[0] == "max")
    best = done[0]
    bundle = job.trials / best.id / "bundle"
    won = {"trial": best.number, "trials": len(trials), "metric": objectives.names[0]}
    note(bundle, SETTINGS, {**won, "values": best.values, "scores": best.scores})
    result = SearchResult(trials=trials, best=best, bundle_path=bundle, metric=objectives.names[0], folder=output, fresh=True)
    lines = _summary(result, objectives)
    write_json(output / RESULT, {"trials": [asdict(trial) for trial in trials], "best": best.number, "summary": lines})
    for line in lines:
        say(line)
    say(f"Table: {result.table} · picture: {result.picture} · bundle: {bundle}")
    return result


def _summary(result: SearchResult, objectives: Objectives) -> list[str]:
    """Who won, and of several metrics who else is on the front, in lines."""
    best = result.best
    spelled = ", ".join(
        f"{path} = {f'{value:.4g}' if isinstance(value, float) else value}" for path, value in best.values.items()
    )
    scores = ", ".join(f"{name} {value:.4f}" for name, value in best.scores.items())
    lines = [f"Best of {len(result.trials)} trials: trial {best.number}, {scores} with {spelled}"]
    if len(objectives.names) > 1:
        front = ", ".join(
            f"{trial.number} ({' / '.join(f'{value:.4f}' for value in trial.scores.values())})" for trial in result.front
        )
        lines.append(f"It wins by {objectives.names[0]}; none is better in all of {', '.join(objectives.names)} than: {front}")
    return lines


def run_of(output: Path) -> RunFolder:
    return RunFolder(place(output), RESULT)


def identity_of(spelling: Mapping[str, Any], prepared: Prepared, config: TuneConfig) -> dict[str, Any]:
    """What makes a search this one; how many trials run at a time does not."""
    model, train = configs(spelling, {}, config)
    execution = {"max_concurrent", "cpus_per_trial", "gpus_per_trial"}
    tune = {name: value for name, value in to_dict(config).items() if name not in execution}
    return {**identity_of_training(prepared.fingerprint, prepared.schema, model, train), "tune": tune}


def _finished(output: Path, metric: str) -> SearchResult:
    found = read_json(output / RESULT, way_out="Delete it and start again.")
    trials = [Trial(**trial) for trial in found["trials"]]
    best = next(trial for trial in trials if trial.number == found["best"])
    bundle = output / "trials" / best.id / "bundle"
    return SearchResult(trials=trials, best=best, bundle_path=bundle, metric=metric, folder=output, fresh=False)


def _sorted(trials: list[Trial], objectives: Objectives) -> list[Trial]:
    """The best first, refused and failed ones last."""
    sign = -1 if objectives.modes[0] == "max" else 1
    merit = lambda trial: math.inf if trial.score is None else sign * trial.score
    return sorted(trials, key=lambda trial: (trial.status in ("refused", "failed"), merit(trial)))


def _with_front(trials: list[Trial], objectives: Objectives) -> list[Trial]:
    done = [trial for trial in trials if trial.status == "done" and trial.scores]
    front = {done[place].number for place in objectives.front([trial.scores for trial in done])}
    return [replace(trial, front=trial.number in front) for trial in trials]


def _most_epochs(spelling: Mapping[str, Any], config: TuneConfig) -> int:
    at_ends = config.space["train.epochs"].ends() if "train.epochs" in config.space else ()
    return max([int(value) for value in at_ends] or [configs(spelling, {}, config)[1].epochs])


def _trial(
    number: int,
    id: str,
    values: dict[str, Any],
    failure: str | None,
    folder: Path,
    objectives: Objectives,
    refusal: str | None = None,
) -> Trial:
    """Reads from a trial's training folder what it has reached."""
    history = read_history(folder)
    done = is_whole(folder / "bundle")
    best = objectives.best(history)
    if done:  # which knows best what it is of
        file = folder / "bundle" / "provenance.json"
        best = history[read_json(file, way_out=f"Delete {file.parent} and start again.")["best_epoch"] - 1]
    return Trial(
        number=number,
        id=id,
        status="failed" if failure else "refused" if refusal else "done" if done else "stopped",
        values=values,
        score=best.monitor if best else None,
        scores=objectives.scores(best) if best else {},
        best_epoch=best.epoch + 1 if best else None,
        epochs=len(history),
        seconds=round(sum(record.seconds for record in history), 1),
        reason=failure or refusal or "",
    )


# -- what is left --------------------------------------------------------------------------------------------------


def _write_tables(output: Path, trials: Sequence[Trial], config: TuneConfig, objectives: Objectives) -> None:
    several = len(objectives.names) > 1
    heads = [
        "trial",
        "status",
        *objectives.names,
        *(["front"] if several else []),
        "best_epoch",
        "epochs",
        "seconds",
        *config.space,
        "reason",
    ]
    rows = [
        [
            trial.number,
            trial.status,
            *(f"{trial.scores[name]:.6f}" if name in trial.scores else "" for name in objectives.names),
            *([("yes" if trial.front else "")] if several else []),
            trial.best_epoch or "",
            trial.epochs,
            trial.seconds,
            *(_spelled(trial.values[path], config, path) for path in config.space),
            trial.reason,
        ]
        for trial in trials
    ]
    table = io.StringIO()
    csv.writer(table).writerows([heads, *rows])
    write_text(output / "search.csv", table.getvalue())
    line = lambda cells: "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
    write_text(output / "search.md", "\n".join(map(line, [heads, ["---"] * len(heads), *rows])) + "\n")


def axes_of(config: TuneConfig) -> list[Axis]:
    """The settings that are searched over, as the picture's axes."""
    return [
        Axis(
            path=path,
            choices=dimension.values if isinstance(dimension, Choice) else (),
            is_log=isinstance(dimension, LogUniform) or (isinstance(dimension, Int) and dimension.log),
            is_whole=isinstance(dimension, Int),
        )
        for path, dimension in config.space.items()
    ]


def _spelled(value: Any, config: TuneConfig, path: str) -> str:
    if isinstance(config.space[path], Choice):
        return value if isinstance(value, str) else json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
