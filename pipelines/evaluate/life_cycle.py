"""How users move through rule-based life-cycle stages, from the prepared feeds of all splits; and whether the rule is right.

# R feeds, S stages, D days
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from models.hashing import splitmix64
from models.schema import STAGES
from pipelines.encode.feeds import STAGE
from pipelines.evaluate.insight import last_of
from pipelines.evaluate.score import has_stages
from pipelines.logs.simulator.clock import DAY_MS, EPOCH_MS
from pipelines.places import here
from pipelines.prepared import SPLITS, Prepared
from pipelines.report.evaluation.life_cycle import LifeCycle, StageAgreement, StageDay, StagePairs, StageShift
from pipelines.runs.sealed import SealedFile, read_sealed

FEEDS = 3_000_000  # feeds that are looked at; above it, of a part of the users, whole


def life_cycle_of(prepared: Prepared, split: str, truth: Path | None, *, most: int = FEEDS) -> LifeCycle | None:
    """Where users stood at their last feed of each day.

    Args:
        split: whose days are compared with the truth.
        truth: a simulator's, with `stages/*.parquet` (user_id, day since its first, stage); None where there is none.
        most: feeds at most; of more, users are drawn by a hash of their id.

    Returns:
        None where the feeds know no stages.
    """
    files = [(name, file) for name in SPLITS for file in prepared.files(name)]
    if not files or not has_stages(SealedFile(files[0][1]).names, prepared.schema):
        return None
    feeds = sum(prepared.manifest.splits[name].feeds for name in SPLITS)
    share = min(1.0, most / max(feeds, 1))
    parts = []
    for name, file in files:
        table = read_sealed(file, ["user_id", "day", "at", STAGE])
        if share < 1:
            table = table.filter(pa.array(splitmix64(table["user_id"].to_numpy()) < np.uint64(share * 2.0**64)))
        parts.append(
            _last_of_days(table.append_column("split", pa.array(np.full(table.num_rows, SPLITS.index(name), np.int8))))
        )
    rows = _last_of_days(pa.concat_tables(parts))
    user_R, day_R, stage_R = (rows[name].to_numpy() for name in ("user_id", "day", STAGE))
    split_R = rows["split"].to_numpy()
    days = tuple(
        StageDay(
            day=str(np.datetime64(int(day), "D")),
            split=SPLITS[int(split_R[day_R == day][0])],
            users=int((day_R == day).sum()),
            counts=dict(zip(STAGES, np.bincount(stage_R[day_R == day], minlength=len(STAGES)).tolist(), strict=True)),
        )
        for day in np.unique(day_R)
    )
    return LifeCycle(
        user_share=share,
        days=days,
        shift=shift_of(user_R, day_R, stage_R),
        truth=agreement(rows.filter(pa.array(split_R == SPLITS.index(split))), truth),
    )


def shift_of(user_R: NDArray, day_R: NDArray, stage_R: NDArray) -> StageShift:
    """Users by the stages of their own first and last day; rows are a user's day each, those of one day only are left out."""
    first_U, last_U = last_of(-day_R.astype(np.int64), user_R), last_of(day_R, user_R)
    moved_U = day_R[first_U] < day_R[last_U]
    first_U, last_U = first_U[moved_U], last_U[moved_U]
    return StageShift(users=len(first_U), counts=crossed(stage_R[first_U], stage_R[last_U]))


def agreement(rows: pa.Table, truth: Path | None) -> StageAgreement | None:
    """The rule-based stage of users' days against the true one; None where that is not known."""
    if truth is None or not rows.num_rows or not (truth / "stages").is_dir():
        return None
    day = (rows["at"].to_numpy() - EPOCH_MS) // DAY_MS  # the prepared day may begin at another hour
    mine = pa.table({"user_id": rows["user_id"], "day": pa.array(day, pa.int64()), "rule": rows[STAGE]})
    there = (ds.field("day") >= int(day.min())) & (ds.field("day") <= int(day.max()))
    with here(truth / "stages") as folder:
        known = ds.dataset(folder).to_table(columns=["user_id", "day", "stage"], filter=there)
    joined = mine.join(known.set_column(1, "day", known["day"].cast(pa.int64())), ["user_id", "day"], join_type="inner")
    if not joined.num_rows:
        return None
    true_R = np.array([STAGES.index(stage) for stage in joined["stage"].to_pylist()])
    counts = crossed(true_R, joined["rule"].to_numpy())
    counts_SS = np.array(counts)
    total = counts_SS.sum()
    return StageAgreement(
        user_days=int(total),
        counts=counts,
        agreement=float(np.trace(counts_SS) / total),
        by_chance=float(counts_SS.sum(0) @ counts_SS.sum(1) / total**2),
    )


def crossed(row_R: NDArray, column_R: NDArray) -> StagePairs:
    """[S][S] counts of pairs of stages."""
    size = len(STAGES)
    pair_R = row_R.astype(np.int64) * size + column_R
    return tuple(map(tuple, np.bincount(pair_R, minlength=size * size).reshape(size, size).tolist()))


def _last_of_days(table: pa.Table) -> pa.Table:
    """The last feed of every user and day."""
    return table.take(pa.array(last_of(*(table[name].to_numpy() for name in ("at", "user_id", "day")))))
