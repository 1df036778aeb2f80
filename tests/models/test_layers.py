"""Layers against numbers one can check and against naive forms."""

import pytest
import torch
from torch.testing import assert_close

from models.layers.dice import Dice
from models.layers.grid import grid
from models.layers.masked import masked_mean
from models.layers.mixed import MixedBank, MixedLinear
from models.layers.mixture import mixture
from models.layers.mlp import MlpBank
from models.slots import Vectors, Widths

WIDTHS = Widths(feed={"a": 2, "b": 3}, candidate={"c": 4})


def some_vectors() -> Vectors:
    torch.manual_seed(0)
    return Vectors(
        feed={"a": torch.randn(2, 2), "b": torch.randn(2, 3)},
        candidate={"c": torch.randn(5, 4)},
        feed_of_candidate_N=torch.tensor([0, 0, 0, 1, 1]),
        level_N=torch.zeros(5, dtype=torch.int64),
    )


def side_by_side(vectors: Vectors) -> torch.Tensor:
    """The plain input: feed vectors repeated for every candidate."""
    feed = [vectors.feed[name][vectors.feed_of_candidate_N] for name in vectors.feed]
    return torch.cat([*feed, *vectors.candidate.values()], dim=1)


def test_members_of_a_bank_do_not_share_weights():
    bank = MlpBank(2, 1, (1,), dropout=0.0)
    with torch.no_grad():
        bank.layers[0].weight_BIH.copy_(torch.tensor([[[2.0]], [[-1.0]]]))
        bank.layers[0].bias_B1H.copy_(torch.tensor([[[1.0]], [[5.0]]]))
    x = torch.tensor([[[3.0], [-3.0]], [[3.0], [-3.0]]])
    assert bank(x).tolist() == [[[7.0], [0.0]], [[2.0], [8.0]]]  # relu(2x + 1), relu(5 - x)


def test_a_bank_without_layers_gives_its_input():
    x = torch.randn(2, 3, 4)
    assert MlpBank(2, 4, (), dropout=0.0)(x) is x


def test_dropout_acts_in_training_only():
    bank = MlpBank(1, 4, (1000,), dropout=0.5)
    with torch.no_grad():
        bank.layers[0].bias_B1H.fill_(1.0)
        bank.layers[0].weight_BIH.zero_()
    x, rows_N = torch.ones(1, 1, 4), torch.tensor([11])
    assert set(bank(x, rows_N).unique().tolist()) == {0.0, 2.0}
    assert abs(bank(x, rows_N).mean().item() - 1) < 0.2
    assert bank.eval()(x, rows_N).unique().tolist() == bank.train()(x).unique().tolist() == [1.0]


def test_mixed_linear_is_one_linear_map_of_all_vectors():
    vectors = some_vectors()
    linear = MixedLinear(WIDTHS, 6, before_relu=False)
    torch.nn.init.normal_(linear.bias)
    expected = side_by_side(vectors) @ torch.cat([linear.feed, linear.candidate]) + linear.bias
    assert_close(linear(vectors), expected)


def test_mixed_linear_of_one_level_alone():
    vectors = some_vectors()
    feed_only = MixedLinear(Widths(feed={"a": 2}), 3, before_relu=False)
    only = Vectors(
        feed={"a": vectors.feed["a"]},
        candidate={},
        feed_of_candidate_N=vectors.feed_of_candidate_N,
        level_N=vectors.level_N,
    )
    assert_close(feed_only(only), (vectors.feed["a"] @ feed_only.feed)[vectors.feed_of_candidate_N])
    candidate_only = MixedLinear(Widths(candidate={"c": 4}), 3, before_relu=False)
    only = Vectors(
        feed={},
        candidate=vectors.candidate,
        feed_of_candidate_N=vectors.feed_of_candidate_N,
        level_N=vectors.level_N,
    )
    assert_close(candidate_only(only), vectors.candidate["c"] @ candidate_only.candidate)


def test_a_mixed_bank_is_its_members_one_by_one():
    vectors = some_vectors()
    bank = MixedBank(3, WIDTHS, (8, 4), dropout=0.0)
    x = side_by_side(vectors)
    first = torch.cat([bank.first.feed, bank.first.candidate])
    for member in range(3):
        hidden = (x @ first[:, member * 8 : member * 8 + 8]).relu()
        assert_close(bank(vectors)[member], (hidden @ bank.rest.layers[0].weight_BIH[member]).relu())


def test_initial_weights_have_the_stated_range():
    torch.manual_seed(0)
    before_relu = MixedLinear(Widths(feed={"a": 60}, candidate={"b": 90}), 200, before_relu=True)
    assert 0.19 < before_relu.feed.abs().max() <= 0.2  # sqrt(6 / 150)
    assert 0.19 < before_relu.candidate.abs().max() <= 0.2
    plain = MixedLinear(Widths(feed={"a": 60}, candidate={"b": 84}), 200, before_relu=False)
    assert 0.08 < plain.feed.abs().max() <= 1 / 12


def test_a_gate_mixes_experts_by_softmax_of_its_scores():
    scores_NTE = torch.log(torch.tensor([[[1.0, 3.0], [1.0, 1.0]]]))  # weights 1/4, 3/4 and 1/2, 1/2
    experts_NEH = torch.tensor([[[4.0], [8.0]]])
    assert_close(mixture(scores_NTE, experts_NEH), torch.tensor([[[7.0]], [[6.0]]]))


def test_the_mean_is_over_real_entries():
    values_RLD = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [100.0], [100.0]], [[100.0], [100.0], [100.0]]])
    is_real_RL = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert masked_mean(values_RLD, is_real_RL).tolist() == [[2.0], [5.0], [0.0]]


def test_feeds_of_similar_size_get_a_row_each():
    places = grid(torch.tensor([0, 0, 1, 1, 1]), feeds=2)
    assert (places.rows, places.columns, places.feed_of_G) == (2, 3, None)
    laid = places.lay(torch.tensor([[1.0], [2], [3], [4], [5]]))
    assert laid.squeeze(2).tolist() == [[1, 2, 0], [3, 4, 5]]
    assert places.pick(laid).flatten().tolist() == [1, 2, 3, 4, 5]


def test_a_long_feed_is_cut_into_rows_of_average_length():
    sizes = [1, 1, 1, 9]
    places = grid(torch.repeat_interleave(torch.tensor(sizes)), feeds=4)
    assert (places.rows, places.columns) == (6, 3)
    assert places.feed_of_G.tolist() == [0, 1, 2, 3, 3, 3]
    values = torch.arange(1.0, 13).unsqueeze(1)
    laid = places.lay(values)
    assert laid.squeeze(2).tolist() == [[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert_close(places.pick(laid), values)
    assert places.of_feed(torch.tensor([[0.0], [1], [2], [3]])).flatten().tolist() == [0, 1, 2, 3, 3, 3]
    assert places.rows * places.columns <= 2 * sum(sizes)


def test_dice_is_the_published_one_with_fixed_statistics_and_rescaled_neighbours():
    """Mean 3, variance 4, alpha 0.1: p(5) = sigmoid(1), and 5 (p + 0.1 (1 - p)) comes from an input scaled by 1/2."""
    dice = Dice(1)
    with torch.no_grad():
        dice.shift.fill_(-3 / 2)
        dice.alpha.fill_(0.1)
    p = 1 / (1 + 2.718281828**-1)
    assert 2 * dice(torch.tensor([5.0 / 2])).item() == pytest.approx(5 * (p + 0.1 * (1 - p)))


def test_the_gradient_of_dice_written_by_hand_is_right():
    torch.manual_seed(0)
    dice = Dice(3).double()
    for parameter in dice.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    call = lambda x, alpha, shift: torch.func.functional_call(dice, {"alpha": alpha, "shift": shift}, (x,))
    assert torch.autograd.gradcheck(call, (x, dice.alpha.detach().requires_grad_(), dice.shift.detach().requires_grad_()))


def test_dice_in_pieces_is_dice_at_once(monkeypatch):
    torch.manual_seed(0)
    dice, x = Dice(3), torch.randn(11, 3)
    results = []
    for rows in (4096, 4):
        monkeypatch.setattr("models.layers.dice.CPU_ROWS", rows)
        dice.zero_grad()
        leaf = x.clone().requires_grad_()
        out = dice(leaf)
        out.square().sum().backward()
        results.append((out.detach(), leaf.grad, dice.alpha.grad.clone(), dice.shift.grad.clone()))
    for whole, pieces in zip(*results, strict=True):
        assert_close(whole, pieces)
