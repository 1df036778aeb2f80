"""A round of a structure search as trials of Ray Tune: a grid over graphs and seeds.

As in `ray_tune`, what a trial has reached lies in its own training folder, never in Ray's checkpoints; a round that was
killed is simply asked for again, less what is finished.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from pipelines.prepared import Prepared
from pipelines.ray_private import plain_tune_output
from pipelines.train import train
from pipelines.train.progress import EpochRecord
from pipelines.train.worker import CHECKPOINTS
from pipelines.tune.ray_tune import EPOCH, OBJECTIVE, one_line
from pipelines.tune.structure.problem import Problem, Seeded

Over = Callable[[Seeded, str | None], None]


def run_trainings(problem: Problem, trainings: Sequence[Seeded], round: int, over: Over) -> None:
    """Trains them, as many at a time as `tune.max_concurrent` says.

    Args:
        round: names the Tune run.
        over: called at the end of each, in this process, with the reason in one line if it failed.
    """
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C stops at once; the next start goes on
    plain_tune_output()
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    config = problem.config
    trainable = tune.with_resources(
        tune.with_parameters(_trial, problem=problem, trainings=list(trainings)),
        {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial},
    )
    storage = problem.folder / "ray"
    shutil.rmtree(storage, ignore_errors=True)
    Ends.over, Ends.trainings = staticmethod(over), list(trainings)
    tune.Tuner(
        trainable,
        param_space={"place": tune.grid_search(list(range(len(trainings))))},
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            max_concurrent_trials=config.max_concurrent,
            trial_dirname_creator=lambda trial: trial.trial_id,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"round-{round}",
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=1),  # a lost worker is no reason to give a graph up
            callbacks=[Ends()],
            verbose=0,
        ),
    ).fit()
    shutil.rmtree(storage, ignore_errors=True)


def _trial(sampled: dict[str, Any], problem: Problem, trainings: list[Seeded]) -> None:
    graph, seed = trainings[sampled["place"]]
    folder = problem.folder_of(graph, seed)
    model, train_config = problem.settings(seed)
    prepared = Prepared.open(problem.prepared, schema=problem.schema_with(graph))
    reported = []  # epochs

    def report(record: EpochRecord) -> None:
        reported.append(record.epoch)
        tune.report({OBJECTIVE: record.monitor, EPOCH: record.epoch + 1})

    result = train(prepared, model, train_config, output=folder, on_epoch=report)
    if result.history[-1].epoch not in reported:  # the training was over, but Tune had not heard of its end
        report(result.history[-1])
    problem.score(graph, seed)  # fails here if the metrics are not what the score needs
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # the bundle, history and curves stay


class Ends(TrialProgressCallback):
    """Passes on that trainings have ended, in the place of Ray's own lines.

    Ray saves its callbacks with the run, so who is called is no part of the object.
    """

    over: Over
    trainings: list[Seeded]

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None: ...

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None: ...

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.over(self.trainings[trial.config["place"]], None)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error()
        self.over(self.trainings[trial.config["place"]], one_line(error) if error is not None else "the trial failed")
