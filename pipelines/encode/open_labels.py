"""Labels whose window has not closed yet, as they are written, and how many positives are known by when.

A label is final once its window has closed (`pipelines.prepare.labels`). One that is open is written as -1 - what is known of
it so far, so that nothing takes it for a 0 unseen, and -1 and -2 tell whether a binary one is positive already; so batches and
metrics have it too (`models.batch.Early`).

# N candidates, B bins of a window
"""

from collections.abc import Sequence

import numpy as np

BINS = 64  # parts of a window, see `share_of_window`


def as_open(label_N: np.ndarray, open_N: np.ndarray) -> np.ndarray:
    """Labels as they are written: those that are open as -1 - what is known so far. The same array where none is."""
    return np.where(open_N, -1 - label_N, label_N).astype(label_N.dtype) if open_N.any() else label_N


def share_of_window(edge: np.ndarray | float) -> np.ndarray:
    """Where the bins of a window begin and end, from 0 to 1 for edges 0 to `BINS`: finer at its beginning, where most is."""
    return (np.asarray(edge, np.float64) / BINS) ** 3


def arrived_share(counts_B: Sequence[int], share_N: np.ndarray) -> np.ndarray:
    """Which share of a window's positives is known once a share of it has passed, float64 [N]; 1 from its end on.

    Linear within a bin. Where there are no positives to tell, it is 0 until the window closes: nothing is learnt early.

    Args:
        counts_B: positives by bin.
    """
    counts = np.asarray(counts_B, np.float64)
    known = np.r_[0.0, np.cumsum(counts)] / max(counts.sum(), 1.0)
    return np.where(share_N >= 1, 1.0, np.interp(share_N, share_of_window(np.arange(BINS + 1)), known))
