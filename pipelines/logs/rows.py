"""The account of a conversion: what became of every row of every file."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from models.config import ConfigError, config, from_dict, to_dict
from pipelines.logs.layout import is_hidden
from pipelines.logs.raw import Bad
from pipelines.runs import FileNote, read_json, write_json, written
from pipelines.runs.noted import noted
from pipelines.runs.runner import Done

ROWS = "rows.json"
QUARANTINE = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
_LONGEST = 100  # characters of a path in the names of files made of it
_SHOWN = 3  # reasons of a file in a line


@config
class FileRows:
    """What became of the rows of a file, or of the entries of one of its lists.

    `rows` = `used` + the sums of `quarantined`, by reason, and of `left_out`, by rule.

    Attributes:
        made: rows of tables, by table.
        is_cut: the file ends without a line break.
    """

    rows: int
    used: int
    quarantined: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    made: dict[str, int] = dataclasses.field(default_factory=dict)
    is_cut: bool = False

    def __post_init__(self) -> None:
        out = sum(self.quarantined.values()) + sum(self.left_out.values())
        if self.rows != self.used + out:
            raise ValueError(f"{self.rows:,} rows are not {self.used:,} used and {out:,} others.")


@config
class GatheredRows:
    """What became of rows that had to meet: by part, those that came; by table, those that were made."""

    rows: dict[str, int]
    made: dict[str, int]
    joined: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    quarantined: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


@config
class SourceRows:
    """What became of all that a conversion read; nothing where a log was not converted."""

    files: dict[str, FileRows] = dataclasses.field(default_factory=dict)
    gathered: dict[str, GatheredRows] = dataclasses.field(default_factory=dict)

    def lines(self) -> list[str]:
        spelled = to_dict(self)
        return list(told(spelled["files"], spelled["gathered"]))

    def write(self, folder: Path) -> None:
        write_json(folder / ROWS, to_dict(self))

    @classmethod
    def read(cls, folder: Path) -> "SourceRows":
        """What stands in a folder of converted logs.

        Raises:
            ConfigError: the account is damaged, or does not add up.
        """
        way_out = f"Delete {folder}: the logs are converted again."
        try:
            return from_dict(cls, read_json(folder / ROWS, way_out=way_out), where=ROWS)
        except FileNotFoundError:
            return cls()
        except ConfigError as error:
            raise ConfigError(f"{folder / ROWS} is damaged ({str(error).splitlines()[0]}) {way_out}") from None


def file_name(name: str) -> str:
    """A file's path as one word that no other path has, that is not hidden, and not too long.

    >>> file_name("click.csv"), file_name("data.zip:live/click.csv")
    ('click.csv', 'data.zip_live_click.csv-cfe27327ca515eae')
    """
    word = re.sub(r"[^A-Za-z0-9.=_-]", "_", name)
    if word == name and not is_hidden(word) and len(word) <= _LONGEST:
        return word
    digest = xxhash.xxh64_hexdigest(name.encode("utf-8", "surrogateescape"))
    return f"{word[-_LONGEST:].lstrip('._-') or 'file'}-{digest}"


def write_bad(table: pa.Table, path: Path, folder: Path) -> FileNote:
    with written(path, durable=False) as draft:
        pq.write_table(table, draft, compression="zstd")
    return noted(path, folder, rows=len(table))


def as_quarantine(bad: Sequence[Bad], file: str) -> pa.Table:
    columns = [[file] * len(bad), [each.row for each in bad], [each.reason for each in bad], [each.text for each in bad]]
    return pa.table(columns, schema=QUARANTINE)


def account_of(pieces: Sequence[Done]) -> dict[str, Any]:
    """What became of the rows of a file, added up over its pieces."""
    total: dict[str, Any] = {what: sum(each.counts[what] for each in pieces) for what in ("rows", "used")}
    for what in ("quarantined", "left_out", "made"):
        total[what] = dict(sum((Counter(each.counts[what]) for each in pieces), Counter()))
    return total | {"is_cut": bool(pieces) and pieces[-1].counts["is_cut"]}


def write_quarantine(name: str, pieces: Sequence[Done], output: Path) -> None:
    """Quarantined rows of a file, each with its number in the file rather than in its piece."""
    first_row = 0
    for number, each in enumerate(pieces):
        for note in each.files.get("quarantine", ()):
            rows = pq.read_table(output / note.path, partitioning=None)
            rows = rows.set_column(1, "row", pa.array(rows["row"].to_numpy() + first_row))
            write_bad(rows, output / "quarantine" / f"{file_name(name)}-{number:05d}.parquet", output)
        first_row += each.counts["rows"]


def refuse_beyond(limit: float, account: Mapping[str, Mapping[str, Any]], output: Path) -> None:
    """
    Raises:
        ConfigError: too many rows of a file make no sense.
    """
    for file, counts in account.items():
        reasons, rows = Counter(counts["quarantined"]), counts["rows"]
        if (bad := reasons.total()) > limit * rows:
            raise ConfigError(
                f"{bad:,} of {rows:,} rows of {file} make no sense ({bad / rows:.2%}, quarantine_limit is {limit:.2%}): "
                f"{listed(reasons)}. They are in {output / 'quarantine'}. Mend the file, or raise `prepare.quarantine_limit`."
            )


def told(account: Mapping[str, Mapping[str, Any]], gathered: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The account in lines."""
    for file, counts in account.items():
        parts = [f"{counts['used']:,} used"]
        for what, name in (("quarantined", "quarantined"), ("left_out", "left out")):
            if counts[what]:
                parts.append(f"{sum(counts[what].values()):,} {name} ({listed(Counter(counts[what]))})")
        yield f"{file}: {counts['rows']:,} rows = {' + '.join(parts)}"
        if counts["is_cut"]:
            yield f"{file} does not end with a line break, so its last row may have been cut short."
    for name, counts in gathered.items():
        rows = ", ".join(
            f"{count:,} rows of `{part}`" if part != name else f"{count:,} rows" for part, count in counts["rows"].items()
        )
        made = ", ".join(f"{count:,} {table}" for table, count in counts["made"].items())
        less = [
            f"{part} {word} ({listed(Counter(rules))})"
            for what, word in (("joined", "joined"), ("left_out", "left out"), ("quarantined", "quarantined"))
            for part, rules in counts[what].items()
        ]
        yield f"{name}: {rows} became {'; '.join([made, *less])}"


def listed(reasons: Counter[str]) -> str:
    most = reasons.most_common(_SHOWN)
    more = ", ..." if len(reasons) > len(most) else ""
    return ", ".join(f"{reason}: {count:,}" for reason, count in most) + more
