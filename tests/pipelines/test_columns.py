"""The catalogue of columns: what a declaration says, and that it is the only thing a new counter takes."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from models import catalogue
from models.catalogue import (
    COLUMNS,
    FAMILIES,
    FEEDS,
    IMPRESSIONS,
    PRODUCT,
    ROOM,
    STREAMER,
    USER,
    Catalogue,
    Column,
    Count,
    Derived,
    Hours,
    Subject,
    find,
    of_pair,
    windowed,
)
from models.config import ConfigError
from models.schema import Field, History, HistoryField, Number, Schema, Target, Vocabulary
from pipelines.bundle import load_bundle
from pipelines.encode.columns import base_columns
from pipelines.prepare import PrepareConfig, prepare
from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.parity import check_parity
from pipelines.serve.store import Store, build_store
from pipelines.serve.wanted import Wanted
from tests.pipelines.naive_prepare import naive_features, random_log, wide_schema
from tests.pipelines.serve_samples import as_table, assembled, write_bundle

# what a reader adds to `COLUMNS` to count waves, an action of the log that no target asks for
WAVES = (
    Column("user_waves", USER, Count("wave"), "waves of the user"),
    *windowed("room_waves", ROOM, "wave", "waves in the room"),
    *windowed("streamer_waves", STREAMER, "wave", "waves in the streamer's rooms"),
    of_pair("streamer", "waves", Count("wave"), "waves of this user in the streamer's rooms"),
)
READ = ("user_waves", "room_waves.10m", "room_waves.life", "streamer_waves.1h", "streamer_waves.life", "pair_streamer_waves")
ACTIONS = {"entries": "enter", "orders": "order", "waves": "wave"}


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(catalogue, "CATALOGUE", Catalogue((*COLUMNS, *WAVES), FAMILIES))


def reading(*columns: str) -> Schema:
    """`wide_schema` with a field for each of the columns."""
    wide = wide_schema()
    levels = {name: found.level for name in columns if (found := find(name))}
    more = [Field(name=f"w{place}", of=levels[name], column=name, encoding=Number()) for place, name in enumerate(columns)]
    return Schema(
        fields=(*wide.fields, *more),
        histories=wide.histories,
        targets=tuple(replace(target, fusion_weight=1.0) for target in wide.targets),
        preference_days=wide.preference_days,
        stages=wide.stages,
    )


def test_a_counter_is_declared_once_and_prepared_stored_defaulted_overridden_and_served(planted, tmp_path):
    schema, log = reading(*READ), random_log(5, feeds=60)
    assert not any(target.action == "wave" for target in schema.targets)
    config = PrepareConfig(parallel="none", quarantine_limit=0.5, rows_per_bucket=50, rows_per_chunk=20)
    prepared = prepare(log.write(tmp_path / "logs"), schema, config, tmp_path / "prepared")
    ending = prepared.manifest.ending

    # prepared: as a reference counts that shares nothing with the pipeline
    expected = {(row["user_id"], row["at"], *row["room_id"]): row for row in naive_features(log, schema, actions=ACTIONS)}
    seen = {name: set() for name in READ}
    for split in ("train", "valid", "test"):
        for file in prepared.features(split):
            for row in pq.read_table(file).to_pylist():
                for name in READ:
                    assert row[name] == expected[row["user_id"], row["at"], *row["room_id"]][name], name
                    seen[name].update(row[name] if isinstance(row[name], list) else [row[name]])
    assert all(max(value for value in values if value is not None) >= 2 for values in seen.values())

    # stored: what a feed after the end of the log would be counted
    user = next(row["user_id"] for row in log.impressions)
    rooms = sorted({row["room_id"] for row in log.impressions})
    after = log
    for position, room in enumerate(rooms):
        shown = {"request_id": 1, "user_id": user, "room_id": room, "shown_at": ending, "position": position}
        after = after.planted("impressions", dict.fromkeys(log.impressions[0]) | shown)
    features = naive_features(after, schema, actions=ACTIONS)
    (wished,) = [row for row in features if row["at"] == ending and row["user_id"] == user]
    store, wanted = Store(build_store(prepared, tmp_path / "store")), Wanted.by(schema)
    wanted.check(store)

    def row_of(*candidates: dict) -> dict:
        (row,) = as_table(
            assembled(schema, store, {"user_id": user, "at": ending, "candidates": list(candidates)}).feeds
        ).to_pylist()
        return row

    online = row_of(*({"room_id": room} for room in rooms))
    for name in READ:
        assert online[name] == wished[name], name

    # defaulted and overridden: a room that nobody knows, two that moved to the busiest streamer and to one that nobody knows
    waves = online["streamer_waves.life"]
    busiest = max(range(len(rooms)), key=lambda place: waves[place] or 0)
    moved, lost, *_ = (place for place in range(len(rooms)) if waves[place] not in (None, waves[busiest]))
    row = row_of(
        {"room_id": 1},
        {"room_id": rooms[moved], "features": {"streamer_id": online["streamer_id"][busiest]}},
        {"room_id": rooms[lost], "features": {"streamer_id": 999}},
    )
    assert row["room_waves.life"] == [0, online["room_waves.life"][moved], online["room_waves.life"][lost]]
    assert waves[busiest] > 0 and row["streamer_waves.life"] == [None, waves[busiest], 0]
    assert row["pair_streamer_waves"] == [None, online["pair_streamer_waves"][busiest], 0]

    # served as scored offline
    endpoint = Endpoint.open(write_bundle(tmp_path / "bundle", schema, prepared.encoder), store, ServeConfig())
    assert load_bundle(tmp_path / "bundle").schema == schema
    found = check_parity(prepared, endpoint.bundle, endpoint.ask, feeds=30)
    assert found.feeds >= 5 and found.unequal == 0
    store.close()


def test_a_planted_counter_is_room_state_if_it_is_the_rooms(planted):
    fields = {field.column: field for field in reading(*READ).fields}
    assert [name for name in READ if fields[name].is_room_state] == ["room_waves.10m", "room_waves.life"]
    assert Field(name="a", of="candidate", column="feed_rank.room_waves.1h").is_room_state


def test_without_the_declaration_the_column_does_not_exist():
    field = Field(name="waves", of="candidate", column="room_waves.1h")
    with pytest.raises(ConfigError, match=r"field `waves` reads column `room_waves.1h`, which does not exist"):
        base_columns(Schema(fields=(field,), targets=(Target(name="click", action="enter"),)))


def with_rate(of: Subject, *inputs: str) -> Catalogue:
    return Catalogue((*COLUMNS, Column("rate", of, Derived("rate", inputs), "")), FAMILIES)


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: Count("enter", "2h"), "one of the windows 10m, 1h, life, got `2h`"),
        (lambda: Column("room_feeds", ROOM, Count(FEEDS), ""), "`room_feeds` counts feeds, which only a user has"),
        (lambda: Column("product_orders", PRODUCT, Count("order"), ""), "counts events of a product on screen"),
        (lambda: Column("room_idle_hours", ROOM, Hours("last", IMPRESSIONS), "", stored="x"), "see `Hours`"),
        (lambda: Column("user_idle_hours", USER, Hours("last", IMPRESSIONS), ""), "needs the name under which"),
        (lambda: Catalogue((*COLUMNS, COLUMNS[0]), FAMILIES), "declared twice: user_id"),
        (lambda: with_rate(ROOM, "room_wave.1h", "room_impressions.1h"), "takes two counters of a candidate"),  # not declared
        (lambda: with_rate(ROOM, "room_entries.1h"), "takes two counters of a candidate"),
        (lambda: with_rate(ROOM, "rate", "room_impressions.1h"), "takes two counters of a candidate"),  # itself
        (lambda: with_rate(USER, "user_entries", "room_impressions.1h"), "takes two counters of a feed"),
    ],
)
def test_a_declaration_that_nobody_could_keep_is_refused(declare, told):
    with pytest.raises(ValueError) as error:
        declare()
    assert told in str(error.value)


def test_names_of_families_and_ranks_are_found_and_bare_ones_are_not():
    assert find("user.age").member == "age" and find("user.age").of == USER
    assert find("feed_rank.room_orders.1h").inputs == ("room_orders.1h",)
    bare = ("user.", "state", "feed_rank.", "feed_rank.room_id", "feed_rank.position", "feed_rank.feed_rank.room_age_hours")
    assert [name for name in bare if find(name)] == []


def test_a_history_named_as_a_family_is_refused():
    room = Vocabulary()
    history = History(
        name="room", events="engagements", fields=(HistoryField(name="id", column="room_id", encoding=room, table="room_id"),)
    )
    fields = (Field(name="r", of="candidate", column="room_id", encoding=room, table="room_id"),)
    schema = Schema(fields=fields, histories=(history,), targets=(Target(name="click", action="enter"),))
    with pytest.raises(ConfigError, match=r"history `room` has the name of the columns `room.\*`"):
        base_columns(schema)
