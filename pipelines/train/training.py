"""Training takes prepared feeds and a system's config, and leaves a bundle with the best epoch's weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models.config import ConfigError, to_dict
from models.learners.workers import SingleWorker
from models.schema import Schema
from models.system import SystemConfig, build_ranker, ranker_without_weights
from pipelines.bundle import fingerprint, provenance, save_bundle
from pipelines.places import here, place
from pipelines.prepared import Prepared
from pipelines.runs import RunFolder
from pipelines.train.checkpoint import Checkpoints
from pipelines.train.config import EXECUTION, TrainConfig
from pipelines.train.defined import check_defined
from pipelines.train.monitor import Monitor
from pipelines.train.order import FeedOrder
from pipelines.train.progress import HISTORY, EpochRecord, Progress, read_progress
from pipelines.train.worker import CHECKPOINTS, Run, check_delayed, feed_order, work

BUNDLE = "bundle"
PARTS = (BUNDLE, CHECKPOINTS, HISTORY, "tensorboard", "ray", "progress.log")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished training leaves.

    Attributes:
        bundle_path: the best epoch's ranker.
        checkpoint: the last checkpoint.
        history: a record of every epoch.
        best: the record of the best epoch.
        seconds: of training steps, without validation.
        candidates_per_second: over all epochs.
        fresh: False if the run had been finished before.
    """

    bundle_path: Path
    checkpoint: Path
    history: list[EpochRecord]
    best: EpochRecord
    seconds: float
    candidates_per_second: float
    fresh: bool


def train(
    prepared: Prepared,
    system: SystemConfig,
    config: TrainConfig,
    *,
    output: Path,
    schema: Schema | None = None,
    purpose: Mapping[str, Any] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    resume: bool = True,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> TrainResult:
    """Trains a ranker, in this process or on Ray's workers, and writes its bundle.

    Started on a folder with an unfinished run of the same configuration, it goes on; on a finished one it says so and does
    nothing.

    Args:
        output: holds bundle, checkpoints, history and TensorBoard files; with workers, all nodes must reach it.
        schema: targets to train for, if their weights or parents differ from the prepared ones.
        purpose: what else the folder is for, as part of its identity.
        on_epoch: called with the record of every epoch finished now; what it raises ends the training.
        resume: False throws away what an earlier run left in `output`.

    Raises:
        ConfigError: the folder holds a run of another configuration, the data are unfit, or the cluster is too small.
    """
    output = place(output).resolve()
    schema = schema or prepared.schema
    run = Run(data=prepared.path.resolve(), schema=schema, system=system, config=config, folder=output)
    Monitor(schema, config.monitor)  # what can be refused early is
    check_delayed(prepared, schema, system, config)
    order = feed_order(run, prepared, rank=0, size=max(1, config.workers))
    if config.workers:
        from pipelines.train.ray_train import check_cluster

        check_cluster(config)
    folder, identity = RunFolder(output, BUNDLE, PARTS), identity_of(prepared.fingerprint, schema, system, config)
    if prepared.files("valid") and (folder.identity is None or not resume):  # a run that has begun has passed it
        check_defined(prepared, [config.monitor], ranker_without_weights(schema, system).trained, "train.monitor")
    if not resume:
        folder.clear()
    folder.begin(
        {**identity, **(purpose or {})},
        way_out="Train into another folder, or throw the old run away (--restart, resume=False).",
    )
    Checkpoints(output / CHECKPOINTS).discard_damaged(say)
    last = _finished(output)
    fresh = last is None or not folder.is_finished  # the latter: killed after the last checkpoint
    if last is None:
        last = _trained(run, order, f"train-{fingerprint(identity)}", say, on_epoch)
    elif not fresh:
        say(f"Already trained: {output / BUNDLE}. To train again, throw it away (--restart, resume=False).")
    progress = read_progress(last)
    if fresh:
        _bundle(run, prepared, last, progress, output / BUNDLE)
    seconds = sum(record.seconds for record in progress.history)
    assert progress.best_epoch is not None
    return TrainResult(
        bundle_path=output / BUNDLE,
        checkpoint=last,
        history=progress.history,
        best=progress.history[progress.best_epoch],
        seconds=seconds,
        candidates_per_second=sum(record.candidates for record in progress.history) / seconds,
        fresh=fresh,
    )


def identity_of(data: str, schema: Schema, system: SystemConfig, config: TrainConfig) -> dict[str, Any]:
    """What decides a training's weights; how fast and where it is made does not.

    Args:
        data: fingerprint of the prepared folder.
    """
    train = {name: value for name, value in to_dict(config).items() if name not in EXECUTION}
    return {"data": data, "schema": schema.to_dict(), "model": to_dict(system), "train": train}


def _trained(
    run: Run, order: FeedOrder, name: str, say: Callable[[str], None], on_epoch: Callable[[EpochRecord], None] | None
) -> Path:
    """Trains until the run is over, and returns its last checkpoint."""
    workers, groups = run.config.workers, len(order.groups)
    where = f"{workers} Ray worker{'s' if workers > 1 else ''}" if workers else "in this process"
    say(f"Training on {order.feeds:,} feeds, {order.steps:,} steps an epoch, {where}.")
    if groups < workers:
        say(f"Only {groups} row groups: some workers get no feeds. Prepare with fewer prepare.row_group_feeds.")
    say(f"Curves: tensorboard --logdir {run.folder / 'tensorboard'}")
    if workers:
        from pipelines.train.ray_train import train_on_ray

        train_on_ray(run, name, say=say, on_epoch=on_epoch)
    else:
        work(run, SingleWorker(), _device(run.config), say=say, on_epoch=on_epoch)
    last = _finished(run.folder)
    if last is None:
        raise ConfigError(f"the workers left nothing in {run.folder}: it must lie on a file system that all nodes share.")
    return last


def _finished(output: Path) -> Path | None:
    """The last checkpoint of a run that is over."""
    last = Checkpoints(output / CHECKPOINTS).latest()
    return last if last is not None and read_progress(last).stopped is not None else None


def _bundle(run: Run, prepared: Prepared, checkpoint: Path, progress: Progress, path: Path) -> None:
    ranker = build_ranker(run.schema, run.system, prepared.encoder.table_sizes)
    with here(checkpoint / "best.safetensors") as file:
        ranker.load_state_dict(load_file(file))
    assert progress.best_epoch is not None
    best = progress.history[progress.best_epoch]
    save_bundle(
        path,
        schema=run.schema,
        system=run.system,
        encoder=prepared.encoder,
        ranker=ranker,
        metrics=best.metrics or {},
        provenance=provenance(
            data={"path": str(run.data), "fingerprint": prepared.fingerprint, "as_of": prepared.manifest.ending},
            seed=run.config.seed,
            train=to_dict(run.config),
            best_epoch=progress.best_epoch + 1,
            epochs=len(progress.history),
            stopped=progress.stopped,
            monitor={Monitor(run.schema, run.config.monitor).name: best.monitor},
            seconds=sum(record.seconds for record in progress.history),
        ),
    )


def _device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, but PyTorch finds no GPU here. Set it to auto or cpu.")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
