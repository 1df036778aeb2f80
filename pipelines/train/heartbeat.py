"""Work that may take longer than the ranks of a training wait for each other."""

import pickle
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from models.learners.workers import WorkerGroup
from pipelines.train.process_group import all_objects, device_of_group

T = TypeVar("T")

SECONDS = 0.2  # between two signs of life; far below any timeout, and one of them costs less than a millisecond


def with_heartbeat(work: Callable[[], T], group: WorkerGroup) -> T:
    """Does this rank's work and returns what it made, once all ranks have done theirs. Every rank takes part.

    A collective operation ends the whole training when a rank comes to it later than the group's timeout. Work that differs in
    length from rank to rank, or that one rank does for all, would therefore bound how large a training can be. Here it runs in
    a thread, while the ranks ask each other every `SECONDS` whether all have finished. So the timeout says how long a
    rank may give no sign of life, and not how long it may work.

    Args:
        work: must not call collective operations. Gradients are off in it unless it turns them on.

    Raises:
        Exception: what a rank's work raised, on every rank (of several, each raises its own or else that of the lowest rank).
            Work that has not finished by then is left behind in its thread.
    """
    if group.size == 1:
        with torch.no_grad():
            return work()
    job = _Job(work)
    device = device_of_group()
    while True:
        job.wait(SECONDS)
        finished, failed = job.status
        counts = torch.tensor([finished, failed], dtype=torch.int64, device=device)
        group.sum_(counts)
        all_finished, any_failed = counts.tolist()
        if any_failed:
            errors = all_objects(_sendable(job.error) if failed else None, group)
            raise job.error or next(error for error in errors if error is not None)
        if all_finished == group.size:
            return job.result  # type: ignore[return-value]


class _Job:
    """Work in a thread of its own, and how far it is."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: Exception | None = None
        self._done = threading.Event()
        # a thread begins on the first GPU, whatever the one that starts it uses
        self._gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        threading.Thread(target=self._run, name="with-heartbeat", daemon=True).start()

    def wait(self, seconds: float) -> None:
        self._done.wait(seconds)

    @property
    def status(self) -> tuple[int, int]:
        """Whether the work has finished, and whether it failed, as 0 or 1; both taken at one moment."""
        done = self._done.is_set()
        return int(done and self.error is None), int(done and self.error is not None)

    def _run(self) -> None:
        try:
            if self._gpu is not None:
                torch.cuda.set_device(self._gpu)
            with torch.no_grad():
                self.result = self.work()
        except Exception as error:
            self.error = error
        except BaseException as error:
            self.error = RuntimeError(repr(error))
        finally:
            self._done.set()


def _sendable(error: Exception | None) -> Exception:
    """The error, or its text where it cannot travel to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(repr(error))
