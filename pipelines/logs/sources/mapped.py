"""Anybody's own CSV and Parquet files as canonical logs, by a mapping of their columns.

Of every canonical table the config lists files and says which of their columns is which. A table may come from several
kinds of files, and a file may give several tables: it is read once for each.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field as default
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import polars as pl

from models.config import ConfigError, config
from pipelines.logs import types
from pipelines.logs.canonical import TABLES, declaration
from pipelines.logs.convert import DataSet, Kind, Made
from pipelines.logs.inputs import Found, input_of
from pipelines.logs.raw import ANY, DAY, ID, INTEGER, NUMBER, TEXT, TIME, Layout, Raw, key, value
from pipelines.places import Place, Remote

_HOLDS = {types.ID: ID, types.TIME: TIME, types.DAY: DAY, types.COUNT: INTEGER, types.REAL: NUMBER, types.WORD: TEXT}
_NOT_SET = ("0", "0.0", "false", "f", "no", "n")
_TOLD = 20  # values of a column that are counted apart


@config
class MappedFiles:
    """Files of one kind, and what their columns are. Names on the left are LiveRank's, those on the right the files'.

    Attributes:
        files: below `logs.path`; `*` stands for anything but a dot at the beginning, `**` for folders, linked ones too.
        columns: canonical columns, and the columns of the files that they are.
        names: of all columns of a CSV file, in order, where it has no header.
        separator: between the values of a CSV file.
        unit: of times that are written as numbers.
        utc_offset_hours: of dates and times that are written without a zone.
        scale: what numbers are multiplied with, by canonical column (`value: 0.001` for a stay in milliseconds).
        numbers: attributes of CSV files that are numbers; all others are text. Those of Parquet files are what they are.
        where: by column of the files, the values (as text) that a row must have; others are left out.
        action: of engagements, where all rows are of one.
        actions: of engagements, where `columns` maps `action`: our names for the values there; others are left out.
        flags: of engagements, where a row may stand for several: actions, and the columns that say whether they happened.
    """

    files: tuple[str, ...]
    columns: dict[str, str]
    names: tuple[str, ...] = ()
    separator: str = ","
    unit: Literal["s", "ms", "us", "ns"] = "ms"
    utc_offset_hours: float = 0.0
    scale: dict[str, float] = default(default_factory=dict)
    numbers: tuple[str, ...] = ()
    where: dict[str, tuple[str, ...]] = default(default_factory=dict)
    action: str = ""
    actions: dict[str, str] = default(default_factory=dict)
    flags: dict[str, str] = default(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("`files` names no file.")
        for pattern in self.files:
            parts = PurePosixPath(pattern).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"`files` names `{pattern}`, which is no file below `logs.path`; name it from there on.")
        if len(self.separator) != 1:
            raise ValueError(f"`separator` is {self.separator!r}; it must be one character.")
        for name in ("scale", "numbers"):
            for column in getattr(self, name):
                if column not in self.columns:
                    raise ValueError(f"`{name}` speaks of `{column}`, which `columns` does not map.")


@config
class CsvConfig:
    """CSV and Parquet files of anybody's own, told by a mapping of their columns.

    Attributes:
        path: the folder that the files lie in.
        tables: by canonical table, its kinds of files.
    """

    kind: Literal["csv"] = "csv"
    path: Place
    tables: dict[str, tuple[MappedFiles, ...]]

    def __post_init__(self) -> None:
        for table, kinds in self.tables.items():
            if table not in TABLES:
                raise ValueError(f"tables: there is no canonical table `{table}`. Known: {', '.join(TABLES)}.")
            for number, files in enumerate(kinds):
                _check(table, files, f"tables.{table}.{number}")


def _check(table: str, files: MappedFiles, where: str) -> None:
    """
    Raises:
        ValueError: columns that the table does not have, or lacks.
    """
    for column in files.columns:
        if declaration(table, column) is None:
            known = ", ".join(TABLES[table])
            raise ValueError(f"{where}.columns: table `{table}` has no column `{column}`. Known: {known}.")
    ways = [name for name in ("action", "actions", "flags") if getattr(files, name)]
    if table != "engagements" and ways:
        raise ValueError(f"{where}: `{ways[0]}` is for `engagements`.")
    told_apart = ("action" in files.columns) != bool({"action", "flags"} & set(ways))
    if table == "engagements" and (len(ways) > 1 or not told_apart):
        raise ValueError(
            f"{where}: say in one way which action a row is: `action` for all rows, `flags` for columns that tell whether "
            "actions happened, or a column `action` (with `actions`, where it has names of its own)."
        )
    for column, declared in TABLES[table].items():
        told = column in files.columns or (column == "action" and bool(ways))
        if declared.required and "*" not in column and not told:
            raise ValueError(f"{where}.columns: `{column}` of `{table}` is missing.")


def data_set(source: CsvConfig) -> DataSet:
    kinds = [
        Kind(f"{table}.{number}", _layout(table, files), partial(_rows, table=table, files=files))
        for table, several in source.tables.items()
        for number, files in enumerate(several)
    ]
    return DataSet("the mapped log", tuple(kinds), finder=partial(_find, source=source))


def _find(place: Path, source: CsvConfig) -> Found:
    """
    Raises:
        ConfigError: no such folder, a pattern without a file, a file that is there twice by links.
    """
    if not place.is_dir():
        raise ConfigError(f"logs.path: {place} is not a folder. `logs.tables` names files below it.")
    there = sorted(_below(place, (_real(place),)))
    inputs = []
    for table, several in source.tables.items():
        for number, files in enumerate(several):
            found: dict[Path, None] = {}
            for pattern in files.files:
                asked = PurePosixPath(pattern).parts
                matching = [path for path in there if _matches(path.relative_to(place).parts, asked)]
                if not matching:
                    raise ConfigError(f"logs.tables.{table}: {place} has no file `{pattern}`.")
                found |= dict.fromkeys(matching)
            real: dict[Path, Path] = {}
            for path in found:
                if not path.is_file():
                    raise ConfigError(f"logs.tables.{table}: {path} is a link to nothing, or no file. Mend or remove it.")
                if (other := real.setdefault(_real(path), path)) != path:
                    raise ConfigError(
                        f"logs.tables.{table}: {path} and {other} are one file, by links; its rows would count twice."
                    )
                name = f"{path.relative_to(place).as_posix()} ({table}{number + 1 if len(several) > 1 else ''})"
                inputs.append(input_of(path, name, f"{table}.{number}"))
    return Found(tuple(inputs), (), ())


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All that is no folder in and below one, behind links too; a link back to a folder above leads to nothing new."""
    for entry in folder.iterdir():
        if not entry.is_dir():
            yield entry
        elif (real := _real(entry)) not in above:
            yield from _below(entry, (*above, real))


def _real(path: Path) -> Path:
    return path if isinstance(path, Remote) else Path(os.path.realpath(path))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is of a pattern, part by part, as in a shell: hidden names have to be asked for."""
    if not pattern or not parts:
        return not pattern and not parts
    if parts[0].startswith(".") and not pattern[0].startswith("."):
        return pattern[0] == "**" and _matches(parts, pattern[1:])
    if pattern[0] == "**":
        return len(pattern) == len(parts) == 1 or _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _layout(table: str, files: MappedFiles) -> Layout:
    columns: dict[str, Raw] = {}
    for name, theirs in files.columns.items():
        declared = declaration(table, name)
        assert declared is not None, name
        holds = NUMBER if name in files.numbers else _HOLDS.get(declared.holds, ANY)
        columns[theirs] = key(holds) if declared.required else value(holds)
    for theirs in (*files.where, *files.flags.values()):
        columns.setdefault(theirs, value(TEXT))
    return Layout(
        columns, names=files.names, separator=files.separator, unit=files.unit, utc_offset_hours=files.utc_offset_hours
    )


def _rows(rows: pl.DataFrame, source: CsvConfig, *, table: str, files: MappedFiles) -> Made:
    left_out: Counter[str] = Counter()
    for column, values in files.where.items():
        texts = rows[column].cast(pl.String)
        left_out.update(_told(column, texts.filter(~texts.is_in(values).fill_null(False))))
        rows = rows.filter(texts.is_in(values).fill_null(False))
    if files.actions:
        theirs = files.columns["action"]
        known = rows[theirs].is_in(list(files.actions.values()))
        left_out.update(_told(theirs, rows[theirs].filter(~known)))
        rows = rows.filter(known)
    ours = rows.select(
        (pl.col(theirs) * files.scale[name] if name in files.scale else pl.col(theirs)).alias(name)
        for name, theirs in files.columns.items()
    )
    if files.action:
        ours = ours.with_columns(action=pl.lit(files.action))
    elif files.actions:
        named = {theirs: name for name, theirs in files.actions.items()}
        ours = ours.with_columns(pl.col("action").replace_strict(named, return_dtype=pl.String))
    elif files.flags:
        marks = {action: _is_set(rows[column]) for action, column in files.flags.items()}
        ours, nothing = _of_flags(ours, marks)
        left_out["none of the flags is set"] += nothing
    return Made({table: ours}, {rule: count for rule, count in left_out.items() if count})


def _of_flags(rows: pl.DataFrame, marks: Mapping[str, pl.Series]) -> tuple[pl.DataFrame, int]:
    """A row for every flag that is set, and how many rows have none."""
    acts = [rows.filter(mark).with_columns(action=pl.lit(action)) for action, mark in marks.items()]
    set_N = sum((mark.cast(pl.Int64) for mark in marks.values()), pl.zeros(len(rows), pl.Int64, eager=True))
    return pl.concat(acts), int((set_N == 0).sum())


def _is_set(column: pl.Series) -> pl.Series:
    texts = column.cast(pl.String).str.to_lowercase()
    return texts.is_not_null() & ~texts.is_in(_NOT_SET)


def _told(column: str, values: pl.Series) -> Counter[str]:
    """Rows by the value that left them out; of rare values together."""
    counts = Counter(dict(values.fill_null("nothing").value_counts().iter_rows()))
    most = counts.most_common(_TOLD)
    found = Counter({f"`{column}` is {text}": count for text, count in most})
    if others := counts.total() - found.total():
        found[f"`{column}` is something else"] = others
    return found
