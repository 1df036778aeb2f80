"""KuaiLive as canonical logs: hand-made files in its format."""

import gzip
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest

from models.config import ConfigError
from pipelines.logs import KuaiLiveConfig, Work, materialise
from pipelines.logs.raw import MISSING_TEXTS

MAY_5 = 1_746_374_400_000  # 2025-05-05 00:00 in China, Unix milliseconds
DAY = 86_400_000
FILES = {
    "click": """user_id,live_id,streamer_id,timestamp,watch_live_time
1,900,70,1746374400022,2852
2,901,71,1746374460000,
1,901,71,1746378000000,61000
""",
    "negative": """user_id,live_id,streamer_id,timestamp
1,902,72,1746374400022
2,900,70,1746374460000
""",
    "comment": "user_id,live_id,streamer_id,timestamp\n1,900,70,1746374401000\n",
    "like": "user_id,live_id,streamer_id,timestamp\n1,900,70,1746374402000\n1,900,70,1746374402500\n",
    "gift": "user_id,live_id,streamer_id,timestamp,gift_price\n1,901,71,1746378030000,52\n",
    "room": """p_date,live_id,live_type,streamer_id,start_timestamp,end_timestamp,live_content_category,live_name_id
20250505,900,1,70,1746370800000,1746378000000,shop,0
20250505,901,1,71,1746374400000,1746460800000,,5
20250506,901,1,71,1746460800000,1746464400000,,5
20250505,902,4,72,1746374400000,1746374500000,game,7
""",
    "user": """user_id,age,gender,country,device_brand,device_price,reg_timestamp,fans_num,follow_num,first_watch_live_timestamp,\
accu_watch_live_cnt,accu_watch_live_duration,is_live_streamer,is_photo_author,onehot_feat0,onehot_feat1,onehot_feat2,\
onehot_feat3,onehot_feat4,onehot_feat5,onehot_feat6
1,18-23,M,China,DESKTOP,0,2023-05-03,0-10,10-100,2023-05-03,0-50000,0-1000000000,0,0,0,1,0,0,0,0,0
""",
    "streamer": """streamer_id,gender,age,country,device_brand,device_price,live_operation_tag,fans_user_num,fans_group_fans_num,\
follow_user_num,first_live_timestamp,accu_live_cnt,accu_live_duration,accu_play_cnt,accu_play_duration,reg_timestamp,\
onehot_feat0,onehot_feat1,onehot_feat2,onehot_feat3,onehot_feat4,onehot_feat5,onehot_feat6
70,M,24-30,China,APPLE,5000+,Relationship,10000-100000,0-10,1000-10000,2018-02-04,100-500,500000000-1000000000,\
100000-500000,50000000000-100000000000,2014-07-03,1,0,0,0,0,0,0
""",
}


def written(folder: Path, **changed: str | None) -> Path:
    """The files, with some of them replaced or (None) left out."""
    folder.mkdir(parents=True)
    for name, text in {**FILES, **changed}.items():
        if text is not None:
            (folder / f"{name}.csv").write_text(text)
    return folder


def converted(tmp_path: Path, *, limit: float = 0.01, **changed: str | None):
    return materialise(KuaiLiveConfig(path=written(tmp_path / "in", **changed)), tmp_path / "out", Work(limit=limit))


def table(logs, name: str) -> list[tuple]:
    return pl.read_parquet(logs.files(name)).rows()


def account(logs) -> dict:
    return json.loads((logs.path.parent / "rows.json").read_text())


def test_tables_are_as_written_by_hand(tmp_path):
    logs = converted(tmp_path)
    assert sorted(table(logs, "impressions")) == [
        (1, 900, MAY_5 + 22),
        (1, 901, MAY_5 + 3_600_000),
        (1, 902, MAY_5 + 22),
        (2, 900, MAY_5 + 60_000),
        (2, 901, MAY_5 + 60_000),
    ]
    assert sorted(table(logs, "engagements"), key=str) == [
        (1, 900, MAY_5 + 22, "enter", 2.852),
        (1, 900, MAY_5 + 1000, "comment", None),
        (1, 900, MAY_5 + 2000, "like", None),
        (1, 900, MAY_5 + 2500, "like", None),
        (1, 901, MAY_5 + 3_600_000, "enter", 61.0),
        (1, 901, MAY_5 + 3_630_000, "gift", 52.0),
        (2, 901, MAY_5 + 60_000, "enter", None),
    ]
    rooms = pl.read_parquet(logs.files("rooms")).sort("room_id")
    assert rooms.to_dicts() == [
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


def test_every_row_is_accounted_for(tmp_path):
    logs = converted(
        tmp_path,
        limit=0.9,
        click=FILES["click"] + "3,900,70\n4,x,70,1746374400000,5\n5,900,70,,7\n",
        like=FILES["like"].replace("1746374402500", "soon"),
    )
    files = account(logs)["files"]
    assert files["click.csv"] == {
        "rows": 6,
        "used": 3,
        "quarantined": {"3 columns instead of 5": 1, "`live_id` is not an integer": 1, "`timestamp` is missing": 1},
        "left_out": {},
        "made": {"impressions": 3, "engagements": 3},
        "is_cut": False,
    }
    assert files["like.csv"]["quarantined"] == {"`timestamp` is not a time": 1}
    assert files["room.csv"]["rows"] == files["room.csv"]["used"] == 4
    assert account(logs)["gathered"]["rooms"] == {
        "rows": {"rooms": 4},
        "made": {"rooms": 3},
        "left_out": {"rooms": {"a row of this id stands before it, and agrees or is silent": 1}},
        "quarantined": {},
    }
    bad = pl.read_parquet(tmp_path / "out" / "quarantine" / "click.csv-00000.parquet").sort("row")
    assert bad["row"].to_list() == [3, 4, 5] and bad["text"][1] == "4,x,1746374400000,5"


@pytest.mark.parametrize("way", ["gzip", "zip", "parquet", "nested", "pieces"])
def test_the_files_may_be_packed(tmp_path, way, monkeypatch):
    plain = converted(tmp_path / "plain")
    folder = written(tmp_path / "packed")
    if way == "zip":
        with zipfile.ZipFile(tmp_path / "KuaiLive.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(folder.iterdir()):
                packed.write(file, f"KuaiLive/{file.name}")
        folder = tmp_path / "KuaiLive.zip"
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if way == "gzip":
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        elif way == "parquet":
            pl.read_csv(file, null_values=list(MISSING_TEXTS)).write_parquet(file.with_suffix(".parquet"))
            file.unlink()
        elif way == "nested":
            (folder / "KuaiLive").mkdir(exist_ok=True)
            file.rename(folder / "KuaiLive" / file.name)
    if way == "pieces":
        monkeypatch.setattr("pipelines.logs.raw.PIECE_BYTES", 40)
    logs = materialise(KuaiLiveConfig(path=folder), tmp_path / "out")
    for name in ("impressions", "engagements", "rooms", "users", "streamers"):
        assert sorted(table(logs, name), key=str) == sorted(table(plain, name), key=str)


def test_a_file_that_is_cut(tmp_path, capsys):
    """In a line: the row is quarantined. In a value: nothing tells but the missing line break, which is said."""
    logs = converted(tmp_path / "a", limit=0.9, click=FILES["click"][:-22])
    assert account(logs)["files"]["click.csv"]["quarantined"] == {"3 columns instead of 5": 1}
    assert "click.csv does not end with a line break" in capsys.readouterr().out
    packed = written(tmp_path / "b" / "in", click=None)
    (packed / "click.csv.gz").write_bytes(gzip.compress(FILES["click"].encode())[:-9])
    with pytest.raises(ConfigError, match=r"click\.csv\.gz is cut short or damaged \(.*\)\. Fetch or write it again\."):
        materialise(KuaiLiveConfig(path=packed), tmp_path / "b" / "out")


def test_a_further_column_is_named_and_not_read(tmp_path, capsys):
    more = FILES["click"].replace("_time\n", "_time,source\n").replace("2852", "2852,x").replace("0000,\n", "0000,,y\n")
    logs = converted(tmp_path, click=more.replace("61000", "61000,z"))
    assert "click.csv: columns that are not read: source." in capsys.readouterr().out
    assert account(logs)["files"]["click.csv"]["used"] == 3


def test_columns_in_another_order(tmp_path):
    plain = converted(tmp_path / "a")
    rows = [line.split(",") for line in FILES["click"].split()]
    swapped = "\n".join(",".join(row[::-1]) for row in rows) + "\n"
    logs = converted(tmp_path / "b", click=swapped)
    assert sorted(table(logs, "engagements"), key=str) == sorted(table(plain, "engagements"), key=str)


def test_a_missing_column_or_file_is_named(tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"gift\.csv: column `gift_price` is missing\. Needed: user_id, live_id, timestamp, "):
        converted(tmp_path / "a", gift=FILES["gift"].replace("gift_price", "price"))
    with pytest.raises(
        ConfigError, match=r"logs\.path: .*/in has no room\.csv\. KuaiLive is looked for there: click\.csv, neg"
    ):
        converted(tmp_path / "b", room=None)
    logs = converted(tmp_path / "c", gift=None, streamer=None)
    said = capsys.readouterr().out
    assert "gift.csv is not there: no gifts." in said and "streamer.csv is not there: no attributes of streamers." in said
    assert not logs.has("streamers")


def test_another_file_of_that_name_is_refused_at_once(tmp_path):
    other = "user_id,live_id,streamer_id,timestamp,watch_live_time\n" + "a,b,c,d,e\n" * 5
    with pytest.raises(
        ConfigError, match=r"click\.csv: 5 of its first 5 rows make no sense \(`user_id` is not an integer: 5\)"
    ):
        converted(tmp_path, click=other)
    assert not (tmp_path / "out").exists()


def test_a_killed_conversion_goes_on(tmp_path, monkeypatch, capsys):
    folder = written(tmp_path / "in")
    whole = materialise(KuaiLiveConfig(path=folder), tmp_path / "whole")

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("pipelines.logs.convert.GatherBucket.__call__", killed)
        materialise(KuaiLiveConfig(path=folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    logs = materialise(KuaiLiveConfig(path=folder), tmp_path / "out")
    assert "pieces: done before (8 tasks)" in capsys.readouterr().out
    assert logs.fingerprint() == whole.fingerprint()
    assert not list(tmp_path.glob(".out*"))
