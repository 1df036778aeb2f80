"""Losses that tell how much two representations of the same rows have to do with each other.

    # M rows, D width

Distance correlation: Szekely, Rizzo and Bakirov 2007, "Measuring and testing dependence by correlation of distances", in the
estimate without bias of Szekely and Rizzo 2014, "Partial distance correlation with methods for dissimilarities", Sec. 3, and
invariant as by Dueck, Edelmann, Gneiting and Richards 2014, "The affinely invariant distance correlation".
InfoNCE: van den Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding", Eq. 4. Effective rank:
Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".

Their gradients are finite everywhere: where a root has none (rows at one place, vectors of length 0), it is taken as 0, which
is a subgradient of a distance.
"""

import torch
from torch import Tensor

RIDGE = 0.1  # of the mean variance: directions of less than a third of the mean deviation count for less


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
    """How far the rows of x depend on those of y, a scalar, at most 1: the squared distance correlation, without bias and
    nearly the same for every invertible linear map of x and of y,

        <A, B> / sqrt(<A, A> <B, B>),   <A, B> = sum over i != j of A_ij B_ij / (M (M - 3)),

        A_ij = a_ij - sum_l a_il / (M - 2) - sum_k a_kj / (M - 2) + sum_kl a_kl / ((M - 1) (M - 2)),

    a and A the Mahalanobis distances within x, a_ij^2 = (x_i - x_j)' S^-1 (x_i - x_j) with S the covariance of x, b and B those
    within y. `RIDGE` of its mean variance is added to S in all directions.

    It is meant to be minimised, and for that the sample statistic of the 2007 paper, with means over all i and j, Euclidean
    distances and a root, is unfit. Of 256 independent rows it makes .82 if they are 128 wide, .11 if they are 1 wide: it falls
    as x and y lose directions. U-centring (A above) takes that out, <A, B> being on average the squared distance covariance
    of where the rows come from. What is left is that x and y, which both come from one history, depend on each other in some
    direction whatever they are, and shrinking it hides that. With S^-1 it does not: the value is the same for x and for x L, L
    any invertible matrix, so its derivative along x L is 0, and only x and y becoming independent lowers it. The ridge lets go
    of a direction only once hardly any of x lies in it, so that x and y can divide directions between them.

    The root is given up since an estimate of a small square may be below 0. Rows that do not differ (four or more) are 1, since
    nothing tells them apart from rows that depend; the papers have 0, which would make a constant the best of all x. Their
    gradient is 0. Fewer than four rows say nothing, and give 0, and so do rows that are equally far from each other.
    """
    if len(x_MD) < 4:
        return x_MD.new_zeros(())
    if not (_varies(x_MD) and _varies(y_MD)):
        return x_MD.new_ones(())
    a_MM, b_MM = (_centred(distances(_standardised(each_MD))) for each_MD in (x_MD, y_MD))
    of_x, of_y = a_MM.square().sum(), b_MM.square().sum()
    says = (of_x > 0) & (of_y > 0)  # not so for rows that are equally far from each other
    return (a_MM * b_MM).sum() / (of_x.where(says, 1).sqrt() * of_y.where(says, 1).sqrt())


def effective_rank(x_MD: Tensor) -> float:
    """In how many directions the rows differ, between 1 and D; 0 where they do not.

    exp of the entropy of the directions' shares of the variance (the paper's shares are of singular values, the roots of these,
    which lets directions of hardly any variance count)."""
    if not _varies(x_MD):
        return 0.0
    variance = torch.linalg.svdvals(x_MD - x_MD.mean(0)).square()
    share = variance / variance.sum()
    return float(torch.special.entr(share).sum().exp())


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


def _varies(x_MD: Tensor) -> bool:
    """Whether rows differ by more than rounding."""
    if len(x_MD) < 2:
        return False
    rounding = 10 * torch.finfo(x_MD.dtype).eps
    x_MD = x_MD.detach()
    return bool((x_MD - x_MD.mean(0)).square().sum() > rounding**2 * x_MD.square().sum())


def _standardised(x_MD: Tensor) -> Tensor:
    """Rows whose Euclidean distances are the Mahalanobis distances of those of x."""
    centred_MD = x_MD - x_MD.mean(0)
    covariance_DD = centred_MD.T @ centred_MD / len(x_MD)
    ridge_D = (RIDGE * covariance_DD.diagonal().mean()).expand(len(covariance_DD))
    root_DD = torch.linalg.cholesky(covariance_DD + ridge_D.diag())
    return torch.linalg.solve_triangular(root_DD, centred_MD.T, upper=False).T


def _centred(distance_MM: Tensor) -> Tensor:
    """U-centred: without bias from the 0 that every row is from itself."""
    rows = len(distance_MM)
    sum_M = distance_MM.sum(0)  # of rows and columns alike
    centred_MM = distance_MM - (sum_M.unsqueeze(1) + sum_M - sum_M.sum() / (rows - 1)) / (rows - 2)
    return centred_MM.masked_fill(torch.eye(rows, dtype=torch.bool, device=distance_MM.device), 0)


def _length(x_MD: Tensor) -> Tensor:
    square_M = x_MD.square().sum(1)
    is_long_M = square_M > torch.finfo(x_MD.dtype).tiny
    return square_M.where(is_long_M, 1).sqrt().where(is_long_M, 0)


def _unit(x_MD: Tensor) -> Tensor:
    """Rows of length 1; a row of length 0 stays."""
    length_M = _length(x_MD)
    return x_MD / length_M.where(length_M > 0, 1).unsqueeze(1)
