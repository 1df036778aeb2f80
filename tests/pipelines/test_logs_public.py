"""What all public data sets owe: packed files, damaged ones, those of another version, and an account of every row."""

import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import ConfigError
from pipelines.logs import DATA_SETS, Work, materialise
from pipelines.logs.canonical import TABLES
from pipelines.logs.raw import Ending, _Stretch
from pipelines.runs.runner import Workers
from tests.pipelines.public_logs import SAMPLES, write_sample

each_data_set = pytest.mark.parametrize("name", SAMPLES)
WITH_HEADER = [name for name, sample in SAMPLES.items() if sample.has_header]
WITHOUT_HEADER = [name for name, sample in SAMPLES.items() if not sample.has_header]


def converted(name: str, folder: Path, output: Path, limit: float = 0.9):
    return materialise(SAMPLES[name].config(path=folder), output, Work(limit=limit))


def tables(logs) -> dict[str, list[tuple]]:
    """Rows of all tables, in an order of their own."""
    return {
        table: sorted(pl.concat(map(pl.read_parquet, logs.files(table)), how="diagonal").rows(), key=str)
        for table in TABLES
        if logs.has(table)
    }


def account(logs) -> dict:
    return json.loads((logs.path.parent / "rows.json").read_text())


def columns_of(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()]


def joined(rows: list[list[str]]) -> str:
    return "".join(",".join(row) + "\n" for row in rows)


def test_every_data_set_has_files_by_hand():
    assert {*SAMPLES, "ebnerd"} == set(DATA_SETS)  # which has no CSV file, and tests of its own


@each_data_set
def test_every_row_is_accounted_for(tmp_path, name):
    logs = converted(name, write_sample(name, tmp_path / "in"), tmp_path / "out")
    found = account(logs)
    for counts in found["files"].values():
        assert counts["rows"] == counts["used"] + sum(counts["left_out"].values()) > 0 and not counts["quarantined"]
    made: dict[str, int] = {}
    for counts in [*found["files"].values(), *found["gathered"].values()]:
        for table, rows in counts["made"].items():
            made[table] = made.get(table, 0) + rows
    for counts in found["gathered"].values():
        for part, rows in counts["rows"].items():
            made[part] -= rows  # what files have made of these tables was gathered
    assert {table: len(rows) for table, rows in tables(logs).items()} == {table: made[table] for table in tables(logs)}


@each_data_set
@pytest.mark.parametrize("way", ["gzip", "zip", "pieces"])
def test_packed_files_and_small_pieces_give_the_same_tables(tmp_path, name, way, monkeypatch):
    if (name, way) == ("csv", "zip"):
        pytest.skip("a mapping names the files themselves")
    plain = tables(converted(name, write_sample(name, tmp_path / "plain"), tmp_path / "a"))
    folder = write_sample(name, tmp_path / "in")
    if way == "zip":
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                packed.write(file, f"all/{file.relative_to(folder)}")
        folder = tmp_path / "all.zip"
    elif way == "gzip":
        for file in sorted(folder.rglob("*.csv")):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    else:
        monkeypatch.setattr("pipelines.logs.raw.PIECE_BYTES", 40)
    assert tables(converted(name, folder, tmp_path / "b")) == plain


@each_data_set
def test_a_cut_file(tmp_path, name, capsys):
    """Within a row: it is quarantined, and the missing line break told. Packed: refused, for nobody knows what is missing."""
    sample = SAMPLES[name]
    folder = write_sample(name, tmp_path / "in")
    text = sample.files[sample.log]
    rows = len(text.splitlines()) - sample.has_header
    (folder / sample.log).write_text(text[: text.rstrip("\n").rindex(",") - 1])
    counts = account(converted(name, folder, tmp_path / "a"))["files"][sample.in_account]
    assert counts["rows"] == rows and counts["used"] == rows - 1 and counts["is_cut"]
    assert [reason for reason in counts["quarantined"] if "columns instead of" in reason]
    assert f"{sample.in_account} does not end with a line break" in capsys.readouterr().out
    (folder / sample.log).unlink()
    (folder / f"{sample.log}.gz").write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(ConfigError, match=r"\.csv\.gz is cut short or damaged \(.*\)\. Fetch or write it again\."):
        converted(name, folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", WITH_HEADER)
def test_a_further_column_is_named_and_changes_nothing(tmp_path, name, capsys):
    sample = SAMPLES[name]
    plain = tables(converted(name, write_sample(name, tmp_path / "plain"), tmp_path / "a"))
    folder = write_sample(name, tmp_path / "in")
    head, *rows = columns_of(sample.files[sample.log])
    (folder / sample.log).write_text(joined([["newer", *head], *(["x", *row] for row in rows)]))
    assert tables(converted(name, folder, tmp_path / "b")) == plain
    assert f"{sample.in_account}: columns that are not read: newer." in capsys.readouterr().out


@pytest.mark.parametrize("name", WITH_HEADER)
def test_columns_in_another_order_change_nothing(tmp_path, name):
    sample = SAMPLES[name]
    plain = tables(converted(name, write_sample(name, tmp_path / "plain"), tmp_path / "a"))
    folder = write_sample(name, tmp_path / "in")
    (folder / sample.log).write_text(joined([row[::-1] for row in columns_of(sample.files[sample.log])]))
    assert tables(converted(name, folder, tmp_path / "b")) == plain


@pytest.mark.parametrize("name", WITH_HEADER)
def test_a_missing_column_is_named(tmp_path, name):
    sample = SAMPLES[name]
    folder = write_sample(name, tmp_path / "in")
    (folder / sample.log).write_text(sample.files[sample.log].replace(sample.user, "uid"))
    with pytest.raises(ConfigError, match=rf"\.csv: column `{sample.user}` is missing\. Needed: .*\. It has: uid,"):
        converted(name, folder, tmp_path / "out")


@pytest.mark.parametrize("name", WITHOUT_HEADER)
def test_without_a_header_columns_are_counted_and_looked_at(tmp_path, name):
    sample = SAMPLES[name]
    folder = write_sample(name, tmp_path / "in")
    rows = columns_of(sample.files[sample.log])
    (folder / sample.log).write_text(joined([["x", *row] for row in rows]))
    with pytest.raises(ConfigError, match=rf"has {len(rows[0]) + 1} columns, expected {len(rows[0])}: "):
        converted(name, folder, tmp_path / "out")
    (folder / sample.log).write_text(joined([row[::-1] for row in rows]))
    with pytest.raises(ConfigError, match=rf"{len(rows)} of its first {len(rows)} rows make no sense"):
        converted(name, folder, tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "csv"])
def test_a_wrong_folder_says_what_was_looked_for(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "archive.tar.gz").write_text("")
    with pytest.raises(ConfigError, match=r"in has no .*\.csv\. .* is looked for there: .*There is: archive.tar.gz\. Unpack"):
        converted(name, tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"nowhere does not exist\. .* is looked for there: "):
        converted(name, tmp_path / "nowhere", tmp_path / "out")


def test_a_file_that_is_there_twice_is_refused_and_an_unpacked_zip_is_not(tmp_path):
    folder = write_sample("kuailive", tmp_path / "in")
    with zipfile.ZipFile(folder / "KuaiLive.zip", "w") as packed:
        packed.write(folder / "click.csv", "click.csv")
    assert account(converted("kuailive", folder, tmp_path / "out"))["files"]["click.csv"]["rows"] == 3
    (folder / "click.csv.gz").write_bytes(gzip.compress((folder / "click.csv").read_bytes()))
    with pytest.raises(ConfigError, match=r"both .*click\.csv and .*click\.csv\.gz are there; its rows would count twice"):
        converted("kuailive", folder, tmp_path / "out")


@pytest.mark.parametrize(("field", "value"), [("method", 9), ("flags", 1)])
def test_what_a_zip_keeps_to_itself_is_told(tmp_path, field, value):
    """Deflate64, of large files on Windows, and a password: Python opens neither."""
    folder = write_sample("kuailive", tmp_path / "in")
    with zipfile.ZipFile(folder / "all.zip", "w") as packed:
        for file in sorted(folder.glob("*.csv")):
            packed.write(file, file.name)
            file.unlink()
    packed_bytes = bytearray((folder / "all.zip").read_bytes())
    for mark, places in ((b"PK\x03\x04", {"flags": 6, "method": 8}), (b"PK\x01\x02", {"flags": 8, "method": 10})):
        for found in re.finditer(re.escape(mark), bytes(packed_bytes)):
            packed_bytes[found.start() + places[field]] = value
    (folder / "all.zip").write_bytes(bytes(packed_bytes))
    with pytest.raises(ConfigError, match=r"all\.zip:.*\.csv cannot be read within its zip \(.*\)\. Unpack it first\."):
        converted("kuailive", folder, tmp_path / "out")


def test_a_link_to_nothing_is_refused(tmp_path):
    folder = write_sample("kuailive", tmp_path / "in")
    (folder / "click_2.csv").symlink_to("unmounted/click_2.csv")
    with pytest.raises(ConfigError, match=r"click_2\.csv is a link to nothing"):
        converted("kuailive", folder, tmp_path / "out")


def test_another_file_of_that_name_is_refused_at_once(tmp_path):
    other = "user_id,live_id,streamer_id,timestamp,watch_live_time\n" + "a,b,c,d,e\n" * 5
    folder = write_sample("kuailive", tmp_path / "in", click=other)
    with pytest.raises(ConfigError, match=r"click\.csv: 5 of its first 5 rows make no sense \(`user_id` is not an integer"):
        converted("kuailive", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_rows_without_sense_stop_the_conversion(tmp_path):
    clicks = SAMPLES["kuailive"].files["click.csv"] + "4,x,70,1746374400000,5\n"
    folder = write_sample("kuailive", tmp_path / "in", click=clicks)
    with pytest.raises(ConfigError, match=r"1 of 4 rows of click\.csv make no sense \(25\.00%, quarantine_limit is 20\.00%\)"):
        converted("kuailive", folder, tmp_path / "out", limit=0.2)
    counts = account(converted("kuailive", folder, tmp_path / "out", limit=0.25))["files"]["click.csv"]
    assert counts["quarantined"] == {"`live_id` is not an integer": 1} and counts["used"] == 3
    bad = pl.read_parquet(tmp_path / "out" / "quarantine" / "click.csv-00000.parquet")
    assert bad.rows() == [("click.csv", 3, "`live_id` is not an integer", "4,x,1746374400000,5")]


def test_rows_in_quarantine_are_numbered_within_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.logs.raw.PIECE_BYTES", 40)
    clicks = SAMPLES["kuailive"].files["click.csv"] + "3,900,70\n5,900,70,,7\n1,900,70,1746374400022,x\n"
    converted("kuailive", write_sample("kuailive", tmp_path / "in", click=clicks), tmp_path / "out")
    bad = pl.concat(map(pl.read_parquet, (tmp_path / "out" / "quarantine").glob("*.parquet"))).sort("row")
    reasons = ["3 columns instead of 5", "`timestamp` is missing", "`watch_live_time` is not a number"]
    assert bad["row"].to_list() == [3, 4, 5] and bad["reason"].to_list() == reasons


def test_rows_with_bytes_that_are_not_utf8_are_told_apart_and_none_is_lost(tmp_path):
    """Also where such a row is torn as well."""
    folder = write_sample("kuailive", tmp_path / "in")
    text = SAMPLES["kuailive"].files["room.csv"].encode()
    wild = b"20250505,903,1,70,1746370800000,1746378000000,sh\xffp,0\n2025,9\xfe4\n"
    good = "20250505,905,1,70,1746370800000,1746378000000,caf\u00e9,0\n".encode()
    (folder / "room.csv").write_bytes(text + wild + good)
    logs = converted("kuailive", folder, tmp_path / "out")
    counts = account(logs)["files"]["room.csv"]
    assert counts["rows"] == 7 and counts["used"] == 5
    assert counts["quarantined"] == {"bytes that are not UTF-8": 1, "2 columns instead of 8": 1}
    assert "caf\u00e9" in pl.read_parquet(logs.files("rooms"))["live_content_category"].to_list()
    bad = pl.read_parquet(tmp_path / "out" / "quarantine" / "room.csv-00000.parquet").sort("row")
    assert bad["row"].to_list() == [4, 5] and bad["text"][1] == "2025,9\ufffd4" and "sh\ufffdp" in bad["text"][0]


@given(st.binary(max_size=60), st.integers(1, 5), st.integers(1, 7))
def test_bytes_are_handed_on_as_utf8_however_they_are_read(data, at_once, asked):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(at_once, size))

    ending, got = Ending(), b""
    stretch = _Stretch(Slow(data), ending)
    while size := stretch.readinto(buffer := bytearray(asked)):
        got += buffer[:size]
    assert got.decode() == re.sub("[\udc80-\udcff]", "\ufdd0", data.decode("utf-8", "surrogateescape"))
    assert ending.last == data[-1:] and ending.is_marked == (b"\xef\xb7\x90" in got and got != data)


def test_a_killed_conversion_goes_on(tmp_path, monkeypatch, capsys):
    folder = write_sample("kuailive", tmp_path / "in")
    whole = converted("kuailive", folder, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("pipelines.logs.convert.GatherBucket.__call__", killed)
        converted("kuailive", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    logs = converted("kuailive", folder, tmp_path / "out")
    assert "pieces: done before (8 tasks)" in capsys.readouterr().out
    assert logs.fingerprint() == whole.fingerprint()
    assert not list(tmp_path.glob(".out*"))


def test_an_unchanged_file_is_not_read_again_for_its_digest(tmp_path, monkeypatch):
    folder = write_sample("taobao", tmp_path / "in")
    logs = converted("taobao", folder, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.logs.digest_of", lambda file: pytest.fail(f"read {file}"))
        assert converted("taobao", folder, tmp_path / "out") == logs
    (folder / "UserBehavior.csv").touch()  # another time, the same rows
    before = logs.fingerprint()
    assert converted("taobao", folder, tmp_path / "out").fingerprint() == before
    (folder / "UserBehavior.csv").write_text("1,7,8,pv,1511544070\n")
    assert converted("taobao", folder, tmp_path / "out").fingerprint() != before


@pytest.mark.ray
def test_side_by_side_on_ray_it_is_the_same(tmp_path, local_ray):
    folder = write_sample("kuailive_m3", tmp_path / "in")
    alone = converted("kuailive_m3", folder, tmp_path / "alone")
    work = Work(Workers("ray", cpus_per_task=0.5))
    assert materialise(SAMPLES["kuailive_m3"].config(path=folder), tmp_path / "ray", work).fingerprint() == alone.fingerprint()
