"""What the driver sees of a training on other machines: lines, epochs, and why it ended."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.config import ConfigError
from pipelines.faults import told
from pipelines.ray_private import origin
from pipelines.train.progress import EpochRecord, read_history


class Fitting:
    """`trainer.fit()` in a thread, so that the caller can follow it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            self.error = self.trainer.fit().return_value
        except BaseException as error:  # handed to the caller by `check`
            self.error = error

    def wait(self, seconds: float | None) -> bool:
        self.thread.join(seconds)
        return self.ended

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def check(self) -> None:
        """Raises what ended the training, as one line where a worker says why."""
        if self.error is None:
            return
        for rank, failure in sorted(getattr(self.error, "worker_failures", {}).items()):
            first = origin(failure)
            if (line := told(first)) is not None:
                raise ConfigError(f"training worker {rank}: {line}") from self.error
            raise RuntimeError(f"training worker {rank} failed: {first!r}") from self.error
        raise self.error


class Lines:
    """Says the new lines of a file that grows."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self.say = path, say
        self.read = path.stat().st_size if path.exists() else 0

    def follow(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.read += len(whole) + len(newline)
        for line in whole.decode().splitlines():
            self.say(line)


class Records:
    """Reports new epochs of a run's history; those of earlier attempts have been reported already."""

    def __init__(self, folder: Path, on_epoch: Callable[[EpochRecord], None] | None) -> None:
        self.folder, self.on_epoch = folder, on_epoch
        self.reported = len(read_history(folder))

    def follow(self) -> None:
        if self.on_epoch is None:
            return
        for record in read_history(self.folder)[self.reported :]:
            self.reported += 1
            self.on_epoch(record)
