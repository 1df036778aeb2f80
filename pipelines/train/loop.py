"""The training loop: the same for one process and for many workers, and it knows neither Ray nor files.

Not torch's DistributedDataParallel: it averages gradients of equal shares and knows dense parameters only. Learners here
add sums and counts over all workers themselves, table rows included, so any number of workers takes the same step.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol

import torch

from models.batch import FeedBatch
from models.learners.workers import WorkerGroup
from models.leveled import Leveled
from models.ranker import Ranker
from pipelines.train.checkpoint import Checkpoints
from pipelines.train.config import TrainConfig
from pipelines.train.monitor import Monitor
from pipelines.train.probing import Probing, alarms_of, values_of
from pipelines.train.progress import Progress
from pipelines.train.stream import StoredFeeds, Stream
from pipelines.train.validation import validate

STRETCHES = 10  # of an epoch, over each of which the learner's diagnostics are averaged


class Learner(Protocol):
    """What the loop asks of a filling of the learner slot (`models.learners`)."""

    @property
    def at_rest(self) -> bool: ...

    @property
    def patience_from(self) -> float: ...

    @property
    def is_selectable(self) -> bool: ...

    def step(self, batch: FeedBatch | None, progress: float) -> Mapping[str, tuple[float, float]]: ...
    def diagnostics(self) -> Mapping[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Reports(Protocol):
    """What the loop asks of whoever reports on a run (`report`)."""

    def begin(self, progress: Progress, steps: int, epochs: int) -> None: ...
    def step(self, progress: Progress) -> None: ...
    def epoch(self, progress: Progress) -> None: ...
    def close(self) -> None: ...


def fit(
    learner: Learner,
    ranker: Ranker | Leveled,
    stream: Stream,
    valid: StoredFeeds,
    config: TrainConfig,
    report: Reports,
    checkpoint: Checkpoints,
    group: WorkerGroup,
) -> Progress:
    """Trains until the epochs are over or validation stops getting better; goes on from the last checkpoint.

    Every rank calls it with its own streams; all return the same progress but for `seconds`.
    """
    monitor = Monitor(stream.schema, config.monitor, ranker.trained)
    progress = checkpoint.restore(ranker, learner, group)  # every rank, the same files
    report.begin(progress, stream.steps, config.epochs)
    probe = Probing.of(ranker, valid.groups or stream.order.groups, stream.schema, group)
    with checkpoint, closing(report):
        if not progress.total_steps:
            progress.at_start = values_of(probe())
            progress.add_probes(progress.at_start, 0.0)
        while progress.stopped is None:
            train_epoch(learner, ranker, stream, config, report, checkpoint, group, progress)  # every rank, as many steps
            metrics = validate(ranker, valid, group)  # every rank its part; the merged result on all
            found = probe()  # on the same feeds every time
            progress.add_probes(values_of(found), progress.epoch + progress.step / stream.steps)
            better = close_epoch(progress, metrics, monitor, config, learner, alarms_of(found, progress.at_start))
            checkpoint.save(ranker, learner, progress, group, best=better)  # every rank takes part; written meanwhile
            report.epoch(progress)
        checkpoint.wait(group)  # a training is not over before its last checkpoint is whole
    return progress


def train_epoch(
    learner: Learner,
    ranker: Ranker | Leveled,
    stream: Stream,
    config: TrainConfig,
    report: Reports,
    checkpoint: Checkpoints,
    group: WorkerGroup,
    progress: Progress,
) -> None:
    """The steps of `progress.epoch` that are left; leaves `progress` behind the last of them."""
    ranker.train()
    device = next(ranker.parameters()).device
    before = time.perf_counter()
    is_due = False  # a checkpoint
    with closing(stream.epoch(progress.epoch, progress.step)) as batches:
        for batch in batches:
            epochs = progress.epoch + progress.step / stream.steps
            losses = learner.step(None if batch is None else batch.to(device), epochs)
            progress.step += 1
            progress.total_steps += 1
            progress.add(losses, batch.candidates if batch is not None else 0)
            progress.add_diagnostics(learner.diagnostics())
            is_last = progress.total_steps == config.max_steps or progress.step == stream.steps
            if is_last or progress.step * STRETCHES // stream.steps > (progress.step - 1) * STRETCHES // stream.steps:
                progress.close_stretch(progress.epoch + progress.step / stream.steps)
            now = time.perf_counter()
            progress.seconds, before = progress.seconds + now - before, now
            report.step(progress)
            if is_last:
                break
            is_due |= config.checkpoint_every_steps is not None and progress.step % config.checkpoint_every_steps == 0
            if is_due and learner.at_rest:
                checkpoint.save(ranker, learner, progress, group)
                is_due, before = False, time.perf_counter()
    candidates = torch.tensor(progress.candidates, dtype=torch.float64, device=device)
    group.sum_(candidates)
    progress.candidates = candidates.item()


def close_epoch(
    progress: Progress,
    metrics: dict[str, Any] | None,
    monitor: Monitor,
    config: TrainConfig,
    learner: Learner,
    alarms: Sequence[str],
) -> bool:
    """Adds the epoch to the history and decides whether it was the best (returned) and whether it was the last."""
    value = monitor.value(metrics) if metrics is not None else None
    best = progress.history[progress.best_epoch].monitor if progress.best_epoch is not None else None
    # without validation, the last is the best
    better = learner.is_selectable and (value is None or best is None or monitor.is_better(value, best))
    record = progress.close_epoch(metrics, value, alarms)
    if better:
        progress.best_epoch = record.epoch
    stale = record.epoch - max(progress.best_epoch or 0, learner.patience_from - 1)
    if progress.total_steps == config.max_steps:
        progress.stopped = f"stopped after train.max_steps={config.max_steps}"
    elif stale >= config.patience:
        progress.stopped = f"stopped early: no better {monitor.name} for {stale:.0f} epochs"
    elif progress.epoch == config.epochs:
        progress.stopped = "all epochs done"
    return better
