"""Losses that tell how much two representations of the same rows have to do with each other.

    # M rows, D width

Distance correlation: Szekely, Rizzo and Bakirov 2007, "Measuring and testing dependence by correlation of distances",
Sec. 2. InfoNCE: van den Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding", Eq. 4.

Their gradients are finite everywhere: where a root has none (rows at one place, vectors of length 0), it is taken as 0, which
is a subgradient of a distance.
"""

import torch
from torch import Tensor


def distances(x_MD: Tensor) -> Tensor:
    """Euclidean distance of every pair of rows, [M, M], by one matrix product.

    Rows nearer to each other than rounding lets the product see, sqrt(D eps) of their length from the mean row, are at one
    place.
    """
    x_MD = x_MD - x_MD.detach().mean(0)  # distances do not change, and less of them is lost to rounding
    product_MM = x_MD @ x_MD.T
    square_M = product_MM.diagonal()
    lengths_MM = square_M.unsqueeze(1) + square_M
    square_MM = lengths_MM - 2 * product_MM
    is_apart_MM = square_MM > x_MD.shape[1] * torch.finfo(x_MD.dtype).eps * lengths_MM
    return square_MM.where(is_apart_MM, 1).sqrt().where(is_apart_MM, 0)


def distance_correlation(x_MD: Tensor, y_MD: Tensor) -> Tensor:
    """How far the rows of x depend on those of y, a scalar between 0 and 1.

        dCov(x, y) / sqrt(dVar(x) dVar(y)),   dCov(x, y)^2 = mean(A * B),   dVar(x) = dCov(x, x),

    A and B the distances within x and within y, less the means of their row and of their column, plus the mean of all.
    Fewer than two different rows in x or in y give 0. It is the estimate without correction for bias: of independent rows
    it is the larger the wider they are and the fewer.
    """
    if len(x_MD) < 2:
        return x_MD.new_zeros(())
    a_MM, b_MM = _centred(distances(x_MD)), _centred(distances(y_MD))
    covariance, of_x, of_y = (a_MM * b_MM).mean(), a_MM.square().mean(), b_MM.square().mean()
    varies = (of_x > 0) & (of_y > 0)
    square = covariance / (of_x.where(varies, 1).sqrt() * of_y.where(varies, 1).sqrt())
    depends = varies & (square > torch.finfo(square.dtype).eps)
    return square.where(depends, 1).sqrt().where(depends, 0)


def infonce(x_MD: Tensor, y_MD: Tensor, users_M: Tensor, temperature: float) -> Tensor:
    """Mean over rows i of   -log(exp(s_ii) / (exp(s_ii) + sum_j exp(s_ij))),   s_ij = cos(x_i, y_j) / temperature,

    j the rows of other users than i's. 0 without rows.
    """
    if not len(x_MD):
        return x_MD.new_zeros(())
    score_MM = _unit(x_MD) @ _unit(y_MD).T / temperature
    is_kept_MM = (users_M.unsqueeze(1) != users_M).fill_diagonal_(True)
    return (score_MM.masked_fill(~is_kept_MM, -torch.inf).logsumexp(1) - score_MM.diagonal()).mean()


def cosine_distance(x_MD: Tensor, y_MD: Tensor) -> Tensor:
    """Mean over rows of 1 - cos(x_i, y_i); 0 without rows."""
    return (1 - (_unit(x_MD) * _unit(y_MD)).sum(1)).sum() / max(len(x_MD), 1)


def euclidean_distance(x_MD: Tensor, y_MD: Tensor) -> Tensor:
    """Mean over rows of |x_i - y_i|; 0 without rows."""
    return _length(x_MD - y_MD).sum() / max(len(x_MD), 1)


def _centred(distance_MM: Tensor) -> Tensor:
    mean_M = distance_MM.mean(0)  # of rows and columns alike
    return distance_MM - mean_M.unsqueeze(1) - (mean_M - mean_M.mean())


def _length(x_MD: Tensor) -> Tensor:
    square_M = x_MD.square().sum(1)
    is_long_M = square_M > torch.finfo(x_MD.dtype).tiny
    return square_M.where(is_long_M, 1).sqrt().where(is_long_M, 0)


def _unit(x_MD: Tensor) -> Tensor:
    """Rows of length 1; a row of length 0 stays."""
    length_M = _length(x_MD)
    return x_MD / length_M.where(length_M > 0, 1).unsqueeze(1)
