import torch
from torch.testing import assert_close

from models.layers.wide import Wide
from models.ranker import Ranker
from models.zoo import ZOO
from tests.samples import TABLE_SIZES, random_batch, tiny_schema


def test_the_wide_part_is_a_weight_per_row_and_number():
    """Every table row weighs 1 for `click` and 10 for `order`; numbers weigh 100 for `stay`."""
    schema = tiny_schema()
    wide = Wide(schema, TABLE_SIZES)
    with torch.no_grad():
        wide.tables.weight.copy_(torch.tensor([1.0, 0, 10, 0]).expand_as(wide.tables.weight))
        wide.tables.table("room")[3] = torch.tensor([0.5, 0, 0, 0])
        wide.linear.feed.copy_(torch.tensor([[0.0, 0, 0, 100]]))
        wide.linear.candidate.copy_(torch.tensor([[0.0, 0, 0, 100]]))
    batch = random_batch(schema, TABLE_SIZES, feeds=4, seed=0)
    batch.candidate["room"].copy_(torch.arange(batch.candidates) % 2 * 3)  # rows 0 and 3 in turn
    of = batch.feed_of_candidate_N
    expected = torch.stack(
        [
            torch.where(batch.candidate["room"] == 3, 6.5, 7.0),  # user, hour, room, streamer, category, product, rate_bin
            torch.zeros(batch.candidates),
            torch.where(batch.candidate["room"] == 3, 60.0, 70.0),
            100 * (batch.feed["user_entries"][of] + batch.candidate["rate"]),
        ],
        dim=1,
    )
    assert_close(wide(batch), expected)


def test_the_wide_part_stands_beside_each_targets_own_vector():
    schema = tiny_schema()
    ranker = Ranker(schema, ZOO["wdl"], TABLE_SIZES)
    batch = random_batch(schema, TABLE_SIZES, feeds=4, seed=0)
    before = ranker(batch)
    with torch.no_grad():
        ranker.wide.tables.weight[:, 0] += 1  # click's weights of 7 fields
    after = ranker(batch)
    by_head = ranker.coupling.heads.linear["click"].weight_BIH[0, -1, 0]
    assert_close(after["click"] - before["click"], (7 * by_head).expand(batch.candidates), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(after[name], before[name]) for name in ("goods_bag", "order", "stay"))
