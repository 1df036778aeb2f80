"""Encoding against rows and numbers worked out by hand."""

import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from models.schema import Bins, Field, Hash, History, HistoryField, Levels, Number, Schema, Stages, Target, Vocabulary
from pipelines.encode.batches import to_batch
from pipelines.encode.clock import Clock
from pipelines.encode.columns import preference_columns
from pipelines.encode.encode import encode, place_among
from pipelines.encode.feeds import EARLIER, feeds_schema
from pipelines.encode.fit import Partial, finish, fit_encoder, fit_partial
from pipelines.encode.levels import level_cuts, level_of
from pipelines.encode.rows import HashRows, VocabularyRows
from pipelines.encode.sketch import ValueCounts, equal_frequency_edges, number_keys, smallest_of
from pipelines.encode.state import EncoderState, encoding_fingerprint
from pipelines.logs.ids import as_ids

HOW = {"entry_rate": 0.1, "clock": Clock()}
ALL_ONE_LEVEL = Levels(names=("all",), of="room", shares=(1.0,))
CLICK = (Target(name="click", action="enter"),)


def feeds(rooms: list, **columns) -> pa.Table:
    count = len(rooms)
    meta = {
        "feed_id": pa.array(range(count), pa.int64()),
        "user_id": pa.array(columns.pop("user_id", range(count)), pa.int64()),
        "at": pa.array(columns.pop("at", [1_700_000_000_000] * count), pa.int64()),
        "day": pa.array([19675] * count, pa.int32()),
        "room_id": pa.array(rooms, pa.list_(pa.int64())),
    }
    return pa.table({**meta, **columns})


def schema_of(*fields: Field, **more) -> Schema:
    return Schema(fields=fields, targets=CLICK, **{"levels": ALL_ONE_LEVEL, **more})


def fitted(table: pa.Table, schema: Schema) -> EncoderState:
    return finish(fit_partial(table, schema, **HOW), schema, **HOW)


# -- vocabularies and hashes -----------------------------------------------------------------------------------

ROOM = Field(name="room", of="candidate", column="room_id", encoding=Vocabulary(min_count=2))


def test_values_seen_often_enough_get_rows_in_ascending_order_and_all_else_is_row_0():
    table = feeds([[30, 10], [30, 10, 20], [10]])
    state = fitted(table, schema_of(ROOM))
    assert state.table_sizes == {"room": 3}  # 20 was seen once
    out = encode(feeds([[10, 20, 30, 99]]), schema_of(ROOM), state)
    assert out["room"].to_pylist() == [[1, 0, 2, 0]]


def test_max_size_keeps_the_most_frequent_and_of_equals_the_smaller():
    room = Field(name="room", of="candidate", column="room_id", encoding=Vocabulary(min_count=1, max_size=2))
    state = fitted(feeds([[7, 5, 9, 9, 3]]), schema_of(room))
    assert state.tables["room"].values.tolist() == [3, 9]


@pytest.mark.parametrize("near", [2**24, 2**53, 2**62])
def test_neighbouring_large_ids_stay_apart(near):
    state = fitted(feeds([[near, near + 1, near, near + 1]]), schema_of(ROOM))
    out = encode(feeds([[near, near + 1, near + 2]]), schema_of(ROOM), state)
    assert out["room"].to_pylist() == [[1, 2, 0]]
    assert out["room_id"].to_pylist() == [[near, near + 1, near + 2]]


def test_the_three_ways_of_looking_up_agree():
    rng = np.random.default_rng(0)
    near = np.unique(rng.integers(-500, 500, 300))
    far = np.unique(np.r_[rng.integers(-(2**63), 2**63 - 1, 300), np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    for values in (near, far):
        asked = np.concatenate([values, rng.integers(-1000, 1000, 100_000), np.array([2**63 - 1, -(2**63)])])
        row = {value: number for number, value in enumerate(values.tolist(), start=1)}
        expected = [row.get(value, 0) for value in asked.tolist()]
        table = VocabularyRows(values)
        assert table.rows(asked).tolist() == expected
        assert table.rows(asked[:1000]).tolist() == expected[:1000]
    assert VocabularyRows(near)._dense is not None and VocabularyRows(far)._dense is None


def test_hash_is_splitmix64_and_never_row_0():
    # first outputs of the reference generator from state 0: its state steps by the constant that `rows` adds
    step, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    asked = np.array([0, step & mask, 2 * step & mask], np.uint64).view(np.int64)
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert HashRows(1000).rows(asked).tolist() == [output % 999 + 1 for output in outputs]
    rows = HashRows(5).rows(np.arange(-1000, 1000))
    assert set(rows.tolist()) == {1, 2, 3, 4}


def test_strings_go_through_the_ids_of_logs_and_dictionaries_change_nothing():
    schema = schema_of(Field(name="kind", of="candidate", column="room.kind", encoding=Vocabulary(min_count=1)))
    kinds = pa.array([["shop", None, "game"], ["game"]])
    table = feeds([[1, 2, 3], [4]], **{"room.kind": kinds})
    state = fitted(table, schema)
    assert set(state.tables["kind"].values.tolist()) == set(as_ids(pa.array(["shop", "game"])).to_pylist())
    rows = encode(table, schema, state)["kind"].to_pylist()
    assert rows[0][1] == 0 and sorted([rows[0][0], rows[0][2]]) == [1, 2] and rows[1] == [rows[0][2]]
    flat = kinds.flatten().dictionary_encode()
    dictionary = table.set_column(5, "room.kind", pa.ListArray.from_arrays(kinds.offsets, flat))
    assert encode(dictionary, schema, state).equals(encode(table, schema, state))
    nothing_known = feeds([[1, 2, 3], [4]], **{"room.kind": pa.array([[None] * 3, [None]], pa.list_(pa.string()))})
    assert encode(nothing_known, schema, state)["kind"].to_pylist() == [[0, 0, 0], [0]]
    empty = feeds([[1]], **{"room.kind": [[""]]})
    assert encode(empty, schema, state)["kind"].to_pylist() == [[0]]
    assert fitted(empty, schema).tables["kind"].size == 1  # an empty text is missing, not a word


def test_truth_values_are_categories():
    schema = schema_of(Field(name="hd", of="candidate", column="room.hd", encoding=Vocabulary(min_count=1)))
    table = feeds([[1, 2, 3]], **{"room.hd": [[True, False, None]]})
    assert encode(table, schema, fitted(table, schema))["hd"].to_pylist() == [[2, 1, 0]]


def test_floats_are_no_ids():
    schema = schema_of(Field(name="kind", of="candidate", column="room.kind"))
    with pytest.raises(ConfigError, match=r"column `room.kind`: ids are whole numbers, but .* double holds 1.5;"):
        fit_partial(feeds([[1]], **{"room.kind": [[1.5]]}), schema, **HOW)


# -- numbers and bins ------------------------------------------------------------------------------------------


def test_bins_hold_equal_shares_and_missing_is_row_0():
    schema = schema_of(Field(name="fans", of="candidate", column="streamer.fans", encoding=Bins(count=4)))
    table = feeds([[1] * 9], **{"streamer.fans": [[1, 2, 3, 4, 5, 6, 7, 8, None]]})
    state = fitted(table, schema)
    assert state.tables["fans"].edges.tolist() == [3, 5, 7] and state.table_sizes == {"fans": 5}
    asked = feeds([[1] * 6], **{"streamer.fans": [[-5.0, 2.9, 3.0, 7.5, None, float("nan")]]})
    assert encode(asked, schema, state)["fans"].to_pylist() == [[1, 1, 2, 4, 0, 0]]


def test_a_value_heavier_than_a_bin_leaves_the_other_bins_to_the_rest():
    values, counts = np.arange(5.0), np.array([96, 1, 1, 1, 1])
    assert equal_frequency_edges(values, counts, 5).tolist() == [1, 2, 3, 4]
    assert equal_frequency_edges(values[:1], counts[:1], 5).tolist() == []
    assert equal_frequency_edges(values[:0], counts[:0], 5).tolist() == []


def test_the_sketch_keeps_order_and_is_off_by_less_than_1_in_4096():
    rng = np.random.default_rng(0)
    values = np.sort(np.r_[rng.normal(size=2000) * 10.0 ** rng.integers(-9, 9, 2000), -np.inf, np.inf, 0.0, -0.0])
    keys = number_keys(values)
    assert (np.diff(keys) >= 0).all()
    lower = smallest_of(keys)[1:-1]
    assert (lower <= values[1:-1]).all()
    assert (np.abs(values[1:-1] - lower) <= np.abs(lower) / 4096 + 1e-300).all()
    whole = np.arange(0.0, 8193.0)
    assert (smallest_of(number_keys(whole)) == whole).all()


def test_numbers_are_standardised_with_the_training_mean_and_deviation():
    schema = schema_of(
        Field(name="plain", of="feed", column="user_feeds", encoding=Number()),
        Field(name="log", of="feed", column="user_entries", encoding=Number(transform="log1p")),
        Field(name="constant", of="feed", column="user_impressions", encoding=Number()),
    )
    table = feeds([[1], [1], [1]], user_feeds=[2, 4, None], user_entries=[0, 0, 3], user_impressions=[5, 5, 5])
    state = fitted(table, schema)
    out = encode(table, schema, state)
    assert out["plain"].to_pylist() == [-1.0, 1.0, 0.0]  # mean 3, deviation 1; missing is the mean
    mean = np.log(4) / 3  # of 0, 0, log 4; deviation = log 4 * sqrt(2) / 3
    np.testing.assert_allclose(out["log"].to_numpy(), (np.log1p([0, 0, 3]) - mean) / (np.log(4) * 2**0.5 / 3), rtol=1e-6)
    assert out["constant"].to_pylist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [-0.5, float("inf"), float("-inf"), float("nan"), 1e300, -1e300, None])
@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_what_measures_nothing_is_missing(value, transform):
    schema = schema_of(
        Field(name="age", of="candidate", column="room_age_hours", encoding=Number(transform=transform)),
        Field(name="bin", of="candidate", column="room_age_hours", encoding=Bins(count=2)),
    )
    state = fitted(feeds([[1, 2]], room_age_hours=[[0.0, 8.0]]), schema)
    found = encode(feeds([[1]], room_age_hours=[[value]]), schema, state)
    measured = value == -0.5 and transform == "none"
    assert found["age"].to_pylist() == [[-1.125 if measured else 0.0]]  # mean 4, deviation 4
    assert found["bin"].to_pylist() == [[1 if value == -0.5 else 0]]
    same = fitted(feeds([[1, 2, 3]], room_age_hours=[[0.0, 8.0, value if value != -0.5 else None]]), schema)
    assert same.numbers == state.numbers


def test_a_wild_number_ruins_neither_mean_nor_deviation_and_counts_as_missing():
    """0 and 8 in turn, and one number 2**20 times as large; without it the mean is 4 and the deviation 4."""
    schema = schema_of(Field(name="fans", of="candidate", column="streamer.fans", encoding=Number()))
    usual = [0.0, 8.0] * 100
    clean = fitted(feeds([list(range(200))], **{"streamer.fans": [usual]}), schema).numbers["fans"]
    assert (clean.mean, clean.deviation, clean.limit) == (4.0, 4.0, 2.0**20)  # 2**16 times the end of the octave from 8 to 16
    files = [feeds([list(range(201))], **{"streamer.fans": [[*usual, end]]}) for end in (-(2.0**23), 2.0**19)]
    parts = [fit_partial(file, schema, **HOW) for file in files]
    assert [part.numbers["fans"].wild for part in parts] == [1, 0]
    scale = finish(parts[0], schema, **HOW)
    assert scale.numbers["fans"] == clean
    assert encode(files[0], schema, scale)["fans"].to_pylist() == [[-1.0, 1.0] * 100 + [0.0]]
    both = Partial.merged(parts).numbers["fans"]
    assert both.wild == 1 and both == Partial.merged(parts[::-1]).numbers["fans"]
    assert finish(Partial.merged(parts), schema, **HOW).numbers["fans"].mean == pytest.approx((4 * 400 + 2**19) / 401)


def test_a_column_that_was_always_zero_in_training_takes_no_number_out_of_bounds():
    schema = schema_of(Field(name="fans", of="candidate", column="streamer.fans", encoding=Number()))
    state = fitted(feeds([[1, 2]], **{"streamer.fans": [[0.0, 0.0]]}), schema)
    asked = feeds([[1, 2, 3]], **{"streamer.fans": [[5.0, 2.0**16, 3e38]]})
    assert encode(asked, schema, state)["fans"].to_pylist() == [[5.0, 0.0, 0.0]]


def test_text_is_no_number():
    schema = schema_of(Field(name="fans", of="candidate", column="streamer.fans", encoding=Bins()))
    with pytest.raises(ConfigError, match=r"column `streamer.fans` holds string, which is not a number"):
        fit_partial(feeds([[1]], **{"streamer.fans": [["many"]]}), schema, **HOW)


def test_smoothed_rates_of_unknown_rooms_are_binned_as_the_entry_rate():
    schema = schema_of(Field(name="rate", of="candidate", column="room_entry_rate.life", encoding=Number()))
    columns = {"room_entries.life": [[0, 28]], "room_impressions.life": [[0, 80]]}  # 0.1 and (28 + 2) / 100 = 0.3
    state = fitted(feeds([[1, 2]], **columns), schema)
    assert encode(feeds([[1, 2]], **columns), schema, state)["rate"].to_pylist() == [[-1.0, 1.0]]


# -- histories -------------------------------------------------------------------------------------------------

WITH_HISTORY = Schema(
    fields=(Field(name="room", of="candidate", column="room_id", encoding=Vocabulary(min_count=2)),),
    histories=(
        History(
            name="channels",
            events="engagements",
            fields=(HistoryField(name="room", column="room_id", encoding=Vocabulary(min_count=2)),),
        ),
    ),
    targets=CLICK,
    levels=ALL_ONE_LEVEL,
)


def test_an_event_counts_once_however_many_feeds_show_it():
    at = [[100], [100], [100, 150], [100]]
    rooms = [[7], [7], [7, 8], [7]]
    table = feeds([[1], [1], [1], [2]], user_id=[5, 5, 5, 6], at=[110, 120, 200, 110])
    table = table.append_column("channels.at", pa.array(at)).append_column("channels.room_id", pa.array(rooms))
    counts = fit_partial(table, WITH_HISTORY, **HOW).values["room"]
    # candidates 1, 1, 1, 2; events: user 5 entered 7 and 8 once each, user 6 entered 7
    assert dict(zip(counts.values.tolist(), counts.counts.tolist(), strict=True)) == {1: 3, 2: 1, 7: 2, 8: 1}
    shuffled = fit_partial(table.take([2, 3, 0, 1]), WITH_HISTORY, **HOW).values["room"]
    assert shuffled.values.tolist() == counts.values.tolist() and shuffled.counts.tolist() == counts.counts.tolist()


def test_an_entry_that_became_known_late_counts_and_a_history_that_moved_on_counts_whole():
    # the stay that began at 90 ended after that of 100 was known; in the last feed nothing of the second is left
    at = [[100], [100, 90], [300, 400]]
    table = feeds([[1], [1], [1]], user_id=[5, 5, 5], at=[110, 200, 900])
    table = table.append_column("channels.at", pa.array(at)).append_column("channels.room_id", pa.array([[7], [7, 8], [9, 9]]))
    counts = fit_partial(table, WITH_HISTORY, **HOW).values["room"]
    assert dict(zip(counts.values.tolist(), counts.counts.tolist(), strict=True)) == {1: 3, 7: 1, 8: 1, 9: 2}


def test_lists_may_be_large():
    table = feeds([[1, 7], [1]])
    table = table.append_column("channels.at", pa.array([[5, 6], []], pa.list_(pa.int64())))
    table = table.append_column("channels.room_id", pa.array([[7, None], []], pa.list_(pa.int64())))
    large = pa.table(
        {
            name: table[name].cast(pa.large_list(pa.int64())) if pa.types.is_list(table[name].type) else table[name]
            for name in table.column_names
        }
    )
    state = fitted(large, WITH_HISTORY)
    assert state.fingerprint == fitted(table, WITH_HISTORY).fingerprint
    assert encode(large, WITH_HISTORY, state).equals(encode(table, WITH_HISTORY, state))


def test_histories_share_rows_with_candidates_and_may_be_empty():
    table = feeds([[1, 7], [1]])
    table = table.append_column("channels.at", pa.array([[5, 6], []], pa.list_(pa.int64())))
    table = table.append_column("channels.room_id", pa.array([[7, None], []], pa.list_(pa.int64())))
    state = fitted(table, WITH_HISTORY)
    out = encode(table, WITH_HISTORY, state)
    assert out["room"].to_pylist() == [[1, 2], [1]] and out["channels.room"].to_pylist() == [[2, 0], []]


def test_lists_that_do_not_fit_are_refused():
    table = feeds([[1, 7], [1]]).append_column("channels.at", pa.array([[5, 6], [7]]))
    table = table.append_column("channels.room_id", pa.array([[7, 7], [7]]))
    state = fitted(table, WITH_HISTORY)
    broken = table.set_column(6, "channels.room_id", pa.array([[7, 7], [7, 8]]))
    with pytest.raises(ConfigError, match=r"column `channels.room_id` holds 2 values in row 1 where 1 are needed"):
        encode(broken, WITH_HISTORY, state)
    single = table.set_column(6, "channels.room_id", pa.array([7, 7]))
    with pytest.raises(ConfigError, match=r"`channels.room_id` holds one int64 a feed where a list is needed"):
        encode(single, WITH_HISTORY, state)
    with pytest.raises(ConfigError, match=r"no column `channels.room_id`, which the schema reads"):
        encode(table.drop_columns("channels.room_id"), WITH_HISTORY, state)


# -- levels ----------------------------------------------------------------------------------------------------


def test_levels_share_out_the_impressions_by_exposure():
    # streamers 1..4 with 1, 1, 3 and 5 of 10 impressions: tail .2 = {1, 2}, medium .3 = {3}, head .5 = {4}
    schema = schema_of(ROOM, levels=Levels())
    streamers = [[4, 4, 4, 3, 1], [4, 4, 3, 3, 2]]
    table = feeds([[1] * 5] * 2, streamer_id=streamers)
    state = fitted(table, schema)
    assert encode(table, schema, state)["level"].to_pylist() == [[2, 2, 2, 1, 0], [2, 2, 1, 1, 0]]
    unknown = feeds([[1, 1]], streamer_id=[[99, None]])
    assert encode(unknown, schema, state)["level"].to_pylist() == [[0, 0]]


def test_levels_by_attribute():
    schema = schema_of(ROOM, levels=Levels(column="streamer.fans"))
    table = feeds([[1] * 10], **{"streamer.fans": [[1000] * 5 + [50] * 3 + [3] * 2]})
    state = fitted(table, schema)
    asked = feeds([[1] * 5], **{"streamer.fans": [[49, 50, 999, 1e9, None]]})
    assert encode(asked, schema, state)["level"].to_pylist() == [[0, 1, 1, 2, 0]]


def test_owners_of_one_measure_share_a_level_and_a_level_may_stay_empty():
    mostly_tail = Levels(names=("tail", "medium", "head"), shares=(0.4, 0.5, 0.1))
    assert level_cuts(np.array([7.0]), np.array([10]), mostly_tail).tolist() == [7.0, np.inf]  # its middle is in medium
    assert level_of(np.array([6.0, 7.0, 1e9]), np.array([7.0, np.inf])).tolist() == [0, 1, 1]
    assert level_cuts(np.zeros(0), np.zeros(0), Levels()).tolist() == [np.inf, np.inf]


# -- labels, preferences, stages ---------------------------------------------------------------------------------

LIFE_CYCLE = Schema(
    fields=(ROOM,),
    targets=(
        Target(name="click", action="enter"),
        Target(name="order", action="order"),
        Target(name="stay", action="enter", kind="value"),
    ),
    levels=ALL_ONE_LEVEL,
    preference_days=(7.0, 30.0),
    stages=Stages(click="click", stay="stay", order="order"),
)


def users(*rows: tuple, at: int = 0) -> pa.Table:
    """A feed of each user: (user, impressions, clicks, seconds, orders) of the last 7 days; in 30 days twice as many."""
    table = feeds([[1]] * len(rows), user_id=[row[0] for row in rows], at=[at + 10**12] * len(rows))
    for window, times in (("", 1), (".30d", 2)):
        count = [times * row[1] for row in rows]
        table = table.append_column(f"preference_count{window}", pa.array(count))
        for place, name in enumerate(("click", "stay", "order"), start=2):
            means = [times * row[place] / (times * row[1]) if row[1] else None for row in rows]
            table = table.append_column(f"preference.{name}{window}", pa.array(means, pa.float32()))
    return table


# their clicks an impression: 0, 1/4, 1/2, 3/4, 1; seconds a click: -, 10, 20, 30, 40; orders a click: -, 0, 0, 1/3, 1/2
FIVE = [(1, 8, 0, 0, 0), (2, 8, 2, 20, 0), (3, 8, 4, 80, 0), (4, 8, 6, 180, 2), (5, 8, 8, 320, 4)]


def test_users_are_sorted_into_stages_by_the_medians_of_training_days():
    state = fitted(users(*FIVE, (6, 0, 0, 0, 0)), LIFE_CYCLE)
    assert state.stage_medians == {"click": 0.5, "stay": 20.0, "order": 0.0}  # of four users with a click the second counts
    asked = users(
        (9, 0, 0, 0, 0),  # no history
        (9, 8, 4, 800, 4),  # no more clicks than the median
        (9, 8, 5, 100, 5),  # stays of 20 s are not above it either
        (9, 8, 5, 105, 0),
        (9, 8, 5, 105, 1),
    )
    assert encode(asked, LIFE_CYCLE, state)["stage"].to_pylist() == [0, 0, 1, 2, 3]
    unknown = asked.set_column(asked.column_names.index("preference.stay"), "preference.stay", pa.nulls(5, pa.float64()))
    assert encode(unknown, LIFE_CYCLE, state)["stage"].to_pylist() == [0, 0, 1, 1, 1]


def test_each_user_counts_once_with_the_last_feed_that_has_a_history():
    earlier = users(*[(user, 8, 8, 999, 8) for user in range(1, 6)], at=-1000)
    later = users(*[(user, 0, 0, 0, 0) for user in range(1, 6)], at=1000)
    others = users((7, 8, 8, 480, 0), at=500)
    tables = [earlier, users(*FIVE), later, others]
    once = fitted(pa.concat_tables([users(*FIVE), others]), LIFE_CYCLE).stage_medians
    assert fitted(pa.concat_tables(tables), LIFE_CYCLE).stage_medians == once == {"click": 0.5, "stay": 30.0, "order": 0.0}
    parts = [fit_partial(table, LIFE_CYCLE, **HOW) for table in (pa.concat_tables(tables[:3]), others)]
    assert finish(Partial.merged(parts[::-1]), LIFE_CYCLE, **HOW).stage_medians == once


def test_what_rounding_makes_of_one_rate_is_one_rate():
    # 30 seconds a click all of them, but their preferences in float32 have quotients on either side of 30
    rows = [(user, shown, clicks, 30 * clicks, clicks) for user, (shown, clicks) in enumerate([(5, 1), (3, 1), (9, 7), (6, 5)])]
    table = users(*rows)
    quotients = table["preference.stay"].to_numpy().astype(float) / table["preference.click"].to_numpy().astype(float)
    assert quotients.min() < 30 < quotients.max()
    state = fitted(table, LIFE_CYCLE)
    assert state.stage_medians["stay"] == 30.0
    assert encode(table, LIFE_CYCLE, state)["stage"].to_pylist() == [0, 0, 1, 1]


def test_without_any_history_the_first_clicks_make_loyal_users():
    state = fitted(users((1, 0, 0, 0, 0)), LIFE_CYCLE)
    assert state.stage_medians == {"click": 0.0, "stay": 0.0, "order": 0.0}
    asked = users((1, 0, 0, 0, 0), (1, 4, 0, 0, 0), (1, 4, 1, 0, 0), (1, 4, 1, 5, 0), (1, 4, 1, 5, 1))
    assert encode(asked, LIFE_CYCLE, state)["stage"].to_pylist() == [0, 0, 1, 2, 3]


def test_a_schema_without_stages_has_none_and_one_with_stages_needs_their_columns():
    without = Schema(fields=LIFE_CYCLE.fields, targets=LIFE_CYCLE.targets, levels=ALL_ONE_LEVEL, preference_days=(7.0, 30.0))
    table = users(*FIVE)
    state = fitted(table, without)
    assert state.stage_medians is None and "stage" not in encode(table, without, state).column_names
    with pytest.raises(ConfigError, match="this encoder was fitted without stages of users; prepare again"):
        encode(table, LIFE_CYCLE, state)
    with pytest.raises(ConfigError, match=r"no column `preference.order`, which the schema reads"):
        encode(table.drop_columns("preference.order"), LIFE_CYCLE, fitted(table, LIFE_CYCLE))


def with_labels(*stays: list) -> pa.Table:
    table = users(*[(1, 8, 4, 5 * place, 1) for place in range(len(stays))])
    rooms = pa.array([[1] * len(stay) for stay in stays], pa.list_(pa.int64()))
    return table.set_column(4, "room_id", rooms).append_column("label.stay", pa.array(stays, pa.list_(pa.float32())))


def test_quantiles_are_those_of_positive_labels_merged_over_files():
    tables = [with_labels([0, 0, 3], [9]), with_labels([0], [5, 1, 7])]  # 1 3 5 7 9
    state = fitted(pa.concat_tables(tables), LIFE_CYCLE)
    assert list(state.label_quantiles) == ["stay"]
    np.testing.assert_allclose(state.label_quantiles["stay"], np.linspace(1, 9, 257), rtol=1e-12)
    parts = [fit_partial(table, LIFE_CYCLE, **HOW) for table in tables]
    for order in (parts, parts[::-1]):
        merged = finish(Partial.merged(order), LIFE_CYCLE, **HOW)
        assert merged.fingerprint == state.fingerprint
    other = fitted(pa.concat_tables([tables[0], with_labels([0], [5, 1, 8])]), LIFE_CYCLE)
    assert other.fingerprint != state.fingerprint
    rng = np.random.default_rng(0)
    labels = rng.exponential(60, 5000)
    many = fitted(with_labels(labels.tolist()), LIFE_CYCLE).label_quantiles["stay"]
    np.testing.assert_allclose(many, np.quantile(labels, np.linspace(0, 1, 257)), rtol=1 / 4000)


def test_a_value_without_positive_labels_has_quantiles_of_nothing():
    state = fitted(with_labels([0, 0]), LIFE_CYCLE)
    assert state.label_quantiles["stay"].tolist() == [0.0] * 257
    out = encode(users((1, 4, 1, 0, 0), (1, 4, 1, 8, 0)), LIFE_CYCLE, state)
    assert out["preference.stay"].to_pylist() == [[0.0, 0.0], [1.0, 1.0]]  # nothing; more than was ever seen


def test_preferences_have_a_value_a_window_and_values_are_places_among_positive_labels():
    table = with_labels([2, 4, 6], [8, 10])  # a quarter of the labels between each two
    state = fitted(table, LIFE_CYCLE)
    asked = users((1, 4, 2, 16, 1), (1, 0, 0, 0, 0), (1, 4, 1, 0, 0), (1, 2, 1, 14, 0), (1, 2, 2, 90, 0), (1, 4, 1, 4, 0))
    table = asked.set_column(asked.column_names.index("preference.click.30d"), "preference.click.30d", pa.nulls(6))
    out = encode(table, LIFE_CYCLE, state)
    assert out["preference_count"].to_pylist() == [[4, 8], [0, 0], [4, 8], [2, 4], [2, 4], [4, 8]]
    assert out["preference.click"].to_pylist() == [
        [0.5, None],
        [None, None],
        [0.25, None],
        [0.5, None],
        [1.0, None],
        [0.25, None],
    ]
    # means of 4, none, 0, 7, 45 and 1 seconds among 2 4 6 8 10
    assert [row[0] for row in out["preference.stay"].to_pylist()] == [0.25, None, 0.0, 0.625, 1.0, 0.0]
    assert out["preference.stay"].type == pa.list_(pa.float32()) and out["preference_count"].type == pa.list_(pa.int64())


def test_rates_of_a_click_are_those_of_stages():
    """Orders and seconds by clicks, a second's place among the labels; none without clicks, and no more orders than clicks."""
    state = fitted(with_labels([2, 4, 6], [8, 10]), LIFE_CYCLE)
    asked = users((1, 4, 2, 10, 1), (1, 0, 0, 0, 0), (1, 4, 0, 0, 0), (1, 2, 1, 14, 2), (1, 4, 4, 0, 0))
    out = encode(asked, LIFE_CYCLE, state)
    assert [row[0] for row in out["per_click.order"].to_pylist()] == [0.5, None, None, 1.0, 0.0]
    assert [row[0] for row in out["per_click.stay"].to_pylist()] == [0.375, None, None, 1.0, 0.0]  # 5, 14 and 0 seconds
    assert "per_click.click" not in out.column_names
    without = Schema(fields=LIFE_CYCLE.fields, targets=LIFE_CYCLE.targets, levels=ALL_ONE_LEVEL, preference_days=(7.0, 30.0))
    assert not [name for name in encode(asked, without, fitted(asked, without)).column_names if name.startswith("per_click")]


def test_of_a_value_that_many_labels_have_the_last_share_counts():
    assert place_among(np.array([0.0, 1.0, 5.0, 5.5, np.nan]), np.r_[np.linspace(1, 5, 65), np.full(192, 5.0)])[
        :4
    ].tolist() == [
        0.0,
        0.0,
        1.0,
        1.0,
    ]


def test_a_request_has_a_stage_but_no_preferences():
    table = users(*FIVE)
    state = fitted(table, LIFE_CYCLE)
    asked = table.drop_columns([name for name in table.column_names if name.endswith(".30d") or name == "preference_count"])
    out = encode(asked, LIFE_CYCLE, state)
    assert not [name for name in out.column_names if name.startswith("preference")]
    assert out["stage"].equals(encode(table, LIFE_CYCLE, state)["stage"])
    batch = to_batch(out, LIFE_CYCLE)
    assert batch.stage_R.tolist() == out["stage"].to_pylist() and batch.preferences == {} and batch.earlier_RW is None


# -- whole -----------------------------------------------------------------------------------------------------


def random_feeds(schema: Schema, count: int, seed: int) -> pa.Table:
    """Raw feeds of `tiny_schema` with missing values in every column that may miss some, and with preferences."""
    rng = random.Random(seed)
    maybe = lambda value: None if rng.random() < 0.2 else value
    rooms = [[rng.randrange(20) for _ in range(rng.randrange(1, 5))] for _ in range(count)]
    each = lambda make: [[make() for _ in feed] for feed in rooms]
    table = feeds(rooms, user_id=sorted(rng.randrange(8) for _ in rooms), at=[10**12 + 10**7 * i for i in range(count)])
    columns = {
        "user_entries": pa.array([rng.randrange(50) for _ in rooms]),
        "streamer_id": each(lambda: maybe(rng.randrange(6))),
        "room.category": each(lambda: maybe(f"c{rng.randrange(4)}")),
        "state.product_id": each(lambda: maybe(rng.randrange(30))),
        "room_entries.life": each(lambda: rng.randrange(30)),
        "room_impressions.life": each(lambda: 30 + rng.randrange(300)),
        "label.click": pa.array(each(lambda: float(rng.random() < 0.4)), pa.list_(pa.float32())),
    }
    columns |= random_preferences(schema, [rng.randrange(0, 9) for _ in rooms], rng)
    history = [sorted(rng.randrange(10**11, 10**12) for _ in range(rng.randrange(0, 6))) for _ in rooms]
    entries = lambda make: [[make() for _ in feed] for feed in history]
    columns |= {
        "channels.at": history,
        "channels.room_id": entries(lambda: rng.randrange(20)),
        "channels.streamer_id": entries(lambda: maybe(rng.randrange(6))),
        "channels.room.category": entries(lambda: maybe(f"c{rng.randrange(4)}")),
        "channels.stay_seconds": entries(lambda: maybe(rng.expovariate(0.01))),
        "products.at": history,
        "products.product_id": entries(lambda: rng.randrange(30)),
    }
    integers, texts, numbers = (pa.list_(kind) for kind in (pa.int64(), pa.string(), pa.float64()))
    kinds = {"category": texts, "stay_seconds": numbers}
    for name, values in columns.items():
        if isinstance(values, list):
            values = pa.array(values, kinds.get(name.rpartition(".")[2], integers))
        table = table.append_column(name, values)
    return table


def random_preferences(schema: Schema, earlier: list[int], rng: random.Random) -> dict[str, pa.Array]:
    """Columns of running preferences, where the n-th window holds n times as many impressions as the first."""
    columns: dict[str, pa.Array] = {}
    for of, names in preference_columns(schema).items():
        for window, name in enumerate(names):
            counts = [count * (window + 1) for count in earlier]
            if of == EARLIER:
                columns[name] = pa.array(counts)
                continue
            most = 1 if schema.target(of).is_binary else 90
            sums = [sum(rng.random() < 0.4 for _ in range(count)) * most for count in counts]
            means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
            columns[name] = pa.array(means, pa.float32())
    return columns


def test_files_fit_alike_in_one_piece_in_parts_and_in_any_order(tiny_schema, tmp_path):
    tables = [random_feeds(tiny_schema, 40, seed) for seed in range(3)]
    tables = [
        table.set_column(1, "user_id", pa.array(np.asarray(table["user_id"]) + 100 * number))
        for number, table in enumerate(tables)
    ]
    whole = fitted(pa.concat_tables(tables), tiny_schema)
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    by_file = fit_encoder(reversed(sorted(tmp_path.glob("*.parquet"))), tiny_schema, **HOW)
    parts = [fit_partial(table, tiny_schema, **HOW) for table in tables]
    turned = finish(Partial.merged(parts[::-1]), tiny_schema, **HOW)
    for other in (by_file, turned):
        assert other.table_sizes == whole.table_sizes and other.largest_feed == whole.largest_feed == 4
        for name, array in whole._arrays().items():
            np.testing.assert_array_equal(other._arrays()[name], array)
        for name, scale in whole.numbers.items():
            np.testing.assert_allclose(
                [other.numbers[name].mean, other.numbers[name].deviation], [scale.mean, scale.deviation], rtol=1e-12
            )


def test_encoded_feeds_have_the_feed_schema_and_one_feed_alone_is_bit_for_bit_its_row(tiny_schema):
    table = random_feeds(tiny_schema, 30, seed=4)
    state = fitted(table, tiny_schema)
    out = encode(table, tiny_schema, state)
    without = [name for name in feeds_schema(tiny_schema).names if name in ("label.goods_bag", "label.order", "label.stay")]
    expected = [item for item in feeds_schema(tiny_schema) if item.name not in without]
    assert out.schema.equals(pa.schema(expected))
    for row in range(table.num_rows):
        assert encode(table.slice(row, 1), tiny_schema, state).equals(out.slice(row, 1))
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    assert encode(chunked, tiny_schema, state).equals(out)
    assert encode(table.drop_columns("label.click"), tiny_schema, state).equals(out.drop_columns("label.click"))
    batch = to_batch(out, tiny_schema)
    assert batch.feeds == 30 and list(batch.labels) == ["click"]
    for name, values in {**batch.feed, **batch.candidate}.items():
        table_name = next(field.table for field in tiny_schema.fields if field.name == name)
        if table_name:
            assert int(values.min()) >= 0 and int(values.max()) < state.table_sizes[table_name]


def test_no_rows_encode_to_no_rows(tiny_schema):
    table = random_feeds(tiny_schema, 5, seed=4)
    state = fitted(table, tiny_schema)
    assert encode(table.slice(0, 0), tiny_schema, state).num_rows == 0
    empty = fitted(table.slice(0, 0), tiny_schema)
    assert empty.largest_feed == 0 and empty.table_sizes["room"] == 1
    assert set(encode(table, tiny_schema, empty)["room"].combine_chunks().flatten().to_pylist()) == {0}


def test_a_request_without_user_has_row_0_and_no_name(tiny_schema):
    table = random_feeds(tiny_schema, 2, seed=4)
    state = fitted(table, tiny_schema)
    out = encode(table.set_column(1, "user_id", pa.nulls(2, pa.int64())), tiny_schema, state)
    assert out["user"].to_pylist() == [0, 0] and out["user_id"].to_pylist() == [-1, -1]


def test_save_and_load_give_the_same_state_in_the_same_bytes(tiny_schema, tmp_path):
    tiny_schema = replace(tiny_schema, stages=Stages(stay="stay"))
    table = random_feeds(tiny_schema, 30, seed=4)
    state = fitted(table, tiny_schema)
    state.save(tmp_path / "a")
    loaded = EncoderState.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    for name in ("encoder.json", "encoder.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert loaded.fingerprint == state.fingerprint and loaded.table_sizes == state.table_sizes
    assert loaded.stage_medians == state.stage_medians and loaded.stage_medians.keys() == {"click", "stay", "order"}
    assert loaded.label_quantiles.keys() == {"stay"}
    np.testing.assert_array_equal(loaded.label_quantiles["stay"], state.label_quantiles["stay"])
    assert encode(table, tiny_schema, loaded).equals(encode(table, tiny_schema, state))
    assert json.loads((tmp_path / "a" / "encoder.json").read_text())["entry_rate"] == 0.1
    other = finish(fit_partial(table, tiny_schema, **HOW), tiny_schema, entry_rate=0.2, clock=Clock())
    assert other.fingerprint != state.fingerprint
    with pytest.raises(FileNotFoundError, match=r"holds no encoder: encoder.json is missing"):
        EncoderState.load(tmp_path)
    spelling = json.loads((tmp_path / "a" / "encoder.json").read_text())
    del spelling["version"], spelling["stage_medians"]  # as the first version wrote it
    (tmp_path / "a" / "encoder.json").write_text(json.dumps(spelling))
    with pytest.raises(ConfigError, match=r"is of version 1, this program reads 4: prepare the logs again, and train again"):
        EncoderState.load(tmp_path / "a")


def test_weights_of_targets_may_change_but_not_fields(tiny_schema):
    table = random_feeds(tiny_schema, 10, seed=4)
    state = fitted(table, tiny_schema)
    spelling = tiny_schema.to_dict()
    spelling["targets"][0]["fusion_weight"] = 9.0
    spelling["fields"][3]["width"] = spelling["histories"][0]["fields"][0]["width"] = 32
    assert encoding_fingerprint(Schema.from_dict(spelling)) == encoding_fingerprint(tiny_schema)
    spelling["fields"][7]["encoding"]["count"] = 9
    with pytest.raises(ConfigError, match=r"this encoder was fitted for another schema"):
        encode(table, Schema.from_dict(spelling), state)


def test_nothing_to_fit_on_is_an_error(tiny_schema):
    with pytest.raises(ValueError, match="no training feeds"):
        fit_encoder([], tiny_schema, **HOW)


def test_counts_add_up():
    parts = [np.array([3, 1, 3]), np.zeros(0, np.int64), np.array([3, 2])]
    merged = ValueCounts.merged([ValueCounts.of(part) for part in parts])
    assert merged.values.tolist() == [1, 2, 3] and merged.counts.tolist() == [1, 1, 3] and merged.total == 5


def test_hash_tables_need_no_fitting():
    schema = schema_of(Field(name="user", of="feed", column="user_id", encoding=Hash(buckets=50)))
    assert fit_partial(feeds([[1]]), schema, **HOW).values == {}
    assert fitted(feeds([[1]]), schema).table_sizes == {"user": 50}
