"""What one worker of a training run does, with or without Ray."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.config import ConfigError
from models.learners import Learner
from models.learners.schedule import Schedule
from models.learners.workers import WorkerGroup
from models.leveled import Leveled
from models.ranker import Outcome, Ranker
from models.schema import Schema
from models.system import SystemConfig, build_learner, build_ranker, is_leveled, ranker_without_weights
from pipelines.encode.batches import Arrivals
from pipelines.prepared import Prepared
from pipelines.train.checkpoint import Checkpoints
from pipelines.train.config import TrainConfig
from pipelines.train.loop import Reports, fit
from pipelines.train.monitor import Monitor
from pipelines.train.order import FeedOrder, row_groups
from pipelines.train.preferences import preference_means
from pipelines.train.progress import EpochRecord, Progress
from pipelines.train.report import Report, Silent
from pipelines.train.stream import Reader, StoredFeeds, Stream, in_process

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run, as it travels to its workers.

    Attributes:
        data: the prepared folder; it and `folder` must be reachable from all workers.
        folder: of checkpoints, history and TensorBoard files.
    """

    data: Path
    schema: Schema
    system: SystemConfig
    config: TrainConfig
    folder: Path


def work(
    run: Run,
    group: WorkerGroup,
    device: torch.device,
    *,
    say: Callable[[str], None],
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Progress:
    """Trains as one rank of the group until the run is over. Sets the process's random seeds.

    Args:
        say: where rank 0's lines go.
        on_epoch: called on every rank with the record of each finished epoch; what it raises ends the run.
    """
    config, schema = run.config, run.schema
    prepared = Prepared.open(run.data, schema=schema)
    order = feed_order(run, prepared, rank=group.rank, size=group.size)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        torch.manual_seed(config.seed)  # the same weights on every rank
        ranker = build_ranker(schema, run.system, prepared.encoder.table_sizes)
        ranker.losses.fit({name: torch.from_numpy(values) for name, values in prepared.encoder.label_quantiles.items()})
        rankers = ranker.rankers if isinstance(ranker, Leveled) else [ranker]
        if (preferences_of := ranker.weighting.reads_preferences) is not None:
            means = preference_means(order.groups, schema, preferences_of, group, device)
            for each in rankers:
                each.weighting.start(means)
        ranker.to(device)
        if config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda"):
            for each in rankers:
                train_in_bf16(each, device)
        schedule = schedule_of(run, prepared, order) if is_leveled(run.system.learner) else None
        learner = build_learner(ranker, schema, run.system.learner, config.optimiser, group, schedule)
        _seed(config.seed, group.rank)  # what draws from a generator while it trains does so anew on every rank
        arrivals = arrivals_of(prepared, schema) if config.delayed == "corrected" else None
        stream = Stream(order, schema, _reader(config), preferences_of=preferences_of, arrivals=arrivals)
        valid = StoredFeeds(
            groups=row_groups(prepared.files("valid")),
            schema=schema,
            batch_feeds=config.batch_feeds,
            rank=group.rank,
            size=group.size,
        )
        monitor = Monitor(schema, config.monitor).name
        report: Reports = Silent(on_epoch)
        if group.rank == 0:
            report = Report(run.folder, monitor, ranks=group.size, say=say, on_epoch=on_epoch)
            for line in (*_plans(learner, ranker, config), *_of_open(prepared, schema, config)):
                say(line)
        return fit(learner, ranker, stream, valid, config, report, Checkpoints(run.folder / CHECKPOINTS, device), group)
    finally:
        torch.set_num_threads(threads)


def feed_order(run: Run, prepared: Prepared, *, rank: int, size: int) -> FeedOrder:
    """The order in which a rank of the run reads its training feeds."""
    return FeedOrder(
        groups=row_groups(prepared.files("train")),
        seed=run.config.seed,
        batch_feeds=run.config.batch_feeds,
        window_groups=run.config.shuffle_row_groups,
        rank=rank,
        size=size,
    )


def check_delayed(prepared: Prepared, schema: Schema, system: SystemConfig, config: TrainConfig) -> None:
    """
    Raises:
        ConfigError: labels that are not final are to be learnt from, and cannot be.
    """
    if config.delayed == "wait":
        return
    if prepared.manifest.open_labels != "mask":
        raise ConfigError(
            f"`train.delayed: {config.delayed}` corrects labels whose window has not closed, but {prepared.path} takes them as "
            "they are. Prepare with `prepare.open_labels: mask`, or take `train.delayed: wait`."
        )
    if ranker_without_weights(schema, system).config.children == "entered":
        raise ConfigError(
            f"`train.delayed: {config.delayed}` learns from all candidates, but `model.children: entered` from those whose "
            "parents happened, which is not known of all yet. Take `children: all`, or `train.delayed: wait`."
        )


def arrivals_of(prepared: Prepared, schema: Schema) -> Arrivals:
    """By when positives are known, for targets to be learnt from labels that are not final."""
    return Arrivals.of(schema, prepared.manifest.ending, prepared.manifest.arrived)


def schedule_of(run: Run, prepared: Prepared, order: FeedOrder) -> Schedule:
    """What a learner that plans the whole training goes by."""
    counts = prepared.manifest.splits["train"].candidates_by_level
    return Schedule(
        epochs=run.config.epochs,
        steps=order.steps,
        max_steps=run.config.max_steps,
        candidates_of_level=counts or (0,) * len(run.schema.levels.names),
    )


def train_in_bf16(ranker: Ranker, device: torch.device) -> None:
    """Makes the training forward pass (`outcome`) run in bf16; what it hands to the losses is float32, and so is `predict`."""
    outcome = ranker.outcome

    def in_bf16(*args: Any, **kwargs: Any) -> Outcome:
        with torch.autocast(device.type, torch.bfloat16):
            made = outcome(*args, **kwargs)
        return replace(made, outputs={name: output_N.float() for name, output_N in made.outputs.items()})

    ranker.outcome = in_bf16  # type: ignore[method-assign]


def _plans(learner: Learner, ranker: Ranker | Leveled, config: TrainConfig) -> list[str]:
    """What is worth knowing of a training before it begins."""
    lines = [learner.plan] if learner.plan else []
    if ranker.curriculum_epochs >= config.epochs > 0:
        lines.append(
            f"The curriculum of `coupling: {{kind: {ranker.config.coupling.kind}}}` is over after {ranker.curriculum_epochs} "
            f"epochs, but train.epochs is {config.epochs}: training ends before."
        )
    return lines


def _of_open(prepared: Prepared, schema: Schema, config: TrainConfig) -> list[str]:
    """A line on labels that are not final, where the training split has some."""
    manifest = prepared.manifest
    counts = manifest.splits["train"].open_labels if manifest.open_labels == "mask" else {}
    told = [f"{name} {counts[name].labels:,}" for name in schema.target_names if name in counts]
    if not told:
        return []
    early = [name for name in schema.target_names if name in counts and name in manifest.arrived]
    way = "left out (train.delayed: wait)"
    if config.delayed == "corrected" and early:
        way = f"learnt early for {', '.join(early)}, else left out (train.delayed: corrected)"
    return [f"Labels whose window has not closed: {', '.join(told)}; {way}."]


def _reader(config: TrainConfig) -> Reader:
    if config.reader == "thread":
        return in_process
    from pipelines.train.ray_data import ray_data

    return ray_data


def _seed(seed: int, rank: int) -> None:
    torch_seed, numpy_seed, python_seed = np.random.SeedSequence((seed, rank)).generate_state(3).tolist()
    torch.manual_seed(torch_seed)
    np.random.seed(numpy_seed)
    random.seed(python_seed)
