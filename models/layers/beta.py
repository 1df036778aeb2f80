"""Draws from Beta distributions by their quantiles.

What is drawn is then a function of a uniform number (`layers.draws`), which numpy's and torch's own samplers are not.
"""

import numpy as np
import torch
from scipy.special import betaincinv, ndtri
from torch import Tensor

LARGE = 200.0


def beta_quantile(alpha: Tensor, beta: Tensor, share: Tensor) -> Tensor:
    """Where the distribution function of Beta(alpha, beta) is `share`, float64, on the device of `alpha`.

    Where both parameters are at least `LARGE` it is Cornish and Fisher's expansion with skewness and kurtosis (1938), off
    by less than a thousandth of the deviation. The exact inverse takes ever longer there, and SciPy's (1.17) is wrong for
    some: alpha 1000, beta 351752.79 and share .556 give it 2.7 times the quantile.

    Args:
        alpha, beta: at least 1, float.
        share: in [0, 1), float64; 0 counts as the half of what `layers.draws` has next to it.
    """
    a, b, u = (np.asarray(each.detach().cpu(), dtype=np.float64) for each in torch.broadcast_tensors(alpha, beta, share))
    u = np.maximum(u, 2.0**-54)
    is_large = np.minimum(a, b) >= LARGE
    quantile = np.empty_like(u)
    quantile[~is_large] = betaincinv(a[~is_large], b[~is_large], u[~is_large])
    quantile[is_large] = _expansion(a[is_large], b[is_large], u[is_large])
    return torch.from_numpy(quantile).to(alpha.device)


def _expansion(a: np.ndarray, b: np.ndarray, u: np.ndarray) -> np.ndarray:
    n = a + b
    deviation = np.sqrt(a * b / (n + 1)) / n
    skewness = 2 * (b - a) * np.sqrt(n + 1) / ((n + 2) * np.sqrt(a * b))
    kurtosis = 6 * ((a - b) ** 2 * (n + 1) - a * b * (n + 2)) / (a * b * (n + 2) * (n + 3))  # over that of a normal
    z = ndtri(u)
    z = z + skewness * (z**2 - 1) / 6 + kurtosis * (z**3 - 3 * z) / 24 - skewness**2 * (2 * z**3 - 5 * z) / 36
    return np.clip(a / n + deviation * z, 0, 1)
