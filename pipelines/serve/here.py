"""An endpoint that a process of this machine keeps, on a Ray of its own: how other processes find it, and begin and end it.

While it answers, `endpoint.json` lies in its folder. An endpoint on a Ray that runs by itself needs none of this.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from models.config import ConfigError, config, from_dict
from pipelines.ray_private import authentication
from pipelines.runs import discard, processes, read_json, write_json

NOTE, LOG = "endpoint.json", "endpoint.log"
PAUSE = 0.2  # seconds between two looks
PATIENCE = 120.0  # seconds for Ray to start or end, beside those for the endpoint


@config
class Kept:
    """Who keeps an endpoint.

    Attributes:
        ray: address of its Ray.
        authentication: of it, as `pipelines.ray_private` gives it.
        machine, began: as `pipelines.runs.processes` gives them.
    """

    url: str
    ray: str
    authentication: str
    pid: int
    machine: str
    began: str

    @property
    def is_alive(self) -> bool:
        return self.machine == processes.machine() and processes.began(self.pid) == self.began


@contextmanager
def kept(folder: Path, url: str) -> Iterator[None]:
    """Inside, others find the endpoint that this process keeps."""
    import ray

    mine = Kept(
        url=url,
        ray=ray.get_runtime_context().gcs_address,
        authentication=authentication(),
        pid=os.getpid(),
        machine=processes.machine(),
        began=processes.began(os.getpid()) or "",
    )
    write_json(folder / NOTE, asdict(mine))
    try:
        yield
    finally:
        discard(folder / NOTE)


def found(folder: Path) -> Kept | None:
    """Who keeps the endpoint of this folder on this machine; None where nobody does."""
    try:
        note = from_dict(Kept, read_json(folder / NOTE, way_out="Delete it."), where=NOTE)
    except FileNotFoundError:
        return None
    return note if note.is_alive else None


def keep(folder: Path, words: Sequence[str], seconds: float) -> Kept:
    """Starts a process that keeps an endpoint and outlives this one; returns once it answers.

    Args:
        words: of its command, after the interpreter.
        seconds: for the endpoint to start.

    Raises:
        ConfigError: one is kept there already, or it ended, or does not answer in time; it is ended then.
    """
    if (note := found(folder)) is not None:
        raise ConfigError(
            f"process {note.pid} keeps this endpoint already, at {note.url}. `--swap` exchanges what it serves, `--stop` ends "
            "it; for another one beside it set serve.name and serve.port."
        )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    with log.open("wb") as out:
        started = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + seconds + PATIENCE
    try:
        while time.monotonic() < deadline:
            if started.poll() is not None:
                last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise ConfigError(f"the endpoint ended at once: {last[0].removeprefix('error: ')} (all it said is in {log})")
            if (note := found(folder)) is not None and note.pid == started.pid:
                return note
            time.sleep(PAUSE)
        raise ConfigError(f"the endpoint did not answer in time, and was ended. What it said is in {log}.")
    except BaseException:  # Ctrl-C too: nobody would know of it
        started.terminate()
        started.wait()
        raise


def end(folder: Path, seconds: float) -> None:
    """Ends the process that keeps the endpoint, and waits for it: it answers what it holds first.

    Args:
        seconds: that the endpoint itself takes for that.

    Raises:
        ConfigError: nobody keeps one, or it does not end.
    """
    note = found(folder)
    if note is None:
        raise ConfigError(f"no process of this machine keeps an endpoint in {folder}.")
    os.kill(note.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds + PATIENCE
    while note.is_alive:
        if time.monotonic() > deadline:
            raise ConfigError(f"process {note.pid} does not end. `kill -9 {note.pid}` ends it, and drops what it holds.")
        time.sleep(PAUSE)
