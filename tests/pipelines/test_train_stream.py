"""Order of training feeds: whole, the same for all, and resumable at every step."""

import threading
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.learners.workers import SingleWorker
from pipelines.train.ahead import ahead
from pipelines.train.order import FeedOrder, RowGroup, row_groups
from pipelines.train.preferences import preference_means
from pipelines.train.stream import StoredFeeds, Stream, columns_for
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """120 training feeds in 2 files of row groups of 16 (the last of each is shorter), 40 for validation."""
    return fabricate(tmp_path_factory.mktemp("prepared") / "data")


def stream(prepared, *, rank=0, size=1, batch_feeds=10, window_groups=4, seed=3, read_parts=None):
    groups = row_groups(prepared.files("train"))
    order = FeedOrder(groups=groups, seed=seed, batch_feeds=batch_feeds, window_groups=window_groups, rank=rank, size=size)
    return Stream(order, prepared.schema, read_parts) if read_parts else Stream(order, prepared.schema)


def ids(batches):
    """Feed ids (the user ids of fabricated feeds) by step."""
    return [[] if batch is None else batch.user_R.tolist() for batch in batches]


def test_footers_tell_the_row_groups(prepared):
    groups = row_groups(prepared.files("train"))
    assert [group.feeds for group in groups] == [16, 16, 16, 16, 6, 16, 16, 16, 2]  # 70 and 50 feeds


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("window_groups", [4, 9, 100])
def test_every_feed_comes_once_an_epoch(prepared, size, window_groups):
    steps = [ids(stream(prepared, rank=rank, size=size, window_groups=window_groups).epoch(0)) for rank in range(size)]
    assert {len(step) for step in steps} == {12}
    assert sorted(np.concatenate([np.concatenate(step) for step in steps]).tolist()) == list(range(120))


@pytest.mark.parametrize("size", [2, 3])
def test_the_joint_batch_is_the_same_for_any_number_of_workers(prepared, size):
    alone = ids(stream(prepared).epoch(1))
    shared = [ids(stream(prepared, rank=rank, size=size).epoch(1)) for rank in range(size)]
    for step, whole in enumerate(alone):
        parts = [shares[step] for shares in shared]
        assert sorted(chain(*parts)) == sorted(whole)
        for part in parts:  # each rank keeps the joint order
            assert part == [feed for feed in whole if feed in part]


def test_a_rank_reads_its_own_row_groups_only(prepared):
    read = []
    for rank in (0, 1):
        order = stream(prepared, rank=rank, size=2).order
        read.append({(group.path, group.index) for window in range(order.windows) for group in order.part(0, window).groups})
    assert not read[0] & read[1]
    assert len(read[0] | read[1]) == 9


def test_joint_batches_are_full_but_the_last(prepared):
    assert [len(step) for step in ids(stream(prepared, batch_feeds=50).epoch(0))] == [50, 50, 20]


@pytest.mark.parametrize("size", [1, 2])
def test_reading_goes_on_at_every_step_as_if_it_had_not_stopped(prepared, size):
    for rank in range(size):
        whole = ids(stream(prepared, rank=rank, size=size).epoch(2))
        for step in range(len(whole) + 1):
            assert ids(stream(prepared, rank=rank, size=size).epoch(2, step)) == whole[step:]


def test_epochs_and_seeds_differ_and_repeat(prepared):
    first = ids(stream(prepared).epoch(0))
    assert first == ids(stream(prepared).epoch(0))
    assert first != ids(stream(prepared).epoch(1))
    assert first != ids(stream(prepared, seed=4).epoch(0))


def test_batches_mix_all_row_groups_of_a_window_in_equal_parts():
    """8 groups of 100 feeds in one window, batches of 80: 10 of each group, one more or less."""
    order = FeedOrder(groups=tuple(RowGroup("f", i, 100) for i in range(8)), seed=0, batch_feeds=80, window_groups=8)
    part = order.part(0, 0)
    for step in range(10):
        counts = np.bincount(part.take[part.steps == step] // 100, minlength=8)
        assert counts.sum() == 80
        assert counts.min() >= 9 and counts.max() <= 11


def test_feeds_keep_their_candidates_histories_and_labels(prepared):
    """Against the file read as it lies."""
    rows = {batch.user_R[0].item(): batch for batch in one_by_one(prepared)}
    for batch in stream(prepared).epoch(0):
        for row, feed in enumerate(batch.user_R.tolist()):
            expected = rows[feed]
            mine = batch.feed_of_candidate_N == row
            for name, values in expected.candidate.items():
                assert batch.candidate[name][mine].equal(values)
            for name, values in expected.labels.items():
                assert batch.labels[name][mine].equal(values)
            for name, history in expected.histories.items():
                real = batch.histories[name].is_real_RL[row]
                for field, values in history.rows.items():
                    assert batch.histories[name].rows[field][row][real].equal(values[0][history.is_real_RL[0]])


def one_by_one(prepared):
    groups = row_groups(prepared.files("train"))
    return StoredFeeds(groups=groups, schema=prepared.schema, batch_feeds=1).batches()


def test_a_rank_without_row_groups_gets_nothing_to_do(tmp_path):
    one_group = fabricate(tmp_path / "data", train_files=(12,))
    steps = [list(stream(one_group, rank=rank, size=3, batch_feeds=4).epoch(0)) for rank in range(3)]
    assert [[batch is not None for batch in step] for step in steps] == [[True] * 3, [False] * 3, [False] * 3]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_evaluation_reads_every_feed_once_over_all_ranks(prepared, size):
    groups = row_groups(prepared.files("valid"))
    parts = [StoredFeeds(groups=groups, schema=prepared.schema, batch_feeds=7, rank=r, size=size) for r in range(size)]
    batches = [batch for part in parts for batch in part.batches()]
    assert max(batch.feeds for batch in batches) == 7
    assert sorted(chain(*ids(batches))) == list(range(120, 160))


def test_only_what_batches_need_is_read():
    schema = full_schema()
    columns = columns_for(schema, None)
    assert {"user_id", "room_id", "level", "label.click", "channels.room"} <= set(columns)
    assert not {"feed_id", "at", "day"} & set(columns)
    of_impressions = {"preference_count", *(f"preference.{name}" for name in schema.target_names)}
    assert set(columns_for(schema, "impression")) - set(columns) == of_impressions
    of_clicks = {"preference_count", "preference.click", *(f"per_click.{name}" for name in schema.target_names[1:])}
    assert set(columns_for(schema, "click")) - set(columns) == of_clicks


def test_preferences_come_with_training_batches_that_ask_for_them(prepared):
    order = FeedOrder(groups=row_groups(prepared.files("train")), seed=0, batch_feeds=16, window_groups=4)
    for asked in ("impression", None):
        batch = next(Stream(order, prepared.schema, preferences_of=asked).epoch(0))
        assert list(batch.preferences) == (list(prepared.schema.target_names) if asked else [])
        assert (batch.earlier_RW is not None) == bool(asked) and batch.labels
    held_out = next(StoredFeeds(groups=order.groups, schema=prepared.schema, batch_feeds=7).batches())
    assert held_out.preferences == {} and held_out.labels


@pytest.mark.parametrize("of", ["impression", "click"])
def test_means_of_preferences_are_over_candidates_whose_user_has_one(of, tmp_path):
    prepared = fabricate(tmp_path / "data", schema=full_schema())
    groups = row_groups(prepared.files("train"))
    sums = {name: np.zeros((2, 2)) for name in prepared.schema.target_names}
    order = FeedOrder(groups=groups, seed=0, batch_feeds=16, window_groups=4)
    for batch in Stream(order, prepared.schema, preferences_of=of).epoch(0):
        for name, mean_RW in batch.preferences.items():
            mean_NW = mean_RW[batch.feed_of_candidate_N].double().numpy()
            sums[name] += np.nansum(mean_NW, 0), (~np.isnan(mean_NW)).sum(0)
    expected = {name: (total / count).tolist() for name, (total, count) in sums.items()}
    cpu = torch.device("cpu")
    assert preference_means(groups, prepared.schema, of, SingleWorker(), cpu) == {
        name: pytest.approx(means) for name, means in expected.items()
    }
    assert preference_means((), prepared.schema, of, SingleWorker(), cpu)["order"] == [None, None]


def test_a_window_smaller_than_the_workers_is_refused():
    with pytest.raises(ConfigError, match=r"train.shuffle_row_groups=2 is less than train.workers=3.*multiple of 3"):
        FeedOrder(groups=(RowGroup("f", 0, 5),), seed=0, batch_feeds=4, window_groups=2, size=3)


def test_an_empty_split_is_refused():
    with pytest.raises(ConfigError, match="the training split holds no feeds"):
        FeedOrder(groups=(), seed=0, batch_feeds=4, window_groups=2)


def test_a_truncated_file_is_named(tmp_path):
    whole = fabricate(tmp_path / "data").files("train")[0]
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"bucket-00000.parquet cannot be read.*Prepare the data again"):
        row_groups([whole])


def test_work_ahead_is_bounded_ordered_and_ends():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    reader = ahead(items(), 3)
    assert next(reader) == 0
    for before, after in pairwise(range(50)):
        assert next(reader) == after
        assert max(made) <= before + 1 + 3 + 1  # taken, three that wait, one being made
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
    assert list(ahead(range(10), 2)) == list(range(10))


def test_errors_come_out_where_their_item_would_have():
    def items():
        yield 1
        raise OSError("disk")

    reader = ahead(items(), 4)
    assert next(reader) == 1
    with pytest.raises(OSError, match="disk"):
        next(reader)
