import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.config import ConfigError, from_dict
from models.optim import (
    AdagradConfig,
    AdamConfig,
    LazyAdam,
    LazyAdamConfig,
    OptimiserConfig,
    Optimisers,
    RowwiseAdagrad,
    RowwiseAdagradConfig,
    merged,
)

ROWS, WIDTH = 6, 3
ROUGH = {"rtol": 1e-4, "atol": 1e-6}


def gradients(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids_U = torch.randperm(ROWS, generator=generator)[:4].sort().values
    return ids_U, torch.randn(4, WIDTH, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lazy_adam_is_adam_of_each_row_over_its_own_updates(dtype):
    config = LazyAdamConfig(rate=0.1, beta1=0.8, beta2=0.9)
    weight = torch.randn(ROWS, WIDTH, dtype=dtype)
    rows = [nn.Parameter(row.clone()) for row in weight]
    alone = [torch.optim.Adam([row], lr=0.1, betas=(0.8, 0.9)) for row in rows]
    optimiser = LazyAdam(config, weight)
    for step in range(20):
        ids_U, gradient_UD = gradients(step)
        optimiser.update(weight, ids_U, gradient_UD.to(dtype))
        for row, gradient in zip(ids_U.tolist(), gradient_UD.to(dtype), strict=True):
            rows[row].grad = gradient
            alone[row].step()
    assert_close(weight, torch.stack([row.detach() for row in rows]), rtol=1e-5, atol=1e-6)


def test_lazy_adam_moves_a_row_by_the_rate_at_its_first_update():
    """However late it comes, and with betas whose corrections vanish in float32."""
    weight = torch.zeros(2, 1)
    optimiser = LazyAdam(LazyAdamConfig(rate=0.5), weight)
    for _ in range(100):
        optimiser.update(weight, torch.tensor([0]), torch.tensor([[1.0]]))
    optimiser.update(weight, torch.tensor([1]), torch.tensor([[-3.0]]))
    assert weight[1].item() == pytest.approx(0.5, rel=1e-5)


def test_rowwise_adagrad_by_hand():
    """Mean squares 4 and then 4 + 9: steps of 2 / 2 and 3 / sqrt(13)."""
    weight = torch.zeros(3, 2)
    optimiser = RowwiseAdagrad(RowwiseAdagradConfig(rate=1.0), weight)
    optimiser.update(weight, torch.tensor([1]), torch.tensor([[2.0, -2.0]]))
    assert weight.tolist() == [[0, 0], [-1, 1], [0, 0]]
    optimiser.update(weight, torch.tensor([1, 2]), torch.tensor([[3.0, 3.0], [5.0, 5.0]]))
    assert_close(weight, torch.tensor([[0, 0], [-1 - 3 / 13**0.5, 1 - 3 / 13**0.5], [-1, -1]]))
    assert optimiser.sums.tolist() == [0, 13, 25]


@pytest.mark.parametrize("kind", [LazyAdam, RowwiseAdagrad])
def test_rows_that_are_not_read_stay_untouched(kind):
    weight = torch.randn(ROWS, WIDTH)
    before = weight.clone()
    optimiser = kind({LazyAdam: LazyAdamConfig, RowwiseAdagrad: RowwiseAdagradConfig}[kind](), weight)
    for _ in range(3):
        optimiser.update(weight, torch.tensor([1, 4]), torch.ones(2, WIDTH))
    others = [0, 2, 3, 5]
    assert_close(weight[others], before[others], rtol=0, atol=0)
    assert not any(state[others].any() for state in optimiser.state().values())
    assert (weight[[1, 4]] < before[[1, 4]]).all()


def test_gradients_of_the_same_row_are_added():
    ids_U, summed_UD = merged(torch.tensor([5, 2, 5, 9]), torch.tensor([[1.0], [2.0], [10.0], [4.0]]))
    assert (ids_U.tolist(), summed_UD.flatten().tolist()) == ([2, 5, 9], [2.0, 11.0, 4.0])
    ids_U, summed_UD = merged(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))
    assert (len(ids_U), summed_UD.shape) == (0, (0, 3))


def optimisers(config: OptimiserConfig) -> tuple[Optimisers, nn.Parameter, torch.Tensor]:
    dense, table = nn.Parameter(torch.zeros(2)), torch.zeros(3, 1)
    return Optimisers(config, [dense], {"t": table}), dense, table


def test_clipping_scales_dense_and_table_gradients_together():
    """Gradients (3, 0) and 4 have norm 5; clipped to 1 they are (.6, 0) and .8."""
    sgd_like = OptimiserConfig(
        dense=AdagradConfig(rate=1.0, eps=1e6), tables=RowwiseAdagradConfig(rate=1.0, eps=1e6), clip_norm=1.0
    )
    made, dense, table = optimisers(sgd_like)  # a huge eps makes a step proportional to the gradient
    dense.grad = torch.tensor([3.0, 0.0])
    made.step({"t": (torch.tensor([2]), torch.tensor([[4.0]]))})
    assert_close(dense.detach() * 1e6, torch.tensor([-0.6, 0.0]), rtol=1e-4, atol=1e-6)
    assert_close(table.flatten() * 1e6, torch.tensor([0.0, 0.0, -0.8]), rtol=1e-4, atol=1e-6)


def test_small_gradients_are_not_clipped():
    made, dense, _ = optimisers(OptimiserConfig(dense=AdagradConfig(rate=1.0, eps=1e6), clip_norm=10.0))
    dense.grad = torch.tensor([3.0, 0.0])
    made.step({"t": (torch.tensor([2]), torch.tensor([[4.0]]))})
    assert_close(dense.detach() * 1e6, torch.tensor([-3.0, 0.0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dense", [AdamConfig(rate=0.1), AdagradConfig(rate=0.1)])
def test_l2_pulls_dense_parameters_to_zero(dense):
    pulled = type(dense)(rate=0.1, l2=1.0)
    made, parameter, _ = optimisers(OptimiserConfig(dense=pulled))
    with torch.no_grad():
        parameter.copy_(torch.tensor([5.0, -5.0]))
    parameter.grad = torch.zeros(2)
    made.step({})
    assert_close(parameter.detach(), torch.tensor([4.9, -4.9]), rtol=1e-4, atol=0)


def test_l1_adds_the_sign_of_the_weight_to_the_gradient():
    """Gradient .5, l1 .25, l2 .1: weights 2, -2 and 0 see .5 + .25 + .2, .5 - .25 - .2 and .5; those without gradient none."""
    config = OptimiserConfig(dense=AdagradConfig(rate=1.0, eps=1e6, l1=0.25, l2=0.1))
    weight, silent = nn.Parameter(torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64)), nn.Parameter(torch.ones(1))
    made = Optimisers(config, [weight, silent], {})
    weight.grad = torch.full((3,), 0.5, dtype=torch.float64)
    made.step({})  # a huge eps makes a step proportional to the gradient
    assert_close((torch.tensor([2.0, -2.0, 0.0]) - weight.detach()) * 1e6, torch.tensor([0.95, 0.05, 0.5]).double(), **ROUGH)
    assert silent.item() == 1


@pytest.mark.parametrize("dense", [AdamConfig(rate=0.1, l1=1.0), AdagradConfig(rate=0.1, l1=1.0)])
def test_l1_alone_moves_weights_to_zero_at_the_rate(dense):
    made, parameter, _ = optimisers(OptimiserConfig(dense=dense))
    with torch.no_grad():
        parameter.copy_(torch.tensor([5.0, -0.5]))
    for expected in ([4.9, -0.4], [4.8, -0.3]) if dense.kind == "adam" else ([4.9, -0.4],):
        parameter.grad = torch.zeros(2)
        made.step({})
        assert_close(parameter.detach(), torch.tensor(expected), **ROUGH)


@pytest.mark.parametrize("tables", [LazyAdamConfig(), RowwiseAdagradConfig()])
def test_state_comes_back(tables):
    config = OptimiserConfig(tables=tables)

    def go(made, dense, steps):
        for step in steps:
            dense.grad = torch.full((2,), float(step + 1))
            made.step({"t": (torch.tensor([step % 3]), torch.tensor([[1.0 + step]]))})

    whole, whole_dense, whole_table = optimisers(config)
    go(whole, whole_dense, range(6))
    first, first_dense, first_table = optimisers(config)
    go(first, first_dense, range(3))
    second, second_dense, second_table = optimisers(config)
    with torch.no_grad():
        second_dense.copy_(first_dense)
        second_table.copy_(first_table)
    second.load_state_dict(first.state_dict())
    go(second, second_dense, range(3, 6))
    assert_close(second_dense, whole_dense, rtol=0, atol=0)
    assert_close(second_table, whole_table, rtol=0, atol=0)


def test_state_of_another_optimiser_is_refused():
    made, _, _ = optimisers(OptimiserConfig())
    other, _, _ = optimisers(OptimiserConfig(tables=RowwiseAdagradConfig()))
    with pytest.raises(ValueError, match=r"state of `t` does not fit: it holds sums \[3\], expected first \[3, 1\]"):
        made.load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"dense": {"kind": "adam", "rate": 0}}, "adam needs rate > 0, got 0"),
        ({"dense": {"kind": "adam", "l2": -1}}, "adam needs l2 >= 0, got -1"),
        ({"dense": {"kind": "adagrad", "l1": -1}}, "adagrad needs l1 >= 0, got -1"),
        ({"tables": {"kind": "lazy_adam", "beta2": 1}}, "lazy_adam needs 0 <= beta1, beta2 < 1, got 0.9, 1.0"),
        ({"tables": {"kind": "rowwise_adagrad", "eps": 0}}, "rowwise_adagrad needs eps > 0"),
        ({"clip_norm": 0}, "clip_norm > 0, got 0"),
    ],
)
def test_impossible_values_are_refused(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(OptimiserConfig, spelling)
