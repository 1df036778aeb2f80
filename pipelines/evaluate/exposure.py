"""Discoverability: how many of a feed's first places go to candidates that have had little exposure.

The eLiveRec paper (Zhang et al. 2023, Sec. VI-C3) counts, online, channels that had no exposure for 7, 14 or 30 days. A log
is often shorter than that, so here a candidate is *poor* where its owner (room or streamer, as `schema.levels` says) is of
the lowest level, and *new* where no training day has shown its owner. The share says what an ordering does, not how good it
is: read it beside the AUC.

    # N candidates, k places
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from models.metrics.names import TOPS
from models.metrics.ranking import share_at_top
from models.schema import Schema
from models.score import fused_score
from pipelines.encode.arrays import flat, lengths
from pipelines.prepared import Prepared
from pipelines.report.evaluation.exposure import SplitExposure
from pipelines.runs.sealed import read_sealed

POOR, NEW = "poor", "new"
FUSED = "fused"  # the order by the score that orders feeds


def at_top(table: pa.Table, schema: Schema, new_rooms: NDArray | None = None) -> dict[str, dict[str, float | None]]:
    """Shares of poor and new candidates at the top of feeds that are ordered by a scored table's predictions.

    Args:
        new_rooms: rooms of owners that no training day has shown, ascending; None where that is not known.

    Returns:
        `poor@k` (and `new@k`) for k of `TOPS`, by binary target without parents; and as `FUSED` for the score that orders
        feeds, where the table has all it is made of. None where no feed is larger than k.
    """
    orders = {}
    for target in schema.targets:
        if target.is_binary and not target.parents and target.name in table.column_names:
            orders[target.name] = table[target.name].to_numpy().astype(np.float64)
    weighted = [target.name for target in schema.targets if target.fusion_weight != 0]
    if weighted and set(weighted) <= set(table.column_names):
        predictions = {name: torch.from_numpy(table[name].to_numpy().astype(np.float64)) for name in weighted}
        orders[FUSED] = fused_score(predictions, schema).numpy()
    marks, feed_N = _marks(table, new_rooms), _feeds(table)
    return {name: _shares(score_N, marks, feed_N) for name, score_N in orders.items()}


def split_exposure(prepared: Prepared, split: str, new_rooms: NDArray | None) -> SplitExposure:
    """What discoverability is measured against, from the feeds of the split alone."""
    tables = []
    for file in prepared.files(split):
        feeds = read_sealed(file, ["feed_id", "room_id", "level"])
        feed_N = np.repeat(feeds["feed_id"].to_numpy(), lengths(feeds["room_id"]))
        tables.append(pa.table({"feed_id": feed_N, "room_id": flat(feeds["room_id"]), "level": flat(feeds["level"])}))
    table = pa.concat_tables(tables)
    marks, feed_N = _marks(table, new_rooms), _feeds(table)
    size_F, levels = np.bincount(feed_N), prepared.schema.levels
    return SplitExposure(
        level=levels.names[0],
        of=levels.of,
        column=levels.column,
        feeds={str(k): int((size_F > k).sum()) for k in TOPS},
        logged=_shares(-np.arange(table.num_rows, dtype=np.float64), marks, feed_N),
        random=_shares(np.zeros(table.num_rows), marks, feed_N),
    )


def new_rooms_of(prepared: Prepared, split: str) -> NDArray | None:
    """Rooms of the split whose owner no training day has shown, ascending; None where the encoder or the features do not know.

    A room without a known streamer is not counted as one of a new streamer.
    """
    levels = prepared.schema.levels
    owner = f"{levels.of}_id"
    files = prepared.features(split)
    if levels.column is not None or not files or owner not in pq.read_schema(files[0]).names:
        return None
    found = []
    for file in files:
        features = pq.read_table(file, columns=list(dict.fromkeys(["room_id", owner])), partitioning=None)
        room_N, owner_N = (flat(features[name]) for name in ("room_id", owner))
        known = owner_N.is_valid()
        row_K = prepared.encoder.level.owners.rows(owner_N.filter(known).to_numpy())
        found.append(np.unique(room_N.filter(known).to_numpy()[row_K == 0]))
    return np.unique(np.concatenate(found))


def _marks(table: pa.Table, new_rooms: NDArray | None) -> dict[str, NDArray]:
    marks = {POOR: table["level"].to_numpy() == 0}
    return marks if new_rooms is None else marks | {NEW: np.isin(table["room_id"].to_numpy(), new_rooms)}


def _feeds(table: pa.Table) -> NDArray:
    return np.unique(table["feed_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)


def _shares(score_N: NDArray, marks: dict[str, NDArray], feed_N: NDArray) -> dict[str, float | None]:
    finite = bool(np.isfinite(score_N).all())
    return {
        f"{mark}@{k}": share_at_top(score_N, marked_N, feed_N, k) if finite else None
        for mark, marked_N in marks.items()
        for k in TOPS
    }
