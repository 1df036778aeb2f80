"""Encoded feeds as tensors. Apart from `pipelines.encode.feeds`, so that the data steps need not load PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import torch

from models.batch import Early, FeedBatch, HistoryBatch
from models.schema import Schema
from models.slots import PseudoLabel
from pipelines.encode.arrays import flat
from pipelines.encode.arrays import lengths as lengths_of
from pipelines.encode.feeds import EARLIER, LABEL_PREFIX, PER_CLICK_PREFIX, PREFERENCE_PREFIX, STAGE
from pipelines.encode.open_labels import arrived_share


@dataclass(frozen=True)
class Arrivals:
    """How many positives of a target are known by when in their window: what it takes to learn from labels that are not final.

    Attributes:
        ending: the moment up to which the log is known, ms.
        counts: positives by part of the window, by binary target.
        window_ms: of each of them.
    """

    ending: int
    counts: Mapping[str, tuple[int, ...]]
    window_ms: Mapping[str, float]

    @classmethod
    def of(cls, schema: Schema, ending: int, counts: Mapping[str, tuple[int, ...]]) -> Self:
        targets = [target for target in schema.targets if target.name in counts]
        return cls(ending, {t.name: counts[t.name] for t in targets}, {t.name: t.attribution_seconds * 1000 for t in targets})

    def share(self, name: str, at_N: np.ndarray) -> np.ndarray:
        """The share of a target's positives that is known of impressions shown at these moments."""
        return arrived_share(self.counts[name], (self.ending - at_N) / self.window_ms[name])


def to_batch(
    feeds: pa.Table, schema: Schema, preferences_of: PseudoLabel | None = "impression", arrivals: Arrivals | None = None
) -> FeedBatch:
    """Encoded feeds as tensors; labels, preferences and counts that are missing are left out, as in a request.

    Histories are padded behind their entries to the longest of the table. Order of feeds and candidates is kept.

    Args:
        preferences_of: which running preferences; None for none.
        arrivals: for binary targets to be learnt from labels that are not final; None for these to be left out. Needs `at`.
    """
    feeds = feeds.combine_chunks()
    lengths = lengths_of(feeds["room_id"])
    there = set(feeds.column_names)
    labels = {name: LABEL_PREFIX + name for name in schema.target_names if LABEL_PREFIX + name in there}
    preferences = {name: column for name, column in preferences_for(schema, preferences_of).items() if column in there}
    windows = len(schema.preference_days)
    label_tensors = {name: _tensor(flat(feeds[column]), True) for name, column in labels.items()}
    open_targets = frozenset(name for name, label_N in label_tensors.items() if len(label_N) and label_N.min() < 0)
    arrived = {}
    if open_targets and arrivals is not None:
        at_N = np.repeat(feeds["at"].to_numpy(), lengths)
        for name in sorted(open_targets & arrivals.counts.keys()):
            is_open_N = label_tensors[name] < 0
            share_N = torch.from_numpy(arrivals.share(name, at_N).astype(np.float32))
            arrived[name] = torch.where(is_open_N, share_N, 1.0)
    return FeedBatch(
        feed={field.name: _tensor(feeds[field.name], field.is_number) for field in schema.fields_of("feed")},
        candidate={field.name: _tensor(flat(feeds[field.name]), field.is_number) for field in schema.fields_of("candidate")},
        histories={
            history.name: _padded({field.name: feeds[f"{history.name}.{field.name}"] for field in history.fields})
            for history in schema.histories
        },
        feed_of_candidate_N=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        level_N=torch.from_numpy(flat(feeds["level"]).to_numpy().astype(np.int64)),
        user_R=torch.from_numpy(feeds["user_id"].to_numpy().astype(np.int64)),
        labels=label_tensors,
        stage_R=_tensor(feeds[STAGE], False) if schema.stages is not None and STAGE in there else None,
        preferences={name: _tensor(flat(feeds[column]), True).view(-1, windows) for name, column in preferences.items()},
        earlier_RW=_tensor(flat(feeds[EARLIER]), False).view(-1, windows) if EARLIER in there else None,
        early=Early(targets=open_targets, arrived=arrived) if open_targets else None,
    )


def preferences_for(schema: Schema, of: PseudoLabel | None) -> dict[str, str]:
    """The column of every target's running preference. Rates of a click are those of targets that follow from it; of the
    others, and of the click itself, rates are of impressions.
    """
    if of is None:
        return {}
    if of == "impression":
        return {name: PREFERENCE_PREFIX + name for name in schema.target_names}
    assert schema.stages is not None, "rates of a click, in a schema that names none"
    click = schema.stages.click
    prefix = lambda name: PER_CLICK_PREFIX if click in schema.ancestors(name) else PREFERENCE_PREFIX
    return {name: prefix(name) + name for name in schema.target_names}


def _tensor(column: pa.ChunkedArray | pa.Array, is_number: bool) -> torch.Tensor:
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return torch.from_numpy(values.astype(np.float32 if is_number else np.int64))


def _padded(columns: dict[str, pa.ChunkedArray]) -> HistoryBatch:
    lengths = lengths_of(next(iter(columns.values())))
    is_real = np.arange(lengths.max(initial=0))[None, :] < lengths[:, None]
    rows = {}
    for name, column in columns.items():
        padded = np.zeros(is_real.shape, np.int64)
        padded[is_real] = flat(column).to_numpy()
        rows[name] = torch.from_numpy(padded)
    return HistoryBatch(rows=rows, is_real_RL=torch.from_numpy(is_real))
