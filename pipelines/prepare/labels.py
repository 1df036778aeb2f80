"""Labels: what was credited to an impression, target by target, and whether more may come.

A label's window begins when the impression is shown and lasts the target's `attribution_seconds`. What has arrived by its end
counts, by request id or not; what arrives later never does. So a label is final once its window has closed: 1, a value, or 0.
Until then it is *open*, and what is known of it so far may still grow.

In tables an open label is written as -1 - what is known so far: -1 for nothing yet, -2 for a positive that is certain already.

# N impressions, E engagements, B bins
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from models.catalogue import ENTER
from models.schema import Schema, Target
from pipelines.encode.arrays import integers
from pipelines.encode.open_labels import BINS, as_open
from pipelines.logs.canonical import ARRIVED_AT


class Credits:
    """The engagements of a bucket as `cut` credited them, to be asked target by target.

    Attributes:
        known_at_E: when they arrived.
    """

    def __init__(self, engagements: pa.Table, shown_at_N: np.ndarray, actions: Sequence[str]) -> None:
        self.actions = list(actions)
        self.rows, self.shown_at_N = len(shown_at_N), shown_at_N
        self.at_E, self.row_E = integers(engagements["at"]), integers(engagements["row"])
        self.known_at_E = arrivals(engagements, "at")
        self.action_E = integers(engagements["action"])
        self.value_E = engagements["value"].to_numpy()  # NaN where null
        self.shown_at_E = shown_at_N[self.row_E] if self.rows else np.zeros(len(self.at_E), np.int64)
        self.lag_E = self.known_at_E - self.shown_at_E

    def did(self, action: str) -> np.ndarray:
        """Which engagements are of an action, bool [E]."""
        return self.action_E == self.actions.index(action)

    @property
    def over_at_E(self) -> np.ndarray:
        """When an engagement's value is known: a stay when it is over and has arrived."""
        stay_ms = np.where(self.did(ENTER), np.nan_to_num(self.value_E) * 1000, 0)
        return np.maximum(self.at_E + np.rint(stay_ms).astype(np.int64), self.known_at_E)

    def of(self, target: Target) -> np.ndarray:
        """Which engagements count for the target, as positions."""
        counts = (self.row_E >= 0) & self.did(target.action)
        counts &= self.lag_E <= window_ms(target)
        if target.at_least is not None:
            counts &= self.value_E >= target.at_least
        return np.flatnonzero(counts)

    def label(self, target: Target) -> np.ndarray:
        """Label of every impression, float32: 1 or 0, or the sum of values, as far as it is known."""
        credited = self.of(target)
        if target.is_binary:
            label_N = np.zeros(self.rows, np.float32)
            label_N[self.row_E[credited]] = 1
            return label_N
        values = np.nan_to_num(self.value_E[credited])
        return np.bincount(self.row_E[credited], values, minlength=self.rows).astype(np.float32)

    def is_open(self, target: Target, ending: int) -> np.ndarray:
        """Whether something that arrives at the moment `ending` or later may still count, bool [N]."""
        return self.shown_at_N + window_ms(target) >= ending

    def written(self, target: Target, ending: int | None) -> np.ndarray:
        """As `label`, with those that are open at `ending` written as tables have them; None for no label to be open."""
        label_N = self.label(target)
        return label_N if ending is None else as_open(label_N, self.is_open(target, ending))

    def arrived(self, target: Target, counted_N: np.ndarray) -> np.ndarray:
        """How many labels of these impressions (bool) became positive in each part of their window, int64 [B].

        Parts lie between `share_of_window(0)`, `share_of_window(1)`, ... (`pipelines.encode.open_labels`); only of binary
        targets.
        """
        credited = self.of(target)
        first_N = np.full(self.rows, np.iinfo(np.int64).max)
        np.minimum.at(first_N, self.row_E[credited], self.lag_E[credited])
        some = counted_N & (first_N < np.iinfo(np.int64).max)
        share = first_N[some] / window_ms(target)
        return np.bincount(np.minimum((np.cbrt(share) * BINS).astype(np.int64), BINS - 1), minlength=BINS)

    def known(self, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Impression, moment from which it is known, and amount in thousandths (int64), of all that the label sums up.

        Thousandths, because sums of integers do not depend on their order.
        """
        credited = self.of(target)
        needs_value = target.at_least is not None or not target.is_binary
        at = (self.over_at_E if needs_value else self.known_at_E)[credited]
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
            credited |= of_action & (self.row_E >= 0) & (self.lag_E <= window_ms(target))
        return int((asked & ~credited).sum())

    def too_late(self, schema: Schema) -> dict[str, int]:
        """By target, engagements that happened within the window of their impression and arrived after it."""
        found = {}
        for target in schema.targets:
            in_time = self.at_E - self.shown_at_E <= window_ms(target)
            late = self.did(target.action) & (self.row_E >= 0) & in_time & (self.lag_E > window_ms(target))
            if late.any():
                found[target.name] = int(late.sum())
        return found


def window_ms(target: Target) -> float:
    """How long what arrives after the impression still counts."""
    return target.attribution_seconds * 1000


def arrivals(rows: pa.Table, time: str) -> np.ndarray:
    """When the rows of a table arrived: as it tells, else when they happened."""
    return integers(rows[ARRIVED_AT if ARRIVED_AT in rows.column_names else time])
