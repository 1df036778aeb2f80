"""How far up the one that was chosen stands among many others.

One list has one relevant row, so with place p Recall@k is whether p <= k, NDCG@k is 1 / log2(1 + p) within the first k, and
MRR the mean of 1 / p, as sequential recommendation reports them (He et al. 2017, "Neural collaborative filtering", Sec. 4.1).
Equal scores share their places evenly.

    # E entries, one list each
"""

import numpy as np
from numpy.typing import NDArray

TOP = (1, 10, 50)  # k of Recall@k and NDCG@k


def among(better_E: NDArray, equal_E: NDArray) -> dict[str, float | None]:
    """`recall@k`, `ndcg@k`, `mrr`; None without entries.

    Args:
        better_E: others with a better score, int64.
        equal_E: others with the same.
    """
    names = [*(f"{name}@{k}" for k in TOP for name in ("recall", "ndcg")), "mrr"]
    if not len(better_E):
        return dict.fromkeys(names)
    last_E = better_E + equal_E + 1  # places better + 1 to last
    until = np.arange(int(last_E.max()) + 1)
    gains = {"mrr": np.r_[0.0, 1 / until[1:]]}
    for k in TOP:
        gains[f"recall@{k}"] = ((until >= 1) & (until <= k)).astype(np.float64)
        gains[f"ndcg@{k}"] = np.where(gains[f"recall@{k}"] > 0, 1 / np.log2(1 + np.maximum(until, 1)), 0.0)
    found: dict[str, float | None] = {}
    for name in names:
        total = np.cumsum(gains[name])
        found[name] = float(((total[last_E] - total[better_E]) / (equal_E + 1)).mean())
    return found
