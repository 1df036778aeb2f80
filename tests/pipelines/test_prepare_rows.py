"""Logs as people have them through prepare: what becomes of odd rows, and that every row is accounted for."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.schema import Number
from pipelines.logs import CanonicalLogs
from pipelines.prepare import PrepareConfig, prepare
from pipelines.prepared import LogCounts, UsedAgain
from tests.pipelines.naive_prepare import DAY, EXTRA, START, SmallLog, random_log, wide_schema

SCHEMA = wide_schema()


def config(**changes) -> PrepareConfig:
    return PrepareConfig(**({"parallel": "none", "extra_columns": EXTRA, "quarantine_limit": 0.9} | changes))


def features(output) -> list[dict]:
    rows = [row for file in sorted((output / "features").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: (row["user_id"], row["at"], row["room_id"]))


def written(log: SmallLog, folder, **types: dict[str, pa.DataType]) -> CanonicalLogs:
    """The log with columns of a table cast to other types; integers to timestamps as milliseconds."""
    logs = log.write(folder)
    for table, casts in types.items():
        for file in logs.files(table):
            whole = pq.read_table(file)
            for name, kind in casts.items():
                column = whole[name].cast(pa.timestamp("ms", kind.tz)) if pa.types.is_timestamp(kind) else whole[name]
                whole = whole.set_column(whole.schema.get_field_index(name), name, column.cast(kind))
            pq.write_table(whole, file)
    return logs


def with_requests(log: SmallLog, spelled) -> SmallLog:
    """Request ids written otherwise, in both tables."""
    change = lambda rows: [row | {"request_id": spelled(row["request_id"])} for row in rows]
    return replace(log, impressions=change(log.impressions), engagements=change(log.engagements))


@pytest.mark.parametrize("mark", [0, -1, -999])
def test_numbers_that_name_no_request_are_taken_for_missing(tmp_path, mark, capsys):
    log = random_log(3)
    marked = with_requests(log, lambda request: mark if request is None else request)
    prepare(log.write(tmp_path / "a"), SCHEMA, config(), tmp_path / "a-out")
    capsys.readouterr()
    found = prepare(marked.write(tmp_path / "b"), SCHEMA, config(), tmp_path / "b-out").manifest.counts.found
    assert features(tmp_path / "a-out") == features(tmp_path / "b-out")
    rows = sum(row["request_id"] is None for row in log.impressions)
    assert found.placeholders["impressions"] == {"request_id": {str(mark): rows}}
    told = f"`request_id` of {rows:,} rows of `impressions` names nothing and is taken for missing: {mark} ({rows:,} rows)"
    assert told in capsys.readouterr().out


def test_texts_that_name_no_request_are_taken_for_missing(tmp_path):
    log, marks = (
        random_log(3),
        iter(["", "null", "None", "NaN", "0", "-1", " ", "undefined", "00000000-0000-0000-0000-000000000000"] * 50),
    )
    text = lambda request: None if request is None else f"r{request}"
    marked = lambda request: next(marks) if request is None else f"r{request}"
    outputs = []
    for name, spelled in (("a", text), ("b", marked)):
        logs = _texts(with_requests(log, spelled), tmp_path / name)
        prepare(logs, SCHEMA, config(), tmp_path / f"{name}-out")
        outputs.append(features(tmp_path / f"{name}-out"))
    assert outputs[0] == outputs[1]


def _texts(log: SmallLog, folder) -> CanonicalLogs:
    """Written with request ids that are texts."""
    plain = with_requests(log, lambda _: None).write(folder, files=1)
    for table in ("impressions", "engagements"):
        file = plain.files(table)[0]
        old = pq.read_table(file)
        texts = pa.array([row["request_id"] for row in getattr(log, table)], pa.string())
        pq.write_table(old.set_column(old.schema.get_field_index("request_id"), "request_id", texts), file)
    return plain


def test_a_day_of_a_request_that_is_used_again_stays_on_its_day(tmp_path, capsys):
    """Numbers that start anew each day, of every user: as many feeds as requests, none on two days, and it is told."""
    impressions = [
        {
            "request_id": request + 1,
            "user_id": user + 1,
            "room_id": room,
            "shown_at": START + day * DAY + request * 3_600_000,
            "position": room,
            "context.device": None,
            "state.viewers": None,
            "state.note": None,
            "state.product_id": None,
        }
        for day in range(4)
        for user in range(3)
        for request in range(2)
        for room in range(2)
    ]
    done = {"request_id": 1, "user_id": 1, "room_id": 0, "at": START + 3 * DAY + 9000, "action": "enter", "value": 7.0}
    logs = SmallLog(impressions, [done], []).write(tmp_path / "logs")
    counts = prepare(logs, SCHEMA, config(), tmp_path / "out").manifest.counts
    assert counts.feeds == 4 * 3 * 2 and set(counts.feeds_by_day.values()) == {6}
    assert counts.found.requests_again == UsedAgain(requests=6, feeds=24, most={"1": 12, "2": 12})
    said = capsys.readouterr().out
    assert "request ids are used again: 6 requests of one user and id" in said and "became 24 feeds" in said
    stays = {(row["user_id"], row["at"]): row["label.stay"] for row in features(tmp_path / "out")}
    assert (
        stays[1, START + 3 * DAY] == [7.0, 0.0] and sum(value for each in stays.values() for value in each if value > 0) == 7.0
    )


def test_types_of_other_writers_change_nothing(tmp_path):
    log = random_log(5)
    prepare(log.write(tmp_path / "a"), SCHEMA, config(), tmp_path / "a-out")
    other = written(
        log,
        tmp_path / "b",
        impressions={
            "request_id": pa.float64(),  # pandas, with gaps
            "user_id": pa.uint64(),
            "room_id": pa.decimal128(25, 0),
            "shown_at": pa.timestamp("ms", "UTC"),
            "position": pa.float32(),
            "context.device": pa.dictionary(pa.int8(), pa.string()),
            "state.note": pa.binary(),
            "state.product_id": pa.float64(),
        },
        engagements={
            "request_id": pa.float64(),
            "at": pa.timestamp("us"),
            "action": pa.large_string(),
            "value": pa.decimal128(12, 3),
        },
        product_clicks={"product_id": pa.int8(), "at": pa.timestamp("ns")},
        users={"age": pa.decimal128(25, 1)},
        rooms={"streamer_id": pa.float64(), "start_at": pa.timestamp("ms"), "category": pa.string_view()},
        products={"price": pa.decimal128(6, 2)},
    )
    prepare(other, SCHEMA, config(), tmp_path / "b-out")
    assert features(tmp_path / "a-out") == features(tmp_path / "b-out")


WILD = [float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 3.5e38, -1.0]


def test_wild_values_become_missing_and_are_counted_by_column(tmp_path, capsys):
    log = random_log(4, feeds=60)
    wild = [row | {"state.viewers": WILD[place]} if place < len(WILD) else row for place, row in enumerate(log.impressions)]
    known = [row if place >= 6 else row | {"state.viewers": None} for place, row in enumerate(wild)]
    fields = (
        *SCHEMA.fields,
        replace(SCHEMA.fields[-1], name="viewers", column="state.viewers", encoding=Number(transform="log1p")),
    )
    schema = replace(SCHEMA, fields=fields)
    found = {}
    for name, rows in (("wild", wild), ("known", known)):
        logs = replace(log, impressions=[]).write(tmp_path / name, files=1)
        types = {"state.viewers": pa.float64()}
        file = logs.files("impressions")[0]
        old = pq.read_schema(file)
        schema_of = pa.schema([pa.field(each.name, types.get(each.name, each.type)) for each in old])
        columns = {each.name: pa.array([row[each.name] for row in rows], each.type, from_pandas=False) for each in schema_of}
        pq.write_table(pa.table(columns, schema=schema_of), file)
        users = pa.table(
            {
                "user_id": [row["user_id"] for row in log.users],
                "age": np.full(len(log.users), np.inf if name == "wild" else np.nan),
            }
        )
        pq.write_table(users, logs.files("users")[0])
        found[name] = prepare(logs, schema, config(), tmp_path / f"{name}-out").manifest.counts.found.missing
    assert features(tmp_path / "wild-out") == features(tmp_path / "known-out")
    assert found["wild"] == {
        "users": {"age": {"infinite or beyond float32": len(log.users)}},
        "impressions": {"state.viewers": {"NaN": 1, "infinite or beyond float32": 5, "below zero under log1p": 1}},
    }
    assert "`users`, column `age`: values that count as missing (infinite or beyond float32: 4)" in capsys.readouterr().out
    for file in (tmp_path / "wild-out").rglob("*.parquet"):
        for column in pq.read_table(file).columns:
            values = column.combine_chunks()
            while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                values = values.flatten()
            if pa.types.is_floating(values.type):
                assert np.isfinite(values.drop_null().to_numpy()).all(), (file, values)


MISSING, NEGATIVE, YEARS = "missing id, time or action", "negative id", "time outside of the plausible years"
TWICE, UNUSED, KEPT = "delivered twice", "of an action that no target or counter asks for", "kept"
# What is planted: changes to a row that is there, and what becomes of it.
ODD = {
    "impressions": [
        ({"user_id": None}, MISSING),
        ({"room_id": None}, MISSING),
        ({"shown_at": None}, MISSING),
        ({"room_id": -3}, NEGATIVE),
        ({"user_id": -(2**63)}, NEGATIVE),
        ({"shown_at": 5}, YEARS),
        ({"shown_at": 2**62}, YEARS),
        ({"request_id": 0, "room_id": 7_000_000, "state.viewers": None}, KEPT),
        ({}, TWICE),
    ],
    "engagements": [
        ({"user_id": -1}, NEGATIVE),
        ({"room_id": None}, MISSING),
        ({"at": None}, MISSING),
        ({"action": None}, MISSING),
        ({"action": ""}, MISSING),
        ({"at": -1}, YEARS),
        ({"action": "wave"}, UNUSED),
        ({"action": "wave", "value": float("inf")}, UNUSED),
        ({"action": "wave", "user_id": None}, MISSING),
        ({"action": "order", "value": float("inf")}, "value is not a finite number"),
        ({"action": "order", "value": 1e300}, "value below zero or above a trillion"),
        ({"action": "order", "value": -0.5}, "value below zero or above a trillion"),
        ({"action": "enter", "value": -0.5}, "stay below zero or above a year"),
        ({"action": "enter", "value": 1e9}, "stay below zero or above a year"),
        ({"action": "order", "value": float("nan"), "room_id": 7_000_000}, KEPT),
        ({"action": "enter"}, TWICE),
    ],
    "product_clicks": [({"user_id": None}, MISSING), ({"product_id": -2}, NEGATIVE), ({"at": 5}, YEARS), ({}, TWICE)],
    "users": [({"user_id": None}, MISSING), ({"user_id": 7_000_000}, KEPT), ({}, TWICE)],
    "rooms": [({"room_id": None}, MISSING), ({"room_id": 7_000_000, "streamer_id": None}, KEPT), ({}, TWICE)],
    "streamers": [({"streamer_id": None}, MISSING), ({"streamer_id": 7_000_000, "fans": float("inf")}, KEPT), ({}, TWICE)],
    "products": [({"product_id": None}, MISSING), ({"product_id": 7_000_000, "price": 1e300}, KEPT), ({}, TWICE)],
}


def lasting(log: SmallLog, table: str) -> list[dict]:
    """Rows a copy of which is nothing but a copy: the first of their kind, and of an action that counts."""
    rows = getattr(log, table)
    if table == "engagements":
        return [row for row in rows if row["action"] == "enter"]
    if table == "impressions":
        first = {(row["user_id"], row["request_id"] or row["shown_at"], row["room_id"]): row for row in reversed(rows)}
        return list(first.values())
    return rows


def balance(counts: LogCounts) -> Counter:
    """Rows by table and what became of them."""
    found = Counter()
    for table, account in counts.account.items():
        assert account.is_whole
        found[table, KEPT] = account.kept
        for reasons in (account.quarantined, account.left_out):
            found.update({(table, reason): count for reason, count in reasons.items()})
    return found


@lru_cache
def sound(seed: int, folder: Path) -> Counter:
    logs = random_log(seed).write(folder / f"sound-{seed}")
    return balance(prepare(logs, SCHEMA, config(), folder / f"sound-{seed}-out").manifest.counts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("account")


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # shrinking takes minutes
@given(data=st.data())
def test_every_row_is_kept_in_quarantine_or_left_out_by_rule(folder, data):
    """Read = kept + quarantined + left out, per table and reason, whatever is planted and however the log is cut."""
    seed = data.draw(st.integers(0, 3))
    log, here = random_log(seed), folder / str(len(list(folder.iterdir())))
    expected = sound(seed, folder).copy()
    for table, kinds in ODD.items():
        rows = lasting(log, table)
        for change, becomes in data.draw(st.lists(st.sampled_from(kinds), max_size=5, unique_by=lambda kind: kind[1])):
            row = data.draw(st.sampled_from(rows)) if rows else {}
            copies = 1 if becomes == KEPT or not rows else data.draw(st.integers(0, 3))
            if rows:
                expected[table, becomes] += copies
            log = replace(log, **{table: [*getattr(log, table), *[row | change] * copies]}) if rows else log
    changes = {"rows_per_chunk": data.draw(st.integers(3, 50)), "rows_per_bucket": data.draw(st.integers(20, 300))}
    logs = log.write(here / "logs", files=data.draw(st.integers(1, 3)))
    counts = prepare(logs, SCHEMA, config(**changes), here / "out").manifest.counts
    assert +balance(counts) == +expected
    assert {table: account.read for table, account in counts.account.items()} == {
        table: len(getattr(log, table)) for table in ODD
    }
    rows = [row for file in (here / "out" / "quarantine").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    apart = Counter((row["table"], row["reason"]) for row in rows)
    assert apart == Counter({kind: count for kind, count in (+expected).items() if kind[1] not in (KEPT, UNUSED)})
    assert counts.candidates == counts.account["impressions"].kept
