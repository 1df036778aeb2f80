"""Derived columns against numbers worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from models.config import ConfigError
from models.schema import Bins, Field, Hash, History, HistoryField, Levels, Number, Schema, Stages, Target, Vocabulary
from pipelines.encode.clock import Clock
from pipelines.encode.columns import base_columns, derived_columns, preference_columns
from pipelines.encode.derive import derive, derive_columns, feed_rank

HOUR = 3_600_000
SUNDAY_MORNING = 1_700_384_400_000  # 2023-11-19 09:00 UTC, a Sunday
CLICK = (Target(name="click", action="enter"),)
NO_CLOCK = {"entry_rate": 0.1, "clock": Clock()}


def schema_reading(*columns: str, of: str = "candidate", **more) -> Schema:
    fields = tuple(Field(name=f"f{number}", of=of, column=column, encoding=Bins()) for number, column in enumerate(columns))
    return Schema(fields=fields, targets=CLICK, **more)


def feeds(**columns) -> pa.Table:
    return pa.table({"at": [SUNDAY_MORNING] * len(columns["room_id"]), **columns})


def test_base_columns_resolve_derived_ones_and_name_histories(tiny_schema):
    assert base_columns(tiny_schema) == {
        "user_entries",
        "streamer_id",
        "room.category",
        "state.product_id",
        "room_entries.life",
        "room_impressions.life",
        "channels.at",
        "channels.room_id",
        "channels.streamer_id",
        "channels.room.category",
        "channels.stay_seconds",
        "products.at",
        "products.product_id",
    }


def test_preferences_have_a_name_a_window_and_stages_read_the_first():
    targets = (*CLICK, Target(name="stay", action="enter", kind="value"))
    plain = schema_reading("room_id")
    schema = Schema(
        fields=plain.fields, targets=targets, preference_days=(7, 30, 0.5), stages=Stages(stay="stay", order="click")
    )
    assert preference_columns(schema) == {
        "click": ("preference.click", "preference.click.30d", "preference.click.0.5d"),
        "stay": ("preference.stay", "preference.stay.30d", "preference.stay.0.5d"),
        "preference_count": ("preference_count", "preference_count.30d", "preference_count.0.5d"),
    }
    assert base_columns(plain) == {"streamer_id"}
    assert base_columns(schema) == {"streamer_id", "preference.click", "preference.stay"}
    asked = base_columns(schema, ["preference.stay.30d", "preference_count"]) - base_columns(schema)
    assert asked == {"preference.stay.30d", "preference_count"}
    with pytest.raises(
        ConfigError, match=r"reads column `preference.stay.14d`, which does not exist. Nearest: `preference.stay"
    ):
        base_columns(schema, ["preference.stay.14d"])


def test_a_rank_of_a_rate_needs_what_the_rate_needs_and_computes_the_rate_first():
    schema = schema_reading("feed_rank.room_entry_rate.1h", list_context=True, levels=Levels(column="streamer.fans"))
    assert base_columns(schema) == {"room_entries.1h", "room_impressions.1h", "streamer.fans"}
    assert derived_columns(schema) == ("room_entry_rate.1h", "feed_rank.room_entry_rate.1h")


def test_extra_columns_are_added_and_checked():
    schema = schema_reading("room_id")
    assert base_columns(schema, ["position", "pair_room_entry_rate"]) == {
        "streamer_id",
        "position",
        "pair_room_entries",
        "pair_room_impressions",
    }
    with pytest.raises(ConfigError, match=r"extra_columns reads column `positoin`.*`position`"):
        base_columns(schema, ["positoin"])


@pytest.mark.parametrize(
    ("column", "nearest"),
    [
        ("room_entry_rate", "room_entry_rate.life"),  # a window is missing
        ("preference.klick", "preference.click"),
        ("pair_room_hour", "pair_room_hours"),
        ("room.", "room_id"),  # a prefix alone names no attribute
        ("feed_rank.position", "position"),  # would carry the logged order into the model
        ("feed_rank.hour", "feed_rank.*"),  # shared by the feed
    ],
)
def test_an_unknown_column_names_field_column_and_what_is_near(column, nearest):
    with pytest.raises(ConfigError) as error:
        base_columns(schema_reading(column, list_context=True))
    assert "field `f0`" in str(error.value) and f"`{column}`" in str(error.value) and f"`{nearest}" in str(error.value)


def test_a_column_of_the_feed_is_not_read_for_candidates():
    with pytest.raises(ConfigError, match=r"field `f0` is declared of `candidate`, but its column `hour` belongs to the feed"):
        base_columns(schema_reading("hour"))


def test_history_entries_have_only_the_columns_of_their_events():
    room = HistoryField(name="room", column="room_id", table="room")
    price = HistoryField(name="price", column="product.price", encoding=Bins())
    schema = Schema(
        fields=(Field(name="room", of="candidate", column="room_id"),),
        histories=(History(name="channels", events="engagements", fields=(room, price)),),
        targets=CLICK,
    )
    with pytest.raises(ConfigError, match=r"`channels.price` reads column `product.price`.*engagements"):
        base_columns(schema)


def test_hour_and_weekday_are_local():
    table = feeds(room_id=[[1]])
    for clock, hour, weekday in [(Clock(), 9, 6), (Clock(utc_offset_hours=5.5), 14, 6), (Clock(utc_offset_hours=-10), 23, 5)]:
        row = derive_columns(table, ["hour", "weekday"], entry_rate=0.1, clock=clock).to_pylist()[0]
        assert (row["hour"], row["weekday"]) == (hour, weekday)


def test_rates_start_from_the_entry_rate_with_the_weight_of_twenty_impressions():
    table = feeds(
        room_id=[[1, 2], [3]],
        user_entries=[8, None],
        user_impressions=[20, None],
        **{"room_entries.1h": [[0, 30], [1]], "room_impressions.1h": [[0, 80], [5]]},
        pair_room_entries=[[0, 2], [0]],
        pair_room_impressions=[[0, 20], [0]],
    )
    row = derive_columns(table, ["user_entry_rate", "room_entry_rate.1h", "pair_room_entry_rate"], **NO_CLOCK)
    assert row["user_entry_rate"].to_pylist() == [0.25, None]  # (8 + 2) / (20 + 20)
    assert row["room_entry_rate.1h"].to_pylist() == [[0.1, 0.32], [0.12]]  # 2/20, 32/100, 3/25
    assert row["pair_room_entry_rate"].to_pylist() == [[0.1, 0.1], [0.1]]


def test_ranks_run_from_best_to_worst_with_ties_averaged():
    # 9 is best; the two 3s share ranks 1 and 2 of 0..3; 1 is worst; a missing value has no rank
    values = np.array([3.0, 9.0, 1.0, 3.0, np.nan, 7.0])
    assert feed_rank(values, np.array([5, 1])).tolist()[:4] == [0.5, 0.0, 1.0, 0.5]
    assert np.isnan(feed_rank(values, np.array([5, 1]))[4])
    assert feed_rank(values, np.array([5, 1]))[5] == 0.0
    assert len(feed_rank(np.zeros(0), np.zeros(3, np.int64))) == 0


def test_ranks_equal_a_plain_loop():
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 7, 40)
    values = rng.integers(0, 4, lengths.sum()).astype(float)
    expected = []
    for feed in np.split(values, np.cumsum(lengths)[:-1]):
        for value in feed:
            better, same = (feed > value).sum(), (feed == value).sum()
            expected.append((better + (same - 1) / 2) / max(len(feed) - 1, 1))
    np.testing.assert_allclose(feed_rank(values, lengths), expected, rtol=1e-15)


def test_feed_size_and_rank_of_a_rate():
    table = feeds(
        room_id=[[1, 2, 3], [4]],
        **{"room_entries.1h": [[5, 9, 7], [1]], "room_impressions.1h": [[10, 10, 10], [5]]},
    )
    out = derive(table, schema_reading("feed_size", "feed_rank.room_entry_rate.1h", list_context=True), **NO_CLOCK)
    assert out["feed_size"].to_pylist() == [3, 1]
    assert out["feed_rank.room_entry_rate.1h"].to_pylist() == [[1.0, 0.0, 0.5], [0.0]]


def test_hours_ago_of_history_entries():
    ago = HistoryField(name="ago", column="hours_ago", encoding=Bins())
    schema = Schema(
        fields=(Field(name="room", of="candidate", column="room_id", encoding=Hash(buckets=9)),),
        histories=(
            History(
                name="channels",
                events="engagements",
                fields=(ago, HistoryField(name="room", column="room_id", encoding=Hash(buckets=9))),
            ),
        ),
        targets=CLICK,
    )
    at = SUNDAY_MORNING
    table = feeds(room_id=[[1], [2]], **{"channels.at": [[at - 3 * HOUR, at - HOUR // 2], []]})
    assert derive(table, schema, **NO_CLOCK)["channels.hours_ago"].to_pylist() == [[3.0, 0.5], []]


def test_no_rows_in_no_rows_out():
    kinds = {"room_id": pa.list_(pa.int64()), "at": pa.int64(), "room_entries.1h": pa.list_(pa.int64())}
    kinds["room_impressions.1h"] = pa.list_(pa.int64())
    empty = pa.schema(kinds.items()).empty_table()
    schema = schema_reading("room_entry_rate.1h", "feed_rank.room_entry_rate.1h", "feed_size", list_context=True)
    out = derive(empty, schema, **NO_CLOCK)
    assert out.num_rows == 0 and {"room_entry_rate.1h", "feed_rank.room_entry_rate.1h", "feed_size"} < set(out.column_names)


def test_a_missing_input_is_named_with_its_user():
    with pytest.raises(ConfigError, match=r"no column `room_entries.1h`, which `room_entry_rate.1h` is derived from"):
        derive(feeds(room_id=[[1]]), schema_reading("room_entry_rate.1h"), **NO_CLOCK)


def test_a_clock_far_off_is_refused():
    with pytest.raises(ValueError, match="-14 <= utc_offset_hours <= 14, got 480"):
        Clock(utc_offset_hours=480)


def test_every_encoding_may_read_a_derived_column():
    schema = Schema(
        fields=(
            Field(name="hour", of="feed", encoding=Vocabulary()),
            Field(name="rate", of="candidate", column="streamer_entry_rate.10m", encoding=Number()),
        ),
        targets=CLICK,
    )
    assert derived_columns(schema) == ("hour", "streamer_entry_rate.10m")
