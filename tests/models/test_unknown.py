"""Hidden ids: which rows, how many, and only in training."""

import pytest

from models.layers.unknown import with_hidden_ids
from models.system import SystemConfig
from tests.samples import TABLE_SIZES, random_batch


@pytest.fixture
def many(tiny_schema):
    return random_batch(tiny_schema, TABLE_SIZES, feeds=3000, seed=1)


def test_hides_the_share_of_candidate_vocabulary_rows_and_nothing_else(tiny_schema, many):
    hidden = with_hidden_ids(many, tiny_schema, 0.25, progress=0.5)
    for name in ("room", "streamer", "product"):
        before, after = many.candidate[name], hidden.candidate[name]
        changed = before != after
        assert (after[changed] == 0).all()
        share = (changed.sum() / (before != 0).sum()).item()
        assert abs(share - 0.25) < 0.02  # about 9,000 draws: 4 deviations are 0.018
    for name in ("rate_bin", "rate"):
        assert hidden.candidate[name] is many.candidate[name]
    assert hidden.feed is many.feed and hidden.histories is many.histories and hidden.labels is many.labels


def test_fields_are_hidden_independently(tiny_schema, many):
    hidden = with_hidden_ids(many, tiny_schema, 0.5, progress=0.5)
    known = (many.candidate["room"] != 0) & (many.candidate["streamer"] != 0)
    room = hidden.candidate["room"][known] == 0
    streamer = hidden.candidate["streamer"][known] == 0
    assert abs((room & streamer).float().mean().item() - 0.25) < 0.02


def test_no_share_no_copy(tiny_schema, many):
    assert with_hidden_ids(many, tiny_schema, 0.0, progress=0.5) is many


def test_all_of_them_cannot_be_hidden():
    with pytest.raises(ValueError, match="0 <= hidden_ids < 1, got 1"):
        SystemConfig(hidden_ids=1.0)
