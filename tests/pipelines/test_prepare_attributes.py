"""Attributes that change: which row holds as of a moment, what is refused, and what the counts and the store say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ConfigError
from models.schema import Field, Levels, Number, Vocabulary
from pipelines.encode.clock import NEVER
from pipelines.encode.encode import encode
from pipelines.logs import CanonicalLogs, check
from pipelines.prepare import PrepareConfig, prepare
from pipelines.prepare.attributes import sort_table
from pipelines.prepare.tables import Attributes
from pipelines.runs.exchange import read_table
from pipelines.serve.store import Store, build_store
from tests.pipelines.naive_prepare import DAY, EXTRA, HOUR, START, as_of, dated, random_log, wide_schema
from tests.pipelines.serve_samples import as_table, assembled

SCHEMA = wide_schema()
Files = Mapping[str, Mapping[str, Any]]


def array(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def attributes(ids: list[int], begins: list[int] | None, **columns: list) -> Attributes:
    when = {} if begins is None else {"valid_from": pa.array(begins, pa.int64())}
    return Attributes("user_id", pa.table({"user_id": pa.array(ids, pa.int64()), **when, **columns}))


def config(**changes) -> PrepareConfig:
    return PrepareConfig(**({"parallel": "none", "extra_columns": EXTRA, "quarantine_limit": 0.5} | changes))


# -- as of a moment --------------------------------------------------------------------------------------------


def test_a_row_holds_from_its_own_millisecond_on_until_the_next_one():
    table = attributes([5, 7, 7, 7], [0, 10, 20, 30], age=pa.array([50, 1, None, 3]), city=["a", "b", "c", "d"])
    asked = [(7, 9), (7, 10), (7, 19), (7, 20), (7, 29), (7, 30), (7, 10**15), (5, -1), (5, 0), (6, 99), (8, 99)]
    ids, at = (array(*values) for values in zip(*asked, strict=True))
    found = table.of(ids, at, ["age", "city"])
    assert found["age"].to_pylist() == [None, 1, 1, None, None, 3, 3, None, 50, None, None]  # the row counts as a whole
    assert found["city"].to_pylist() == [None, "b", "b", "c", "c", "d", "d", None, "a", None, None]
    assert table.early(ids, at).tolist() == [True, *[False] * 6, True, False, False, False]
    assert table.ids.tolist() == [5, 7] and table.begun(array(5, 7), 5).tolist() == [5]
    missing = np.array([True] + [False] * 10)
    assert table.of(ids[1:2], at[1:2], ["city"], missing[:1])["city"].to_pylist() == [None]
    value, since = table.ever(array(5, 6, 7), "age")
    assert value.to_pylist() == [50, None, 1] and since.tolist() == [0, NEVER, 10]


def test_without_valid_from_a_row_holds_at_all_times():
    table = attributes([5, 7], None, age=[50, 70])
    ids = array(7, 6, 5)
    assert table.of(ids, None, ["age"])["age"].to_pylist() == [70, None, 50] and not table.changes
    value, since = table.ever(ids, "age")
    assert value.to_pylist() == [70, None, 50] and since.tolist() == [NEVER] * 3
    assert table.begun(array(5, 7), -(10**15)).tolist() == [5, 7]


small = st.integers(-3, 3)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(small, small, st.none() | small)), asked=st.lists(st.tuples(small, small)))
def test_as_of_equals_looking_at_every_row(rows, asked):
    by_key = {(id, begin): value for id, begin, value in rows}
    rows = [(id, begin, by_key[id, begin]) for id, begin in sorted(by_key)]
    table = attributes([row[0] for row in rows], [row[1] for row in rows], value=pa.array([row[2] for row in rows], pa.int64()))
    found = table.of(array(*(id for id, _ in asked)), array(*(at for _, at in asked)), ["value"])["value"].to_pylist()
    of = {id: [{"valid_from": begin, "value": value} for other, begin, value in rows if other == id] for id in range(-3, 4)}
    assert found == [as_of(of[id], at).get("value") for id, at in asked]
    value, since = table.ever(np.arange(-3, 4), "value")
    first = [next(((row["value"], row["valid_from"]) for row in of[id] if row["value"] is not None), None) for id in of]
    assert list(zip(value.to_pylist(), since.tolist(), strict=True)) == [each or (None, NEVER) for each in first]


def test_a_million_rows_of_one_id_are_searched_not_walked():
    count = 1_000_000
    table = attributes([3] * count, list(range(0, 10 * count, 10)), place=pa.array(np.arange(count)))
    at = array(-1, 0, 9, 10, 10 * count - 11, 10 * count)
    assert table.of(np.full(6, 3), at, ["place"])["place"].to_pylist() == [None, 0, 0, 1, count - 2, count - 1]


# -- what a log may say ----------------------------------------------------------------------------------------


def written(folder: Path, table: str, files: Files) -> CanonicalLogs:
    """A log of one attribute table, by file."""
    for name, columns in files.items():
        file = folder / table / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), file)
    return CanonicalLogs(folder)


def sort(folder: Path, table: str, files: Files, columns: list[str]) -> tuple[dict, list[dict], list[dict]]:
    """Counts, sorted rows, quarantined rows."""
    logs, output = written(folder / "logs", table, files), folder / "a.arrow"
    counts, bad = sort_table(logs, table, columns, PrepareConfig(), output=output)
    assert counts["rows"] == counts["kept"] + len(bad) == counts["kept"] + sum(counts["quarantined"].values())
    return counts, read_table(output).to_pylist(), bad.to_pylist()


def refused(folder: Path, table: str, files: Files, columns: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        sort(folder, table, files, columns)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_rows_that_say_the_same_count_once_and_senseless_ones_not_at_all(tmp_path):
    files = {
        "a": {"user_id": ["ann", "bob", None, "ann"], "valid_from": [START, START, START, START + 1], "age": [20, 30, 40, 21]},
        "b": {"user_id": ["ann", "bob", "ann"], "valid_from": [START, None, START + 1], "age": [20, 30, 21]},
    }
    counts, rows, bad = sort(tmp_path, "users", files, ["age"])
    assert [(row["age"], row["valid_from"] - START) for row in sorted(rows, key=lambda row: row["age"])] == [
        (20, 0),
        (21, 1),
        (30, 0),
    ]
    assert counts == {
        "rows": 7,
        "kept": 3,
        "quarantined": {"missing id, time or action": 2, "delivered twice": 2},
        "ids": 2,
        "missing": {},
        "latest": START + 1,
    }
    assert sorted((row["file"][-9:], row["row"], row["reason"], row["at"]) for row in bad) == [
        ("a.parquet", 2, "missing id, time or action", START),
        ("b.parquet", 0, "delivered twice", START),
        ("b.parquet", 1, "missing id, time or action", None),
        ("b.parquet", 2, "delivered twice", START + 1),
    ]
    assert {row["table"] for row in bad} == {"users"} and [row["user_id"] is None for row in bad].count(True) == 1


def test_what_nobody_reads_may_differ(tmp_path):
    """A day's snapshot repeats what does not change; and two columns apart."""
    files = {f"dt={day}/0": {"room_id": [1, 2], "category": ["a", None], "hits": [day, day]} for day in (1, 2, 3)}
    counts, rows, _ = sort(tmp_path, "rooms", files, ["category"])
    assert rows == [{"room_id": 1, "category": "a"}, {"room_id": 2, "category": None}]
    assert counts["quarantined"] == {"delivered twice": 4} and counts["ids"] == 2 and counts["latest"] is None


def test_several_rows_of_an_id_that_differ_are_refused_by_name(tmp_path):
    files = {
        "a": {"streamer_id": ["s-9", "s-7"], "level": ["gold", "tin"], "fans": [1, 2]},
        "b": {"streamer_id": ["s-7", "s-9"], "level": ["gold", "gold"], "fans": [None, 1]},
    }
    message = refused(tmp_path, "streamers", files, ["fans", "level"])
    assert "table `streamers`: `streamer_id` 's-7' has several rows that differ" in message
    assert f"`fans` is 2 in {tmp_path}/logs/streamers/a.parquet (row 1), but missing in {tmp_path}/logs/streamers/b." in message
    assert "b.parquet (row 0). Leave one row an id, or give all rows a column `valid_from`" in message
    assert "`level` is 'tin' in" in refused(tmp_path, "streamers", files, ["level"])
    more = {**files, "c": {"streamer_id": ["s-9", "s-1", "s-1"], "level": ["tin", "a", "b"], "fans": [1, 1, 1]}}
    assert ", and 2 more ids have such rows." in refused(tmp_path, "streamers", more, ["level"])


def test_folders_that_look_like_days_are_hinted_at(tmp_path):
    files = {f"dt=2025-06-0{day}/0": {"user_id": [1], "age": [day]} for day in (1, 2)}
    assert "The folders `dt=` look like days: where a row holds from its day on (0:00 UTC; the day after," in refused(
        tmp_path, "users", files, ["age"]
    )
    files = {f"valid_from=2025-06-0{day}/0": {"user_id": [1], "age": [day]} for day in (1, 2)}
    _, rows, _ = sort(tmp_path / "named", "users", files, ["age"])
    first = 20_240 * DAY  # 2025-06-01
    assert [(row["valid_from"], row["age"]) for row in rows] == [(first, 1), (first + DAY, 2)]


def test_two_rows_for_one_moment_that_differ_are_refused(tmp_path):
    files = {"a": {"product_id": [4, 4, 4], "valid_from": [START, START + 1, START], "price": [1.5, 2.0, 2.5]}}
    message = refused(tmp_path, "products", files, ["price"])
    assert f"two rows of `product_id` 4 hold from the same moment on ({START}) and differ: `price` is 1.5 in" in message
    assert "(row 0), but 2.5 in" in message and "(row 2). Leave the one that is right" in message


def test_a_room_has_one_streamer(tmp_path):
    rows = {
        "room_id": ["r", "r", "r", "r"],
        "valid_from": [START + at for at in (3, 1, 2, 4)],
        "streamer_id": ["bo", "al", None, "al"],
    }
    message = refused(tmp_path, "rooms", {"a": rows}, ["streamer_id"])
    assert "`room_id` 'r' changes its streamer: `streamer_id` is 'al' in" in message and "(row 1), but 'bo' in" in message
    assert "give the room another id" in message
    sort(tmp_path / "one", "rooms", {"a": {**rows, "streamer_id": ["al", "al", None, "al"]}}, ["streamer_id"])
    _, found, _ = sort(tmp_path / "unread", "rooms", {"a": rows}, [])
    assert [row["valid_from"] - START for row in found] == [1, 2, 3, 4]


moment = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_748_779_200_000]),
        pa.array(
            [
                1_748_779_200_000.0,
            ]
        ),
        pa.array([moment], pa.timestamp("us", "UTC")),
        pa.array([moment.astimezone(timezone(timedelta(hours=8)))], pa.timestamp("ns", "+08:00")),
        pa.array([datetime(2025, 6, 1, 12)], pa.timestamp("s")),
    ],
)
def test_a_moment_may_be_written_as_any_time_is(tmp_path, column):
    _, rows, _ = sort(tmp_path, "users", {"a": {"user_id": [1], "valid_from": column}}, [])
    assert rows == [{"user_id": 1, "valid_from": 1_748_779_200_000}]


def test_dates_are_their_first_moment_and_texts_are_refused(tmp_path):
    logs = random_log(1).write(tmp_path / "logs")
    users = {"user_id": [1], "valid_from": pa.array([date(2025, 6, 1)])}
    written(tmp_path / "logs", "users", {"part-0": users})
    assert "users: `valid_from` is a date; read as its first moment, 0:00 UTC." in check(logs)
    assert sort(tmp_path / "b", "users", {"a": users}, [])[1] == [{"user_id": 1, "valid_from": 20_240 * DAY}]
    written(tmp_path / "logs", "users", {"part-0": {"user_id": [1], "valid_from": ["2025-06-01"]}})
    with pytest.raises(ConfigError, match=r"users/part-0\.parquet: column `valid_from` is string, expected int64 \(Unix mill"):
        check(logs)


def test_all_files_say_from_when_their_rows_hold_or_none(tmp_path):
    logs = random_log(1).write(tmp_path / "logs")
    written(tmp_path / "logs", "users", {"part-0": {"user_id": [1], "age": [5]}, "x": {"user_id": [1], "valid_from": [START]}})
    with pytest.raises(ConfigError, match=r"users/part-0\.parquet: column `valid_from` is missing, but .*users/x\.parquet has"):
        check(logs)


def test_moments_in_another_unit_are_refused_and_single_ones_quarantined(tmp_path):
    seconds = {"a": {"user_id": [1, 2], "valid_from": [START // 1000, START // 1000 + 9]}}
    assert "a.parquet: column `valid_from` holds times that look like seconds" in refused(tmp_path, "users", seconds, [])
    # of eight hours before 1970 and of year 1; unknown, a date, days, seconds, the year 9999, and what int64 does not hold
    begins = [0, -28_800_000, -62_135_596_800_000, START, START, START, START, START]
    begins += [-1, 20_250_601, 20_240, START // 1000, 253_370_764_800_000, 2.0**63, float("inf"), -float("inf")]
    files = {"a": {"user_id": list(range(16)), "valid_from": pa.array(map(float, begins))}}
    counts, rows, _ = sort(tmp_path / "b", "users", files, [])
    assert counts["quarantined"] == {"time outside of the plausible years": 8}
    assert [row["user_id"] for row in rows] == list(range(8))


# -- the whole job ---------------------------------------------------------------------------------------------


def test_the_job_says_what_became_of_the_rows(tmp_path, capsys):
    log = random_log(1)
    ids = [row["user_id"] for row in log.users]
    users = [{"user_id": user, "age": 20, "valid_from": START + 2 * DAY} for user in ids for _ in range(2)]
    users += [{"user_id": ids[0], "age": 21, "valid_from": START + 9 * DAY}, {"user_id": ids[0], "age": 22, "valid_from": None}]
    logs = replace(log, users=users).write(tmp_path / "logs")
    prepared = prepare(logs, SCHEMA, config(), tmp_path / "out")
    counts, printed = prepared.manifest.counts, capsys.readouterr().out
    rows = 2 * len(ids) + 2
    account = counts.account["users"]
    assert account.read == rows and account.kept == len(ids) + 1 and counts.attributes["users"] == len(ids)
    assert account.quarantined == {"missing id, time or action": 1, "delivered twice": len(ids)} and account.is_whole
    assert f"quarantined, users: 1 missing id, time or action, {len(ids)} delivered twice" in printed
    feeds = [
        row
        for split in ("train", "valid", "test")
        for file in prepared.features(split)
        for row in pq.read_table(file).to_pylist()
    ]
    early = [row for row in feeds if row["user_id"] in ids and row["at"] < START + 2 * DAY]
    assert early and {row["user.age"] for row in early} == {None}
    assert {row["user.age"] for row in feeds if row["user_id"] in ids and row not in early} == {20}
    assert f"`users`: {len(early)} feeds are of a time before the first `valid_from` of their user" in printed
    assert "`users`: some rows hold only from after the end of the log (the last from 2024-10-13T00:00:00 UTC on)" in printed
    assert counts.found.early == {"users": len(early)} and counts.found.future == {"users": START + 9 * DAY}
    with pytest.raises(ConfigError, match=f"1 of {rows} rows of `users` are malformed .*missing id, time or action: 1"):
        prepare(logs, SCHEMA, config(quarantine_limit=0.01), tmp_path / "strict")


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_store_holds_what_holds_at_the_end_of_the_log(tmp_path, more):
    """The snapshot is asked one millisecond after the last event."""
    log = random_log(3)
    done = [row for row in log.engagements if row["action"] != "wave"]  # which nobody counts
    ending = 1 + max(row.get("at", row.get("shown_at")) for row in (*log.impressions, *done, *log.product_clicks))
    room, user = log.rooms[0]["room_id"], log.users[0]["user_id"]
    rooms = [{**log.rooms[0], "streamer_id": 11, "start_at": START, "category": "game", "valid_from": START - DAY}]
    rooms += [{**rooms[0], "start_at": START + HOUR, "category": "shop", "valid_from": ending + more}]
    rooms += [{**rooms[0], "room_id": 99, "valid_from": ending + more}]
    users = [{"user_id": user, "age": age, "valid_from": at} for age, at in ((1, START), (2, ending + more))]
    users += [{"user_id": 99, "age": 3, "valid_from": ending + more}]
    logs = replace(log, rooms=rooms, users=users).write(tmp_path / "logs")
    prepared = prepare(logs, SCHEMA, config(), tmp_path / "out")
    assert prepared.manifest.ending == ending
    of = {
        what: {row[f"{what[:-1]}_id"]: row for file in prepared.snapshot(what) for row in pq.read_table(file).to_pylist()}
        for what in ("users", "rooms")
    }
    changed = more <= 0
    assert of["users"][user]["user.age"] == (2 if changed else 1)
    assert of["rooms"][room]["room.category"] == ("shop" if changed else "game")
    assert of["rooms"][room]["room_first_at"] == (START + HOUR if changed else START)
    assert (99 in of["users"], 99 in of["rooms"]) == (changed, changed)


MORE = {
    "feed": ("user.age", "user_entries"),
    "candidate": (
        "room.category",
        "streamer.fans",
        "product.price",
        "state.note",
        "room_age_hours",
        "streamer_age_hours",
        "streamer_impressions.life",
        "pair_streamer_entries",
        "pair_streamer_impressions",
    ),
}


@pytest.mark.parametrize("seed", range(3))
def test_a_request_at_the_end_of_the_log_is_what_a_feed_there_would_have_been(tmp_path, seed):
    """Assembled from the store, and prepared from a log with that feed: encoded they are the same, in every column."""
    how = lambda name: Vocabulary(min_count=1) if name in ("room.category", "state.note") else Number()
    more = [Field(name=name.replace(".", "_"), of=of, column=name, encoding=how(name)) for of in MORE for name in MORE[of]]
    schema = replace(SCHEMA, fields=(*SCHEMA.fields, *more), levels=Levels(column="streamer.fans"))
    log = dated(random_log(seed), seed)
    prepared = prepare(log.write(tmp_path / "logs"), schema, config(extra_columns=()), tmp_path / "out")
    for split in ("train", "valid", "test"):
        for raw, feeds in zip(prepared.features(split), prepared.files(split), strict=True):
            fans = pa.array([fan or 0 for row in pq.read_table(raw)["streamer.fans"].to_pylist() for fan in row], pa.float64())
            levels = pa.array([level for row in pq.read_table(feeds)["level"].to_pylist() for level in row])
            assert levels.to_pylist() == np.searchsorted(prepared.encoder.level.cuts, fans.to_numpy(), side="right").tolist()
    ending, clock = prepared.manifest.ending, prepared.encoder.clock
    rooms = [row for file in prepared.snapshot("rooms") for row in pq.read_table(file).to_pylist()]
    users = [row["user_id"] for file in prepared.snapshot("users") for row in pq.read_table(file).to_pylist()]
    longer = log
    for user in users:
        for room in rooms:
            state = {name: room.get(name) for name in log.impressions[0]}
            shown = {**state, "request_id": 7777, "user_id": user, "room_id": room["room_id"], "shown_at": ending}
            longer = longer.planted("impressions", shown)
    after = prepare(longer.write(tmp_path / "longer"), schema, config(extra_columns=()), tmp_path / "after")
    feeds = pa.concat_tables([pq.read_table(file) for split in ("train", "valid", "test") for file in after.features(split)])
    expected = {row["user_id"]: row for row in encode(feeds, schema, prepared.encoder).to_pylist() if row["at"] == ending}
    assert expected.keys() == set(users)
    store = Store(build_store(prepared, tmp_path / "store"))
    for user in users:
        body = {"user_id": user, "at": ending, "candidates": [{"room_id": room["room_id"]} for room in rooms]}
        features = as_table(assembled(schema, store, body).feeds, clock)
        (found,) = encode(features, schema, prepared.encoder).to_pylist()
        for name in found.keys() - {"feed_id"}:
            if not name.startswith("label."):
                assert found[name] == expected[user][name], (name, user)
    store.close()
