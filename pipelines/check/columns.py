"""One column, batch by batch: everything is counted from the distinct values of a batch and their rows."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.check.config import NO_DAY, Calendar, date_of
from pipelines.check.facts import QUANTILES, ColumnFacts, Common
from pipelines.check.sketches import Commonest, Distinct, Quantiles
from pipelines.encode.arrays import integers
from pipelines.encode.clock import DAY_MS, HOUR_MS
from pipelines.encode.sketch import ValueCounts
from pipelines.logs.canonical import VALID_FROM
from pipelines.logs.ids import as_ids
from pipelines.logs.values import says_always

_FLOAT_MAX, _DOUBLE_MAX = float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)
SENTINELS: dict[str, tuple[float, ...]] = {
    "-1": (-1,),
    "0": (0,),
    "-99.. / -999..": (-99, -999, -9999, -99999, -999999),
    "9999..": (9999, 99999, 999999, 9999999, 99999999, 999999999),
    "largest of int32": (2147483647, -2147483648),
    "largest of int64": (float(2**63 - 1), -(2.0**63)),
    "largest of float": (_FLOAT_MAX, -_FLOAT_MAX),
    "largest of double": (_DOUBLE_MAX, -_DOUBLE_MAX),
}
_ALL_SENTINELS = np.array([value for values in SENTINELS.values() for value in values])
_EXACT = 2.0**53  # whole numbers below it are exact as floats
_NAMED = 20  # of so many common values the spelling is kept


@dataclass
class ColumnTally:
    """ValueCounts one column of a table over all its files.

    Attributes:
        holds: `id`, `time` or anything else that a canonical column holds; None where nothing reads it.
        by_day: rows with a value by day, of event tables.
    """

    table: str
    name: str
    holds: str | None
    is_read: bool
    calendar: Calendar
    now: int
    types: dict[str, int] = field(default_factory=dict)
    by_day: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = self._nan = self._infinite = self._negative = 0
        self._midnights = self._whole_hours = self._future = self._implausible = 0
        self._sentinels = dict.fromkeys(SENTINELS, 0)
        self._low: float | None = None
        self._high: float | None = None
        self._high_without_sentinels: float | None = None
        self._distinct, self._commonest, self._quantiles = Distinct(), Commonest(), Quantiles()
        self._spelling: dict[int, str] = {}
        self._lately: tuple[np.ndarray, np.ndarray, pa.Array] | None = None
        self._examined = True

    def add(self, values: pa.Array, day: np.ndarray | None) -> ValueCounts | None:
        """Takes in a batch; returns its distinct values as int64 keys with their rows, None for types not examined.

        Args:
            day: of every row, days since 1970 or `NO_DAY`; None for tables without time.
        """
        valid = None
        if day is not None and (values.null_count or pa.types.is_floating(values.type)):
            valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
            if pa.types.is_floating(values.type):
                valid &= ~pc.fill_null(pc.is_nan(_plain(values)), True).to_numpy(zero_copy_only=False)
        if day is not None:
            for key, rows in counted(day if valid is None else day[valid]):
                self.by_day[key] = self.by_day.get(key, 0) + rows
        self._known += len(values) - values.null_count
        plain = _plain(values)
        if plain is None:
            self._examined = False
            return None
        found = pc.value_counts(plain.drop_null() if plain.null_count else plain)
        distinct, rows = found.field("values"), found.field("counts").to_numpy()
        if pa.types.is_string(distinct.type):
            keys = integers(as_ids(distinct))
        elif pa.types.is_floating(distinct.type):
            keys = self._numbers(distinct.to_numpy().astype(np.float64), rows)
        else:
            keys = integers(distinct.cast(pa.int64()))
            self._integers(keys, rows)
        order = np.argsort(keys, kind="stable")
        counts = ValueCounts(keys[order], rows[order])
        self._distinct.add(counts.values)
        self._commonest.add(counts)
        self._lately = (counts.values, order, distinct) if pa.types.is_string(distinct.type) else None
        if self._lately:
            top = [key for key, _ in self._commonest.top(_NAMED)]  # one that is common at the end was so when it came last
            for key in top:
                if key not in self._spelling and (spelled := self.spelled_lately(key)) is not None:
                    self._spelling[key] = spelled
            if len(self._spelling) > 50 * _NAMED:
                self._spelling = {key: self._spelling[key] for key in top if key in self._spelling}
        return counts

    def _numbers(self, numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """ValueCounts distinct floats; returns a key each."""
        nan, infinite = np.isnan(numbers), np.isinf(numbers)
        self._nan += int(rows[nan].sum())
        self._infinite += int(rows[infinite].sum())
        finite = ~(nan | infinite)
        self._finite(numbers[finite], rows[finite])
        whole = finite & (np.abs(numbers) < _EXACT) & (numbers == np.floor(numbers))
        keys = (numbers + 0.0).view(np.int64)
        keys[whole] = numbers[whole].astype(np.int64)  # 3.0 in one file and 3 in another are one value
        return keys

    def _integers(self, values: np.ndarray, rows: np.ndarray) -> None:
        if self.holds == "time":
            shift = round(self.calendar.clock.utc_offset_hours * HOUR_MS)
            midnight = (values % DAY_MS == 0) | ((values + shift) % DAY_MS == 0)
            earliest, latest = self.calendar.plausible
            self._midnights += int(rows[midnight].sum())
            self._whole_hours += int(rows[values % HOUR_MS == 0].sum())
            implausible = (values < earliest) | (values >= latest)
            if self.name == VALID_FROM:
                implausible &= ~says_always(values)
            self._implausible += int(rows[implausible].sum())
            self._future += int(rows[(values > self.now) & (values < latest)].sum())
        self._finite(values.astype(np.float64), rows)

    def _finite(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        if not len(numbers):
            return
        low, high = float(numbers.min()), float(numbers.max())
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        self._negative += int(rows[numbers < 0].sum())
        if self.holds in ("id", "time"):
            return
        is_sentinel = np.isin(numbers, _ALL_SENTINELS)
        if is_sentinel.any():
            for name, values in SENTINELS.items():
                self._sentinels[name] += int(rows[np.isin(numbers, values)].sum())
        others = numbers[~is_sentinel]
        if len(others):
            high = float(others.max())
            known = self._high_without_sentinels
            self._high_without_sentinels = high if known is None else max(known, high)
        self._quantiles.add(numbers, rows)

    def facts(self, rows: int) -> ColumnFacts:
        """What was counted, of a table with so many rows."""
        exact = self._commonest.distinct
        return ColumnFacts(
            table=self.table,
            name=self.name,
            holds=self.holds,
            types=self.types,
            is_read=self.is_read,
            rows=rows,
            missing=rows - self._known,
            examined=self._examined,
            distinct=self._distinct.count if exact is None else exact,
            distinct_is_exact=exact is not None,
            commonest=tuple(Common(value=self.spelled(key), rows=count) for key, count in self._commonest.top(5)),
            commonest_short=self._commonest.short,
            low=self._low,
            high=self._high,
            quantiles=self._quantiles.at(QUANTILES),
            nan=self._nan,
            infinite=self._infinite,
            negative=self._negative,
            sentinels={name: count for name, count in self._sentinels.items() if count},
            high_without_sentinels=self._high_without_sentinels,
            midnights=self._midnights,
            whole_hours=self._whole_hours,
            future=self._future,
            implausible=self._implausible,
            known_by_day={date_of(day): self.by_day[day] for day in sorted(self.by_day) if day != NO_DAY},
        )

    def spelled_lately(self, key: int) -> str | None:
        """How a string of the last batch is written; None where it was not there."""
        if self._lately is None:
            return None
        keys, order, distinct = self._lately
        place = int(np.searchsorted(keys, key))
        return distinct[int(order[place])].as_py() if place < len(keys) and keys[place] == key else None

    def spelled(self, key: int) -> str:
        """A value as it is written in the log."""
        known = self._spelling.get(key)
        if known is not None:
            return known
        if abs(key) >= _EXACT and self._is_float:
            return f"{np.array([key]).view(np.float64)[0]:.12g}"
        return str(key)

    @property
    def _is_float(self) -> bool:
        return any(kind in ("float", "double", "halffloat") or kind.startswith("decimal") for kind in self.types)


def _plain(values: pa.Array) -> pa.Array | None:
    """Values as strings, float64 or int64-sized integers; None for types that are not examined."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain(values.cast(kind.value_type))
    if pa.types.is_null(kind):
        return values.cast(pa.int64())
    if pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_float64(kind):
        return values
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64())
    if pa.types.is_uint64(kind):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:  # above 2^63: by its text, as a string would be
            return values.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.int64())
    if pa.types.is_timestamp(kind):
        return values.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
    return None


def counted(values: np.ndarray) -> Iterable[tuple[int, int]]:
    """Distinct integers with their rows; quick where they lie close together, as days do."""
    if not len(values):
        return ()
    low = int(values.min())
    if int(values.max()) - low < 1 << 16:
        rows = np.bincount(values - low)
        there = np.flatnonzero(rows)
        return zip((there + low).tolist(), rows[there].tolist(), strict=True)
    distinct, rows = np.unique(values, return_counts=True)
    return zip(distinct.tolist(), rows.tolist(), strict=True)
