"""Logs to feeds: plans the job, runs its steps one after the other, and leaves a `Prepared` folder.

attributes   sort users, rooms, streamers and products by id
clean        a chunk of a log file each: quarantine, and one exchange on disk by bucket of users
cut          a bucket of users each: feeds, credited engagements; hands impressions to buckets of streamers
rooms        a bucket of streamers each: counters as of every feed's moment; part of the snapshot
features     a bucket of users each: everything else, split by day; part of the snapshot
fit          a feature file of training days each
encoder      what they taught, put together
encode       a feature file each

Every task is handed the notes of the files it reads (`pipelines.runs.runner`), and rows are added up from step to step.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from models.catalogue import CANDIDATE, CONTEXT, ROOM, logged
from models.config import ConfigError, to_dict
from models.schema import Bins, Number, Schema
from pipelines.encode.columns import base_columns, column, preference_columns
from pipelines.encode.contract import decisive_part
from pipelines.encode.feeds import TABLES, feeds_schema
from pipelines.encode.remarks import Seen, silent_parts
from pipelines.logs.canonical import ARRIVED_AT, SPLIT_AT, CanonicalLogs
from pipelines.logs.check import check
from pipelines.logs.ids import is_text
from pipelines.logs.rows import SourceRows
from pipelines.prepare.account import LATE, PAST_MOST, UNUSED, adds_up, rows_agree
from pipelines.prepare.clean import TWICE, chunks_of
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.features import attribute_columns
from pipelines.prepare.findings import findings, remarks
from pipelines.prepare.tables import FAMILIES, KEYS
from pipelines.prepare.tasks import (
    CUT,
    BucketOfUsers,
    CleanChunk,
    CountRooms,
    CutBucket,
    EncodeFile,
    FinishEncoder,
    FitFile,
    Plan,
    SortAttributes,
    SortedTables,
    WriteFeatures,
)
from pipelines.prepared import (
    EVENTS,
    MANIFEST,
    SCHEMA,
    SPLITS,
    LogCounts,
    Manifest,
    OpenLabels,
    Prepared,
    Split,
    write_notes,
)
from pipelines.runs import FileNote, RunFolder, discard, told, write_text
from pipelines.runs.noted import signed
from pipelines.runs.runner import Done, Item, Runner, Workers

# What changes how the job runs, and nothing that it writes.
_INDIFFERENT = ("parallel", "cpus_per_task", "quarantine_limit")
_WAY_OUT = "Prepare into another folder, or delete this one."


def prepare(
    logs: CanonicalLogs, schema: Schema, config: PrepareConfig, output: Path, *, dry_run: bool = False
) -> Prepared | None:
    """Prepares logs for a schema; goes on where it was killed, and does nothing where it has finished.

    Args:
        output: the prepared folder; on a cluster one that all nodes reach, and so for the logs.
        dry_run: print what would be done, from the footers of the files, and return None.

    Raises:
        ConfigError: logs, schema and configuration do not fit each other, too many rows are malformed, a split has no
            feeds, or `output` holds something else.
    """
    logs = logs.as_now()
    check(logs)
    plan = plan_of(logs, schema, config, output)
    if dry_run:
        _describe(plan)
        return None
    run, identity = RunFolder(output, MANIFEST), _identity(plan)
    if run.is_finished:
        run.refuse_another(identity, way_out=_WAY_OUT)
        print(f"Prepared: {output} is finished; nothing to do.", flush=True)
        return Prepared.open(output, schema=schema)
    _begin(run, identity)
    started = time.monotonic()
    manifest, tables = _run(plan, _fingerprint(identity))
    write_text(output / SCHEMA, json.dumps(schema.to_dict(), indent=2) + "\n")
    write_notes(output, tables)
    write_text(output / MANIFEST, json.dumps(signed(to_dict(manifest)), indent=2) + "\n")
    discard(plan.work)
    for line in (
        *manifest.counts.account_lines(),
        *manifest.clock_lines(),
        *_remarks(manifest.counts, output),
        *manifest.remarks,
    ):
        print(f"  {line}", flush=True)
    counts = ", ".join(f"{manifest.splits[split].feeds:,} {split}" for split in SPLITS)
    print(f"Prepared: {output}: feeds {counts}; {time.monotonic() - started:.1f} s", flush=True)
    return Prepared.open(output, schema=schema)


def plan_of(logs: CanonicalLogs, schema: Schema, config: PrepareConfig, output: Path) -> Plan:
    """What is to be computed, and in how many parts.

    Raises:
        ConfigError: the schema reads a column that the log does not have, or as a number what is text.
    """
    feeds_schema(schema)  # a name that two columns would have is told before any work is done
    served = base_columns(schema, config.extra_columns)
    columns = served.union(*preference_columns(schema).values())
    carried = logged(columns, CONTEXT, ROOM, CANDIDATE)
    types = logs.types("impressions", carried)
    for name in sorted(set(carried) - set(types.names)):
        _missing(name, name, "impressions", logs)
    kinds = {field.name: (field.type, "impressions") for field in types}
    for table, names in attribute_columns(columns, schema).items():
        there = logs.types(table, names)
        for name in sorted(set(names) - set(there.names)):
            _missing(FAMILIES[table].column(name).name, name, table, logs)
        kinds |= {FAMILIES[table].column(field.name).name: (field.type, table) for field in there}
    _refuse_texts(schema, kinds)
    has_times = logs.has_times
    if not has_times:
        _refuse_times(schema, config, served)
    if any(history.events == "product_clicks" for history in schema.histories) and not logs.has("product_clicks"):
        readers = ", ".join(history.name for history in schema.histories if history.events == "product_clicks")
        raise ConfigError(f"history `{readers}` reads product clicks, but the log has no table `product_clicks`.")
    rows = {table: logs.rows(table) for table in EVENTS}
    buckets = max(1, -(-sum(rows.values()) // config.rows_per_bucket))
    has_events = frozenset(table for table in EVENTS[1:] if logs.types(table, ["event_id"]).names)
    has_arrivals = frozenset(table for table in EVENTS if has_times and logs.types(table, [ARRIVED_AT]).names)
    asked = (frozenset(columns), frozenset(served))
    return Plan(logs, schema, config, output, *asked, types, has_events, has_arrivals, has_times, rows, buckets)


def _refuse_texts(schema: Schema, kinds: Mapping[str, tuple[pa.DataType, str]]) -> None:
    """What is read as a number must not be text; told now, and not by the step that fits the encoder.

    Args:
        kinds: type and table of raw columns.

    Raises:
        ConfigError: it is.
    """
    readers = [(f"field `{field.name}`", field.column, field.encoding) for field in schema.fields]
    readers += [(f"history `{each.name}`", field.column, field.encoding) for each in schema.histories for field in each.fields]
    numeric = [(reader, column) for reader, column, encoding in readers if isinstance(encoding, Number | Bins)]
    if schema.levels.column is not None:
        numeric.append(("`schema.levels`", schema.levels.column))
    for reader, name in numeric:
        for source in _sources(name, schema):
            kind, table = kinds.get(source, (pa.null(), ""))
            if is_text(kind):
                raise ConfigError(
                    f"{reader} reads `{source}` as a number, but it is text in table `{table}`. Write numbers there, or "
                    "encode it as a vocabulary or a hash."
                )


def _refuse_times(schema: Schema, config: PrepareConfig, served: Collection[str]) -> None:
    """A log without times keeps its own split, and has nothing to say of what came before.

    Raises:
        ConfigError: something asks for it.
    """
    why = "the log has no times: its impressions say which split they are of (`split`)"
    way_out = "Take it out of the schema."
    if schema.histories:
        raise ConfigError(f"history `{schema.histories[0].name}` asks what a user did before, but {why}. {way_out}")
    if schema.stages is not None:
        raise ConfigError(f"`schema.stages` sorts users by what they did before, but {why}. {way_out}")
    for field in schema.fields:
        if asked := [name for name in _sources(field.column, schema) if (known := column(name, schema)) and known.needs_times]:
            raise ConfigError(f"field `{field.name}` reads `{asked[0]}`, but {why}. {way_out}")
    for name in sorted(served):
        if (known := column(name, schema)) is not None and known.needs_times:
            raise ConfigError(f"`{name}` is asked for, but {why}. Take it out of `schema.levels` and `prepare.extra_columns`.")
    if config.until is not None or config.warmup_days:
        raise ConfigError(f"prepare.{'until' if config.until else 'warmup_days'} speaks of moments of the log, but {why}.")
    if config.valid_days != 1 or config.test_days > 1:
        raise ConfigError(f"{why}, so prepare.valid_days is 1, and prepare.test_days 1 (0 without a test split).")


def _of_times(plan: Plan) -> list[str]:
    if plan.has_times:
        return []
    stand = ", ".join(f"{_date(int(plan.config.clock.day(np.array(at))))} for {split}" for split, at in SPLIT_AT.items())
    return [f"the log has no times: its own split is kept ({stand}), and nothing that asks for a time can be read from it"]


def _sources(name: str, schema: Schema) -> list[str]:
    """The column and all that it derives from."""
    known = column(name, schema)
    return [name, *(source for each in (known.inputs if known else ()) for source in _sources(each, schema))]


def _missing(reads: str, name: str, table: str, logs: CanonicalLogs) -> None:
    footers = logs.footers(table)
    if not footers:
        raise ConfigError(f"the schema reads `{reads}`, but the log has no table `{table}`.")
    known = ", ".join(footers[0].schema.to_arrow_schema().names)
    raise ConfigError(f"the schema reads `{reads}`, but table `{table}` has no column `{name}`. It has: {known}.")


def _run(plan: Plan, fingerprint: str) -> tuple[Manifest, list[FileNote]]:
    """All steps; returns what they counted, and the tables they left."""
    seconds: dict[str, float] = {}
    runner = Runner(plan.output, plan.work / "notes", Workers(plan.config.parallel, plan.config.cpus_per_task))

    def step(name: str, items: list[Item], task) -> dict[str, Done]:
        started = time.monotonic()
        done = runner.step(name, items, task)
        seconds[name] = round(time.monotonic() - started, 2)
        return done

    tables = [table for table in KEYS if plan.logs.has(table)]
    rows = {table: plan.logs.rows(table) for table in tables}
    attributes = step("attributes", [Item(table, table, rows[table]) for table in tables], SortAttributes(plan))
    for table in tables:
        counts = attributes[table].counts
        rows_agree("attributes", f"`{table}`", read=counts["rows"], left=rows[table])
        apart = sum(counts["quarantined"].values())
        rows_agree("attributes", f"`{table}` in order", read=counts["kept"] + apart, left=counts["rows"])
    sorted_tables = SortedTables(plan, {table: attributes[table].files["table"][0] for table in tables})
    everyone = {table: attributes[table].files["all"] if table in attributes else () for table in ("users", "rooms")}

    chunks = chunks_of(plan.logs, plan.config.rows_per_chunk)
    cleaned = step("clean", [Item(chunk.name, chunk, chunk.rows) for chunk in chunks], CleanChunk(plan))
    of_table = {table: [cleaned[chunk.name] for chunk in chunks if chunk.table == table] for table in EVENTS}
    sound = {table: [note for done in of_table[table] for note in done.files["clean"]] for table in EVENTS}
    for table in EVENTS:
        rows_agree("clean", f"`{table}`", read=sum(done.counts["rows"] for done in of_table[table]), left=plan.rows[table])
    bad: dict[str, dict[str, int]] = {table: {} for table in EVENTS}
    bad.update({table: done.counts["quarantined"] for table, done in attributes.items()})
    rows |= plan.rows
    worst: dict[str, dict[str, int]] = {table: {} for table in rows}
    for chunk in chunks:
        worst[chunk.table] = _summed([worst[chunk.table], cleaned[chunk.name].counts["files"]])
        for reason, count in cleaned[chunk.name].counts["quarantined"].items():
            bad[chunk.table][reason] = bad[chunk.table].get(reason, 0) + count
    _limit(plan, rows, bad, worst)

    latest = max((done.counts["latest"] for done in cleaned.values() if done.counts["latest"] is not None), default=0)
    ending = latest + 1 if plan.config.until_ms is None else plan.config.until_ms
    share = sum(plan.rows.values()) // plan.buckets
    buckets = [Item(f"{bucket:05d}", bucket, share) for bucket in range(plan.buckets)]
    cut = step("cut", buckets, CutBucket(plan, sorted_tables, sound))
    cuts = [done.counts for done in cut.values()]
    for table in EVENTS:
        left, read = _rows_in(sound[table]), sum(counts["read"][table] for counts in cuts)
        rows_agree("cut", f"`{table}`", read=read, left=left)
        apart = sum(sum(counts["quarantined"].get(table, {}).values()) + counts["left_out"][table] for counts in cuts)
        rows_agree("cut", f"`{table}` in order", read=sum(counts["kept"][table] for counts in cuts) + apart, left=read)
    found = findings(
        {table: done.counts for table, done in attributes.items()},
        [(chunk.table, cleaned[chunk.name].counts) for chunk in chunks],
        cuts,
    )
    for counts in cuts:
        for table, reasons in counts["quarantined"].items():
            for reason, count in reasons.items():
                bad[table][reason] = bad[table].get(reason, 0) + count
    _limit(plan, rows, bad, worst)
    feeds = _summed(counts["feeds_by_day"] for counts in cuts)
    candidates = _summed(counts["candidates_by_day"] for counts in cuts)
    first_days, empty = _days(plan, feeds)
    sent = {what: _files(cut, what) for what in ("shown", "done", "seen")}
    counted = step("rooms", buckets, CountRooms(plan, ending, sorted_tables, sent, everyone["rooms"]))
    for what, notes in {**sent, "all_rooms": everyone["rooms"]}.items():
        read = sum(done.counts["read"][what] for done in counted.values())
        rows_agree("rooms", f"`{what}`", read=read, left=_rows_in(notes))
    counters = _files(counted, "counters")
    users = [
        Item(item.name, BucketOfUsers(item.work, tuple(cut[item.name].files[name][0] for name in CUT)), item.rows)
        for item in buckets
    ]
    open_at = ending if plan.has_times else None
    features = WriteFeatures(plan, ending, open_at, first_days, sorted_tables, counters, everyone["users"])
    written = step("features", users, features)
    for what, notes in {"counters": counters, "all_users": everyone["users"]}.items():
        read = sum(done.counts["read"][what] for done in written.values())
        rows_agree("features", f"`{what}`", read=read, left=_rows_in(notes))
    totals = {
        split: {
            what: (max if what == "largest_feed" else sum)(done.counts["splits"][split][what] for done in written.values())
            for what in ("feeds", "candidates", "largest_feed")
        }
        for split in SPLITS
    }
    warmup = _summed(done.counts["warmup"] for done in written.values())
    for what in ("feeds", "candidates"):
        of_splits = sum(totals[split][what] for split in SPLITS)
        rows_agree("features", what, read=of_splits + warmup[what], left=sum(counts[what] for counts in cuts))
    still_open = {split: _open_labels([done.counts["splits"][split]["open"] for done in written.values()]) for split in SPLITS}
    files = {split: _files(written, split) for split in SPLITS}

    is_training = lambda day: first_days["train"] <= int(day) < first_days["valid"]
    entries = _summed(counts["entries_by_day"] for counts in cuts)
    entry_rate = sum(entries[day] for day in entries if is_training(day)) / sum(
        candidates[day] for day in candidates if is_training(day)
    )
    fitted = step("fit", [_file_item(note) for note in files["train"]], FitFile(plan, entry_rate))
    rows_agree(
        "fit",
        "feeds of training days",
        read=sum(done.counts["feeds"] for done in fitted.values()),
        left=totals["train"]["feeds"],
    )
    finishing = FinishEncoder(plan, entry_rate, _files(fitted, "part"), plan.logs.id_kinds())
    encoder = step("encoder", [Item("encoder", None, totals["train"]["feeds"])], finishing)["encoder"]
    of_tables = {table: done.counts["latest"] or 0 for table, done in attributes.items()}
    found = replace(
        found,
        wild=encoder.counts["wild"],
        early=_summed(done.counts["early"] for done in written.values()),
        future={table: at for table, at in of_tables.items() if at > ending},
        too_late=_summed(counts["too_late"] for counts in cuts),
    )
    items = {split: [_file_item(note) for note in files[split]] for split in SPLITS}
    encoded = step("encode", [item for split in SPLITS for item in items[split]], EncodeFile(plan, encoder.files["encoder"]))
    seen = {
        split: Seen.merged([Seen(**encoded[item.name].counts) for item in items[split]]) for split in SPLITS if items[split]
    }
    splits = {}
    for split in SPLITS:
        for what in ("feeds", "candidates"):
            read = sum(getattr(seen[split], what).values()) if split in seen else 0
            rows_agree("encode", f"{what} of {split}", read=read, left=totals[split][what])
        splits[split] = Split(
            files=len(files[split]),
            **totals[split],
            open_labels=still_open[split],
            candidates_by_level=tuple(seen[split].candidates_by_level) if split in seen else (),
        )
    kept = _summed(counts["kept"] for counts in cuts) | {table: done.counts["kept"] for table, done in attributes.items()}
    past_most = _summed(counts["left_out"] for counts in cuts)
    left_out = {
        table: {
            UNUSED: sum(done.counts["unused"] for done in of_table.get(table, ())),
            LATE: sum(done.counts["late"] for done in of_table.get(table, ())),
            PAST_MOST: past_most.get(table, 0),
        }
        for table in rows
    }
    there = [table for table in (*EVENTS, *KEYS) if plan.logs.has(table)]
    runner.settled("quarantine", "encoder")
    made = runner.settled("snapshot", *SPLITS, "encoded")
    manifest = Manifest(
        tables=TABLES,
        fingerprint=fingerprint,
        splits=splits,
        days={
            split: tuple(
                _date(day)
                for day in sorted(map(int, feeds))
                if day >= first_days["train"] and _split_of(day, first_days) == split
            )
            for split in SPLITS
        },
        empty_days=tuple(_date(day) for day in empty),
        ending=ending,
        open_labels=plan.config.open_labels,
        arrivals=tuple(table for table in EVENTS if table in plan.has_arrivals),
        arrived={name: tuple(each) for name, each in _added(done.counts["arrived"] for done in written.values()).items()},
        warmup_feeds=warmup["feeds"],
        warmup_days=tuple(_date(day) for day in sorted(map(int, feeds)) if day < first_days["train"]),
        entry_rate=entry_rate,
        remarks=(
            *_of_times(plan),
            *silent_parts(seen, plan.schema, {day: _date(int(day)) for day in feeds}),
            *_of_open(plan, still_open, totals, ending),
        ),
        counts=LogCounts(
            rows={table: rows[table] for table in there},
            kept={table: kept[table] for table in there},
            quarantined={table: bad[table] for table in there},
            left_out={table: {rule: count for rule, count in left_out[table].items() if count} for table in there},
            converted=SourceRows.read(plan.logs.path.parent),
            unattributed_engagements=sum(counts["unattributed"] for counts in cuts),
            feeds=sum(feeds.values()),
            candidates=sum(candidates.values()),
            users=sum(done.counts["users"] for done in written.values()),
            rooms=sum(done.counts["rooms"] for done in counted.values()),
            attributes={table: done.counts["ids"] for table, done in attributes.items()},
            feeds_by_day={_date(int(day)): feeds[day] for day in sorted(feeds, key=int)},
            found=found,
        ),
        buckets=plan.buckets,
        seconds=seconds,
    )
    adds_up(manifest.counts.account)
    return manifest, made


def _files(done: Mapping[str, Done], kind: str) -> list[FileNote]:
    """All files of a kind, in order of tasks."""
    return [note for each in done.values() for note in each.files.get(kind, ())]


def _rows_in(notes: Iterable[FileNote]) -> int:
    return sum(note.rows for note in notes)


def _remarks(counts: LogCounts, output: Path) -> list[str]:
    """What a user should know of the rows that do not appear in the tables as they came."""
    lines = []
    if any(each.quarantined for each in counts.account.values()):
        lines.append(f"quarantined rows are in {output / 'quarantine'}")
    if counts.unattributed_engagements:
        lines.append(
            f"{counts.unattributed_engagements:,} of {counts.account['engagements'].read:,} engagements follow no impression "
            "within their target's attribution time: they count for histories and counters, not for labels"
        )
    return lines + remarks(counts.found)


def _file_item(features: FileNote) -> Item:
    file = Path(features.path)
    return Item(f"{file.parent.name}-{file.stem}", features, features.rows)


def _limit(
    plan: Plan, rows_of: Mapping[str, int], bad: Mapping[str, Mapping[str, int]], worst: Mapping[str, Mapping[str, int]]
) -> None:
    """Stops the job where too many rows are malformed; what was delivered twice is sound, and only too much."""
    for table, found in bad.items():
        reasons = {reason: count for reason, count in found.items() if reason != TWICE}
        count, rows = sum(reasons.values()), rows_of[table]
        if rows and count / rows > plan.config.quarantine_limit:
            why = ", ".join(f"{reason}: {number:,}" for reason, number in sorted(reasons.items(), key=lambda item: -item[1]))
            files = worst[table]
            where = max(files, key=lambda file: files[file]) if files else ""
            most = f" Most in {where} ({files[where]:,})." if where else ""
            raise ConfigError(
                f"{count:,} of {rows:,} rows of `{table}` are malformed ({count / rows:.2%}, quarantine_limit is "
                f"{plan.config.quarantine_limit:.2%}): {why}.{most} They are in {plan.output / 'quarantine'}. "
                "Mend the log, or raise `prepare.quarantine_limit`."
            )


def _days(plan: Plan, feeds: Mapping[str, int]) -> tuple[dict[str, int], list[int]]:
    """First day of every split, and the days within the log without a feed.

    Raises:
        ConfigError: a split has no feeds.
    """
    days = sorted(map(int, feeds))
    if not days:
        raise ConfigError(
            f"not one sound impression is left of {plan.rows['impressions']:,}; see {plan.output / 'quarantine'}."
        )
    test = days[-1] + 1 - plan.config.test_days
    valid = test - plan.config.valid_days
    first_days = {"train": days[0] + plan.config.warmup_days, "valid": valid, "test": test}
    empty = sorted(set(range(days[0], days[-1] + 1)) - set(days))
    ends = {"train": valid, "valid": test, "test": days[-1] + 1}
    warmup = f", warmup_days {plan.config.warmup_days}" if plan.config.warmup_days else ""
    for split, first in first_days.items():
        if ends[split] > first and any(first <= day < ends[split] for day in days):
            continue
        if split == "test" and plan.config.test_days == 0:
            continue
        asked = f"{_date(first)} to {_date(ends[split] - 1)}" if ends[split] > first else f"before {_date(ends[split])}"
        raise ConfigError(
            f"the {split} split ({asked}) has no feeds. The log has feeds on {len(days)} days from {_date(days[0])} to "
            f"{_date(days[-1])}; valid_days is {plan.config.valid_days}, test_days {plan.config.test_days}{warmup}. "
            "Change these, or take in more days."
        )
    if empty:
        print(f"  warning: no feeds on {', '.join(_date(day) for day in empty)}", flush=True)
    return first_days, empty


def _open_labels(parts: Iterable[Mapping[str, list[int]]]) -> dict[str, OpenLabels]:
    """By target, from those of buckets."""
    counts = _added(parts)
    return {name: OpenLabels(labels=labels, positive=positive) for name, (labels, positive) in counts.items()}


def _added(parts: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """Lists of counts by name, added up place by place."""
    total: dict[str, list[int]] = {}
    for part in parts:
        for name, counts in part.items():
            total[name] = [have + more for have, more in zip(total.get(name, [0] * len(counts)), counts, strict=True)]
    return total


def _of_open(
    plan: Plan, still_open: Mapping[str, Mapping[str, OpenLabels]], totals: Mapping[str, Mapping[str, int]], ending: int
) -> list[str]:
    """A line a split on labels that are not final; and where all are, on what to do."""
    is_masked = plan.config.open_labels == "mask"
    what = "they are masked" if is_masked else "they are taken as they are (prepare.open_labels)"
    lines = []
    for split, targets in still_open.items():
        if targets:
            told = ", ".join(f"{name} {each.labels:,} ({each.positive:,} positive already)" for name, each in targets.items())
            lines.append(f"labels of the {split} split whose window has not closed: {told}; {what}")
        candidates = totals[split]["candidates"]
        if is_masked and candidates and sum(each.labels for each in targets.values()) == candidates * len(plan.schema.targets):
            moment = np.datetime64(ending, "ms").astype("datetime64[s]")
            lines.append(
                f"not one label of the {split} split is final: the log ends at {moment} UTC, before the windows "
                "(`attribution_seconds`) of its impressions do. Where the log is complete up to a later moment, say so in "
                "`prepare.until`; else take `prepare.open_labels: as_is`, or more days"
            )
    return lines


def _split_of(day: int, first_days: Mapping[str, int]) -> str:
    return max((split for split in SPLITS if first_days[split] <= day), key=SPLITS.index)


def _date(day: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days=day))


def _summed(counts) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total


# -- identity --------------------------------------------------------------------------------------------------


def _identity(plan: Plan) -> dict[str, Any]:
    """Everything that decides what is written, in parts that a message can name."""
    config = {name: value for name, value in to_dict(plan.config).items() if name not in _INDIFFERENT}
    return {
        "version of the tables": TABLES,
        "logs": plan.logs.fingerprint(),
        "schema": decisive_part(plan.schema),
        "prepare": config,
    }


def _fingerprint(identity: Mapping[str, Any]) -> str:
    tables, logs, schema, config = identity.values()
    decides = {"tables": tables, "logs": logs, "schema": _digest(schema), "config": config}
    return _digest(decides)


def _digest(value: Any) -> str:
    return xxhash.xxh64_hexdigest(json.dumps(value, sort_keys=True).encode())


def _begin(run: RunFolder, identity: Mapping[str, Any]) -> None:
    """Makes sure that unfinished work in the folder is of this identity; that of others is thrown away."""
    if run.identity is not None:
        if found := run.differences(identity):
            print(f"Prepare: unfinished work in {run.path} is of something else ({told(found)}); starting afresh", flush=True)
            run.clear()
        else:
            print(f"Prepare: going on in {run.path}", flush=True)
    run.begin(identity, way_out=_WAY_OUT)


def _describe(plan: Plan) -> None:
    """The plan and what it will take, from footers alone."""
    config = plan.config
    chunks = chunks_of(plan.logs, config.rows_per_chunk)
    print(f"Plan for {plan.output} (dry run, nothing is written there):")
    for table in (*EVENTS, *KEYS):
        files = plan.logs.files(table)
        rows = plan.logs.rows(table)
        size = sum(file.stat().st_size for file in files) / 2**20
        parts = f", {sum(chunk.table == table for chunk in chunks)} chunks" if table in EVENTS else ""
        print(f"  {table:<15} {rows:>13,} rows in {len(files)} files, {size:,.1f} MiB{parts}")
    print(f"  {plan.buckets} buckets of about {sum(plan.rows.values()) // plan.buckets:,} log rows")
    print(f"  {len(plan.columns)} columns: {', '.join(sorted(plan.columns))}")
    print(f"  counters over all users: {', '.join(column.name for column in plan.counters) or 'none'}")
