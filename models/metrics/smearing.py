"""What was observed where a value was predicted, from which a `layers.values.Smearing` follows.

# N candidates, C cells, B bins
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.layers.values import KNOTS, Smearing
from models.metrics.sums import UNIT, exact_sums

FEWEST = 20  # positive labels of a bin
_STEPS = 32  # cells a doubling of the prediction: each is 2.2 % wide
_FIRST, _LAST = -20, 41  # powers of two; predictions below and beyond share the outermost cells
_CELLS = 1 + _STEPS * (_LAST - _FIRST)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Predictions and labels in cells by the size of the prediction; those of different candidates can be put together.

    Attributes:
        rows_C, positives_C: candidates, and those whose label is above 0, int64.
        predicted, observed: sums of log(1 + prediction), and of labels, a cell, in units of 2 ** -UNIT.
    """

    rows_C: NDArray
    positives_C: NDArray
    predicted: Sequence[int]
    observed: Sequence[int]

    @classmethod
    def of(cls, prediction_N: NDArray, label_N: NDArray) -> "Seen":
        """Of candidates whose predictions are not negative; those that are not finite, or whose label is not final
        (`models.batch.Early`), are left out."""
        kept_N = np.isfinite(prediction_N) & (label_N >= 0)
        prediction_N, label_N = (each_N[kept_N].astype(np.float64) for each_N in (prediction_N, label_N))
        power_N = np.log2(np.maximum(prediction_N, 2.0**_FIRST)) - _FIRST
        cell_N = np.clip(np.floor(power_N * _STEPS).astype(np.int64), 0, _CELLS - 1)
        return cls(
            rows_C=np.bincount(cell_N, minlength=_CELLS),
            positives_C=np.bincount(cell_N[label_N > 0], minlength=_CELLS),
            predicted=exact_sums(np.log1p(prediction_N), cell_N, _CELLS),
            observed=exact_sums(label_N, cell_N, _CELLS),
        )

    @classmethod
    def together(cls, parts: Sequence["Seen"]) -> "Seen":
        """Of all candidates, with the same bits whatever the parts are."""
        return cls(
            rows_C=np.sum([part.rows_C for part in parts], axis=0),
            positives_C=np.sum([part.positives_C for part in parts], axis=0),
            predicted=[sum(cell) for cell in zip(*(part.predicted for part in parts), strict=True)],
            observed=[sum(cell) for cell in zip(*(part.observed for part in parts), strict=True)],
        )

    def knots(self) -> tuple[NDArray, NDArray]:
        """Mean log(1 + prediction) and mean label, both ascending, float64 [B]; nothing where no label is above 0.

        Bins hold equal shares of the candidates and of the sum of labels, the mean of both, so that the few with large labels
        have bins of their own; `FEWEST` positive labels at least. Neighbours whose labels do not ascend are pooled. Then all
        means are scaled, so that the answers between them sum up to the labels.
        """
        rows, total = int(self.rows_C.sum()), sum(self.observed)
        if not total:
            return np.zeros(0), np.zeros(0)
        bins: list[tuple[int, int, int]] = []  # rows, predicted, observed
        open_bin, positives = (0, 0, 0), 0
        for cell in np.flatnonzero(self.rows_C).tolist():
            open_bin = _pooled(open_bin, (int(self.rows_C[cell]), self.predicted[cell], self.observed[cell]))
            positives += int(self.positives_C[cell])
            if (open_bin[0] / rows + open_bin[2] / total) / 2 >= 1 / KNOTS and positives >= FEWEST:
                bins.append(open_bin)
                open_bin, positives = (0, 0, 0), 0
        if open_bin[0]:
            bins.append(_pooled(bins.pop(), open_bin) if bins else open_bin)
        kept: list[tuple[int, int, int]] = []
        for each in bins:
            kept.append(each)
            while len(kept) > 1 and kept[-1][2] * kept[-2][0] <= kept[-2][2] * kept[-1][0]:  # means, without division
                last = kept.pop()
                kept.append(_pooled(kept.pop(), last))
        predicted_B = np.array([predicted / (count << UNIT) for count, predicted, _ in kept])
        observed_B = np.array([observed / (count << UNIT) for count, _, observed in kept])
        return predicted_B, observed_B * (total / (rows << UNIT)) / self._mean(predicted_B, observed_B)

    def _mean(self, predicted_B: NDArray, observed_B: NDArray) -> float:
        """What the answers would be on the mean; all candidates of a cell count as its mean prediction."""
        smearing = Smearing()
        smearing.set(torch.from_numpy(predicted_B), torch.from_numpy(observed_B))
        cells = np.flatnonzero(self.rows_C)
        log_C = np.array([self.predicted[cell] / (int(self.rows_C[cell]) << UNIT) for cell in cells.tolist()])
        answer_C = smearing.double()(torch.from_numpy(np.expm1(log_C))).numpy()
        return float((answer_C * self.rows_C[cells]).sum() / self.rows_C.sum())


def _pooled(first: tuple[int, int, int], second: tuple[int, int, int]) -> tuple[int, int, int]:
    return (first[0] + second[0], first[1] + second[1], first[2] + second[2])
