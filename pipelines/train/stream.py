"""The order of training feeds: a function of (seed, epoch, step) alone, whoever reads them and however many they are.

An epoch permutes the row groups of the feed tables and cuts them into windows. Inside a window every row group's feeds are
shuffled and spread evenly over the whole window; the windows one after another, cut every `batch_feeds` feeds, are the
epoch's joint batches. Row group i of the epoch belongs to rank i mod size, and of a joint batch each rank takes what lies
in its own row groups. So

* the joint batch of a step holds the same feeds for any number of workers, and every feed comes once an epoch;
* a rank reads its own row groups only, one window at a time, and no two ranks read the same one;
* (epoch, step) is the whole position: reading goes on in the middle of a window, also with another number of workers.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.batch import FeedBatch
from models.config import ConfigError
from models.schema import Schema
from pipelines.encode.batches import to_batch
from pipelines.encode.feeds import EARLIER, META, PREFERENCE_PREFIX, feeds_schema

T = TypeVar("T")

BATCHES_AHEAD = 4  # joint-batch shares that wait as tensors for the training step


@dataclass(frozen=True)
class RowGroup:
    """A piece of a feed file that is read at once."""

    path: str
    index: int
    feeds: int


@dataclass(frozen=True)
class Part:
    """What one rank reads of one window.

    Attributes:
        groups: the rank's row groups, in the order in which they are concatenated.
        take: rows of that concatenation in training order, int64.
        steps: the step each of them is trained in, int64, not decreasing.
    """

    groups: tuple[RowGroup, ...]
    take: NDArray[np.int64]
    steps: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which feeds this rank trains on at which step of which epoch.

    Attributes:
        batch_feeds: feeds of a joint batch, all ranks together; only the last of an epoch may have fewer.
        window_groups: row groups shuffled together. A multiple of `size` gives all ranks equal shares.

    Raises:
        ConfigError: no feeds, or a window with fewer row groups than there are ranks to share it.
    """

    groups: tuple[RowGroup, ...]
    seed: int
    batch_feeds: int
    window_groups: int
    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not self.feeds:
            raise ConfigError("the training split holds no feeds. Look at the split days and the counts in manifest.json.")
        if self.window_groups < self.size:
            raise ConfigError(
                f"train.shuffle_row_groups={self.window_groups} is less than train.workers={self.size}: some workers would "
                f"wait for the others. Set train.shuffle_row_groups to a multiple of {self.size}."
            )

    @cached_property
    def feeds(self) -> int:
        return sum(group.feeds for group in self.groups)

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return -(-self.feeds // self.batch_feeds)

    @property
    def windows(self) -> int:
        return -(-len(self.groups) // self.window_groups)

    def window_of(self, epoch: int, step: int) -> int:
        """The window in which a step's first feed lies."""
        starts = self._starts(epoch)
        return int(np.searchsorted(starts, step * self.batch_feeds, side="right")) - 1

    def end_step(self, epoch: int, window: int) -> int:
        """Steps that are complete once this window has been read."""
        return self.steps if window == self.windows - 1 else int(self._starts(epoch)[window + 1]) // self.batch_feeds

    def reads(self, window: int) -> bool:
        """Whether this rank reads anything of a window."""
        begin, end = self._bounds()[window : window + 2]
        return any(place % self.size == self.rank for place in range(begin, end))

    def part(self, epoch: int, window: int) -> Part:
        """This rank's share of a window; costs a sort of the window's feeds and reads nothing."""
        order = self._order(epoch)
        begin, end = self._bounds()[window : window + 2]
        mine, keys, local, rows = [], [], [], 0
        for place in range(begin, end):
            group = self.groups[order[place]]
            # Feeds of a group, shuffled, one in each n-th of the window: joint batches mix all groups in equal parts.
            rng = np.random.default_rng((self.seed, epoch, 1, int(order[place])))
            keys.append((rng.permutation(group.feeds) + rng.random(group.feeds)) / group.feeds)
            if place % self.size == self.rank:
                mine.append(group)
                local.append(np.arange(rows, rows + group.feeds))
                rows += group.feeds
            else:
                local.append(np.full(group.feeds, -1))
        take = np.concatenate(local)[np.argsort(np.concatenate(keys), kind="stable")]
        places = np.flatnonzero(take >= 0)
        return Part(tuple(mine), take[places], (int(self._starts(epoch)[window]) + places) // self.batch_feeds)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.groups))

    def _bounds(self) -> list[int]:
        """Places in the epoch's order at which windows begin, and the end; windows differ by one row group at most."""
        return [len(self.groups) * window // self.windows for window in range(self.windows + 1)]

    def _starts(self, epoch: int) -> NDArray[np.int64]:
        """Feeds that come before each window."""
        sizes = np.array([group.feeds for group in self.groups])[self._order(epoch)]
        return np.concatenate([[0], np.cumsum(sizes)])[self._bounds()[:-1]]


Reader = Callable[[Plan, int, int, Sequence[str]], Generator[pa.Table, None, None]]
"""(plan, epoch, first window, columns) -> tables whose rows, one after another, are those of the parts from there on."""


def row_groups(files: Iterable[Path]) -> tuple[RowGroup, ...]:
    """All row groups that hold feeds, from the footers; files in the given order.

    Raises:
        ConfigError: a file that is missing or is not whole.
    """
    groups = []
    for file in files:
        try:
            footer = pq.read_metadata(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())} Prepare the data again.") from None
        sizes = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
        groups += [RowGroup(str(file), index, feeds) for index, feeds in enumerate(sizes) if feeds]
    return tuple(groups)


def columns_for(schema: Schema, *, preferences: bool = True) -> list[str]:
    """Columns of the feed table that `to_batch` reads.

    Args:
        preferences: with the running preferences, which cost a fourth of all reading and which few rankers learn from.
    """
    unread = {*META.names} - {"user_id", "room_id"}
    if not preferences:
        unread |= {EARLIER, *(PREFERENCE_PREFIX + name for name in schema.target_names)}
    return [name for name in feeds_schema(schema).names if name not in unread]


def read(groups: Sequence[RowGroup], columns: Sequence[str]) -> pa.Table:
    """The rows of the groups, one group after another, on one thread."""
    files = {path: pq.ParquetFile(path) for path in {group.path for group in groups}}
    try:
        return pa.concat_tables(
            [files[group.path].read_row_group(group.index, columns=list(columns), use_threads=False) for group in groups]
        ).combine_chunks()
    finally:
        for file in files.values():
            file.close()


def load(part: Part, columns: Sequence[str]) -> pa.Table:
    """The feeds of a part that is not empty, in training order."""
    return read(part.groups, columns).take(pa.array(part.take))


def in_process(plan: Plan, epoch: int, first: int, columns: Sequence[str]) -> Generator[pa.Table, None, None]:
    """Parts read by a thread of this process, one window ahead."""
    windows = [window for window in range(first, plan.windows) if plan.reads(window)]
    yield from ahead((load(plan.part(epoch, window), columns) for window in windows), 1)


class Stream:
    """This rank's batches, step by step.

    Args:
        read_parts: where parts are read: `in_process`, or `pipelines.train.ray_data.ray_data`.
        preferences: whether batches are to have the users' running preferences.
    """

    def __init__(self, plan: Plan, schema: Schema, read_parts: Reader = in_process, *, preferences: bool = True) -> None:
        self.plan = plan
        self.schema = schema
        self.read_parts = read_parts
        self.columns = columns_for(schema, preferences=preferences)

    @property
    def steps(self) -> int:
        return self.plan.steps

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[FeedBatch | None, None, None]:
        """One item for each step from `first_step` on; None where no feed of the joint batch lies with this rank."""
        shares = self.shares(epoch, first_step)
        yield from ahead((to_batch(share, self.schema) if share.num_rows else None for share in shares), BATCHES_AHEAD)

    def shares(self, epoch: int, first_step: int = 0) -> Generator[pa.Table, None, None]:
        """The same as tables; a table without rows where there is nothing."""
        plan = self.plan
        if first_step >= plan.steps:
            return
        columns = self.columns
        first = plan.window_of(epoch, first_step)
        nothing = feeds_schema(self.schema).empty_table().select(columns)
        step, held = first_step, nothing
        with closing(_Rows(self.read_parts(plan, epoch, first, columns), nothing)) as rows:
            for window in range(first, plan.windows):
                steps = plan.part(epoch, window).steps
                table = rows.next(len(steps))
                for now in range(step, plan.end_step(epoch, window)):
                    begin, end = np.searchsorted(steps, [now, now + 1])
                    yield _joined([held, table.slice(begin, end - begin)])
                    step, held = now + 1, nothing
                held = _joined([held, table.slice(np.searchsorted(steps, step))])


class _Rows:
    """Cuts a sequence of tables anew: the reader's blocks need not be parts, only their rows in order."""

    def __init__(self, tables: Generator[pa.Table, None, None], nothing: pa.Table) -> None:
        self.tables = tables
        self.rest = nothing

    def next(self, count: int) -> pa.Table:
        pieces, missing = [self.rest], count - self.rest.num_rows
        while missing > 0:
            pieces.append(next(self.tables))
            missing -= pieces[-1].num_rows
        whole = _joined(pieces)
        self.rest = whole.slice(count)
        return whole.slice(0, count)

    def close(self) -> None:
        getattr(self.tables, "close", lambda: None)()


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One table after another, without a copy where only one has rows."""
    filled = [table for table in tables if table.num_rows] or list(tables[:1])
    return filled[0] if len(filled) == 1 else pa.concat_tables(filled).combine_chunks()


@dataclass(frozen=True, kw_only=True)
class InOrder:
    """Feeds as they lie in the files, for evaluation, so without preferences: this rank's are every size-th row group.

    Attributes:
        batch_feeds: feeds of a batch at most.
    """

    groups: tuple[RowGroup, ...]
    schema: Schema
    batch_feeds: int
    rank: int = 0
    size: int = 1

    def batches(self) -> Generator[FeedBatch, None, None]:
        yield from ahead((to_batch(table, self.schema) for table in self._tables()), BATCHES_AHEAD)

    def _tables(self) -> Generator[pa.Table, None, None]:
        for group in self.groups[self.rank :: self.size]:
            table = read([group], columns_for(self.schema, preferences=False))
            yield from (table.slice(begin, self.batch_feeds) for begin in range(0, group.feeds, self.batch_feeds))


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The same items, made in a thread while at most `depth` of them wait. An error comes out where its item would have."""
    slots, made, stopped = (
        threading.Semaphore(depth),
        queue.SimpleQueue[tuple[str, T | BaseException | None]](),
        threading.Event(),
    )

    def work() -> None:
        iterator = iter(items)
        try:
            while slots.acquire() and not stopped.is_set():
                made.put(("item", next(iterator)))
        except StopIteration:
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))
        finally:
            getattr(iterator, "close", lambda: None)()

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = made.get()
            if kind == "end":
                return
            if isinstance(item, BaseException) and kind == "error":
                raise item
            slots.release()
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        slots.release()
        thread.join()
