"""WeChat Big Data Challenge 2021 as canonical logs: by hand, and the real sample where it is at hand."""

import os
from pathlib import Path

import polars as pl
import pytest

from pipelines.experiment import load_experiment
from pipelines.logs import Wechat2021Config, materialise
from pipelines.steps import check_step, prepare_step
from tests.pipelines.public_logs import SAMPLES, write_sample

DAY_1, DAY, FIRST = 1_609_459_200_000, 86_400_000, 2**24
REAL = Path(os.environ.get("LIVERANK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "wechat2021"


def converted(tmp_path, **files):
    return materialise(Wechat2021Config(path=write_sample("wechat2021", tmp_path / "in", **files)), tmp_path / "out")


def rows(logs, table):
    return sorted(pl.concat([pl.read_parquet(file) for file in logs.files(table)]).rows(), key=repr)


def test_a_view_is_a_feed_in_the_order_of_the_rows_of_its_day(tmp_path):
    """A second passes between two views, a stay counts for a second to a minute; requests are numbered by user."""
    assert rows(converted(tmp_path), "impressions") == [
        (8 * FIRST + 1, 8, 70, DAY_1, 1),
        (8 * FIRST + 2, 8, 71, DAY_1 + 6366, 1),
        (8 * FIRST + 3, 8, 72, DAY_1 + DAY, 1),
        (8 * FIRST + 4, 8, 70, DAY_1 + 6366 + 61_000, 1),
        (9 * FIRST + 1, 9, 70, DAY_1, 2),
    ]


def test_what_came_of_a_view(tmp_path):
    found = rows(converted(tmp_path), "engagements")
    entered = {row[5]: row[4] for row in found if row[3] == "enter"}
    assert entered == {
        8 * FIRST + 1: pytest.approx(5.366),
        8 * FIRST + 2: 900.0,
        8 * FIRST + 3: None,
        8 * FIRST + 4: 1.0,
        9 * FIRST + 1: 0.5,
    }
    assert sorted(row[4] for row in found if row[3] == "play") == [0.0, 0.25, 0.25, 0.5, 4.0]
    others = [(row[2], row[0], row[1], row[3], row[4]) for row in found if row[3] not in ("enter", "play")]
    assert sorted(others) == [
        (DAY_1, 8, 70, "like", None),
        (DAY_1 + 6366, 8, 71, "click_avatar", None),
        (DAY_1 + 6366, 8, 71, "read_comment", None),
        (DAY_1 + DAY, 8, 72, "forward", None),
    ]


def test_videos_are_rooms(tmp_path):
    logs = converted(tmp_path)
    names = pl.read_parquet(logs.files("rooms")[0]).columns
    assert names == ["room_id", "streamer_id", "seconds", "song", "singer", "tag", "machine_tag"]
    assert rows(logs, "rooms") == [(70, 5, 38.0, 11703, 15506, 81, 81), (71, 6, 9.0, None, None, None, None)]


def test_a_day_that_is_too_long_ends_at_its_end(tmp_path):
    head = SAMPLES["wechat2021"].files["user_action.csv"].splitlines()[0]
    lines = "".join(f"8,{number},1,1,0,0,0,0,60000,0,0,0,0\n" for number in range(1500))
    logs = converted(tmp_path, user_action=f"{head}\n{lines}", feed_info=None)
    times = sorted(row[3] for row in rows(logs, "impressions"))
    assert times[:3] == [DAY_1, DAY_1 + 61_000, DAY_1 + 122_000] and times[-1] == DAY_1 + DAY - 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the sample is not at hand")
def test_the_sample_goes_through_check_and_prepare(tmp_path):
    settings = [f"logs.path={REAL}", "prepare.parallel=none", "prepare.valid_days=2", f"output={tmp_path}"]
    experiment = load_experiment("jobs/configs/wechat2021.yaml", settings)
    assert check_step(experiment).facts.rows["impressions"] == 99
    counts = prepare_step(experiment).manifest.counts
    assert counts.candidates == counts.feeds == counts.account["impressions"].kept == 99
    assert counts.converted.files["user_action.csv"].used == counts.converted.gathered["views"].made["impressions"] == 99
    assert all(account.is_whole for account in counts.account.values())
