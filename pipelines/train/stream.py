"""This rank's batches: the feed tables read in the order of training (`order`), or as they lie in the files."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.batch import FeedBatch
from models.schema import Schema
from models.slots import PseudoLabel
from pipelines.encode.batches import Arrivals, preferences_for, to_batch
from pipelines.encode.feeds import EARLIER, META, PER_CLICK_PREFIX, PREFERENCE_PREFIX, feeds_schema
from pipelines.runs.sealed import SealedFile
from pipelines.train.ahead import ahead
from pipelines.train.order import FeedOrder, RowGroup, WindowPart

BATCHES_AHEAD = 4  # joint-batch shares that wait as tensors for the training step

Reader = Callable[[FeedOrder, int, int, Sequence[str]], Generator[pa.Table, None, None]]
"""(order, epoch, first window, columns) -> tables whose rows, one after another, are those of the parts from there on."""


def columns_for(schema: Schema, preferences_of: PseudoLabel | None, *, with_times: bool = False) -> list[str]:
    """Columns of the feed table that `to_batch` reads.

    Args:
        preferences_of: which running preferences are read; they cost a fourth of all reading, and few rankers learn from them.
        with_times: when feeds were shown as well.
    """
    of_users = {EARLIER, *(prefix + name for prefix in (PREFERENCE_PREFIX, PER_CLICK_PREFIX) for name in schema.target_names)}
    wanted = {EARLIER, *preferences_for(schema, preferences_of).values()} if preferences_of else set()
    unread = {*META.names, *of_users} - {"user_id", "room_id", *wanted, *(["at"] if with_times else [])}
    return [name for name in feeds_schema(schema).names if name not in unread]


def read(groups: Sequence[RowGroup], columns: Sequence[str]) -> pa.Table:
    """The rows of the groups, one group after another, on one thread."""
    files = {path: SealedFile(path) for path in {group.path for group in groups}}
    try:
        return pa.concat_tables([files[group.path].read_row_group(group.index, columns) for group in groups]).combine_chunks()
    finally:
        for file in files.values():
            file.close()


def load(part: WindowPart, columns: Sequence[str]) -> pa.Table:
    """The feeds of a part that is not empty, in training order."""
    return read(part.groups, columns).take(pa.array(part.take))


def in_process(order: FeedOrder, epoch: int, first: int, columns: Sequence[str]) -> Generator[pa.Table, None, None]:
    """Parts read by a thread of this process, one window ahead."""
    windows = [window for window in range(first, order.windows) if order.reads(window)]
    yield from ahead((load(order.part(epoch, window), columns) for window in windows), 1)


class Stream:
    """This rank's batches, step by step.

    Args:
        read_parts: where parts are read: `in_process`, or `pipelines.train.ray_data.ray_data`.
        preferences_of: which running preferences of users batches are to have; None for none.
        arrivals: as `to_batch` has them.
    """

    def __init__(
        self,
        order: FeedOrder,
        schema: Schema,
        read_parts: Reader = in_process,
        *,
        preferences_of: PseudoLabel | None = "impression",
        arrivals: Arrivals | None = None,
    ) -> None:
        self.order = order
        self.schema = schema
        self.read_parts = read_parts
        self.preferences_of: PseudoLabel | None = preferences_of
        self.arrivals = arrivals
        self.columns = columns_for(schema, preferences_of, with_times=arrivals is not None)

    @property
    def steps(self) -> int:
        return self.order.steps

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[FeedBatch | None, None, None]:
        """One item for each step from `first_step` on; None where no feed of the joint batch lies with this rank."""
        shares = self.shares(epoch, first_step)
        of = self.preferences_of, self.arrivals
        made = lambda share: to_batch(share, self.schema, *of) if share.num_rows else None
        yield from ahead((made(share) for share in shares), BATCHES_AHEAD)

    def shares(self, epoch: int, first_step: int = 0) -> Generator[pa.Table, None, None]:
        """The same as tables; a table without rows where there is nothing."""
        order = self.order
        if first_step >= order.steps:
            return
        columns = self.columns
        first = order.window_of(epoch, first_step)
        nothing = feeds_schema(self.schema).empty_table().select(columns)
        step, held = first_step, nothing
        with closing(_Rows(self.read_parts(order, epoch, first, columns), nothing)) as rows:
            for window in range(first, order.windows):
                steps = order.part(epoch, window).steps
                table = rows.next(len(steps))
                for now in range(step, order.end_step(epoch, window)):
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
class StoredFeeds:
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
            table = read([group], columns_for(self.schema, None))
            yield from (table.slice(begin, self.batch_feeds) for begin in range(0, group.feeds, self.batch_feeds))
