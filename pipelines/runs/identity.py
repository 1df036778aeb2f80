"""Which run a folder holds, in what that differs from another, and whether it is finished."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ConfigError
from pipelines.places import is_whole
from pipelines.runs.files import discard, read_json, write_json

RUN = "run.json"
TOLD = 5  # differences in a message
LONGEST = 40  # characters of a value in a message


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: what it holds, and whether that is finished.

    Attributes:
        result: the file or folder in it that the run writes last.
        parts: names of all that the run writes, where others may lie beside it; without them the whole folder is the run's.
    """

    path: Path
    result: str
    parts: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        return is_whole(self.path / self.result)

    @property
    def identity(self) -> dict[str, Any] | None:
        """What decides the results of the run in the folder; None without one.

        Raises:
            ConfigError: `run.json` is damaged.
        """
        file = self.path / RUN
        try:
            return read_json(file, way_out=f"Delete {self.path} and start again.")
        except FileNotFoundError:
            return None

    @property
    def is_foreign(self) -> bool:
        """Whether it holds something that no run left there, or one of an earlier version."""
        if not self.path.is_dir() or (self.path / RUN).exists():
            return False
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        return bool(names & set(self.parts) if self.parts else names)

    def differences(self, identity: Mapping[str, Any]) -> list[str]:
        """In what the run in the folder differs from this one; empty where it is the same or there is none."""
        before = self.identity
        if before is None:
            return [f"everything (there is no {RUN}: an earlier version made it)"] if self.is_foreign else []
        return differences(before, identity)

    def begin(self, identity: Mapping[str, Any], *, way_out: str) -> None:
        """Notes what is going to be in the folder; from then on it takes nothing else.

        Args:
            way_out: what a user can do where it holds something else, as a sentence.

        Raises:
            ConfigError: the folder holds a run with other settings, or something that is no run.
        """
        self.refuse_another(identity, way_out=way_out)
        if self.identity is None:
            write_json(self.path / RUN, identity)

    def refuse_another(self, identity: Mapping[str, Any], *, way_out: str) -> None:
        """As `begin`, but writes nothing."""
        self.refuse_foreign()
        if found := self.differences(identity):
            raise ConfigError(f"{self.path} holds a run with other settings: {told(found)}. {way_out}")

    def clear(self) -> None:
        """Throws the run away.

        Raises:
            ConfigError: the folder holds something that is no run.
        """
        self.refuse_foreign()
        for path in [self.path / name for name in (*self.parts, RUN)] if self.parts else [self.path / self.result, self.path]:
            discard(path)

    def refuse_foreign(self) -> None:
        """
        Raises:
            ConfigError: the folder holds something that is no run.
        """
        if self.is_foreign:
            raise ConfigError(
                f"{self.path} holds files but no {RUN}: they are of something else, or of an earlier version. Name another "
                "folder, or delete this one."
            )


def differences(before: Any, now: Any) -> list[str]:
    """Where two plain values differ, as `dotted.path (old -> new)`; entries of a list that have names go by them.

    >>> differences({"train": {"seed": 0, "epochs": 2}}, {"train": {"seed": 1, "epochs": 2}})
    ['train.seed (0 -> 1)']
    """
    old, new = _flat(before), _flat(json.loads(json.dumps(now)))
    paths = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    return [f"{path} ({_short(old.get(path))} -> {_short(new.get(path))})" for path in paths]


def told(found: Sequence[str]) -> str:
    """Differences in one line, not too many of them."""
    more = len(found) - TOLD
    return ", ".join(found[:TOLD]) + (f" and {more} more" if more > 0 else "")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        value = {item["name"]: item for item in value} | {"order": [item["name"] for item in value]}
    if not isinstance(value, Mapping):
        return {path: value}
    inner = (_flat(each, f"{path}.{name}" if path else str(name)) for name, each in value.items())
    return {key: item for part in inner for key, item in part.items()}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
