"""Draws against SplitMix64 in whole numbers, and what they may and may not depend on."""

import struct

import pytest
import torch

from models.batch import FeedBatch
from models.layers.draws import uniform_N, uniform_R, uniform_RL
from tests.models.helpers import take

WORD = (1 << 64) - 1


def split_mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def seed(progress: float, salt: int) -> int:
    return split_mix((struct.unpack("<Q", struct.pack("<d", progress))[0] + salt) & WORD)


def feeds(users: list[int], candidates: list[int]) -> FeedBatch:
    feed_of_candidate_N = torch.arange(len(users)).repeat_interleave(torch.tensor(candidates))
    return FeedBatch(
        feed={},
        candidate={},
        histories={},
        feed_of_candidate_N=feed_of_candidate_N,
        level_N=torch.zeros_like(feed_of_candidate_N),
        user_R=torch.tensor(users),
    )


def test_the_reference_is_split_mix():
    """The first numbers of its author's generator for the seed 0."""
    golden = 0x9E3779B97F4A7C15
    assert [split_mix(i * golden & WORD) for i in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@pytest.mark.parametrize(("progress", "salt"), [(0.0, 0), (0.0, 5), (1.25, 0), (1e-3, -1)])
def test_draws_are_split_mix_of_user_progress_salt_and_place(progress, salt):
    users, candidates = [0, 7, -3, 2**63 - 1, 123456789012345], [2, 1, 3, 1, 2]
    batch = feeds(users, candidates)
    of_feed = [split_mix((user + seed(progress, salt)) & WORD) for user in users]
    of_candidate = [
        split_mix((mixed + place) & WORD) for mixed, n in zip(of_feed, candidates, strict=True) for place in range(n)
    ]
    assert uniform_R(batch, progress, salt).tolist() == [(x >> 11) / 2**53 for x in of_feed]
    assert uniform_N(batch, progress, salt).tolist() == [(x >> 11) / 2**53 for x in of_candidate]
    assert uniform_N(batch, progress, salt).dtype == torch.float64
    of_places = [[(split_mix((mixed + place) & WORD) >> 11) / 2**53 for place in range(3)] for mixed in of_feed]
    assert uniform_RL(batch, 3, progress, salt).tolist() == of_places


def test_draws_are_uniform():
    """Over users who follow each other, over places, and for one user over steps: tenths hold a tenth each."""
    many = 100_000
    over_users = uniform_R(feeds(list(range(many)), [1] * many), 0.5, 3)
    over_places = uniform_N(feeds([11], [many]), 0.5, 3)
    one = feeds([11], [1])
    over_steps = torch.cat([uniform_R(one, step / 1000, 3) for step in range(10_000)])
    for draws in (over_users, over_places, over_steps):
        expected = len(draws) / 10
        counts = torch.histc(draws, 10, 0, 1)
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert chi_square < 27.9  # 9 degrees of freedom: exceeded once in a thousand
        neighbours = torch.corrcoef(torch.stack([draws[:-1], draws[1:]]))[0, 1].item()
        assert abs(neighbours) < 4 / len(draws) ** 0.5
        assert draws.min() >= 0 and draws.max() < 1


def test_what_a_draw_depends_on():
    batch = feeds([5, 9, 5], [2, 2, 2])
    of_feed, of_candidate = uniform_R(batch, 0.25, 0), uniform_N(batch, 0.25, 0)
    assert of_feed[0] != of_feed[1] and of_feed[0] == of_feed[2]  # of the user
    assert of_candidate.unique().numel() == 4 and of_candidate[:2].tolist() == of_candidate[4:].tolist()  # and the place
    for other in (uniform_N(batch, 0.5, 0), uniform_N(batch, 0.25, 1)):
        assert (other != of_candidate).all()
    assert (uniform_R(batch, 0.5, 0) != of_feed).all() and (uniform_R(batch, 0.25, 1) != of_feed).all()
    assert torch.equal(uniform_N(batch, 0.25, 0), of_candidate)


def test_draws_of_different_salts_do_not_go_together():
    batch = feeds(list(range(50_000)), [1] * 50_000)
    draws = torch.stack([*(uniform_R(batch, 0.1, salt) for salt in range(4)), uniform_N(batch, 0.1, 0)])
    correlation = torch.corrcoef(draws) - torch.eye(5)
    assert correlation.abs().max() < 4.5 / 50_000**0.5


def test_draws_do_not_depend_on_how_a_batch_is_split():
    batch = feeds([3, 1, 4, 1, 5], [2, 1, 3, 2, 1])
    parts = [take(batch, [0, 1]), take(batch, [2]), take(batch, [3, 4])]
    for uniform in (uniform_R, uniform_N):
        assert torch.equal(torch.cat([uniform(part, 0.7, 2) for part in parts]), uniform(batch, 0.7, 2))
    of_places = [uniform_RL(part, 4, 0.7, 2) for part in parts]
    assert torch.equal(torch.cat(of_places), uniform_RL(batch, 6, 0.7, 2)[:, :4])
    ahead = uniform_R(take(batch, [4, 3, 2, 1, 0]), 0.7, 2)
    assert torch.equal(ahead.flip(0), uniform_R(batch, 0.7, 2))


def test_no_generator_is_touched():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    uniform_N(feeds([1, 2], [3, 3]), 0.1, 0)
    assert torch.equal(torch.get_rng_state(), before)
