"""Prepare as a whole: against the naive reference, against leaks, over buckets, and killed and started again."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ConfigError
from pipelines.encode.clock import Clock
from pipelines.encode.encode import encode
from pipelines.encode.feeds import feeds_schema
from pipelines.encode.state import EncoderState
from pipelines.prepare import PrepareConfig, prepare, tasks
from pipelines.prepared import Prepared
from tests.pipelines.naive_prepare import (
    DAY,
    EXTRA,
    HOUR,
    START,
    SmallLog,
    dated,
    day_name,
    delayed,
    delivered,
    naive_features,
    naive_feed,
    naive_taught,
    random_log,
    wide_schema,
)

SCHEMA = wide_schema()
SPLITS = ("train", "valid", "test")


def config(**changes) -> PrepareConfig:
    given = {"parallel": "none", "extra_columns": EXTRA, "quarantine_limit": 0.5, "rows_per_chunk": 20, "feeds_per_file": 7}
    return PrepareConfig(**(given | changes))


def rows_of(output, what="features") -> list[dict]:
    files = sorted((output / what).rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def in_order(rows: list[dict]) -> list[dict]:
    """Rows without their id, in an order that depends on their content alone."""
    rows = [{name: row[name] for name in sorted(row) if name != "feed_id"} for row in rows]
    return sorted(rows, key=lambda row: (row["user_id"], row["at"], row["room_id"], repr(row)))


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    expected = [{name: value for name, value in row.items() if not name.startswith("sum.")} for row in expected]
    for ours, theirs in zip(in_order(found), in_order(expected), strict=True):
        for name in theirs.keys() | ours.keys():
            assert ours[name] == theirs[name], (name, theirs["user_id"], theirs["at"])


KINDS = ("fixed", "changing", "delayed")


def of_kind(log: SmallLog, kind: str, seed: int) -> SmallLog:
    """With attributes that never change, with such that hold from a moment on, or with rows that arrive late as well."""
    if kind == "fixed":
        return log
    return dated(log, seed) if kind == "changing" else delayed(dated(log, seed), seed)


# -- the right numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_features_equal_the_naive_reference(tmp_path, seed, kind):
    log = of_kind(random_log(seed), kind, seed)
    output = tmp_path / "out"
    prepare(log.write(tmp_path / "logs"), SCHEMA, config(), output)
    assert_same(rows_of(output), naive_features(log, SCHEMA))
    ids = [row["feed_id"] for row in rows_of(output)]
    assert len(set(ids)) == len(ids)


def test_settings_mean_what_they_say(tmp_path):
    log = random_log(7, feeds=60)
    changes = {"feed_gap_seconds": 0.5, "feed_most": 2, "clock": Clock(day_starts_hour=8.5)}
    output = tmp_path / "out"
    schema = replace(SCHEMA, preference_days=(1.0, 2.0, 0.25))
    extra = tuple(name for name in EXTRA if not name.endswith(".1.5d"))
    prepare(log.write(tmp_path / "logs"), schema, config(**changes, extra_columns=extra), output)
    shift = -int(8.5 * HOUR)
    assert_same(rows_of(output), naive_features(log, schema, gap_ms=500, most=2, day_shift_ms=shift))


@pytest.mark.parametrize("seed", range(6))
def test_stages_quantiles_and_encoded_preferences_equal_the_naive_reference(tmp_path, seed):
    log = random_log(seed, feeds=90, users=12)
    prepared = prepare(log.write(tmp_path / "logs"), SCHEMA, config(feeds_per_file=60), tmp_path / "out")
    rows = naive_features(log, SCHEMA)
    training = {row["day"] for row in rows_of(tmp_path / "out", "features/train")}
    taught = naive_taught([row for row in rows if row["day"] in training], SCHEMA)
    assert prepared.encoder.label_quantiles.keys() == taught.quantiles.keys() == {"stay", "paid"}
    for name, values in taught.quantiles.items():
        np.testing.assert_allclose(prepared.encoder.label_quantiles[name], values, rtol=1 / 4096)
    for name, median in taught.medians.items():
        assert prepared.encoder.stage_medians[name] == pytest.approx(float(median), rel=1 / 4096)
    key = lambda row: (row["user_id"], row["at"], row["room_id"])
    assert len({repr(key(row)) for row in rows}) == len(rows)
    expected = {repr(key(row)): naive_feed(row, SCHEMA, taught) for row in rows}
    found = rows_of(tmp_path / "out", "feeds")
    assert len(found) == len(expected) and len({row["stage"] for row in found}) >= 3
    for row in found:
        for name, value in expected[repr(key(row))].items():
            if isinstance(value, list):
                assert row[name] == [None if item is None else pytest.approx(item, abs=1e-3) for item in value], name
            else:
                assert row[name] == value, name


def test_days_are_cut_at_the_local_hour(tmp_path):
    log = random_log(3)
    output = tmp_path / "out"
    given = config(clock=Clock(utc_offset_hours=12.0, day_starts_hour=20.5))  # 8:30 UTC
    manifest = prepare(log.write(tmp_path / "logs"), SCHEMA, given, output).manifest
    by_split = {split: rows_of(output, f"features/{split}") for split in SPLITS}
    last = max(row["day"] for rows in by_split.values() for row in rows)
    assert {row["day"] for row in by_split["test"]} == {last}
    assert {row["day"] for row in by_split["valid"]} == {last - 1}
    assert manifest.days["test"] == (day_name(last),)
    assert all((row["at"] - int(8.5 * HOUR)) // DAY == row["day"] for rows in by_split.values() for row in rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows_per_bucket", [25, 4])
def test_buckets_and_slices_change_nothing(tmp_path, rows_per_bucket, kind):
    """4 rows a bucket also cuts every larger bucket of streamers into slices of time."""
    log = random_log(11, feeds=20)
    logs = of_kind(log, kind, 11).write(tmp_path / "logs")
    prepare(logs, SCHEMA, config(feeds_per_file=1000), tmp_path / "one")
    small = config(rows_per_bucket=rows_per_bucket, rows_per_chunk=5, feeds_per_file=1000)
    assert prepare(logs, SCHEMA, small, tmp_path / "many").manifest.buckets > 4
    for what, key in (
        ("features", "feed_id"),
        ("feeds", "feed_id"),
        ("snapshot/users", "user_id"),
        ("snapshot/rooms", "room_id"),
    ):
        one, other = ({row.pop(key): row for row in rows_of(tmp_path / name, what)} for name in ("one", "many"))
        assert one.keys() == other.keys()
        for identity, row in one.items():
            rates, others = row.pop("rate", []), other[identity].pop("rate", [])
            assert rates == pytest.approx(others, rel=1e-6)  # standardised by means that were added up in another order
            assert row == other[identity], (what, identity)


@pytest.mark.parametrize("kind", KINDS)
def test_the_snapshot_is_what_a_feed_after_the_end_would_see(tmp_path, kind):
    log = of_kind(random_log(5), kind, 5)
    output = tmp_path / "out"
    ending = prepare(log.write(tmp_path / "logs"), SCHEMA, config(), output).manifest.ending
    users = {row["user_id"]: row for row in rows_of(output, "snapshot/users")}
    rooms = {row["room_id"]: row for row in rows_of(output, "snapshot/rooms")}
    assert users.keys() >= {row["user_id"] for row in log.users if row.get("valid_from", ending) <= ending}
    assert rooms.keys() >= {row["room_id"] for row in log.rooms if row.get("valid_from", ending) <= ending}
    compared = set()
    template = dict.fromkeys(log.impressions[0]) | {"request_id": 1, "shown_at": ending}
    for user_id, user in users.items():
        planted = log
        for position, room in enumerate(rooms):
            planted = planted.planted("impressions", template | {"user_id": user_id, "room_id": room, "position": position})
        (feed,) = [row for row in naive_features(planted, SCHEMA) if row["user_id"] == user_id and row["at"] == ending]
        for name in user.keys() & feed.keys():
            compared.add(name)
            assert user[name] == feed[name], (name, user_id)
        for place, room_id in enumerate(feed["room_id"]):
            room = rooms[room_id]
            for name in room.keys() & feed.keys():
                if not name.startswith(("state.", "product.", "room_id")):
                    compared.add(name)
                    assert room[name] == feed[name][place], (name, room_id)
            for owner in ("room", "streamer"):
                first, age = room[f"{owner}_first_at"], feed[f"{owner}_age_hours"][place]
                assert age == (None if first is None else pytest.approx((ending - first) / HOUR))
                kinds = ("impressions", "entries", "orders")
                pairs = zip(user[f"pair.{owner}_id"], *(user[f"pair.{owner}_{what}"] for what in kinds), strict=True)
                by_id = {identity: counts for identity, *counts in pairs}
                if room[f"{owner}_id"] is not None:
                    expected = [feed[f"pair_{owner}_{what}"][place] for what in kinds]
                    assert by_id.get(room[f"{owner}_id"], [0, 0, 0]) == expected
            last = dict(zip(user["pair.room_id"], user["pair.room_last_shown_at"], strict=True)).get(room_id)
            assert feed["pair_room_hours"][place] == (None if last is None else pytest.approx((ending - last) / HOUR))
            shown = [row for row in log.impressions if row["room_id"] == room_id]
            if shown:
                newest = max(row["shown_at"] for row in shown)
                assert room["state.viewers"] in [row["state.viewers"] for row in shown if row["shown_at"] == newest]
    assert {"user_impressions", "preference.stay", "channels.stay_seconds", "goods.product_id"} <= compared
    assert {
        "streamer_entries.1h",
        "room_impressions.life",
        "room_orders.1h",
        "user_orders",
        "room.category",
        "streamer.fans",
    } <= compared


# -- no leak ---------------------------------------------------------------------------------------------------


@lru_cache
def features_by_id(seed: int, folder, changing: bool = False) -> tuple[dict[int, dict], EncoderState]:
    base = folder / f"{'dated' if changing else 'base'}-{seed}"
    log = random_log(seed)
    return prepared_features(dated(log, seed) if changing else log, base), Prepared.open(base / "out").encoder


def prepared_features(log: SmallLog, folder) -> dict[int, dict]:
    until = datetime.fromtimestamp((START + 30 * DAY) / 1000, UTC)  # whatever is planted, windows have closed
    prepare(log.write(folder / "logs"), SCHEMA, config(rows_per_chunk=1000, until=until), folder / "out")
    return {row["feed_id"]: row for row in rows_of(folder / "out")}


def encoded(folder, state: EncoderState) -> dict[int, dict]:
    """What an encoder makes of a folder's features."""
    tables = [pq.read_table(file) for file in sorted((folder / "out" / "features").rglob("*.parquet"))]
    return {row["feed_id"]: row for table in tables for row in encode(table, SCHEMA, state).to_pylist()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("leaks")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_planted_event_changes_no_feature_of_this_or_an_earlier_feed(folder, data):
    seed = data.draw(st.integers(0, 3), label="seed")
    log, (before, state) = random_log(seed), features_by_id(seed, folder)
    feed = before[data.draw(st.sampled_from(sorted(before)), label="feed")]
    at = feed["at"] + data.draw(st.sampled_from([0, 0, 1, 500, 30_000, HOUR, DAY]), label="after")
    user = data.draw(st.sampled_from([feed["user_id"], log.users[0]["user_id"]]), label="user")
    room = data.draw(st.sampled_from([*feed["room_id"], log.rooms[0]["room_id"]]), label="room")
    own = {row["request_id"] for row in log.impressions if row["user_id"] == user}
    request = data.draw(st.sampled_from([None, 1, *sorted(own - {None})]), label="request")
    kind = data.draw(st.sampled_from(["impressions", "engagements", "product_clicks"]), label="kind")
    row = {
        "impressions": dict.fromkeys(log.impressions[0])
        | {"request_id": request, "user_id": user, "room_id": room, "shown_at": at},
        "engagements": {
            "request_id": request,
            "user_id": user,
            "room_id": room,
            "at": at,
            "action": data.draw(st.sampled_from(["enter", "order"]), label="action"),
            "value": data.draw(st.sampled_from([None, 0.0, 5.0, 100.0]), label="value"),
        },
        "product_clicks": {"user_id": user, "product_id": 5, "at": at},
    }[kind]
    if kind == "impressions" and request is not None:
        # a request's rows are shown from its feed's time on; an older request cannot be given a row from its past
        row["shown_at"] = max(at, *(other["shown_at"] for other in log.impressions if other["request_id"] == request), at)
    number = len(list(folder.iterdir()))
    after = prepared_features(log.planted(kind, row), folder / f"planted-{number}")
    codes, codes_after = encoded(folder / f"base-{seed}", state), encoded(folder / f"planted-{number}", state)

    windows = {f"label.{target.name}": target.attribution_seconds * 1000 for target in SCHEMA.targets}
    for feed_id, old in before.items():
        if old["at"] > feed["at"]:
            continue
        new = after[feed_id]
        candidates = len(old["room_id"])
        for name in ("stage", "preference_count", *(f"preference.{target}" for target in SCHEMA.target_names)):
            assert codes_after[feed_id][name] == codes[feed_id][name], (name, old["user_id"], old["at"], row)
        for name, value in old.items():
            is_of_candidate = isinstance(value, list) and not name.startswith(("channels.", "goods."))
            kept = new[name][:candidates] if is_of_candidate else new[name]
            if name not in windows:
                assert kept == value, (name, old["user_id"], old["at"], row)
            elif kind == "engagements" and request is None and kept != value:
                assert old["user_id"] == user and room in old["room_id"]
                assert old["at"] <= at <= old["at"] + windows[name] + 2000  # a feed's rows are shown within 2 s


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_request_id_used_again_changes_nothing_of_an_earlier_feed(folder, data):
    """Ids that start anew: a later request of the same user with the same id and rooms, and what the user did then."""
    seed = data.draw(st.integers(0, 3), label="seed")
    log, (before, _) = random_log(seed), features_by_id(seed, folder)
    old = data.draw(st.sampled_from([row for row in log.impressions if row["request_id"] is not None]), label="again")
    last = max(row["shown_at"] for row in log.impressions if row["request_id"] == old["request_id"])
    at = last + 60_001 + data.draw(st.sampled_from([0, 1, HOUR, DAY]), label="after")
    planted = log.planted("impressions", {**old, "shown_at": at})
    for action in data.draw(st.lists(st.sampled_from(["enter", "order"]), max_size=2), label="actions"):
        lag = data.draw(st.sampled_from([-500, 0, 30_000]), label="lag")
        done = {"request_id": old["request_id"], "user_id": old["user_id"], "room_id": old["room_id"], "at": at + lag}
        planted = planted.planted("engagements", {**done, "action": action, "value": 60.0})
    after = prepared_features(planted, folder / f"planted-{len(list(folder.iterdir()))}")
    assert len(after) == len(before) + 1
    own = [row for row in planted.engagements if row["user_id"] == old["user_id"]]
    own = [row for row in own if row["request_id"] in (old["request_id"], None)]
    # what answered the earlier request may answer the later one, and what names no request answers the latest impression
    late = {row["room_id"] for row in own if row["at"] >= at - 500}
    for feed_id, row in before.items():
        if row["at"] < at - 500:
            kept = [name for name in row if not (name.startswith("label.") and late & set(row["room_id"]))]
            assert {name: after[feed_id][name] for name in kept} == {name: row[name] for name in kept}, (
                row["user_id"],
                row["at"],
            )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_planted_attribute_changes_no_feed_before_it_holds(folder, data):
    seed = data.draw(st.integers(0, 3), label="seed")
    log, (before, state) = dated(random_log(seed), seed), features_by_id(seed, folder, True)
    feed = before[data.draw(st.sampled_from(sorted(before)), label="feed")]
    table = data.draw(st.sampled_from(["users", "rooms", "streamers", "products"]), label="table")
    known = {
        "users": [feed["user_id"], log.impressions[0]["user_id"]],
        "rooms": [*feed["room_id"], log.impressions[0]["room_id"]],
        "streamers": [11, 22, 33],
        "products": [5, 6, 7, 8, 99, 98],
    }
    key, of = f"{table[:-1]}_id", data.draw(st.sampled_from(known[table]), label="id")
    begins = feed["at"] + data.draw(st.sampled_from([0, 1, 500, 30_000, HOUR, DAY]), label="after")
    taken = {row["valid_from"] for row in getattr(log, table) if row[key] == of}
    begins = next(at for at in range(begins, begins + 99) if at not in taken)
    row = {key: of, "valid_from": begins, "age": 77, "start_at": START - DAY, "category": "new", "fans": 9.0, "price": 9.5}
    if table == "rooms":
        streamers = {other["streamer_id"] for other in log.rooms if other["room_id"] == of} - {None} or {11, 22}
        row["streamer_id"] = data.draw(st.sampled_from([*sorted(streamers), None]), label="streamer")
    number = len(list(folder.iterdir()))
    after = prepared_features(log.planted(table, row), folder / f"planted-{number}")
    codes, codes_after = encoded(folder / f"dated-{seed}", state), encoded(folder / f"planted-{number}", state)
    assert after.keys() == before.keys()
    for feed_id, old in before.items():
        if old["at"] < begins:
            assert (after[feed_id], codes_after[feed_id]) == (old, codes[feed_id]), (old["user_id"], old["at"], row)
        if old["at"] == begins and table == "users" and old["user_id"] == of:
            assert after[feed_id]["user.age"] == 77
        if old["at"] == begins and table == "rooms" and of in old["room_id"]:
            assert after[feed_id]["room.category"][old["room_id"].index(of)] == "new"


def test_what_happens_after_the_training_days_teaches_nothing(tmp_path):
    log = random_log(6)
    user, end = log.users[0]["user_id"], START + 4 * DAY - 1
    enter = {"request_id": None, "user_id": user, "room_id": 77, "at": end, "action": "enter", "value": 500.0}
    for number in range(5):  # shown and entered on the last day
        shown = dict.fromkeys(log.impressions[0]) | {"user_id": user, "room_id": 77 + number, "shown_at": end - 10}
        log = log.planted("impressions", shown).planted("engagements", enter | {"room_id": 77 + number})
    before = prepare(random_log(6).write(tmp_path / "a"), SCHEMA, config(), tmp_path / "before").encoder
    after = prepare(log.write(tmp_path / "b"), SCHEMA, config(), tmp_path / "after").encoder
    assert after.fingerprint == before.fingerprint


# -- killed, started again, finished ---------------------------------------------------------------------------


def contents(output) -> dict:
    """Bytes of all files; of the manifest all but what a clock said."""
    found = {str(file.relative_to(output)): file.read_bytes() for file in output.rglob("*") if file.is_file()}
    manifest = json.loads(found.pop("manifest.json"))
    manifest.pop("seconds")
    manifest.pop("digest")
    return found | {"manifest": manifest}


@pytest.mark.parametrize("step", ["CleanChunk", "CutBucket", "CountRooms", "WriteFeatures", "FitFile", "EncodeFile"])
def test_a_job_that_died_goes_on_and_ends_the_same(tmp_path, monkeypatch, capsys, step):
    logs = random_log(2).write(tmp_path / "logs")
    given = config(rows_per_bucket=60)
    prepare(logs, SCHEMA, given, tmp_path / "undisturbed")

    real, calls = getattr(tasks, step).__call__, []

    def dies(self, work):
        calls.append(work)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return real(self, work)

    output = tmp_path / "disturbed"
    monkeypatch.setattr(getattr(tasks, step), "__call__", dies)
    with pytest.raises(RuntimeError, match="killed"):
        prepare(logs, SCHEMA, given, output)
    assert not (output / "manifest.json").exists()
    with pytest.raises(ConfigError, match="was not finished"):
        Prepared.open(output)
    monkeypatch.setattr(getattr(tasks, step), "__call__", real)
    notes = {note: note.stat().st_mtime_ns for note in (output / "work" / "notes").rglob("*.json")}
    monkeypatch.setattr("pipelines.prepare.build.discard", lambda path: None)  # keep the notes, to see which tasks ran again
    capsys.readouterr()
    prepare(logs, SCHEMA, given, output)
    printed = capsys.readouterr().out
    assert f"going on in {output}" in printed and "1 done before" in printed
    assert notes and notes == {note: note.stat().st_mtime_ns for note in notes}
    monkeypatch.undo()
    shutil.rmtree(output / "work")
    assert contents(output) == contents(tmp_path / "undisturbed")


def test_finished_work_is_left_alone(tmp_path, capsys):
    logs = random_log(2).write(tmp_path / "logs")
    first = prepare(logs, SCHEMA, config(), tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    capsys.readouterr()
    again = prepare(logs, SCHEMA, config(parallel="ray", quarantine_limit=0.4), tmp_path / "out")
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert again.fingerprint == first.fingerprint
    assert times == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    assert not (tmp_path / "out" / "work").exists()


def test_feeds_stand_beside_features(tmp_path):
    prepared = prepare(random_log(4).write(tmp_path / "logs"), SCHEMA, config(), tmp_path / "out")
    for split in SPLITS:
        assert len(prepared.files(split)) == len(prepared.features(split)) == prepared.manifest.splits[split].files > 0
        ids = lambda files: [value for file in files for value in pq.read_table(file)["feed_id"].to_pylist()]
        assert ids(prepared.files(split)) == ids(prepared.features(split))
        assert len(ids(prepared.files(split))) == prepared.manifest.splits[split].feeds
        assert pq.read_schema(prepared.files(split)[0]).remove_metadata() == feeds_schema(SCHEMA)
    rows = [row for row in rows_of(tmp_path / "out") if row["day"] < START // DAY + 2]
    engagements = delivered(random_log(4).engagements)
    entered = sum(row["action"] == "enter" and row["at"] < START + 2 * DAY for row in engagements)
    assert prepared.encoder.entry_rate == pytest.approx(entered / sum(len(row["room_id"]) for row in rows))


@pytest.mark.ray
def test_ray_gives_what_one_process_gives(tmp_path, local_ray):
    logs = dated(random_log(9), 9).write(tmp_path / "logs")
    prepare(logs, SCHEMA, config(rows_per_bucket=60), tmp_path / "alone")
    prepare(logs, SCHEMA, config(rows_per_bucket=60, parallel="ray", cpus_per_task=2), tmp_path / "ray")
    assert contents(tmp_path / "ray") == contents(tmp_path / "alone")
    broken = random_log(9).write(tmp_path / "broken")
    file = broken.files("impressions")[1]
    table = pq.read_table(file)
    seconds = pa.array([at // 1000 for at in table["shown_at"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("shown_at"), "shown_at", seconds)
    pq.write_table(table, file, write_statistics=False)  # the early check sees nothing
    with pytest.raises(ConfigError, match="look like seconds"):
        prepare(broken, SCHEMA, config(parallel="ray"), tmp_path / "never")
