"""What a ranker tells of its parts on the same few feeds, before training and after every epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.batch import FeedBatch
from models.learners.workers import WorkerGroup
from models.leveled import Leveled
from models.ranker import Ranker
from models.schema import Schema
from models.slots import Probe
from pipelines.encode.batches import to_batch
from pipelines.train.heartbeat import with_heartbeat
from pipelines.train.order import RowGroup
from pipelines.train.process_group import from_rank_0
from pipelines.train.stream import columns_for, read

FEEDS, GROUPS = 512, 8  # of a probe, and row groups that they come from, at most


@dataclass(frozen=True, kw_only=True)
class Probing:
    """A ranker with the feeds that it is probed on; None for a ranker that has nothing to tell."""

    ranker: Ranker | Leveled
    batch: FeedBatch | None
    group: WorkerGroup

    @classmethod
    def of(cls, ranker: Ranker | Leveled, groups: Sequence[RowGroup], schema: Schema, group: WorkerGroup) -> "Probing":
        """Reads the feeds, the same on every rank, whatever their number.

        Args:
            groups: of the split that they are taken from.
        """
        batch = with_heartbeat(lambda: _feeds(groups, schema), group) if ranker.is_probed else None
        return cls(ranker=ranker, batch=batch, group=group)

    def __call__(self) -> Mapping[str, Probe]:
        """By name; every rank takes part and gets what rank 0 found. Leaves the ranker in eval mode."""
        if self.batch is None:
            return {}
        batch = self.batch.to(next(self.ranker.parameters()).device)
        self.ranker.eval()
        return from_rank_0(with_heartbeat(lambda: self.ranker.probe(batch), self.group), self.group)


def _feeds(groups: Sequence[RowGroup], schema: Schema) -> FeedBatch:
    """Feeds at equal distances, from row groups at equal distances, so that they are of many users."""
    chosen = [groups[place] for place in _spread(len(groups), GROUPS)]
    table = read(chosen, columns_for(schema, None))
    return to_batch(table.take(pa.array(_spread(table.num_rows, FEEDS))), schema)


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, evenly spread."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def alarms_of(found: Mapping[str, Probe], start: Mapping[str, float]) -> list[str]:
    """What is wrong by what was found, in sentences.

    Args:
        start: values before training.
    """
    told = (probe.alarm(start.get(name)) for name, probe in found.items())
    return [text for text in told if text is not None]


def values_of(found: Mapping[str, Probe]) -> dict[str, float]:
    """The numbers that are finite; of the others there is an alarm."""
    return {name: probe.value for name, probe in found.items() if math.isfinite(probe.value)}
