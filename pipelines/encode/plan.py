"""Raw feeds straight to tensors, for a few feeds at a time: what `encode` and `to_batch` give, without tables on the way.

A table costs its calls whatever it holds: of a request for 20 rooms they were more than the model. A plan is made once for a
schema and its encoder, and then works on plain arrays: numbers all at once, table rows field by field, with the functions
that encode tables. A test holds both equal to the bit.

# R feeds, N candidates, E entries of a history, F fields, L longest history
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.batch import FeedBatch, HistoryBatch
from models.catalogue import HOURS_AGO
from models.schema import Field, Number, Schema
from pipelines.encode.columns import column, derived_columns, level_column
from pipelines.encode.derive import Inputs, derived, hours_ago
from pipelines.encode.levels import level_of
from pipelines.encode.numbers import logarithm, measured, standard
from pipelines.encode.rows import BinRows, TableRows
from pipelines.encode.stages import stage_columns, stages_of
from pipelines.encode.state import EncoderState


@dataclass(frozen=True)
class Flat:
    """A column as one array.

    Attributes:
        values: int64 or float64; 0 where missing.
        known: whether there is a value, bool.
    """

    values: np.ndarray
    known: np.ndarray

    @classmethod
    def of_floats(cls, values: np.ndarray) -> "Flat":
        """NaN where missing."""
        known = ~np.isnan(values)
        return cls(np.where(known, values, 0.0), known)

    def floats(self) -> np.ndarray:
        """float64, NaN where missing."""
        return np.where(self.known, self.values, np.nan)


@dataclass(frozen=True)
class RawHistory:
    """One domain's histories of R feeds.

    Attributes:
        lengths_R: entries of each feed.
        columns: [E] by an entry's column, without the history's name; `at` is among them.
    """

    lengths_R: np.ndarray
    columns: Mapping[str, Flat]


@dataclass(frozen=True)
class RawFeeds:
    """Base columns of R feeds, as preparation writes them.

    Attributes:
        at_R: when each feed is shown, ms.
        lengths_R: candidates of each.
        feed: [R] by column, `user_id` among them.
        candidate: [N] by column, `room_id` among them.
        histories: by name.
    """

    at_R: np.ndarray
    lengths_R: np.ndarray
    feed: Mapping[str, Flat]
    candidate: Mapping[str, Flat]
    histories: Mapping[str, RawHistory]


class EncodePlan:
    """How the feeds of a schema are encoded.

    Raises:
        ConfigError: the encoder is that of another schema.
    """

    def __init__(self, schema: Schema, state: EncoderState) -> None:
        state.check(schema)
        self._state = state
        self._derived = [known for name in derived_columns(schema) if (known := column(name, schema)) is not None]
        self._fields = {of: _Fields(schema.fields_of(of), state) for of in ("feed", "candidate")}
        self._histories = {
            history.name: [(item.name, item.column, state.tables[item.table]) for item in history.fields]
            for history in schema.histories
        }
        self._level = _level(schema, state)
        self._stages = None if schema.stages is None else stage_columns(schema.stages)

    def batch(self, raw: RawFeeds) -> FeedBatch:
        """The feeds as tensors; what training alone needs is left out, as in `to_batch`."""
        feeds, candidates = len(raw.at_R), int(raw.lengths_R.sum())
        columns = {"feed": dict(raw.feed), "candidate": dict(raw.candidate)}
        known = Inputs(
            at_R=lambda user: raw.at_R,
            lengths_R=raw.lengths_R,
            floats=lambda name, user: (columns["feed"].get(name) or columns["candidate"][name]).floats(),
            entry_rate=self._state.entry_rate,
            clock=self._state.clock,
        )
        for each in self._derived:
            columns[each.level][each.name] = _flat(derived(each, known))
        user = raw.feed["user_id"]
        return FeedBatch(
            feed=self._fields["feed"].encoded(columns["feed"], feeds),
            candidate=self._fields["candidate"].encoded(columns["candidate"], candidates),
            histories={name: _history(raw.histories[name], raw.at_R, fields) for name, fields in self._histories.items()},
            feed_of_candidate_N=torch.from_numpy(np.repeat(np.arange(feeds), raw.lengths_R)),
            level_N=torch.from_numpy(self._level(columns["candidate"])),
            user_R=torch.from_numpy(np.where(user.known, user.values, -1)),
            stage_R=self._stage(columns["feed"]),
        )

    def _stage(self, columns: Mapping[str, Flat]) -> Tensor | None:
        medians = self._state.stage_medians
        if self._stages is None or medians is None:
            return None
        means = {rate: measured(columns[name].floats()) for rate, name in self._stages.items()}
        return torch.from_numpy(stages_of(means, medians).astype(np.int64))


class _Fields:
    """Fields of feeds, or of candidates; numbers are encoded together, those under a logarithm first."""

    def __init__(self, fields: Iterable[Field], state: EncoderState) -> None:
        fields = list(fields)
        self._names = [field.name for field in fields]
        self._tables = [
            (field.name, field.column, state.tables[field.table]) for field in fields if not isinstance(field.encoding, Number)
        ]
        numbers = [(field, field.encoding) for field in fields if isinstance(field.encoding, Number)]
        numbers.sort(key=lambda pair: pair[1].transform != "log1p")
        self._logs = sum(encoding.transform == "log1p" for _, encoding in numbers)
        self._numbers = [(field.name, field.column) for field, _ in numbers]
        scales = [state.numbers[field.name] for field, _ in numbers]
        of_each = lambda values: np.array(values, np.float64)[:, None]
        self._mean_F1 = of_each([scale.mean for scale in scales])
        self._deviation_F1 = of_each([scale.deviation for scale in scales])
        self._limit_F1 = of_each([scale.wild_from for scale in scales])

    def encoded(self, columns: Mapping[str, Flat], count: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if self._tables:
            rows_FN = np.empty((len(self._tables), count), np.int64)
            for row_N, (_, name, table) in zip(rows_FN, self._tables, strict=True):
                row_N[:] = _rows(columns[name], table)
            found |= zip((name for name, _, _ in self._tables), torch.from_numpy(rows_FN).unbind(0), strict=True)
        if self._numbers:
            numbers_FN = np.empty((len(self._numbers), count))
            for number_N, (_, name) in zip(numbers_FN, self._numbers, strict=True):
                number_N[:] = columns[name].floats()
            numbers_FN = measured(numbers_FN)
            if self._logs:
                numbers_FN[: self._logs] = logarithm(numbers_FN[: self._logs])
            encoded_FN = standard(numbers_FN, self._mean_F1, self._deviation_F1, self._limit_F1)
            found |= zip((name for name, _ in self._numbers), torch.from_numpy(encoded_FN).unbind(0), strict=True)
        return {name: found[name] for name in self._names}


def _rows(values: Flat, table: TableRows) -> np.ndarray:
    if isinstance(table, BinRows):
        return table.rows(measured(values.floats()))
    return np.where(values.known, table.rows(values.values), 0)


def _flat(values: np.ndarray) -> Flat:
    return Flat.of_floats(values) if values.dtype.kind == "f" else Flat(values, np.ones(len(values), np.bool_))


def _level(schema: Schema, state: EncoderState) -> Callable[[Mapping[str, Flat]], np.ndarray]:
    """From candidates to their levels, int64."""
    measure, level = level_column(schema), state.level
    if schema.levels.column is None:
        return lambda columns: level.levels[_rows(columns[measure], level.owners)].astype(np.int64)
    return lambda columns: level_of(measured(columns[measure].floats()), level.cuts).astype(np.int64)


def _history(raw: RawHistory, at_R: np.ndarray, fields: Iterable[tuple[str, str, TableRows]]) -> HistoryBatch:
    lengths_R = raw.lengths_R
    is_real_RL = np.arange(lengths_R.max(initial=0))[None, :] < lengths_R[:, None]
    rows: dict[str, Tensor] = {}
    for name, source, table in fields:
        if source == HOURS_AGO.name:
            values = _flat(hours_ago(raw.columns["at"].values, at_R, lengths_R))
        else:
            values = raw.columns[source]
        padded_RL = np.zeros(is_real_RL.shape, np.int64)
        padded_RL[is_real_RL] = _rows(values, table)
        rows[name] = torch.from_numpy(padded_RL)
    return HistoryBatch(rows=rows, is_real_RL=torch.from_numpy(is_real_RL))
