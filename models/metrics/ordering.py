"""Rows in the order of their values, and the runs of equal ones.

# N rows, G runs
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


def runs(sorted_N: NDArray) -> tuple[NDArray, NDArray]:
    """Where runs of equal values start, int64 [G], and every row's run, int64 [N]."""
    first_N = np.ones(len(sorted_N), bool)
    first_N[1:] = sorted_N[1:] != sorted_N[:-1]
    return np.flatnonzero(first_N), np.cumsum(first_N) - 1


def codes(values_N: NDArray) -> NDArray:
    """Numbers 0, 1, ... in the order of the values, the same for equal ones, int64."""
    order_N = np.argsort(values_N)
    return codes_in_order(values_N, order_N)


def codes_in_order(values_N: NDArray, order_N: NDArray) -> NDArray:
    """As `codes`, where the order that sorts the values is known."""
    codes_N = np.empty(len(order_N), np.int64)
    codes_N[order_N] = runs(values_N[order_N])[1]
    return codes_N


@dataclass(frozen=True)
class SortedRows:
    """Rows of one target by prediction, the smallest first: what metrics are computed from that see all rows at once.

    Attributes:
        prediction_N: finite floats, not descending.
        attached_N: what else is known of a row: of a binary target its cell (`binary.Cells`), of a value its label.
    """

    prediction_N: NDArray
    attached_N: NDArray

    @classmethod
    def of(cls, prediction_N: NDArray, attached_N: NDArray, order_N: NDArray) -> Self:
        return cls(prediction_N[order_N], attached_N[order_N])

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts; a stable sort of sorted runs only merges them."""
        if len(parts) == 1:
            return parts[0]
        prediction_N = np.concatenate([part.prediction_N for part in parts])
        attached_N = np.concatenate([part.attached_N for part in parts])
        return cls.of(prediction_N, attached_N, np.argsort(prediction_N, kind="stable"))
