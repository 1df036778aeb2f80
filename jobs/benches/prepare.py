"""Preparation on Ray against one polars process that does the same joins and last-50 histories.

    python -m jobs.bench prepare --impressions 5000000 --repeats 2

Both read the same simulated log and write one row a feed: candidate lists, three labels, two point-in-time histories of
50 entries with attributes. They run alternately in one session, each in a process of its own. The baseline is the
quickest of the ways we know in polars: joins and `group_by` for the feeds, `join_asof` for what a feed may see, one
gather for all histories, lists cut at offsets. Ours also judges every row, keeps running preferences of every target,
writes a snapshot, and can be resumed; its counters over all users and its encoding have no counterpart there and are
shown apart (`--whole`).

Times are from a running Ray with warm workers; the cold start is shown beside them. Memory is the proportional set
size (what is shared counts once) of the process and all that it started, sampled four times a second.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from jobs.benches.memory import Memory
from models.schema import Bins, Field, History, HistoryField, Number, Schema, Target, Vocabulary
from pipelines.logs import CanonicalLogs, SimulateConfig, materialise

LENGTH = 50
DAYS = 8
IMPRESSIONS_PER_USER = 272  # of the simulator, over these days
COMPARABLE = ("attributes", "clean", "cut", "rooms", "features")


def schema(whole: bool) -> Schema:
    """What the baseline does; `whole` adds counters over all users, of user and pairs, and preferences."""
    words = Vocabulary()
    fields = [
        Field(name="room", of="candidate", column="room_id", encoding=words),
        Field(name="streamer", of="candidate", column="streamer_id", encoding=words),
        Field(name="category", of="candidate", column="room.category", encoding=words),
        Field(name="product", of="candidate", column="state.product_id", encoding=words),
    ]
    if whole:
        number = Number(transform="log1p")
        of_feed = ["user_impressions", "user_entries", "user_last_seen_hours", "preference.click", "preference.order"]
        counted = [
            f"{owner}_{what}.{window}"
            for owner in ("room", "streamer")
            for what in ("impressions", "entries")
            for window in ("10m", "1h", "life")
        ]
        pairs = [f"pair_{owner}_{what}" for owner in ("room", "streamer") for what in ("impressions", "entries", "hours")]
        ages = ["room_age_hours", "streamer_age_hours"]
        fields += [Field(name=name.replace(".", "_"), of="feed", column=name, encoding=number) for name in of_feed]
        fields += [
            Field(name=name.replace(".", "_"), of="candidate", column=name, encoding=number)
            for name in [*counted, *pairs, *ages]
        ]
    return Schema(
        fields=tuple(fields),
        histories=(
            History(
                name="channels",
                events="engagements",
                length=LENGTH,
                fields=(
                    HistoryField(name="room", column="room_id", encoding=words),
                    HistoryField(name="streamer", column="streamer_id", encoding=words),
                    HistoryField(name="category", column="room.category", encoding=words),
                    HistoryField(name="stay", column="stay_seconds", encoding=Bins(count=8)),
                ),
            ),
            History(
                name="products",
                events="product_clicks",
                length=LENGTH,
                fields=(
                    HistoryField(name="product", column="product_id", encoding=words),
                    HistoryField(name="product_category", column="product.category"),
                ),
            ),
        ),
        targets=tuple(Target(name=name, action=action) for name, action in LABELS.items()),
    )


LABELS = {"click": "enter", "goods_bag": "goods_bag", "order": "order"}


# -- the baseline ----------------------------------------------------------------------------------------------


def in_polars(logs: Path, output: Path) -> dict:
    """Everything in one process; returns seconds and a few totals that both sides must agree on."""
    import polars as pl
    import pyarrow as pa

    def table(name: str) -> pl.LazyFrame:
        return pl.scan_parquet([str(file) for file in CanonicalLogs(logs).files(name)])

    def cut(rows: pl.DataFrame, lengths: pl.Series, name: str) -> pl.DataFrame:
        """Columns cut into lists: what polars has no function for, and Arrow does without a copy."""
        offsets = pa.array([0, *lengths.cum_sum()], pa.int64())
        newest = pl.CompatLevel.newest()
        lists = {f"{name}.{s.name}": pa.LargeListArray.from_arrays(offsets, s.to_arrow(compat_level=newest)) for s in rows}
        return pl.from_arrow(pa.table(lists))  # type: ignore[return-value]

    def histories(feeds: pl.DataFrame, events: pl.DataFrame, name: str) -> pl.DataFrame:
        """The last events of each feed's user known before it; `events` by user and the moment they are known."""
        numbered = events.select(
            "user_id", "known", nth=pl.int_range(1, pl.len() + 1).over("user_id"), end=pl.int_range(1, pl.len() + 1)
        )
        asked = feeds.select("user_id", before=pl.col("at") - 1)
        seen = asked.join_asof(numbered, left_on="before", right_on="known", by="user_id", check_sortedness=False)
        count = pl.min_horizontal(pl.col("nth").fill_null(0), LENGTH)
        seen = seen.select(count=count, end=pl.col("end").fill_null(0))
        rows = seen.select(pl.int_ranges(pl.col("end") - pl.col("count"), pl.col("end"))).to_series().explode().drop_nulls()
        return cut(events.drop("user_id", "known")[rows], seen["count"], name)

    started = time.monotonic()
    action = pl.col("action")
    rooms = table("rooms").select("room_id", "streamer_id", pl.col("category").alias("room.category"))
    products = table("products").select("product_id", pl.col("category").alias("product.category"))
    engagements = table("engagements")
    labels = engagements.group_by("request_id", "room_id").agg(
        (action == name).any().cast(pl.Float32).alias(f"label.{target}") for target, name in LABELS.items()
    )
    impressions = table("impressions").select("request_id", "user_id", "room_id", "shown_at", "state.product_id")
    candidates = impressions.join(labels, on=["request_id", "room_id"], how="left").join(rooms, on="room_id", how="left")
    feeds = (
        candidates.with_columns(pl.col("^label.*$").fill_null(0))
        .group_by("request_id")
        .agg(
            pl.col("user_id").first(),
            pl.col("shown_at").min().alias("at"),
            "room_id",
            "streamer_id",
            "room.category",
            "state.product_id",
            "^label.*$",
        )
        .sort("user_id", "at")
        .collect()
    )
    entries = (
        engagements.filter(action == "enter")
        .join(rooms, on="room_id", how="left")
        .select(
            "user_id",
            "at",
            "room_id",
            "streamer_id",
            "room.category",
            known=pl.col("at") + (pl.col("value") * 1000).cast(pl.Int64),
            stay_seconds=pl.col("value").cast(pl.Float32),
        )
        .sort("user_id", "known")
        .collect()
    )
    clicks = table("product_clicks").join(products, on="product_id", how="left")
    clicks_by_user = clicks.with_columns(known=pl.col("at")).sort("user_id", "known").collect()
    found = [histories(feeds, entries, "channels"), histories(feeds, clicks_by_user, "products")]
    whole = pl.concat([feeds, *found], how="horizontal")
    output.mkdir(parents=True, exist_ok=True)
    whole.write_parquet(output / "feeds.parquet", compression="lz4", statistics=False)
    seconds = time.monotonic() - started
    return {"seconds": seconds, "totals": totals([output / "feeds.parquet"])}


def totals(files: Sequence[Path]) -> dict[str, int]:
    """What must be equal, whoever computed it."""
    import polars as pl

    lengths = [pl.col(name).list.len().sum() for name in ("room_id", "channels.at", "products.at")]
    labels = [pl.col(f"label.{target}").list.sum().sum() for target in LABELS]
    stays = pl.col("channels.stay_seconds").list.sum().cast(pl.Float64).sum().alias("stays")
    parts = [pl.scan_parquet(file).select(pl.len().alias("feeds"), *lengths, *labels, stays).collect() for file in files]
    return {name: round(value) for name, value in pl.concat(parts).sum().row(0, named=True).items()}


# -- ours ------------------------------------------------------------------------------------------------------


def on_ray(logs: Path, output: Path, whole: bool, cpus: int) -> dict:
    """Prepares a tiny log first, so that Ray and its workers are warm, then the real one."""
    from pipelines.cluster import RayConfig, connected
    from pipelines.prepare import PrepareConfig, prepare

    started = time.monotonic()
    with connected(RayConfig(num_cpus=cpus, dashboard=False, object_store_mb=300)):
        tiny = materialise(SimulateConfig(users=50, days=3), output.parent / "tiny")
        prepare(tiny, schema(whole), PrepareConfig(), output.parent / "tiny-prepared")
        cold = time.monotonic() - started
        started = time.monotonic()
        prepared = prepare(CanonicalLogs(logs), schema(whole), PrepareConfig(), output)
        seconds = time.monotonic() - started
    assert prepared is not None
    files = [file for split in ("train", "valid", "test") for file in prepared.features(split)]
    return {
        "seconds": seconds,
        "cold": cold,
        "steps": prepared.manifest.seconds,
        "buckets": prepared.manifest.buckets,
        "totals": totals(files),
    }


# -- measuring -------------------------------------------------------------------------------------------------


def measured(side: str, logs: Path, folder: Path, *, whole: bool, cpus: int) -> dict:
    """Runs one side in a process of its own; returns what it says, and its peak memory."""
    output = folder / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "jobs.benches.prepare", "--side", side, "--logs", str(logs), "--output", str(output)]
    command += ["--cpus", str(cpus), *(["--whole"] if whole else [])]
    environment = os.environ | {"POLARS_MAX_THREADS": str(cpus)}
    load = os.getloadavg()[0]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
    memory = Memory(process.pid)
    printed, _ = process.communicate()
    memory.stop()
    if process.returncode:
        raise RuntimeError(f"the {side} side failed:\n{printed}")
    found = json.loads(printed.splitlines()[-1])
    shutil.rmtree(folder)
    return found | {"memory": memory.peak, "memory_of_one": memory.peak_of_one, "load": load}


def rows_of(logs: CanonicalLogs, table: str) -> int:
    return sum(pq.read_metadata(file).num_rows for file in logs.files(table))


def compare(impressions: int, repeats: int, cpus: int, folder: Path, *, whole: bool) -> None:
    users = max(20, round(impressions / IMPRESSIONS_PER_USER))
    logs = materialise(SimulateConfig(users=users, days=DAYS), folder / f"logs-{users}")
    shown = rows_of(logs, "impressions")
    print(f"\n{shown:,} impressions, {rows_of(logs, 'engagements'):,} engagements, {cpus} CPUs")
    ours, theirs = [], []
    for number in range(repeats):
        ours.append(measured("ray", logs.path, folder / "run", whole=False, cpus=cpus))
        theirs.append(measured("polars", logs.path, folder / "run", whole=False, cpus=cpus))
        if ours[-1]["totals"] != theirs[-1]["totals"]:
            raise RuntimeError(f"the two sides disagree: {ours[-1]['totals']} and {theirs[-1]['totals']}")
        comparable = sum(ours[-1]["steps"][name] for name in COMPARABLE)
        print(
            f"  run {number + 1}: ray {comparable:.2f} s of {ours[-1]['seconds']:.2f} s, polars {theirs[-1]['seconds']:.2f} s, "
            f"ratio {comparable / theirs[-1]['seconds']:.2f}; load before {ours[-1]['load']:.1f}, {theirs[-1]['load']:.1f}",
            flush=True,
        )
    comparables = [sum(run["steps"][name] for name in COMPARABLE) for run in ours]
    ratios = [ray / run["seconds"] for ray, run in zip(comparables, theirs, strict=True)]
    print(f"  the same work: ray {_spread(comparables)} s ({shown / statistics.median(comparables):,.0f} impressions/s), "
          f"polars {_spread([run['seconds'] for run in theirs])} s; ratio {_spread(ratios)}")  # fmt: skip
    for name in ours[0]["steps"]:
        print(f"    {name:<10} {_spread([run['steps'][name] for run in ours])} s")
    print(f"  cold start of Ray and its workers, once: {_spread([run['cold'] for run in ours])} s")
    _print_memory("ray", ours)
    _print_memory("polars", theirs)
    if whole:
        runs = [measured("ray", logs.path, folder / "run", whole=True, cpus=cpus) for _ in range(repeats)]
        print(f"  everything, with counters and encoding: {_spread([run['seconds'] for run in runs])} s "
              f"({shown / statistics.median(run['seconds'] for run in runs):,.0f} impressions/s)")  # fmt: skip
        for name in runs[0]["steps"]:
            print(f"    {name:<10} {_spread([run['steps'][name] for run in runs])} s")
        _print_memory("ray", runs)


def _print_memory(side: str, runs: Sequence[dict]) -> None:
    everything, one = ([run[name] / 2**20 for run in runs] for name in ("memory", "memory_of_one"))
    print(f"  memory, {side}: all processes {_spread(everything, 0)} MiB, the largest one {_spread(one, 0)} MiB")


def _spread(values: Sequence[float], digits: int = 2) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f}, n={len(values)})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="jobs.bench prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--impressions", type=int, nargs="+", default=[1_250_000, 5_000_000], help="sizes of the log, about")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="tasks at a time, and polars' threads")
    parser.add_argument("--whole", action="store_true", help="also run with all counters and the encoding")
    parser.add_argument("--folder", type=Path, help="where logs are kept; a temporary folder by default")
    parser.add_argument("--side", choices=["ray", "polars"], help=argparse.SUPPRESS)
    parser.add_argument("--logs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        found = (
            on_ray(args.logs, args.output, args.whole, args.cpus) if args.side == "ray" else in_polars(args.logs, args.output)
        )
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for impressions in args.impressions:
            compare(impressions, args.repeats, args.cpus, folder.resolve(), whole=args.whole)


if __name__ == "__main__":
    main()
