"""Users with too many rows: their later ones are left out by rule, counted, and never held together."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from pipelines.prepare import prepare
from pipelines.prepare.long_users import TIMES, long_users
from tests.pipelines.naive_prepare import SmallLog, random_log, wide_schema
from tests.pipelines.test_prepare import config, in_order, rows_of

SCHEMA = wide_schema()


def capped(log: SmallLog, most: int) -> SmallLog:
    """The rule, row by row: what a user does from the moment on at which they have had so many rows is gone."""
    times: dict[int, list[int]] = {}
    for table, time in TIMES.items():
        for row in getattr(log, table):
            times.setdefault(row["user_id"], []).append(row[time])
    until = {user: sorted(of_user)[most] for user, of_user in times.items() if len(of_user) > most}
    keep = lambda table, row: row[TIMES[table]] < until.get(row["user_id"], 2**62)
    return replace(log, **{table: [row for row in getattr(log, table) if keep(table, row)] for table in TIMES})


@pytest.mark.parametrize(("seed", "most"), [(0, 60), (1, 40), (2, 45)])
def test_what_a_user_does_after_so_many_rows_is_left_out(tmp_path, capsys, seed, most):
    """As if the log ended there for this user: features, labels, counters of rooms and the account."""
    log = random_log(seed, feeds=60)
    known = [row for row in log.engagements if row["action"] in ("enter", "order")]  # others are out before
    log = replace(log, engagements=known)
    less = capped(log, most)
    given = config(user_most=most, rows_per_bucket=70, until=datetime(2025, 1, 1))
    counts = prepare(log.write(tmp_path / "logs"), SCHEMA, given, tmp_path / "out").manifest.counts
    said = capsys.readouterr().out
    prepare(less.write(tmp_path / "less"), SCHEMA, replace(given, user_most=10**6), tmp_path / "less-out")
    assert in_order(rows_of(tmp_path / "out")) == in_order(rows_of(tmp_path / "less-out"))
    gone = {table: len(getattr(log, table)) - len(getattr(less, table)) for table in TIMES}
    assert sum(gone.values()) > 0 and counts.found.long_users.users >= len(counts.found.long_users.most) > 0
    for table, count in gone.items():
        assert counts.account[table].left_out.get("of users past prepare.user_most", 0) == count
        assert counts.account[table].is_whole and counts.account[table].read == len(getattr(log, table))
    assert "users with more than prepare.user_most rows: " in said and "left out, impressions: " in said


def test_the_moment_is_that_of_the_first_row_too_many_over_all_tables_and_batches():
    batch = lambda name, users, at: pa.record_batch({"user_id": np.array(users), name: np.array(at)})
    tables = {
        "impressions": [batch("shown_at", [7, 7, 8], [50, 10, 1]), batch("shown_at", [7, 8, 7], [30, 2, 30])],
        "engagements": [batch("at", [7, 9], [20, 3])],
        "product_clicks": [],
    }
    long = long_users(tables, 3)
    assert (long.ids.tolist(), long.rows.tolist(), long.until.tolist()) == ([7], [5], [30])
    assert long.kept(tables["impressions"], "impressions").to_pydict() == {"user_id": [7, 8, 8], "shown_at": [10, 1, 2]}
    assert long.kept(tables["engagements"], "engagements").num_rows == 2
    assert long_users(tables, 5) is None and long_users(tables, 8) is None
    many = [batch("at", [7] * 10, np.arange(10) + 10 * number) for number in reversed(range(20))]
    assert long_users({"engagements": many}, 17).until.tolist() == [17]


def test_memory_goes_by_the_cap_and_not_by_rows():
    """What is held of a user of two million rows, of which a fortieth counts."""
    users = np.full(100_000, 7)
    batches = [
        pa.record_batch({"user_id": users, "at": np.arange(100_000) + 100_000 * number, "value": np.ones(100_000)})
        for number in range(20)
    ]
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    long = long_users({"engagements": batches}, 50_000)
    kept = long.kept(batches, "engagements")
    assert len(kept) == 50_000 and pool.bytes_allocated() - before < 3 * kept.nbytes
