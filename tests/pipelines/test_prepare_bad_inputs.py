"""What prepare says about logs and settings that do not fit, and what it does with malformed rows."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError, from_dict
from models.schema import Bins, Field, Schema
from pipelines.encode.feeds import TABLES
from pipelines.prepare import PrepareConfig, prepare
from tests.pipelines.naive_prepare import DAY, EXTRA, START, day_name, random_log, wide_schema

SCHEMA = wide_schema()
READER = Field(name="noted", of="candidate", column="state.note", encoding=Bins(count=4))


def config(**changes) -> PrepareConfig:
    return PrepareConfig(**({"parallel": "none", "extra_columns": EXTRA, "quarantine_limit": 0.5} | changes))


def refused(logs, output, schema=SCHEMA, **changes) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(logs, schema, config(**changes), output)
    return str(caught.value)


def rewritten(logs, table, column, change):
    """Changes one column of the table's first file."""
    file = logs.files(table)[0]
    old = pq.read_table(file)
    if change is None:
        new = old.drop_columns([column])
    else:
        new = old.set_column(old.schema.get_field_index(column), column, pa.array([change(v) for v in old[column].to_pylist()]))
    pq.write_table(new, file, write_statistics=False)
    return logs


@pytest.fixture
def logs(tmp_path):
    return random_log(1, feeds=60).write(tmp_path / "logs")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize(("table", "column"), [("impressions", "shown_at"), ("engagements", "at"), ("product_clicks", "at")])
@pytest.mark.parametrize(("unit", "change"), [("seconds", lambda at: at // 1000), ("microseconds", lambda at: at * 1000)])
def test_times_in_another_unit_stop_the_job(logs, output, table, column, unit, change):
    message = refused(rewritten(logs, table, column, change), output)
    assert f"{table}/part-0.parquet: column `{column}` holds times that look like {unit}" in message
    assert "milliseconds since 1970 are needed" in message
    assert not (output / "manifest.json").exists()


def test_single_strange_rows_go_to_quarantine_with_file_row_and_reason(tmp_path, output):
    log = random_log(1, feeds=60)
    good = len(log.impressions)
    bad = [
        log.impressions[0] | {"user_id": None},
        log.impressions[0] | {"room_id": -3},
        log.impressions[0] | {"shown_at": 1_700_000_000},  # one row in seconds
        log.impressions[0] | {"shown_at": None},
    ]
    done = log.engagements[0]
    wrong = [
        done | {"action": "enter", "value": -1.0},
        done | {"action": "order", "value": float("inf")},
        done | {"action": None},
        done | {"user_id": -1},
        done | {"action": "enter", "value": 1e12},
        done | {"action": "order", "value": 1e300},
        done | {"action": "order", "value": -1.0},
        done | {"action": "wave", "value": float("inf")},  # nobody reads what a wave is worth
    ]
    log = replace(log, impressions=log.impressions + bad, engagements=log.engagements + wrong)
    logs = log.write(tmp_path / "logs", files=1)
    account = prepare(logs, SCHEMA, config(), output).manifest.counts.account
    counts = {table: each.quarantined for table, each in account.items()}
    repeated = counts["impressions"].pop("delivered twice")
    assert repeated > 0 and counts["engagements"].pop("delivered twice") > 0
    assert counts["impressions"] == {
        "missing id, time or action": 2,
        "negative id": 1,
        "time outside of the plausible years": 1,
    }
    assert counts["engagements"] == {
        "missing id, time or action": 1,
        "negative id": 1,
        "stay below zero or above a year": 2,
        "value is not a finite number": 1,
        "value below zero or above a trillion": 2,
    }
    rows = [row for file in sorted((output / "quarantine").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    found = {(row["table"], row["row"], row["reason"]) for row in rows if row["file"] is not None}
    assert found >= {
        ("impressions", good, "missing id, time or action"),
        ("impressions", good + 1, "negative id"),
        ("impressions", good + 2, "time outside of the plausible years"),
        ("impressions", good + 3, "missing id, time or action"),
    }
    assert all(row["file"].endswith(f"{row['table']}/part-0.parquet") for row in rows if row["file"])
    twice = [row for row in rows if row["reason"] == "delivered twice" and row["table"] == "impressions"]
    assert len(twice) == repeated and all(row["user_id"] is not None for row in twice)


def test_too_many_malformed_rows_stop_the_job_and_a_higher_limit_goes_on(tmp_path, output, capsys):
    log = random_log(1, feeds=60)
    bad = [row | {"user_id": -1} for row in log.impressions[:9]]
    logs = replace(log, impressions=log.impressions + bad).write(tmp_path / "logs")
    message = refused(logs, output, quarantine_limit=0.01)
    rows = len(log.impressions) + 9
    assert f"9 of {rows} rows of `impressions` are malformed ({9 / rows:.2%}, quarantine_limit is 1.00%)" in message
    assert "negative id: 9" in message and "part-1.parquet (9)" in message and "quarantine_limit" in message
    capsys.readouterr()
    prepare(logs, SCHEMA, config(), output)
    assert "going on" in capsys.readouterr().out


def test_an_impression_logged_in_two_files(tmp_path, output, capsys):
    log = random_log(1, feeds=60)
    asked = next(row for row in log.impressions if row["request_id"] is not None)
    others = {"delivered twice": asked, "impression logged twice": asked | {"shown_at": asked["shown_at"] + 1}}
    once = prepare(log.write(tmp_path / "once", files=2), SCHEMA, config(), tmp_path / "once-out").manifest.counts
    for reason, copy in others.items():  # the copy lies in another file
        logs = log.planted("impressions", copy).write(tmp_path / reason, files=2)
        counts = prepare(logs, SCHEMA, config(), tmp_path / f"{reason}-out").manifest.counts
        before, after = (each.account["impressions"].quarantined.get(reason, 0) for each in (once, counts))
        assert f"{after} {reason}" in capsys.readouterr().out
        assert after == before + 1 and counts.candidates == once.candidates
    # the same row once more is sound; another moment for one impression is not
    prepare(log.planted("impressions", asked).write(tmp_path / "copy"), SCHEMA, config(quarantine_limit=0.0), output)
    message = refused(log.planted("impressions", copy).write(tmp_path / "again"), tmp_path / "other", quarantine_limit=0.0)
    assert "impression logged twice: 1" in message and str(tmp_path / "other" / "quarantine") in message


def test_engagements_without_impression_are_counted_and_kept_for_histories(tmp_path, output, capsys):
    log = random_log(1, feeds=60)
    user = log.impressions[-1]["user_id"]
    before = prepare(log.write(tmp_path / "a"), SCHEMA, config(), output).manifest.counts.unattributed_engagements
    row = {"request_id": None, "user_id": user, "room_id": 424_242, "at": START - DAY, "action": "enter", "value": 77.0}
    planted = log.planted("engagements", row).write(tmp_path / "b")
    prepared = prepare(planted, SCHEMA, config(), tmp_path / "with")
    assert prepared.manifest.counts.unattributed_engagements == before + 1
    assert f"{before + 1} of {len(log.engagements) + 1} engagements follow no impression" in capsys.readouterr().out
    files = [file for split in ("train", "valid", "test") for file in prepared.features(split)]
    feeds = [feed for file in files for feed in pq.read_table(file).to_pylist()]
    first = min((feed for feed in feeds if feed["user_id"] == user), key=lambda feed: feed["at"])
    assert 424_242 in first["channels.room_id"] and 77.0 in first["channels.stay_seconds"]


def test_an_empty_day_is_named_and_an_empty_split_is_refused(tmp_path, output, capsys):
    log = random_log(1, feeds=80, days=5)
    hole = replace(log, impressions=[row for row in log.impressions if (row["shown_at"] - START) // DAY != 1])
    logs = hole.write(tmp_path / "logs")
    manifest = prepare(logs, SCHEMA, config(), output).manifest
    empty = day_name(START // DAY + 1)
    assert f"warning: no feeds on {empty}" in capsys.readouterr().out
    assert manifest.empty_days == (empty,)
    assert empty not in manifest.days["train"]

    no_valid = replace(log, impressions=[row for row in log.impressions if (row["shown_at"] - START) // DAY != 3])
    message = refused(no_valid.write(tmp_path / "no_valid"), tmp_path / "x")
    day = day_name(START // DAY + 3)
    assert f"the valid split ({day} to {day}) has no feeds" in message
    message = refused(logs, tmp_path / "y", valid_days=4)
    assert "the train split" in message and "valid_days is 4" in message


def test_no_test_days_is_a_choice(logs, output):
    prepared = prepare(logs, SCHEMA, config(test_days=0), output)
    assert prepared.manifest.splits["test"].feeds == 0 and prepared.files("test") == []


def test_missing_columns_wrong_types_and_truncated_files(logs, output, tmp_path):
    message = refused(rewritten(random_log(1).write(tmp_path / "a"), "impressions", "room_id", None), output)
    assert "impressions/part-0.parquet: column `room_id`" in message and "is missing" in message
    message = refused(rewritten(random_log(1).write(tmp_path / "b"), "impressions", "user_id", lambda user: [user]), output)
    assert "column `user_id` is list<element: int64>, expected int64 or string" in message
    file = logs.files("engagements")[1]
    file.write_bytes(file.read_bytes()[:-40])
    message = refused(logs, output)
    assert f"{file} is not a whole Parquet file" in message
    assert not output.exists()


def test_a_schema_that_reads_what_the_log_does_not_have(logs, output):
    def with_column(column, of):
        return replace(SCHEMA, fields=(*SCHEMA.fields, Field(name="more", of=of, column=column)))

    assert "`state.price`" in refused(logs, output, with_column("state.price", "candidate"))
    message = refused(logs, output, with_column("user.city", "feed"))
    assert "the schema reads `user.city`, but table `users` has no column `city`. It has: user_id, age." in message
    for file in logs.files("streamers"):
        file.unlink()
    assert "but the log has no table `streamers`" in refused(logs, output)


def test_other_logs_or_settings_do_not_mix(logs, output, tmp_path, capsys):
    bad = random_log(1, feeds=60)
    bad = bad.planted("impressions", bad.impressions[0] | {"user_id": -1}).write(tmp_path / "bad")
    refused(bad, output, quarantine_limit=0.0)  # leaves unfinished work
    prepare(logs, SCHEMA, config(feed_most=3), output)
    printed = capsys.readouterr().out
    assert "is of something else (logs (" in printed and "prepare.feed_most (500 -> 3)); starting afresh" in printed
    message = refused(logs, output, feed_most=4)
    assert "holds a run with other settings: prepare.feed_most (3 -> 4)" in message
    message = refused(random_log(2).write(tmp_path / "others"), output, feed_most=3)
    assert "holds a run with other settings: logs (" in message
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    assert "mine holds files but no run.json" in refused(logs, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_weights_transforms_and_widths_need_no_new_preparation(logs, output, capsys):
    first = prepare(logs, SCHEMA, config(), output)
    spelling = SCHEMA.to_dict()
    spelling["targets"][0] |= {"loss_weight": 0.5, "fusion_weight": 3.0}
    spelling["targets"][2] |= {"head": "bins", "bins": 4, "parents": ["click"]}
    spelling["fields"][2]["width"] = spelling["histories"][1]["fields"][0]["width"] = 5  # one table: product
    schema = Schema.from_dict(spelling)
    capsys.readouterr()
    again = prepare(logs, schema, config(), output)
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert again.schema == schema and again.fingerprint == first.fingerprint
    assert Schema.from_dict(json.loads((output / "schema.json").read_text())) == SCHEMA


@pytest.mark.parametrize(
    "change",
    [
        lambda spelling: spelling["targets"][0].update(attribution_seconds=60.0),
        lambda spelling: spelling["targets"].reverse(),
        lambda spelling: spelling.update(preference_days=[7.0]),
        lambda spelling: spelling["stages"].update(order="click"),
        lambda spelling: spelling.update(stages=None),
        lambda spelling: spelling["fields"][3]["encoding"].update(transform="log1p"),
    ],
)
def test_labels_their_order_windows_stages_and_encodings_do(logs, output, change):
    prepare(logs, SCHEMA, config(extra_columns=()), output)
    spelling = SCHEMA.to_dict()
    change(spelling)
    message = refused(logs, output, Schema.from_dict(spelling), extra_columns=())
    assert "holds a run with other settings: schema." in message


def test_a_folder_of_an_older_version_is_refused_and_its_unfinished_work_thrown_away(logs, output, capsys):
    prepare(logs, SCHEMA, config(), output)
    run = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**run, "version of the tables": 1}))
    message = refused(logs, output)
    assert (
        f"with other settings: version of the tables (1 -> {TABLES}). Prepare into another folder, or delete this one"
        in message
    )
    (output / "manifest.json").unlink()
    prepare(logs, SCHEMA, config(), output)
    assert f"is of something else (version of the tables (1 -> {TABLES})); starting afresh" in capsys.readouterr().out
    (output / "run.json").unlink()  # which once there was not
    assert "holds files but no run.json: they are of something else, or of an earlier version" in refused(logs, output)


def test_a_value_that_never_was_positive_is_told(output, tmp_path, capsys):
    log = random_log(1)
    without = [{**row, "value": 0.0} if row["action"] == "order" else row for row in log.engagements]
    prepare(replace(log, engagements=without).write(tmp_path / "without"), SCHEMA, config(), output)
    printed = capsys.readouterr().out
    assert "target `paid`: no positive label on training days" in printed and "`stay`: no positive" not in printed


def test_a_dry_run_prints_the_plan_and_writes_nothing(logs, output, capsys):
    assert prepare(logs, SCHEMA, config(rows_per_bucket=100), output, dry_run=True) is None
    printed = capsys.readouterr().out
    rows = sum(len(pq.read_table(file)) for file in logs.files("impressions"))
    assert f"{rows:,} rows in 2 files" in printed and "buckets of about" in printed and "room_entries.1h" in printed
    assert not output.exists()


def test_a_text_that_is_to_be_a_number_is_told_before_anything_is_read(logs, output):
    message = refused(logs, output, replace(SCHEMA, fields=(*SCHEMA.fields, READER)))
    assert "field `noted` reads `state.note` as a number, but it is text in table `impressions`." in message
    assert not output.exists()


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"valid_days": 0}, "valid_days > 0"),
        ({"quarantine_limit": 1.5}, "0 <= quarantine_limit <= 1"),
        ({"earliest": "2100-01-01"}, "earliest < latest"),
        ({"test_days": 36_526}, "prepare needs test_days <= 36,525, got 36526."),
        ({"feeds_per_file": 2**31}, "prepare needs feeds_per_file <= 2,147,483,647, got 2147483648."),
        ({"clock": {"day_starts_hour": 24}}, "a clock needs 0 <= day_starts_hour < 24, got 24"),
        ({"bucket_rows": 3}, "`prepare.bucket_rows` is not a known key. Known here: clock,"),
    ],
)
def test_settings_that_make_no_sense(spelling, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        from_dict(PrepareConfig, spelling, where="prepare")
