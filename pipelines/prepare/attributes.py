"""The attribute tables of a log, judged row by row and sorted: what `pipelines.prepare.tables` opens.

What is said of an id must be one thing at a time. A row that says again what another one says, in all columns that are read,
counts once and goes to quarantine; two rows for one time that differ are refused, for nobody can tell which of them held.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.catalogue import ROOM, ROOMS, STREAMER, USER
from models.config import ConfigError
from pipelines.encode.arrays import integers, present, whole
from pipelines.logs.canonical import VALID_FROM, CanonicalLogs
from pipelines.logs.layout import path_values
from pipelines.logs.values import says_always, tidied
from pipelines.prepare.clean import IMPLAUSIBLE, MISSING, QUARANTINE, TWICE, check_unit
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.tables import KEYS
from pipelines.runs.exchange import write_table
from pipelines.runs.order import run_starts

_AT_ONCE = 500_000  # rows read
_DAY = re.compile(r"[12]\d{3}(-?)[01]\d\1[0-3]\d")  # 2025-11-29, 20251129
_REASONS = ("", MISSING, IMPLAUSIBLE, TWICE)


def sort_table(
    logs: CanonicalLogs, table: str, columns: Sequence[str], config: PrepareConfig, *, output: Path
) -> tuple[dict[str, Any], pa.Table]:
    """Writes `columns` of an attribute table to `output` by id, and by `valid_from` where the log has it.

    Returns:
        Counts, and the rows for the quarantine. `rows` = `kept` + the sum of `quarantined`; beside them stand `ids` (distinct
        ones), `missing` (values by column and kind) and `latest` (the last `valid_from`, where there is one).

    Raises:
        ConfigError: an id has rows for one time that differ in one of the columns, a room has several streamers, times are
            in another unit, a file is damaged.
    """
    source = _Source(logs, table, columns)
    key, rows = source.key, source.rows
    reason = source.judged(config)
    sound = np.flatnonzero(reason == 0)
    names = [VALID_FROM, key] if source.is_dated else [key]
    by = [integers(rows[name])[sound] for name in names]
    order = np.lexsort(by) if source.is_dated else np.argsort(by[0], kind="stable")
    again = np.ones(len(order), bool)
    again[run_starts(*(column[order] for column in by))] = False
    order = sound[order]
    if again.any():
        later = np.flatnonzero(again)
        source.refuse_unequal(order[later - 1], order[later])
        reason[order[later]] = _REASONS.index(TWICE)
        order = order[~again]
    kept = rows.take(pa.array(order))
    if source.is_dated and table == ROOMS.table and STREAMER.key in kept.column_names:
        source.refuse_another_streamer(kept, order)
    write_table(output, kept)
    counts = {
        "rows": len(rows),
        "kept": len(kept),
        "quarantined": {_REASONS[each]: int(count) for each, count in enumerate(np.bincount(reason)) if each and count},
        "ids": len(run_starts(integers(kept[key]))),
        "missing": source.missing,
        "latest": pc.max(kept[VALID_FROM]).as_py() if source.is_dated else None,
    }
    return counts, source.quarantined(reason)


class _Source:
    """The rows of all files of a table, one file behind the other, and where each of them stands.

    Attributes:
        rows: the asked columns; what is no value is missing.
        missing: values that were none, by column and kind.
    """

    def __init__(self, logs: CanonicalLogs, table: str, columns: Sequence[str]) -> None:
        self.logs, self.table, self.key = logs, table, KEYS[table]
        known = logs.types(table, {*columns, VALID_FROM})
        types = pa.schema([pa.field(self.key, pa.int64()), *(field for field in known if field.name != self.key)])
        self.is_dated = VALID_FROM in types.names
        self.parts = logs.parts(table)
        self.first_rows: list[int] = []  # of every file
        batches: list[pa.Table] = []
        for part in self.parts:
            self.first_rows.append(sum(map(len, batches)))
            batches += part.batches(types, _AT_ONCE)
        self.rows = pa.concat_tables(batches).combine_chunks() if batches else types.empty_table()
        self.missing: dict[str, dict[str, int]] = {}
        for place, field in enumerate(types):
            column, found = tidied(whole(self.rows[field.name]))
            if found:
                self.missing[field.name] = found
                self.rows = self.rows.set_column(place, field, column)

    def judged(self, config: PrepareConfig) -> np.ndarray:
        """Why each row makes no sense, as a place in `_REASONS`; 0 where it does, int8.

        Raises:
            ConfigError: times of a file are in another unit.
        """
        reason = np.zeros(len(self.rows), np.int8)
        if self.is_dated:
            begins, there = integers(self.rows[VALID_FROM]), present(self.rows[VALID_FROM])
            for part, first, end in zip(self.parts, self.first_rows, [*self.first_rows[1:], len(begins)], strict=True):
                check_unit(begins[first:end][there[first:end]], f"{part.path}: column `{VALID_FROM}`")
            earliest, latest = config.plausible
            reason[((begins < earliest) & ~says_always(begins)) | (begins >= latest)] = _REASONS.index(IMPLAUSIBLE)
            reason[~there] = _REASONS.index(MISSING)
        reason[~present(self.rows[self.key])] = _REASONS.index(MISSING)
        return reason

    def refuse_unequal(self, earlier: np.ndarray, later: np.ndarray) -> None:
        """
        Raises:
            ConfigError: rows that are of one id and time differ.
        """
        unequal = np.zeros(len(later), bool)
        example: tuple[int, int, str] | None = None
        for name in self.rows.column_names:
            differs = _differs(self.rows[name].take(pa.array(earlier)), self.rows[name].take(pa.array(later)))
            unequal |= differs
            if differs.any() and example is None:
                pair = int(np.flatnonzero(differs)[0])
                example = int(earlier[pair]), int(later[pair]), name
        if example is None:
            return
        one, other, column = example
        ids = len(np.unique(integers(self.rows[self.key])[later[unequal]]))
        more = f", and {ids - 1:,} more ids have such rows" if ids > 1 else ""
        differ = f"`{column}` is {self._told(one, column)}, but {self._told(other, column)}{more}."
        who = f"`{self.key}` {self._spelled(one, self.key)}"
        if self.is_dated:
            raise ConfigError(
                f"table `{self.table}`: two rows of {who} hold from the same moment on ({self._spelled(one, VALID_FROM)}) and "
                f"differ: {differ} Leave the one that is right, or say in `{VALID_FROM}` from when each holds."
            )
        raise ConfigError(
            f"table `{self.table}`: {who} has several rows that differ: {differ} Leave one row an id, or give all rows a "
            f"column `{VALID_FROM}`, the time from which each holds.{self._dated_folders()}"
        )

    def refuse_another_streamer(self, kept: pa.Table, order: np.ndarray) -> None:
        """
        Raises:
            ConfigError: a room is of one streamer first, and of another one later.
        """
        named = np.flatnonzero(present(kept[STREAMER.key]))
        room, streamer = (integers(kept[name])[named] for name in (ROOM.key, STREAMER.key))
        changed = np.flatnonzero((room[1:] == room[:-1]) & (streamer[1:] != streamer[:-1]))
        if len(changed):
            one, other = (int(order[named[changed[0] + later]]) for later in (0, 1))
            raise ConfigError(
                f"table `{self.table}`: `{ROOM.key}` {self._spelled(one, ROOM.key)} changes its streamer: `{STREAMER.key}` is "
                f"{self._told(one, STREAMER.key)}, but {self._told(other, STREAMER.key)}. What happens in a room counts for "
                "one streamer: where another one takes over, give the room another id."
            )

    def quarantined(self, reason: np.ndarray) -> pa.Table:
        """Rows that do not count, as `QUARANTINE`."""
        bad = np.flatnonzero(reason)
        part = np.searchsorted(self.first_rows, bad, side="right") - 1
        rows = self.rows.take(pa.array(bad))
        found = {
            "table": pa.array([self.table] * len(bad), pa.string()),
            "file": pa.array([str(each.path) for each in self.parts], pa.string()).take(pa.array(part)),
            "row": pa.array(bad - np.array(self.first_rows)[part]),
            "reason": pa.array(_REASONS, pa.string()).take(pa.array(reason[bad])),
            "at": rows[VALID_FROM] if self.is_dated else pa.nulls(len(bad), pa.int64()),
        }
        if self.key in (USER.key, ROOM.key):
            found[self.key] = rows[self.key]
        nothing = {name: pa.nulls(len(bad), pa.int64()) for name in QUARANTINE.names if name not in found}
        return pa.table({**found, **nothing}).select(QUARANTINE.names).cast(QUARANTINE)

    def _place(self, row: int) -> tuple[int, int]:
        """A row's file, and its number there."""
        part = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return part, row - self.first_rows[part]

    def _told(self, row: int, column: str) -> str:
        part, number = self._place(row)
        return f"{self._spelled(row, column)} in {self.parts[part].path} (row {number})"

    def _spelled(self, row: int, column: str) -> str:
        """A value as the log has it: ids that are texts are numbers here."""
        part, number = self._place(row)
        types = pa.schema([self.rows.schema.field(column)])
        for batch in self.parts[part].batches(types, _AT_ONCE, as_written=types.names):
            if number < len(batch):
                value = batch[column][number].as_py()
                return "missing" if value is None else repr(value) if isinstance(value, str) else str(value)
            number -= len(batch)
        raise AssertionError(f"{self.parts[part].path} has lost rows")

    def _dated_folders(self) -> str:
        """A hint where the names of folders say a day that no column is read from."""
        (place,) = self.logs.places(self.table)
        values = [path_values(part.path, place) for part in self.parts]
        for name in dict.fromkeys(name for each in values for name in each):
            if all(_DAY.fullmatch(each.get(name) or "") for each in values):
                return (
                    f" The folders `{name}=` look like days: where a row holds from its day on (0:00 UTC; the day after, if it "
                    f"was taken at the day's end), name them `{VALID_FROM}=`."
                )
        return ""


def _differs(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Where two columns are not equal, bool; missing is equal to missing."""
    if pa.types.is_null(one.type):
        return np.zeros(len(one), bool)
    unequal = pc.fill_null(pc.not_equal(one, other), False).to_numpy()
    return unequal | (present(one) != present(other))
