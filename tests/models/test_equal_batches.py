"""Batches of one size for every level: uniform, without replacement, the same for any number of workers."""

import math

import pytest
import torch

from models.learners.equal_batches import EqualBatches
from models.learners.workers import SingleWorker
from tests.models.helpers import Threads, points, replaced


def two_levels(group=None, *, batches=4, size=5) -> EqualBatches:
    return EqualBatches(2, batches, size, group or SingleWorker(), torch.device("cpu"))


def labels(parts, step: int, level: int) -> list[float]:
    """Of all workers' parts, ascending; labels tell candidates apart."""
    return sorted(y for each in parts if each[step][level] is not None for y in each[step][level].labels["y"].tolist())


def test_levels_get_batches_of_one_size_whatever_they_have():
    """Three joint batches with 6 and 40 candidates: at most 5 in each of four batches, so 18 / 4 = 4 of each level."""
    equal = two_levels()
    for place in range(3):
        equal.add(points(place, (6, 40)), place / 3)
        held = sum(len(number_P) for number_P, _ in equal._waiting[1])
        assert held <= 40  # of the larger level: twice what can be taken
    size, parts = equal.draw()
    assert size == 4
    for level in (0, 1):
        assert all((step[level].level_N == level).all() and step[level].candidates == 4 for step in parts)
        assert len({y for step in range(4) for y in labels([parts], step, level)}) == 16  # none twice
    assert equal.draw() == (0, [[None, None]] * 4)  # they are forgotten


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_draw_what_one_would(workers):
    """Each has every second or third feed; in one joint batch a worker has nothing."""
    batches = [points(place, (6, 40)) for place in range(3)]

    def drawn(group):
        equal = two_levels(group)
        for place, batch in enumerate(batches):
            sharing = workers - 1 if place == 1 else workers
            mine_N = torch.arange(46) % sharing == group.rank
            equal.add(batch.of_candidates(mine_N) if mine_N.any() else None, place / 3)
        return equal.draw()

    alone = two_levels()
    for place, batch in enumerate(batches):
        alone.add(batch, place / 3)
    size, expected = alone.draw()
    found = Threads(workers).run(drawn)
    assert all(each == size for each, _ in found)
    for step in range(4):
        for level in (0, 1):
            assert labels([parts for _, parts in found], step, level) == labels([expected], step, level)


def test_early_and_late_candidates_are_equally_likely():
    """Of a level's 400 candidates in ten joint batches a tenth is drawn, 200 times."""
    times_N = torch.zeros(400)
    for repeat in range(200):
        equal = two_levels(size=10)
        for place in range(10):
            batch = points(place, (20, 40))
            equal.add(replaced(batch, labels={"y": torch.arange(-20, 40) + 40 * place}), repeat + place / 10)
        _, parts = equal.draw()
        for step in range(4):
            times_N[torch.tensor(labels([parts], step, 1))] += 1
    assert times_N.sum() == 200 * 40
    assert (times_N - 20).abs().max() < 4.5 * math.sqrt(200 * 0.1 * 0.9)
    assert abs(times_N[:200].sum().item() - 4000) < 4.5 * math.sqrt(200 * 40 * 0.25)


def test_a_level_with_fewer_candidates_than_batches_waits():
    equal = two_levels()
    equal.add(points(0, (3, 20)), 0.0)
    size, parts = equal.draw()
    assert size == 5 and all(step[0] is None and step[1].candidates == 5 for step in parts)
