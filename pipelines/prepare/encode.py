"""From raw columns to table rows and numbers: fitted on training days, applied by the same code everywhere.

Fitting goes file by file and merges: `fit_partial` counts one file, `Partial.merged` adds up in any order,
`finish` decides. What is kept is bounded by distinct values, not by rows.

What counts for a vocabulary or for bins: every candidate of a training feed once, every feed once for feed fields,
and a history entry once, in the first feed of its user that shows it (a later feed repeats most of its entries).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from models.config import ConfigError, from_dict, to_dict
from models.schema import Bins, Hash, Number, Schema, Stages, Vocabulary
from pipelines.feeds import EARLIER, LABEL_PREFIX, META, PREFERENCE_PREFIX, STAGE, TABLES, feeds_schema
from pipelines.logs.ids import as_ids
from pipelines.prepare.arrays import arrays_of, flat, floats, is_list, lengths, listed
from pipelines.prepare.deciding import deciding
from pipelines.prepare.derive import Clock, base_columns, derive_arrays, derived_columns, preference_columns
from pipelines.prepare.levels import level_cuts, level_of
from pipelines.prepare.lifecycle import counted_rates, medians_of, stage_columns, stages_of
from pipelines.prepare.sketch import Counts, equal_frequency_edges, number_keys, quantiles, smallest_of

SHARES = np.linspace(0, 1, 257)  # at which labels' quantiles are kept
_DENSE_SPAN = 1 << 22  # ids that span no more than this are looked up in an array of that size
_MANY = 1 << 16  # from so many values on it pays to look every distinct one up only once


# -- from values to rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VocabularyRows:
    """Row of a value: its position among the kept values plus one; 0 for every other."""

    values: np.ndarray  # kept, ascending, int64

    @property
    def size(self) -> int:
        return len(self.values) + 1

    def rows(self, ids: np.ndarray) -> np.ndarray:
        if not len(self.values):
            return np.zeros(len(ids), np.int32)
        if self._dense is not None:
            place = (ids - self.values[0]).view(np.uint64)  # what lies before the first value wraps to the far end
            return self._dense[np.minimum(place, np.uint64(len(self._dense) - 1))]
        if len(ids) >= _MANY:
            encoded = pa.array(ids).dictionary_encode()
            return self._searched(encoded.dictionary.to_numpy())[encoded.indices.to_numpy()]
        return self._searched(ids)

    def _searched(self, ids: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.values, ids)
        place[place == len(self.values)] = 0
        return np.where(self.values[place] == ids, place + 1, 0).astype(np.int32)

    @cached_property
    def _dense(self) -> np.ndarray | None:
        span = int(self.values[-1]) - int(self.values[0]) + 1
        if span > max(_DENSE_SPAN, 8 * len(self.values)):
            return None
        rows = np.zeros(span + 1, np.int32)  # one more: row 0 for all ids outside
        rows[self.values - self.values[0]] = np.arange(1, self.size)
        return rows


@dataclass(frozen=True)
class HashRows:
    """Row of a value: SplitMix64 (Steele, Lea, Flood 2014, finaliser of Stafford's variant 13) modulo buckets - 1, plus 1."""

    size: int

    def rows(self, ids: np.ndarray) -> np.ndarray:
        mixed = ids.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return (mixed % np.uint64(self.size - 1)).astype(np.int32) + np.int32(1)


@dataclass(frozen=True)
class BinRows:
    """Row of a number: 1 below the first edge, one more with every edge reached."""

    edges: np.ndarray  # ascending, float64

    @property
    def size(self) -> int:
        return len(self.edges) + 2

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        rows = np.searchsorted(self.edges, numbers, side="right").astype(np.int32) + np.int32(1)
        rows[np.isnan(numbers)] = 0
        return rows


TableRows = VocabularyRows | HashRows | BinRows


@dataclass(frozen=True)
class Scale:
    """How a number is standardised, after its transform."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class LevelState:
    """Level of an owner by exposure (`owners`, `levels`), or of an attribute (`cuts`)."""

    owners: VocabularyRows
    levels: np.ndarray  # int8, by row of `owners`; the first is that of unknown owners
    cuts: np.ndarray


# -- state -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncoderState:
    """All that training days taught the encoder. Row 0 of every table stands for unknown and missing.

    Attributes:
        encoding: fingerprint of the part of the schema this was fitted for, see `encoding_fingerprint`.
        clock: what local time is.
        entry_rate: entries per impression on training days.
        largest_feed: most candidates of a training feed.
        tables: rows by table.
        numbers: scale by field.
        label_quantiles: by value target, of the positive labels at 257 evenly spaced shares from 0 to 1, ascending, float64,
            to less than 1/4096 of themselves; all 0 where there was no positive label.
        stage_medians: by `lifecycle.RATES`, what users' stages are told by; None where the schema declares no stages.
    """

    encoding: str
    clock: Clock
    entry_rate: float
    largest_feed: int
    tables: Mapping[str, TableRows]
    numbers: Mapping[str, Scale]
    level: LevelState
    label_quantiles: Mapping[str, np.ndarray]
    stage_medians: Mapping[str, float] | None

    @property
    def table_sizes(self) -> dict[str, int]:
        """Rows of every table, row 0 included."""
        return {name: table.size for name, table in self.tables.items()}

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(_json(self._spelling()), digest_size=8)
        for name, array in sorted(self._arrays().items()):
            digest.update(name.encode() + array.tobytes())
        return digest.hexdigest()

    def check(self, schema: Schema) -> None:
        """
        Raises:
            ConfigError: this state was fitted for other fields, histories, levels, stages or values than the schema's.
        """
        if encoding_fingerprint(schema) != self.encoding:
            ours, theirs = set(self.tables), set(schema.tables)
            differ = f"; tables only here: {sorted(ours - theirs)}, only in the schema: {sorted(theirs - ours)}"
            raise ConfigError(
                f"this encoder was fitted for another schema (encoding {self.encoding}, the schema's is "
                f"{encoding_fingerprint(schema)}{differ if ours != theirs else ''}). Use the schema it was prepared "
                "with, or prepare again."
            )
        values = [target.name for target in schema.targets if not target.is_binary]
        missing = [f"target `{name}`" for name in values if name not in self.label_quantiles]
        if schema.stages is not None and self.stage_medians is None:
            missing.append("stages of users")
        if missing:
            raise ConfigError(f"this encoder was fitted without {', '.join(missing)}; prepare again with the schema.")

    def save(self, folder: Path) -> None:
        """Writes `encoder.json` and `encoder.safetensors`; the same state gives the same bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.safetensors").write_bytes(safetensors.numpy.save(self._arrays()))
        (folder / "encoder.json").write_bytes(_json(self._spelling()))

    @classmethod
    def load(cls, folder: Path) -> "EncoderState":
        """
        Raises:
            FileNotFoundError: there is no encoder in the folder.
            ConfigError: it was written by another version.
        """
        folder = Path(folder)
        try:
            spelling = json.loads((folder / "encoder.json").read_bytes())
            arrays = safetensors.numpy.load((folder / "encoder.safetensors").read_bytes())
        except FileNotFoundError as error:
            raise FileNotFoundError(f"`{folder}` holds no encoder: {Path(error.filename).name} is missing.") from None
        if spelling.get("version") != TABLES:
            raise ConfigError(
                f"the encoder in `{folder}` is of version {spelling.get('version', 1)}, this program reads {TABLES}: prepare "
                "the logs again, and train again."
            )
        tables: dict[str, TableRows] = {}
        for name, how in spelling["tables"].items():
            match how["kind"]:
                case "vocabulary":
                    tables[name] = VocabularyRows(arrays[f"table.{name}"])
                case "bins":
                    tables[name] = BinRows(arrays[f"table.{name}"])
                case "hash":
                    tables[name] = HashRows(how["size"])
        return cls(
            encoding=spelling["encoding"],
            clock=from_dict(Clock, spelling["clock"], where="clock"),
            entry_rate=spelling["entry_rate"],
            largest_feed=spelling["largest_feed"],
            tables=tables,
            numbers={name: Scale(**scale) for name, scale in spelling["numbers"].items()},
            level=LevelState(VocabularyRows(arrays["level.owners"]), arrays["level.levels"], arrays["level.cuts"]),
            label_quantiles={name: arrays[f"quantiles.{name}"] for name in spelling["values"]},
            stage_medians=spelling["stage_medians"],
        )

    def _spelling(self) -> dict:
        kinds = {VocabularyRows: "vocabulary", HashRows: "hash", BinRows: "bins"}
        return {
            "version": TABLES,
            "encoding": self.encoding,
            "clock": to_dict(self.clock),
            "entry_rate": self.entry_rate,
            "largest_feed": self.largest_feed,
            "tables": {name: {"kind": kinds[type(table)], "size": table.size} for name, table in self.tables.items()},
            "numbers": {name: {"mean": item.mean, "deviation": item.deviation} for name, item in self.numbers.items()},
            "values": list(self.label_quantiles),
            "stage_medians": None if self.stage_medians is None else dict(self.stage_medians),
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"level.owners": self.level.owners.values, "level.levels": self.level.levels, "level.cuts": self.level.cuts}
        for name, table in self.tables.items():
            if isinstance(table, VocabularyRows):
                arrays[f"table.{name}"] = table.values
            elif isinstance(table, BinRows):
                arrays[f"table.{name}"] = table.edges
        arrays.update({f"quantiles.{name}": quantiles for name, quantiles in self.label_quantiles.items()})
        return arrays


@lru_cache(maxsize=64)
def encoding_fingerprint(schema: Schema) -> str:
    """Of what decides how features become rows; targets and stages are told apart, since fewer of them will do."""
    spelling = {part: value for part, value in deciding(schema).items() if part not in ("targets", "stages")}
    return hashlib.blake2b(_json(spelling), digest_size=8).hexdigest()


def _json(spelling: dict) -> bytes:
    return (json.dumps(spelling, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


# -- fitting ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        if not len(values):
            return cls()
        mean = float(values.mean())
        return cls(len(values), mean, float(((values - mean) ** 2).sum()))

    def plus(self, other: "Moments") -> "Moments":
        """Both together (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return self
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + gap * other.count / count,
            self.squares + other.squares + gap * gap * self.count * other.count / count,
        )


@dataclass(frozen=True)
class Partial:
    """What some training feeds contribute to the encoder; partials of all files are merged.

    Attributes:
        values: by table with a vocabulary, ids; by table with bins, `number_keys`.
        numbers: by field.
        levels: impressions by owner id, or by `number_keys` of the attribute that decides the level.
        labels: positive labels by value target, as `number_keys`.
        rates: of users by `lifecycle.RATES`, as `number_keys`; none where the schema declares no stages.
    """

    values: Mapping[str, Counts]
    numbers: Mapping[str, Moments]
    levels: Counts
    labels: Mapping[str, Counts]
    rates: Mapping[str, Counts]
    largest_feed: int

    @classmethod
    def merged(cls, parts: Sequence["Partial"]) -> "Partial":
        """The sum. Give parts in a fixed order: the last bits of numbers' means depend on it."""
        if not parts:
            raise ValueError("there is nothing to fit an encoder on: no training feeds.")
        first = parts[0]
        numbers = dict(first.numbers)
        for part in parts[1:]:
            numbers = {name: moments.plus(part.numbers[name]) for name, moments in numbers.items()}
        added = lambda what: {
            name: Counts.merged([getattr(part, what)[name] for part in parts]) for name in getattr(first, what)
        }
        return cls(
            values=added("values"),
            numbers=numbers,
            levels=Counts.merged([part.levels for part in parts]),
            labels=added("labels"),
            rates=added("rates"),
            largest_feed=max(part.largest_feed for part in parts),
        )


def fit_encoder(files: Iterable[Path], schema: Schema, *, entry_rate: float, clock: Clock) -> EncoderState:
    """Fits on feature files of training days, one in memory at a time. `entry_rate`: entries per impression there."""
    needed = [*META.names, *sorted(base_columns(schema)), *(LABEL_PREFIX + name for name in schema.target_names)]
    partial: Partial | None = None
    for file in sorted(files):
        there = set(pq.read_schema(file).names)  # a label may be missing, and then counts as never positive
        columns = [name for name in needed if name in there or not name.startswith(LABEL_PREFIX)]
        part = fit_partial(pq.read_table(file, columns=columns), schema, entry_rate=entry_rate, clock=clock)
        partial = part if partial is None else Partial.merged([partial, part])
    return finish(Partial.merged([partial] if partial else []), schema, entry_rate=entry_rate, clock=clock)


def fit_partial(features: pa.Table, schema: Schema, *, entry_rate: float, clock: Clock) -> Partial:
    """Counts one table of raw training feeds; all feeds of a user should be in one table (see the head of this file)."""
    arrays = derive_arrays(arrays_of(features), derived_columns(schema), entry_rate=entry_rate, clock=clock)
    found: dict[str, list[Counts]] = {name: [] for name, (how, _) in schema.tables.items() if not isinstance(how, Hash)}
    numbers: dict[str, Moments] = {}
    for field in schema.fields:
        values = flat(_column(arrays, field.column))
        if isinstance(field.encoding, Number):
            known = _transformed(values, field.column, field.encoding)
            numbers[field.name] = Moments.of(known[~np.isnan(known)])
        elif not isinstance(field.encoding, Hash):
            found[field.table].append(_counted(values, field.column, field.encoding))
    for history in schema.histories:
        if any(item.table in found for item in history.fields):
            new = pa.array(_first_shown(arrays, history.name))
            for item in history.fields:
                if not isinstance(item.encoding, Hash | Number):
                    column = f"{history.name}.{item.column}"
                    found[item.table].append(_counted(flat(_column(arrays, column)).filter(new), column, item.encoding))
    measure = schema.levels.column or f"{schema.levels.of}_id"
    how = Bins() if schema.levels.column else Vocabulary()
    return Partial(
        values={name: Counts.merged(counts) for name, counts in found.items()},
        numbers=numbers,
        levels=_counted(flat(_column(arrays, measure)), measure, how),
        labels={
            target.name: _positive(arrays, LABEL_PREFIX + target.name) for target in schema.targets if not target.is_binary
        },
        rates={} if schema.stages is None else _rates(arrays, schema.stages),
        largest_feed=int(lengths(arrays["room_id"]).max(initial=0)),
    )


def finish(partial: Partial, schema: Schema, *, entry_rate: float, clock: Clock) -> EncoderState:
    """Vocabularies, edges, scales and levels from the counts of all training feeds."""
    tables: dict[str, TableRows] = {}
    for name, (how, _) in schema.tables.items():
        match how:
            case Hash(buckets=buckets):
                tables[name] = HashRows(buckets)
            case Vocabulary():
                tables[name] = VocabularyRows(_kept(partial.values[name], how))
            case Bins(count=bins):
                counts = partial.values[name]
                tables[name] = BinRows(equal_frequency_edges(smallest_of(counts.values), counts.counts, bins))
    numbers = {}
    for name, moments in partial.numbers.items():
        deviation = (moments.squares / moments.count) ** 0.5 if moments.count else 0.0
        numbers[name] = Scale(moments.mean, deviation if deviation > 1e-12 * max(1.0, abs(moments.mean)) else 1.0)
    return EncoderState(
        encoding=encoding_fingerprint(schema),
        clock=clock,
        entry_rate=float(entry_rate),
        largest_feed=partial.largest_feed,
        tables=tables,
        numbers=numbers,
        level=_levels(partial.levels, schema),
        label_quantiles={name: _quantiles(counts) for name, counts in partial.labels.items()},
        stage_medians=medians_of(partial.rates) if partial.rates else None,
    )


def _quantiles(counts: Counts) -> np.ndarray:
    return quantiles(counts, SHARES) if counts.total else np.zeros(len(SHARES))


def _kept(counts: Counts, how: Vocabulary) -> np.ndarray:
    enough = counts.counts >= how.min_count
    values, seen = counts.values[enough], counts.counts[enough]
    if how.max_size is not None and len(values) > how.max_size:
        values = np.sort(values[np.lexsort((values, -seen))[: how.max_size]])
    return values


def _levels(counts: Counts, schema: Schema) -> LevelState:
    nobody = np.zeros(0, np.int64)
    if schema.levels.column:
        cuts = level_cuts(smallest_of(counts.values), counts.counts, schema.levels)
        return LevelState(VocabularyRows(nobody), np.zeros(1, np.int8), cuts)
    exposure, owners = np.unique(counts.counts, return_counts=True)
    cuts = level_cuts(exposure.astype(np.float64), exposure * owners, schema.levels)
    levels = np.concatenate([np.zeros(1, np.int8), level_of(counts.counts.astype(np.float64), cuts)])
    return LevelState(VocabularyRows(counts.values), levels, cuts)


def _first_shown(arrays: Mapping[str, pa.Array], history: str) -> np.ndarray:
    """Which of all history entries were not in the user's previous feed of this table, bool.

    A history only grows at its end, so the new entries are those behind the one that was last before; all of them
    where that one is no longer there.
    """
    entries = _column(arrays, f"{history}.at")
    count, at = lengths(entries), flat(entries).to_numpy()
    user, feed_at = (_column(arrays, name).to_numpy() for name in ("user_id", "at"))
    nothing = np.iinfo(np.int64).min
    ends = np.cumsum(count)
    last = np.full(len(count), nothing)
    last[count > 0] = at[ends[count > 0] - 1]
    order = np.lexsort((feed_at, user))
    same_user = user[order][1:] == user[order][:-1]
    last_before = np.full(len(count), nothing)
    last_before[order[1:][same_user]] = last[order[:-1][same_user]]
    place = np.arange(len(at))
    known_until = np.full(len(count), -1)
    if len(at):
        seen = np.where(at == np.repeat(last_before, count), place, -1)
        known_until[count > 0] = np.maximum.reduceat(seen, (ends - count)[count > 0])
    return place > np.repeat(known_until, count)


def _positive(arrays: Mapping[str, pa.Array], column: str) -> Counts:
    if column not in arrays:
        return Counts.of(np.zeros(0, np.int64))
    labels = _floats(flat(arrays[column]), column)
    return Counts.of(number_keys(labels[labels > 0]))


def _rates(arrays: Mapping[str, pa.Array], stages: Stages) -> dict[str, Counts]:
    user, at = (_column(arrays, name).to_numpy() for name in ("user_id", "at"))
    return counted_rates(user, at, _means(arrays, stage_columns(stages)))


def _means(arrays: Mapping[str, pa.Array], columns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Running preferences of the targets that stages are told by."""
    return {rate: _floats(_single(arrays, column), column) for rate, column in columns.items()}


def _counted(values: pa.Array, column: str, how: Vocabulary | Bins) -> Counts:
    if isinstance(how, Bins):
        numbers = _floats(values, column)
        return Counts.of(number_keys(numbers[~np.isnan(numbers)]))
    return Counts.of(_ids(values, column).drop_null().to_numpy())


# -- encoding --------------------------------------------------------------------------------------------------


def encode(features: pa.Table, schema: Schema, state: EncoderState) -> pa.Table:
    """Raw feeds as table rows and numbers: `feeds_schema(schema)` without what the features do not hold for training.

    That are labels one by one, and running preferences all or none.

    A value that is missing, or was not kept in training, is row 0; a missing number is 0, the mean. A missing user id
    is written as -1 (it names nobody; the user's table row is 0).

    Raises:
        ConfigError: the state is of another schema, a column is missing, has a type the encoding does not take, or
            lists that do not fit the feed's candidates or history.
        ValueError: a negative number under log1p, or an infinite one.
    """
    plan = _plan(schema)
    if plan.encoding != state.encoding or (plan.stages and state.stage_medians is None):
        state.check(schema)
    arrays = derive_arrays(arrays_of(features), plan.derived, entry_rate=state.entry_rate, clock=state.clock)
    out: dict[str, pa.Array] = {}
    for item in META:
        array = _column(arrays, item.name)
        out[item.name] = array if array.type == item.type else array.cast(item.type)
    if out["user_id"].null_count:
        out["user_id"] = out["user_id"].fill_null(-1)
    room_id = out["room_id"]
    candidates = _Lists.of(room_id)

    if plan.stages and state.stage_medians is not None:
        out[STAGE] = pa.array(stages_of(_means(arrays, plan.stages), state.stage_medians))
    measure = schema.levels.column or f"{schema.levels.of}_id"
    level = _level(candidates.flat(arrays, measure), measure, state.level, by_owner=schema.levels.column is None)
    out["level"] = candidates.cut(level)
    for field in schema.fields:
        values = candidates.flat(arrays, field.column) if field.of == "candidate" else _single(arrays, field.column)
        if isinstance(field.encoding, Number):
            encoded = _standardised(values, field.column, field.encoding, state.numbers[field.name])
        else:
            encoded = _rows(values, field.column, state.tables[field.table])
        out[field.name] = candidates.cut(encoded) if field.of == "candidate" else pa.array(encoded)
    for history in schema.histories:
        entries = _Lists.of(_column(arrays, f"{history.name}.at"))
        for item in history.fields:
            column = f"{history.name}.{item.column}"
            rows = _rows(entries.flat(arrays, column), column, state.tables[item.table])
            out[f"{history.name}.{item.name}"] = entries.cut(rows)
    for name in schema.target_names:
        column = LABEL_PREFIX + name
        if column in arrays:
            out[column] = candidates.cut(_floats(candidates.flat(arrays, column), column).astype(np.float32))
    if plan.raw_preferences <= arrays.keys():
        out.update(_preferences(arrays, schema, state))
    return pa.table(out, schema=pa.schema([item for item in plan.columns if item.name in out]))


@dataclass(frozen=True)
class _Plan:
    """What encoding needs to know of a schema, worked out once: finding a schema in a cache means hashing all of it."""

    encoding: str
    derived: tuple[str, ...]
    columns: pa.Schema
    stages: Mapping[str, str]  # columns of `lifecycle.RATES`; none without stages
    raw_preferences: frozenset[str]


@lru_cache(maxsize=64)
def _plan(schema: Schema) -> _Plan:
    return _Plan(
        encoding=encoding_fingerprint(schema),
        derived=derived_columns(schema),
        columns=feeds_schema(schema),
        stages={} if schema.stages is None else stage_columns(schema.stages),
        raw_preferences=frozenset(name for windows in preference_columns(schema).values() for name in windows),
    )


def _preferences(arrays: Mapping[str, pa.Array], schema: Schema, state: EncoderState) -> dict[str, pa.Array]:
    """Running preferences with the windows of a feed side by side, and the impressions they are means over."""
    state.check(schema)
    names = preference_columns(schema)
    windows = len(schema.preference_days)
    rows = len(arrays["room_id"])
    side_by_side = lambda of: np.stack([_floats(_single(arrays, column), column) for column in names[of]], axis=1).ravel()
    per_feed = np.full(rows, windows)
    out = {EARLIER: listed(np.nan_to_num(side_by_side(EARLIER)).astype(np.int64), per_feed)}
    for target in schema.targets:
        mean = side_by_side(target.name)
        if not target.is_binary:
            mean = place_among(mean, state.label_quantiles[target.name])
        out[PREFERENCE_PREFIX + target.name] = listed(mean.astype(np.float32), per_feed)
    return out


def place_among(values: np.ndarray, label_quantiles: np.ndarray) -> np.ndarray:
    """The share of positive labels that lie below each value, in [0, 1], by linear interpolation of their quantiles.

    0 for 0, whatever the labels; NaN stays. Of a value that many labels have, their last share.
    """
    place = np.interp(values, label_quantiles, SHARES)
    return np.where(values <= 0, 0.0, place)


@dataclass(frozen=True)
class _Lists:
    """How flat values are cut into the lists of a table's rows."""

    lengths: np.ndarray
    starts: np.ndarray  # one more than lists, int32; the last is the number of values
    offsets: pa.Array

    @classmethod
    def of(cls, lists: pa.Array) -> "_Lists":
        count = lengths(lists)
        starts = np.zeros(len(count) + 1, np.int32)
        np.cumsum(count, out=starts[1:])
        return cls(count, starts, pa.array(starts))

    def flat(self, arrays: Mapping[str, pa.Array], name: str) -> pa.Array:
        column = _column(arrays, name)
        if pa.types.is_null(column.type):
            return pa.nulls(int(self.starts[-1]))
        if not is_list(column.type):
            raise ConfigError(f"column `{name}` holds one {column.type} a feed where a list is needed.")
        if len(column) and not column.null_count:
            offsets = column.offsets.to_numpy()
            if np.array_equal(offsets - offsets[0], self.starts):
                return column.values.slice(offsets[0], self.starts[-1])  # as `flatten`, at a tenth of its cost per call
        found = lengths(column)
        if not np.array_equal(found, self.lengths):
            row = int(np.flatnonzero(found != self.lengths)[0])
            raise ConfigError(f"column `{name}` holds {found[row]} values in row {row} where {self.lengths[row]} are needed.")
        return column.flatten()

    def cut(self, values: np.ndarray) -> pa.Array:
        return pa.ListArray.from_arrays(self.offsets, pa.array(values))


def _single(arrays: Mapping[str, pa.Array], name: str) -> pa.Array:
    column = _column(arrays, name)
    if is_list(column.type):
        raise ConfigError(f"column `{name}` holds {column.type} where one value a feed is needed.")
    return column


def _rows(values: pa.Array, column: str, table: TableRows) -> np.ndarray:
    if isinstance(table, BinRows):
        return table.rows(_floats(values, column))
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):  # every distinct value is looked up once
        rows = np.append(_rows(_ids(values.dictionary, column), column, table), np.int32(0))  # the last: for missing ones
        return rows[values.indices.fill_null(len(rows) - 1).to_numpy()]
    ids = _ids(values, column)
    if not ids.null_count:
        return table.rows(ids.to_numpy())
    rows = table.rows(ids.fill_null(0).to_numpy())
    rows[ids.is_null().to_numpy(zero_copy_only=False)] = 0
    return rows


def _level(values: pa.Array, column: str, state: LevelState, *, by_owner: bool) -> np.ndarray:
    if by_owner:
        return state.levels[_rows(values, column, state.owners)]
    return level_of(_floats(values, column), state.cuts)


def _standardised(values: pa.Array, column: str, how: Number, scale: Scale) -> np.ndarray:
    numbers = (_transformed(values, column, how) - scale.mean) / scale.deviation
    numbers[np.isnan(numbers)] = 0.0
    return numbers.astype(np.float32)


def _transformed(values: pa.Array, column: str, how: Number) -> np.ndarray:
    """float64 after the transform, NaN where missing."""
    numbers = _floats(values, column)
    if np.isinf(numbers).any():
        raise ValueError(f"column `{column}` holds an infinite number; leave unknown values missing.")
    if how.transform == "log1p":
        if (numbers < 0).any():
            raise ValueError(
                f"column `{column}` holds {np.nanmin(numbers):g}, but `transform: log1p` is for numbers from 0 up. "
                "Use `transform: none` or encoding `bins`."
            )
        numbers = np.log1p(numbers)
    return numbers


def _floats(values: pa.Array, column: str) -> np.ndarray:
    try:
        return floats(values)
    except ValueError as error:
        raise ConfigError(f"column `{column}` {error} Encode it as a vocabulary or a hash.") from None


def _ids(values: pa.Array, column: str) -> pa.Array:
    if pa.types.is_int64(values.type):
        return values
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_dictionary(values.type) and pa.types.is_boolean(values.type.value_type):
        values = values.dictionary_decode().cast(pa.int8())
    try:
        return as_ids(values)
    except ValueError as error:
        raise ConfigError(f"column `{column}`: {error}") from None


def _column(arrays: Mapping[str, pa.Array], name: str) -> pa.Array:
    if name not in arrays:
        raise ConfigError(f"the feature table has no column `{name}`, which the schema reads. It has: {', '.join(arrays)}.")
    return arrays[name]
