"""KuaiLive and KuaiLive-M3 as canonical logs, row by row."""

import polars as pl

from pipelines.logs import KuaiLiveConfig, KuaiLiveM3Config, materialise
from tests.pipelines.public_logs import MAY_5, write_sample

DAY = 86_400_000


def rows(logs, name: str) -> list[tuple]:
    return sorted(pl.read_parquet(logs.files(name)).rows(), key=str)


def test_kuailive(tmp_path):
    logs = materialise(KuaiLiveConfig(path=write_sample("kuailive", tmp_path / "in")), tmp_path / "out")
    assert rows(logs, "impressions") == [
        (1, 900, MAY_5 + 22),
        (1, 901, MAY_5 + 3_600_000),
        (1, 902, MAY_5 + 22),
        (2, 900, MAY_5 + 60_000),
        (2, 901, MAY_5 + 60_000),
    ]
    assert rows(logs, "engagements") == [
        (1, 900, MAY_5 + 22, "enter", 2.852),
        (1, 900, MAY_5 + 1000, "comment", None),
        (1, 900, MAY_5 + 2000, "like", None),
        (1, 900, MAY_5 + 2500, "like", None),
        (1, 901, MAY_5 + 3_600_000, "enter", 61.0),
        (1, 901, MAY_5 + 3_630_000, "gift", 52.0),
        (2, 901, MAY_5 + 60_000, "enter", None),
    ]
    assert pl.read_parquet(logs.files("rooms")).sort("room_id").to_dicts() == [
        {"room_id": 900, "streamer_id": 70, "start_at": MAY_5 - 3_600_000, "end_at": MAY_5 + 3_600_000, "live_type": 1,
         "live_content_category": "shop", "live_name_id": 0},
        {"room_id": 901, "streamer_id": 71, "start_at": MAY_5, "end_at": MAY_5 + DAY + 3_600_000, "live_type": 1,
         "live_content_category": None, "live_name_id": 5},
        {"room_id": 902, "streamer_id": 72, "start_at": MAY_5, "end_at": MAY_5 + 100_000, "live_type": 4,
         "live_content_category": "game", "live_name_id": 7},
    ]  # fmt: skip
    (user,) = pl.read_parquet(logs.files("users")).to_dicts()
    assert user["user_id"] == 1 and user["age"] == "18-23" and user["onehot_feat1"] == 1 and len(user) == 21
    assert user["reg_timestamp"] == 1_683_043_200_000  # 2023-05-03 00:00 in China
    (streamer,) = pl.read_parquet(logs.files("streamers")).to_dicts()
    assert streamer["streamer_id"] == 70 and streamer["fans_user_num"] == "10000-100000" and len(streamer) == 23


def test_what_a_data_set_can_do_without_is_told(tmp_path, capsys):
    folder = write_sample("kuailive", tmp_path / "in", gift=None, streamer=None)
    logs = materialise(KuaiLiveConfig(path=folder), tmp_path / "out")
    said = capsys.readouterr().out
    assert "gift.csv is not there: no gifts." in said and "streamer.csv is not there: no attributes of streamers." in said
    assert not logs.has("streamers")


def test_kuailive_m3(tmp_path):
    folder = write_sample("kuailive_m3", tmp_path / "in")
    logs = materialise(KuaiLiveM3Config(path=folder), tmp_path / "out")
    assert rows(logs, "impressions") == [
        (1, 900, MAY_5 + 1500),
        (1, 902, MAY_5 + 1500),
        (2, 900, MAY_5 + 120_000),
        (2, 901, MAY_5 + 120_000),
    ]
    assert rows(logs, "engagements") == [
        (1, 900, MAY_5 + 1500, "enter", 60.0),
        (1, 900, MAY_5 + 3000, "like", None),  # when it happened; the play's count of likes is left alone
        (1, 900, MAY_5 + 61_500, "follow", 1.0),
        (1, 900, MAY_5 + 61_500, "gift", 20.0),
        (1, 900, MAY_5 + 61_500, "share", 1.0),  # there is no file of shares: counted, at the end of the play
        (2, 901, MAY_5 + 120_000, "enter", 4.0),
        (2, 901, MAY_5 + 121_000, "comment", None),
    ]
    assert rows(logs, "product_clicks") == [(1, 5000, MAY_5 + 9000), (2, 5000, MAY_5 + 53_000)]  # 5001 ran for a second
    assert pl.read_parquet(logs.files("rooms")).sort("room_id").rows() == [
        (900, 70, MAY_5 - 3_600_000, MAY_5 + 600_000, "songs"),
        (901, 71, MAY_5, None, None),
    ]
    assert pl.read_parquet(logs.files("streamers")).rows() == [(70, 1, 1, "F", "24-30", "0-1k")]
    products = pl.concat(map(pl.read_parquet, logs.files("products"))).sort("product_id")
    names = [f"{level}_level_category_name" for level in ("first", "second", "third", "fourth")]
    assert products.select("product_id", *names[:2], "author_id", "duration", "cover_title").rows() == [
        (5000, "music", "pop", 70, 9000.0, "a song"),
        (5001, None, None, 75, 30_000.0, None),
    ]


def test_counts_of_a_play_stand_for_missing_files_of_actions(tmp_path, capsys):
    folder = write_sample("kuailive_m3", tmp_path / "in", live_like=None, live_comment=None)
    logs = materialise(KuaiLiveM3Config(path=folder, min_play_seconds=0), tmp_path / "out")
    assert (
        "live_like.csv is not there: no moments of likes, so they are counted by play, at its end." in capsys.readouterr().out
    )
    acts = [row for row in rows(logs, "engagements") if row[3] in ("like", "comment")]
    assert acts == [(1, 900, MAY_5 + 61_500, "like", 3.0), (2, 901, MAY_5 + 124_000, "comment", 1.0)]
    assert len(rows(logs, "product_clicks")) == 3
