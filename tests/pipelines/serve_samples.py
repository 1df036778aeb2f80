"""A prepared folder, its snapshot and a bundle for `tiny_schema`, small enough to know every number."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.schema import Schema
from models.system import SystemConfig, build_ranker
from pipelines.bundle import provenance, save_bundle
from pipelines.encode.clock import Clock
from pipelines.encode.encode import encode
from pipelines.encode.fit import finish, fit_partial
from pipelines.encode.plan import Flat, RawFeeds
from pipelines.encode.state import EncoderState
from pipelines.prepared import SPLITS, Prepared
from pipelines.serve.assemble import Assembled, Assembler
from pipelines.serve.request import Body, RankRequest, as_json, read_request
from pipelines.serve.store import Store
from pipelines.serve.told import told
from pipelines.serve.wanted import Wanted
from tests.pipelines.fabricate import write_manifest
from tests.pipelines.test_encode import random_feeds

NOW = 1_700_000_000_000
HOUR = 3_600_000


def write_prepared(folder: Path, schema: Schema, *, feeds: int = 6, seed: int = 0, features: pa.Table | None = None) -> Path:
    """A finished prepared folder: the same feeds (random ones) in every split, in two files each, and a snapshot."""
    how = {"entry_rate": 0.1, "clock": Clock()}
    features = random_feeds(schema, feeds, seed) if features is None else features
    feeds = features.num_rows
    state = finish(fit_partial(features, schema, **how), schema, **how)
    half = feeds // 2
    for split in SPLITS:
        for kind, table in (("features", features), ("feeds", encode(features, schema, state))):
            (folder / kind / split).mkdir(parents=True)
            pq.write_table(table.slice(0, half), folder / kind / split / "bucket-00000.parquet")
            pq.write_table(table.slice(half), folder / kind / split / "bucket-00001.parquet")
    for what, table in (("users", users()), ("rooms", rooms())):
        (folder / "snapshot" / what).mkdir(parents=True)
        pq.write_table(table, folder / "snapshot" / what / "part-0.parquet")
    state.save(folder / "encoder")
    (folder / "schema.json").write_text(json.dumps(schema.to_dict()))
    levels = encode(features, schema, state)["level"].combine_chunks().flatten().to_numpy()
    by_level = np.bincount(levels, minlength=len(schema.levels.names)).tolist()
    splits = {split: {"files": 2, "feeds": feeds, "candidates_by_level": tuple(by_level)} for split in SPLITS}
    write_manifest(folder, "abc", splits)
    return folder


def users() -> pa.Table:
    """User 1 has done things, user 2 nothing yet."""
    lists = lambda values, kind: pa.array([values, []], pa.large_list(kind))
    return pa.table(
        {
            "user_id": pa.array([1, 2], pa.int64()),
            "user_last_at": pa.array([NOW - 2 * HOUR, None], pa.int64()),
            "user_last_seen_hours": pa.array([0.0, None], pa.float32()),
            "user_entries": pa.array([9, 0], pa.int64()),
            "user_feeds": pa.array([4, 0], pa.int64()),
            "preference.click": pa.array([0.7, None], pa.float32()),
            "preference.stay": pa.array([63.3, None], pa.float32()),
            "preference.order": pa.array([0.1, None], pa.float32()),
            "channels.at": lists([NOW - 5 * HOUR, NOW - 3 * HOUR], pa.int64()),
            "channels.room_id": lists([11, 12], pa.int64()),
            "channels.streamer_id": lists([101, None], pa.int64()),
            "channels.room.category": lists(["c1", None], pa.large_string()),
            "channels.stay_seconds": lists([30.0, 60.5], pa.float64()),
            "products.at": lists([NOW - HOUR], pa.int64()),
            "products.product_id": lists([7], pa.int64()),
            "pair.streamer_id": lists([101, 102], pa.int64()),
            "pair.streamer_impressions": lists([5, 6], pa.int64()),
            "pair.streamer_entries": lists([2, 0], pa.int64()),
            "pair.streamer_last_entry_at": lists([NOW - 4 * HOUR, None], pa.int64()),
            "pair.room_id": lists([12], pa.int64()),
            "pair.room_impressions": lists([3], pa.int64()),
            "pair.room_entries": lists([1], pa.int64()),
            "pair.room_last_shown_at": lists([NOW - HOUR // 2], pa.int64()),
        }
    )


def rooms() -> pa.Table:
    """Rooms 11 and 12 of streamers 101 and 102; nobody knows who streams in room 13."""
    return pa.table(
        {
            "room_id": pa.array([11, 12, 13], pa.int64()),
            "streamer_id": pa.array([101, 102, None], pa.int64()),
            "room.category": pa.array(["c1", "c2", None]).dictionary_encode(),
            "streamer.fans": pa.array([5000, None, None], pa.int64()),
            "state.product_id": pa.array([7, 8, None], pa.int64()),
            "product.price": pa.array([1.5, 2.5, None], pa.float64()),
            "room_impressions.life": pa.array([40, 50, 60], pa.int64()),
            "room_entries.life": pa.array([4, 5, 6], pa.int64()),
            "streamer_impressions.life": pa.array([400, 500, None], pa.int64()),
            "room_first_at": pa.array([NOW - 8 * HOUR, None, NOW + HOUR], pa.int64()),
        }
    )


def write_bundle(
    path: Path,
    schema: Schema,
    encoder: EncoderState,
    *,
    model: SystemConfig | None = None,
    seed: int = 0,
    broken: bool = False,
) -> Path:
    """A ranker with random weights, large enough for every input to matter; broken: all of them NaN."""
    torch.manual_seed(seed)
    model = model or SystemConfig()
    ranker = build_ranker(schema, model, encoder.table_sizes)
    with torch.no_grad():
        for weights in ranker.parameters():
            weights.fill_(float("nan")) if broken else weights.add_(0.1 * torch.randn_like(weights))
    return save_bundle(
        path,
        schema=schema,
        system=model,
        encoder=encoder,
        ranker=ranker,
        metrics={"click": {"auc": 0.75, "auc_head": float("nan")}},
        provenance=provenance(seed=seed),
    )


def asked(body: Body) -> RankRequest:
    return read_request(as_json(body))


def assembled(schema: Schema, store: Store | None, *bodies: Body) -> Assembled:
    """Requests as raw feeds."""
    wanted = Wanted.by(schema)
    return Assembler(wanted, store)([told(asked(body), wanted, NOW) for body in bodies])


def as_table(feeds: RawFeeds, clock: Clock = Clock()) -> pa.Table:  # noqa: B008
    """Raw feeds as the table that preparation would write."""

    def array(values: Flat) -> pa.Array:
        return pa.array(values.values, mask=~values.known)

    def lists(values: Flat, lengths: np.ndarray) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32)), array(values))

    count = len(feeds.at_R)
    columns = {"feed_id": pa.array(range(count)), "at": pa.array(feeds.at_R), "day": pa.array(clock.day(feeds.at_R))}
    columns |= {name: array(values) for name, values in feeds.feed.items()}
    columns |= {name: lists(values, feeds.lengths_R) for name, values in feeds.candidate.items()}
    for history, raw in feeds.histories.items():
        columns |= {f"{history}.{name}": lists(values, raw.lengths_R) for name, values in raw.columns.items()}
    return pa.table(columns)


def prepared_and_bundle(folder: Path, schema: Schema, **how) -> tuple[Prepared, Path]:
    prepared = Prepared.open(write_prepared(folder / "prepared", schema, **how))
    return prepared, write_bundle(folder / "bundle", schema, prepared.encoder)
