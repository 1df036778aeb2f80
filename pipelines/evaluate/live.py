"""The room a user entered, ranked among the rooms that were live at that moment (`pipelines.live` makes the feeds).

A log of impressions only says how what was shown would be ordered; what was shown was chosen by the platform. Here the choice
is among everything that could have been shown. Other rooms that the user entered in the same feed are taken out of an entry's
list. What a user never saw counts as not wanted, which is a floor under what a system could do, alike for all of them.

    # E entries, N candidates
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from models.config import from_dict
from models.leveled import Leveled
from models.metrics.entered import among
from models.ranker import Ranker
from models.schema import STAGES, Schema
from models.score import fused_score
from pipelines.encode.arrays import flat, lengths
from pipelines.encode.batches import to_batch
from pipelines.encode.feeds import LABEL_PREFIX, STAGE
from pipelines.report.evaluation.live import LiveRanks, LiveSample
from pipelines.runs import read_json

FEEDS, RESULT = "feeds.parquet", "live.json"
AGE, ENTRIES = "live.age_hours", "live.entries"  # columns of candidates, beside those that a model reads
FUSED = "fused"
AGES = {"< 10 min": 1 / 6, "< 30 min": 0.5, "< 1 h": 1.0, "< 3 h": 3.0, "older": np.inf}  # of a room, in hours
_BATCH = 16  # feeds at a time: each has hundreds of candidates

Scores = Callable[[pa.Table], dict[str, NDArray]]


def sample_of(folder: Path) -> LiveSample:
    return from_dict(LiveSample, read_json(folder / RESULT, way_out="Delete its folder; it is made again."))


def ranked_by(ranker: Ranker | Leveled, schema: Schema, folder: Path) -> dict[str, LiveRanks]:
    """By the chance of an entry and by the fused score, where the ranker has what they are made of."""
    target = sample_of(folder).target
    device = next(ranker.parameters()).device
    weighted = {each.name for each in schema.targets if each.fusion_weight != 0}

    def scores(feeds: pa.Table) -> dict[str, NDArray]:
        with torch.inference_mode():
            predictions = ranker.predict(to_batch(feeds, schema).to(device))
            found = {target: predictions[target]} if target in predictions else {}
            if weighted and weighted <= predictions.keys():
                found[FUSED] = fused_score(predictions, schema)
        return {name: score_N.cpu().numpy() for name, score_N in found.items()}

    was_training = ranker.training
    ranker.eval()
    try:
        return _ranked(scores, schema, folder)
    finally:
        ranker.train(was_training)


def floors(schema: Schema, folder: Path) -> dict[str, LiveRanks]:
    """What knows nothing of the user: chance, and how many entered each room, as of the moment."""

    def scores(feeds: pa.Table) -> dict[str, NDArray]:
        rooms = int(lengths(feeds["room_id"]).sum())
        found = {"chance": np.zeros(rooms)}
        if ENTRIES in feeds.column_names:
            found["popularity"] = np.nan_to_num(flat(feeds[ENTRIES]).to_numpy(zero_copy_only=False).astype(np.float64))
        return found

    return _ranked(scores, schema, folder)


def _ranked(scores: Scores, schema: Schema, folder: Path) -> dict[str, LiveRanks]:
    label = LABEL_PREFIX + sample_of(folder).target
    places: dict[str, list[tuple[NDArray, NDArray]]] = {}
    groups: list[dict[str, NDArray]] = []
    for feeds in _batches(folder):
        count = lengths(feeds["room_id"])
        feed_N = np.repeat(np.arange(len(count)), count)
        entered_N = flat(feeds[label]).to_numpy() > 0
        own = {
            "level": flat(feeds["level"]).to_numpy()[entered_N],
            "age": np.searchsorted(list(AGES.values()), flat(feeds[AGE]).to_numpy()[entered_N], side="right"),
        }
        if STAGE in feeds.column_names:
            own["stage"] = feeds[STAGE].to_numpy()[feed_N[entered_N]]
        groups.append(own)
        for name, score_N in scores(feeds).items():
            places.setdefault(name, []).append(_places(score_N, entered_N, feed_N))
    names = {"level": schema.levels.names, "stage": STAGES, "age": tuple(AGES)}
    of = {by: np.concatenate([each[by] for each in groups]) for by in groups[0]}
    found = {}
    for name, parts in places.items():
        better_E, equal_E = (np.concatenate(each) for each in zip(*parts, strict=True))
        by_group = {
            by: {
                group: {"entries": int((of_E == place).sum()), **among(better_E[of_E == place], equal_E[of_E == place])}
                for place, group in enumerate(names[by])
            }
            for by, of_E in of.items()
        }
        found[name] = LiveRanks(values={"entries": len(better_E), **among(better_E, equal_E)}, by=by_group)
    return found


def _batches(folder: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(folder / FEEDS) as file:
        for batch in file.iter_batches(_BATCH):
            yield pa.Table.from_batches([batch])


def _places(score_N: NDArray, entered_N: NDArray, feed_N: NDArray) -> tuple[NDArray, NDArray]:
    """Of every entry how many rooms that were not entered have a better score, and how many the same."""
    others = ~entered_N
    better, equal = [], []
    for row in np.flatnonzero(entered_N):
        beside_N = score_N[others & (feed_N == feed_N[row])]
        better.append((beside_N > score_N[row]).sum())
        equal.append((beside_N == score_N[row]).sum())
    return np.array(better, np.int64), np.array(equal, np.int64)
