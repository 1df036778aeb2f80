"""KuaiRand and Taobao's user behaviours as canonical logs, row by row."""

import polars as pl

from pipelines.logs import KuaiRandConfig, TaobaoConfig, materialise
from tests.pipelines.public_logs import write_sample


def rows(logs, name: str) -> list[tuple]:
    return sorted(pl.read_parquet(logs.files(name)).rows(), key=str)


def test_kuairand(tmp_path, capsys):
    logs = materialise(KuaiRandConfig(path=write_sample("kuairand", tmp_path / "in")), tmp_path / "out")
    first, second, third, fourth = 1_650_485_801_301, 1_650_485_840_000, 1_650_560_400_000, 1_650_560_460_000
    impressions = pl.read_parquet(logs.files("impressions"))
    names = ["user_id", "room_id", "shown_at", "context.tab", "state.duration_ms", "state.is_rand"]
    assert impressions.columns == names
    assert sorted(impressions.rows()) == [
        (0, 500, first, 1, 10_440.0, 0),
        (0, 501, second, 1, 60_000.0, 0),
        (17, 500, third, 4, 10_440.0, 0),
        (17, 502, fourth, 4, 9000.0, 1),
    ]
    assert rows(logs, "engagements") == [
        (0, 500, first, "enter", 30.0),
        (0, 500, first, "play", 30.0),
        (0, 500, first + 30_000, "forward", None),  # known when the play was over
        (0, 500, first + 30_000, "like", None),
        (0, 500, first + 30_000, "long_view", None),
        (0, 501, second, "play", 0.8),
        (0, 501, second + 800, "hate", None),
        (17, 500, third, "profile", 1.5),
        (17, 500, third, "read_comments", 2.5),
        (17, 502, fourth, "comment", None),
        (17, 502, fourth, "enter", None),
        (17, 502, fourth, "follow", None),
    ]
    videos = pl.read_parquet(logs.files("rooms")).sort("room_id")
    assert videos.select("room_id", "streamer_id", "start_at", "video_type", "video_duration", "music_id", "tag").rows() == [
        (500, 441, 1_594_137_600_000, "NORMAL", 10_440.0, 989_206_467, "12,65"),  # 2020-07-08 00:00 in China
        (501, 442, 1_648_742_400_000, "AD", None, None, None),
    ]
    (user,) = pl.read_parquet(logs.files("users")).to_dicts()
    assert user["follow_user_num_range"] == "(0,10]" and user["register_days"] == 3624 and len(user) == 31
    assert "nothing here needs it: data/video_features_statistic_1k.csv." in capsys.readouterr().out


def test_taobao(tmp_path, capsys):
    logs = materialise(TaobaoConfig(path=write_sample("taobao", tmp_path / "in")), tmp_path / "out")
    assert rows(logs, "impressions") == [(1, 2268318, 1_511_544_070_000), (1, 2333346, 1_511_561_733_000)]
    assert rows(logs, "engagements") == [
        (1, 2268318, 1_511_544_070_000, "enter"),
        (1, 2268318, 1_511_544_100_000, "cart"),
        (1, 2333346, 1_511_561_733_000, "enter"),
        (2, 2268318, 1_511_600_000_000, "favourite"),
        (2, 2333346, 1_511_700_000_000, "order"),
    ]
    assert pl.read_parquet(logs.files("rooms")).sort("room_id").rows() == [(2268318, 2520377), (2333346, 2520771)]
    told = "ids whose rows have different values, of which the first is taken: 1"
    assert f"rooms: 3 rows became 2 rooms; rooms joined (of an id that stands before: 1, {told})" in capsys.readouterr().out
