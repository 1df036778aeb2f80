"""What became of the rows of a source that had to be converted; what becomes of those of a log, the preparation counts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.config import ConfigError, config, from_dict, to_dict
from pipelines.runs import read_json, write_json

ACCOUNT = "account.json"  # beside the converted logs


@config
class Converted:
    """Rows of a source, or entries of its lists: `read` = the sum of `made` + the sum of `left_out`.

    Attributes:
        what: file and kind, for example `behaviors.parquet, articles clicked`.
        made: rows of canonical tables, by table, maybe with their action.
        left_out: by rule.
    """

    what: str
    read: int
    made: dict[str, int]
    left_out: dict[str, int]

    def __str__(self) -> str:
        made = ", ".join(f"{count:,} {name}" for name, count in self.made.items() if count or not self.read)
        out = "".join(f" + {count:,} left out ({rule})" for rule, count in self.left_out.items() if count)
        return f"{self.what}: {self.read:,} read = {made}{out}"


def write_converted(folder: Path, converted: Iterable[Converted]) -> None:
    """
    Raises:
        AssertionError: rows are missing or too many.
    """
    converted = list(converted)
    for each in converted:
        assert each.read == sum(each.made.values()) + sum(each.left_out.values()), str(each)
    write_json(folder / ACCOUNT, {"converted": [to_dict(each) for each in converted]})


def read_converted(folder: Path) -> tuple[Converted, ...]:
    """What was written; nothing where the logs were not converted.

    Raises:
        ConfigError: the file is damaged.
    """
    way_out = f"Delete {folder}; the logs are converted again."
    try:
        spelling: dict[str, Any] = read_json(folder / ACCOUNT, way_out=way_out)
    except FileNotFoundError:
        return ()
    try:
        return tuple(from_dict(Converted, each, where=ACCOUNT) for each in spelling["converted"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ConfigError(f"{folder / ACCOUNT} is damaged ({error}). {way_out}") from None
