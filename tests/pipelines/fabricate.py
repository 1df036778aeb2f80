"""A prepared folder from random feeds, for tests that need data but not their preparation."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.batch import FeedBatch
from models.config import to_dict
from models.schema import Bins, Hash, Schema
from pipelines.encode.clock import Clock
from pipelines.encode.feeds import EARLIER, LABEL_PREFIX, PER_CLICK_PREFIX, PREFERENCE_PREFIX, STAGE, TABLES, feeds_schema
from pipelines.encode.rows import BinRows, HashRows, VocabularyRows
from pipelines.encode.state import EncoderState, LevelState, Scale, encoding_fingerprint
from pipelines.logs.rows import SourceRows
from pipelines.prepared import Findings, LogCounts, Manifest, Prepared, Split, write_notes
from pipelines.runs.noted import noted, signed
from pipelines.runs.sealed import SealedWriter, footer_digest
from pipelines.train.progress import EpochRecord
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

QUANTILES = -np.log(1 - np.linspace(0, 1 - 1 / 512, 257))  # of the exponential distribution, up to its last 512th


def fabricate(
    path: Path,
    *,
    schema: Schema | None = None,
    sizes: dict[str, int] = TABLE_SIZES,
    train_files: tuple[int, ...] = (70, 50),
    valid_files: tuple[int, ...] = (40,),
    row_group_feeds: int = 16,
    seed: int = 0,
) -> Prepared:
    """Writes and opens a prepared folder with as many feeds a file as said.

    `click` (the first target) depends on the candidate's room and hour, so a ranker can learn it; the rest is chance.
    Feed ids count up from 0 through all files, and `user_id` is the feed id, so batches can be told apart.
    """
    schema = schema or tiny_schema()
    counts: dict[str, dict[str, Any]] = {}
    first = 0
    for split, files in {"train": train_files, "valid": valid_files, "test": ()}.items():
        folder = path / "feeds" / split
        folder.mkdir(parents=True)
        by_level_C = np.zeros(len(schema.levels.names), np.int64)
        for number, feeds in enumerate(files):
            batch = random_batch(schema, sizes, feeds=feeds, seed=seed + 1000 * first + number, most_candidates=6)
            table = feed_table(_learnable(batch, schema, seed + first), schema, first)
            with SealedWriter(folder / f"bucket-{number:05d}.parquet", table.schema) as writer:
                writer.write(table, row_group_feeds)
            first += feeds
            by_level_C += np.bincount(batch.level_N.numpy(), minlength=len(by_level_C))
        counts[split] = {"files": len(files), "feeds": sum(files), "candidates_by_level": tuple(by_level_C.tolist())}
    _encoder(schema, sizes).save(path / "encoder")
    (path / "schema.json").write_text(json.dumps(schema.to_dict()))
    fingerprint = f"fabricated-{seed}-{train_files}-{valid_files}"
    write_manifest(path, fingerprint, counts)
    return Prepared.open(path)


def epoch_record(epoch: int, **known: Any) -> EpochRecord:
    """A finished epoch of a training without validation."""
    nothing: dict[str, Any] = {"losses": {}, "diagnostics": [], "metrics": None, "monitor": None}
    numbers = {"total_steps": 8 * (epoch + 1), "candidates": 100.0, "seconds": 1.0, "candidates_per_second": 100.0}
    return EpochRecord(epoch=epoch, **{**nothing, **numbers, **known})


def write_manifest(folder: Path, fingerprint: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """The manifest of a folder that no log was prepared for: its splits count at least `files` and `feeds`."""
    nothing = LogCounts(
        rows={},
        kept={},
        quarantined={},
        left_out={},
        converted=SourceRows(),
        unattributed_engagements=0,
        feeds=0,
        candidates=0,
        users=0,
        rooms=0,
        attributes={},
        feeds_by_day={},
        found=Findings(),
    )
    manifest = Manifest(
        tables=TABLES,
        fingerprint=fingerprint,
        splits={split: Split(**{"candidates": 0, "largest_feed": 0, **counts}) for split, counts in splits.items()},
        days=dict.fromkeys(splits, ()),
        empty_days=(),
        ending=1_700_000_000_000,
        open_labels="mask",
        arrivals=(),
        arrived={},
        warmup_feeds=0,
        warmup_days=(),
        entry_rate=0.1,
        counts=nothing,
        buckets=1,
        seconds={},
    )
    (folder / "manifest.json").write_text(json.dumps(signed(to_dict(manifest))))
    note_tables(folder)


def noted_anew(folder: Path) -> Prepared:
    """A prepared folder in which tables were written anew by hand."""
    note_tables(folder)
    return Prepared.open(folder)


def note_tables(folder: Path) -> None:
    """Names all tables that lie in a prepared folder, as they are now."""
    notes = []
    for file in sorted(folder.rglob("*.parquet")):
        rows = pq.read_metadata(file).num_rows
        note = noted(file, folder, rows=rows)
        notes.append(replace(note, digest=footer_digest(file)) if note.path.startswith("feeds/") else note)
    write_notes(folder, notes)


def feed_table(batch: FeedBatch, schema: Schema, first_id: int) -> pa.Table:
    """The encoded feed table of a batch: what `to_batch` turns into it."""
    lengths = np.bincount(batch.feed_of_candidate_N.numpy(), minlength=batch.feeds)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.arange(first_id, first_id + batch.feeds)
    cut = lambda values: pa.ListArray.from_arrays(offsets, pa.array(values))
    columns: dict[str, object] = {
        "feed_id": ids,
        "user_id": ids,
        "at": 1_600_000_000_000 + ids,
        "day": np.full(batch.feeds, 18518, np.int32),
        "room_id": cut(np.arange(offsets[-1])),
        "level": cut(batch.level_N.numpy().astype(np.int8)),
    }
    for field in schema.fields:
        values = (batch.feed if field.of == "feed" else batch.candidate)[field.name].numpy()
        values = values if field.is_number else values.astype(np.int32)
        columns[field.name] = values if field.of == "feed" else cut(values)
    for history in schema.histories:
        is_real = batch.histories[history.name].is_real_RL.numpy()
        ends = np.concatenate([[0], np.cumsum(is_real.sum(1))]).astype(np.int32)
        for field in history.fields:
            rows = batch.histories[history.name].rows[field.name].numpy()[is_real].astype(np.int32)
            columns[f"{history.name}.{field.name}"] = pa.ListArray.from_arrays(ends, pa.array(rows))
    for name in schema.target_names:
        columns[LABEL_PREFIX + name] = cut(batch.labels[name].numpy())
        mean_RW = batch.preferences[name].numpy()
        for prefix, rate_RW in ((PREFERENCE_PREFIX, mean_RW), (PER_CLICK_PREFIX, np.minimum(2 * mean_RW, 1))):
            columns[prefix + name] = [[None if np.isnan(rate) else rate for rate in rate_W] for rate_W in rate_RW]
    assert batch.earlier_RW is not None
    columns[EARLIER] = batch.earlier_RW.tolist()
    if batch.stage_R is not None:
        columns[STAGE] = batch.stage_R.numpy().astype(np.int8)
    kinds = feeds_schema(schema)
    return pa.table({name: columns[name] for name in kinds.names}, schema=kinds)


def _learnable(batch: FeedBatch, schema: Schema, seed: int) -> FeedBatch:
    rng = np.random.default_rng(seed)
    table_rows = [values.numpy() for name, values in batch.candidate.items() if not schema_number(schema, name)]
    score = np.sin(table_rows[0] * 1.7) * 2 + 0.3 * rng.normal(size=batch.candidates)
    labels = {name: values.clone() for name, values in batch.labels.items()}
    labels[schema.target_names[0]][:] = _tensor(score > 0, labels[schema.target_names[0]])
    return FeedBatch(**{**batch.__dict__, "labels": labels})


def schema_number(schema: Schema, name: str) -> bool:
    return next(field for field in schema.fields if field.name == name).is_number


def _tensor(values: np.ndarray, like):
    return like.new_tensor(values.astype(np.float32))


def _encoder(schema: Schema, sizes: dict[str, int]) -> EncoderState:
    tables = {}
    for name, (how, _) in schema.tables.items():
        if isinstance(how, Hash):
            tables[name] = HashRows(sizes[name])
        elif isinstance(how, Bins):
            tables[name] = BinRows(np.arange(sizes[name] - 2, dtype=np.float64))
        else:
            tables[name] = VocabularyRows(np.arange(1, sizes[name], dtype=np.int64))
    return EncoderState(
        encoding=encoding_fingerprint(schema),
        clock=Clock(),
        entry_rate=0.5,
        largest_feed=6,
        tables=tables,
        numbers={field.name: Scale(0.0, 1.0) for field in schema.fields if field.is_number},
        level=LevelState(VocabularyRows(np.zeros(0, np.int64)), np.zeros(1, np.int8), np.zeros(0)),
        label_quantiles={target.name: 60 * QUANTILES for target in schema.targets if not target.is_binary},
        stage_medians=None if schema.stages is None else {"click": 0.1, "stay": 30.0, "order": 0.0},
    )
