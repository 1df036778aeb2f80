"""Reports of a training run: lines while it goes, TensorBoard curves, a history that others can follow."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.metrics.names import value_of
from pipelines.places import Remote, put, scratch
from pipelines.runs import write_text
from pipelines.train.progress import HISTORY, EpochRecord, Progress

SECONDS_BETWEEN_LINES = 10.0
CURVES = "tensorboard"
STEPS_BETWEEN_POINTS = 20  # of the loss curves


class Silent:
    """Reports nothing, as all ranks but the first do; `on_epoch` is called all the same."""

    def __init__(self, on_epoch: Callable[[EpochRecord], None] | None = None) -> None:
        self.on_epoch = on_epoch

    def begin(self, progress: Progress, steps: int, epochs: int) -> None: ...
    def step(self, progress: Progress) -> None: ...
    def close(self) -> None: ...

    def epoch(self, progress: Progress) -> None:
        if self.on_epoch is not None:
            self.on_epoch(progress.history[-1])


class Report:
    """Writes `history.json` and `tensorboard/` into the run's folder and says lines.

    Args:
        ranks: workers of the run, of which this one reports.
        say: where lines go.
        on_epoch: called with the record of every finished epoch.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        *,
        ranks: int,
        say: Callable[[str], None],
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.ranks = ranks
        self.say = say
        self.on_epoch = on_epoch

    def begin(self, progress: Progress, steps: int, epochs: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a third of a second, and only rank 0 writes

        self.steps, self.epochs = steps, epochs
        # TensorBoard appends, so its files for a store grow on this machine's disk and are put there epoch by epoch.
        drawn = scratch() / f"tensorboard-{id(self)}" if isinstance(self.folder, Remote) else self.folder / CURVES
        # Points a killed run wrote beyond its last checkpoint are taken back.
        self.curves = SummaryWriter(str(drawn), purge_step=progress.total_steps + 1)
        write_text(self.folder / HISTORY, _spelled_history(progress))
        if progress.total_steps:
            self.say(f"Going on at epoch {progress.epoch + 1}, step {progress.step} of {steps}.")
        self.epoch_began = self.last_line = time.monotonic()
        self.last_losses = dict(progress.losses)
        self.points_drawn = len(progress.diagnostics)

    def step(self, progress: Progress) -> None:
        if progress.step % STEPS_BETWEEN_POINTS == 0:
            for name, value in _means(progress.losses, self.last_losses).items():
                self.curves.add_scalar(f"loss/{name}", value, progress.total_steps)
            self.last_losses = dict(progress.losses)
        self._draw(progress.diagnostics, progress.total_steps)
        if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            left = progress.seconds / progress.step * (self.steps - progress.step)
            rate = self.ranks * progress.candidates / progress.seconds  # all ranks have about as many
            self.say(
                f"epoch {progress.epoch + 1}/{self.epochs} · step {progress.step}/{self.steps} · {rate:,.0f} candidates/s · "
                f"loss {_spelled(_means(progress.losses))} · {_clock(left)} left in this epoch"
            )

    def epoch(self, progress: Progress) -> None:
        record = progress.history[-1]
        write_text(self.folder / HISTORY, _spelled_history(progress))
        for name, value in record.losses.items():
            self.curves.add_scalar(f"loss_of_epoch/{name}", value, progress.total_steps)
        self._draw(record.diagnostics, progress.total_steps)
        self.curves.add_scalar("candidates_per_second", record.candidates_per_second, progress.total_steps)
        shown = {}
        if record.metrics:
            for path, value in _scalars(record.metrics).items():
                self.curves.add_scalar(f"valid/{path}", value, progress.total_steps)
            binary = [name for name, target in record.metrics["targets"].items() if target["kind"] == "binary"]
            shown = {f"{name}.auc": value_of(record.metrics, f"{name}.auc") for name in binary}
        self._flush()
        best = " (best)" if progress.best_epoch == record.epoch else ""
        valid = f"{self.monitor} {record.monitor:.4f}{best} · {_spelled(shown)} · " if record.monitor is not None else ""
        left = (self.epochs - progress.epoch) * (time.monotonic() - self.epoch_began)
        self.say(
            f"epoch {record.epoch + 1}/{self.epochs} done · {record.candidates_per_second:,.0f} candidates/s · "
            f"loss {_spelled(record.losses)} · {valid}" + (progress.stopped or f"at most {_clock(left)} left")
        )
        for message in (*(alarm["message"] for alarm in (record.metrics or {}).get("alarms", [])), *record.alarms):
            self.say(f"  alarm: {message}")
        if self.on_epoch is not None:
            self.on_epoch(record)
        self.epoch_began = self.last_line = time.monotonic()
        self.last_losses = {}
        self.points_drawn = 0

    def close(self) -> None:
        self._flush()
        self.curves.close()

    def _flush(self) -> None:
        self.curves.flush()
        if isinstance(self.folder, Remote):
            for file in sorted(Path(self.curves.log_dir).iterdir()):
                put(file, self.folder / CURVES / file.name)

    def _draw(self, points: Sequence[Mapping[str, float]], step: int) -> None:
        """What of an epoch's points has not been drawn yet."""
        for point in points[self.points_drawn :]:
            for name, value in point.items():
                if name != "progress":
                    self.curves.add_scalar(f"diagnostics/{name}", value, step)
        self.points_drawn = len(points)


def _spelled_history(progress: Progress) -> str:
    return json.dumps([asdict(record) for record in progress.history])


def _means(losses: dict[str, tuple[float, float]], before: dict[str, tuple[float, float]] | None = None) -> dict[str, float]:
    """Mean loss by target since `before`; a target nothing was counted for is left out."""
    means = {}
    for name, (total, count) in losses.items():
        past_total, past_count = (before or {}).get(name, (0.0, 0.0))
        if count > past_count:
            means[name] = (total - past_total) / (count - past_count)
    return means


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Numbers of an evaluation as `target.metric` and `mean.metric`."""
    tables = {**metrics["targets"], "mean": metrics["mean"]}
    return {
        f"{name}.{metric}": value
        for name, table in tables.items()
        for metric, value in table.items()
        if isinstance(value, int | float)
    }


def _spelled(values: Mapping[str, float | None]) -> str:
    return " ".join(f"{name} {'-' if value is None else format(value, '.4f')}" for name, value in values.items())


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
