"""Prepare as a whole: against the naive reference, against leaks, and over buckets."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.prepare import PrepareConfig, prepare
from tests.pipelines.naive_prepare import DAY, EXTRA, HOUR, START, naive_features, random_log, wide_schema

SCHEMA = wide_schema()
SPLITS = ("train", "valid", "test")


def config(**changes) -> PrepareConfig:
    given = {"parallel": "none", "extra_columns": EXTRA, "quarantine_limit": 0.5, "rows_per_chunk": 20, "feeds_per_file": 7}
    return PrepareConfig(**(given | changes))


def rows_of(output) -> list[dict]:
    files = sorted((output / "features").glob("*/*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def in_order(rows: list[dict]) -> list[dict]:
    """Rows without their id, in an order that depends on their content alone."""
    rows = [{name: row[name] for name in sorted(row) if name != "feed_id"} for row in rows]
    return sorted(rows, key=lambda row: (row["user_id"], row["at"], row["room_id"], repr(row)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rows_per_bucket", [1_000_000, 25])
def test_features_equal_the_naive_reference(tmp_path, seed, rows_per_bucket):
    log = random_log(seed)
    prepare(log.write(tmp_path / "logs"), SCHEMA, config(rows_per_bucket=rows_per_bucket), tmp_path / "out")
    found, expected = in_order(rows_of(tmp_path / "out")), in_order(naive_features(log, SCHEMA))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for name in theirs.keys() | ours.keys():
            assert ours[name] == theirs[name], (name, theirs["user_id"], theirs["at"])
