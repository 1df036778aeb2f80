"""The search for the best configuration: checked before it starts, resumable, left as a table, a picture and a bundle."""

import csv
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from models.config import ConfigError, to_dict
from pipelines.prepare.prepared import Prepared
from pipelines.train.monitor import Monitor
from pipelines.tune.config import Choice, TuneConfig, check_space, configs, schema_of
from pipelines.tune.folder import claim, note, say_where_to_watch, write_json
from pipelines.tune.picture import draw

Status = Literal["done", "stopped", "refused", "failed"]
RESULT = "search.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One line of the search's table.

    Attributes:
        number: from 1, in the order in which trials were started.
        status: `done`, `stopped` early because others were better, `refused` because the values do not go together, or
            `failed`.
        values: what was sampled, by path.
        score: the metric of its best epoch; None if no epoch was finished.
        best_epoch: counted from 1.
        seconds: of training steps.
        reason: of a refusal or a failure, in one line.
    """

    number: int
    id: str
    status: Status
    values: dict[str, Any]
    score: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a finished search leaves.

    Attributes:
        trials: the best first; refused and failed ones last.
        best: the best that was trained to its end.
        bundle_path: its bundle, in the trial's folder.
        fresh: False if the search had been finished before.
    """

    trials: list[Trial]
    best: Trial
    bundle_path: Path
    metric: str
    folder: Path
    fresh: bool

    @property
    def table(self) -> Path:
        return self.folder / "search.csv"

    @property
    def picture(self) -> Path:
        return self.folder / "search.png"


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
    output, prepared_path = Path(output).resolve(), Path(prepared_path).resolve()
    prepared = Prepared.open(prepared_path, schema=schema_of(experiment_spelling))
    if not prepared.files("valid"):
        raise ConfigError(f"`{prepared_path}` has no validation feeds to search by; set prepare.valid_days to 1 or more.")
    check_space(experiment_spelling, config, prepared.schema)
    monitor = Monitor(prepared.schema, configs(experiment_spelling, {}, config)[1].monitor)
    mode = "min" if monitor.is_better(0.0, 1.0) else "max"
    if resume is False:
        shutil.rmtree(output, ignore_errors=True)
    claim(output, _identity(experiment_spelling, prepared, config))
    finished = _finished(output, monitor.name)
    if finished is not None:
        say(f"Already searched: {finished.table}. For a new search give another output folder or resume=False.")
        return finished

    from pipelines.tune.ray_tune import Job, run_trials  # only here is Ray needed

    say_where_to_watch(f"Searching with {config.trials} trials.", output / "trials", config, say)
    job = Job(
        spelling=experiment_spelling,
        prepared=prepared_path,
        folder=output,
        config=config,
        epochs=_most_epochs(experiment_spelling, config),
        metric=monitor.name,
        mode=mode,
    )
    trials = [
        _trial(ended.number, ended.id, ended.values, ended.failure, job.trials / ended.id, monitor, ended.refusal)
        for ended in sorted(run_trials(job, say), key=lambda ended: ended.number)
    ]
    worst = -math.inf if mode == "max" else math.inf
    trials.sort(key=lambda trial: worst if trial.score is None else trial.score, reverse=mode == "max")
    trials.sort(key=lambda trial: trial.status in ("refused", "failed"))
    _write_tables(output, trials, config, monitor.name)
    for trial in trials:
        if trial.reason:
            say(f"trial {trial.number} {'failed' if trial.status == 'failed' else 'was refused'}: {trial.reason}")
    done = [trial for trial in trials if trial.status == "done" and trial.score is not None]
    if not done:
        reasons = dict.fromkeys(trial.reason for trial in trials if trial.reason)
        raise ConfigError(f"no trial of {len(trials)} was trained to its end: {'; '.join(reasons) or 'see ' + str(job.trials)}")
    draw(output / "search.png", trials, config, monitor.name, mode)
    best = done[0]
    bundle = job.trials / best.id / "bundle"
    note(bundle, "search", {"trial": best.number, "trials": len(trials), "metric": monitor.name, "values": best.values})
    result = SearchResult(trials=trials, best=best, bundle_path=bundle, metric=monitor.name, folder=output, fresh=True)
    write_json(output / RESULT, {"trials": [asdict(trial) for trial in trials], "best": best.number})
    spelled = ", ".join(f"{path} = {value}" for path, value in best.values.items())
    say(f"Best of {len(trials)} trials: trial {best.number}, {monitor.name} {best.score:.4f} with {spelled}")
    say(f"Table: {result.table} · picture: {result.picture} · bundle: {bundle}")
    return result


def _identity(spelling: Mapping[str, Any], prepared: Prepared, config: TuneConfig) -> dict[str, Any]:
    """What makes a search this one; how many trials run at a time does not."""
    model, train = configs(spelling, {}, config)
    execution = {"max_concurrent", "cpus_per_trial", "gpus_per_trial"}
    return {
        "data": prepared.fingerprint,
        "schema": prepared.schema.to_dict(),
        "model": to_dict(model),
        "train": {name: value for name, value in to_dict(train).items() if name != "threads"},
        "tune": {name: value for name, value in to_dict(config).items() if name not in execution},
    }


def _finished(output: Path, metric: str) -> SearchResult | None:
    if not (output / RESULT).exists():
        return None
    found = json.loads((output / RESULT).read_text())
    trials = [Trial(**trial) for trial in found["trials"]]
    best = next(trial for trial in trials if trial.number == found["best"])
    bundle = output / "trials" / best.id / "bundle"
    return SearchResult(trials=trials, best=best, bundle_path=bundle, metric=metric, folder=output, fresh=False)


def _most_epochs(spelling: Mapping[str, Any], config: TuneConfig) -> int:
    at_ends = config.space["train.epochs"].ends() if "train.epochs" in config.space else ()
    return max([int(value) for value in at_ends] or [configs(spelling, {}, config)[1].epochs])


def _trial(
    number: int,
    id: str,
    values: dict[str, Any],
    failure: str | None,
    folder: Path,
    monitor: Monitor,
    refusal: str | None = None,
) -> Trial:
    """Reads from a trial's training folder what it has reached."""
    file = folder / "history.json"
    history: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    best: dict[str, Any] | None = None
    for record in history:
        if best is None or monitor.is_better(record["monitor"], best["monitor"]):
            best = record
    done = (folder / "bundle").is_dir()
    return Trial(
        number=number,
        id=id,
        status="failed" if failure else "refused" if refusal else "done" if done else "stopped",
        values=values,
        score=best["monitor"] if best else None,
        best_epoch=best["epoch"] + 1 if best else None,
        epochs=len(history),
        seconds=round(sum(record["seconds"] for record in history), 1),
        reason=failure or refusal or "",
    )


# -- what is left --------------------------------------------------------------------------------------------------


def _write_tables(output: Path, trials: Sequence[Trial], config: TuneConfig, metric: str) -> None:
    heads = ["trial", "status", metric, "best_epoch", "epochs", "seconds", *config.space, "reason"]
    rows = [
        [
            trial.number,
            trial.status,
            "" if trial.score is None else f"{trial.score:.6f}",
            trial.best_epoch or "",
            trial.epochs,
            trial.seconds,
            *(_spelled(trial.values[path], config, path) for path in config.space),
            trial.reason,
        ]
        for trial in trials
    ]
    with (output / "search.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])
    line = lambda cells: "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
    (output / "search.md").write_text("\n".join(map(line, [heads, ["---"] * len(heads), *rows])) + "\n", encoding="utf-8")


def _spelled(value: Any, config: TuneConfig, path: str) -> str:
    if isinstance(config.space[path], Choice):
        return value if isinstance(value, str) else json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
