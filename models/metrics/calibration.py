"""Whether predictions are as large as what is then observed.

# N rows, B bins
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metrics.ordering import runs
from models.metrics.sums import UNIT, exact_sums

CURVE_BINS = 20  # points of a calibration curve


def calibration_curve(prediction_N: NDArray, label_N: NDArray, bins: int = CURVE_BINS) -> list[dict[str, Any]]:
    """Mean prediction and mean label in bins of equal frequency, from the smallest prediction up.

    Equal predictions are never divided, so there may be fewer bins.

    Args:
        prediction_N: not descending, finite.
    """
    starts_G, run_of_N = runs(prediction_N)
    bin_N = runs(starts_G * bins // max(len(prediction_N), 1))[1][run_of_N]
    rows_B = np.bincount(bin_N)
    predicted_B = exact_sums(prediction_N, bin_N, len(rows_B))
    observed_B = exact_sums(label_N, bin_N, len(rows_B))
    return [
        {"predicted": predicted / (rows << UNIT), "observed": observed / (rows << UNIT), "rows": rows}
        for predicted, observed, rows in zip(predicted_B, observed_B, rows_B.tolist(), strict=True)
    ]
