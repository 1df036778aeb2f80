"""Fitting the encoder on training days: counted file by file, merged in any order, decided at the end.

`fit_partial` counts one file, `Partial.merged` adds up, `finish` decides. What is kept is bounded by distinct values, not by
rows.

What counts for a vocabulary or for bins: every candidate of a training feed once, every feed once for feed fields,
and a history entry once, in the first feed of its user that shows it (a later feed repeats most of its entries).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.schema import Bins, Hash, Number, Schema, Stages, Vocabulary
from pipelines.encode.arrays import arrays_of, flat, lengths
from pipelines.encode.clock import NEVER, Clock
from pipelines.encode.columns import base_columns, derived_columns, level_column
from pipelines.encode.derive import derive_arrays
from pipelines.encode.feeds import LABEL_PREFIX, META
from pipelines.encode.levels import level_cuts, level_of
from pipelines.encode.rows import BinRows, HashRows, TableRows, VocabularyRows
from pipelines.encode.sketch import ValueCounts, equal_frequency_edges, number_keys, quantiles, smallest_of
from pipelines.encode.stages import counted_rates, medians_of, stage_columns
from pipelines.encode.state import EncoderState, LevelState, Scale, encoding_fingerprint
from pipelines.encode.values import SHARES, column_of, floats_of, ids_of, stage_means, transformed
from pipelines.logs.ids import IdKind


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of numbers."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> "RunningMoments":
        if not len(values):
            return cls()
        mean = float(values.mean())
        return cls(len(values), mean, float(((values - mean) ** 2).sum()))

    def plus(self, other: "RunningMoments") -> "RunningMoments":
        """Both together (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return self
        gap = other.mean - self.mean
        return RunningMoments(
            count,
            self.mean + gap * other.count / count,
            self.squares + other.squares + gap * gap * self.count * other.count / count,
        )


_WILD = 16  # binary orders of magnitude above 99 of 100 numbers
_EXPONENT = np.int64(0x7FF)


@dataclass(frozen=True)
class Magnitudes:
    """Moments of numbers by the power of two that their size begins with, so that wild ones can be left out afterwards.

    Attributes:
        bands: by biased binary exponent of float64; 0 is that of zero.
    """

    bands: Mapping[int, RunningMoments]

    @classmethod
    def of(cls, values: np.ndarray) -> "Magnitudes":
        band = values.view(np.int64) >> np.int64(52) & _EXPONENT
        counts = np.bincount(band, minlength=1)
        means = np.bincount(band, values, minlength=1) / np.maximum(counts, 1)
        squares = np.bincount(band, (values - means[band]) ** 2, minlength=1)
        there = np.flatnonzero(counts).tolist()
        return cls({each: RunningMoments(int(counts[each]), float(means[each]), float(squares[each])) for each in there})

    def plus(self, other: "Magnitudes") -> "Magnitudes":
        none = RunningMoments()
        both = sorted(self.bands.keys() | other.bands.keys())
        return Magnitudes({band: self.bands.get(band, none).plus(other.bands.get(band, none)) for band in both})

    @property
    def limit(self) -> float | None:
        """From where on numbers are wild: over 2**16 times as large as the largest that are not of the top 1 %, zeros aside."""
        sizes = [(band, moments.count) for band, moments in sorted(self.bands.items()) if band]
        left = sum(count for _, count in sizes)
        usual = left - max(1, left // 100)
        for band, count in sizes:
            usual -= count
            if usual <= 0:
                exponent = band - 1023 + 1 + _WILD
                return 2.0**exponent if exponent <= 1023 else None
        return None

    def below(self, limit: float) -> RunningMoments:
        """Moments of the numbers nearer to zero than a power of two."""
        found = RunningMoments()
        for band, moments in sorted(self.bands.items()):
            if 2.0 ** (band - 1023) < limit:
                found = found.plus(moments)
        return found


@dataclass(frozen=True)
class FieldNumbers:
    """A numeric field's known values on some training days, after its transform; magnitudes only where there is none."""

    moments: RunningMoments
    magnitudes: Magnitudes | None

    @classmethod
    def of(cls, values: np.ndarray, how: Number) -> "FieldNumbers":
        return cls(RunningMoments.of(values), Magnitudes.of(values) if how.transform == "none" else None)

    def plus(self, other: "FieldNumbers") -> "FieldNumbers":
        both = self.magnitudes.plus(other.magnitudes) if self.magnitudes and other.magnitudes else None
        return FieldNumbers(self.moments.plus(other.moments), both)

    @property
    def wild(self) -> int:
        """How many values are so far from zero that they are taken for missing."""
        limit = self.magnitudes.limit if self.magnitudes else None
        if self.magnitudes is None or limit is None:
            return 0
        return self.moments.count - self.magnitudes.below(limit).count

    def scale(self) -> Scale:
        limit = self.magnitudes.limit if self.magnitudes else None
        moments = self.magnitudes.below(limit) if self.magnitudes and limit is not None and self.wild else self.moments
        deviation = (moments.squares / moments.count) ** 0.5 if moments.count else 0.0
        usable = deviation > 1e-12 * max(1.0, abs(moments.mean))
        return Scale(moments.mean, deviation if usable else 1.0, limit)


@dataclass(frozen=True)
class Partial:
    """What some training feeds contribute to the encoder; partials of all files are merged.

    Attributes:
        values: by table with a vocabulary, ids; by table with bins, `number_keys`.
        numbers: by field.
        levels: impressions by owner id, or by `number_keys` of the attribute that decides the level.
        labels: positive labels by value target, as `number_keys`.
        rates: of users by `stages.RATES`, as `number_keys`; none where the schema declares no stages.
    """

    values: Mapping[str, ValueCounts]
    numbers: Mapping[str, FieldNumbers]
    levels: ValueCounts
    labels: Mapping[str, ValueCounts]
    rates: Mapping[str, ValueCounts]
    largest_feed: int

    @classmethod
    def merged(cls, parts: Sequence["Partial"]) -> "Partial":
        """The sum. Give parts in a fixed order: the last bits of numbers' means depend on it."""
        if not parts:
            raise ValueError("there is nothing to fit an encoder on: no training feeds.")
        first = parts[0]
        numbers = dict(first.numbers)
        for part in parts[1:]:
            numbers = {name: before.plus(part.numbers[name]) for name, before in numbers.items()}
        added = lambda what: {
            name: ValueCounts.merged([getattr(part, what)[name] for part in parts]) for name in getattr(first, what)
        }
        return cls(
            values=added("values"),
            numbers=numbers,
            levels=ValueCounts.merged([part.levels for part in parts]),
            labels=added("labels"),
            rates=added("rates"),
            largest_feed=max(part.largest_feed for part in parts),
        )


def fit_encoder(files: Iterable[Path], schema: Schema, *, entry_rate: float, clock: Clock) -> EncoderState:
    """Fits on feature files of training days, one in memory at a time. `entry_rate`: entries per impression there."""
    needed = [*META.names, *sorted(base_columns(schema))]
    labels = [LABEL_PREFIX + name for name in schema.target_names]
    partial: Partial | None = None
    for file in sorted(files):
        there = set(pq.read_schema(file).names)  # a label may be missing, and then counts as never positive
        columns = [*needed, *(name for name in labels if name in there)]
        part = fit_partial(pq.read_table(file, columns=columns, partitioning=None), schema, entry_rate=entry_rate, clock=clock)
        partial = part if partial is None else Partial.merged([partial, part])
    return finish(Partial.merged([partial] if partial else []), schema, entry_rate=entry_rate, clock=clock)


def fit_partial(features: pa.Table, schema: Schema, *, entry_rate: float, clock: Clock) -> Partial:
    """Counts one table of raw training feeds; all feeds of a user should be in one table (see the head of this file)."""
    arrays = derive_arrays(arrays_of(features), derived_columns(schema), entry_rate=entry_rate, clock=clock)
    found: dict[str, list[ValueCounts]] = {name: [] for name, (how, _) in schema.tables.items() if not isinstance(how, Hash)}
    numbers: dict[str, FieldNumbers] = {}
    for field in schema.fields:
        values = flat(column_of(arrays, field.column))
        if isinstance(field.encoding, Number):
            known = transformed(values, field.column, field.encoding)
            numbers[field.name] = FieldNumbers.of(known[~np.isnan(known)], field.encoding)
        elif not isinstance(field.encoding, Hash):
            found[field.table].append(_counted(values, field.column, field.encoding))
    for history in schema.histories:
        if any(item.table in found for item in history.fields):
            new = pa.array(_first_shown(arrays, history.name))
            for item in history.fields:
                if not isinstance(item.encoding, Hash | Number):
                    column = f"{history.name}.{item.column}"
                    found[item.table].append(_counted(flat(column_of(arrays, column)).filter(new), column, item.encoding))
    measure = level_column(schema)
    how = Bins() if schema.levels.column else Vocabulary()
    return Partial(
        values={name: ValueCounts.merged(counts) for name, counts in found.items()},
        numbers=numbers,
        levels=_counted(flat(column_of(arrays, measure)), measure, how),
        labels={
            target.name: _positive(arrays, LABEL_PREFIX + target.name) for target in schema.targets if not target.is_binary
        },
        rates={} if schema.stages is None else _rates(arrays, schema.stages),
        largest_feed=int(lengths(arrays["room_id"]).max(initial=0)),
    )


def finish(
    partial: Partial, schema: Schema, *, entry_rate: float, clock: Clock, ids: Mapping[str, IdKind] | None = None
) -> EncoderState:
    """Vocabularies, edges, scales and levels from the counts of all training feeds. `ids`: what the log's ids were."""
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
    return EncoderState(
        encoding=encoding_fingerprint(schema),
        clock=clock,
        entry_rate=float(entry_rate),
        largest_feed=partial.largest_feed,
        tables=tables,
        numbers={name: numbers.scale() for name, numbers in partial.numbers.items()},
        level=_levels(partial.levels, schema),
        label_quantiles={name: _quantiles(counts) for name, counts in partial.labels.items()},
        stage_medians=medians_of(partial.rates) if partial.rates else None,
        ids=ids or {},
    )


def _quantiles(counts: ValueCounts) -> np.ndarray:
    return quantiles(counts, SHARES) if counts.total else np.zeros(len(SHARES))


def _kept(counts: ValueCounts, how: Vocabulary) -> np.ndarray:
    enough = counts.counts >= how.min_count
    values, seen = counts.values[enough], counts.counts[enough]
    if how.max_size is not None and len(values) > how.max_size:
        values = np.sort(values[np.lexsort((values, -seen))[: how.max_size]])
    return values


def _levels(counts: ValueCounts, schema: Schema) -> LevelState:
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
    entries = column_of(arrays, f"{history}.at")
    count, at = lengths(entries), flat(entries).to_numpy()
    user, feed_at = (column_of(arrays, name).to_numpy() for name in ("user_id", "at"))
    ends = np.cumsum(count)
    last = np.full(len(count), NEVER)
    last[count > 0] = at[ends[count > 0] - 1]
    order = np.lexsort((feed_at, user))
    same_user = user[order][1:] == user[order][:-1]
    last_before = np.full(len(count), NEVER)
    last_before[order[1:][same_user]] = last[order[:-1][same_user]]
    place = np.arange(len(at))
    known_until = np.full(len(count), -1)
    if len(at):
        seen = np.where(at == np.repeat(last_before, count), place, -1)
        known_until[count > 0] = np.maximum.reduceat(seen, (ends - count)[count > 0])
    return place > np.repeat(known_until, count)


def _positive(arrays: Mapping[str, pa.Array], column: str) -> ValueCounts:
    if column not in arrays:
        return ValueCounts.of(np.zeros(0, np.int64))
    labels = floats_of(flat(arrays[column]), column)
    return ValueCounts.of(number_keys(labels[labels > 0]))


def _rates(arrays: Mapping[str, pa.Array], stages: Stages) -> dict[str, ValueCounts]:
    user, at = (column_of(arrays, name).to_numpy() for name in ("user_id", "at"))
    return counted_rates(user, at, stage_means(arrays, stage_columns(stages)))


def _counted(values: pa.Array, column: str, how: Vocabulary | Bins) -> ValueCounts:
    if isinstance(how, Bins):
        numbers = floats_of(values, column)
        return ValueCounts.of(number_keys(numbers[~np.isnan(numbers)]))
    return ValueCounts.of(ids_of(values, column).drop_null().to_numpy())
