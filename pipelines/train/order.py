"""The order of training feeds: a function of (seed, epoch, step) alone, whoever reads them and however many they are.

An epoch permutes the row groups of the feed tables and cuts them into windows. Inside a window every row group's feeds are
shuffled and spread evenly over the whole window; the windows one after another, cut every `batch_feeds` feeds, are the
epoch's joint batches. Row group i of the epoch belongs to rank i mod size, and of a joint batch each rank takes what lies
in its own row groups. So

* the joint batch of a step holds the same feeds for any number of workers, and every feed comes once an epoch;
* a rank reads its own row groups only, one window at a time, and no two ranks read the same one;
* (epoch, step) is the whole position: reading goes on in the middle of a window, also with another number of workers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.config import ConfigError
from pipelines.places import Remote, side_by_side, source


@dataclass(frozen=True)
class RowGroup:
    """A piece of a feed file that is read at once.

    Attributes:
        index: its place in the file.
        feeds: how many it holds.
    """

    path: str
    index: int
    feeds: int


def row_groups(files: Iterable[Path]) -> tuple[RowGroup, ...]:
    """All row groups that hold feeds, from the footers; files in the given order.

    Raises:
        ConfigError: a file that is missing or is not whole.
    """
    files = list(files)
    in_store = bool(files) and isinstance(files[0], Remote)
    groups = []
    for file, footer in zip(files, side_by_side(_footer, files) if in_store else map(_footer, files), strict=True):
        sizes = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
        groups += [RowGroup(str(file), index, feeds) for index, feeds in enumerate(sizes) if feeds]
    return tuple(groups)


def _footer(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(source(file))
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())} Prepare the data again.") from None


@dataclass(frozen=True)
class WindowPart:
    """What one rank reads of one window of an epoch.

    Attributes:
        groups: the rank's row groups, in the order in which they are concatenated.
        take: rows of that concatenation in training order, int64.
        steps: the step each of them is trained in, int64, not decreasing.
    """

    groups: tuple[RowGroup, ...]
    take: NDArray[np.int64]
    steps: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FeedOrder:
    """Which feeds this rank trains on at which step of which epoch.

    A joint batch is what all ranks together train on in one step.

    Attributes:
        batch_feeds: feeds of a joint batch; only the last of an epoch may have fewer.
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
        """Feeds of the whole split."""
        return sum(group.feeds for group in self.groups)

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return -(-self.feeds // self.batch_feeds)

    @property
    def windows(self) -> int:
        """Windows of an epoch."""
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

    def part(self, epoch: int, window: int) -> WindowPart:
        """This rank's share of a window; costs a sort of the window's feeds and reads nothing."""
        permutation = self._permutation(epoch)
        begin, end = self._bounds()[window : window + 2]
        mine, keys, local, rows = [], [], [], 0
        for place in range(begin, end):
            group = self.groups[permutation[place]]
            # Feeds of a group, shuffled, one in each n-th of the window: joint batches mix all groups in equal parts.
            rng = np.random.default_rng((self.seed, epoch, 1, int(permutation[place])))
            keys.append((rng.permutation(group.feeds) + rng.random(group.feeds)) / group.feeds)
            if place % self.size == self.rank:
                mine.append(group)
                local.append(np.arange(rows, rows + group.feeds))
                rows += group.feeds
            else:
                local.append(np.full(group.feeds, -1))
        take = np.concatenate(local)[np.argsort(np.concatenate(keys), kind="stable")]
        places = np.flatnonzero(take >= 0)
        return WindowPart(tuple(mine), take[places], (int(self._starts(epoch)[window]) + places) // self.batch_feeds)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.groups))

    def _bounds(self) -> list[int]:
        """Places in the epoch's order at which windows begin, and the end; windows differ by one row group at most."""
        return [len(self.groups) * window // self.windows for window in range(self.windows + 1)]

    def _starts(self, epoch: int) -> NDArray[np.int64]:
        """Feeds that come before each window."""
        sizes = np.array([group.feeds for group in self.groups])[self._permutation(epoch)]
        return np.concatenate([[0], np.cumsum(sizes)])[self._bounds()[:-1]]
