"""A finished prepared folder: feeds of every split, their schema and encoder, and what the job counted."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from models.config import ConfigError, config, from_dict
from models.schema import Schema
from pipelines.encode.contract import obstacles
from pipelines.encode.feeds import TABLES
from pipelines.encode.state import DamagedEncoder, EncoderState
from pipelines.logs.rows import SourceRows
from pipelines.places import Remote, place, side_by_side
from pipelines.runs import FileNote, read_json, write_text
from pipelines.runs.noted import damaged, noted, there, unsigned, whole
from pipelines.runs.sealed import footer_digest

T = TypeVar("T")

SPLITS = ("train", "valid", "test")
EVENTS = ("impressions", "engagements", "product_clicks")  # tables of the log whose rows have a moment
SNAPSHOTS = ("users", "rooms")
MANIFEST, FILES, SCHEMA, ENCODER = "manifest.json", "files.json", "schema.json", "encoder"
ENCODER_FILES = ("encoder.json", "encoder.safetensors")


@config
class OpenLabels:
    """Labels of a target whose window had not closed at the log's end.

    Attributes:
        positive: those among them that are positive already.
    """

    labels: int
    positive: int


@config
class Split:
    """What a split holds.

    Attributes:
        files: of encoded feeds, and as many of raw ones.
        largest_feed: candidates in the largest one.
        candidates_by_level: in the order of the schema's level names; empty for a split without feeds.
        open_labels: by target; without those that have none.
    """

    files: int
    feeds: int
    candidates: int
    largest_feed: int
    candidates_by_level: tuple[int, ...] = ()
    open_labels: dict[str, OpenLabels] = field(default_factory=dict)


@config
class UsedAgain:
    """Requests of one user and id whose rows are further apart than the feed gap.

    Attributes:
        feeds: what they became.
        most: feeds, by the ids with the most.
    """

    requests: int = 0
    feeds: int = 0
    most: dict[str, int] = field(default_factory=dict)


@config
class SharedIds:
    """Request ids of several users; each of them has a feed of her own.

    Attributes:
        ids: how many there are in the bucket of users with the most of them, so at least.
        most: users, by the ids with the most.
    """

    ids: int = 0
    most: dict[str, int] = field(default_factory=dict)


@config
class LongUsers:
    """Users with more rows than `prepare.user_most`.

    Attributes:
        most: rows, by the ids with the most; ids that are texts stand here as their hashes.
    """

    users: int = 0
    most: dict[str, int] = field(default_factory=dict)


@config
class Findings:
    """What was found in the rows of a log, beside malformed ones.

    Attributes:
        missing: by table and column, values that count as missing, by what they are.
        placeholders: by table and column, rows whose id names nothing, by its spelling.
        alike_engagements: as another in user, room, action and instant, but not in value, request or event id.
        events_apart: by event table, rows that repeat an event id further than the feed gap from its first row; left out.
        wild: by numeric field, values on training days too large to be meant.
        early: by attribute table with `valid_from`, feeds (of `users`) or candidates whose id has its first row only later.
        future: by attribute table with rows that hold only from the end of the log on, the last `valid_from`, ms.
        too_late: by target, engagements that happened within the window of their impression and arrived after it.
    """

    missing: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    placeholders: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    alike_engagements: int = 0
    events_apart: dict[str, int] = field(default_factory=dict)
    requests_again: UsedAgain = field(default_factory=UsedAgain)
    requests_shared: SharedIds = field(default_factory=SharedIds)
    long_users: LongUsers = field(default_factory=LongUsers)
    wild: dict[str, int] = field(default_factory=dict)
    early: dict[str, int] = field(default_factory=dict)
    future: dict[str, int] = field(default_factory=dict)
    too_late: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TableAccount:
    """What became of the rows of a table of the log: `read` = `kept` + the sums of `quarantined` and `left_out`.

    Attributes:
        kept: those that feeds, histories, counters and attributes are made of.
        quarantined: by reason.
        left_out: by rule.
    """

    read: int
    kept: int
    quarantined: dict[str, int]
    left_out: dict[str, int]

    @property
    def is_whole(self) -> bool:
        return self.read == self.kept + sum(self.quarantined.values()) + sum(self.left_out.values())


@config
class LogCounts:
    """What became of the log.

    Attributes:
        rows: read, by table.
        kept: by table, those that feeds, histories, counters and attributes are made of.
        quarantined: by table and reason.
        left_out: by table and rule.
        converted: what became of the source that the log was converted from; nothing where it was not.
        unattributed_engagements: they follow no impression in time; they count for histories and counters, not for labels.
        users, rooms: in the snapshot.
        attributes: ids by attribute table.
        feeds_by_day: by `YYYY-MM-DD`.
    """

    rows: dict[str, int]
    kept: dict[str, int]
    quarantined: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    converted: SourceRows
    unattributed_engagements: int
    feeds: int
    candidates: int
    users: int
    rooms: int
    attributes: dict[str, int]
    feeds_by_day: dict[str, int]
    found: Findings

    @property
    def account(self) -> dict[str, TableAccount]:
        """What became of every row, by table."""
        return {
            table: TableAccount(rows, self.kept[table], self.quarantined[table], self.left_out[table])
            for table, rows in self.rows.items()
        }

    def account_lines(self) -> list[str]:
        """The account as a table in lines, below it what was quarantined and left out, by table."""
        heads = ["rows of the log", "read", "kept", "quarantined", "left out"]
        rows = [heads]
        for table, each in self.account.items():
            counts = (each.read, each.kept, sum(each.quarantined.values()), sum(each.left_out.values()))
            rows.append([table, *(f"{count:,}" for count in counts)])
        first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [
            "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
            for row in rows
        ]
        for table, each in self.account.items():
            for what, found in (("quarantined", each.quarantined), ("left out", each.left_out)):
                if found:
                    told = ", ".join(f"{count:,} {reason}" for reason, count in found.items())
                    lines.append(f"{what}, {table}: {told}")
        return [*(f"converted: {line}" for line in self.converted.lines()), *lines]


@config
class Manifest:
    """What the job left and counted.

    Attributes:
        tables: version of the tables.
        fingerprint: equal for equal logs, schema and configuration.
        splits: by name.
        days: of each split, `YYYY-MM-DD`, those with feeds.
        empty_days: within the log, without a feed.
        ending: the first moment after the log, ms: `prepare.until`, or after the last arrival.
        open_labels: what became of labels that were open then.
        arrivals: event tables that tell when their rows arrived (`arrived_at`); of the others that is when they happened.
        arrived: by binary target, the positives of training days by when in their window they were known, see
            `pipelines.encode.open_labels`; windows that had closed alone.
        warmup_feeds: feeds of days that only fill histories and counters, on `warmup_days`.
        entry_rate: entries a candidate, on training days.
        remarks: what of the tables says nothing, in lines.
        buckets: of users, and of streamers.
        seconds: by step, of the run that finished it.
    """

    tables: int
    fingerprint: str
    splits: dict[str, Split]
    days: dict[str, tuple[str, ...]]
    empty_days: tuple[str, ...]
    ending: int
    open_labels: Literal["mask", "as_is"]
    arrivals: tuple[str, ...]
    arrived: dict[str, tuple[int, ...]]
    warmup_feeds: int
    warmup_days: tuple[str, ...]
    entry_rate: float
    counts: LogCounts
    buckets: int
    seconds: dict[str, float]
    remarks: tuple[str, ...] = ()

    def clock_lines(self) -> list[str]:
        """Up to when the log is known, and by which clock; a line each."""
        moment = datetime.fromtimestamp(self.ending / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
        lines = [f"the log is known up to {moment}; of histories and counters an event counts from its arrival on"]
        silent = [table for table in self.counts.account if table in EVENTS and table not in self.arrivals]
        if silent:
            tables = ", ".join(f"`{table}`" for table in silent)
            lines.append(f"no arrivals (`arrived_at`) in {tables}: there an event arrives when it happens")
        if self.warmup_days:
            lines.append(
                f"{self.warmup_feeds:,} feeds of {len(self.warmup_days)} days (the last is {self.warmup_days[-1]}) only fill "
                "histories and counters (prepare.warmup_days)"
            )
        return lines


@dataclass(frozen=True)
class Prepared:
    """What `prepare` leaves behind; `manifest.json` is written last, so a folder that has one is finished.

    Its tables are the files that `files.json` names, with their sizes and digests: not those that a listing shows.

    Attributes:
        schema: what it is used with, which may differ in weights and the like from what it was prepared for.
        notes: of all its tables.
    """

    path: Path
    schema: Schema
    encoder: EncoderState
    manifest: Manifest
    notes: tuple[FileNote, ...]

    @property
    def fingerprint(self) -> str:
        """Equal for equal logs, schema and configuration."""
        return self.manifest.fingerprint

    @classmethod
    def open(cls, path: Path | str, *, schema: Schema | None = None) -> "Prepared":
        """
        Args:
            schema: the schema it is going to be used with; a folder prepared for other tables is refused. It may have fewer
                targets, and other weights, parents, heads of them. None takes that of the folder.

        Raises:
            ConfigError: there is no such folder, it is not finished, it is of another version, its parts do not fit, or
                files are missing or not what they were. A split's features, and the snapshot, may be missing as a whole:
                training does without.
        """
        path = place(path)
        if not path.is_dir():
            raise ConfigError(f"there is no prepared folder at `{path}`. Make it with `python -m jobs.prepare`.")
        manifest, notes = _manifest(path), _notes(path)
        for note in notes:
            if note.path == SCHEMA or note.path.startswith(ENCODER):
                whole(note, path, _AGAIN)
        own_schema = _as_written(Schema, _read_json(path / SCHEMA, _DAMAGED), path, "schema")
        try:
            encoder = EncoderState.load(path / "encoder")
        except (FileNotFoundError, DamagedEncoder) as error:
            raise ConfigError(f"{error} Delete `{path}` and prepare again.") from None
        encoder.check(own_schema)
        if schema is not None and (parts := obstacles(own_schema, schema)):
            raise ConfigError(
                f"`{path}` was prepared for another schema: they differ in {', '.join(parts)}. "
                "Prepare into another folder, or use its schema."
            )
        prepared = cls(path, schema or own_schema, encoder, manifest, notes)
        prepared._check()
        return prepared

    def files(self, split: str) -> list[Path]:
        """Encoded feeds of `train`, `valid` or `test`, in a fixed order; to be read with `pipelines.runs.sealed`."""
        return [self.path / note.path for note in self._of("feeds", split)]

    def features(self, split: str) -> list[Path]:
        """Raw feeds, file by file and row by row beside `files(split)`; none where they were deleted.

        Raises:
            ConfigError: one is not what was written.
        """
        return self._many(lambda note: whole(note, self.path, _AGAIN), self._there(self._of("features", split)))

    def snapshot(self, what: str) -> list[Path]:
        """`users` or `rooms` as they were at the end of the log; none where they were deleted.

        Raises:
            ConfigError: as `features`.
        """
        return self._many(lambda note: whole(note, self.path, _AGAIN), self._there(self._of("snapshot", what)))

    def _of(self, kind: str, part: str) -> list[FileNote]:
        known = SNAPSHOTS if kind == "snapshot" else SPLITS
        if part not in known:
            raise ConfigError(f"there is no split `{part}`; there are: {', '.join(known)}.")
        return [note for note in self.notes if note.path.startswith(f"{kind}/{part}/")]

    def _there(self, notes: list[FileNote]) -> list[FileNote]:
        """All of them, or none where not one is there."""
        return notes if any((self.path / note.path).exists() for note in notes) else []

    def _many(self, call: Callable[[FileNote], T], notes: Iterable[FileNote]) -> list[T]:
        """`call` of every note; side by side where each asks a store."""
        return side_by_side(call, notes) if isinstance(self.path, Remote) else list(map(call, notes))

    def _check(self) -> None:
        """Tells what is missing when the folder is opened, and not who reads it an hour later."""
        for split in SPLITS:
            counts, feeds, features = self.manifest.splits[split], self._of("feeds", split), self._of("features", split)
            rows = sum(note.rows for note in feeds)
            beside = [note.rows for note in features] or [note.rows for note in feeds]
            if (len(feeds), rows) != (counts.files, counts.feeds) or beside != [note.rows for note in feeds]:
                raise ConfigError(
                    f"`{self.path}`: {FILES} names {len(feeds)} files of {split} feeds with {rows:,} rows, {MANIFEST} counts "
                    f"{counts.files} with {counts.feeds:,}. {_AGAIN}"
                )
            self._many(self._check_feeds, feeds)
            self._many(lambda note: there(note, self.path, _AGAIN), self._there(features))
        for what in SNAPSHOTS:
            self._many(lambda note: there(note, self.path, _AGAIN), self._there(self._of("snapshot", what)))

    def _check_feeds(self, note: FileNote) -> None:
        if footer_digest(there(note, self.path, _AGAIN)) != note.digest:
            raise damaged(note, self.path, "does not hold what was written to it", _AGAIN)


_AGAIN = "Delete the prepared folder and prepare again."
_DAMAGED = "is damaged; delete it and prepare again"


def write_notes(folder: Path, notes: Sequence[FileNote]) -> None:
    """Names the tables of a prepared folder, with its schema and encoder."""
    others = [noted(folder / SCHEMA, folder), *(noted(folder / ENCODER / name, folder) for name in ENCODER_FILES)]
    lines = ",\n".join(json.dumps(note.spelled()) for note in sorted([*others, *notes], key=lambda note: note.path))
    write_text(folder / FILES, f'{{"path, rows, bytes, digest": [\n{lines}\n]}}\n')


def _notes(path: Path) -> tuple[FileNote, ...]:
    spelled = _read_json(path / FILES, _DAMAGED)
    try:
        (notes,) = spelled.values()
        found = tuple(FileNote(str(name), int(rows), int(size), str(digest)) for name, rows, size, digest in notes)
    except (TypeError, ValueError):
        raise ConfigError(f"{path / FILES} is damaged (it names no files). {_AGAIN}") from None
    if missing := {SCHEMA, *(f"{ENCODER}/{name}" for name in ENCODER_FILES)} - {note.path for note in found}:
        raise ConfigError(f"{path / FILES} is damaged (it does not name {min(missing)}). {_AGAIN}")
    return found


def _manifest(path: Path) -> Manifest:
    spelling = _read_json(path / MANIFEST, "was not finished; run `python -m jobs.prepare` again, it goes on")
    if spelling.get("tables") != TABLES:
        raise ConfigError(
            f"`{path}` holds tables of version {spelling.get('tables', 1)}, this program reads {TABLES}. Delete the folder "
            "and prepare again, or prepare into another one."
        )
    plain = {name: value for name, value in spelling.items() if name != "digest"}
    manifest = _as_written(Manifest, plain, path, MANIFEST)
    try:
        unsigned(spelling)
    except ValueError as error:
        raise ConfigError(f"{path / MANIFEST} is damaged ({error}). {_AGAIN}") from None
    return manifest


def _as_written(cls: type[T], spelling: Mapping[str, Any], path: Path, where: str) -> T:
    try:
        return from_dict(cls, spelling, where=where)
    except ConfigError as error:
        raise ConfigError(
            f"`{path}` was prepared by another version of this program ({str(error).splitlines()[0]}) Delete the folder and "
            "prepare again, or prepare into another one."
        ) from None


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return read_json(path, way_out="Delete the folder and prepare again.")
    except FileNotFoundError:
        raise ConfigError(f"`{path.parent}` {otherwise} ({path.name} is missing).") from None
