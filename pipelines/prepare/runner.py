"""Runs the tasks of a step, on Ray or in this process, each once.

A task writes its files, each by renaming a draft, then a note with what it counted. A task that has left its note is
not run again, so a job that was killed goes on where it was.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ConfigError
from pipelines.faults import told
from pipelines.prepare.config import PrepareConfig
from pipelines.ray_private import quiet_data
from pipelines.runs import read_json, write_text

Counts = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One task of a step: its name, what it works on, and how many rows that is."""

    name: str
    work: Any
    rows: int


def run_step(
    step: str, items: Sequence[Item], task: Callable[[Any], Counts], *, notes: Path, config: PrepareConfig
) -> dict[str, Counts]:
    """Runs `task(item.work)` for every item that has not left a note; returns all notes by item name.

    Raises:
        ConfigError: a task found something in the log, the configuration or on the disk that the user has to mend.
        RuntimeError: a task failed by our own fault; its trace is in the message.
    """
    folder = notes / step
    waiting = [item for item in items if not _note(folder, item).exists()]
    if not waiting:
        if items:
            print(f"{step:>9}: done before ({len(items)} tasks)", flush=True)
    else:
        done_before = len(items) - len(waiting)
        again = f", {done_before} done before" if done_before else ""
        print(f"{step:>9}: {len(waiting)} tasks{again}", flush=True)
        one = Task(task, folder)
        started = printed = time.monotonic()
        rows = 0
        run = _with_ray if config.parallel == "ray" else _in_process
        for number, (item, ended) in enumerate(run(one, waiting, config), 1):
            if ended.problem:
                raise ConfigError(ended.problem)
            if ended.trace:
                raise RuntimeError(f"{step}, task {item.name}, failed where it was run:\n{ended.trace}")
            rows += item.rows
            now = time.monotonic()
            if now - printed > 1 or number == len(waiting):
                printed = now
                speed = rows / max(now - started, 1e-9)
                print(f"{step:>9}: {number + done_before}/{len(items)}, {rows:,} rows, {speed:,.0f} rows/s", flush=True)
    return {item.name: read_json(_note(folder, item), way_out="Delete it and start again.") for item in items}


@dataclass(frozen=True)
class Ended:
    """How a task ended; well, if both are empty.

    Attributes:
        problem: what the user has to be told.
        trace: of an error that is ours.
    """

    problem: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Task:
    """What runs where the work is done: the task, then its note.

    Its errors come back as values: what Ray makes of one that is raised are pages of its own.
    """

    task: Callable[[Any], Counts]
    folder: Path

    def __call__(self, item: Item) -> Ended:
        try:
            write_text(_note(self.folder, item), json.dumps(self.task(item.work)))
        except Exception as error:
            line = told(error)
            return Ended(trace=traceback.format_exc()) if line is None else Ended(problem=line)
        return Ended()


def _note(folder: Path, item: Item) -> Path:
    return folder / f"{item.name}.json"


def _in_process(task: Task, items: Sequence[Item], config: PrepareConfig) -> Iterator[tuple[Item, Ended]]:
    for item in items:
        yield item, task(item)


def _with_ray(task: Task, items: Sequence[Item], config: PrepareConfig) -> Iterator[tuple[Item, Ended]]:
    import ray

    def run(batch: dict) -> dict:
        number = int(batch["number"][0])
        ended = task(items[number])
        return {"number": [number], "problem": [ended.problem], "trace": [ended.trace]}

    with _quiet(ray.data.DataContext.get_current()):
        numbers = ray.data.from_items([{"number": number} for number in range(len(items))], override_num_blocks=len(items))
        one_thread = {"env_vars": {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}}  # tasks run side by side instead
        results = numbers.map_batches(run, batch_size=1, num_cpus=config.cpus_per_task, runtime_env=one_thread)
        for row in results.iter_rows():
            yield items[row["number"]], Ended(problem=row["problem"], trace=row["trace"])


@contextmanager
def _quiet(context: Any) -> Iterator[None]:
    """Without Ray Data's own progress, and without its lines about that and about every execution that ends."""
    names = ("enable_progress_bars", "print_on_execution_start")
    before = {name: getattr(context, name) for name in names}
    for name in names:
        setattr(context, name, False)
    try:
        with quiet_data():
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
