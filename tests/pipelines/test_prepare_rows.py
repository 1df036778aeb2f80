"""Logs as people have them through prepare: what becomes of odd rows, and that every row is accounted for."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.schema import Number
from pipelines.logs import CanonicalLogs
from pipelines.prepare import PrepareConfig, prepare
from pipelines.prepared import UsedAgain
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
    assert stays[1, START + 3 * DAY] == [7.0, 0.0] and sum(map(sum, stays.values())) == 7.0


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


ODD = {
    "impressions": [{"user_id": None}, {"room_id": -3}, {"shown_at": 5}, {"shown_at": None}, {}],
    "engagements": [
        {"user_id": -1},
        {"action": None},
        {"action": "wave"},
        {"at": None},
        {"action": "order", "value": 1e300},
        {},
    ],
    "product_clicks": [{"user_id": None}, {"product_id": -2}, {"at": 5}, {}],
}


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_row_is_kept_in_quarantine_or_left_out_by_rule(tmp_path_factory, data):
    """Read = kept + quarantined + left out, per table, to the row, whatever is planted and however the log is cut."""
    log, folder = random_log(data.draw(st.integers(0, 5))), tmp_path_factory.mktemp("account")
    for table, kinds in ODD.items():
        for kind in data.draw(st.lists(st.sampled_from(kinds), max_size=5)):
            rows = getattr(log, table)
            place = data.draw(st.integers(0, len(rows) - 1))
            log = replace(log, **{table: [*rows, rows[place] | kind]})  # {}: delivered twice
    changes = {"rows_per_chunk": data.draw(st.integers(3, 50)), "rows_per_bucket": data.draw(st.integers(20, 300))}
    logs = log.write(folder / "logs", files=data.draw(st.integers(1, 3)))
    prepared = prepare(logs, SCHEMA, config(**changes), folder / "out")
    counts = prepared.manifest.counts
    bad = {table: sum(reasons.values()) for table, reasons in counts.quarantined.items()}
    rows = [row for file in (folder / "out" / "quarantine").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert bad == {table: sum(row["table"] == table for row in rows) for table in bad}
    assert counts.rows["impressions"] == counts.candidates + bad["impressions"] == len(log.impressions)
    kept = counts.kept
    assert counts.rows["engagements"] == kept["engagements"] + counts.unused_engagements + bad["engagements"]
    assert counts.rows["product_clicks"] == kept["product_clicks"] + bad["product_clicks"]
