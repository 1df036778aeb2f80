"""Reads what a trained ranker shows of its inside: gates, target graph, preferences of users, curriculum.

All is read from one forward pass over a sample of whole users, so the price does not grow with the split.

    # R feeds, N candidates, E experts, U users, T targets
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from models.hashing import splitmix64
from models.leveled import Leveled
from models.ranker import Ranker
from models.schema import STAGES, Schema
from pipelines.encode.arrays import lengths
from pipelines.encode.batches import to_batch
from pipelines.report.evaluation.entries import Epoch
from pipelines.report.evaluation.insight import (
    CarriedEdge,
    CoursePoint,
    Curriculum,
    Gate,
    ModelInsight,
    Preferences,
    UserPoint,
)
from pipelines.report.targets import last_target
from pipelines.runs.sealed import SealedFile, read_sealed

CANDIDATES, USERS = 20_000, 2_000  # of a sample at most
POINTS = 1_000  # users in the picture of preferences at most
FEWEST = 12  # users that such a picture needs
NEIGHBOURS = 10  # of a user, by which it is measured how well preferences tell stages apart
STEPS_AN_EPOCH = 50  # of a curriculum's course

Key = TypeVar("Key")


# -- sample --------------------------------------------------------------------------------------------------------


def sampled_feeds(files: Sequence[Path], *, candidates: int = CANDIDATES, users: int = USERS) -> pa.Table:
    """All feeds of some users, in the files' order: the users whose ids hash lowest, as many as fit.

    Reads two narrow columns of everything, and of the rest only the row groups that hold a chosen user.

    Args:
        candidates: of all chosen users together at most; one user is always taken.
        users: at most.
    """
    chosen_U = np.zeros(0, np.int64)
    total_U = np.zeros(0, np.int64)  # candidates of each
    for file in files:
        keys = read_sealed(file, ["user_id", "room_id"])
        user_M = np.concatenate([chosen_U, keys["user_id"].to_numpy()])
        known_U, row_M = np.unique(user_M, return_inverse=True)
        known_total_U = np.bincount(row_M, weights=np.concatenate([total_U, lengths(keys["room_id"])])).astype(np.int64)
        order = np.argsort(splitmix64(known_U))[:users]
        # What is cut now would not fit later either: users before it can only get more candidates.
        fit = max(1, int((np.cumsum(known_total_U[order]) <= candidates).sum()))
        chosen_U, total_U = known_U[order[:fit]], known_total_U[order[:fit]]
    tables = []
    for file in files:
        with SealedFile(file) as source:
            for group in range(len(source.rows)):
                wanted_R = np.isin(source.read_row_group(group, ["user_id"])["user_id"].to_numpy(), chosen_U)
                if wanted_R.any():
                    tables.append(source.read_row_group(group).filter(pa.array(wanted_R)))
    return pa.concat_tables(tables).combine_chunks()


# -- rankers -------------------------------------------------------------------------------------------------------


def insight_of(ranker: Ranker | Leveled, schema: Schema, feeds: pa.Table, batch_feeds: int = 1024) -> ModelInsight:
    """What a ranker shows on feeds, but for the curriculum of its training."""
    device = next(ranker.parameters()).device
    was_training = ranker.training
    ranker.eval()
    gates: dict[str, list[NDArray]] = {}
    edges: dict[tuple[str, str], list[NDArray]] = {}
    preferences: dict[str, list[NDArray]] = {}
    level, stage, user = [], [], []
    try:
        with torch.inference_mode():
            for first in range(0, feeds.num_rows, batch_feeds):
                batch = to_batch(feeds.slice(first, batch_feeds), schema)
                shown = ranker.insight(batch.to(device))
                _append(gates, {name: gate for name, gate in shown.gates.items() if name in ranker.trained})
                _append(edges, shown.edges)
                _append(preferences, shown.preferences)
                level.append(batch.level_N.numpy())
                user.append(batch.user_R.numpy())
                if batch.stage_R is not None:
                    stage.append((batch.stage_R.numpy(), batch.stage_R[batch.feed_of_candidate_N].numpy()))
    finally:
        ranker.train(was_training)
    user_R, level_N = np.concatenate(user), np.concatenate(level)
    stage_R, stage_N = (np.concatenate(parts) for parts in zip(*stage, strict=True)) if stage else (None, None)
    known = None
    if preferences and stage_R is not None:
        table = {name: np.concatenate(parts) for name, parts in preferences.items()}
        known = preferences_of(table, stage_R, user_R, feeds["at"].to_numpy())
    return ModelInsight(
        candidates=len(level_N),
        feeds=len(user_R),
        users=len(np.unique(user_R)),
        gates={
            target: gate_of(
                ranker.fusion.expert_names[target], np.concatenate(parts), level_N, schema.levels.names, stage_N=stage_N
            )
            for target, parts in gates.items()
        },
        carries=ranker.coupling.carries if edges else "",
        edges=tuple(
            CarriedEdge(parent=parent, child=child, mean=_plain(np.concatenate(parts).mean()))
            for (parent, child), parts in edges.items()
        ),
        preferences=known,
    )


def _append(found: dict[Key, list[NDArray]], parts: Mapping[Key, torch.Tensor]) -> None:
    for name, values in parts.items():
        found.setdefault(name, []).append(values.float().cpu().numpy())


def gate_of(
    experts: Sequence[str],
    weight_NE: NDArray,
    level_N: NDArray,
    levels: Sequence[str],
    *,
    stage_N: NDArray | None = None,
) -> Gate:
    """Mean weight of every expert, over all candidates and over those of one level or stage.

    Args:
        level_N: index into `levels`.
        stage_N: index into `models.schema.STAGES`; None where users have no stages.
    """
    return Gate(
        experts=tuple(experts),
        mean=_plains(weight_NE.mean(0)),
        by_level=_means_of_groups(weight_NE, level_N, levels),
        by_stage={} if stage_N is None else _means_of_groups(weight_NE, stage_N, STAGES),
    )


def _means_of_groups(weight_NE: NDArray, group_N: NDArray, names: Sequence[str]) -> dict[str, tuple[float | None, ...] | None]:
    members = [group_N == group for group in range(len(names))]
    means = [_plains(weight_NE[mine_N].mean(0)) if mine_N.any() else None for mine_N in members]
    return dict(zip(names, means, strict=True))


# -- preferences ---------------------------------------------------------------------------------------------------


def preferences_of(preferences: Mapping[str, NDArray], stage_R: NDArray, user_R: NDArray, at_R: NDArray) -> Preferences | None:
    """Predicted preferences of users at their last feed, beside their rule-based stages.

    A user's neighbours are the nearest ten by preferences, each target scaled to deviation 1; at most a thousand users become
    points, by t-SNE (van der Maaten & Hinton 2008) of the scaled preferences.

    Args:
        preferences: float [R] by target.
        at_R: time of the feed.

    Returns:
        None where users are too few, all alike or without finite preferences.
    """
    last_U = last_of(at_R, user_R)
    last_U = last_U[np.argsort(splitmix64(user_R[last_U]))][:POINTS]
    vector_UT = np.stack([values[last_U] for values in preferences.values()], axis=1).astype(np.float64)
    stage_U = stage_R[last_U]
    deviation_T = vector_UT.std(0)
    differing_T = deviation_T > 1e-9
    if len(last_U) < FEWEST or not np.isfinite(vector_UT).all() or not differing_T.any():
        return None
    means: dict[str, dict[str, float | None] | None] = {}
    for stage, name in enumerate(STAGES):
        mine_U = stage_U == stage
        means[name] = dict(zip(preferences, _plains(vector_UT[mine_U].mean(0)), strict=True)) if mine_U.any() else None
    scaled_UT = ((vector_UT - vector_UT.mean(0)) / np.where(differing_T, deviation_T, 1))[:, differing_T]
    share_S = np.bincount(stage_U, minlength=len(STAGES)) / len(stage_U)
    return Preferences(
        users=len(last_U),
        mean_by_stage=means,
        neighbours=_same_stage(scaled_UT, stage_U),
        by_chance=float(np.square(share_S).sum()),
        points=tuple(
            UserPoint(x=round(x, 2), y=round(y, 2), stage=STAGES[stage])
            for (x, y), stage in zip(_projected(scaled_UT).tolist(), stage_U.tolist(), strict=True)
        ),
    )


def last_of(at_R: NDArray, *keys_R: NDArray) -> NDArray:
    """Row of the last moment of everyone who shares all keys, by ascending keys; of equal moments, the later row."""
    order = np.lexsort((at_R, *keys_R[::-1]))  # stable
    is_last = np.ones(len(order), bool)
    is_last[:-1] = np.any([key_R[order][1:] != key_R[order][:-1] for key_R in keys_R], axis=0)
    return order[is_last]


def _same_stage(vector_UT: NDArray, stage_U: NDArray) -> float:
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(vector_UT) - 1)
    near_UK = NearestNeighbors(n_neighbors=count).fit(vector_UT).kneighbors(return_distance=False)  # without the user
    return float((stage_U[near_UK] == stage_U[:, None]).mean())


def _projected(vector_UT: NDArray) -> NDArray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vector_UT) - 1) / 3)
    return TSNE(perplexity=perplexity, init="random", max_iter=500, random_state=0).fit_transform(vector_UT)


# -- curriculum ----------------------------------------------------------------------------------------------------


def curriculum_of(ranker: Ranker | Leveled, schema: Schema, history: Sequence[Epoch]) -> Curriculum | None:
    """How likely a coupling with a curriculum showed labels to children while it was trained.

    Beside it stands the validation AUC of the binary target with most ancestors.

    Returns:
        None for other couplings and without history.
    """
    probability = getattr(ranker.coupling, "probability", None)
    if probability is None or not history:
        return None
    last = last_target(schema)
    moments = [step / STEPS_AN_EPOCH for step in range((history[-1].epoch + 1) * STEPS_AN_EPOCH)]
    return Curriculum(
        target=last,
        probability=tuple(CoursePoint(progress=moment, value=float(probability(moment))) for moment in moments),
        auc=tuple(CoursePoint(progress=float(record.epoch + 1), value=record.auc(last)) for record in history),
    )


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plains(values: Iterable[float]) -> tuple[float | None, ...]:
    return tuple(_plain(value) for value in values)
