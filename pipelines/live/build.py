"""The feeds of a sample of entries with all rooms that were live as their candidates, as of each feed's moment.

    OUTPUT/feeds.parquet   encoded feeds; beside what a model reads, `live.*` columns of candidates
    OUTPUT/live.json       how many, and what was left out
    OUTPUT/work            the ordered log, while it is being made

The log is cleaned and ordered by the tasks of the preparation, on Ray where that runs on Ray, so that what is counted is what
the preparation counts; then columns are gathered bucket by bucket (`pipelines.live.columns`).
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.catalogue import WINDOWS
from pipelines.encode.clock import hours_since
from pipelines.encode.encode import encode
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.live import AGE, ENTRIES, FEEDS, RESULT
from pipelines.live.columns import LiveColumns
from pipelines.live.entries import Lives, among_live, entering, labels_of, sampled_feeds
from pipelines.logs.canonical import CanonicalLogs
from pipelines.prepare.build import plan_of
from pipelines.prepare.clean import chunks_of
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.features import frame, lists_of
from pipelines.prepare.tables import KEYS
from pipelines.prepare.tasks import CUT, CleanChunk, CutBucket, Plan, SortAttributes, SortedTables
from pipelines.prepared import EVENTS, Prepared
from pipelines.report.evaluation.live import LiveSample
from pipelines.runs import FileNote, RunFolder, write_json, written
from pipelines.runs.exchange import read_table
from pipelines.runs.noted import whole
from pipelines.runs.runner import Item, Runner, Workers

_SLICE = 100_000  # candidates encoded at a time
_WAY_OUT = "Delete it."


def live_feeds(logs: CanonicalLogs, prepared: Prepared, prepare: PrepareConfig, evaluate: EvaluateConfig, output: Path) -> Path:
    """Writes them and returns the folder; does nothing where they are there, and makes others anew.

    Args:
        prepare: with which `prepared` was made of the logs.

    Raises:
        ConfigError: nobody entered a room, the log does not say when rooms were live, or the schema cannot be asked.
    """
    run = RunFolder(output, RESULT)
    identity = {
        "data": prepared.fingerprint,
        "schema": prepared.schema.to_dict(),
        **{name: getattr(evaluate, name) for name in ("split", "live_entries", "live_rooms", "seed")},
    }
    if run.identity is not None and run.differences(identity):
        run.clear()
    run.begin(identity, way_out=_WAY_OUT)
    if run.is_finished:
        print(f"Live: {output} is finished; nothing to do.", flush=True)
        return output
    target = entering(prepared.schema)
    feeds = sampled_feeds(prepared, evaluate.split, target, evaluate.live_entries, evaluate.seed)
    among = among_live(feeds, Lives.of(logs), target, evaluate.live_rooms, evaluate.seed)
    plan = plan_of(logs, prepared.schema, prepare, output)
    user_Q = among.feeds["user_id"].to_numpy()[among.feed_Q]
    at_Q = among.feeds["at"].to_numpy()[among.feed_Q]
    attributes, buckets = _ordered(plan)
    columns = LiveColumns(plan.columns, plan.actions, attributes.all(), user_Q, among.room_Q, at_Q)
    for notes in buckets:
        columns.take(*(read_table(whole(note, plan.output)) for note in notes))
    candidates = columns.table()
    labels = labels_of(among, prepared.schema.target_names)
    known = [name for window in WINDOWS if (name := f"room_entries.{window}") in candidates.columns]
    more: dict[str, Any] = {AGE: hours_since(among.start_Q, at_Q)}
    if known:
        more[ENTRIES] = candidates[known[0]].to_numpy()
    candidates = candidates.hstack(frame({**labels, **more}, len(at_Q)))
    own = [name for name in among.feeds.column_names if name not in candidates.columns]
    with written(output / FEEDS) as draft:
        _write(draft, among.feeds.select(own), lists_of(candidates, among.offsets_R), among.offsets_R, prepared)
    sample = LiveSample(
        target=target.name,
        feeds=len(among.feeds),
        entries=among.entries,
        not_live=among.not_live,
        most=evaluate.live_rooms,
        live=float(among.live_R.mean()),
        ranked=float(np.diff(among.offsets_R).mean()),
        popularity=known[0] if known else None,
    )
    for folder in (plan.work, output / "quarantine"):
        shutil.rmtree(folder, ignore_errors=True)
    write_json(output / RESULT, sample.to_dict())
    print(f"Live: {output}: {sample}", flush=True)
    return output


def _ordered(plan: Plan) -> tuple[SortedTables, list[list[FileNote]]]:
    """The log's attribute tables, and feeds, impressions and engagements of every bucket of users."""
    runner = Runner(plan.output, plan.work / "notes", Workers(plan.config.parallel, plan.config.cpus_per_task))
    tables = [table for table in KEYS if plan.logs.has(table)]
    sorted_ = runner.step("attributes", [Item(table, table, 0) for table in tables], SortAttributes(plan))
    attributes = SortedTables(plan, {table: sorted_[table].files["table"][0] for table in tables})
    chunks = chunks_of(plan.logs, plan.config.rows_per_chunk)
    cleaned = runner.step("clean", [Item(chunk.name, chunk, chunk.rows) for chunk in chunks], CleanChunk(plan))
    sound = {
        table: [note for chunk in chunks if chunk.table == table for note in cleaned[chunk.name].files["clean"]]
        for table in EVENTS
    }
    share = sum(plan.rows.values()) // plan.buckets
    items = [Item(f"{bucket:05d}", bucket, share) for bucket in range(plan.buckets)]
    cut = runner.step("cut", items, CutBucket(plan, attributes, sound))
    return attributes, [[cut[item.name].files[name][0] for name in CUT[:3]] for item in items]


def _write(path: Path, feeds: pa.Table, candidates: dict[str, pa.Array], offsets_R: np.ndarray, prepared: Prepared) -> None:
    """Encodes slice by slice."""
    writer: pq.ParquetWriter | None = None
    stops = np.unique(np.r_[np.searchsorted(offsets_R, np.arange(_SLICE, offsets_R[-1], _SLICE)), len(feeds)])
    first = 0
    for stop in stops.tolist():
        if stop == first:
            continue
        part = feeds.slice(first, stop - first)
        for name, column in candidates.items():
            part = part.append_column(name, column.slice(first, stop - first))
        encoded = encode(part, prepared.schema, prepared.encoder)
        for name in (AGE, ENTRIES):
            if name in candidates:
                encoded = encoded.append_column(name, candidates[name].slice(first, stop - first))
        writer = writer or pq.ParquetWriter(path, encoded.schema)
        writer.write_table(encoded)
        first = stop
    assert writer is not None
    writer.close()
