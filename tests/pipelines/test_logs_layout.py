"""Every file of a table is read, or refused by name: as Athena, Spark, Hive, Airflow and people leave them."""

import os
import re
import shutil

import polars as pl
import pyarrow as pa
import pytest

from models.config import ConfigError
from pipelines.logs import CanonicalLogs, check
from pipelines.logs.layout import path_values
from tests.pipelines.logs_samples import canonical_tables, write_canonical


@pytest.fixture
def logs(tmp_path):
    return CanonicalLogs(write_canonical(tmp_path / "logs"))


def part(logs, name, table="impressions"):
    """A copy of a table's first file under another name, below the table's folder."""
    file = logs.path / table / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(logs.path / table / "part-0.parquet", file)


def names(logs, table="impressions"):
    return [str(file.relative_to(logs.path / table)) for file in logs.files(table)]


@pytest.mark.parametrize(
    ("name", "is_told"),
    [
        ("part-1.pq", False),
        ("part-1.PARQUET", False),
        ("part-1.parq", False),
        ("part-1.snappy.parquet", False),
        ("dt=2025-11-29/hour=07/part-1.parquet", False),
        ("older.parquet/part-0.parquet", False),
        ("part-1.parquet.snappy", True),
        ("000000_0", True),
        ("20251129_101112_00001_abcde", True),
        ("part-00000-8a7e.c000", True),
    ],
)
def test_files_and_folders_of_any_name_are_read(logs, name, is_told):
    file = part(logs, name)
    assert names(logs) == sorted([name, "part-0.parquet"])
    told = f"impressions: 1 files are read as Parquet by what they hold, for example {file}."
    assert (told in check(logs)) == is_told


@pytest.mark.parametrize(
    "name", ["_SUCCESS", ".part-0.parquet.crc", "part-1.crc", "_metadata", "_common_metadata", ".tmp/x", "_started_1"]
)
def test_hidden_and_marker_files_are_left_alone(logs, name):
    part(logs, name)
    if name not in ("_metadata", "_common_metadata"):
        (logs.path / "impressions" / name).write_bytes(b"crc")
    assert names(logs) == ["part-0.parquet"] and check(logs) == []


def test_rows_behind_a_hidden_name_are_told(logs):
    hidden = part(logs, "_part-1.parquet")
    part(logs, "_temporary/0/part-2.parquet")
    assert names(logs) == ["part-0.parquet"]
    told = [f"{hidden} is not read: its name is hidden.", f"{hidden.parent / '_temporary'} is not read: its name is hidden."]
    assert check(logs) == told


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("part-1.csv", b"user_id,room_id", r"is not Parquet \(it begins with b'user'\), and only Parquet is read"),
        ("part-1.json", b"{}", r"is not Parquet \(it begins with b'\{\}'\)"),
        ("part-1", b"", r"is not Parquet \(it is empty\)"),
        ("part-1.parquet", b"", r"is not a whole Parquet file"),
        ("part-1.parquet.gz", b"\x1f\x8b\x08\x00", r"is not Parquet"),
        ("part-1", b"PAREPARE", r"is encrypted Parquet"),
        ("part-1.parquet.tmp", b"PAR1", r"looks like an unfinished or older copy"),
        ("part-0.parquet.bak", b"PAR1", r"looks like an unfinished or older copy"),
        ("_delta_log/0.json", b"{}", r"impressions is a Delta table \(_delta_log\): .* Export its rows"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(logs, name, content, reason):
    file = logs.path / "impressions" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        check(logs)
    assert ("_delta_log" in name or name in str(caught.value)) and "\n" not in str(caught.value)


def test_linked_days_files_tables_and_logs_are_followed(logs, tmp_path):
    """As a folder of the last 28 days is made of links to all days."""
    store = tmp_path / "store"
    (store / "day=2" / "deep").mkdir(parents=True)
    shutil.copy(logs.path / "impressions" / "part-0.parquet", store / "day=2" / "deep" / "a.parquet")
    shutil.copy(logs.path / "impressions" / "part-0.parquet", store / "b.parquet")
    shutil.copytree(logs.path / "users", store / "users")
    (logs.path / "impressions" / "day=2").symlink_to(store / "day=2")
    (logs.path / "impressions" / "b.parquet").symlink_to(store / "b.parquet")
    shutil.rmtree(logs.path / "users")
    (logs.path / "users").symlink_to(store / "users")
    (tmp_path / "link").symlink_to(logs.path)
    linked = CanonicalLogs(tmp_path / "link")
    assert names(linked) == ["b.parquet", "day=2/deep/a.parquet", "part-0.parquet"]
    assert names(linked, "users") == ["part-0.parquet"]
    assert linked.fingerprint() == logs.fingerprint()


def test_circles_dead_links_and_a_file_that_is_there_twice_are_refused(logs):
    folder = logs.path / "impressions"
    (folder / "loop").symlink_to(folder)
    with pytest.raises(ConfigError, match=r"loop links back to .*impressions, in a circle"):
        logs.files("impressions")
    (folder / "loop").unlink()
    (folder / "gone").symlink_to(folder / "nowhere")
    with pytest.raises(ConfigError, match=r"gone links to .*nowhere, which is not there"):
        logs.files("impressions")
    (folder / "gone").unlink()
    (folder / "part-1.parquet").symlink_to(folder / "part-0.parquet")
    with pytest.raises(ConfigError, match=r"part-1\.parquet and .*part-0\.parquet are one file"):
        logs.files("impressions")


def test_what_lies_beside_the_tables_is_named(logs):
    shutil.copytree(logs.path / "impressions", logs.path / "impresions")
    shutil.copy(logs.path / "users" / "part-0.parquet", logs.path / "more.parquet")
    (logs.path / "notes.txt").write_text("mine", encoding="utf-8")
    first, second = check(logs)
    assert re.search(r"impresions is not read: no table has that name; .* Is it `impressions`\?$", first)
    assert re.search(r"more\.parquet is not read", second)


def test_columns_in_the_names_of_folders(tmp_path):
    folder = write_canonical(tmp_path, users=None)
    users = pl.DataFrame({"user_id": [7], "level": ["own"]})
    places = {"city=S%C3%A3o%20Paulo/age=30/level=path": 7, "city=__HIVE_DEFAULT_PARTITION__/age=31/level=x": 8}
    for place, user in places.items():
        (folder / "users" / place).mkdir(parents=True)
        users.with_columns(user_id=pl.lit(user)).write_parquet(folder / "users" / place / "0.parquet")
    (folder / "impressions" / "dt=2025-11-29").mkdir()
    shutil.move(folder / "impressions" / "part-0.parquet", folder / "impressions" / "dt=2025-11-29" / "0.parquet")
    logs = CanonicalLogs(folder)
    types = logs.types("users", ["age", "city", "level", "user_id"])
    assert types == pa.schema([("age", pa.int64()), ("city", pa.string()), ("level", pa.string()), ("user_id", pa.int64())])
    rows = [row for file in logs.parts("users") for batch in file.batches(types, 10) for row in batch.to_pylist()]
    assert sorted(rows, key=lambda row: row["user_id"]) == [
        {"age": 30, "city": "São Paulo", "level": "own", "user_id": 7},
        {"age": 31, "city": None, "level": "own", "user_id": 8},
    ]
    assert check(logs) == [
        "impressions: `dt=` in the names of folders is not read; the table knows no such column.",
        "users: `level` is in the files and in the names of folders; that of the files is read.",
    ]


def test_ids_and_moments_in_the_names_of_folders(tmp_path):
    """A table of events may have its user, its action and its start in the path alone."""
    folder = write_canonical(tmp_path, engagements=None)
    engagements = canonical_tables()["engagements"].drop("user_id", "action")
    for action in ("enter", "order"):
        (folder / "engagements" / f"user_id=7/action={action}").mkdir(parents=True)
        engagements.write_parquet(folder / "engagements" / f"user_id=7/action={action}" / "0.parquet")
    for start in ("2025-11-29", "20251129"):
        place = folder / "rooms" / f"start_at={start}"
        place.mkdir(parents=True)
        pl.DataFrame({"room_id": [70]}).write_parquet(place / "0.parquet")
        logs = CanonicalLogs(folder)
        types = logs.types("rooms", ["start_at"])
        assert [batch.to_pylist() for file in logs.parts("rooms") for batch in file.batches(types, 10)] == [
            [{"start_at": 1_764_374_400_000}]  # 2025-11-29 00:00 UTC
        ]
        shutil.rmtree(place)
    assert check(logs) == []
    types = logs.types("engagements", ["user_id", "action"])
    rows = [row for file in logs.parts("engagements") for batch in file.batches(types, 10) for row in batch.to_pylist()]
    assert rows == [{"action": "enter", "user_id": 7}, {"action": "order", "user_id": 7}]


def test_path_values_of_a_table_that_is_one_file(tmp_path):
    assert path_values(tmp_path / "users.parquet", tmp_path / "users.parquet") == {}


@pytest.mark.parametrize("link", ["x.parquet", "day"])
def test_links_that_lead_to_themselves_are_refused(logs, link):
    """Directly, and by way of another one; `Path.resolve` raises or does not, by version of Python."""
    folder = logs.path / "impressions"
    (folder / link).symlink_to("other")
    (folder / "other").symlink_to(link)
    with pytest.raises(ConfigError, match=re.escape(f"{folder / min(link, 'other')} is a link in a circle. Mend the link")):
        check(logs)


@pytest.mark.parametrize("name", [b"part-\xe9.parquet", b"d\xe9=\xff/part-1.parquet"])
def test_names_that_are_not_utf8_are_refused(logs, name):
    file = os.fsencode(logs.path / "impressions") + b"/" + name
    os.makedirs(os.path.dirname(file), exist_ok=True)
    shutil.copy(logs.path / "impressions" / "part-0.parquet", file)
    with pytest.raises(ConfigError, match=r"this name is not UTF-8\. Rename it"):
        check(logs)
