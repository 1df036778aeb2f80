"""The one file of the search that knows Ray Tune.

What a trial has reached lies in its own training folder, never in Ray's checkpoints: a restored search starts an unfinished
trial again, training goes on from its last own checkpoint, and the table is read from the trials' histories.
"""

import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from models.config import ConfigError
from pipelines.places import reach
from pipelines.prepared import Prepared
from pipelines.ray_private import plain_tune_output
from pipelines.runs import read_json, write_text
from pipelines.train import train
from pipelines.train.progress import EpochRecord, read_history
from pipelines.tune.config import Choice, Int, LogUniform, TuneConfig, Uniform, checked, schema_of
from pipelines.tune.objectives import Objectives

OBJECTIVE, EPOCH, OF_EPOCH = "objective", "epoch", "scores_of_epoch"
EXPERIMENT = "search"
NUMBERS = "numbers.json"
REFUSED = "refused.txt"  # in the folder of a trial whose values do not go together: why


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every trial needs, by value; data by path.

    Attributes:
        objectives: what trials are judged by.
    """

    spelling: Mapping[str, Any]
    prepared: Path
    folder: Path
    config: TuneConfig
    epochs: int
    objectives: Objectives

    @property
    def trials(self) -> Path:
        """Training folders, by trial id."""
        return self.folder / "trials"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial as Ray knows it at the end.

    Attributes:
        number: from 1, in the order in which trials began.
        failure: why it failed, in one line; None if it did not.
        refusal: why its values do not go together, in one line; None if they do.
    """

    number: int
    id: str
    values: dict[str, Any]
    failure: str | None
    refusal: str | None


def run_trials(job: Job, say: Callable[[str], None]) -> list[Ended]:
    """Runs the search, or what is left of it, to its end."""
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C stops at once; the next start goes on
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")  # so much of the search's state a kill can cost
    plain_tune_output()
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a refused trial reports nothing
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A trial that was begun again counts its reports from 1 once more; Optuna keeps the first ones.
    warnings.filterwarnings("ignore", "The reported value is ignored", module="optuna")
    config = job.config
    trainable = tune.with_resources(
        tune.with_parameters(_trial, job=job), {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
    )
    storage, file_system = reach(job.folder / "ray")
    earlier = f"{storage}/{EXPERIMENT}"
    Lines.say = staticmethod(say)
    if tune.Tuner.can_restore(earlier, storage_filesystem=file_system):
        say(f"Going on with the search in {job.folder}.")
        tuner = tune.Tuner.restore(
            earlier,
            storage_filesystem=file_system,
            trainable=trainable,
            resume_unfinished=True,
            restart_errored=False,
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={path: _domain(dimension) for path, dimension in config.space.items()},
            tune_config=tune.TuneConfig(
                num_samples=config.trials,
                max_concurrent_trials=config.max_concurrent if config.searcher != "random" else None,  # it limits itself
                search_alg=_searcher(config, job.objectives),
                scheduler=_scheduler(config, job),
                trial_dirname_creator=lambda trial: trial.trial_id,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=EXPERIMENT,
                storage_path=storage,
                storage_filesystem=file_system,
                failure_config=tune.FailureConfig(max_failures=1),  # a lost worker is no reason to give a trial up
                callbacks=[Lines(job)],
                verbose=0,
            ),
        )
    grid = tuner.fit()
    return [
        Ended(
            number=number_of(Path(result.path).name, job),
            id=Path(result.path).name,
            values=sampled_values(result.config or {}, config),
            failure=one_line(result.error) if result.error is not None else None,
            refusal=refusal(job.trials / Path(result.path).name),
        )
        for result in (grid[i] for i in range(len(grid)))
    ]


def number_of(id: str, job: Job) -> int:
    """Number of a trial; a new one gets the next. Kept in a file, because a restored search has its trials in another order."""
    file = job.folder / NUMBERS
    numbers: dict[str, int] = read_json(file, way_out="Start the search anew (--restart).") if file.exists() else {}
    if id not in numbers:
        numbers[id] = len(numbers) + 1
        write_text(file, json.dumps(numbers))
    return numbers[id]


def sampled_values(sampled: Mapping[str, Any], config: TuneConfig) -> dict[str, Any]:
    """Values by path; choices are sampled by number, because searchers take plain values only."""
    values = {}
    for path, dimension in config.space.items():
        value = sampled[path]
        values[path] = dimension.values[int(value)] if isinstance(dimension, Choice) else value
        if isinstance(dimension, Int):
            values[path] = int(value)
    return values


def refusal(folder: Path) -> str | None:
    """Why the trial of this folder was refused, in one line; None if it was not."""
    file = folder / REFUSED
    return " ".join(file.read_text(encoding="utf-8").split()) if file.exists() else None


def one_line(error: BaseException) -> str:
    """The innermost error of a trial, type and message; Ray hands on whole traces as text."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _trial(sampled: dict[str, Any], job: Job) -> None:
    """One training; it reports the objective to Tune after every epoch, and so may be stopped there.

    Values that do not go together are no failure, which Tune would try again: the trial ends without having reported anything,
    which Tune's searchers take for a pruned one.
    """
    folder = job.trials / tune.get_context().get_trial_id()
    prepared = Prepared.open(job.prepared, schema=schema_of(job.spelling))
    try:
        model, train_config = checked(job.spelling, sampled_values(sampled, job.config), job.config, prepared.schema)
    except ConfigError as error:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / REFUSED, str(error))
        return
    reported: list[int] = []  # epochs
    best = job.objectives.best(read_history(folder))  # of the epochs before a kill

    def report(record: EpochRecord) -> None:
        reported.append(record.epoch)
        nonlocal best
        best = record if best is None else job.objectives.best([best, record])
        # asha compares trials of one age; a searcher that sees them at their end learns of the epoch that the bundle is of
        shown = record if job.config.scheduler_taken == "asha" or best is None else best
        scores = dict(zip(names_of(job.objectives), job.objectives.scores(shown).values(), strict=True))
        tune.report({**scores, EPOCH: record.epoch + 1, OF_EPOCH: list(job.objectives.scores(record).values())})

    result = train(prepared, model, train_config, output=folder, on_epoch=report)
    if result.history[-1].epoch not in reported:  # the training was over, but Tune had not heard of its end
        report(result.history[-1])


def _domain(dimension: Choice | Uniform | LogUniform | Int) -> Any:
    match dimension:
        case Choice(values=values):
            return tune.choice(list(range(len(values))))
        case Uniform(low=low, high=high):
            return tune.uniform(low, high)
        case LogUniform(low=low, high=high):
            return tune.loguniform(low, high)
        case Int(low=low, high=high, log=log):
            return tune.lograndint(low, high + 1) if log else tune.randint(low, high + 1)


def names_of(objectives: Objectives) -> list[str]:
    """What Ray Tune knows the metrics by."""
    return [OBJECTIVE, *(f"{OBJECTIVE}_{place}" for place in range(2, len(objectives.names) + 1))]


def _searcher(config: TuneConfig, objectives: Objectives) -> Any:
    if config.searcher == "random":
        return BasicVariantGenerator(random_state=config.seed, max_concurrent=config.max_concurrent)
    if len(objectives.names) == 1:
        return OptunaSearch(metric=OBJECTIVE, mode=objectives.modes[0], seed=config.seed)
    return OptunaSearch(metric=names_of(objectives), mode=list(objectives.modes), seed=config.seed)


def _scheduler(config: TuneConfig, job: Job) -> TrialScheduler:
    if config.scheduler_taken == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        metric=OBJECTIVE,
        mode=job.objectives.modes[0],
        time_attr=EPOCH,
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction,
        max_t=max(job.epochs, config.grace_epochs) + 1,  # one more: who reaches the last epoch ends by itself
    )


class Lines(TrialProgressCallback):
    """Says a line for every epoch and every end of a trial, in the place of Ray's own lines.

    Ray saves its callbacks with the search and restores them from there, so where lines go is no part of the object.
    """

    say: Callable[[str], None]

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.best: float | None = None

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        value = result[OF_EPOCH][0]
        if self.best is None:
            self.best = self._best_before(trial.trial_id, result[EPOCH])
        better = self.best is None or self.job.objectives.monitor.is_better(value, self.best)
        self.best = value if better else self.best
        names_of_paths = short_names(list(self.job.config.space))
        spelled = ", ".join(f"{names_of_paths[path]} {short(v)}" for path, v in self._values(trial).items())
        mark = " (best so far)" if better else ""
        names = self.job.objectives.names
        first, *others = (f"{name} {score:.4f}" for name, score in zip(names, result[OF_EPOCH], strict=True))
        scores = " · ".join([first + mark, *others])
        self.say(f"{self._name(trial)} · epoch {result[EPOCH]} · {scores} · {spelled}")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        over = sum(other is trial or other.is_finished() for other in trials)
        reason = refusal(self.job.trials / trial.trial_id)
        ended = "is over" if reason is None else f"was refused: {reason}"
        self.say(f"{self._name(trial)} {ended} · {over} of {self.job.config.trials} trials")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() if hasattr(trial, "get_pickled_error") else None
        self.say(f"{self._name(trial)} failed" + (f": {one_line(error)}" if error is not None else ""))

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        number_of(trial.trial_id, self.job)

    def _best_before(self, id: str, epoch: int) -> float | None:
        """What a search that goes on had reached before the first epoch that it tells of."""
        records = [
            record
            for folder in self.job.trials.glob("*")
            for record in read_history(folder)
            if (folder.name, record.epoch + 1) != (id, epoch)
        ]
        best = self.job.objectives.best(records)
        return None if best is None else best.monitor

    def _name(self, trial: Any) -> str:
        return f"trial {number_of(trial.trial_id, self.job)}"

    def _values(self, trial: Any) -> dict[str, Any]:
        return sampled_values(trial.config, self.job.config)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last parts of paths, as many as tell them apart.

    >>> short_names(["train.optimiser.dense.rate", "train.optimiser.tables.rate", "train.epochs"]).values()
    dict_values(['dense.rate', 'tables.rate', 'epochs'])
    """
    found = {}
    for path in paths:
        parts = path.split(".")
        suffixes = (".".join(parts[-count:]) for count in range(1, len(parts)))
        alike = lambda suffix: sum(f".{other}".endswith(f".{suffix}") for other in paths)
        found[path] = next((suffix for suffix in suffixes if alike(suffix) == 1), path)
    return found


def short(value: Any) -> str:
    """A sampled value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
