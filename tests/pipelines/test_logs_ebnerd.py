"""EB-NeRD as canonical logs: hand-made files in its format, and the real ones where they are at hand."""

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from models.config import ConfigError
from pipelines.logs import EbnerdConfig, check, materialise
from pipelines.logs.sources import ebnerd
from tests.pipelines.logs_samples import NOON, ebnerd_articles, ebnerd_tables, write_ebnerd

MINUTE = 60_000
MAY_1_9H = 1_682_931_600_000  # 2023-05-01 09:00 UTC
REAL = Path(os.environ.get("LIVERANK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ebnerd"


def converted(tmp_path, **changed):
    return materialise(EbnerdConfig(path=write_ebnerd(tmp_path / "ebnerd", **changed)), tmp_path / "output")


def account(tmp_path):
    return json.loads((tmp_path / "output" / "rows.json").read_text())["files"]


def test_a_slate_is_a_feed_and_an_article_a_room(tmp_path):
    impressions = pl.read_parquet(converted(tmp_path).files("impressions"))
    assert impressions.columns == [
        "request_id", "user_id", "room_id", "shown_at", "position", "context.device", "context.page"
    ]  # fmt: skip
    assert impressions.rows() == [
        (11, 1, 101, NOON, 0, 2, "front"),
        (11, 1, 100, NOON, 1, 2, "front"),
        (11, 1, 102, NOON, 2, 2, "front"),
        (12, 1, 103, NOON + MINUTE, 0, 2, "article"),
        (12, 1, 101, NOON + MINUTE, 1, 2, "article"),
        (13, 2, 100, NOON + 2 * MINUTE, 0, 1, "front"),
        (13, 2, 102, NOON + 2 * MINUTE, 1, 1, "front"),
        (14, 2, 104, NOON + 3 * MINUTE, 0, 1, "front"),
        (14, 2, 105, NOON + 3 * MINUTE, 1, 1, "front"),
    ]


def test_clicks_enter_with_the_read_time_and_scrolls_come_when_it_is_over(tmp_path):
    engagements = pl.read_parquet(converted(tmp_path).files("engagements"))
    assert sorted(engagements.drop_nulls("request_id").rows()) == [
        (1, 100, NOON, "enter", 40.0, 11),
        (1, 100, NOON + 40_000, "scroll", 90.0, 11),
        (1, 103, NOON + MINUTE, "enter", 0.0, 12),  # nothing known of the reading
        (2, 100, NOON + 2 * MINUTE, "enter", 12.0, 13),  # the last of several clicks has the slate's reading
        (2, 100, NOON + 2 * MINUTE + 12_000, "scroll", 55.0, 13),
        (2, 102, NOON + 2 * MINUTE, "enter", 0.0, 13),  # clicked twice, entered once
    ]


def test_the_weeks_before_have_no_request(tmp_path):
    engagements = pl.read_parquet(converted(tmp_path).files("engagements"))
    assert sorted(engagements.filter(pl.col("request_id").is_null()).rows()) == [
        (1, 90, MAY_1_9H, "enter", 20.0, None),
        (1, 90, MAY_1_9H + 20_000, "scroll", 100.0, None),
        (1, 91, MAY_1_9H + 60 * MINUTE, "enter", 0.0, None),  # scrolling unknown
    ]


def test_of_a_user_the_first_known_attributes_count(tmp_path):
    users = pl.read_parquet(converted(tmp_path).files("users"))
    assert users.to_dicts() == [
        {"user_id": 1, "is_subscriber": False, "is_sso_user": True, "gender": 1, "postcode": None, "age": 50},
        {"user_id": 2, "is_subscriber": True, "is_sso_user": False, "gender": None, "postcode": None, "age": None},
    ]


def test_batches_change_nothing(tmp_path, monkeypatch):
    whole = converted(tmp_path / "whole")
    small = [replace(kind, layout=replace(kind.layout, rows_at_once=1)) for kind in ebnerd.DATA.kinds]
    monkeypatch.setattr(ebnerd, "DATA", replace(ebnerd.DATA, kinds=tuple(small)))
    parts = converted(tmp_path / "parts")
    for table in ("impressions", "engagements", "users"):
        expected, found = (pl.read_parquet(logs.files(table)).rows() for logs in (whole, parts))
        assert sorted(found, key=str) == sorted(expected, key=str)


def test_what_is_known_only_after_the_visit_is_not_in_the_logs(tmp_path):
    """`read_time` and `scroll_percentage` of a slate's page change nothing."""
    changed = ebnerd_tables()["behaviors"].with_columns(read_time=pl.lit(999.0), scroll_percentage=pl.lit(1.0))
    assert converted(tmp_path / "a").fingerprint() == converted(tmp_path / "b", behaviors=changed).fingerprint()


def test_articles_are_optional_and_become_rooms(tmp_path):
    assert not converted(tmp_path / "without").has("rooms")
    rooms = pl.read_parquet(converted(tmp_path / "with", articles=ebnerd_articles()).files("rooms"))
    assert rooms.to_dicts() == [
        {"room_id": 100, "start_at": NOON - 360 * MINUTE, "category": 118, "article_type": "article_default", "premium": False},
        {
            "room_id": 101,
            "start_at": NOON - 780 * MINUTE,
            "category": 140,
            "article_type": "article_standard_feature",
            "premium": True,
        },
    ]


@pytest.mark.parametrize("file", ["behaviors", "history"])
def test_a_missing_file(tmp_path, file):
    with pytest.raises(ConfigError, match=rf"logs\.path: .* has no {file}\.parquet\. EB-NeRD is looked for there: behav"):
        converted(tmp_path, **{file: None})
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(("file", "column"), [("behaviors", "next_read_time"), ("history", "article_id_fixed")])
def test_a_missing_column(tmp_path, file, column):
    with pytest.raises(ConfigError, match=rf"{file}\.parquet: column `{column}` is missing\. Needed: "):
        converted(tmp_path, **{file: ebnerd_tables()[file].drop(column)})
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("column", "changed", "message"),
    [
        ("impression_time", pl.lit(True), r"behaviors\.parquet: column `impression_time`: is bool, expected a time"),
        ("article_ids_inview", pl.lit(5), r"column `article_ids_inview`: is int32, expected a list of ids"),
    ],
)
def test_another_type(tmp_path, column, changed, message):
    with pytest.raises(ConfigError, match=message):
        converted(tmp_path, behaviors=ebnerd_tables()["behaviors"].with_columns(changed.alias(column)))


def test_lists_that_are_not_parallel(tmp_path):
    short = ebnerd_tables()["history"].with_columns(pl.col("read_time_fixed").list.head(1))
    with pytest.raises(ConfigError, match=r"1 of 2 rows of history\.parquet make no sense .*: its lists differ in length: 1"):
        converted(tmp_path, history=short)


def test_every_row_is_accounted_for(tmp_path):
    converted(tmp_path, articles=ebnerd_articles())
    counts = account(tmp_path)
    assert {name: (of["rows"], of["used"], of["left_out"]) for name, of in counts.items()} == {
        "behaviors.parquet": (4, 4, {}),
        "history.parquet": (2, 1, {"nothing was read": 1}),
        "articles.parquet": (2, 2, {}),
    }
    assert counts["behaviors.parquet"]["made"] == {"impressions": 9, "engagements": 6, "people": 4}


def test_columns_in_another_order_and_a_further_one_change_nothing(tmp_path, capsys):
    plain = converted(tmp_path / "a")
    behaviors = ebnerd_tables()["behaviors"]
    changed = behaviors.select(behaviors.columns[::-1]).with_columns(newer=pl.lit(1))
    assert converted(tmp_path / "b", behaviors=changed).fingerprint() == plain.fingerprint()
    assert "behaviors.parquet: columns that are not read: newer." in capsys.readouterr().out


def test_damage_inside_of_a_file(tmp_path):
    folder = write_ebnerd(tmp_path / "ebnerd")
    file = folder / "behaviors.parquet"
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)  # the footer stays as it was
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"behaviors\.parquet is cut short or damaged \("):
        materialise(EbnerdConfig(path=folder), tmp_path / "output")
    file.write_bytes(content[:-9])
    with pytest.raises(ConfigError, match=r"behaviors\.parquet is not a whole Parquet file"):
        materialise(EbnerdConfig(path=folder), tmp_path / "output")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no EB-NeRD at {REAL}; LIVERANK_DATA names another folder")
def test_the_real_files(tmp_path):
    logs = materialise(EbnerdConfig(path=REAL), tmp_path / "output")
    assert check(logs) == []
    behaviors = pl.read_parquet(REAL / "behaviors.parquet")
    impressions = pl.read_parquet(logs.files("impressions"))
    assert impressions["request_id"].n_unique() == 24_724
    assert impressions.height == behaviors["article_ids_inview"].list.len().sum() == 278_139
    days = impressions.group_by(day=(pl.col("shown_at") - NOON + 300 * MINUTE) // (1440 * MINUTE)).len().sort("day")
    assert days["day"].to_list() == [0, 1, 2, 3, 4, 5, 6]  # 24 hours each, from 07:00 UTC
    assert days["len"][-1] == 37_851

    engagements = pl.read_parquet(logs.files("engagements"))
    entered = engagements.filter(pl.col("action") == "enter")
    in_slates = entered.drop_nulls("request_id")
    assert in_slates.height == behaviors["article_ids_clicked"].list.n_unique().sum()
    assert in_slates.join(impressions, on=["request_id", "user_id", "room_id"], how="anti").height == 0
    assert in_slates["value"].sum() == behaviors["next_read_time"].sum()
    assert entered.height - in_slates.height == 258_318
    assert entered.filter(pl.col("request_id").is_null())["at"].max() < impressions["shown_at"].min()
    assert datetime.fromtimestamp(entered["at"].min() / 1000).year == 2023


def test_scrolls_of_the_real_format_stay_in_percent(tmp_path):
    engagements = pl.read_parquet(converted(tmp_path).files("engagements"))
    scrolls = engagements.filter(pl.col("action") == "scroll")["value"]
    assert scrolls.is_between(0, 100).all()
    assert scrolls.max() == 100.0
