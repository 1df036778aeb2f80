"""The mean of users' running preferences over the training split, at which a weighting that learns them begins.

# R feeds, T targets, W windows of days
"""

from collections.abc import Sequence

import numpy as np
import torch

from models.learners.workers import WorkerGroup
from models.schema import Schema
from models.slots import PseudoLabel
from pipelines.encode.arrays import flat, lengths
from pipelines.encode.batches import preferences_for
from pipelines.train.heartbeat import with_heartbeat
from pipelines.train.order import RowGroup
from pipelines.train.stream import read


def preference_means(
    groups: Sequence[RowGroup], schema: Schema, of: PseudoLabel, group: WorkerGroup, device: torch.device
) -> dict[str, list[float | None]]:
    """By target, the mean in each window over all candidates whose user has one; None where nobody has.

    Every rank reads the narrow columns of its share of the row groups, and all get the same means.

    Args:
        groups: of the whole split.
        device: where the group exchanges tensors.
    """
    columns = preferences_for(schema, of)
    windows = len(schema.preference_days)

    def summed() -> torch.Tensor:
        sums_TW2 = np.zeros((len(columns), windows, 2))
        for each in groups[group.rank :: group.size]:
            table = read([each], ["room_id", *columns.values()])
            candidates_R1 = lengths(table["room_id"])[:, None]
            for place, column in enumerate(columns.values()):
                mean_RW = flat(table[column]).to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, windows)
                known_RW = ~np.isnan(mean_RW)
                sums_TW2[place, :, 0] += (candidates_R1 * np.where(known_RW, mean_RW, 0)).sum(0)
                sums_TW2[place, :, 1] += (candidates_R1 * known_RW).sum(0)
        return torch.from_numpy(sums_TW2)

    sums_TW2 = with_heartbeat(summed, group).to(device)
    group.sum_(sums_TW2)
    pairs = zip(columns, sums_TW2.tolist(), strict=True)
    return {name: [total / count if count else None for total, count in of_windows] for name, of_windows in pairs}
