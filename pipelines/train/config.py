"""How a ranker is trained: everything that is no part of the ranker itself."""

from dataclasses import field as default
from typing import Literal

from models.config import config
from models.optim import OptimiserConfig


@config
class TrainConfig:
    """How one ranker is trained; the section `train` of an experiment.

    Attributes:
        epochs: passes over the training split at most.
        max_steps: optimisation steps at most, over all epochs; None for no such limit.
        batch_feeds: feeds of one optimisation step, all workers together.
        shuffle_row_groups: row groups of the feed table that are shuffled together; memory grows with it. A multiple of
            `workers` gives all of them equal shares.
        seed: of weights and data order. What training draws besides (dropout, hidden ids, labels shown or hidden) belongs to
            the rows (`models.layers.draws`).
        optimiser: of dense parameters and of embedding tables.
        delayed: labels whose window has not closed yet (`prepare.open_labels: mask`). `wait` leaves them out until it has;
            `corrected` learns binary targets from what is known of them so far, by how many positives arrive by when (see
            `models.losses`).
        monitor: the validation metric that decides the best epoch, as `target.metric` or `mean.metric` (`mean.gauc_feed`,
            `click.log_loss`); None takes the mean AUC over binary targets that are trained for.
        patience: epochs without a better `monitor` before training stops. They count from the end of a curriculum on (pimm),
            and learners that plan the whole training (cmlir, finetune) are not stopped.
        workers: 0 trains in this process, without Ray; from 1 on Ray Train starts that many.
        cpus_per_worker: logical CPUs that Ray reserves for a worker.
        threads: PyTorch threads of a worker.
        device: `auto` takes a GPU where there is one (for each worker).
        precision: of the forward pass; `auto` is bf16 on a GPU, float32 elsewhere. Weights, losses and optimiser stay float32.
        reader: `thread` reads and decodes in each worker, one window ahead; `ray_data` does it in Ray Data tasks, on any
            node of the cluster (needs `workers` >= 1). The order of feeds is the same.
        checkpoint_every_steps: besides the checkpoint after every epoch; None for none. One holds weights and optimiser
            states, with Adam three times the tables, and is written while training goes on; until then the first worker has
            a copy of it in memory, and the next checkpoint waits for it. With cmlir and finetune it waits for the end of a
            round.
        max_failures: how often Ray Train starts lost workers again before it gives up.
        timeout_seconds: how long a worker waits for a sign of life from the others before it takes them for lost. It bounds
            a single step, and neither validation nor the writing of checkpoints.
    """

    epochs: int = 10
    max_steps: int | None = None
    batch_feeds: int = 256
    shuffle_row_groups: int = 16
    seed: int = 0
    optimiser: OptimiserConfig = default(default_factory=OptimiserConfig)
    delayed: Literal["wait", "corrected"] = "wait"
    monitor: str | None = None
    patience: int = 2
    workers: int = 0
    cpus_per_worker: float = 1.0
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    reader: Literal["thread", "ray_data"] = "thread"
    checkpoint_every_steps: int | None = 2000
    max_failures: int = 2
    timeout_seconds: int = 300

    def __post_init__(self) -> None:
        at_least_one = ("epochs", "max_steps", "batch_feeds", "shuffle_row_groups", "patience", "threads", "timeout_seconds")
        for name in (*at_least_one, "checkpoint_every_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"train.{name} must be at least 1, got {value}.")
        for name in ("workers", "max_failures", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}.")
        if self.cpus_per_worker <= 0:
            raise ValueError(f"train.cpus_per_worker must be above 0, got {self.cpus_per_worker}.")
        if self.workers == 0 and self.reader == "ray_data":
            raise ValueError("train.reader `ray_data` needs Ray: set train.workers >= 1, or train.reader to `thread`.")


# These decide how fast a run goes and where. Its result is the same up to the order of sums, so a run may go on with others.
EXECUTION = {
    "workers",
    "cpus_per_worker",
    "threads",
    "reader",
    "checkpoint_every_steps",
    "max_failures",
    "timeout_seconds",
}
