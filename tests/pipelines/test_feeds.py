"""Feed tables as tensors, by hand."""

from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.schema import Field, History, HistoryField, Number, Schema, Stages, Target
from pipelines.encode.batches import to_batch
from pipelines.encode.feeds import feeds_schema

SCHEMA = Schema(
    fields=(
        Field(name="user", of="feed"),
        Field(name="age", of="feed", encoding=Number()),
        Field(name="room", of="candidate"),
        Field(name="rate", of="candidate", encoding=Number()),
    ),
    histories=(History(name="seen", events="engagements", fields=(HistoryField(name="room"),)),),
    targets=(Target(name="click", action="enter"), Target(name="stay", action="enter", kind="value", parents=("click",))),
    preference_days=(7.0, 30.0),
    stages=Stages(click="click", stay="stay", order="click"),
)
BIG = 2**53 + 1  # not a float64

FEEDS = pa.table(
    {
        "feed_id": [1, 2, 3],
        "user_id": [BIG, 8, 9],
        "at": [10, 20, 30],
        "day": [0, 0, 0],
        "stage": [0, 3, 1],
        "room_id": [[BIG, 6], [7], []],
        "level": [[0, 2], [1], []],
        "user": [4, 5, 6],
        "age": [0.5, -0.5, 0.0],
        "room": [[11, 12], [13], []],
        "rate": [[0.1, 0.2], [0.3], []],
        "seen.room": [[], [21, 22, 23], [24]],
        "label.click": [[0.0, 1.0], [1.0], []],
        "label.stay": [[0.0, 5.0], [7.0], []],
        "preference_count": [[0, 0], [4, 12], [0, 2]],
        "preference.click": [[None, None], [0.5, 0.25], [None, 1.0]],
        "preference.stay": [[None, None], [0.125, 0.0], [None, 0.75]],
        "per_click.stay": [[None, None], [0.25, 0.0], [None, 0.75]],
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


def test_preferences_have_a_column_a_window_and_nan_without_a_past():
    batch = to_batch(FEEDS, SCHEMA)
    nan = float("nan")
    assert batch.stage_R.tolist() == [0, 3, 1] and batch.stage_R.dtype == torch.int64
    assert batch.earlier_RW.tolist() == [[0, 0], [4, 12], [0, 2]] and batch.earlier_RW.dtype == torch.int64
    assert list(batch.preferences) == ["click", "stay"]
    assert_close(batch.preferences["click"], torch.tensor([[nan, nan], [0.5, 0.25], [nan, 1.0]]), equal_nan=True)
    assert_close(batch.preferences["stay"], torch.tensor([[nan, nan], [0.125, 0.0], [nan, 0.75]]), equal_nan=True)
    assert to_batch(FEEDS.slice(1, 1), SCHEMA).preferences["click"].tolist() == [[0.5, 0.25]]
    assert to_batch(FEEDS, SCHEMA, None).preferences == {}


def test_preferences_of_a_click_are_those_of_targets_that_follow_from_it():
    of_click = to_batch(FEEDS.slice(1, 1), SCHEMA, "click").preferences
    assert {name: values.tolist() for name, values in of_click.items()} == {"click": [[0.5, 0.25]], "stay": [[0.25, 0.0]]}
    apart = replace(SCHEMA, targets=tuple(replace(target, parents=()) for target in SCHEMA.targets))
    assert to_batch(FEEDS.slice(1, 1), apart, "click").preferences["stay"].tolist() == [[0.125, 0.0]]


def test_sliced_and_chunked_tables_read_the_same():
    sliced = to_batch(FEEDS.slice(1, 2), SCHEMA)
    chunked = to_batch(pa.concat_tables([FEEDS.slice(1, 1), FEEDS.slice(2, 1)]), SCHEMA)
    for batch in (sliced, chunked):
        assert batch.candidate["room"].tolist() == [13]
        assert batch.feed_of_candidate_N.tolist() == [0]
        assert batch.histories["seen"].rows["room"].tolist() == [[21, 22, 23], [24, 0, 0]]


def test_a_request_has_no_labels_and_no_preferences_and_may_have_no_history():
    only_training = ["label.click", "label.stay", "preference_count", "preference.click", "preference.stay", "per_click.stay"]
    batch = to_batch(FEEDS.slice(0, 1).drop_columns(only_training), SCHEMA)
    assert batch.labels == {} and batch.preferences == {} and batch.earlier_RW is None
    assert batch.stage_R.tolist() == [0]
    assert batch.histories["seen"].is_real_RL.shape == (1, 0)


def test_a_schema_without_stages_and_with_fewer_targets_reads_the_same_feeds():
    fewer = Schema(fields=SCHEMA.fields, targets=SCHEMA.targets[:1], preference_days=(7.0, 30.0))
    batch = to_batch(FEEDS, fewer)
    assert batch.stage_R is None and list(batch.labels) == list(batch.preferences) == ["click"]


def test_no_feeds_at_all():
    batch = to_batch(FEEDS.slice(0, 0), SCHEMA)
    assert batch.feeds == 0 and batch.candidates == 0
    assert batch.preferences["click"].shape == batch.earlier_RW.shape == (0, 2)


@pytest.mark.parametrize("name", ["stage", "day", "preference_count"])
def test_a_field_named_as_another_column_of_the_table_is_refused(name):
    schema = Schema(
        fields=(*SCHEMA.fields, Field(name=name, of="feed", column="hour")), targets=SCHEMA.targets, stages=SCHEMA.stages
    )
    with pytest.raises(ConfigError, match=f"two columns `{name}`: give the field or history of that name another name"):
        feeds_schema(schema)
