"""Data checks: a clean log gives no warning; each planted fault gives its own and no other."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError, from_dict, to_dict
from models.schema import Schema
from pipelines.check import Calendar, CheckConfig, Checked, check_logs
from pipelines.encode.clock import DAY_MS, HOUR_MS, Clock
from pipelines.logs.canonical import CanonicalLogs

FIRST = 20_240 * DAY_MS  # 2025-06-01 00:00 UTC
NOW = FIRST + 30 * DAY_MS
USERS, ROOMS, DAYS, FEEDS = 60, 40, 6, 150

Tables = dict[str, pl.DataFrame]


def schema(**changes) -> Schema:
    spelling = {
        "fields": [
            {"name": "device", "of": "feed", "column": "context.device"},
            {"name": "gender", "of": "feed", "column": "user.gender"},
            {"name": "viewers", "of": "candidate", "column": "state.viewers", "encoding": {"kind": "number"}},
            {"name": "fans", "of": "candidate", "column": "streamer.fans", "encoding": {"kind": "number"}},
            {"name": "age", "of": "candidate", "column": "room_age_hours", "encoding": {"kind": "number"}},
            {"name": "streamer", "of": "candidate", "column": "streamer_id"},
        ],
        "targets": [
            {"name": "click", "action": "enter"},
            {"name": "long", "action": "enter", "at_least": 30, "parents": ["click"]},
            {"name": "order", "action": "order", "parents": ["click"]},
            {"name": "stay", "action": "enter", "kind": "value", "parents": ["click"]},
        ],
        "levels": {"of": "streamer"},
    }
    return from_dict(Schema, {**spelling, **changes})


def clean_log() -> Tables:
    """6 days of 150 feeds of 4 rooms: 3,600 impressions, every fourth of them entered, every twelfth ordered."""
    rng = np.random.default_rng(5)
    feeds = DAYS * FEEDS
    day = np.arange(feeds) // FEEDS
    at_R = FIRST + day * DAY_MS + (np.arange(feeds) % FEEDS) * (DAY_MS // FEEDS) + 123
    user_R = 1000 + rng.permuted(np.arange(feeds) % USERS)
    room = np.concatenate([rng.choice(ROOMS, 4, replace=False) for _ in range(feeds)]) + 500
    feed = np.repeat(np.arange(feeds), 4)
    impressions = pl.DataFrame(
        {
            "request_id": 70_000 + feed,
            "user_id": user_R[feed],
            "room_id": room,
            "shown_at": at_R[feed],
            "position": np.arange(4 * feeds) % 4,
            "context.device": np.array(["ios", "android", "web"])[rng.integers(0, 3, feeds)][feed],
            "state.viewers": rng.integers(1, 5000, 4 * feeds),
        }
    )
    entered = impressions[np.arange(1, 4 * feeds, 4)]
    ordered = impressions[np.arange(2, 4 * feeds, 12)]
    done = lambda rows, action, value: rows.select(
        "request_id",
        "user_id",
        "room_id",
        (pl.col("shown_at") + 4000 + pl.int_range(pl.len()) % 977).alias("at"),
        pl.lit(action).alias("action"),
        pl.Series("value", value, pl.Float64),
    )
    engagements = pl.concat(
        [
            done(entered, "enter", rng.integers(50, 900, len(entered)) / 10),
            done(ordered, "order", rng.integers(100, 9000, len(ordered)) / 100),
        ]
    )
    clicks = pl.DataFrame({"user_id": user_R, "product_id": 900 + np.arange(feeds) % 37, "at": at_R + 40_000})
    users = pl.DataFrame({"user_id": 1000 + np.arange(USERS), "gender": ["f", "m", None] * (USERS // 3)})
    rooms = pl.DataFrame(
        {
            "room_id": 500 + np.arange(ROOMS),
            "streamer_id": 300 + np.arange(ROOMS) % 25,
            "start_at": FIRST - HOUR_MS * (1 + np.arange(ROOMS)),
            "end_at": FIRST + 7 * DAY_MS + np.arange(ROOMS) * 60_001,
        }
    )
    streamers = pl.DataFrame({"streamer_id": 300 + np.arange(25), "fans": 10 + 13 * np.arange(25)})
    products = pl.DataFrame({"product_id": 900 + np.arange(37), "category": ["a", "b", "c"] * 12 + ["a"]})
    return {
        "impressions": impressions,
        "engagements": engagements,
        "product_clicks": clicks,
        "users": users,
        "rooms": rooms,
        "streamers": streamers,
        "products": products,
    }


def write(tables: Tables, folder: Path, parts: int = 3) -> CanonicalLogs:
    for name, table in tables.items():
        (folder / name).mkdir(parents=True)
        for part in range(parts):
            table.gather_every(parts, part).write_parquet(folder / name / f"{part}.parquet")
    return CanonicalLogs(folder)


def calendar(**changes) -> Calendar:
    values = {"valid_days": 1, "test_days": 1, "earliest": "2000-01-01", "latest": "2100-01-01"}
    return from_dict(Calendar, {"clock": to_dict(Clock()), **values, **changes})


def checked(tables: Tables, folder: Path, config: CheckConfig | None = None, **changes) -> Checked:
    logs = write(tables, folder / "logs")
    return check_logs(
        logs, changes.get("schema", schema()), calendar(), config or CheckConfig(), folder / "check", run="planted", now=NOW
    )


def changed(tables: Tables, table: str, *columns: pl.Expr) -> Tables:
    return {**tables, table: tables[table].with_columns(*columns)}


def kept(tables: Tables, table: str, rows: pl.Expr) -> Tables:
    return {**tables, table: tables[table].filter(rows)}


def added(tables: Tables, table: str, rows: pl.DataFrame) -> Tables:
    return {**tables, table: pl.concat([tables[table], rows.select(tables[table].columns)], how="vertical_relaxed")}


day_of = lambda column: (pl.col(column) - FIRST) // DAY_MS


def when(column: str, condition: pl.Expr, value) -> pl.Expr:
    return pl.when(condition).then(value).otherwise(pl.col(column)).alias(column)


def _orders_gone_on_day_3(log: Tables) -> Tables:
    return kept(log, "engagements", ~((pl.col("action") == "order") & (day_of("at") == 3)))


def _orders_by_ten_on_day_2(log: Tables) -> Tables:
    orders = log["engagements"].filter((pl.col("action") == "order") & (day_of("at") == 2))
    more = [orders.with_columns(pl.col("at") + 1000 * again) for again in range(1, 11)]
    return added(log, "engagements", pl.concat(more))


def _milliseconds_of_stay(log: Tables) -> Tables:
    value = when("value", (pl.col("action") == "enter") & (day_of("at") == 4), pl.col("value") * 1000)
    return changed(log, "engagements", value)


def _day_half_as_long(log: Tables) -> Tables:
    keep = lambda column: (day_of(column) != 3) | (pl.col(column) < FIRST + 3 * DAY_MS + 12 * HOUR_MS)
    log = kept(log, "impressions", keep("shown_at"))
    return kept(log, "engagements", keep("at"))


def _last_day_cut_short(log: Tables) -> Tables:
    keep = lambda column: pl.col(column) < FIRST + 5 * DAY_MS + 8 * HOUR_MS
    log = kept(log, "impressions", keep("shown_at"))
    return kept(log, "engagements", keep("at"))


def _day_thin(log: Tables) -> Tables:
    return kept(log, "impressions", (day_of("shown_at") != 3) | (pl.col("request_id") % 15 == 0))  # and all engagements


def _engagements_before_impressions(log: Tables) -> Tables:
    return changed(log, "engagements", when("at", pl.col("room_id") % 2 == 0, pl.col("at") - 9000))


def _other_time_zone(log: Tables) -> Tables:
    return changed(log, "engagements", pl.col("at") + 8 * HOUR_MS)


def _one_user_has_a_fifth(log: Tables) -> Tables:
    log = changed(log, "impressions", when("user_id", pl.col("request_id") % 5 == 0, 1007))
    return changed(log, "engagements", when("user_id", pl.col("request_id") % 5 == 0, 1007))


def _times_without_hours(log: Tables) -> Tables:
    return changed(log, "product_clicks", pl.col("at") // DAY_MS * DAY_MS)


def _whole_hours(log: Tables) -> Tables:
    return changed(log, "product_clicks", pl.col("at") // HOUR_MS * HOUR_MS + (pl.col("at") // HOUR_MS % 24 == 0) * 17)


def _day_gone(log: Tables) -> Tables:
    log = kept(log, "impressions", day_of("shown_at") != 2)
    return kept(log, "engagements", day_of("at") != 2)


def _gifts(log: Tables) -> Tables:
    return changed(log, "engagements", when("action", pl.col("request_id") % 7 == 0, pl.lit("gift")))


def _ids_of_another_system(log: Tables) -> Tables:
    return changed(log, "engagements", pl.col("request_id") + 10_000_000)


def _ids_of_another_system_on_day_1(log: Tables) -> Tables:
    return changed(log, "engagements", when("request_id", day_of("at") == 1, pl.col("request_id") + 10_000_000))


def _placeholder_request(log: Tables) -> Tables:
    nothing = pl.col("request_id") % 40 == 0
    log = changed(log, "impressions", when("request_id", nothing, 0))
    return changed(log, "engagements", when("request_id", nothing, 0))


def _requests_start_anew(log: Tables) -> Tables:
    """Every user's last request has the id of the first one."""
    feeds = log["impressions"].group_by("user_id").agg(pl.col("request_id").min().alias("first"), pl.col("request_id").max())
    anew = {last: first for first, last in feeds.select("first", "request_id").iter_rows()}
    again = pl.col("request_id").replace(anew)
    return changed(changed(log, "impressions", again), "engagements", again)


def _placeholder_room(log: Tables) -> Tables:
    text = pl.col("room_id").cast(pl.String)
    events = {name: log[name].with_columns(_null(text)) for name in ("impressions", "engagements")}
    return {**log, **events, "rooms": log["rooms"].with_columns(_null(text, most=500))}


def _null(room: pl.Expr, most: int = 513) -> pl.Expr:
    return pl.when(room.cast(pl.Int64) <= most).then(pl.lit("null")).otherwise(room).alias("room_id")


def _rooms_start_late(log: Tables) -> Tables:
    return changed(log, "rooms", when("start_at", pl.col("room_id") == 517, FIRST + DAY_MS))


def _rooms_ended(log: Tables) -> Tables:
    return changed(log, "rooms", when("end_at", pl.col("room_id").is_in([517, 518]), FIRST + DAY_MS))


def _renamed(log: Tables) -> Tables:
    before, device = day_of("shown_at") < 3, pl.col("context.device")
    return changed(
        log,
        "impressions",
        pl.when(before).then(device).alias("context.device"),
        pl.when(~before).then(device).alias("context.dev"),
    )


def _far_future(log: Tables) -> Tables:
    row = log["impressions"][:2].with_columns(pl.col("shown_at") + 3650 * DAY_MS, pl.col("request_id") + 5_000_000)
    return added(log, "impressions", row)


def _before_2000(log: Tables) -> Tables:
    row = log["impressions"][:2].with_columns(pl.col("shown_at") * 0 + 5, pl.col("request_id") + 5_000_000)
    return added(log, "impressions", row)


def _twice(log: Tables) -> Tables:
    return added(log, "engagements", log["engagements"][::20])


def _snapshots(log: Tables, column: str) -> Tables:
    """A row for each user and day; what nobody knew of a user's gender is known from the fourth day on."""
    gender = pl.col("gender").fill_null("f")
    days = [
        log["users"].with_columns(pl.lit(FIRST + day * DAY_MS).alias(column), gender if day > 2 else pl.col("gender"))
        for day in range(DAYS)
    ]
    return {**log, "users": pl.concat(days)}


def _handed_on(log: Tables, rooms: int) -> Tables:
    """Of rooms that have rows before the log and from its third day on, some are of another streamer then."""
    first = log["rooms"].with_columns(
        pl.lit(FIRST - 9 * DAY_MS).alias("valid_from"), when("streamer_id", pl.col("room_id") > 530, None)
    )
    later = log["rooms"].with_columns(
        pl.lit(FIRST + 2 * DAY_MS).alias("valid_from"),
        when("streamer_id", pl.col("room_id") < 500 + rooms, pl.col("streamer_id") + 1),
    )
    return {**log, "rooms": pl.concat([first, later])}


def _another(log: Tables, gender: str) -> Tables:
    return added(log, "users", log["users"][:1].with_columns(pl.lit(gender).alias("gender")))


def _missing_users(log: Tables) -> Tables:
    return changed(log, "impressions", when("user_id", pl.col("request_id") % 100 == 0, None))


PLANTED: dict[str, tuple[Callable[[Tables], Tables], set[str]]] = {
    "orders gone on a day": (_orders_gone_on_day_3, {"rate_jump:order"}),
    "ten times the orders": (_orders_by_ten_on_day_2, {"rate_jump:order"}),
    "stay in milliseconds": (_milliseconds_of_stay, {"value_jump:stay"}),
    "a day half as long": (_day_half_as_long, {"short_day:2025-06-04"}),
    "last day cut": (_last_day_cut_short, {"short_day:2025-06-06"}),
    "thin day": (_day_thin, {"few_rows:2025-06-04"}),
    "labels before impressions": (_engagements_before_impressions, {"early_labels:engagements.at"}),
    "time zone": (_other_time_zone, {"time_zone:engagements.at"}),
    "one user": (_one_user_has_a_fifth, {"heavy_user:impressions.user_id", "heavy_user:engagements.user_id"}),
    "midnights": (_times_without_hours, {"midnight:product_clicks.at"}),
    "whole hours": (_whole_hours, {"whole_hours:product_clicks.at"}),
    "missing day": (_day_gone, {"missing_day:2025-06-03"}),
    "action nobody reads": (_gifts, {"unread_action:gift"}),
    "action that never occurs": (lambda log: kept(log, "engagements", pl.col("action") != "order"), {"action_never:order"}),
    "threshold never reached": (
        lambda log: changed(log, "engagements", when("value", pl.col("action") == "enter", pl.col("value") / 1000)),
        {"action_never:long"},
    ),
    "nothing credited": (_ids_of_another_system, {"not_credited:engagements"}),
    "nothing credited on a day": (_ids_of_another_system_on_day_1, {"not_credited:2025-06-02"}),
    "placeholder request": (_placeholder_request, {"placeholder:impressions.request_id"}),
    "requests start anew": (_requests_start_anew, {"reused_request:impressions.request_id"}),
    "placeholder room": (_placeholder_room, {"placeholder:impressions.room_id", "placeholder:engagements.room_id"}),
    "shown before the start": (_rooms_start_late, {"before_start:rooms.start_at"}),
    "shown after the end": (_rooms_ended, {"after_end:rooms.end_at"}),
    "constant": (lambda log: changed(log, "users", pl.lit("f").alias("gender")), {"constant:users.gender"}),
    "constant, unread": (
        lambda log: changed(log, "impressions", pl.lit(3).alias("context.app")),
        {"constant:impressions.context.app"},
    ),
    "position always 0": (
        lambda log: changed(log, "impressions", pl.lit(0).alias("position")),
        {"position:impressions.position"},
    ),
    "no value at all": (
        lambda log: changed(log, "impressions", pl.lit(None, pl.String).alias("context.device")),
        {"all_null:impressions.context.device"},
    ),
    "no value on training days": (
        lambda log: changed(log, "impressions", when("state.viewers", day_of("shown_at") < 4, None)),
        {"null_on_training:impressions.state.viewers"},
    ),
    "renamed": (_renamed, {"some_days_only:impressions.context.device", "some_days_only:impressions.context.dev"}),
    "future": (_far_future, {"future:impressions.shown_at"}),
    "before 2000": (_before_2000, {"implausible:impressions.shown_at"}),
    "delivered twice": (_twice, {"duplicates:engagements"}),
    "no user": (_missing_users, {"missing_id:impressions.user_id"}),
    "few users known": (lambda log: kept(log, "users", pl.col("user_id") % 2 == 0), {"coverage:users:impressions.user_id"}),
    "no streamer known": (
        lambda log: changed(log, "streamers", pl.col("streamer_id") + 5000),
        {"coverage:streamers:rooms.streamer_id"},
    ),
    "several rows an id": (lambda log: added(log, "users", log["users"][:5]), {"repeated_ids:users"}),
    "snapshots of every day": (lambda log: _snapshots(log, "day"), {"differing_rows:users"}),
    "snapshots that say from when they hold": (lambda log: _snapshots(log, "valid_from"), set()),
    "two rows for one time": (lambda log: _another(_snapshots(log, "valid_from"), "x"), {"differing_rows:users"}),
    "a row for one time twice": (lambda log: _another(_snapshots(log, "valid_from"), "f"), {"repeated_ids:users"}),
    "rooms that change their streamer": (lambda log: _handed_on(log, 3), {"several_streamers:rooms.streamer_id"}),
    "rooms whose streamer is known later": (lambda log: _handed_on(log, 0), set()),
    "holding from seconds on": (
        lambda log: changed(_snapshots(log, "valid_from"), "users", pl.col("valid_from") // 1000),
        {"implausible:users.valid_from"},
    ),
    "holding from nobody knows when": (
        lambda log: changed(_snapshots(log, "valid_from"), "users", when("valid_from", pl.col("user_id") == 1007, None)),
        {"missing_id:users.valid_from"},
    ),
    "infinite": (
        lambda log: changed(log, "streamers", when("fans", pl.col("fans") == 10, float("inf"))),
        {"not_finite:streamers.fans"},
    ),
    "largest double": (
        lambda log: changed(log, "streamers", when("fans", pl.col("fans") == 10, float(np.finfo(np.float64).max))),
        {"not_finite:streamers.fans"},
    ),
    "minus one": (
        lambda log: changed(log, "impressions", when("state.viewers", pl.col("state.viewers") < 300, -1)),
        {"sentinel:impressions.state.viewers"},
    ),
    "nines": (
        lambda log: changed(log, "impressions", when("state.viewers", pl.col("state.viewers") < 300, 999_999)),
        {"sentinel:impressions.state.viewers"},
    ),
}


def test_a_clean_log_has_no_warnings(tmp_path):
    result = checked(clean_log(), tmp_path)
    assert result.findings == ()
    facts = result.facts
    assert facts.rows["impressions"] == 3600 and facts.users == 60
    assert [day.split for day in facts.days] == ["train"] * 4 + ["valid", "test"]
    for day in facts.days:
        assert day.rows == {"impressions": 600, "engagements": 200, "product_clicks": 150}
        assert day.rates == {"enter": 150 / 600, "order": 50 / 600}
        assert (day.asked, day.credited) == (200, 200)
        assert day.first["impressions"] % DAY_MS == 123
    assert sum(day.new_users for day in facts.days) == 60 and sum(day.new_rooms for day in facts.days) == 40
    assert {cover.column: (cover.ids, cover.known_ids) for cover in facts.coverage} == {
        "impressions.user_id": (60, 60),
        "impressions.room_id": (40, 40),
        "rooms.streamer_id": (25, 25),
        "product_clicks.product_id": (37, 37),
    }


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_gives_its_warning_and_no_other(fault, tmp_path):
    plant, names = PLANTED[fault]
    result = checked(plant(clean_log()), tmp_path)
    assert {finding.name for finding in result.findings} == names


def test_numbers_of_columns(tmp_path):
    log = clean_log()
    log = changed(log, "streamers", when("fans", pl.col("fans") == 10, float("nan")), pl.lit(None).alias("nothing"))
    facts = checked(log, tmp_path).facts
    column = {(item.table, item.name): item for item in facts.columns}
    device = column["impressions", "context.device"]
    expected = log["impressions"]["context.device"].value_counts(sort=True)
    assert [(item.value, item.rows) for item in device.commonest] == list(expected.iter_rows())
    assert (device.distinct, device.distinct_is_exact, device.types) == (3, True, {"large_string": 3})
    fans = column["streamers", "fans"]
    assert (fans.low, fans.high, fans.nan, fans.missing) == (23, 322, 1, 0)
    assert fans.quantiles[2] == pytest.approx(np.median(10 + 13 * np.arange(1, 25)), rel=1 / 4096)
    gender = column["users", "gender"]
    assert (gender.rows, gender.missing, gender.distinct) == (60, 20, 2)
    value = column["engagements", "value"]
    assert value.quantiles[2] == pytest.approx(log["engagements"]["value"].median(), rel=1e-3)
    position = column["impressions", "position"]
    assert position.sentinels == {"0": 900} and position.is_read
    assert column["impressions", "state.viewers"].known_by_day == {day.date: 600 for day in facts.days}
    assert not column["products", "category"].is_read


def test_a_column_of_lists_is_counted_and_not_looked_into(tmp_path):
    log = changed(clean_log(), "rooms", pl.lit([1, 2]).alias("tags"), pl.struct("room_id").alias("box"))
    facts = checked(log, tmp_path).facts
    tags, box = (next(column for column in facts.columns if column.name == name) for name in ("tags", "box"))
    assert (tags.examined, tags.rows, tags.missing) == (False, 40, 0) and not box.examined


def test_times_numbers_and_columns_of_folders_are_read_as_prepare_reads_them(tmp_path):
    log = clean_log()
    logs = write(log, tmp_path / "logs", parts=1)
    plain = check_logs(logs, schema(), calendar(), CheckConfig(), tmp_path / "check", now=NOW).facts
    shown, done = (log[name].to_arrow() for name in ("impressions", "engagements"))
    when = lambda table, name, kind: table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    shown = when(shown, "shown_at", pa.timestamp("ms"))
    done = when(when(done, "at", pa.timestamp("ms")), "value", pa.decimal128(12, 4))
    done = when(done, "at", pa.timestamp("us", "Asia/Shanghai"))
    pq.write_table(done, tmp_path / "logs" / "engagements" / "0.parquet")
    (tmp_path / "logs" / "impressions" / "0.parquet").unlink()
    for device in ("ios", "android", "web"):
        part = shown.filter(pc.equal(shown["context.device"], device)).drop_columns(["context.device"])
        (tmp_path / "logs" / "impressions" / f"context.device={device}").mkdir()
        pq.write_table(part, tmp_path / "logs" / "impressions" / f"context.device={device}" / "0.parquet")
    result = check_logs(logs, schema(), calendar(), CheckConfig(), tmp_path / "check", now=NOW)
    assert result.findings == () and result.facts.days == plain.days and result.facts.answers == plain.answers
    columns = {(column.table, column.name): column for column in result.facts.columns}
    for before in plain.columns:
        after = columns[before.table, before.name]
        assert (after.distinct, after.missing, after.low, after.high, after.commonest[0].rows) == (
            before.distinct,
            before.missing,
            before.low,
            before.high,
            before.commonest[0].rows,
        )


def test_what_prepare_refuses_is_refused(tmp_path):
    log = changed(clean_log(), "users", (pl.int_range(pl.len()) + 0.5).alias("gender"))
    logs = write(log, tmp_path / "logs")
    pq.write_table(pa.table({"user_id": [1], "gender": ["f"]}), tmp_path / "logs" / "users" / "9.parquet")
    with pytest.raises(ConfigError, match=r"column `gender` is .*string, but double in .*Write one type in all files"):
        check_logs(logs, schema(), calendar(), CheckConfig(), tmp_path / "check", now=NOW)


def test_the_largest_doubles_and_halves_of_positions_end_no_check(tmp_path):
    """Their sum is infinite, which JSON does not know; and no schema reads a position."""
    largest = float(np.finfo(np.float64).max)
    log = changed(clean_log(), "engagements", when("value", pl.col("room_id") % 10 == 0, largest))
    log = changed(log, "impressions", pl.lit(1.5).alias("position"))
    facts = checked(log, tmp_path).facts
    assert {round(day.means["stay"]) for day in facts.days} < set(range(1000))
    assert next(column.high for column in facts.columns if column.name == "value") == largest


def test_json_is_read_back_as_it_was(tmp_path):
    result = checked(_renamed(clean_log()), tmp_path)
    assert from_dict(Checked, json.loads((tmp_path / "check" / "check.json").read_text())) == result
    page = (tmp_path / "check" / "report.html").read_text()
    assert "some_days_only:impressions.context.device" in page and "<svg" in page and "http" not in page


def test_what_is_accepted_is_counted_and_not_told(tmp_path, capsys):
    result = checked(_renamed(clean_log()), tmp_path, CheckConfig(accepted=("some_days_only",)))
    assert result.findings == () and len(result.accepted) == 2
    assert "2 accepted by check.accepted" in capsys.readouterr().out


def test_long_users_are_told_by_id(tmp_path):
    log = clean_log()
    rows = sum(log[name].filter(pl.col("user_id") == 1003).height for name in ("impressions", "engagements", "product_clicks"))
    log = added(log, "product_clicks", pl.DataFrame({"user_id": 1003, "product_id": 900, "at": FIRST + np.arange(60) * 7}))
    result = checked(log, tmp_path, CheckConfig(user_rows=rows + 50))
    assert [finding.name for finding in result.findings] == ["long_user:1003"]
    assert f"user 1003 has {rows + 60:,} rows" in result.findings[0].told


@pytest.mark.parametrize("sample_rows", [2_000, 700])
def test_a_sample_of_users_says_the_same(sample_rows, tmp_path):
    result = checked(_engagements_before_impressions(clean_log()), tmp_path, CheckConfig(sample_rows=sample_rows))
    answers = result.facts.answers
    assert answers.user_share < 1 and answers.credited == answers.asked > 0
    assert [finding.name for finding in result.findings] == ["early_labels:engagements.at"]


def test_a_user_with_most_rows_does_not_push_out_the_sample(tmp_path):
    log = _one_user_has_a_fifth(clean_log())
    answers = checked(log, tmp_path, CheckConfig(sample_rows=5_000)).facts.answers
    assert (answers.left_out, answers.user_share) == (1, 1.0)
    assert answers.asked == log["engagements"].filter(pl.col("user_id") != 1007).height


def test_without_request_ids_the_latest_impression_is_answered(tmp_path):
    log = {name: table.drop("request_id", strict=False) for name, table in clean_log().items()}
    result = checked(log, tmp_path)
    assert result.findings == ()
    assert (result.facts.answers.asked, result.facts.answers.credited) == (1200, 1200)
    assert result.facts.answers.median_seconds == pytest.approx(4.3, abs=0.1)
    late = changed(log, "engagements", pl.col("at") + 2 * HOUR_MS + 600_000)
    (found,) = checked(late, tmp_path / "late").findings
    assert found.name == "not_credited:engagements"


def test_days_begin_where_the_platform_says(tmp_path):
    logs = write(clean_log(), tmp_path / "logs")
    shifted = calendar(clock={"utc_offset_hours": 1.0, "day_starts_hour": 4})
    facts = check_logs(logs, schema(), shifted, CheckConfig(), tmp_path / "check", now=NOW).facts
    assert facts.days[0].date == "2025-05-31"  # 00:00 UTC is 01:00 there, before the day begins
    assert facts.days[0].rows["impressions"] == 4 * 19  # 19 feeds, 9.6 minutes apart, in the first 3 hours


def test_columns_of_any_type_and_files_without_rows(tmp_path):
    """Whatever Parquet holds is counted, at least its nulls."""
    log = clean_log()
    logs = write(log, tmp_path / "logs")
    shown = log["impressions"].to_arrow()
    rows = len(shown)
    odd = {
        "context.nothing": pa.nulls(rows),
        "context.dictionary": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
        "context.decimal": pa.array([Decimal(place) / 100 for place in range(rows)], pa.decimal128(12, 2)),
        "context.large": pa.array(np.arange(rows, dtype=np.uint64) + 2**63),
        "context.half": pa.array(np.arange(rows) % 50, pa.float16()),
        "context.flag": pa.array([True, False] * (rows // 2)),
        "when": pa.array(np.arange(rows) * 1000, pa.timestamp("us", "UTC")),
        "date": pa.array(np.arange(rows), pa.int32()).cast(pa.date32()),
        "tags": pa.array([["a", "b"]] * rows),
        "box": pa.array([{"a": 1}] * rows),
        "raw": pa.array([b"a\xff"] * rows),
    }
    for name, column in odd.items():
        shown = shown.append_column(name, column)
    for part in range(3):
        (tmp_path / "logs" / "impressions" / f"{part}.parquet").unlink()
    pq.write_table(shown, tmp_path / "logs" / "impressions" / "0.parquet")
    pq.write_table(shown.slice(0, 0), tmp_path / "logs" / "impressions" / "1.parquet")
    result = check_logs(logs, schema(), calendar(), CheckConfig(), tmp_path / "check", now=NOW)
    assert {finding.name for finding in result.findings} == {"all_null:impressions.context.nothing"}
    columns = {column.name: column for column in result.facts.columns if column.table == "impressions"}
    assert columns["context.dictionary"].commonest[0].rows == rows // 2 and columns["context.decimal"].high == (rows - 1) / 100
    assert columns["context.large"].distinct == rows and columns["context.half"].distinct == 50
    assert [columns[name].examined for name in ("when", "date", "tags", "box", "raw")] == [True, False, False, False, False]
