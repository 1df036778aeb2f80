"""A finished prepared folder: feeds of every split, their schema and encoder, and what the job counted."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from models.config import ConfigError, config, from_dict
from models.schema import Schema
from pipelines.encode.contract import obstacles
from pipelines.encode.feeds import TABLES
from pipelines.encode.state import DamagedEncoder, EncoderState
from pipelines.runs import read_json

T = TypeVar("T")

SPLITS = ("train", "valid", "test")
SNAPSHOTS = ("users", "rooms")
MANIFEST = "manifest.json"


@config
class Split:
    """What a split holds.

    Attributes:
        files: of encoded feeds, and as many of raw ones.
        largest_feed: candidates in the largest one.
        candidates_by_level: in the order of the schema's level names; empty for a split without feeds.
        days: `YYYY-MM-DD`, those with feeds.
    """

    files: int
    feeds: int
    candidates: int
    largest_feed: int
    candidates_by_level: tuple[int, ...] = ()
    days: tuple[str, ...] = ()


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
class Findings:
    """What was found in the rows of a log, beside malformed ones.

    Attributes:
        missing: by table and column, values that count as missing, by what they are.
        placeholders: by table and column, rows whose id names nothing, by its spelling.
        alike_engagements: as another in user, room, action and instant, but not in value, request or event id.
        wild: by numeric field, values on training days too large to be meant.
        early: by attribute table with `valid_from`, feeds (of `users`) or candidates whose id has its first row only later.
        future: by attribute table with rows that hold only from the end of the log on, the last `valid_from`, ms.
    """

    missing: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    placeholders: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    alike_engagements: int = 0
    requests_again: UsedAgain = field(default_factory=UsedAgain)
    requests_shared: SharedIds = field(default_factory=SharedIds)
    wild: dict[str, int] = field(default_factory=dict)
    early: dict[str, int] = field(default_factory=dict)
    future: dict[str, int] = field(default_factory=dict)


@config
class LogCounts:
    """What became of the log.

    Attributes:
        rows: of every table, as they came: those kept, quarantined and (of engagements) unused.
        kept: of every table, those that feeds, histories, counters and attributes are made of.
        quarantined: by table and reason.
        unused_engagements: of actions that the schema does not know.
        unattributed_engagements: they follow no impression in time; they count for histories and counters, not for labels.
        users, rooms: in the snapshot.
        attributes: ids by attribute table.
        feeds_by_day: by `YYYY-MM-DD`.
    """

    rows: dict[str, int]
    kept: dict[str, int]
    quarantined: dict[str, dict[str, int]]
    unused_engagements: int
    unattributed_engagements: int
    feeds: int
    candidates: int
    users: int
    rooms: int
    attributes: dict[str, int]
    feeds_by_day: dict[str, int]
    found: Findings


@config
class Manifest:
    """What the job left and counted.

    Attributes:
        tables: version of the tables.
        fingerprint: equal for equal logs, schema and configuration.
        splits: by name.
        empty_days: within the log, without a feed.
        ending: the first moment after the log, ms.
        entry_rate: entries a candidate, on training days.
        remarks: what of the tables says nothing, in lines.
        buckets: of users, and of streamers.
        seconds: by step, of the run that finished it.
    """

    tables: int
    fingerprint: str
    splits: dict[str, Split]
    empty_days: tuple[str, ...]
    ending: int
    entry_rate: float
    counts: LogCounts
    buckets: int
    seconds: dict[str, float]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """What `prepare` leaves behind; `manifest.json` is written last, so a folder that has one is finished.

    Attributes:
        schema: what it is used with, which may differ in weights and the like from what it was prepared for.
    """

    path: Path
    schema: Schema
    encoder: EncoderState
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """Equal for equal logs, schema and configuration."""
        return self.manifest.fingerprint

    @classmethod
    def open(cls, path: Path | str, *, schema: Schema | None = None) -> "Prepared":
        """
        Args:
            schema: the schema it is going to be used with; a folder prepared for other tables is refused. It may have fewer
                targets, and other weights, parents, transforms and bins of them. None takes that of the folder.

        Raises:
            ConfigError: there is no such folder, it is not finished, it is of another version, its parts do not fit, or
                files are missing.
        """
        path = Path(path)
        if not path.is_dir():
            raise ConfigError(f"there is no prepared folder at `{path}`. Make it with `python -m jobs.prepare`.")
        manifest = _manifest(path)
        spelling = _read_json(path / "schema.json", "is damaged; delete it and prepare again")
        own_schema = _as_written(Schema, spelling, path, "schema")
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
        prepared = cls(path, schema or own_schema, encoder, manifest)
        for split in SPLITS:
            for kind, files in (("feeds", prepared.files(split)), ("features", prepared.features(split))):
                if kind == "features" and not files:
                    continue  # training and serving do without
                if len(files) != (expected := manifest.splits[split].files):
                    raise ConfigError(
                        f"`{path / kind / split}` holds {len(files)} Parquet files where the manifest counts {expected}. "
                        "Delete the folder and prepare again."
                    )
                _whole(files)
        for what in SNAPSHOTS:
            _whole(prepared.snapshot(what))
        return prepared

    def files(self, split: str) -> list[Path]:
        """Encoded feeds of `train`, `valid` or `test`, in a fixed order."""
        return self._parquet("feeds", split)

    def features(self, split: str) -> list[Path]:
        """Raw feeds, file by file and row by row beside `files(split)`."""
        return self._parquet("features", split)

    def snapshot(self, what: str) -> list[Path]:
        """`users` or `rooms` as they were at the end of the log."""
        return sorted((self.path / "snapshot" / what).glob("*.parquet"))

    def _parquet(self, kind: str, split: str) -> list[Path]:
        if split not in SPLITS:
            raise ConfigError(f"there is no split `{split}`; there are: {', '.join(SPLITS)}.")
        return sorted((self.path / kind / split).glob("*.parquet"))


def _manifest(path: Path) -> Manifest:
    spelling = _read_json(path / MANIFEST, "was not finished; run `python -m jobs.prepare` again, it goes on")
    if spelling.get("tables") != TABLES:
        raise ConfigError(
            f"`{path}` holds tables of version {spelling.get('tables', 1)}, this program reads {TABLES}. Delete the folder "
            "and prepare again, or prepare into another one."
        )
    return _as_written(Manifest, spelling, path, MANIFEST)


def _as_written(cls: type[T], spelling: Mapping[str, Any], path: Path, where: str) -> T:
    try:
        return from_dict(cls, spelling, where=where)
    except ConfigError as error:
        raise ConfigError(
            f"`{path}` was prepared by another version of this program ({str(error).splitlines()[0]}) Delete the folder and "
            "prepare again, or prepare into another one."
        ) from None


def _whole(files: Sequence[Path]) -> None:
    """Told when a folder is opened, and not by who reads the file an hour later: Parquet ends as it begins."""
    for path in files:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) >= 12:  # `PAR1`, a number of four bytes, `PAR1`
                file.seek(-4, os.SEEK_END)
                if file.read() == b"PAR1":
                    continue
        raise ConfigError(f"`{path}` is cut short. Delete the prepared folder and prepare again.")


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return read_json(path, way_out="Delete the folder and prepare again.")
    except FileNotFoundError:
        raise ConfigError(f"`{path.parent}` {otherwise} ({path.name} is missing).") from None
