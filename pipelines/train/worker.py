"""What one worker of a training run does, with or without Ray."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.learners import build_learner, is_leveled
from models.learners.span import Span
from models.learners.world import World
from models.leveled import Leveled, ranker_of
from models.ranker import Outcome, Ranker, RankerConfig
from models.schema import Schema
from pipelines.prepared import Prepared
from pipelines.train.checkpoint import Checkpoints, Progress
from pipelines.train.config import TrainConfig
from pipelines.train.loop import Reports, fit
from pipelines.train.monitor import Monitor
from pipelines.train.report import Report, Silent
from pipelines.train.stream import InOrder, Plan, Stream, in_process, row_groups

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run, as it travels to its workers.

    Attributes:
        data: the prepared folder; it and `folder` must be reachable from all workers.
        folder: of checkpoints, history and TensorBoard.
    """

    data: Path
    schema: Schema
    model: RankerConfig
    config: TrainConfig
    folder: Path


def work(
    run: Run,
    world: World,
    device: torch.device,
    *,
    say: Callable[[str], None],
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Progress:
    """Trains as this rank of the world until the run is over. Sets the process's random seeds.

    Args:
        say: where rank 0's lines go.
        on_epoch: called on every rank with the record of each finished epoch; what it raises ends the run.
    """
    config, schema = run.config, run.schema
    prepared = Prepared.open(run.data, schema=schema)
    plan = plan_of(run, prepared, rank=world.rank, size=world.size)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        torch.manual_seed(config.seed)  # the same weights on every rank
        ranker = ranker_of(schema, run.model, prepared.encoder.table_sizes)
        ranker.losses.fit({name: torch.from_numpy(values) for name, values in prepared.encoder.label_quantiles.items()})
        ranker.to(device)
        if config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda"):
            for each in ranker.rankers if isinstance(ranker, Leveled) else [ranker]:
                train_in_bf16(each, device)
        span = span_of(run, prepared, plan) if is_leveled(run.model.learner) else None
        learner = build_learner(ranker, schema, run.model.learner, config.optimiser, world, span)
        _seed(config.seed, world.rank)  # other dropout on every rank
        stream = Stream(plan, schema, _reader(config), preferences=ranker.weighting.reads_preferences)
        valid = InOrder(
            groups=row_groups(prepared.files("valid")),
            schema=schema,
            batch_feeds=config.batch_feeds,
            rank=world.rank,
            size=world.size,
        )
        monitor = Monitor(schema, config.monitor).name
        report: Reports = Silent(on_epoch)
        if world.rank == 0:
            report = Report(run.folder, monitor, ranks=world.size, say=say, on_epoch=on_epoch)
        return fit(learner, ranker, stream, valid, config, report, Checkpoints(run.folder / CHECKPOINTS, device), world)
    finally:
        torch.set_num_threads(threads)


def plan_of(run: Run, prepared: Prepared, *, rank: int, size: int) -> Plan:
    return Plan(
        groups=row_groups(prepared.files("train")),
        seed=run.config.seed,
        batch_feeds=run.config.batch_feeds,
        window_groups=run.config.shuffle_row_groups,
        rank=rank,
        size=size,
    )


def span_of(run: Run, prepared: Prepared, plan: Plan) -> Span:
    """What a learner that plans the whole training is told of it."""
    counts = prepared.manifest.splits["train"].candidates_by_level
    return Span(
        epochs=run.config.epochs,
        steps=plan.steps,
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


def _reader(config: TrainConfig):
    if config.reader == "thread":
        return in_process
    from pipelines.train.ray_data import ray_data

    return ray_data


def _seed(seed: int, rank: int) -> None:
    torch_seed, numpy_seed, python_seed = np.random.SeedSequence((seed, rank)).generate_state(3).tolist()
    torch.manual_seed(torch_seed)
    np.random.seed(numpy_seed)
    random.seed(python_seed)
