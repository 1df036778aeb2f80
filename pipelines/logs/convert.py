"""From the files of a data set to canonical tables: in pieces, side by side, resumed after a kill, every row accounted for.

pieces    a piece of a file each: its rows typed, judged and turned into canonical ones
gather    a bucket of ids each: rows of several pieces and files that belong together, such as those of one room

A source says what its files are (`DataSet`) and what becomes of their rows; all else is the same for all of them. Of every
file the account says

    rows = used + quarantined (by reason) + left out (by rule)

and leaves it in `rows.json`, with the quarantined rows themselves in `quarantine/`.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
import polars as pl
import pyarrow as pa

from models.config import ConfigError
from pipelines.logs.canonical import REQUIRED_TABLES
from pipelines.logs.files import GrowingFile
from pipelines.logs.inputs import Found, Input, Wanted, find
from pipelines.logs.raw import (
    Bad,
    Ending,
    Layout,
    Piece,
    absent_columns,
    batches,
    damage_told,
    opened,
    pieces_of,
    unread_columns,
)
from pipelines.logs.rows import (
    QUARANTINE,
    ROWS,
    account_of,
    as_quarantine,
    file_name,
    listed,
    refuse_beyond,
    told,
    write_bad,
    write_quarantine,
)
from pipelines.runs import FileNote, discard, write_json, written
from pipelines.runs.exchange import ExchangeWriter, bucket_of, read_bucket
from pipelines.runs.noted import noted
from pipelines.runs.runner import Done, Item, Runner, Workers

EVENTS = ("impressions", "engagements", "product_clicks")
KEYS = {"users": "user_id", "rooms": "room_id", "streamers": "streamer_id", "products": "product_id"}
_ROWS_PER_BUCKET = 500_000
_FIRST_LOOK = 0.5  # a file of whose first rows this share makes no sense is another file


@dataclass(frozen=True)
class Made:
    """What became of some rows of a file.

    Attributes:
        tables: rows of canonical tables; those of others, and of attribute tables, are gathered by their key.
        left_out: by rule, how many rows give nothing.
        bad: by reason, which rows make no sense; boolean.
    """

    tables: Mapping[str, pl.DataFrame]
    left_out: Mapping[str, int] = field(default_factory=dict)
    bad: Mapping[str, pl.Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of files of a data set.

    Attributes:
        name: as the source calls it.
        layout: its columns.
        make: turns rows of it, given with the source's config, into canonical ones.
        stems: names of such files without their endings, `*` for anything; the name itself by default.
        needed: whether the data set can do without.
        gives: what is missing where it is not there, for the line that says so.
        form: `csv` or `parquet`, as its owner ships it; both are read.
    """

    name: str
    layout: Layout
    make: Callable[[pl.DataFrame, Any], Made]
    stems: tuple[str, ...] = ()
    needed: bool = True
    gives: str = ""
    form: Literal["csv", "parquet"] = "csv"

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.name, self.stems or (self.name,), self.needed, self.gives, self.form)


@dataclass(frozen=True)
class Gathered:
    """What became of all rows of some ids.

    Attributes:
        tables: rows of canonical tables.
        joined: by part and what they share, how many rows have become part of an earlier one.
        left_out: by part and rule, how many rows give nothing.
        bad: part, reason and text of rows that make no sense.
    """

    tables: Mapping[str, pl.DataFrame]
    joined: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    bad: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Gather:
    """Rows that have to meet, by the value of a key.

    Attributes:
        name: of the step, and of the files that it writes.
        parts: tables that files of any kind make, each with the key among its columns.
        make: turns all rows of some values of the key, given by part and with the source's config, into canonical ones.
    """

    name: str
    key: str
    parts: tuple[str, ...]
    make: Callable[[Mapping[str, pl.DataFrame], Any], Gathered]


def first_known(table: str) -> Gather:
    """One row an id of an attribute table: of every attribute the first value that is known, in order of files and rows.

    Of a room the earliest start and the latest end count, since a room that goes on over midnight may have a row a day.
    """
    return Gather(table, KEYS[table], (table,), _FirstKnown(table))


@dataclass(frozen=True)
class _FirstKnown:
    table: str

    def __call__(self, parts: Mapping[str, pl.DataFrame], source: Any) -> Gathered:
        rows, key = parts[self.table], KEYS[self.table]
        others = [name for name in rows.columns if name != key]
        if not rows[key].is_duplicated().any():
            return Gathered({self.table: rows})
        of = {name: pl.col(name).drop_nulls().first() for name in others}
        of |= {
            name: how
            for name, how in (("start_at", pl.col("start_at").min()), ("end_at", pl.col("end_at").max()))
            if name in of
        }
        changing = [name for name in others if name not in ("start_at", "end_at")]
        differs = (
            pl.any_horizontal(pl.col(name).drop_nulls().n_unique() > 1 for name in changing) if changing else pl.lit(False)
        )
        merged = rows.group_by(key, maintain_order=True).agg(*of.values(), differs.alias("_differs"))
        again, differing = len(rows) - len(merged), int(merged["_differs"].sum())
        joined = {"of an id that stands before": again}
        if differing:
            joined["ids whose rows have different values, of which the first is taken"] = differing
        return Gathered({self.table: merged.drop("_differs")}, {self.table: joined})


@dataclass(frozen=True)
class DataSet:
    """A data set: its files, and what becomes of them.

    Attributes:
        name: as people call it.
        kinds: files that are read, in the order in which they count.
        gathers: beside those of attribute tables.
        finder: finds the files in another way than by the names of their kinds.
    """

    name: str
    kinds: tuple[Kind, ...]
    gathers: tuple[Gather, ...] = ()
    finder: Callable[[Path], Found] | None = None

    def find(self, place: Path) -> Found:
        """
        Raises:
            ConfigError: see `pipelines.logs.inputs.find`.
        """
        if self.finder is not None:
            return self.finder(place)
        return find(place, [kind.wanted for kind in self.kinds], name=self.name)

    def kind(self, name: str) -> Kind:
        return next(kind for kind in self.kinds if kind.name == name)

    @property
    def all_gathers(self) -> tuple[Gather, ...]:
        return (*self.gathers, *(first_known(table) for table in KEYS))


@dataclass(frozen=True)
class Work:
    """How a conversion is carried out.

    Attributes:
        workers: who does it.
        connected: makes what the workers need be there while they are at it.
        limit: the share of a file's rows that may be malformed.
    """

    workers: Workers = field(default_factory=Workers)
    connected: Callable[[], AbstractContextManager[None]] = nullcontext
    limit: float = 0.01


def convert_files(data: DataSet, source: Any, found: Found, output: Path, work: Work) -> None:
    """Writes the canonical tables of a data set into the folder `output/logs`.

    Raises:
        ConfigError: a file is damaged, of another version, or has too many rows that make no sense.
    """
    for line in found.remarks():
        print(f"  {line}", flush=True)
    runner = Runner(output, output / "work" / "notes", work.workers)
    with work.connected():
        inputs = _unpacked(found, output, runner)
        pieces = [piece for each in inputs for piece in pieces_of(each, data.kind(each.kind).layout)]
        for line in _of_columns(pieces, data):
            print(f"  {line}", flush=True)
        _first_look(pieces, data, source)
        buckets = max(1, -(-sum(piece.rows for piece in pieces) // _ROWS_PER_BUCKET))
        items = [Item(_name(piece), piece, piece.rows) for piece in pieces]
        done = runner.step("pieces", items, ConvertPiece(data, source, output, buckets))
        of_file = {each.name: [done[_name(piece)] for piece in pieces if piece.input == each] for each in inputs}
        account = {name: account_of(of_pieces) for name, of_pieces in of_file.items()}
        for name, of_pieces in of_file.items():
            write_quarantine(name, of_pieces, output)
        refuse_beyond(work.limit, account, output)
        gathered = {}
        for gather in data.all_gathers:
            sent = {
                part: [note for each in done.values() for note in each.files.get(f"sent {part}", ())] for part in gather.parts
            }
            if any(sent.values()):
                gathered[gather.name] = _gather(gather, source, sent, output, buckets, runner)
        runner.settled("table")
    write_json(output / ROWS, {"files": account, "gathered": gathered})
    for line in told(account, gathered):
        print(f"  {line}", flush=True)
    made = {table for counts in (*account.values(), *gathered.values()) for table, rows in counts["made"].items() if rows}
    for table in REQUIRED_TABLES:
        if table not in made:
            raise ConfigError(
                f"not one row of the table `{table}` came of these files: see the lines above, and mend the files."
            )
    discard(output / "work")


def _name(piece: Piece) -> str:
    """Of the task, and of the files that it writes."""
    return f"{file_name(piece.input.name)}-{piece.number:05d}"


def _files(done: Mapping[str, Done], kind: str) -> list[FileNote]:
    """All files of a kind, in order of tasks."""
    return [note for each in done.values() for note in each.files.get(kind, ())]


# -- before ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unpack:
    """Takes a Parquet file out of its zip, since it is read from its end."""

    output: Path

    def __call__(self, each: Input) -> Done:
        path = self.output / "work" / "unpacked" / PurePosixPath(each.member).name
        with written(path, durable=False) as draft, damage_told(each), opened(each) as stream, draft.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)
        return Done({}, {"unpacked": [noted(path, self.output)]})


def _unpacked(found: Found, output: Path, runner: Runner) -> list[Input]:
    inside = [each for each in found.inputs if each.member and each.form == "parquet"]
    done = runner.step("unpack", [Item(PurePosixPath(each.member).name, each, 0) for each in inside], Unpack(output))
    at = {each: output / done[PurePosixPath(each.member).name].files["unpacked"][0].path for each in inside}
    return [
        replace(each, path=at[each], member="", compression="", size=at[each].stat().st_size) if each in at else each
        for each in found.inputs
    ]


def _of_columns(pieces: Sequence[Piece], data: DataSet) -> Iterator[str]:
    for piece in pieces:
        if piece.number == 0:
            layout = data.kind(piece.input.kind).layout
            if unread := unread_columns(piece, layout):
                yield f"{piece.input.name}: columns that are not read: {', '.join(unread)}."
            if absent := absent_columns(piece, layout):
                yield f"{piece.input.name}: columns that it does not have, and can do without: {', '.join(absent)}."


def _first_look(pieces: Sequence[Piece], data: DataSet, source: Any) -> None:
    """Refuses a file of another kind before all of it is read."""
    for piece in pieces:
        if piece.number:
            continue
        kind = data.kind(piece.input.kind)
        batch = next(batches(piece, kind.layout), None)
        if batch is None:
            continue
        made = kind.make(batch.frame, source) if len(batch.frame) else Made({})
        reasons = Counter(bad.reason for bad in batch.bad) + Counter({why: int(mask.sum()) for why, mask in made.bad.items()})
        if reasons.total() > max(1, _FIRST_LOOK * batch.rows) or (reasons and reasons.total() == batch.rows):
            raise ConfigError(
                f"{piece.input}: {reasons.total():,} of its first {batch.rows:,} rows make no sense ({listed(reasons)}). Is it "
                f"another file, or of another version? Its columns have to be: {', '.join(_columns(kind))}."
            )


def _columns(kind: Kind) -> Sequence[str]:
    return kind.layout.names or [name for name, raw in kind.layout.columns.items() if raw.there]


# -- pieces ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvertPiece:
    """Turns a piece of a file into rows of canonical tables."""

    data: DataSet
    source: Any
    output: Path
    buckets: int

    def __call__(self, piece: Piece) -> Done:
        kind, name = self.data.kind(piece.input.kind), _name(piece)
        counts: dict[str, Any] = {"rows": 0, "used": 0}
        reasons: Counter[str] = Counter()
        rules: Counter[str] = Counter()
        made_rows: Counter[str] = Counter()
        quarantined: list[pa.Table] = []
        ending = Ending()
        with _Tables(self.output, name, self.buckets, self.data) as tables:
            for batch in batches(piece, kind.layout, ending):
                made = kind.make(batch.frame, self.source) if len(batch.frame) else Made({})
                bad = [*batch.bad, *_bad_rows(batch.frame, batch.row_N, made)]
                for table, rows in made.tables.items():
                    tables.write(table, rows)
                    made_rows[table] += len(rows)
                reasons.update(each.reason for each in bad)
                rules.update({rule: count for rule, count in made.left_out.items() if count})
                counts["rows"] += batch.rows
                counts["used"] += batch.rows - len(bad) - sum(made.left_out.values())
                if bad:
                    quarantined.append(as_quarantine(bad, piece.input.name))
        files = dict(tables.files)
        if quarantined:
            files["quarantine"] = [
                write_bad(pa.concat_tables(quarantined), self.output / "work" / "bad" / f"{name}.parquet", self.output)
            ]
        is_cut = piece.input.form == "csv" and ending.last not in (b"", b"\n")
        more = {"quarantined": dict(reasons), "left_out": dict(rules), "made": dict(made_rows), "is_cut": is_cut}
        return Done(counts | more, files)


def _bad_rows(frame: pl.DataFrame, row_N: np.ndarray, made: Made) -> list[Bad]:
    found: list[Bad] = []
    for reason, mask in made.bad.items():
        for row in np.flatnonzero(mask.to_numpy()).tolist():
            text = ",".join("" if cell is None else str(cell) for cell in frame.row(row))
            found.append(Bad(int(row_N[row]), reason, text))
    return found


class _Tables:
    """The tables that a task writes, each made with its first rows: canonical ones as Parquet, others by bucket of a key."""

    def __init__(self, output: Path, name: str, buckets: int, data: DataSet) -> None:
        self._output, self._name, self._buckets = output, name, buckets
        self._keys = {part: gather.key for gather in data.all_gathers for part in gather.parts}
        self._open: dict[str, tuple[Path, GrowingFile | ExchangeWriter]] = {}
        self._stack = ExitStack()
        self.files: dict[str, list[FileNote]] = {}

    def write(self, table: str, rows: pl.DataFrame) -> None:
        if not len(rows):
            return
        arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        if table not in self._open:
            self._open[table] = self._begin(table, arrow.schema)
        _, file = self._open[table]
        if isinstance(file, GrowingFile):
            file.write(arrow)
        else:
            file.write(arrow, bucket_of(rows[self._keys[table]].to_numpy(), self._buckets))

    def _begin(self, table: str, schema: pa.Schema) -> tuple[Path, GrowingFile | ExchangeWriter]:
        if table in self._keys:
            path = self._output / "work" / table / f"{self._name}.arrow"
            draft = self._stack.enter_context(written(path, durable=False))
            return path, self._stack.enter_context(ExchangeWriter(draft, schema, self._buckets))
        path = self._output / "logs" / table / f"{self._name}.parquet"
        draft = self._stack.enter_context(written(path))
        return path, self._stack.enter_context(GrowingFile(draft))

    def __enter__(self) -> "_Tables":
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if error[0] is not None:
            return
        for table, (path, file) in self._open.items():
            if isinstance(file, GrowingFile):
                self.files.setdefault("table", []).append(noted(path, self._output, rows=file.rows))
            else:
                self.files[f"sent {table}"] = [file.note(path, self._output)]


# -- gather ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GatherBucket:
    """Brings the rows of a bucket of ids together."""

    gather: Gather
    source: Any
    sent: Mapping[str, Sequence[FileNote]]
    output: Path
    buckets: int

    def __call__(self, bucket: int) -> Done:
        parts = {part: self._rows(notes, bucket) for part, notes in self.sent.items() if notes}
        gathered = self.gather.make(parts, self.source)
        files: dict[str, list[FileNote]] = {}
        for table, rows in gathered.tables.items():
            if len(rows):
                path = self.output / "logs" / table / f"{self.gather.name}-{bucket:05d}.parquet"
                with written(path) as draft, GrowingFile(draft) as file:
                    for some in rows.iter_slices(100_000):
                        file.write(some.to_arrow(compat_level=pl.CompatLevel.oldest()))
                files.setdefault("table", []).append(noted(path, self.output, rows=len(rows)))
        if gathered.bad:
            columns = [list(column) for column in zip(*gathered.bad, strict=True)]
            bad = pa.table([columns[0], pa.nulls(len(columns[0]), pa.int64()), *columns[1:]], schema=QUARANTINE)
            path = self.output / "quarantine" / f"{self.gather.name}-{bucket:05d}.parquet"
            files["quarantine"] = [write_bad(bad, path, self.output)]
        quarantined: dict[str, Counter[str]] = {}
        for part, reason, _ in gathered.bad:
            quarantined.setdefault(part, Counter())[reason] += 1
        return Done(
            {
                "rows": {part: len(rows) for part, rows in parts.items()},
                "made": {table: len(rows) for table, rows in gathered.tables.items()},
                "joined": {part: dict(shared) for part, shared in gathered.joined.items()},
                "left_out": {part: dict(rules) for part, rules in gathered.left_out.items()},
                "quarantined": {part: dict(reasons) for part, reasons in quarantined.items()},
            },
            files,
        )

    def _rows(self, notes: Sequence[FileNote], bucket: int) -> pl.DataFrame:
        """All rows of a part, file by file; files of several kinds may have columns of their own."""
        tables = [read_bucket([note], self.output, bucket, self.buckets) for note in notes]
        return pl.concat((cast(pl.DataFrame, pl.from_arrow(table)) for table in tables), how="diagonal_relaxed")


def _gather(
    gather: Gather, source: Any, sent: Mapping[str, Sequence[FileNote]], output: Path, buckets: int, runner: Runner
) -> dict[str, Any]:
    """Runs a gather over all buckets; what it counted."""
    rows = {part: sum(note.rows for note in notes) for part, notes in sent.items()}
    share = sum(rows.values()) // buckets
    items = [Item(f"{bucket:05d}", bucket, share) for bucket in range(buckets)]
    done = runner.step(gather.name, items, GatherBucket(gather, source, sent, output, buckets)).values()
    total: dict[str, Any] = {"rows": {}, "made": {}, "joined": {}, "left_out": {}, "quarantined": {}}
    for each in done:
        for what in ("rows", "made"):
            total[what] = dict(Counter(total[what]) + Counter(each.counts[what]))
        for what in ("joined", "left_out", "quarantined"):
            for part, counts in each.counts[what].items():
                total[what][part] = dict(Counter(total[what].get(part, {})) + Counter(counts))
    for part, count in rows.items():
        if total["rows"].get(part, 0) != count:
            raise ConfigError(
                f"{gather.name}: {total['rows'].get(part, 0):,} rows of `{part}` were read where {count:,} were left. Start "
                "again; where that happens twice, it is a fault of this program: please report it."
            )
    return total
