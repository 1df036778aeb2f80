"""Anybody's own CSV and Parquet files, by a mapping of their columns."""

import json

import polars as pl
import pytest

from models.config import ConfigError, from_dict
from pipelines.logs import CsvConfig, Work, as_ids, materialise
from tests.pipelines.public_logs import SAMPLES, write_sample

SEP_1 = 1_756_684_800_000  # 2025-09-01 00:00 UTC
U8 = as_ids(pl.Series(["u-8"]).to_arrow()).to_pylist()[0]
IMPRESSIONS = {"files": ["a.csv"], "columns": {"user_id": "u", "room_id": "r", "shown_at": "t"}}
ACTS = {"files": ["b.csv"], "columns": {"user_id": "u", "room_id": "r", "at": "t"}}


def test_rows_by_hand(tmp_path):
    logs = materialise(SAMPLES["csv"].config(path=write_sample("csv", tmp_path / "in")), tmp_path / "out", Work(limit=0.5))
    read = lambda table: pl.concat(map(pl.read_parquet, logs.files(table)), how="diagonal")
    assert read("impressions").rows() == [
        (7, 70, SEP_1, "ios"),
        (U8, 71, SEP_1 + 1500, None),
        (7, 71, SEP_1 + 2000, "ios"),  # written as a date
    ]
    acts = read("engagements").select("user_id", "room_id", "at", "action", "value")
    assert sorted(acts.rows(), key=lambda row: (row[2], row[3])) == [
        (7, 70, SEP_1 + 3000, "enter", 2.5),
        (7, 70, SEP_1 + 3000, "like", None),
        (7, 71, SEP_1 + 4000, "enter", None),
        (U8, 71, SEP_1 + 5000, "enter", pytest.approx(0.009)),
        (U8, 71, SEP_1 + 5000, "follow", None),
        (U8, 71, SEP_1 + 5000, "like", None),
        (7, 70, SEP_1 + 6000, "order", None),
    ]
    assert read("users").sort("user_id").rows() == [(7, 31.0, "Rome"), (U8, None, "Lima")]
    files = json.loads((tmp_path / "out" / "rows.json").read_text())["files"]
    assert files["visits/day-2.csv (engagements1)"]["left_out"] == {"none of the flags is set": 1}
    assert files["acts.parquet (engagements3)"]["left_out"] == {"`what` is x": 1}


def test_rows_that_are_not_asked_for_are_counted_by_their_value(tmp_path):
    (tmp_path / "a.csv").write_text("u,r,t,tab\n1,2,1756684800000,home\n1,3,1756684800000,shop\n1,4,1756684800000,\n")
    (tmp_path / "b.csv").write_text("u,r,t\n1,2,1756684800000\n")
    tables = {"impressions": [{**IMPRESSIONS, "where": {"tab": ["home"]}}], "engagements": [{**ACTS, "action": "enter"}]}
    logs = materialise(from_dict(CsvConfig, {"path": str(tmp_path), "tables": tables}), tmp_path / "out")
    assert pl.read_parquet(logs.files("impressions")).rows() == [(1, 2, 1_756_684_800_000)]
    counts = json.loads((tmp_path / "out" / "rows.json").read_text())["files"]["a.csv (impressions)"]
    assert counts["left_out"] == {"`tab` is shop": 1, "`tab` is nothing": 1} and counts["used"] == 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"shows": [IMPRESSIONS]}, r"there is no canonical table `shows`\. Known: impressions, engagements, "),
        (
            {"impressions": [{**IMPRESSIONS, "columns": {"user": "u"}}]},
            r"impressions\.0\.columns: .* has no column `user`\. Known",
        ),
        (
            {"impressions": [{**IMPRESSIONS, "columns": {"user_id": "u"}}]},
            r"0\.columns: `room_id` of `impressions` is missing\.",
        ),
        ({"impressions": [{**IMPRESSIONS, "action": "enter"}]}, r"`action` is for `engagements`"),
        ({"engagements": [ACTS]}, r"engagements\.0: say in one way which action a row is"),
        ({"engagements": [{**ACTS, "action": "enter", "flags": {"like": "l"}}]}, r"engagements\.0: say in one way"),
        ({"impressions": [{**IMPRESSIONS, "numbers": ["age"]}]}, r"`numbers` speaks of `age`, which `columns` does not map"),
        ({"impressions": [{**IMPRESSIONS, "separator": "tab"}]}, r"`separator` is 'tab'; it must be one character"),
        ({"impressions": [{**IMPRESSIONS, "unit": "minutes"}]}, r"tables\.impressions\.0\.unit"),
    ],
)
def test_a_mapping_that_does_not_fit_is_told_before_anything_is_read(tables, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(CsvConfig, {"path": "nowhere", "tables": tables})


def test_a_file_that_is_not_there_is_told(tmp_path):
    source = from_dict(CsvConfig, {"path": str(tmp_path), "tables": {"impressions": [IMPRESSIONS]}})
    with pytest.raises(ConfigError, match=r"logs\.tables\.impressions: .* has no file `a\.csv`\."):
        materialise(source, tmp_path / "out")
    (tmp_path / "a.csv.zip").write_bytes(b"PK")
    zipped = from_dict(CsvConfig, {"path": str(tmp_path), "tables": {"impressions": [{**IMPRESSIONS, "files": ["a.csv.zip"]}]}})
    with pytest.raises(ConfigError, match=r"a\.csv\.zip is packed in a way that is not read\. Unpack it"):
        materialise(zipped, tmp_path / "out")


def shown(folder, *patterns):
    """The impressions of a log whose files match the patterns, by room; and what is said of each file."""
    (folder / "acts.txt").write_text("u,r,t\n1,2,1756684800000\n")
    acts = {**ACTS, "files": ["acts.txt"], "action": "enter"}
    tables = {"impressions": [{**IMPRESSIONS, "files": list(patterns)}], "engagements": [acts]}
    logs = materialise(from_dict(CsvConfig, {"path": str(folder), "tables": tables}), folder.parent / "out")
    return sorted(room for file in logs.files("impressions") for room in pl.read_parquet(file)["room_id"].to_list())


def write_shows(folder, *names):
    """A file a name, each with one impression, in the room of its number."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"u,r,t\n1,{number},1756684800000\n")


@pytest.mark.parametrize(
    "names",
    [
        ("a b.csv", "a_b.csv"),
        ("数据.csv", "日志.csv"),
        ("_a.csv", "b.csv"),
        ("2025/06.csv", "2025_06.csv"),
        (f"{'x' * 120}/{'y' * 120}/a.csv", "a.csv"),
        ("day=1/part.csv", "day=2/part.csv"),
    ],
)
def test_files_of_any_names_keep_their_rows(tmp_path, names):
    """Names of what is made of them once were the same word for two files, or hidden; half of a log was lost."""
    write_shows(tmp_path / "in", *names)
    assert shown(tmp_path / "in", "**/*.csv") == [0, 1]


def test_folders_behind_links_are_searched(tmp_path):
    write_shows(tmp_path / "elsewhere", "a.csv")
    write_shows(tmp_path / "in", "x.csv", "deep/b.csv", ".hidden.csv")
    (tmp_path / "in" / "x.csv").unlink()
    (tmp_path / "in" / "day").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    assert shown(tmp_path / "in", "**/*.csv") == [0, 1]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "`files` names ``, which is no file below `logs.path`"),
        ("/data/a.csv", "`files` names `/data/a.csv`, which is no file below `logs.path`"),
        ("../in/a.csv", "`files` names `../in/a.csv`, which is no file below `logs.path`"),
        ("a**b", "has no file `a**b`"),
        ("gone.csv", "gone.csv is a link to nothing"),
        ("*.csv", "are one file, by links; its rows would count twice"),
        ("head", "not one row of the table `impressions` came of these files"),
    ],
)
def test_patterns_that_name_no_rows(tmp_path, pattern, told):
    write_shows(tmp_path / "in", "a.csv")
    (tmp_path / "in" / "head").write_text("u,r,t\n")
    (tmp_path / "in" / "b.csv").symlink_to("a.csv")
    if pattern == "gone.csv":
        (tmp_path / "in" / "gone.csv").symlink_to("nothing")
    with pytest.raises(ConfigError) as error:
        shown(tmp_path / "in", pattern)
    assert told in str(error.value)


def test_ids_as_pandas_writes_columns_with_gaps(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("u,r,t\n1.0,7.0,1756684800000\n1,8,1756684800000\n1,0.0,1756684800000\n")
    assert shown(tmp_path / "in", "a.csv") == [0, 7, 8]
