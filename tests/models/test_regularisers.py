import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models.layers import regularisers
from models.layers.regularisers import (
    RIDGE,
    cosine_distance,
    distance_correlation,
    distances,
    effective_rank,
    euclidean_distance,
    infonce,
)


def column(*values: float, **options) -> torch.Tensor:
    return torch.tensor(values, **options).unsqueeze(1)


def looped_distance_correlation(x, y) -> float:
    """Szekely and Rizzo 2014, Definition 2 and Eq. 3.3, number by number; distances by NumPy's inverse of the covariance."""
    n = len(x)

    def centred(rows):
        rows = rows.numpy()
        covariance = np.atleast_2d(np.cov(rows.T, bias=True))
        inverse = np.linalg.inv(covariance + RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
        apart = lambda k, j: math.sqrt((rows[k] - rows[j]) @ inverse @ (rows[k] - rows[j]))
        a = [[apart(k, j) for j in range(n)] for k in range(n)]
        total = sum(map(sum, a)) / ((n - 1) * (n - 2))
        return [[k != j and a[k][j] - sum(a[k]) / (n - 2) - sum(a[j]) / (n - 2) + total for j in range(n)] for k in range(n)]

    def product(a, b):
        return sum(a[k][j] * b[k][j] for k in range(n) for j in range(n)) / (n * (n - 3))

    a, b = centred(x), centred(y)
    return product(a, b) / math.sqrt(product(a, a) * product(b, b))


def test_distance_correlation_of_four_points_by_hand():
    """x at 0, 0, 1, 1 and y at 0, 1, 1, 0, in units in which the two places are 1 apart: a row's sum is 2, that of all 8, so

        A_ij = a_ij - 2/2 - 2/2 + 8/6:   -2/3 for the pair at one place, 1/3 for others.

    <A, A> is 4 times 4/9 + 1/9 + 1/9 = 8/3, <A, B> is 4 times -2/9 - 2/9 + 1/9 = -4/3: together -1/2.
    """
    found = distance_correlation(column(0.0, 0.0, 1.0, 1.0), column(0.0, 1.0, 1.0, 0.0))
    assert_close(found, torch.tensor(-0.5))


@pytest.mark.parametrize("seed", range(3))
def test_distance_correlation_is_that_of_a_double_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(9, width, generator=generator, dtype=torch.float64) for width in (3, 5))
    y[:, :2] += x[:, :2] ** 2
    assert float(distance_correlation(x, y)) == pytest.approx(looped_distance_correlation(x, y), rel=1e-9)


def test_distance_correlation_is_one_for_a_turned_copy():
    turned = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert_close(distance_correlation(x, x @ turned + 5), torch.tensor(1.0))


@pytest.mark.parametrize("width", [1, 32])
def test_independent_rows_have_none_however_wide_they_are(width):
    """The statistic with bias would have .11 and .57 here."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: distance_correlation(*(torch.randn(256, width, generator=generator) for _ in range(2)))
    assert abs(float(torch.stack([draw() for _ in range(8)]).mean())) < 0.01


def test_a_linear_map_changes_nothing_so_none_is_an_improvement(monkeypatch):
    """Whatever x is, x (1 + t L) is no better for small t. That is so without the ridge."""
    monkeypatch.setattr(regularisers, "RIDGE", 1e-9)
    generator = torch.Generator().manual_seed(0)
    x, y, mapped = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((60, 4), (60, 4), (4, 4)))
    x.requires_grad_()
    before = distance_correlation(x, y + x.detach() ** 2 + x.detach())
    assert before > 0.2
    assert_close(distance_correlation(x @ mapped, y + x.detach() ** 2 + x.detach()), before, rtol=1e-6, atol=0)
    (slope,) = torch.autograd.grad(before, x)
    assert abs(float((slope * (x.detach() @ mapped)).sum())) < 1e-6 * float(slope.norm() * (x.detach() @ mapped).norm())


def test_minimising_it_makes_two_views_of_the_same_rows_independent_and_leaves_them_their_directions():
    """Two linear maps of the same 16 normal numbers, alike at the start: half of the numbers each is what independence leaves.
    With Euclidean distances less than half of the directions are left, with the statistic of the 2007 paper one."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    first = draw(16, 16) / 4
    maps = [torch.nn.Parameter(each) for each in (first.clone(), first + draw(16, 16) / 8)]
    probe_MD, descent = draw(1000, 16), torch.optim.Adam(maps, lr=0.01)
    views = lambda: [(probe_MD @ each).detach() for each in maps]
    before = views()
    assert distance_correlation(*before) > 0.9
    for _ in range(200):
        rows_MD = draw(128, 16)
        loss = distance_correlation(*(rows_MD @ each for each in maps))
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert distance_correlation(*views()) < 0.05
    pairs = zip(before, views(), strict=True)
    assert all(effective_rank(after) > 0.65 * effective_rank(start) for start, after in pairs)


@pytest.mark.parametrize("x", [torch.full((4, 2), 1.7), torch.full((5, 2), 1e-30)], ids=["all the same", "and small"])
def test_rows_that_do_not_differ_are_the_worst(x):
    """So a constant is not how to get rid of the loss; nothing says which way out, so there is no gradient."""
    x.requires_grad_()
    y = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for found in (distance_correlation(x, y), distance_correlation(y, x), distance_correlation(x, x)):
        assert found == 1 and not found.requires_grad


def test_too_few_rows_or_rows_equally_far_apart_say_nothing():
    y = torch.randn(3, 2)
    assert distance_correlation(y, y) == 0 and distance_correlation(y[:0], y[:0]) == 0
    corners = torch.eye(4, dtype=torch.float64).requires_grad_()  # of a regular simplex
    found = distance_correlation(corners, torch.randn(4, 3, dtype=torch.float64))
    assert abs(float(found.detach())) <= 1
    found.backward()
    assert corners.grad.isfinite().all()


def test_effective_rank_counts_directions():
    """Variances 1 : 1 : 0 are two directions; 3 : 1 are exp(entropy of 3/4 and 1/4) = 4 / 3^(3/4)."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert effective_rank(torch.cat([corners, torch.zeros(4, 1)], dim=1)) == pytest.approx(2)
    assert effective_rank(corners * torch.tensor([3**0.5, 1.0])) == pytest.approx(4 / 3**0.75)
    assert effective_rank(corners[:, :1] * torch.tensor([[2.0, 5.0]]) + 100) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.full((4, 2), 1.7)) == effective_rank(torch.ones(1, 2)) == 0


def test_gradients_are_those_of_the_formulas_also_where_rows_are_the_same():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    users = torch.tensor([1, 2, 3, 1, 4, 5])
    assert_same_gradients(x, y, users)
    x[4], x[5] = x[0], x[0]
    y[5] = y[1]
    assert_same_gradients(x, y, users)


def assert_same_gradients(x, y, users):
    for loss in (distance_correlation, cosine_distance, euclidean_distance, lambda x, y: infonce(x, y, users, 0.5)):
        # steps long enough for rounding not to matter where the distance of two rows is no more than the step
        assert torch.autograd.gradcheck(loss, (x.clone().requires_grad_(), y.clone().requires_grad_()), eps=1e-4)


def test_rows_far_from_the_origin_keep_their_distances():
    x = torch.tensor([[1000.0, 2000.0], [1003.0, 2004.0], [1000.0, 2000.0]])
    assert_close(distances(x), torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 5.0], [0.0, 5.0, 0.0]]), rtol=1e-4, atol=0)


def test_infonce_of_three_users_by_hand():
    """Cosines 1, 0 and -1 over 0.5: scores 2, 0 and -2; a vector's length does not count."""
    x = torch.tensor([[3.0, 0.0], [0.0, 0.1], [1.0, 0.0]])
    y = torch.tensor([[5.0, 0.0], [0.2, 0.0], [-1.0, 0.0]])  # scores: [2, 2, -2], [0, 0, 0], [2, 2, -2]
    below = 2 * math.exp(2) + math.exp(-2)
    expected = (math.log(below) - 2 + math.log(3) + math.log(below) + 2) / 3
    assert float(infonce(x, y, torch.tensor([7, 8, 9]), 0.5)) == pytest.approx(expected, rel=1e-6)
    # the first two rows are one user's: neither is the other's negative, both are the third's
    expected = (math.log(math.exp(2) + math.exp(-2)) - 2 + math.log(2) + math.log(below) + 2) / 3
    assert float(infonce(x, y, torch.tensor([7, 7, 9]), 0.5)) == pytest.approx(expected, rel=1e-6)
    assert infonce(x, y, torch.tensor([7, 7, 7]), 0.5) == 0  # no negatives, so the positive is certain
    assert infonce(x[:0], y[:0], torch.tensor([], dtype=torch.int64), 0.5) == 0


def test_cosine_and_euclidean_distance_by_hand():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]), torch.tensor([[4.0, 0.0], [5.0, 0.0], [-3.0, -4.0]])
    assert_close(cosine_distance(x, y), torch.tensor((0 + 1 + 2) / 3))
    x, y = torch.tensor([[1.0, 1.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0], [4.0, 0.0]])
    assert_close(euclidean_distance(x, y), torch.tensor((0 + 5) / 2))
    assert cosine_distance(x[:0], y[:0]) == euclidean_distance(x[:0], y[:0]) == 0


def test_gradients_of_vectors_without_length_are_finite():
    for loss in (cosine_distance, euclidean_distance, lambda x, y: infonce(x, y, torch.tensor([1, 2]), 0.5)):
        x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
        loss(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]])).backward()
        assert x.grad.isfinite().all()
