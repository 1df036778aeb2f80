"""What a trained ranker shows of its inside: gates, target graph, preferences of users, curriculum; as plain numbers.

All is read from one forward pass over a sample of whole users, so the price does not grow with the split.

    # R feeds, N candidates, E experts, U users, T targets
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from models.hashing import splitmix64
from models.layers.graph import depths
from models.leveled import Leveled
from models.ranker import Ranker
from models.schema import STAGES, Schema
from pipelines.encode.arrays import lengths
from pipelines.encode.batches import to_batch

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
        keys = pq.read_table(file, columns=["user_id", "room_id"], partitioning=None)
        user_M = np.concatenate([chosen_U, keys["user_id"].to_numpy()])
        known_U, row_M = np.unique(user_M, return_inverse=True)
        known_total_U = np.bincount(row_M, weights=np.concatenate([total_U, lengths(keys["room_id"])])).astype(np.int64)
        order = np.argsort(splitmix64(known_U))[:users]
        # What is cut now would not fit later either: users before it can only get more candidates.
        fit = max(1, int((np.cumsum(known_total_U[order]) <= candidates).sum()))
        chosen_U, total_U = known_U[order[:fit]], known_total_U[order[:fit]]
    tables = []
    for file in files:
        with pq.ParquetFile(file) as source:
            for group in range(source.num_row_groups):
                wanted_R = np.isin(source.read_row_group(group, columns=["user_id"])["user_id"].to_numpy(), chosen_U)
                if wanted_R.any():
                    tables.append(source.read_row_group(group).filter(pa.array(wanted_R)))
    return pa.concat_tables(tables).combine_chunks()


# -- rankers -------------------------------------------------------------------------------------------------------


def insight_of(ranker: Ranker | Leveled, schema: Schema, feeds: pa.Table, batch_feeds: int = 1024) -> dict[str, Any]:
    """What a ranker shows on feeds.

    Returns:
        `candidates`, `feeds`, `users` of the sample; and only where there is something to show:
        `gates` by target that is trained for: `experts` (names), `mean` weights, `by_level` and `by_stage` (weights by group,
        None where empty);
        `edges`: list of `parent`, `child`, `mean` of what is carried, with `carries` saying what that is;
        `preferences`: see `preferences_of`.
    """
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
    result: dict[str, Any] = {"candidates": len(level_N), "feeds": len(user_R), "users": len(np.unique(user_R))}
    if gates:
        groups = {"by_level": (level_N, schema.levels.names)}
        if stage_N is not None:
            groups["by_stage"] = (stage_N, STAGES)
        names = ranker.fusion.expert_names
        result["gates"] = {
            target: {"experts": list(names[target]), **gate_means(np.concatenate(parts), groups)}
            for target, parts in gates.items()
        }
    if edges:
        result["carries"] = ranker.coupling.carries
        result["edges"] = [
            {"parent": parent, "child": child, "mean": _plain(np.concatenate(parts).mean())}
            for (parent, child), parts in edges.items()
        ]
    if preferences and stage_R is not None:
        table = {name: np.concatenate(parts) for name, parts in preferences.items()}
        known = preferences_of(table, stage_R, user_R, feeds["at"].to_numpy())
        if known is not None:
            result["preferences"] = known
    return result


def _append(found: dict[Key, list[NDArray]], parts: Mapping[Key, torch.Tensor]) -> None:
    for name, values in parts.items():
        found.setdefault(name, []).append(values.float().cpu().numpy())


def gate_means(weight_NE: NDArray, groups: Mapping[str, tuple[NDArray, Sequence[str]]]) -> dict[str, Any]:
    """Mean weight of every expert: overall as `mean`, and by the names of each of the `groups` (None where empty)."""
    result: dict[str, Any] = {"mean": _plains(weight_NE.mean(0))}
    for by, (group_N, names) in groups.items():
        members = [group_N == group for group in range(len(names))]
        means = [_plains(weight_NE[mine_N].mean(0)) if mine_N.any() else None for mine_N in members]
        result[by] = dict(zip(names, means, strict=True))
    return result


# -- preferences ---------------------------------------------------------------------------------------------------


def preferences_of(
    preferences: Mapping[str, NDArray], stage_R: NDArray, user_R: NDArray, at_R: NDArray
) -> dict[str, Any] | None:
    """Predicted preferences of users at their last feed, beside their rule-based stages.

    Args:
        preferences: float [R] by target.
        at_R: time of the feed.

    Returns:
        `users`; `mean_by_stage`: means by target, by stage (None where no user is in it); `neighbours`: of a user's
        nearest ten (by preferences, each target scaled to deviation 1), the share in the same stage, and `by_chance`, what
        that share would be at random; `points`: `x`, `y`, `stage` of at most a thousand users by t-SNE (van der Maaten &
        Hinton 2008) of the scaled preferences. None where users are too few, all alike or without finite preferences.
    """
    last_U = last_of(at_R, user_R)
    last_U = last_U[np.argsort(splitmix64(user_R[last_U]))][:POINTS]
    vector_UT = np.stack([values[last_U] for values in preferences.values()], axis=1).astype(np.float64)
    stage_U = stage_R[last_U]
    deviation_T = vector_UT.std(0)
    differing_T = deviation_T > 1e-9
    if len(last_U) < FEWEST or not np.isfinite(vector_UT).all() or not differing_T.any():
        return None
    means = {}
    for stage, name in enumerate(STAGES):
        mine_U = stage_U == stage
        means[name] = dict(zip(preferences, _plains(vector_UT[mine_U].mean(0)), strict=True)) if mine_U.any() else None
    scaled_UT = ((vector_UT - vector_UT.mean(0)) / np.where(differing_T, deviation_T, 1))[:, differing_T]
    share_S = np.bincount(stage_U, minlength=len(STAGES)) / len(stage_U)
    return {
        "users": len(last_U),
        "mean_by_stage": means,
        "neighbours": _same_stage(scaled_UT, stage_U),
        "by_chance": float(np.square(share_S).sum()),
        "points": [
            {"x": round(x, 2), "y": round(y, 2), "stage": STAGES[stage]}
            for (x, y), stage in zip(_projected(scaled_UT).tolist(), stage_U.tolist(), strict=True)
        ],
    }


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


def curriculum_of(ranker: Ranker | Leveled, schema: Schema, history: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How likely a coupling with a curriculum showed labels to children while it was trained.

    Args:
        history: records of the epochs that were trained.

    Returns:
        `target`, the binary target with most ancestors; `probability`: `progress` in epochs and `value`; `auc` of that
        target on validation by `progress`, None where undefined. None for other couplings and without history.
    """
    probability = getattr(ranker.coupling, "probability", None)
    if probability is None or not history:
        return None
    last = last_target(schema)
    epochs = history[-1]["epoch"] + 1
    scores = [(record["metrics"] or {"targets": {}})["targets"].get(last, {}).get("auc") for record in history]
    return {
        "target": last,
        "probability": [
            {"progress": step / STEPS_AN_EPOCH, "value": float(probability(step / STEPS_AN_EPOCH))}
            for step in range(epochs * STEPS_AN_EPOCH)
        ],
        "auc": [
            {"progress": float(record["epoch"] + 1), "value": value} for record, value in zip(history, scores, strict=True)
        ],
    }


def last_target(schema: Schema) -> str:
    """The binary target with the longest way from a root; of several, the first. A schema of values only: its first target."""
    depth = depths({target.name: target.parents for target in schema.targets})
    binary = (target.name for target in schema.targets if target.is_binary)
    return max(binary, key=depth.__getitem__, default=schema.target_names[0])


def schema_edges(schema: Schema) -> list[tuple[str, str]]:
    """(parent, child) of all targets."""
    return [(parent, target.name) for target in schema.targets for parent in target.parents]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plains(values: Iterable[float]) -> list[float | None]:
    return [_plain(value) for value in values]
