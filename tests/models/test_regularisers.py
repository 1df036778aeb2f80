import math

import pytest
import torch
from torch.testing import assert_close

from models.layers.regularisers import cosine_distance, distance_correlation, distances, euclidean_distance, infonce


def column(*values: float, **options) -> torch.Tensor:
    return torch.tensor(values, **options).unsqueeze(1)


def looped_distance_correlation(x, y) -> float:
    """Szekely et al. 2007, Definition 3 and 4, number by number."""
    n = len(x)

    def centred(rows):
        a = [[math.dist(rows[k], rows[j]) for j in range(n)] for k in range(n)]
        row = [sum(a[k]) / n for k in range(n)]
        mean = sum(row) / n
        return [[a[k][j] - row[k] - row[j] + mean for j in range(n)] for k in range(n)]

    def covariance(a, b):
        return math.sqrt(sum(a[k][j] * b[k][j] for k in range(n) for j in range(n)) / n**2)

    a, b = centred(x.tolist()), centred(y.tolist())
    return covariance(a, b) / math.sqrt(covariance(a, a) * covariance(b, b))


def test_distance_correlation_of_three_points_by_hand():
    """Distances 0 and 3, centred to -2/3, 4/3 and -8/3: dVar^2 = 16/9 for both, dCov^2 = 4/9; sqrt(4/9 / (16/9)) = 1/2."""
    assert_close(distance_correlation(column(0.0, 0.0, 3.0), column(0.0, 3.0, 0.0)), torch.tensor(0.5))


@pytest.mark.parametrize("seed", range(3))
def test_distance_correlation_is_that_of_a_double_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(9, width, generator=generator, dtype=torch.float64) for width in (3, 5))
    y[:, :2] += x[:, :2] ** 2
    assert float(distance_correlation(x, y)) == pytest.approx(looped_distance_correlation(x, y), rel=1e-12)


def test_distance_correlation_is_one_for_a_turned_copy_and_zero_for_a_grid():
    turned = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert_close(distance_correlation(x, x @ turned + 5), torch.tensor(1.0))
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(4.0)).requires_grad_()  # each value with each: independent
    found = distance_correlation(grid[:, :1], grid[:, 1:])
    assert found == 0
    found.backward()
    assert not grid.grad.any()


@pytest.mark.parametrize(
    "x",
    [torch.zeros(0, 2), torch.ones(1, 2), torch.full((4, 2), 1.7), torch.full((3, 2), 1e-30)],
    ids=["none", "one", "all the same", "all the same and small"],
)
def test_rows_that_do_not_differ_are_correlated_with_nothing(x):
    x.requires_grad_()
    y = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for found in (distance_correlation(x, y), distance_correlation(y, x)):
        assert found == 0
        if found.requires_grad:
            found.backward()
            assert not x.grad.any() and not y.grad.any()


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
