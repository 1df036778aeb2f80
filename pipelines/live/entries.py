"""The entries that are ranked anew, and the rooms that were live beside them.

# R feeds, Q pairs of a feed and a room that was live then, M rooms
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.catalogue import ENTER
from models.config import ConfigError
from models.hashing import splitmix64
from models.schema import Schema, Target
from pipelines.encode.arrays import flat, lengths
from pipelines.encode.clock import NEVER
from pipelines.encode.feeds import LABEL_PREFIX
from pipelines.logs.canonical import CanonicalLogs
from pipelines.prepare.tables import times
from pipelines.prepare.timeline import find
from pipelines.prepared import Prepared

_AT_ONCE = 500_000  # rows of the table of rooms that are read


def entering(schema: Schema) -> Target:
    """The target that says that a room was entered.

    Raises:
        ConfigError: there is none, or the schema compares a candidate with the rest of its feed.
    """
    if schema.list_context:
        raise ConfigError(
            "evaluate.candidates: live ranks a room among all that were live, but the schema's fields compare a candidate with "
            "the rest of a logged feed (`list_context`). Take these out, or keep `candidates: logged`."
        )
    for target in schema.targets:
        if target.is_binary and target.action == ENTER and target.at_least is None:
            return target
    raise ConfigError(
        f"evaluate.candidates: live ranks rooms that were entered, but no target of the schema has `action: {ENTER}` (and is "
        "binary, with no `at_least`). Add one, or keep `candidates: logged`."
    )


def sampled_feeds(prepared: Prepared, split: str, target: Target, most: int, seed: int) -> pa.Table:
    """Raw features of at most so many feeds of a split with a room that was entered, drawn by a hash of their ids.

    Raises:
        ConfigError: the features are not there any more, or nobody entered a room.
    """
    files = prepared.features(split)
    if not files:
        raise ConfigError(
            f"evaluate.candidates: live reads the features of the {split} split, which were deleted. Prepare again."
        )
    label = LABEL_PREFIX + target.name
    drawn: list[np.ndarray] = []
    for file in files:
        table = pq.read_table(file, columns=["feed_id", label], partitioning=None)
        count = lengths(table[label])
        entered = np.add.reduceat(flat(table[label]).to_numpy() > 0, np.cumsum(count) - count) if len(count) else count
        drawn.append(_hashed(table["feed_id"].to_numpy()[entered > 0], seed))
    hashes = np.sort(np.concatenate(drawn))
    if not len(hashes):
        raise ConfigError(f"evaluate.candidates: live ranks entries, but on the {split} split no room was entered.")
    last = hashes[min(most, len(hashes)) - 1]
    kept = []
    for file, own in zip(files, drawn, strict=True):
        if (own <= last).any():
            table = pq.read_table(file, partitioning=None)
            count = lengths(table[label])
            entered = np.add.reduceat(flat(table[label]).to_numpy() > 0, np.cumsum(count) - count)
            kept.append(table.filter(pa.array((_hashed(table["feed_id"].to_numpy(), seed) <= last) & (entered > 0))))
    return pa.concat_tables(kept, promote_options="permissive").combine_chunks()


@dataclass(frozen=True)
class Lives:
    """When rooms were live, in the order of their starts, ms."""

    room_M: np.ndarray
    start_M: np.ndarray
    end_M: np.ndarray

    @classmethod
    def of(cls, logs: CanonicalLogs) -> "Lives":
        """As the table of rooms says; of several rows of a room the first start and the last end.

        Raises:
            ConfigError: it does not say of any room when it began and ended.
        """
        types = logs.types("rooms", ["start_at", "end_at"]) if logs.has("rooms") else pa.schema([])
        if len(types) < 2:
            raise ConfigError(
                "evaluate.candidates: live asks which rooms were live, but the log's table `rooms` has no `start_at` and "
                "`end_at`. Keep `candidates: logged`."
            )
        columns = pa.schema([pa.field("room_id", pa.int64()), *types])
        parts = [_known(batch) for part in logs.parts("rooms") for batch in part.batches(columns, _AT_ONCE)]
        room, start, end = (np.concatenate(each) for each in zip(*parts, strict=True))
        room_M, code = np.unique(room, return_inverse=True)
        start_M, end_M = np.full(len(room_M), np.iinfo(np.int64).max), np.full(len(room_M), NEVER)
        np.minimum.at(start_M, code, start)
        np.maximum.at(end_M, code, end)
        if not len(room_M):
            raise ConfigError("evaluate.candidates: live: the log says of no room when it began and ended.")
        order = np.lexsort((room_M, start_M))
        return cls(room_M[order], start_M[order], end_M[order])

    def at(self, moment: int) -> tuple[np.ndarray, np.ndarray]:
        """The rooms that had begun and not ended, ascending, and when they began."""
        first = np.searchsorted(self.start_M, moment - self._longest)
        stop = np.searchsorted(self.start_M, moment, side="right")
        live = first + np.flatnonzero(self.end_M[first:stop] > moment)
        live = live[np.argsort(self.room_M[live])]
        return self.room_M[live], self.start_M[live]

    @cached_property
    def _longest(self) -> int:
        return int((self.end_M - self.start_M).max())


def _known(batch: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = batch.filter(pc.and_(pc.is_valid(batch["start_at"]), pc.is_valid(batch["end_at"])))
    return known["room_id"].to_numpy(), times(known["start_at"]), times(known["end_at"])


@dataclass(frozen=True)
class Among:
    """Sampled feeds with what was live then.

    Attributes:
        feeds: raw features of the feeds that are left, candidates as logged.
        offsets_R: where the rooms of each feed begin; one more than feeds.
        room_Q, start_Q: ids, and when they began; a feed's rooms ascend.
        entries: rooms that were entered and live.
        not_live: rooms that were entered while the log says they were not live; they are left out.
        live_R: how many rooms were live, before they were drawn.
    """

    feeds: pa.Table
    offsets_R: np.ndarray
    room_Q: np.ndarray
    start_Q: np.ndarray
    entries: int
    not_live: int
    live_R: np.ndarray

    @property
    def feed_Q(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.feeds)), np.diff(self.offsets_R))


def among_live(feeds: pa.Table, lives: Lives, target: Target, most: int, seed: int) -> Among:
    """Every feed with the rooms that were live at its moment; of more than `most` those entered, and others drawn by hash.

    Raises:
        ConfigError: none of the entered rooms was live.
    """
    count = lengths(feeds["room_id"])
    ends = np.cumsum(count)
    room_N, label_N = flat(feeds["room_id"]).to_numpy(), flat(feeds[LABEL_PREFIX + target.name]).to_numpy()
    kept, rooms, starts, live_R = [], [], [], []
    entries = not_live = 0
    for row, (end, size, at, feed_id) in enumerate(
        zip(ends, count, feeds["at"].to_numpy(), feeds["feed_id"].to_numpy(), strict=True)
    ):
        own = slice(end - size, end)
        entered = np.unique(room_N[own][label_N[own] > 0])
        room, start = lives.at(int(at))
        is_entered = np.isin(room, entered)
        found = int(is_entered.sum())
        not_live += len(entered) - found
        if not found:
            continue
        live_R.append(len(room))
        if len(room) > most:
            drawn = _hashed(room ^ _hashed(np.array([feed_id]), seed).view(np.int64), seed)
            drawn[is_entered] = 0
            first = np.sort(np.argsort(drawn, kind="stable")[: max(most, found)])
            room, start = room[first], start[first]
        kept.append(row)
        rooms.append(room)
        starts.append(start)
        entries += found
    if not kept:
        raise ConfigError(
            f"evaluate.candidates: live: none of {not_live} entered rooms was live by the `start_at` and `end_at` of rooms."
        )
    return Among(
        feeds=feeds.take(pa.array(kept)),
        offsets_R=np.r_[0, np.cumsum([len(room) for room in rooms])],
        room_Q=np.concatenate(rooms),
        start_Q=np.concatenate(starts),
        entries=entries,
        not_live=not_live,
        live_R=np.array(live_R),
    )


def labels_of(among: Among, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Labels of the rooms, float32 [Q]: those of a feed's logged candidates, the largest of one that was shown twice, and 0
    for what was not shown, or is not final and might still become something else."""
    count = lengths(among.feeds["room_id"])
    feed_N = np.repeat(np.arange(len(count)), count)
    rooms, code = np.unique(np.concatenate([flat(among.feeds["room_id"]).to_numpy(), among.room_Q]), return_inverse=True)
    keys_K, place_N = np.unique(feed_N * len(rooms) + code[: len(feed_N)], return_inverse=True)
    place_Q = find(keys_K, among.feed_Q * len(rooms) + code[len(feed_N) :])
    found = {}
    for name in names:
        label_K = np.zeros(len(keys_K), np.float32)
        np.maximum.at(label_K, place_N, flat(among.feeds[LABEL_PREFIX + name]).to_numpy())
        found[LABEL_PREFIX + name] = np.where(place_Q >= 0, label_K[place_Q], 0).astype(np.float32)
    return found


def _hashed(values: np.ndarray, seed: int) -> np.ndarray:
    return splitmix64(values.astype(np.int64) ^ np.int64(seed))
