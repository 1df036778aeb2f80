"""What one task of each step reads and writes. Everything here runs in a worker, on files and plain arguments.

OUTPUT/work/attributes/rooms.arrow          sorted attribute tables
OUTPUT/work/clean/impressions-00003.arrow   sound rows of a chunk, by bucket of users
OUTPUT/work/cut/00003.feeds.arrow           ordered log of a bucket of users; also .impressions, .engagements
OUTPUT/work/shown/00003.arrow               its impressions by bucket of streamers; also done/, seen/
OUTPUT/work/counters/00003.arrow            counters of a bucket of streamers, by bucket of users
"""

import pickle
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from models.catalogue import PAIRS, ROOM, STREAMER, USER, Column, counters
from models.schema import Schema
from pipelines.encode.arrays import integers
from pipelines.encode.encode import encode
from pipelines.encode.fit import fit_partial
from pipelines.encode.remarks import Seen
from pipelines.encode.state import EncoderState
from pipelines.logs.canonical import CanonicalLogs
from pipelines.prepare import snapshot
from pipelines.prepare.attributes import sort_table
from pipelines.prepare.clean import ENTER_CODE, Asked, Chunk, actions_of, clean
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.exchange import ExchangeWriter, bucket_of, open_batches, read_bucket, read_table, write_table
from pipelines.prepare.features import AttributeTables, Features, attribute_columns, frame, picked, slices, write_parquet
from pipelines.prepare.labels import Credits
from pipelines.prepare.log_to_feeds import cut, once
from pipelines.prepare.room_counters import START_AT, Counting, Rooms, count_bucket, counted_actions, streamers_of
from pipelines.prepare.tables import KEYS, Attributes
from pipelines.prepare.timeline import codes
from pipelines.prepare.user_counters import UserSide, read_log
from pipelines.prepared import SPLITS
from pipelines.runs import written

CLICKS = pa.schema([("user_id", pa.int64()), ("product_id", pa.int64()), ("at", pa.int64())])
ENGAGEMENTS = pa.schema(
    [
        ("request_id", pa.int64()),
        ("user_id", pa.int64()),
        ("room_id", pa.int64()),
        ("at", pa.int64()),
        ("action", pa.int8()),
        ("value", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Plan:
    """All that tasks need to know.

    Attributes:
        columns: base columns to compute, beside `META`.
        served: those of them that the endpoint needs too.
        carried: `position`, `context.*` and `state.*` among them, with the types they have in the log.
        has_events: tables with the column `event_id`.
        rows: of every event table, from the footers.
        buckets: how many buckets of users, and of streamers.
    """

    logs: CanonicalLogs
    schema: Schema
    config: PrepareConfig
    output: Path
    columns: frozenset[str]
    served: frozenset[str]
    carried: pa.Schema
    has_events: frozenset[str]
    rows: dict[str, int]
    buckets: int

    @property
    def work(self) -> Path:
        return self.output / "work"

    @cached_property
    def counters(self) -> list[Column]:
        """Counters over all users: of rooms and streamers."""
        return counters(self.columns, ROOM, STREAMER)

    @cached_property
    def actions(self) -> list[str]:
        """The actions that targets or counters ask for, in the order of their codes."""
        return actions_of(self.schema, counted_actions(counters(self.columns, ROOM, STREAMER, USER, *PAIRS.values())))

    def attributes(self) -> AttributeTables:
        tables = {table: Attributes.open(self.work / "attributes", table) for table in KEYS}
        return AttributeTables(tables, attribute_columns(self.columns, self.schema))

    def exchange(self, what: str) -> list[Path]:
        return sorted((self.work / what).glob("*.arrow"))

    def cleaned(self, table: str) -> list[Path]:
        return sorted((self.work / "clean").glob(f"{table}-*.arrow"))

    def ordered(self, bucket: int, what: str) -> Path:
        return self.work / "cut" / f"{bucket:05d}.{what}.arrow"


@dataclass(frozen=True)
class SortAttributes:
    """Sorts an attribute table, and tells each bucket which users or rooms there are."""

    plan: Plan

    def __call__(self, table: str) -> dict:
        plan = self.plan
        columns = list(attribute_columns(plan.columns, plan.schema)[table])
        if table == "rooms":
            columns += [name for name in (STREAMER.key, START_AT) if name not in columns]
        path = plan.work / "attributes" / f"{table}.arrow"
        counts = sort_table(
            plan.logs, table, columns, plan.config, output=path, quarantine=plan.output / "quarantine" / f"{table}.parquet"
        )
        if table in ("users", "rooms"):
            attributes = Attributes.open(path.parent, table)
            bucket = (
                bucket_of(attributes.ids, plan.buckets)
                if table == "users"
                else _bucket_of_rooms(attributes.ids, attributes, plan)
            )
            _exchange(plan.work / f"all_{table}" / "all.arrow", pa.table({KEYS[table]: attributes.ids}), bucket, plan.buckets)
        return counts


@dataclass(frozen=True)
class CleanChunk:
    """Divides a chunk of a log file into rows that are in order and rows for the quarantine; returns what it counted."""

    plan: Plan

    def __call__(self, chunk: Chunk) -> dict:
        plan = self.plan
        return clean(
            chunk,
            Asked(plan.schema, plan.actions, plan.carried, chunk.table in plan.has_events),
            plan.config,
            buckets=plan.buckets,
            output=plan.work / "clean" / f"{chunk.name}.arrow",
            quarantine=plan.output / "quarantine" / f"{chunk.name}.parquet",
        )


@dataclass(frozen=True)
class CutBucket:
    """Orders the log of a bucket of users, and tells the buckets of streamers what happened to their rooms."""

    plan: Plan

    def __call__(self, bucket: int) -> dict:
        plan = self.plan
        impressions = read_bucket(plan.cleaned("impressions"), bucket, plan.buckets)
        engagements = read_bucket(plan.cleaned("engagements"), bucket, plan.buckets, schema=ENGAGEMENTS)
        ordered = cut(impressions, engagements, plan.config)
        for what in ("feeds", "impressions", "engagements"):
            write_table(plan.ordered(bucket, what), getattr(ordered, what))
        clicks, copies = once(read_bucket(plan.cleaned("product_clicks"), bucket, plan.buckets, schema=CLICKS))
        write_table(plan.ordered(bucket, "product_clicks"), clicks)
        quarantined = pa.concat_tables([ordered.quarantined, copies])
        if len(quarantined):
            with written(plan.output / "quarantine" / f"repeated-{bucket:05d}.parquet") as draft:
                pq.write_table(quarantined, draft, compression="zstd")

        rooms = Attributes.open(plan.work / "attributes", "rooms")
        action = integers(ordered.engagements["action"])
        entered = ordered.engagements.filter(pa.array(action == ENTER_CODE))
        sizes = integers(ordered.feeds["size"])
        if plan.counters:
            feed_at = np.repeat(integers(ordered.feeds["at"]), sizes)
            shown = {
                "row": pa.array(np.arange(len(feed_at)), pa.int32()),
                "room_id": ordered.impressions["room_id"],
                "shown_at": ordered.impressions["shown_at"],
                "feed_at": feed_at,
            }
            self._send("shown", bucket, pa.table(shown), rooms)
            codes_of = [plan.actions.index(name) for name in counted_actions(plan.counters)]
            done = ordered.engagements.filter(pa.array(np.isin(action, codes_of)))
            self._send("done", bucket, done.select(["room_id", "at", "action"]), rooms)
        feed_id = pa.array(np.repeat(integers(ordered.feeds["feed_id"]), sizes))
        self._send("seen", bucket, snapshot.last_seen(ordered.impressions.append_column("feed_id", feed_id)), rooms)

        day = integers(ordered.feeds["day"])
        entry_day = plan.config.clock.day(integers(entered["at"]))
        credits = Credits(ordered.engagements, integers(ordered.impressions["shown_at"]), plan.actions)
        return {
            "feeds": len(day),
            "candidates": len(ordered.impressions),
            "feeds_by_day": _by_day(day, np.ones(len(day))),
            "candidates_by_day": _by_day(day, sizes),
            "entries_by_day": _by_day(entry_day, np.ones(len(entry_day))),
            "unattributed": credits.unattributed(plan.schema),
            "kept": {
                "impressions": len(ordered.impressions),
                "engagements": len(ordered.engagements),
                "product_clicks": len(clicks),
            },
            "quarantined": _by_table(quarantined),
            **ordered.told,
        }

    def _send(self, what: str, bucket: int, table: pa.Table, rooms: Attributes) -> None:
        room = integers(table["room_id"])
        _exchange(
            self.plan.work / what / f"{bucket:05d}.arrow", table, _bucket_of_rooms(room, rooms, self.plan), self.plan.buckets
        )


@dataclass(frozen=True)
class CountRooms:
    """Counters of a bucket of streamers and of their rooms, for all candidates and for the snapshot."""

    plan: Plan
    ending: int

    def __call__(self, bucket: int) -> dict:
        plan = self.plan
        attributes = plan.attributes()
        seen = read_bucket(plan.exchange("seen"), bucket, plan.buckets)
        all_rooms = read_bucket(plan.exchange("all_rooms"), bucket, plan.buckets, schema=pa.schema([("room_id", pa.int64())]))
        shown = open_batches(plan.exchange("shown"), bucket, plan.buckets) if plan.counters else []
        done = open_batches(plan.exchange("done"), bucket, plan.buckets) if plan.counters else []
        known = [integers(seen["room_id"]), attributes.tables["rooms"].begun(integers(all_rooms["room_id"]), self.ending)]
        ids = np.unique(np.concatenate([*known, *(np.unique(integers(batch["room_id"])) for batch in done)]))
        counting = Counting(Rooms.of(ids, attributes.tables["rooms"]), plan.counters, plan.actions)
        at_end: dict[str, pa.Array] = {}
        if plan.counters:
            at_end = count_bucket(
                shown,
                done,
                counting,
                rows_per_slice=2 * plan.config.rows_per_bucket,
                ending=self.ending,
                output=plan.work / "counters" / f"{bucket:05d}.arrow",
            )
        rows = snapshot.room_rows(counting, at_end, seen, plan.columns, attributes, self.ending)
        write_parquet(rows, plan.output / "snapshot" / "rooms" / f"bucket-{bucket:05d}.parquet", plan.config.feeds_per_file)
        return {"rooms": len(rows)}


@dataclass(frozen=True)
class WriteFeatures:
    """Feature files of a bucket of users, split by day, and its part of the snapshot."""

    plan: Plan
    ending: int
    first_days: dict[str, int]  # of each split; a split ends where the next begins

    def __call__(self, bucket: int) -> dict:
        plan, config = self.plan, self.plan.config
        feeds, impressions, engagements = (
            read_table(plan.ordered(bucket, what)) for what in ("feeds", "impressions", "engagements")
        )
        clicks = read_table(plan.ordered(bucket, "product_clicks"))
        more_users = read_bucket(plan.exchange("all_users"), bucket, plan.buckets, schema=pa.schema([("user_id", pa.int64())]))
        attributes = plan.attributes()
        log = read_log(
            feeds,
            impressions,
            engagements,
            clicks,
            attributes.tables["users"].begun(integers(more_users["user_id"]), self.ending),
            lambda ids: Rooms.of(ids, attributes.tables["rooms"]),
            plan.actions,
            self.ending,
        )
        side = UserSide(log, plan.schema, plan.columns)
        counters = self._counters(bucket, len(impressions))
        features = Features(log, side, plan.schema, plan.columns, attributes, feeds, impressions, counters)

        split_R = np.searchsorted([self.first_days[split] for split in SPLITS], integers(feeds["day"]), side="right") - 1
        counts: dict = {}
        for number, split in enumerate(SPLITS):
            mine = np.flatnonzero(split_R == number)
            parts = [mine[part] for part in slices(log.user_R[mine], config.feeds_per_file)]
            for part, chosen in enumerate(parts):
                path = plan.output / "features" / split / f"bucket-{bucket:05d}-{part:02d}.parquet"
                write_parquet(features.table(chosen), path, FEATURE_GROUP)
            size = np.diff(log.offsets_R)[mine]
            counts[split] = {
                "files": len(parts),
                "feeds": len(mine),
                "candidates": int(size.sum()),
                "largest_feed": int(size.max(initial=0)),
            }
        users = np.arange(len(log.users))
        for part, some in enumerate(slices(users, config.feeds_per_file)):
            path = plan.output / "snapshot" / "users" / f"bucket-{bucket:05d}-{part:02d}.parquet"
            write_parquet(snapshot.user_rows(features, side, users[some], plan.served), path, FEATURE_GROUP)
        return {"splits": counts, "users": len(users), "early": features.early()}

    def _counters(self, bucket: int, candidates: int) -> pl.DataFrame:
        plan = self.plan
        if not plan.counters:
            return frame({}, candidates)
        counted = read_bucket(plan.exchange("counters"), bucket, plan.buckets)
        order = np.empty(candidates, np.int64)
        order[counted["row"].to_numpy()] = np.arange(len(counted))
        return picked(frame({column.name: counted[column.name] for column in plan.counters}, len(counted)), order)


FEATURE_GROUP = 4096  # feeds in a row group of a feature file: what the encoder reads at a time


@dataclass(frozen=True)
class FitFile:
    """Counts one feature file of training days for the encoder."""

    plan: Plan
    entry_rate: float

    def __call__(self, file: Path) -> dict:
        part = fit_partial(
            pq.read_table(file, use_threads=False, partitioning=None),
            self.plan.schema,
            entry_rate=self.entry_rate,
            clock=self.plan.config.clock,
        )
        with written(self.plan.work / "fit" / f"{file.stem}.pickle") as draft:
            draft.write_bytes(pickle.dumps(part))
        return {}


@dataclass(frozen=True)
class EncodeFile:
    """Encodes one feature file."""

    plan: Plan

    def __call__(self, file: Path) -> dict:
        plan = self.plan
        state = EncoderState.load(plan.output / "encoder")
        output = plan.output / "feeds" / file.parent.name / file.name
        parts = []
        with written(output) as draft, pq.ParquetFile(file) as source:
            writer = None
            for group in range(source.num_row_groups):
                table = encode(source.read_row_group(group, use_threads=False), plan.schema, state)
                if writer is None:
                    writer = pq.ParquetWriter(
                        draft, table.schema, compression="lz4", use_dictionary=False, write_statistics=False
                    )
                writer.write_table(table, row_group_size=plan.config.row_group_feeds)
                parts.append(Seen.of(table, plan.schema))
            if writer is not None:
                writer.close()
        return asdict(Seen.merged(parts))


def _bucket_of_rooms(rooms: np.ndarray, attributes: Attributes, plan: Plan) -> np.ndarray:
    """Rooms of one streamer share a bucket; a room without a known streamer has its own."""
    distinct, code = codes(rooms)
    streamer, known, _ = streamers_of(distinct, attributes)
    return bucket_of(np.where(known, streamer, distinct), plan.buckets)[code]


def _exchange(path: Path, table: pa.Table, bucket: np.ndarray, buckets: int) -> None:
    with written(path) as draft, ExchangeWriter(draft, table.schema, buckets) as writer:
        writer.write(table, bucket)


def _by_day(day: np.ndarray, weight: np.ndarray) -> dict[str, int]:
    days, code = np.unique(day, return_inverse=True)
    return {str(key): int(total) for key, total in zip(days.tolist(), np.bincount(code, weight), strict=True)}


def _by_table(quarantined: pa.Table) -> dict[str, dict[str, int]]:
    """Rows by table and reason."""
    found: dict[str, dict[str, int]] = {}
    for row in quarantined.group_by(["table", "reason"]).aggregate([([], "count_all")]).to_pylist():
        found.setdefault(row["table"], {})[row["reason"]] = row["count_all"]
    return found
