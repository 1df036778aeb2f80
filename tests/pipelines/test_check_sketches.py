"""Sketches against exact counts."""

import numpy as np
import pytest

from pipelines.check.answers import UserSample
from pipelines.check.sketches import Commonest, Distinct, Ids, Quantiles, sampled
from pipelines.encode.sketch import ValueCounts

rng = np.random.default_rng(3)


@pytest.mark.parametrize(("count", "off"), [(0, 0), (3, 0), (1000, 0.01), (60_000, 0.03), (2_000_000, 0.03)])
def test_distinct_values_to_a_few_hundredths(count, off):
    seen = Distinct()
    values = np.arange(count) * 1_000_003 - 5
    for part in np.array_split(np.concatenate([values, values[::3]]), 7):
        seen.add(part)
    assert abs(seen.count - count) <= off * count


def test_the_commonest_are_too_low_by_no_more_than_they_say():
    values = np.minimum(rng.zipf(1.3, 200_000), 10**9)
    values[::9] = 77
    common = Commonest(capacity=100)
    for part in np.array_split(values, 23):
        common.add(ValueCounts.of(part))
    exact = dict(zip(*(array.tolist() for array in np.unique(values, return_counts=True)), strict=True))
    assert 0 < common.short <= len(values) / 101
    assert common.distinct is None
    top = common.top(5)
    assert {value for value, _ in top[:3]} == set(sorted(exact, key=exact.__getitem__)[-3:])
    for value, rows in top:
        assert exact[value] - common.short <= rows <= exact[value]


def test_few_values_are_counted_exactly():
    common = Commonest(capacity=4)
    for part in ([5, 5, 7], [7, 7, 9, 5], [1]):
        common.add(ValueCounts.of(np.array(part)))
    assert common.top(3) == [(5, 3), (7, 3), (1, 1)] and (common.short, common.distinct) == (0, 4)


def test_quantiles_over_the_whole_range_of_floats():
    values = np.concatenate([rng.lognormal(0, 3, 50_000), -rng.lognormal(0, 3, 50_000), [1.7e308, -1.7e308]])
    sketch = Quantiles()
    for part in np.array_split(values, 11):
        distinct, rows = np.unique(part, return_counts=True)
        sketch.add(distinct, rows)
    shares = (0.05, 0.25, 0.75, 0.95)
    np.testing.assert_allclose(sketch.at(shares), np.quantile(values, shares), rtol=1e-2)
    assert Quantiles().at(shares) == ()


def test_quantiles_get_coarser_rather_than_larger(monkeypatch):
    monkeypatch.setattr(Quantiles, "_MOST", 512)
    sketch, values = Quantiles(), rng.lognormal(0, 2, 100_000)
    for part in np.array_split(values, 50):
        distinct, rows = np.unique(part, return_counts=True)
        sketch.add(distinct, rows)
    assert len(sketch._counts.values) <= 512
    np.testing.assert_allclose(sketch.at((0.1, 0.5, 0.9)), np.quantile(values, (0.1, 0.5, 0.9)), rtol=0.05)


def test_ids_with_their_first_day_and_rows():
    ids = Ids(most=100)
    ids.add(np.array([3, 1, 3]), np.array([8, 9, 7]))
    ids.add(np.array([1, 2]), np.array([4, 4]))
    known, first, rows = ids.known()
    assert (known.tolist(), first.tolist(), rows.tolist(), ids.level) == ([1, 2, 3], [4, 4, 7], [2, 1, 2], 0)


def test_a_sample_of_ids_holds_all_rows_of_those_it_keeps():
    values = rng.permutation(np.repeat(np.arange(10_000), 3))
    ids = Ids(most=1000)
    for part in np.array_split(values, 40):
        ids.add(part, part + 7)
    known, first, rows = ids.known()
    assert 2 <= ids.level <= 6 and len(known) <= 1000
    assert (rows == 3).all() and (first == known + 7).all()
    assert known.tolist() == np.flatnonzero(sampled(np.arange(10_000), ids.level)).tolist()
    assert abs(len(known) * 2**ids.level - 10_000) < 2000


def test_the_rows_of_a_sample_of_users_never_outgrow_it():
    sample = UserSample(most=500)
    for part in np.array_split(np.concatenate([np.repeat(np.arange(3000), 4), np.full(700, 5)]), 30):
        sample.add("impressions", {"user": part[sample.chosen(part)]})
    users, rows = np.unique(sample.rows("impressions")["user"], return_counts=True)
    assert rows.sum() <= 500 and (rows == 4).all() and sample.level >= 4
    assert users.tolist() == np.flatnonzero(sample.chosen(np.arange(3000))).tolist()
