"""Labels: what was credited to an impression, target by target.

# N impressions, E engagements
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from models.catalogue import ENTER
from models.schema import Schema, Target
from pipelines.encode.arrays import integers


class Credits:
    """The engagements of a bucket as `cut` credited them, to be asked target by target."""

    def __init__(self, engagements: pa.Table, shown_at_N: np.ndarray, actions: Sequence[str]) -> None:
        self.actions = list(actions)
        self.rows = len(shown_at_N)
        self.at_E, self.row_E = integers(engagements["at"]), integers(engagements["row"])
        self.action_E = integers(engagements["action"])
        self.value_E = engagements["value"].to_numpy()  # NaN where null
        lag_E = self.at_E - shown_at_N[self.row_E] if self.rows else np.zeros(len(self.at_E), np.int64)
        self.lag_E = np.where(engagements["by_request"].to_numpy(), 0, lag_E)

    def did(self, action: str) -> np.ndarray:
        """Which engagements are of an action, bool [E]."""
        return self.action_E == self.actions.index(action)

    @property
    def over_at_E(self) -> np.ndarray:
        """When an engagement's value is known: a stay when it is over."""
        stay_ms = np.where(self.did(ENTER), np.nan_to_num(self.value_E) * 1000, 0)
        return self.at_E + np.rint(stay_ms).astype(np.int64)

    def of(self, target: Target) -> np.ndarray:
        """Which engagements count for the target, as positions."""
        counts = (self.row_E >= 0) & self.did(target.action)
        counts &= self.lag_E <= target.attribution_seconds * 1000
        if target.at_least is not None:
            counts &= self.value_E >= target.at_least
        return np.flatnonzero(counts)

    def label(self, target: Target) -> np.ndarray:
        """Label of every impression, float32: 1 or 0, or the sum of values."""
        credited = self.of(target)
        if target.is_binary:
            label_N = np.zeros(self.rows, np.float32)
            label_N[self.row_E[credited]] = 1
            return label_N
        values = np.nan_to_num(self.value_E[credited])
        return np.bincount(self.row_E[credited], values, minlength=self.rows).astype(np.float32)

    def known(self, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Impression, moment from which it is known, and amount in thousandths (int64), of all that the label sums up.

        Thousandths, because sums of integers do not depend on their order.
        """
        credited = self.of(target)
        needs_value = target.at_least is not None or not target.is_binary
        at = (self.over_at_E if needs_value else self.at_E)[credited]
        row = self.row_E[credited]
        if not target.is_binary:
            return row, at, np.rint(np.nan_to_num(self.value_E[credited]) * 1000).astype(np.int64)
        order = np.lexsort((at, row))  # a label is set once, by the first engagement that is known
        first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
        return row[first], at[first], np.full(len(first), 1000, np.int64)

    def unattributed(self, schema: Schema) -> int:
        """Engagements of a target's action that no impression answers for."""
        credited = np.zeros(len(self.row_E), bool)
        asked = np.zeros(len(self.row_E), bool)
        for target in schema.targets:
            of_action = self.did(target.action)
            asked |= of_action
            credited |= of_action & (self.row_E >= 0) & (self.lag_E <= target.attribution_seconds * 1000)
        return int((asked & ~credited).sum())
