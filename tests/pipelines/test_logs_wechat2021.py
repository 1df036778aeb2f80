"""WeChat Big Data Challenge 2021 as canonical logs: hand-made files in its format, and the real sample where it is at hand."""

import os
from pathlib import Path

import polars as pl
import pytest

from models.config import ConfigError
from pipelines.experiment import load_experiment
from pipelines.logs import Wechat2021Config, materialise, wechat2021
from pipelines.steps import check_step, prepare_step

DAY_1, DAY = 1_609_459_200_000, 86_400_000
REAL = Path(os.environ.get("LIVERANK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "wechat2021"
ACTIONS = """userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,favorite
8,70,1,1,0,0,1,500,5366,0,0,0,0
9,70,1,2,0,0,0,250,500,0,0,0,0
8,71,1,1,1,0,0,4000,900000,1,0,0,0
8,72,2,1,0,0,0,250,,0,1,0,0
8,70,1,1,0,0,0,0,1000,0,0,0,0
"""
VIDEOS = """feedid,authorid,videoplayseconds,description,ocr,asr,bgm_song_id,bgm_singer_id,manual_keyword_list,\
machine_keyword_list,manual_tag_list,machine_tag_list,description_char,ocr_char,asr_char
70,5,38,104741 122649,5 6,7,11703.0,15506.0,1;2,3,81;269;159,269 0.25;81 0.75;8 1.1e-07,1,2,3
71,6,9,,,,,,,,,,,,
""".replace("\\\n", "")


def folder(tmp_path, actions=ACTIONS, videos=VIDEOS):
    path = tmp_path / "in"
    path.mkdir()
    (path / "user_action.csv").write_text(actions)
    if videos is not None:
        (path / "feed_info.csv").write_text(videos)
    return path


def converted(tmp_path, **files):
    return materialise(Wechat2021Config(path=folder(tmp_path, **files)), tmp_path / "out")


def rows(logs, table):
    return pl.concat([pl.read_parquet(file) for file in logs.files(table)]).rows()


def test_a_view_is_a_feed_in_the_order_of_the_rows_of_its_day(tmp_path):
    """A second passes between two views, a stay counts for a second to a minute."""
    assert rows(converted(tmp_path), "impressions") == [
        (1, 8, 70, DAY_1, 1),
        (2, 9, 70, DAY_1, 2),
        (3, 8, 71, DAY_1 + 6366, 1),
        (4, 8, 72, DAY_1 + DAY, 1),
        (5, 8, 70, DAY_1 + 6366 + 61_000, 1),
    ]


def test_what_came_of_a_view(tmp_path):
    found = rows(converted(tmp_path), "engagements")
    at = {1: DAY_1, 2: DAY_1, 3: DAY_1 + 6366, 4: DAY_1 + DAY, 5: DAY_1 + 67_366}
    enter = [(row[5], row[2], row[4]) for row in found if row[3] == "enter"]
    assert enter == [(1, at[1], pytest.approx(5.366)), (2, at[2], 0.5), (3, at[3], 900.0), (4, at[4], None), (5, at[5], 1.0)]
    assert [row[4] for row in found if row[3] == "play"] == [0.5, 0.25, 4.0, 0.25, 0.0]
    others = [(row[5], row[0], row[1], row[3], row[4]) for row in found if row[3] not in ("enter", "play")]
    assert sorted(others) == [
        (1, 8, 70, "like", None),
        (3, 8, 71, "click_avatar", None),
        (3, 8, 71, "read_comment", None),
        (4, 8, 72, "forward", None),
    ]


def test_videos_are_rooms(tmp_path):
    names = pl.read_parquet(converted(tmp_path).files("rooms")[0]).columns
    assert names == ["room_id", "streamer_id", "seconds", "song", "singer", "tag", "machine_tag"]
    assert rows(materialise(Wechat2021Config(path=tmp_path / "in"), tmp_path / "out"), "rooms") == [
        (70, 5, 38.0, 11703, 15506, 81, 81),
        (71, 6, 9.0, None, None, None, None),
    ]


def test_every_row_is_accounted_for(tmp_path, capsys):
    logs = converted(tmp_path)
    assert [(each.what, each.read, sum(each.made.values())) for each in logs.converted] == [
        ("user_action.csv, rows", 5, 5),
        ("user_action.csv, stays", 5, 5),
        ("user_action.csv, plays", 5, 5),
        ("user_action.csv, actions above 0", 4, 4),
        ("feed_info.csv, rows", 2, 2),
    ]
    assert "Logs: user_action.csv, rows: 5 read = 5 impressions\n" in capsys.readouterr().out


def test_blocks_change_nothing(tmp_path, monkeypatch):
    whole = converted(tmp_path)
    monkeypatch.setattr(wechat2021, "_BLOCK", 200)
    parts = materialise(Wechat2021Config(path=tmp_path / "in"), tmp_path / "parts")
    for table in ("impressions", "engagements", "rooms"):
        assert sorted(rows(whole, table), key=repr) == sorted(rows(parts, table), key=repr)


def test_a_day_that_is_too_long_ends_at_its_end(tmp_path):
    lines = "".join(f"8,{number},1,1,0,0,0,0,60000,0,0,0,0\n" for number in range(1500))
    logs = converted(tmp_path, actions=ACTIONS.splitlines()[0] + "\n" + lines, videos=None)
    times = [row[3] for row in rows(logs, "impressions")]
    assert times[:3] == [DAY_1, DAY_1 + 61_000, DAY_1 + 122_000] and times[-1] == DAY_1 + DAY - 1 and times == sorted(times)


def test_columns_may_stand_in_another_order_and_others_beside_them(tmp_path):
    table = pl.read_csv(ACTIONS.encode())
    shuffled = table.select(reversed(table.columns)).with_columns(extra=pl.lit("x")).write_csv()
    first = rows(converted(tmp_path), "engagements")
    (tmp_path / "in" / "user_action.csv").write_text(shuffled)
    assert rows(materialise(Wechat2021Config(path=tmp_path / "in"), tmp_path / "again"), "engagements") == first


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"actions": ACTIONS[:-9]}, r"user_action.csv cannot be read \(CSV parse error: Row #6: Expected 13 columns, got 9"),
        ({"actions": ACTIONS.replace("stay", "staying")}, r"user_action.csv cannot be read \(.*stay.*Needed columns: userid"),
        ({"actions": ACTIONS.replace("5366", "long")}, r"conversion error to int64: invalid value 'long'"),
        ({"videos": VIDEOS[:-5]}, r"feed_info.csv cannot be read \(CSV parse error: Row #3: Expected 15 columns, got 11"),
        ({"actions": ""}, r"user_action.csv cannot be read \(Empty CSV file"),
    ],
)
def test_damaged_files_are_told_in_one_line(tmp_path, files, message):
    with pytest.raises(ConfigError, match=message) as error:
        converted(tmp_path, **files)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_folder_without_the_log_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"user_action.csv does not exist. The challenge's user_action.csv is expected"):
        Wechat2021Config(path=tmp_path).inputs()


@pytest.mark.skipif(not REAL.is_dir(), reason="the sample is not at hand")
def test_the_sample_goes_through_check_and_prepare(tmp_path):
    settings = [f"logs.path={REAL}", "prepare.parallel=none", "prepare.valid_days=2", f"output={tmp_path}"]
    experiment = load_experiment("jobs/configs/wechat2021.yaml", settings)
    assert check_step(experiment).facts.rows["impressions"] == 99
    counts = prepare_step(experiment).manifest.counts
    assert counts.candidates == counts.feeds == 99
