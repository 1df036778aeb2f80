"""The early check of canonical logs: every complaint names the file, what was expected and what was found."""

import re
import shutil

import polars as pl
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from pipelines.logs import CanonicalConfig, CanonicalLogs, check, materialise
from pipelines.logs.canonical import TABLES, declaration
from pipelines.logs.check import refuse_within
from tests.pipelines.logs_samples import NOON, canonical_tables, write_canonical


def refuse(folder, message):
    with pytest.raises(ConfigError, match=message) as error:
        check(CanonicalLogs(folder))
    assert "\n" not in str(error.value)


def test_whole_logs_pass_without_remark(tmp_path):
    assert check(CanonicalLogs(write_canonical(tmp_path))) == []


def test_strings_as_ids_and_optional_columns_left_out_pass(tmp_path):
    impressions = canonical_tables()["impressions"].select("user_id", "room_id", "shown_at").cast({"user_id": pl.String})
    engagements = canonical_tables()["engagements"].drop("value", "request_id").cast({"user_id": pl.String})
    write_canonical(tmp_path, impressions=impressions, engagements=engagements, users=None)
    assert check(CanonicalLogs(tmp_path)) == []


def test_a_column_that_nobody_reads_is_remarked_upon(tmp_path):
    impressions = canonical_tables()["impressions"].with_columns(device=pl.lit("ios"))
    write_canonical(tmp_path, impressions=impressions)
    assert check(CanonicalLogs(tmp_path)) == [
        "impressions: column `device` is not read; prefix it with `context.` or `state.`."
    ]


def test_attributes_need_no_prefix_in_the_tables_of_things():
    assert declaration("users", "age").holds == "attribute"
    assert declaration("rooms", "start_at").holds == "time or day"
    assert declaration("product_clicks", "price") is None
    assert declaration("impressions", "other.price") is None


@pytest.mark.parametrize("table", ["impressions", "engagements"])
def test_a_missing_table(tmp_path, table):
    write_canonical(tmp_path, **{table: None})
    refuse(tmp_path, rf"no table `{table}`\. Expected `impressions/\*\.parquet`.*there is: .*users\.")


def test_no_folder(tmp_path):
    refuse(tmp_path / "nowhere", r"no logs at .*nowhere: not a folder")


def test_no_rows(tmp_path):
    write_canonical(tmp_path, impressions=canonical_tables()["impressions"].clear())
    refuse(tmp_path, r"table `impressions` at .* has no rows \(1 files\)")


def test_a_missing_column(tmp_path):
    write_canonical(tmp_path, engagements=canonical_tables()["engagements"].drop("at"))
    refuse(tmp_path, r"engagements/part-0\.parquet: column `at` \(int64 .*\) is missing\. It has: user_id, room_id, action,")


@pytest.mark.parametrize(
    ("table", "column", "kind", "message"),
    [
        ("impressions", "user_id", pl.Boolean, r"`user_id` is bool, expected int64 or string"),
        (
            "impressions",
            "shown_at",
            pl.Date,
            r"`shown_at` is date32\[day\], expected int64 \(Unix milliseconds.*or a timestamp",
        ),
        ("engagements", "value", pl.String, r"`value` is .*string, expected a number"),
        ("engagements", "at", pl.String, r"`at` is .*string, expected int64 \(Unix .*to_datetime"),
        ("engagements", "action", pl.Int64, r"`action` is int64, expected string"),
        ("engagements", "action", pl.Categorical, None),
        ("engagements", "action", pl.Binary, None),
        ("engagements", "value", pl.Decimal(10, 2), None),
        ("impressions", "user_id", pl.UInt64, None),
        ("impressions", "user_id", pl.Float64, None),
        ("impressions", "shown_at", pl.Decimal(20, 0), None),
        ("impressions", "state.viewers", pl.List(pl.Int64), None),  # as long as no schema reads it
        ("users", "age", pl.List(pl.Int64), None),
    ],
)
def test_types(tmp_path, table, column, kind, message):
    frame = canonical_tables()[table]
    cast = pl.concat_list(column) if kind == pl.List(pl.Int64) else pl.col(column).cast(kind, strict=False)
    write_canonical(tmp_path, **{table: frame.with_columns(cast)})
    if message is None:
        assert check(CanonicalLogs(tmp_path)) == []
    else:
        refuse(tmp_path, rf"{table}/part-0\.parquet: column {message}")


@pytest.mark.parametrize(("factor", "unit"), [(1 / 1000, "seconds"), (1000, "microseconds")])
def test_times_in_another_unit(tmp_path, factor, unit):
    table = canonical_tables()["impressions"].with_columns((pl.col("shown_at") * factor).cast(pl.Int64))
    write_canonical(tmp_path, impressions=table)
    refuse(tmp_path, rf"impressions/part-0\.parquet: column `shown_at` goes from {int(NOON * factor)} to .*Are these {unit}")


def test_a_few_wrong_times_are_left_to_the_quarantine(tmp_path):
    table = canonical_tables()["impressions"].with_columns(shown_at=pl.Series([NOON // 1000, NOON]))
    assert check(CanonicalLogs(write_canonical(tmp_path, impressions=table))) == []


def test_a_truncated_file(tmp_path):
    file = write_canonical(tmp_path) / "engagements" / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    refuse(tmp_path, r"engagements/part-0\.parquet is not a whole Parquet file \(")


def test_a_file_that_is_no_parquet(tmp_path):
    (write_canonical(tmp_path) / "impressions" / "part-1.parquet").write_bytes(b"")
    refuse(tmp_path, r"impressions/part-1\.parquet is not a whole Parquet file \(")


def test_files_of_a_table_that_disagree(tmp_path):
    folder = write_canonical(tmp_path)
    other = canonical_tables()["impressions"].cast({"state.viewers": pl.String})
    other.write_parquet(folder / "impressions" / "part-1.parquet")
    logs = CanonicalLogs(folder)
    assert check(logs) == []  # nobody may read it
    with pytest.raises(
        ConfigError, match=r"part-1\.parquet: column `state\.viewers` is string, but int64 in .*part-0\.parquet"
    ):
        logs.types("impressions", ["state.viewers"])


def test_ids_that_would_never_meet(tmp_path):
    users = pl.DataFrame({"user_id": ["7"]})
    refuse(
        write_canonical(tmp_path, users=users), r"users/part-0\.parquet: `user_id` is large_string, but int64 in .*impressions"
    )


def test_products_on_screen_that_would_never_meet_theirs(tmp_path):
    products = pl.DataFrame({"product_id": [500]})
    shown = canonical_tables()["impressions"].with_columns(pl.lit("500").alias("state.product_id"))
    folder = write_canonical(tmp_path, products=products, impressions=shown)
    refuse(folder, r"products/part-0\.parquet: `product_id` is int64, but (large_)?string in .*impressions")


@pytest.mark.parametrize("name", ["Request_ID", "requestId", "\ufeffrequest_id", " request_id"])
def test_a_column_of_almost_a_known_name_is_told(tmp_path, name):
    renamed = canonical_tables()["impressions"].rename({"request_id": name})
    told = check(CanonicalLogs(write_canonical(tmp_path, impressions=renamed)))
    shown = f"`{name}`" if name.isprintable() else r"'\ufeffrequest_id'"
    assert f"impressions: column {shown} looks like `request_id`, but has another name, so it is not taken for it." in told


def test_tables_as_files_folders_and_folders_named_like_files(tmp_path):
    folder = write_canonical(tmp_path)
    logs = CanonicalLogs(folder)
    shutil.move(folder / "engagements", folder / "engagements.parquet")
    shutil.move(folder / "users" / "part-0.parquet", folder / "users.parquet")
    (folder / "users").rmdir()
    (folder / "impressions" / "_temporary").mkdir()
    shutil.copy(folder / "impressions" / "part-0.parquet", folder / "impressions" / "_temporary" / "part-9.parquet")
    (folder / "impressions" / "day=2").mkdir()
    shutil.copy(folder / "impressions" / "part-0.parquet", folder / "impressions" / "day=2" / "a.parquet")
    names = {name: [str(file.relative_to(folder)) for file in logs.files(name)] for name in TABLES}
    assert names["impressions"] == ["impressions/day=2/a.parquet", "impressions/part-0.parquet"]
    assert names["engagements"] == ["engagements.parquet/part-0.parquet"]
    assert names["users"] == ["users.parquet"]
    assert names["rooms"] == []
    assert logs.has("users")
    assert not logs.has("rooms")
    check(logs)
    with pytest.raises(KeyError, match=r"no canonical table `room`; there are: impressions,"):
        logs.files("room")


def test_results_do_not_go_into_the_folder_of_a_table(tmp_path):
    folder = write_canonical(tmp_path / "logs")
    logs = CanonicalLogs(folder)
    refuse_within(logs, folder / "case")  # beside the tables
    (tmp_path / "link").symlink_to(folder / "users")
    with pytest.raises(ConfigError, match=r"into the logs' table .*users\. Name another `output`"):
        refuse_within(logs, tmp_path / "link" / "case")


def test_a_table_that_is_there_twice(tmp_path):
    folder = write_canonical(tmp_path)
    shutil.copy(folder / "users" / "part-0.parquet", folder / "users.parquet")
    refuse(tmp_path, r"has both users/ and users\.parquet")


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path):
    first = CanonicalLogs(write_canonical(tmp_path / "a"))
    copied = CanonicalLogs(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    assert re.fullmatch("[0-9a-f]{16}", first.fingerprint())
    assert copied.fingerprint() == first.fingerprint()
    changed = canonical_tables()["engagements"].with_columns(value=pl.lit(31.0))
    assert CanonicalLogs(write_canonical(tmp_path / "c", engagements=changed)).fingerprint() != first.fingerprint()
    (tmp_path / "b" / "users" / "part-0.parquet").rename(tmp_path / "b" / "users" / "part-1.parquet")
    assert copied.fingerprint() != first.fingerprint()


def test_canonical_logs_are_read_where_they_lie(tmp_path):
    folder = write_canonical(tmp_path / "logs")
    logs = materialise(CanonicalConfig(path=folder), tmp_path / "output")
    assert logs == CanonicalLogs(folder)
    assert not (tmp_path / "output").exists()
    assert pq.read_table(logs.files("impressions")).num_rows == 2
    assert logs.truth is None
