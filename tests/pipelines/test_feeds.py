"""Feed tables as tensors, by hand."""

import pyarrow as pa
import torch
from torch.testing import assert_close

from models.schema import Field, History, HistoryField, Number, Schema, Target
from pipelines.batches import to_batch
from pipelines.feeds import feeds_schema

SCHEMA = Schema(
    fields=(
        Field(name="user", of="feed"),
        Field(name="age", of="feed", encoding=Number()),
        Field(name="room", of="candidate"),
        Field(name="rate", of="candidate", encoding=Number()),
    ),
    histories=(History(name="seen", events="engagements", fields=(HistoryField(name="room"),)),),
    targets=(Target(name="click", action="enter"),),
)
BIG = 2**53 + 1  # not a float64

FEEDS = pa.table(
    {
        "feed_id": [1, 2, 3],
        "user_id": [BIG, 8, 9],
        "at": [10, 20, 30],
        "day": [0, 0, 0],
        "room_id": [[BIG, 6], [7], []],
        "level": [[0, 2], [1], []],
        "user": [4, 5, 6],
        "age": [0.5, -0.5, 0.0],
        "room": [[11, 12], [13], []],
        "rate": [[0.1, 0.2], [0.3], []],
        "seen.room": [[], [21, 22, 23], [24]],
        "label.click": [[0.0, 1.0], [1.0], []],
    },
    schema=feeds_schema(SCHEMA),
)


def test_lists_become_candidates_and_padded_histories():
    batch = to_batch(FEEDS, SCHEMA)
    assert batch.feeds == 3 and batch.candidates == 3
    assert batch.feed_of_candidate_N.tolist() == [0, 0, 1]
    assert batch.candidate["room"].tolist() == [11, 12, 13] and batch.candidate["room"].dtype == torch.int64
    assert batch.level_N.tolist() == [0, 2, 1]
    assert batch.user_R.tolist() == [BIG, 8, 9]
    assert batch.histories["seen"].rows["room"].tolist() == [[0, 0, 0], [21, 22, 23], [24, 0, 0]]
    assert batch.histories["seen"].is_real_RL.tolist() == [[False] * 3, [True] * 3, [True, False, False]]
    assert_close(batch.candidate["rate"], torch.tensor([0.1, 0.2, 0.3]))
    assert_close(batch.labels["click"], torch.tensor([0.0, 1.0, 1.0]))


def test_sliced_and_chunked_tables_read_the_same():
    sliced = to_batch(FEEDS.slice(1, 2), SCHEMA)
    chunked = to_batch(pa.concat_tables([FEEDS.slice(1, 1), FEEDS.slice(2, 1)]), SCHEMA)
    for batch in (sliced, chunked):
        assert batch.candidate["room"].tolist() == [13]
        assert batch.feed_of_candidate_N.tolist() == [0]
        assert batch.histories["seen"].rows["room"].tolist() == [[21, 22, 23], [24, 0, 0]]


def test_a_request_has_no_labels_and_may_have_no_history():
    batch = to_batch(FEEDS.slice(0, 1).drop_columns(["label.click"]), SCHEMA)
    assert batch.labels == {}
    assert batch.histories["seen"].is_real_RL.shape == (1, 0)


def test_no_feeds_at_all():
    batch = to_batch(FEEDS.slice(0, 0), SCHEMA)
    assert batch.feeds == 0 and batch.candidates == 0
