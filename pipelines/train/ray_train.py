"""The same run on many workers, which Ray Train starts, starts again when they are lost, and joins to a process group.

A run goes on from its own checkpoints, never from Ray's: a checkpoint handed to `ray.train.report` is lost when a worker dies
right after, and a run of a known name would silently take up its old state. Ray gets metrics only.
"""

from collections.abc import Callable
from typing import Any

import torch

from models.config import ConfigError
from pipelines.places import Remote, reach
from pipelines.ray_private import most_resources
from pipelines.train.config import TrainConfig
from pipelines.train.follow import Fitting, Lines, Records
from pipelines.train.process_group import TorchGroup, from_rank_0
from pipelines.train.progress import EpochRecord
from pipelines.train.worker import Run, work

LINES = "progress.log"
STOP = ".stop"
POLL_SECONDS = 0.2
POLL_STORE_SECONDS = 2.0  # what lies in a store is asked for over the network


def check_cluster(config: TrainConfig) -> None:
    """Refuses what would wait for ever: Ray Train holds its CPUs, and without one more Ray Data never reads a row.

    Raises:
        ConfigError: Ray is not up, or the cluster, with all nodes its autoscaler may add, is too small.
    """
    import ray

    if not ray.is_initialized():
        raise ConfigError(f"train.workers={config.workers} needs Ray: call ray.init() first, or set train.workers to 0.")
    have = most_resources()
    cpus, need = have.get("CPU", 0), config.workers * config.cpus_per_worker + 1
    if need > cpus:
        raise ConfigError(
            f"train.workers={config.workers} x train.cpus_per_worker={config.cpus_per_worker:g} + 1 for reading data needs "
            f"{need:g} CPUs, the cluster has {cpus:g}. Set one of them lower, or train.workers to 0 to train without Ray."
        )
    if config.device == "cuda" and have.get("GPU", 0) < config.workers:
        raise ConfigError(
            f"train.device is cuda and train.workers is {config.workers}, but the cluster has {have.get('GPU', 0):g} GPUs."
        )


def train_on_ray(
    run: Run, name: str, *, say: Callable[[str], None], on_epoch: Callable[[EpochRecord], None] | None = None
) -> None:
    """Trains with Ray Train until the run is over. Lines and records come from files that rank 0 writes.

    Args:
        name: of the Ray Train run, as the dashboard shows it.
        on_epoch: called here, in the calling thread; what it raises ends the training after the running epoch.

    Raises:
        ConfigError, FloatingPointError: as in one process.
        RuntimeError: workers were lost more often than `max_failures`, or ours is the fault.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    use_gpu = _use_gpu(run.config)
    storage, file_system = reach(run.folder / "ray")
    trainer = TorchTrainer(
        _worker,  # type: ignore[arg-type]  # what rank 0 returns is the result's `return_value`
        train_loop_config={"run": run},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=run.config.timeout_seconds),
        scaling_config=ScalingConfig(
            num_workers=run.config.workers, use_gpu=use_gpu, resources_per_worker={"CPU": run.config.cpus_per_worker}
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=file_system,
            failure_config=FailureConfig(max_failures=run.config.max_failures),
        ),
    )
    stop = run.folder / STOP
    stop.unlink(missing_ok=True)
    lines = Lines(run.folder / LINES, say)
    records = Records(run.folder, on_epoch)
    fitting = Fitting(trainer)
    try:
        while not fitting.wait(POLL_STORE_SECONDS if isinstance(run.folder, Remote) else POLL_SECONDS):
            lines.follow()
            records.follow()
        lines.follow()
        records.follow()
    except KeyboardInterrupt:
        raise  # the workers end with this process
    except BaseException:
        stop.touch()
        fitting.wait(None)
        raise
    finally:
        if fitting.ended:
            stop.unlink(missing_ok=True)
    fitting.check()


def _worker(loop_config: dict[str, Any]) -> Exception | None:
    """What every worker runs. Returns what it refuses, for every rank refuses it alike and trying again would not help."""
    import ray.train
    import ray.train.torch

    run: Run = loop_config["run"]
    group = TorchGroup()
    device = ray.train.torch.get_device() if _on_gpu() else torch.device("cpu")

    lines = run.folder / LINES
    before = lines.read_text(encoding="utf-8") if isinstance(lines, Remote) and group.rank == 0 and lines.exists() else ""
    said: list[str] = [before] if before else []

    def say(line: str) -> None:
        if isinstance(lines, Remote):  # nothing is appended to there
            said.append(line + "\n")
            lines.write_text("".join(said), encoding="utf-8")
            return
        with lines.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def on_epoch(record: EpochRecord) -> None:
        numbers = {name: getattr(record, name) for name in ("epoch", "total_steps", "monitor", "candidates_per_second")}
        ray.train.report({**numbers, **{f"loss.{name}": value for name, value in record.losses.items()}})
        if from_rank_0((run.folder / STOP).exists(), group):
            raise _Stopped

    try:
        work(run, group, device, say=say, on_epoch=on_epoch)
    except _Stopped:
        pass
    except (ConfigError, FloatingPointError) as error:
        return error
    return None


def _use_gpu(config: TrainConfig) -> bool:
    return config.device == "cuda" or (config.device == "auto" and most_resources().get("GPU", 0) >= config.workers)


def _on_gpu() -> bool:
    return torch.distributed.get_backend() == "nccl"


class _Stopped(Exception):
    """The driver wants no further epoch."""
