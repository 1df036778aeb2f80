"""Requests as raw feeds, column by column against numbers worked out by hand."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from models.schema import Bins, Field, Levels, Number, Schema, Stages, Target
from pipelines.encode.clock import Clock
from pipelines.encode.columns import base_columns
from pipelines.encode.encode import encode
from pipelines.encode.fit import finish, fit_partial
from pipelines.encode.plan import EncodePlan
from pipelines.logs.ids import as_ids
from pipelines.prepare import PrepareConfig, prepare
from pipelines.prepared import Prepared
from pipelines.serve.assemble import Assembler
from pipelines.serve.parity import request_of
from pipelines.serve.request import RequestError
from pipelines.serve.store import Store, build_store
from pipelines.serve.told import told
from pipelines.serve.wanted import Wanted
from tests.pipelines.fabricate import noted_anew
from tests.pipelines.naive_prepare import random_log, wide_schema
from tests.pipelines.serve_samples import HOUR, NOW, as_table, asked, assembled, write_prepared
from tests.pipelines.test_encode import random_feeds

MORE = (
    "room_age_hours",
    "streamer_id",
    "streamer.fans",
    "streamer_impressions.life",
    "product.price",
    "pair_streamer_impressions",
    "pair_streamer_entries",
    "pair_streamer_hours",
    "pair_room_impressions",
    "pair_room_hours",
)


@pytest.fixture(scope="module")
def schema(tiny_schema):
    """`tiny_schema` and every kind of column that the store holds."""
    more = [Field(name=f"c{place}", of="candidate", column=name, encoding=Bins()) for place, name in enumerate(MORE)]
    seen = Field(name="seen", of="feed", column="user_last_seen_hours", encoding=Number())
    device = Field(name="device", of="feed", column="context.device")
    return Schema(
        fields=(*tiny_schema.fields, *more, seen, device), histories=tiny_schema.histories, targets=tiny_schema.targets
    )


@pytest.fixture(scope="module")
def store(tiny_schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    opened = Store(build_store(Prepared.open(write_prepared(folder / "prepared", tiny_schema)), folder / "store"))
    yield opened
    opened.close()


def row_of(schema: Schema, store: Store | None, **body) -> dict:
    wanted = Wanted.by(schema)
    request = told(asked({"at": NOW, **body}), wanted, NOW)
    found = Assembler(wanted, store)([request])
    (row,) = as_table(found.feeds).to_pylist()
    (user_known,) = found.user_known_R
    return {**row, "room_known": found.room_known_N.tolist(), "user_known": user_known, "ignored": request.ignored}


def test_a_known_user_and_known_rooms_come_from_the_store(schema, store):
    row = row_of(schema, store, user_id=1, candidates=[{"room_id": 12}, {"room_id": 11}, {"room_id": 13}])
    assert base_columns(schema) < row.keys()
    assert row["user_known"] and row["room_known"] == [True, True, True]
    assert (row["user_id"], row["at"], row["room_id"]) == (1, NOW, [12, 11, 13])
    assert row["user_entries"] == 9 and row["user_last_seen_hours"] == 2.0
    assert row["channels.room_id"] == [11, 12] and row["channels.room.category"] == [
        *as_ids(pa.array(["c1"])).to_pylist(),
        None,
    ]
    assert row["room_entries.life"] == [5, 4, 6] and row["streamer_id"] == [102, 101, None]
    assert row["room_age_hours"] == [None, 8.0, None]  # room 13 begins in an hour
    assert row["pair_streamer_impressions"] == [6, 5, None]  # of a streamer nobody knows there is no count
    assert row["pair_streamer_entries"] == [0, 2, None] and row["pair_streamer_hours"] == [None, 4.0, None]
    assert row["pair_room_impressions"] == [3, 0, 0] and row["pair_room_hours"] == [0.5, None, None]
    assert row["room.category"] == [*as_ids(pa.array(["c2", "c1"])).to_pylist(), None]


def test_nobody_and_nowhere_get_the_defaults_of_beginners(schema, store):
    for body in ({"user_id": 77}, {}):
        row = row_of(schema, store, candidates=[{"room_id": 99}, {"room_id": "new"}], **body)
        assert not row["user_known"] and row["room_known"] == [False, False]
        assert row["user_id"] == body.get("user_id") and row["user_entries"] == 0 and row["user_last_seen_hours"] is None
        assert row["channels.at"] == [] and row["products.product_id"] == []
        assert (
            row["room_entries.life"] == [0, 0] and row["room_age_hours"] == [None, None] and row["streamer_id"] == [None, None]
        )
        assert row["pair_room_impressions"] == [0, 0] and row["pair_streamer_impressions"] == [None, None]
        assert row["room_id"] == [99, as_ids(pa.array(["new"]))[0].as_py()]


def test_what_the_request_says_goes_first(schema, store):
    row = row_of(
        schema,
        store,
        user_id=1,
        user={"user_entries": 3},
        context={"device": "phone", "weather": "rain"},
        candidates=[
            {"room_id": 11, "state": {"product_id": None, "viewers": 5}, "features": {"room_entries.life": 77}},
            {"room_id": 12, "state": {"product_id": "p1"}, "features": {"room.category": "c9", "room_age_hours": 0.25}},
        ],
    )
    assert row["user_entries"] == 3.0 and row["context.device"] == as_ids(pa.array(["phone"]))[0].as_py()
    assert row["state.product_id"] == [None, as_ids(pa.array(["p1"]))[0].as_py()]
    assert row["room_entries.life"] == [77, 5] and row["room_age_hours"] == [8.0, 0.25]
    assert row["room.category"] == as_ids(pa.array(["c1", "c9"])).to_pylist()
    assert set(row["ignored"]) == {"context.weather", "state.viewers"}


def test_a_new_room_of_a_known_streamer_has_what_is_known_of_the_streamer(schema, store):
    new = {"room_id": 500, "features": {"streamer_id": 101}}
    moved = {"room_id": 12, "features": {"streamer_id": 101}, "state": {"product_id": 7}}
    unheard = {"room_id": 11, "features": {"streamer_id": 999}, "state": {"product_id": 1234}}
    row = row_of(schema, store, user_id=1, candidates=[new, moved, unheard])
    assert row["streamer_impressions.life"] == [400, 400, 0] and row["streamer.fans"] == [5000, 5000, None]
    assert row["pair_streamer_entries"] == [2, 2, 0] and row["pair_streamer_hours"] == [4.0, 4.0, None]
    assert row["product.price"] == [None, 1.5, None]  # of the product said to be on screen, not the one seen last
    assert row["room_entries.life"] == [0, 5, 4] and row["room_known"] == [True, True, True]


def test_a_product_and_a_streamer_may_be_named_of_whom_the_store_keeps_nothing(tiny_schema, tmp_path):
    """The schema reads their ids and nothing else of them, so there is nothing to look up."""
    prepared = Prepared.open(write_prepared(tmp_path / "prepared", tiny_schema))
    file = prepared.snapshot("rooms")[0]
    pq.write_table(pq.read_table(file).drop_columns(["product.price", "streamer.fans", "streamer_impressions.life"]), file)
    bare = Store(build_store(noted_anew(prepared.path), tmp_path / "store"))
    row = row_of(tiny_schema, bare, candidates=[{"room_id": 11, "state": {"product_id": 8}, "features": {"streamer_id": 5}}])
    assert row["state.product_id"] == [8] and row["streamer_id"] == [5] and row["room_entries.life"] == [4]
    bare.close()


def test_a_logged_feed_is_assembled_as_it_was_prepared(tmp_path):
    """Its day, too, where days begin at 07:00 of a clock that is ten hours behind: at 17:00 UTC."""
    config = PrepareConfig(
        clock=Clock(utc_offset_hours=-10.0, day_starts_hour=7.0), parallel="none", quarantine_limit=0.5, extra_columns=()
    )
    prepared = prepare(random_log(3).write(tmp_path / "logs"), wide_schema(), config, tmp_path / "prepared")
    numbers = {name for name, kind in Wanted.by(prepared.schema).kinds.items() if kind == "number"}
    seen = 0
    for file in [*prepared.features("train"), *prepared.features("test")]:
        features = pq.read_table(file)
        for row in range(len(features)):
            logged = features.slice(row, 1)
            if len(set(logged["room_id"][0].as_py())) < len(logged["room_id"][0]):
                continue  # shows a room twice
            feeds = as_table(assembled(prepared.schema, None, request_of(logged, prepared.schema)).feeds, config.clock)
            for name in {"day", "at", "user_id", "room_id", *numbers}:
                assert feeds[name].to_pylist() == logged[name].to_pylist(), name
            seen += 1
    assert seen > 20


def test_inline_histories_keep_their_order_and_their_last_entries(schema, store):
    entries = [{"at": NOW - 100 + place, "room_id": place, "stay_seconds": 1} for place in range(12)]
    entries[5]["at"] = NOW - 1
    row = row_of(schema, store, user_id=1, candidates=[{"room_id": 11}], histories={"channels": entries})
    assert row["channels.room_id"] == list(range(2, 12))  # of length 10
    assert row["channels.at"][3] == NOW - 1 and row["channels.stay_seconds"] == [1.0] * 10
    assert row["channels.streamer_id"] == [None] * 10 and row["products.product_id"] == [7]  # the other one is stored


def test_a_request_from_the_past_does_not_see_what_came_later(schema, store):
    row = row_of(schema, store, user_id=1, at=NOW - 4 * HOUR, candidates=[{"room_id": 11}])
    assert row["channels.room_id"] == [11] and row["channels.stay_seconds"] == [30.0] and row["products.product_id"] == []
    assert row["user_last_seen_hours"] is None and row["room_age_hours"] == [4.0]
    assert row["pair_streamer_hours"] == [None]  # it was at that very moment, not before


@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        ({"user": {"user.agee": 1, "user_entriess": 1}}, ("user", "user_entriess"), "no column of a user.*user_entries"),
        ({"user": {"user_entries": "many"}}, ("user", "user_entries"), "'many', but this column holds numbers"),
        ({"user": {"context.device": 1}}, ("user", "context.device"), "no column of a user"),
        ({"context": {"device": 1.5}}, ("context", "device"), "1.5, but this column holds ids or names"),
        ({"histories": {"channels": [{"room_id": 1}]}}, ("histories", "channels", 0, "at"), "needs `at`"),
        ({"histories": {"channels": [{"at": NOW}]}}, ("histories", "channels", 0, "at"), "not before the request's own time"),
        (
            {"histories": {"products": [{"at": 1, "room_id": 1}]}},
            ("histories", "products", 0, "room_id"),
            "no `room_id`; products reads",
        ),
        (
            {"candidates": [{"room_id": 1}, {"room_id": 2, "features": {"room_entrys.life": 1}}]},
            ("candidates", 1, "features", "room_entrys.life"),
            "no raw column of a candidate.*room_entries.life",
        ),
        (
            {"candidates": [{"room_id": 1, "features": {"room_entry_rate.life": 0.5}}]},
            ("candidates", 0, "features", "room_entry_rate.life"),
            "no raw column",
        ),
        (
            {"candidates": [{"room_id": 1, "state": {"product_id": 2.5}}]},
            ("candidates", 0, "state", "product_id"),
            "2.5, but this column holds ids",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(schema, store, body, where, message):
    with pytest.raises(RequestError, match=message) as error:
        row_of(schema, store, **{"candidates": [{"room_id": 11}], **body})
    assert error.value.where == ("body", *where)


def test_a_store_that_lacks_columns_is_refused(schema, store):
    Wanted.by(schema).check(store)
    more = Schema(
        fields=(
            Field(name="age", of="feed", column="user.age"),
            Field(name="hot", of="candidate", column="room_entries.10m", encoding=Bins()),
        ),
        targets=(Target(name="click", action="enter"),),
        levels=Levels(column="streamer.fans"),
    )
    with pytest.raises(ConfigError, match=r"lacks user.age, room_entries.10m, which the bundle's schema reads"):
        Wanted.by(more).check(store)


def test_the_stage_of_a_user_comes_from_the_store_or_inline_and_unknown_ones_are_new(tiny_schema, store):
    staged = replace(tiny_schema, stages=Stages(stay="stay"))
    features = random_feeds(staged, 40, seed=0)
    how = {"entry_rate": 0.1, "clock": Clock()}
    state = replace(
        finish(fit_partial(features, staged, **how), staged, **how), stage_medians={"click": 0.5, "stay": 90.0, "order": 0.1}
    )
    wanted = Wanted.by(staged)
    wanted.check(store)
    assert {"preference.click", "preference.stay", "preference.order"} <= set(wanted.feed)

    def stage(**body) -> int:
        feeds = assembled(staged, store, {"at": NOW, "candidates": [{"room_id": 11}], **body}).feeds
        (found,) = encode(as_table(feeds), staged, state)["stage"].to_pylist()
        assert EncodePlan(staged, state).batch(feeds).stage_R.tolist() == [found]
        return found

    # stored: 0.7 clicks an impression, 63.3 / 0.7 = 90.4 seconds and 1 / 7 orders a click
    assert [stage(user_id=1), stage(user_id=2), stage(user_id=77), stage()] == [3, 0, 0, 0]
    assert stage(user_id=1, user={"preference.order": 0.05}) == 2
    assert stage(user_id=1, user={"preference.stay": 50}) == 1
    assert stage(user={"preference.click": 0.6, "preference.stay": 60.0, "preference.order": 0.2}) == 3
    without = Schema(fields=staged.fields, targets=staged.targets, histories=staged.histories)
    assert not [name for name in Wanted.by(without).feed if name.startswith("preference")]


def test_a_store_without_preferences_does_not_serve_a_schema_with_stages(tiny_schema, tmp_path):
    prepared = Prepared.open(write_prepared(tmp_path / "prepared", tiny_schema))
    file = prepared.snapshot("users")[0]
    pq.write_table(pq.read_table(file).drop_columns(["preference.stay"]), file)
    store = Store(build_store(noted_anew(prepared.path), tmp_path / "store"))
    with pytest.raises(ConfigError, match=r"lacks preference.stay, which the bundle's schema reads"):
        Wanted.by(replace(tiny_schema, stages=Stages(stay="stay"))).check(store)
    store.close()


def test_a_column_that_anything_needs_exactly_is_kept_exact():
    fields = (
        Field(name="id", of="candidate", column="room.maker"),
        Field(name="bin", of="candidate", column="room.maker", encoding=Bins()),
    )
    schema = Schema(fields=fields, targets=(Target(name="click", action="enter"),))
    row = row_of(schema, None, candidates=[{"room_id": 1, "features": {"room.maker": 2**53 + 1}}])
    assert row["room.maker"] == [2**53 + 1]
