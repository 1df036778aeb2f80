"""What one task of each step reads and writes. Everything here runs in a worker, on files and plain arguments.

OUTPUT/work/attributes/rooms.arrow          sorted attribute tables
OUTPUT/work/clean/impressions-00003.arrow   sound rows of a chunk, by bucket of users
OUTPUT/work/cut/00003.feeds.arrow           ordered log of a bucket of users; also .impressions, .engagements
OUTPUT/work/shown/00003.arrow               its impressions by bucket of streamers; also done/, seen/
OUTPUT/work/counters/00003.arrow            counters of a bucket of streamers, by bucket of users
"""

import pickle
from collections.abc import Mapping, Sequence
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
from pipelines.encode.feeds import feeds_schema
from pipelines.encode.fit import Partial, finish, fit_partial
from pipelines.encode.remarks import Seen
from pipelines.encode.state import EncoderState
from pipelines.logs.canonical import CanonicalLogs
from pipelines.logs.ids import IdKind
from pipelines.prepare import snapshot
from pipelines.prepare.account import rows_agree
from pipelines.prepare.attributes import sort_table
from pipelines.prepare.clean import ENTER_CODE, Asked, Chunk, actions_of, clean, kept_apart
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.features import AttributeTables, Features, attribute_columns, frame, picked, slices, write_parquet
from pipelines.prepare.labels import Credits, arrivals
from pipelines.prepare.log_to_feeds import cut, once
from pipelines.prepare.long_users import LongUsers, long_users
from pipelines.prepare.room_counters import START_AT, Counting, Rooms, count_bucket, counted_actions, streamers_of
from pipelines.prepare.tables import KEYS, Attributes
from pipelines.prepare.timeline import codes
from pipelines.prepare.user_counters import UserSide, read_log
from pipelines.prepared import ENCODER, ENCODER_FILES, EVENTS, SPLITS
from pipelines.runs import FileNote, written
from pipelines.runs.exchange import ExchangeWriter, bucket_of, open_batches, read_bucket, read_table, write_table
from pipelines.runs.noted import noted, whole
from pipelines.runs.runner import Done
from pipelines.runs.sealed import SealedWriter

EMPTY = {  # tables of which a log has no rows
    "engagements": pa.schema(
        [
            ("request_id", pa.int64()),
            ("user_id", pa.int64()),
            ("room_id", pa.int64()),
            ("at", pa.int64()),
            ("action", pa.int8()),
            ("value", pa.float64()),
        ]
    ),
    "product_clicks": pa.schema([("user_id", pa.int64()), ("product_id", pa.int64()), ("at", pa.int64())]),
}


@dataclass(frozen=True)
class Plan:
    """All that tasks need to know.

    Attributes:
        columns: base columns to compute, beside `META`.
        served: those of them that the endpoint needs too.
        carried: `position`, `context.*` and `state.*` among them, with the types they have in the log.
        has_events: tables with the column `event_id`.
        has_arrivals: tables with the column `arrived_at`.
        has_times: whether the log knows when things happened (`CanonicalLogs.has_times`).
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
    has_arrivals: frozenset[str]
    has_times: bool
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

    def bucket_file(self, bucket: int, what: str) -> Path:
        return self.work / what / f"{bucket:05d}.arrow"


@dataclass(frozen=True)
class SortedTables:
    """The sorted attribute tables of the log, as they were noted, by table."""

    plan: Plan
    notes: Mapping[str, FileNote]

    def open(self, table: str) -> Attributes:
        """One without rows for a table that the log does not have."""
        if table in self.notes:
            return Attributes.open(whole(self.notes[table], self.plan.output).parent, table)
        return Attributes.open(self.plan.work / "attributes", table)

    def all(self) -> AttributeTables:
        return AttributeTables(
            {table: self.open(table) for table in KEYS}, attribute_columns(self.plan.columns, self.plan.schema)
        )


@dataclass(frozen=True)
class SortAttributes:
    """Sorts an attribute table, and tells each bucket which users or rooms there are. Files: `table`, `all`."""

    plan: Plan

    def __call__(self, table: str) -> Done:
        plan = self.plan
        columns = list(attribute_columns(plan.columns, plan.schema)[table])
        if table == "rooms":
            columns += [name for name in (STREAMER.key, START_AT) if name not in columns]
        path = plan.work / "attributes" / f"{table}.arrow"
        counts, bad = sort_table(plan.logs, table, columns, plan.config, output=path)
        files = {"table": [noted(path, plan.output, rows=counts["kept"])]}
        if len(bad):
            files["quarantine"] = [kept_apart(bad, plan.output / "quarantine" / f"{table}.parquet", plan.output)]
        if table in ("users", "rooms"):
            attributes = Attributes.open(whole(files["table"][0], plan.output).parent, table)
            bucket = (
                bucket_of(attributes.ids, plan.buckets)
                if table == "users"
                else _bucket_of_rooms(attributes.ids, attributes, plan)
            )
            ids = pa.table({KEYS[table]: attributes.ids})
            files["all"] = [_exchange(plan.work / f"all_{table}" / "all.arrow", ids, bucket, plan)]
        return Done(counts, files)


@dataclass(frozen=True)
class CleanChunk:
    """Divides a chunk of a log file into rows that are in order and rows for the quarantine."""

    plan: Plan

    def __call__(self, chunk: Chunk) -> Done:
        plan = self.plan
        has_events, has_arrivals = chunk.table in plan.has_events, chunk.table in plan.has_arrivals
        asked = Asked(plan.schema, plan.actions, plan.carried, has_events, has_arrivals, plan.has_times)
        return clean(chunk, asked, plan.config, buckets=plan.buckets, folder=plan.output)


@dataclass(frozen=True)
class CutBucket:
    """Orders the log of a bucket of users, and tells the buckets of streamers what happened to their rooms.

    Files: `feeds`, `impressions`, `engagements` and `product_clicks` of the bucket, `quarantine`, and for the buckets of
    streamers `shown`, `done` and `seen`.

    Attributes:
        cleaned: sound rows of all chunks, by table.
    """

    plan: Plan
    attributes: SortedTables
    cleaned: Mapping[str, Sequence[FileNote]]

    def __call__(self, bucket: int) -> Done:
        plan = self.plan
        batches = {table: open_batches(self.cleaned[table], plan.output, bucket, plan.buckets) for table in EVENTS}
        read = {table: sum(map(len, batches[table])) for table in EVENTS}
        long = long_users(batches, plan.config.user_most)
        rows = {table: _together(batches[table], table, long) for table in EVENTS}
        ordered = cut(rows["impressions"], rows["engagements"], plan.config)
        clicks, copies, clicks_apart = once(rows["product_clicks"], plan.config.gap_ms)
        tables = {name: getattr(ordered, name) for name in CUT[:-1]} | {"product_clicks": clicks}
        files: dict[str, list[FileNote]] = {}
        for name, table in tables.items():
            path = plan.work / "cut" / f"{bucket:05d}.{name}.arrow"
            write_table(path, table)
            files[name] = [noted(path, plan.output, rows=len(table))]
        quarantined = pa.concat_tables([ordered.quarantined, copies])
        if len(quarantined):
            path = plan.output / "quarantine" / f"repeated-{bucket:05d}.parquet"
            files["quarantine"] = [kept_apart(quarantined, path, plan.output)]

        rooms = self.attributes.open("rooms")
        action = integers(ordered.engagements["action"])
        entered = ordered.engagements.filter(pa.array(action == ENTER_CODE))
        sizes = integers(ordered.feeds["size"])
        if plan.counters:
            feed_at = np.repeat(integers(ordered.feeds["at"]), sizes)
            shown = {
                "row": pa.array(np.arange(len(feed_at)), pa.int32()),
                "room_id": ordered.impressions["room_id"],
                "known_at": arrivals(ordered.impressions, "shown_at"),
                "feed_at": feed_at,
            }
            files["shown"] = [self._send("shown", bucket, pa.table(shown), rooms)]
            codes_of = [plan.actions.index(name) for name in counted_actions(plan.counters)]
            done = ordered.engagements.filter(pa.array(np.isin(action, codes_of)))
            sent = {"room_id": done["room_id"], "known_at": arrivals(done, "at"), "action": done["action"]}
            files["done"] = [self._send("done", bucket, pa.table(sent), rooms)]
        feed_id = pa.array(np.repeat(integers(ordered.feeds["feed_id"]), sizes))
        seen = snapshot.last_seen(ordered.impressions.append_column("feed_id", feed_id))
        files["seen"] = [self._send("seen", bucket, seen, rooms)]

        day = integers(ordered.feeds["day"])
        entry_day = plan.config.clock.day(integers(entered["at"]))
        credits = Credits(ordered.engagements, integers(ordered.impressions["shown_at"]), plan.actions)
        counts = {
            "read": read,
            "left_out": {table: read[table] - len(rows[table]) for table in EVENTS},
            "long": [] if long is None else list(zip(long.ids.tolist(), long.rows.tolist(), strict=True)),
            "feeds": len(day),
            "candidates": len(ordered.impressions),
            "feeds_by_day": _by_day(day, np.ones(len(day))),
            "candidates_by_day": _by_day(day, sizes),
            "entries_by_day": _by_day(entry_day, np.ones(len(entry_day))),
            "unattributed": credits.unattributed(plan.schema),
            "too_late": credits.too_late(plan.schema),
            "kept": {name: len(tables[name]) for name in EVENTS},
            "quarantined": _by_table(quarantined),
            **ordered.told,
            "apart": {"engagements": ordered.told["apart"], "product_clicks": clicks_apart},
        }
        return Done(counts, files)

    def _send(self, what: str, bucket: int, table: pa.Table, rooms: Attributes) -> FileNote:
        room = integers(table["room_id"])
        return _exchange(self.plan.bucket_file(bucket, what), table, _bucket_of_rooms(room, rooms, self.plan), self.plan)


CUT = ("feeds", "impressions", "engagements", "product_clicks")  # what `CutBucket` leaves of a bucket of users


@dataclass(frozen=True)
class CountRooms:
    """Counters of a bucket of streamers and of their rooms, for all candidates and for the snapshot.

    Files: `counters`, `snapshot`.

    Attributes:
        sent: `seen`, and where something is counted `shown` and `done` of all buckets of users.
        all_rooms: those of the log's table.
    """

    plan: Plan
    ending: int
    attributes: SortedTables
    sent: Mapping[str, Sequence[FileNote]]
    all_rooms: Sequence[FileNote]

    def __call__(self, bucket: int) -> Done:
        plan = self.plan
        attributes = self.attributes.all()
        seen = read_bucket(self.sent["seen"], plan.output, bucket, plan.buckets)
        none = pa.schema([("room_id", pa.int64())])
        all_rooms = read_bucket(self.all_rooms, plan.output, bucket, plan.buckets, schema=none)
        shown, done = (
            open_batches(self.sent[what], plan.output, bucket, plan.buckets) if plan.counters else []
            for what in ("shown", "done")
        )
        known = [integers(seen["room_id"]), attributes.tables["rooms"].begun(integers(all_rooms["room_id"]), self.ending)]
        ids = np.unique(np.concatenate([*known, *(np.unique(integers(batch["room_id"])) for batch in done)]))
        counting = Counting(Rooms.of(ids, attributes.tables["rooms"]), plan.counters, plan.actions)
        at_end: dict[str, pa.Array] = {}
        files: dict[str, list[FileNote]] = {}
        if plan.counters:
            counters = plan.bucket_file(bucket, "counters")
            at_end, writer = count_bucket(
                shown,
                done,
                counting,
                rows_per_slice=2 * plan.config.rows_per_bucket,
                ending=self.ending,
                output=counters,
            )
            files["counters"] = [writer.note(counters, plan.output)]
        rows = snapshot.room_rows(counting, at_end, seen, plan.columns, attributes, self.ending)
        path = plan.output / "snapshot" / "rooms" / f"bucket-{bucket:05d}.parquet"
        write_parquet(rows, path, plan.config.feeds_per_file)
        files["snapshot"] = [noted(path, plan.output, rows=len(rows))]
        read = {"seen": len(seen), "shown": sum(map(len, shown)), "done": sum(map(len, done)), "all_rooms": len(all_rooms)}
        return Done({"rooms": len(rows), "read": read}, files)


@dataclass(frozen=True)
class BucketOfUsers:
    """A bucket, and what `CutBucket` left of it, in the order of `CUT`."""

    bucket: int
    tables: tuple[FileNote, ...]


@dataclass(frozen=True)
class WriteFeatures:
    """Feature files of a bucket of users, by split, and its part of the snapshot. Files: every split, `snapshot`.

    Attributes:
        open_at: the moment at which labels are asked whether they are open; None for a log without times, where none is.
        first_days: of each split; a split ends where the next begins. Feeds before the first are for warming up.
        counters: of all buckets of streamers.
        all_users: those of the log's table.
    """

    plan: Plan
    ending: int
    open_at: int | None
    first_days: dict[str, int]
    attributes: SortedTables
    counters: Sequence[FileNote]
    all_users: Sequence[FileNote]

    def __call__(self, work: BucketOfUsers) -> Done:
        plan, config, bucket = self.plan, self.plan.config, work.bucket
        feeds, impressions, engagements, clicks = (read_table(whole(note, plan.output)) for note in work.tables)
        none = pa.schema([("user_id", pa.int64())])
        more_users = read_bucket(self.all_users, plan.output, bucket, plan.buckets, schema=none)
        attributes = self.attributes.all()
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
        features = Features(log, side, plan.schema, plan.columns, attributes, feeds, impressions, counters, self.masked_at)

        split_R = np.searchsorted([self.first_days[split] for split in SPLITS], integers(feeds["day"]), side="right") - 1
        counts: dict = {}
        files: dict[str, list[FileNote]] = {}
        for number, split in enumerate(SPLITS):
            mine = np.flatnonzero(split_R == number)
            files[split] = []
            for part, some in enumerate(slices(log.user_R[mine], config.feeds_per_file)):
                chosen = mine[some]
                path = plan.output / "features" / split / f"bucket-{bucket:05d}-{part:02d}.parquet"
                write_parquet(features.table(chosen), path, FEATURE_GROUP)
                files[split].append(noted(path, plan.output, rows=len(chosen)))
            size = np.diff(log.offsets_R)[mine]
            counts[split] = {
                "feeds": len(mine),
                "candidates": int(size.sum()),
                "largest_feed": int(size.max(initial=0)),
                "open": self._open(log.credits, split_R[log.feed_N] == number),
            }
        is_warmup = split_R < 0
        warmup = {"feeds": int(is_warmup.sum()), "candidates": int(np.diff(log.offsets_R)[is_warmup].sum())}
        users = np.arange(len(log.users))
        files["snapshot"] = []
        for part, some in enumerate(slices(users, config.feeds_per_file)):
            path = plan.output / "snapshot" / "users" / f"bucket-{bucket:05d}-{part:02d}.parquet"
            write_parquet(snapshot.user_rows(features, side, users[some], plan.served), path, FEATURE_GROUP)
            files["snapshot"].append(noted(path, plan.output, rows=len(users[some])))
        read = {"counters": len(counters) if plan.counters else 0, "all_users": len(more_users)}
        counted_N = split_R[log.feed_N] == 0
        arrived = {
            target.name: log.credits.arrived(target, counted_N & ~log.credits.is_open(target, self.ending)).tolist()
            for target in plan.schema.targets
            if target.is_binary
        }
        found = {"splits": counts, "warmup": warmup, "arrived": arrived, "users": len(users), "early": features.early()}
        return Done({**found, "read": read}, files)

    @property
    def masked_at(self) -> int | None:
        return self.open_at if self.plan.config.open_labels == "mask" else None

    def _open(self, credits: Credits, mine_N: np.ndarray) -> dict[str, list[int]]:
        """By target, open labels of some impressions, and how many of them are positive already; those without any left out."""
        found: dict[str, list[int]] = {}
        if self.open_at is None:
            return found
        for target in self.plan.schema.targets:
            open_N = mine_N & credits.is_open(target, self.open_at)
            if open_N.any():
                found[target.name] = [int(open_N.sum()), int((open_N & (credits.label(target) > 0)).sum())]
        return found

    def _counters(self, bucket: int, candidates: int) -> pl.DataFrame:
        plan = self.plan
        if not plan.counters:
            return frame({}, candidates)
        counted = read_bucket(self.counters, plan.output, bucket, plan.buckets)
        rows_agree("features", f"counters of bucket {bucket}", read=len(counted), left=candidates)
        order = np.empty(candidates, np.int64)
        order[counted["row"].to_numpy()] = np.arange(len(counted))
        return picked(frame({column.name: counted[column.name] for column in plan.counters}, len(counted)), order)


FEATURE_GROUP = 4096  # feeds in a row group of a feature file: what the encoder reads at a time


@dataclass(frozen=True)
class FitFile:
    """Counts one feature file of training days for the encoder. Files: `part`."""

    plan: Plan
    entry_rate: float

    def __call__(self, features: FileNote) -> Done:
        plan = self.plan
        table = pq.read_table(whole(features, plan.output), use_threads=False, partitioning=None)
        part = fit_partial(table, plan.schema, entry_rate=self.entry_rate, clock=plan.config.clock)
        path = plan.work / "fit" / f"{Path(features.path).stem}.pickle"
        with written(path, durable=False) as draft:
            draft.write_bytes(pickle.dumps(part))
        return Done({"feeds": len(table)}, {"part": [noted(path, plan.output)]})


@dataclass(frozen=True)
class FinishEncoder:
    """Puts the counts of all training files together. Files: `encoder`.

    Attributes:
        parts: of `FitFile`, in a fixed order.
        ids: what the log's ids are.
    """

    plan: Plan
    entry_rate: float
    parts: Sequence[FileNote]
    ids: Mapping[str, IdKind]

    def __call__(self, _: None) -> Done:
        plan = self.plan
        merged = Partial.merged([pickle.loads(whole(note, plan.output).read_bytes()) for note in self.parts])
        state = finish(merged, plan.schema, entry_rate=self.entry_rate, clock=plan.config.clock, ids=self.ids)
        folder = plan.output / ENCODER
        with written(folder) as draft:
            state.save(draft)
        wild = {name: numbers.wild for name, numbers in merged.numbers.items() if numbers.wild}
        return Done({"wild": wild}, {"encoder": [noted(folder / name, plan.output) for name in ENCODER_FILES]})


@dataclass(frozen=True)
class EncodeFile:
    """Encodes one feature file. Files: `encoded`."""

    plan: Plan
    encoder: Sequence[FileNote]

    def __call__(self, features: FileNote) -> Done:
        plan = self.plan
        for note in self.encoder:
            whole(note, plan.output)
        state = EncoderState.load(plan.output / ENCODER)
        file = whole(features, plan.output)
        output = plan.output.joinpath("feeds", *Path(features.path).parts[1:])
        parts = []
        with written(output) as draft, pq.ParquetFile(file) as source, SealedWriter(draft, feeds_schema(plan.schema)) as writer:
            for group in range(source.num_row_groups):
                table = encode(source.read_row_group(group, use_threads=False), plan.schema, state)
                writer.write(table, plan.config.row_group_feeds)
                parts.append(Seen.of(table, plan.schema))
        return Done(asdict(Seen.merged(parts)), {"encoded": [writer.note(output, plan.output)]})


def _together(batches: list[pa.RecordBatch], table: str, long: LongUsers | None) -> pa.Table:
    """All rows of a bucket but those of long users that are left out; mapped until something copies them."""
    if not batches:
        return EMPTY[table].empty_table()
    return pa.Table.from_batches(batches) if long is None else long.kept(batches, table)


def _bucket_of_rooms(rooms: np.ndarray, attributes: Attributes, plan: Plan) -> np.ndarray:
    """Rooms of one streamer share a bucket; a room without a known streamer has its own."""
    distinct, code = codes(rooms)
    streamer, known, _ = streamers_of(distinct, attributes)
    return bucket_of(np.where(known, streamer, distinct), plan.buckets)[code]


def _exchange(path: Path, table: pa.Table, bucket: np.ndarray, plan: Plan) -> FileNote:
    with written(path, durable=False) as draft, ExchangeWriter(draft, table.schema, plan.buckets) as writer:
        writer.write(table, bucket)
    return writer.note(path, plan.output)


def _by_day(day: np.ndarray, weight: np.ndarray) -> dict[str, int]:
    days, code = np.unique(day, return_inverse=True)
    return {str(key): int(total) for key, total in zip(days.tolist(), np.bincount(code, weight), strict=True)}


def _by_table(quarantined: pa.Table) -> dict[str, dict[str, int]]:
    """Rows by table and reason."""
    found: dict[str, dict[str, int]] = {}
    for row in quarantined.group_by(["table", "reason"]).aggregate([([], "count_all")]).to_pylist():
        found.setdefault(row["table"], {})[row["reason"]] = row["count_all"]
    return found
