"""Runs the tasks of a step, on Ray or in this process, each once, and knows who made which file.

A task writes its files, each by renaming a draft, then a note with what it counted and the files it made. A task whose
note and files are there is not run again, so a job that was killed goes on where it was. What a task reads it is handed
as the notes of others; where a file of these is gone or damaged, whoever made it makes it again.
"""

import json
import pickle
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from models.config import ConfigError
from pipelines import places
from pipelines.faults import told
from pipelines.ray_private import quiet_data
from pipelines.runs import DamagedFile, FileNote, write_text
from pipelines.runs.noted import signed, there, unsigned

T = TypeVar("T")
S = TypeVar("S")
Counts = dict[str, Any]
_TRIES = 2  # to make a file again
_GO_ON = "Start the same command again: it goes on, and makes anew what is missing."


@dataclass(frozen=True)
class Workers:
    """Who runs the tasks of a step.

    Attributes:
        parallel: `ray` spreads them over the cluster, `none` runs them one after the other in this process.
        cpus_per_task: what a task reserves on the cluster.
    """

    parallel: Literal["ray", "none"] = "none"
    cpus_per_task: float = 1.0


@dataclass(frozen=True)
class Item:
    """One task of a step: its name, what it works on, and how many rows that is."""

    name: str
    work: Any
    rows: int


@dataclass(frozen=True)
class Done:
    """What a task counted, and the files it made, by their kind."""

    counts: Counts
    files: Mapping[str, Sequence[FileNote]] = field(default_factory=dict)

    def spelled(self) -> str:
        files = {kind: [note.spelled() for note in notes] for kind, notes in self.files.items()}
        return json.dumps(signed(json.loads(json.dumps({"counts": self.counts, "files": files}))))

    @classmethod
    def read(cls, text: str) -> "Done":
        """
        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is no note.
        """
        spelling = unsigned(json.loads(text))
        files = {kind: [FileNote(*note) for note in notes] for kind, notes in spelling["files"].items()}
        return cls(spelling["counts"], files)

    @property
    def all_files(self) -> list[FileNote]:
        return [note for notes in self.files.values() for note in notes]


@dataclass
class _Step:
    """A step that has begun: its tasks in order, and those that are done."""

    name: str
    items: dict[str, Item]
    task: Callable[[Any], Done]
    done: dict[str, Done] = field(default_factory=dict)


class Runner:
    """Runs one step after the other.

    Args:
        output: the folder that notes of files are relative to.
        notes: where notes of tasks are kept.
    """

    def __init__(self, output: Path, notes: Path, workers: Workers) -> None:
        self.output, self.notes, self.workers = output, notes, workers
        self._steps: dict[str, _Step] = {}
        self._makers: dict[str, tuple[str, str]] = {}  # step and item, by file
        self._again: Counter[str] = Counter()  # how often each file had to be made again

    def step(self, name: str, items: Sequence[Item], task: Callable[[Any], Done]) -> dict[str, Done]:
        """Runs `task(item.work)` for every item that has not left its note and files; returns what all did by item name.

        Raises:
            ConfigError: a task found something in the log, the configuration or on the disk that the user has to mend.
            RuntimeError: a task failed by our own fault; its trace is in the message.
        """
        step = self._steps[name] = _Step(name, {item.name: item for item in items}, task)
        assert len(step.items) == len(items), f"{name}: two items have one name, so one of them would be lost"
        left = lambda item: self._left(step, item)
        for item, done in zip(items, self._many(left, items), strict=True):
            self._take(step, item.name, done)
        waiting = [item for item in items if item.name not in step.done]
        if not waiting:
            if items:
                print(f"{name:>9}: done before ({len(items)} tasks)", flush=True)
        else:
            done_before = len(items) - len(waiting)
            print(f"{name:>9}: {len(waiting)} tasks{f', {done_before} done before' if done_before else ''}", flush=True)
            self._run(step, waiting)
        return {item.name: step.done[item.name] for item in items}

    def read(self, reader: Callable[[], T]) -> T:
        """What `reader` reads of files that tasks made.

        Raises:
            ConfigError: a file is gone or damaged, and cannot be made again.
        """
        while True:
            try:
                return reader()
            except DamagedFile as error:
                self._make_again({error.path: error.why})

    def settled(self, *kinds: str) -> list[FileNote]:
        """All files of these kinds that any step made, once each of them is there.

        Raises:
            ConfigError: as `read`.
        """
        made = lambda: [
            note
            for step in self._steps.values()
            for name in step.items
            for kind, notes in step.done[name].files.items()
            if kind in kinds
            for note in notes
        ]
        notes = made()
        for note, found in zip(notes, self._many(self._is_there, notes), strict=True):
            if not found:
                self.read(lambda note=note: there(note, self.output))  # type: ignore[misc]
        return made()

    def _is_there(self, note: FileNote) -> bool:
        try:
            there(note, self.output)
        except DamagedFile:
            return False
        return True

    def _many(self, call: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """`call` of every item; side by side where each asks a store."""
        return places.side_by_side(call, items) if isinstance(self.output, places.Remote) else list(map(call, items))

    def _run(self, step: _Step, waiting: Sequence[Item]) -> None:
        one = Task(step.task, self._folder(step))
        run = _with_ray if self.workers.parallel == "ray" else _in_process
        while waiting:
            started = printed = time.monotonic()
            rows, lost, failed = 0, {}, []
            for number, (item, ended) in enumerate(run(one, waiting, self.workers), 1):
                if ended.lost:
                    lost[ended.lost] = ended.problem
                    failed.append(item)
                    continue
                if ended.problem:
                    raise ConfigError(ended.problem)
                if ended.trace:
                    raise RuntimeError(f"{step.name}, task {item.name}, failed where it was run:\n{ended.trace}")
                self._take(step, item.name, Done.read(ended.note))
                rows += item.rows
                now = time.monotonic()
                if now - printed > 1 or number == len(waiting):
                    printed = now
                    speed = rows / max(now - started, 1e-9)
                    done = f"{len(step.done)}/{len(step.items)}"
                    print(f"{step.name:>9}: {done}, {rows:,} rows, {speed:,.0f} rows/s", flush=True)
            if lost:
                self._make_again(lost)
            waiting = failed

    def _make_again(self, lost: Mapping[str, str]) -> None:
        """Runs the tasks that made these files once more; those of earlier steps first.

        Args:
            lost: what is wrong with each.
        """
        makers: dict[str, set[str]] = {}
        for path, why in lost.items():
            self._again[path] += 1
            if path not in self._makers or self._again[path] > _TRIES:
                raise ConfigError(f"{self.output / path} {why}. {_GO_ON}")
            name, item = self._makers[path]
            print(f"  {self.output / path} {why}; {name} {item} makes it again", flush=True)
            makers.setdefault(name, set()).add(item)
        for step in [step for name, step in self._steps.items() if name in makers]:
            before = {item: step.done.pop(item) for item in sorted(makers[step.name])}
            for item in before:
                (self._folder(step) / f"{item}.json").unlink(missing_ok=True)
            self._run(step, [step.items[item] for item in before])
            for item, done in before.items():
                if step.done[item].files != done.files:  # others have notes of what it was
                    raise ConfigError(f"{step.name} {item} made other files in {self.output} than before. {_GO_ON}")

    def _take(self, step: _Step, item: str, done: Done | None) -> None:
        if done is not None:
            step.done[item] = done
            self._makers.update(dict.fromkeys((note.path for note in done.all_files), (step.name, item)))

    def _left(self, step: _Step, item: Item) -> Done | None:
        """What a task noted before; None where it has to be run (again)."""
        path = self._folder(step) / f"{item.name}.json"
        try:
            done = Done.read(path.read_text(encoding="utf-8"))
            for note in done.all_files:
                there(note, self.output)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            print(f"  {error} It is made again by {step.name} {item.name}", flush=True)
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            print(f"  {path} is damaged; {step.name} {item.name} is done again", flush=True)
            return None
        return done

    def _folder(self, step: _Step) -> Path:
        return self.notes / step.name


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Attributes:
        note: what it did, see `Done`; empty where it did not come to its end.
        lost: a file that is gone or damaged; `problem` says how.
        problem: what the user has to be told.
        trace: of an error that is ours.
    """

    note: str = ""
    lost: str = ""
    problem: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Task:
    """What runs where the work is done: the task, then its note.

    Its errors come back as values: what Ray makes of one that is raised are pages of its own.
    """

    task: Callable[[Any], Done]
    folder: Path

    def __call__(self, item: Item) -> Ended:
        try:
            note = self.task(item.work).spelled()
            write_text(self.folder / f"{item.name}.json", note, durable=False)
        except DamagedFile as error:
            return Ended(lost=error.path, problem=error.why)
        except Exception as error:
            line = told(error)
            return Ended(trace=traceback.format_exc()) if line is None else Ended(problem=line)
        finally:
            places.tidy()
        return Ended(note)


def _in_process(task: Task, items: Sequence[Item], workers: Workers) -> Iterator[tuple[Item, Ended]]:
    for item in items:
        yield item, task(item)


def _with_ray(task: Task, items: Sequence[Item], workers: Workers) -> Iterator[tuple[Item, Ended]]:
    import ray

    def run(batch: dict) -> dict:
        ended = task(pickle.loads(batch["item"][0]))
        found = {"note": ended.note, "lost": ended.lost, "problem": ended.problem, "trace": ended.trace}
        return {"number": batch["number"], **{name: [value] for name, value in found.items()}}

    # What all tasks share travels once, with the function; what one of them works on, with its row.
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
    with _quiet(ray.data.DataContext.get_current()):
        work = ray.data.from_items(rows, override_num_blocks=len(items))
        one_thread = {"env_vars": {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}}  # tasks run side by side instead
        results = work.map_batches(run, batch_size=1, num_cpus=workers.cpus_per_task, runtime_env=one_thread)
        for row in results.iter_rows():
            yield items[row.pop("number")], Ended(**row)


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
