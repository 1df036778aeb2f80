"""A finished prepared folder: feeds of every split, their schema and encoder, and what the job counted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ConfigError
from models.schema import Schema
from pipelines.prepare.encode import EncoderState, encoding_fingerprint

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Prepared:
    """What `prepare` leaves behind; `manifest.json` is written last, so a folder that has one is finished.

    Attributes:
        manifest: holds at least `fingerprint` and, by split, `splits` with `files`, `feeds`, `candidates`,
            `largest_feed`.
        fingerprint: equal for equal logs, schema and configuration.
    """

    path: Path
    schema: Schema
    encoder: EncoderState
    manifest: Mapping[str, Any]
    fingerprint: str

    @classmethod
    def open(cls, path: Path | str, *, schema: Schema | None = None) -> "Prepared":
        """
        Args:
            schema: the schema it is going to be used with; a folder encoded for another one is refused.

        Raises:
            ConfigError: there is no such folder, it is not finished, its parts do not fit, or files are missing.
        """
        path = Path(path)
        if not path.is_dir():
            raise ConfigError(f"there is no prepared folder at `{path}`. Make it with `python -m jobs.prepare`.")
        manifest = _read_json(path / "manifest.json", "was not finished; run `python -m jobs.prepare` again, it goes on")
        own_schema = Schema.from_dict(_read_json(path / "schema.json", "is damaged; delete it and prepare again"))
        try:
            encoder = EncoderState.load(path / "encoder")
        except FileNotFoundError as error:
            raise ConfigError(str(error)) from None
        encoder.check(own_schema)
        if schema is not None and encoding_fingerprint(schema) != encoder.encoding:
            raise ConfigError(
                f"`{path}` was prepared for another schema: {_difference(own_schema, schema)}. "
                "Prepare into another folder, or use its schema."
            )
        if schema is not None and (missing := _labels(schema) - _labels(own_schema)):
            names = ", ".join(sorted(name for name, *_ in missing))
            raise ConfigError(
                f"`{path}` was prepared with other labels for these targets: {names}. Prepare into another folder."
            )
        prepared = cls(path, own_schema, encoder, manifest, manifest["fingerprint"])
        for split in SPLITS:
            found, expected = len(prepared.files(split)), manifest["splits"][split]["files"]
            if found != expected:
                raise ConfigError(
                    f"`{path / 'feeds' / split}` holds {found} Parquet files where the manifest counts {expected}. "
                    "Delete the folder and prepare again."
                )
        return prepared

    def files(self, split: str) -> list[Path]:
        """Encoded feeds of `train`, `valid` or `test`, in a fixed order."""
        return self._parquet("feeds", split)

    def features(self, split: str) -> list[Path]:
        """Raw feeds, file by file and row by row beside `files(split)`."""
        return self._parquet("features", split)

    def snapshot(self, what: str) -> list[Path]:
        """`users` or `rooms` as they were at the end of the log."""
        return sorted((self.path / "snapshot" / what).glob("*.parquet"))

    def _parquet(self, kind: str, split: str) -> list[Path]:
        if split not in SPLITS:
            raise ConfigError(f"there is no split `{split}`; there are: {', '.join(SPLITS)}.")
        return sorted((self.path / kind / split).glob("*.parquet"))


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"`{path.parent}` {otherwise} ({path.name} is missing).") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"`{path}` is damaged ({error}). Delete the folder and prepare again.") from None


def _labels(schema: Schema) -> set[tuple]:
    """What decides a label; weights, transforms and parents of targets may change without preparing again."""
    return {(item.name, item.kind, item.action, item.at_least, item.attribution_seconds) for item in schema.targets}


def _difference(ours: Schema, theirs: Schema) -> str:
    def parts(schema: Schema) -> dict[str, Any]:
        named = {f"field `{item.name}`": item for item in schema.fields}
        histories = {f"history `{item.name}`": item for item in schema.histories}
        return {**named, **histories, "levels": schema.levels, "list_context": schema.list_context}

    mine, wanted = parts(ours), parts(theirs)
    return "they differ in " + ", ".join(name for name in {**mine, **wanted} if mine.get(name) != wanted.get(name))
