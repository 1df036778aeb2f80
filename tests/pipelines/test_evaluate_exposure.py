"""Discoverability: shares of candidates of little exposure among the first places, against orders made by hand."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.metrics.names import direction
from models.metrics.ranking import share_at_top
from models.schema import Levels, Schema
from pipelines.encode.rows import VocabularyRows
from pipelines.evaluate import evaluate_table
from pipelines.evaluate.exposure import at_top, new_rooms_of, split_exposure
from pipelines.report.evaluation.comparisons import exposures
from pipelines.report.evaluation.entries import Entry
from tests.pipelines.fabricate import noted_anew
from tests.pipelines.report_samples import page_of
from tests.pipelines.test_evaluate import Tables, write_world
from tests.samples import tiny_schema

# -- shares --------------------------------------------------------------------------------------------------------

SCORE = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3])
MARKED = np.array([False, True, False, True, False, True])
FEED = np.array([0, 0, 0, 0, 1, 1])


def test_shares_by_hand():
    assert share_at_top(SCORE, MARKED, FEED, 1) == 0.5  # the first of feed 0 is not marked, that of feed 1 is
    assert share_at_top(SCORE, MARKED, FEED, 2) == 0.5  # feed 1 has no more than two: one of the first two of feed 0
    assert share_at_top(SCORE, MARKED, FEED, 3) == pytest.approx(1 / 3)
    assert share_at_top(SCORE, MARKED, FEED, 4) is None
    assert share_at_top(-SCORE, MARKED, FEED, 1) == 0.5  # the other way round: feed 0 begins with a marked one, feed 1 does not


def test_equal_scores_share_their_places():
    # the first place of feed 0 is shared by two, of which one is marked
    assert share_at_top(np.array([0.9, 0.9, 0.7, 0.1, 0.2, 0.3]), MARKED, FEED, 1) == 0.75
    # and a constant score is a random order: half of both feeds is marked
    assert share_at_top(np.zeros(6), MARKED, FEED, 1) == 0.5
    assert share_at_top(np.zeros(6), np.array([True] + [False] * 5), FEED, 1) == 0.125


@pytest.mark.parametrize("k", [1, 3, 5])
def test_shares_equal_a_loop_over_feeds(k):
    rng = np.random.default_rng(0)
    feed = np.sort(rng.integers(0, 60, 400))
    feed = np.unique(feed, return_inverse=True)[1]
    order = rng.permutation(400)  # rows of a feed need not stand together
    score, marked, feed = rng.random(400), rng.random(400) < 0.3, feed[order]
    hits = total = 0
    for each in set(feed.tolist()):
        own = np.flatnonzero(feed == each)
        if len(own) > k:
            best = own[np.argsort(-score[own])][:k]
            hits, total = hits + marked[best].sum(), total + k
    assert share_at_top(score, marked, feed, k) == pytest.approx(hits / total, abs=1e-12)


# -- scored tables -------------------------------------------------------------------------------------------------


def scored(**columns):
    """Two feeds, of four and two rooms; rooms 13 and 15 of the lowest level."""
    table = {
        "feed_id": [70, 70, 70, 70, 60, 60],
        "user_id": [1] * 6,
        "room_id": [10, 11, 12, 13, 14, 15],
        "at": [0] * 6,
        "level": [1, 2, 1, 0, 2, 0],
        "click": [0.4, 0.3, 0.2, 0.1, 0.5, 0.6],
        "goods_bag": [0.0] * 6,
        "order": [0.0] * 6,
        "stay": [0.0] * 6,
        **columns,
    }
    labels = {f"label.{name}": [1.0, 0, 0, 0, 0, 1] for name in ("click", "goods_bag", "order", "stay")}
    return pa.table({name: np.array(values) for name, values in {**table, **labels}.items()})


def test_the_order_of_the_root_and_of_the_fused_score():
    # click weighs .5 and order 1: .3 of order lift room 13 above its whole feed
    found = at_top(scored(order=[0.0, 0, 0, 0.3, 0, 0]), tiny_schema())
    assert list(found) == ["click", "fused"]  # goods_bag and order have parents
    assert found["click"] == {"poor@1": 0.5, "poor@3": 0.0, "poor@5": None}
    assert found["fused"] == {"poor@1": 1.0, "poor@3": pytest.approx(1 / 3), "poor@5": None}


def test_what_the_score_is_made_of_must_be_there():
    assert list(at_top(scored().drop_columns(["stay"]), tiny_schema())) == ["click"]
    spelling = tiny_schema().to_dict()
    weightless = [{**target, "fusion_weight": 0.0} for target in spelling["targets"]]
    assert list(at_top(scored(), Schema.from_dict({**spelling, "targets": weightless}))) == ["click"]


def test_new_rooms_are_counted_apart():
    found = at_top(scored(), tiny_schema(), np.array([10, 13]))
    assert found["click"]["new@1"] == 0.5 and found["click"]["new@3"] == pytest.approx(1 / 3)
    assert "new@1" not in at_top(scored(), tiny_schema())["click"]


def test_broken_predictions_order_nothing():
    found = at_top(scored(click=[np.nan, 0.3, 0.2, 0.1, 0.5, 0.6]), tiny_schema())
    assert set(found["click"].values()) == set(found["fused"].values()) == {None}


def test_shares_have_paths():
    result = evaluate_table(scored(), tiny_schema())
    assert result.value("click.poor@1") == 0.5 and result.value("fused.poor@1") == 0.5
    assert direction("fused.poor@1") == "max"
    assert "poor@1" not in result.mean and "poor@1" not in result.targets["order"].values
    with pytest.raises(KeyError, match="`fused` is not one of: click"):
        evaluate_table(scored().drop_columns(["stay"]), tiny_schema()).value("fused.poor@1")


# -- the split -----------------------------------------------------------------------------------------------------


def prepared_of(path, levels=None):
    """A folder of one file with the six candidates, in the order in which they were shown; streamers 5 and 7 are known."""
    feeds = {
        "feed_id": [70, 60],
        "room_id": [[13, 10, 11, 12], [14, 15]],
        "level": pa.array([[0, 1, 2, 1], [2, 0]], pa.list_(pa.int8())),
    }
    pq.write_table(pa.table(feeds), path / "feeds.parquet")
    streamers = pa.array([[5, 6, 7, None], [5, 8]], pa.large_list(pa.int64()))
    pq.write_table(pa.table({"room_id": feeds["room_id"], "streamer_id": streamers}), path / "features.parquet")
    return SimpleNamespace(
        schema=SimpleNamespace(levels=levels or Levels()),
        files=lambda split: [path / "feeds.parquet"],
        features=lambda split: [path / "features.parquet"],
        encoder=SimpleNamespace(level=SimpleNamespace(owners=VocabularyRows(np.array([5, 7])))),
    )


def test_rooms_whose_streamer_no_training_day_has_shown(tmp_path):
    # streamers 6 and 8; of room 12 nobody knows the streamer, so it is not said to be new
    assert new_rooms_of(prepared_of(tmp_path), "test").tolist() == [10, 15]
    assert new_rooms_of(prepared_of(tmp_path, Levels(column="streamer.fans")), "test") is None
    assert new_rooms_of(prepared_of(tmp_path, Levels(of="room")), "test").tolist() == [10, 11, 12, 13, 14, 15]


def test_rooms_of_a_world(tmp_path):
    world = write_world(tmp_path, train=60)
    assert new_rooms_of(world, "test").tolist() == []
    file = world.features("test")[1]
    features = pq.read_table(file)
    rooms = [[999, *rooms[1:]] for rooms in features["room_id"].to_pylist()]
    pq.write_table(features.set_column(features.column_names.index("room_id"), "room_id", pa.array(rooms)), file)
    assert new_rooms_of(noted_anew(world.path), "test").tolist() == [999]


def test_the_logged_and_the_random_order(tmp_path):
    found = split_exposure(prepared_of(tmp_path), "test", np.array([10, 15]))
    assert (found.level, found.of, found.column) == ("tail", "streamer", None)
    assert found.feeds == {"1": 2, "3": 1, "5": 0}
    assert found.logged == {
        "poor@1": 0.5,  # feed 70 began with room 13, feed 60 with room 14
        "poor@3": pytest.approx(1 / 3),
        "poor@5": None,
        "new@1": 0.0,
        "new@3": pytest.approx(1 / 3),
        "new@5": None,
    }
    assert found.random["poor@1"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found.random["poor@3"] == pytest.approx(1 / 4)


# -- page ----------------------------------------------------------------------------------------------------------


def test_the_section_on_discoverability(tmp_path):
    schema = tiny_schema()
    new_rooms = np.array([10, 15])
    exposure = split_exposure(prepared_of(tmp_path), "test", new_rooms)
    whole, partial = scored(order=[0.0, 0, 0, 0.3, 0, 0]), scored().drop_columns(["stay"])
    entries = [
        Entry(name="a", role="model", result=evaluate_table(whole, schema, new_rooms)),
        Entry(name="t", role="truth", result=evaluate_table(partial, schema, new_rooms)),
    ]
    write = lambda **more: page_of(tmp_path / "r", entries, schema, **more)
    text = write(exposure=exposure)
    part = text[text.index('<section id="exposure">') :]
    part = part[: part.index("</section>")]
    assert "the streamer is of the lowest level, tail, by impressions on training days" in part
    assert "(2 for k&nbsp;=&nbsp;1, 1 for k&nbsp;=&nbsp;3, 0 for k&nbsp;=&nbsp;5)" in part
    poor, new = Tables(part).tables
    assert [[cell[0] for cell in row] for row in poor] == [
        ["", "by click", "by the fused score"],
        ["", *2 * ["top 1", "top 3", "top 5"]],
        ["a", "50.0%", "0.0%", "–", "100.0%", "33.3%", "–"],
        ["t", "50.0%", "0.0%", "–", "–", "–", "–"],  # the truth has no fused score
        ["logged order", *2 * ["50.0%", "33.3%", "–"]],
        ["random order", *2 * ["37.5%", "25.0%", "–"]],
    ]
    assert [cell[0] for cell in new[2]][1] == "100.0%"  # rooms 10 and 15 are first
    assert 'id="exposure"' not in write()


def test_shares_of_new_rooms_only_where_there_are_some(tmp_path):
    schema, nobody = tiny_schema(), np.zeros(0, np.int64)
    entries = [Entry(name="a", role="model", result=evaluate_table(scored(), schema, nobody))]
    shown = exposures(entries, schema, split_exposure(prepared_of(tmp_path), "test", nobody))
    assert [text.split(":")[0] for text, _ in shown] == ["Poor"]
    by_fans = prepared_of(tmp_path, Levels(column="streamer.fans"))
    ((text, _),) = exposures(entries, schema, split_exposure(by_fans, "test", None))
    assert text == "Poor: the streamer is of the lowest level, tail, by streamer.fans"
