"""A rank that works alone for longer than the group's timeout does not end the training."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from models.config import ConfigError
from models.metrics.evaluation import Evaluation, Summary
from pipelines.train import checkpoint
from pipelines.train.heartbeat import with_heartbeat
from pipelines.train.process_group import TorchGroup
from pipelines.train.progress import read_progress
from pipelines.train.worker import CHECKPOINTS, Run, work
from tests.pipelines.fabricate import fabricate
from tests.pipelines.killed_training import CONFIG, MODEL

TIMEOUT, ALONE = 6.0, 7.0  # seconds: of the group, with room for a busy machine; that a rank works while the other waits


def delayed(function):
    """The function, whose first call takes longer."""
    seconds = [ALONE]

    def calling(*args, **kwargs):
        time.sleep(seconds.pop() if seconds else 0)
        return function(*args, **kwargs)

    return calling


def work_slowly(rank: int, run: Run, store: Path) -> None:
    import torch.utils.tensorboard  # takes seconds on a busy machine, and only rank 0 would need it

    if rank == 0:
        checkpoint.save_file = delayed(checkpoint.save_file)  # type: ignore[attr-defined]  # the next checkpoint waits for it
        Summary.result = delayed(Summary.result)  # type: ignore[method-assign]
    else:
        Evaluation.add = delayed(Evaluation.add)  # type: ignore[method-assign]
    file = dist.FileStore(str(store), 2)
    file.set(f"rank-{rank}-is-here", "")  # starting is no part of it
    file.wait(["rank-0-is-here", "rank-1-is-here"], timedelta(seconds=120))
    dist.init_process_group("gloo", store=file, rank=rank, world_size=2, timeout=timedelta(seconds=TIMEOUT))
    work(run, TorchGroup(), torch.device("cpu"), say=lambda line: None)
    dist.destroy_process_group()


def test_a_rank_may_work_alone_for_longer_than_the_timeout(tmp_path):
    """Rank 0 writes a checkpoint and computes metrics, rank 1 scores its feeds."""
    prepared = fabricate(tmp_path / "data")
    config = replace(CONFIG, epochs=1)
    run = Run(data=prepared.path, schema=prepared.schema, system=MODEL, config=config, folder=tmp_path / "two")
    multiprocessing.spawn(work_slowly, (run, tmp_path / "store"), nprocs=2)
    last = checkpoint.Checkpoints(run.folder / CHECKPOINTS).latest()
    assert read_progress(last).stopped == "all epochs done"


def fail_on_rank_1(rank: int, store: Path, found: Path) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(str(store), 2), rank=rank, world_size=2)

    def work() -> None:
        if rank == 1:
            raise ConfigError("the disk is full")
        time.sleep(60)

    try:
        with_heartbeat(work, TorchGroup())
    except ConfigError as error:
        (found / str(rank)).write_text(str(error))


def test_what_one_rank_raises_all_raise_at_once(tmp_path):
    multiprocessing.spawn(fail_on_rank_1, (tmp_path / "store", tmp_path), nprocs=2)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["the disk is full"] * 2
