"""Columns as other systems write them, and what they are read as."""

import datetime as dt
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from pipelines.logs import CanonicalLogs, check
from pipelines.logs.types import ATTRIBUTE, COUNT, DAY, ID, REAL, TIME, WORD, as_plain, of_path, plain_type
from tests.pipelines.logs_samples import NOON, canonical_tables, write_canonical

MOMENT = dt.datetime(2023, 5, 18, 12)  # NOON
DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("column", "holds", "expected"),
    [
        (pa.array([3, None], pa.uint8()), ID, [3, None]),
        (pa.array([Decimal(3), None], pa.decimal128(20, 0)), ID, [3, None]),
        (pa.array([3.0, float("nan")], pa.float32()), ID, [3, None]),
        (pa.array([MOMENT, None], pa.timestamp("s")), TIME, [NOON, None]),
        (pa.array([MOMENT], pa.timestamp("ns", "UTC")), TIME, [NOON]),
        (pa.array([MOMENT], pa.timestamp("us", "Asia/Shanghai")), TIME, [NOON]),
        (pa.array([float(NOON), None, float("nan")]), TIME, [NOON, None, None]),
        (pa.array([Decimal(NOON)], pa.decimal128(20, 3)), TIME, [NOON]),
        (pa.array([MOMENT.date()], pa.date32()), DAY, [NOON - 12 * 3_600_000]),
        (pa.array([MOMENT.date()], pa.date64()), ATTRIBUTE, [NOON - 12 * 3_600_000]),
        (pa.array([Decimal("1.50")], pa.decimal128(5, 2)), REAL, [1.5]),
        (pa.array([7, 2**53 + 1]), REAL, [7.0, 2.0**53]),
        (pa.array([2**64 - 1, None], pa.uint64()), REAL, [2.0**64, None]),
        (pa.array([1.5], pa.float16()), REAL, [1.5]),
        (pa.array([2], pa.uint64()), REAL, [2.0]),
        (pa.array([2.0, float("nan")]), COUNT, [2, None]),
        (pa.array([b"enter"], pa.binary()), WORD, ["enter"]),
        (pa.array(["enter"], pa.string_view()), WORD, ["enter"]),
        (pa.array(["ios"], DICTIONARY), ATTRIBUTE, ["ios"]),
        (pa.array([1.5], pa.float16()), ATTRIBUTE, [1.5]),
        (pa.array([Decimal("0.25")], pa.decimal256(50, 2)), ATTRIBUTE, [0.25]),
        (pa.array([True]), ATTRIBUTE, [True]),
        (pa.nulls(2), TIME, [None, None]),
    ],
)
def test_spellings_of_one_value(column, holds, expected):
    plain = plain_type(column.type, holds)
    assert as_plain(column, plain, holds).to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        (pa.bool_(), ID),
        (pa.date32(), TIME),
        (pa.string(), TIME),
        (pa.bool_(), REAL),
        (pa.list_(pa.int8()), ATTRIBUTE),
        (pa.int8(), WORD),
    ],
)
def test_what_a_type_cannot_hold(kind, holds):
    assert plain_type(kind, holds) is None


def test_bytes_that_are_no_text_and_numbers_that_are_not_whole_are_named():
    with pytest.raises(ValueError, match="holds bytes that are not UTF-8"):
        as_plain(pa.array([b"\xff"]), pa.string(), WORD)
    with pytest.raises(ValueError, match="of type double does not fit int64"):
        as_plain(pa.array([1.5]), pa.int64(), COUNT)


def test_columns_that_are_all_missing_have_the_type_of_what_they_hold():
    found = {holds: plain_type(pa.null(), holds) for holds in (ID, TIME, DAY, REAL, WORD, COUNT, ATTRIBUTE)}
    assert found == {ID: pa.int64(), TIME: pa.int64(), DAY: pa.int64(), REAL: pa.float64(), WORD: pa.string()} | {
        COUNT: pa.null(),
        ATTRIBUTE: pa.null(),
    }


def test_files_without_rows_say_nothing(tmp_path):
    """pandas writes an empty frame with types of its own, or with no column at all."""
    folder = write_canonical(tmp_path)
    for table in ("impressions", "users"):
        strange = {name: pa.array([], pa.string()) for name in ("user_id", "shown_at", "state.viewers", "age")}
        pq.write_table(pa.table(strange), folder / table / "empty.parquet")
        pq.write_table(pa.table({}), folder / table / "nothing.parquet")
    logs = CanonicalLogs(folder)
    assert check(logs) == []
    assert logs.types("impressions", ["state.viewers"]).field(0).type == pa.int64()
    assert logs.types("users", ["age"]).field(0).type == pa.int64()


def test_null_columns_go_with_any_type_and_a_column_that_came_later_is_told(tmp_path):
    folder = write_canonical(tmp_path)
    later = canonical_tables()["impressions"].with_columns(
        pl.lit(None).alias("request_id"), pl.lit("new").alias("context.scene")
    )
    later.write_parquet(folder / "impressions" / "part-1.parquet")
    logs = CanonicalLogs(folder)
    assert check(logs) == [
        "impressions: column `context.scene` is in 1 of 2 files with rows, and missing in the others, for example in "
        f"{folder / 'impressions' / 'part-0.parquet'}."
    ]
    types = logs.types("impressions", ["context.scene", "request_id"])
    found = [batch.to_pylist()[0] for file in logs.parts("impressions") for batch in file.batches(types, 10)]
    assert found == [{"context.scene": None, "request_id": 1}, {"context.scene": "new", "request_id": None}]


def test_timestamps_are_said(tmp_path):
    naive = canonical_tables()["impressions"].with_columns(pl.col("shown_at").cast(pl.Datetime("us")))
    zoned = canonical_tables()["engagements"].with_columns(pl.col("at").cast(pl.Datetime("ms", "Asia/Shanghai")))
    assert check(CanonicalLogs(write_canonical(tmp_path, impressions=naive, engagements=zoned))) == [
        "impressions: `shown_at` is a timestamp without a zone, taken as UTC; read as Unix milliseconds.",
        "engagements: `at` is a timestamp with zone Asia/Shanghai; read as Unix milliseconds.",
    ]


def test_a_leaf_of_a_struct_is_not_the_column_of_that_name(tmp_path):
    """The struct's `shown_at` holds seconds; it stands before the real one, and nobody reads it."""
    impressions = canonical_tables()["impressions"]
    device = pl.struct(shown_at=pl.lit(NOON // 1000), user_id=pl.lit("x")).alias("device")
    state = pl.struct(viewers=pl.lit("many")).alias("state")
    folder = write_canonical(tmp_path, impressions=impressions.select(device, state, pl.all()))
    logs = CanonicalLogs(folder)
    assert [remark.split("`")[1] for remark in check(logs)] == ["device", "state"]
    types = logs.types("impressions", ["user_id", "shown_at", "state.viewers"])
    rows = [row for file in logs.parts("impressions") for batch in file.batches(types, 10) for row in batch.to_pylist()]
    assert rows == [{"shown_at": NOON, "state.viewers": viewers, "user_id": 7} for viewers in (5, 9)]


def test_a_column_that_is_there_twice(tmp_path):
    folder = write_canonical(tmp_path)
    table = pq.read_table(folder / "users" / "part-0.parquet")
    for name in ("age", "user_id"):
        pq.write_table(table.append_column(name, pa.array([8])), folder / "users" / "part-0.parquet")
        with pytest.raises(ConfigError, match=rf"part-0\.parquet: column `{name}` is there 2 times"):
            check(CanonicalLogs(folder))


def test_what_kind_the_ids_are(tmp_path):
    users = pl.DataFrame({"user_id": [7]})
    rooms = pl.DataFrame({"room_id": ["70"], "streamer_id": [5.0]})
    tables = {name: table.cast({"room_id": pl.String}) for name, table in canonical_tables().items() if name != "users"}
    logs = CanonicalLogs(write_canonical(tmp_path, **tables, users=users, rooms=rooms))
    assert logs.id_kinds() == {"user_id": "integer", "room_id": "text", "streamer_id": "integer"}


@pytest.mark.parametrize(
    ("spelled", "holds", "expected"),
    [
        (["1970-01-02", "19700103", None], DAY, [86_400_000, 2 * 86_400_000, None]),  # both spellings in one table
        (["1970-01", "1970-02"], DAY, [0, 31 * 86_400_000]),
        (["1970-01-01 00:00:01", "1970-01-01T08:00:00+08:00"], TIME, [1000, 0]),
        (["864000000", "-5"], TIME, [864_000_000, -5]),
        (["0", "1970-01-02"], DAY, [0, 86_400_000]),  # from the beginning, and from a day on
        (["1.5", "2"], REAL, [1.5, 2.0]),
        (["1.5", "2"], ATTRIBUTE, ["1.5", "2"]),
    ],
)
def test_values_in_the_names_of_folders(spelled, holds, expected):
    assert [value.as_py() for value in of_path(spelled, holds)] == expected


@pytest.mark.parametrize(("value", "holds", "told"), [("2025-13-45", DAY, "no time"), ("many", REAL, "no number")])
def test_a_folder_that_names_no_value_is_told(value, holds, told):
    with pytest.raises(ValueError, match=f"`{value}` is {told}"):
        of_path(["1", value], holds)
