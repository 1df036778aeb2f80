"""A log in crumbs beside the same log in few files: `python -m tests.pipelines.small_files FILES` prints tasks and CPU."""

import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from pipelines.logs.canonical import CanonicalLogs
from pipelines.prepare.clean import EVENTS, chunks_of
from pipelines.prepared import Prepared
from pipelines.steps import logs_of, prepare_step
from tests.pipelines.on_stores import experiment


def crumbled(logs: CanonicalLogs, folder: Path, rows: int) -> CanonicalLogs:
    """The same rows in the same order, in files of so many."""
    for table in ("impressions", "engagements", "product_clicks", "users", "rooms", "streamers", "products"):
        whole = pl.read_parquet(logs.files(table))
        size = rows if table in EVENTS else len(whole)
        (folder / table).mkdir(parents=True)
        for number, start in enumerate(range(0, len(whole), size)):
            whole[start : start + size].write_parquet(folder / table / f"{number:06d}.parquet")
    return CanonicalLogs(folder)


def prepared_of(output: Path, logs: CanonicalLogs, *more: str) -> Prepared:
    made = prepare_step(experiment(output, f"logs={{kind: canonical, path: '{logs.path}'}}", *more))
    assert made is not None
    return made


def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        users = files // 10  # who do some 200 things each
        logs = logs_of(experiment(Path(folder) / "few", f"logs.users={users}"))
        total = sum(logs.as_now().rows(table) for table in EVENTS)
        small = crumbled(logs, Path(folder) / "crumbs", max(1, total // files))
        for name, some in (("few", logs), ("crumbs", small)):
            now = some.as_now()
            print(f"{name}: {sum(len(now.files(table)) for table in EVENTS):,} files, {total:,} rows", flush=True)
            began, spent = time.monotonic(), time.process_time()
            chunks = chunks_of(now, 500_000)
            now.fingerprint()
            print(
                f"  planned as {len(chunks)} tasks, {time.process_time() - spent:.1f} CPU s, {time.monotonic() - began:.1f} s"
            )
            spent = time.process_time()
            prepared_of(Path(folder) / f"of {name}", some, "prepare.rows_per_bucket=500000")
            print(f"  prepared in one process: {time.process_time() - spent:.1f} CPU s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
