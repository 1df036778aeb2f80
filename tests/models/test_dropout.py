"""Dropout against SplitMix64 in whole numbers, and what its draws depend on."""

import pytest
import torch

from models.layers.draws import uniform_N, uniform_RL
from models.layers.dropout import Dropout, number_dropouts, rows_N, rows_RL
from models.slots import Training
from tests.models.test_draws import WORD, feeds, split_mix


def test_draws_are_16_bits_of_split_mix_of_row_and_counter():
    """Two members of a bank, three rows, seven numbers in each: two words of four draws."""
    rows = [5, -9, 2**62]
    drop = Dropout(0.3)
    drop.place = 2
    found_BNH = drop(torch.ones(2, 3, 7), torch.tensor(rows))
    dropped = round(0.3 * 65536)
    for member in range(2):
        for place, row in enumerate(rows):
            words = [
                split_mix((row + (2 * member + word + (2 << 32)) * 0x9E3779B97F4A7C15) & WORD).to_bytes(8, "little")
                for word in range(2)
            ]
            draws = [int.from_bytes(word[at : at + 2], "little", signed=True) for word in words for at in (0, 2, 4, 6)]
            expected = [65536 / (65536 - dropped) if draw >= dropped - 32768 else 0.0 for draw in draws[:7]]
            assert found_BNH[member, place].tolist() == pytest.approx(expected)


def test_the_share_is_dropped_and_the_mean_stays():
    drop = Dropout(0.2)
    found = drop(torch.ones(1000, 300), torch.arange(1000) * 7919)
    assert abs((found == 0).float().mean().item() - 0.2) < 4 * (0.2 * 0.8 / 300_000) ** 0.5
    assert found.max().item() == pytest.approx(1.25, abs=1e-4)
    assert abs(found.mean().item() - 1) < 5e-3
    columns = torch.corrcoef((found == 0).float().T) - torch.eye(300)
    assert columns.abs().max() < 6 / 1000**0.5  # of 44,850 pairs


def test_a_share_next_to_one_still_keeps_some():
    """16 bits know no share between 1 - 2 ** -16 and 1; what is kept is then scaled by 2 ** 16."""
    found = Dropout(1 - 1e-9)(torch.ones(5000, 64), torch.arange(5000) * 7919)
    assert set(found.unique().tolist()) == {0.0, 65536.0}


def test_nothing_is_dropped_when_predicting():
    drop, x = Dropout(0.5), torch.ones(2, 3, dtype=torch.bfloat16)
    rows = torch.arange(2)
    assert drop(x, rows).dtype == torch.bfloat16 and (drop(x, rows) == 0).any()
    assert drop(x, None) is x and drop.eval()(x, rows) is x and Dropout(0.0)(x, rows) is x
    assert rows_N(None) is None and rows_RL(None, 5) is None


def test_the_dropouts_of_a_ranker_draw_on_their_own():
    drops = torch.nn.ModuleList([Dropout(0.5) for _ in range(3)])
    number_dropouts(drops)
    x, rows = torch.ones(100, 40), torch.arange(100)
    first, second, third = (drop(x, rows) for drop in drops)
    for one, other in ((first, second), (second, third), (first, third)):
        assert abs((one == other).float().mean().item() - 0.5) < 0.04


def test_rows_are_those_of_the_draws():
    """One hash a candidate and one a place, of user and progress: what workers and resumed trainings have alike."""
    batch = feeds([3, 1], [2, 3])
    training = Training(progress=0.5, batch=batch, beliefs={})
    as_share = lambda rows: ((rows >> 11) & (2**53 - 1)).double() / 2**53
    assert torch.equal(as_share(rows_N(training)), uniform_N(batch, 0.5, 3000))
    assert torch.equal(as_share(rows_RL(training, 4)), uniform_RL(batch, 4, 0.5, 3000))
