"""All that training days taught the encoder, and how it is kept on disk."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from models.config import ConfigError, from_dict, to_dict
from models.schema import Schema
from pipelines.encode.clock import Clock
from pipelines.encode.contract import decisive_part
from pipelines.encode.feeds import TABLES
from pipelines.encode.rows import BinRows, HashRows, TableRows, VocabularyRows
from pipelines.logs.ids import IdKind
from pipelines.places import place


class DamagedEncoder(ConfigError):
    """Files of an encoder are missing, cut short or hold something else."""


@dataclass(frozen=True)
class Scale:
    """How a number is standardised, after its transform.

    Attributes:
        limit: from here on, to both sides of zero, a number is wild: far more than 65,536 times as large as 99 of 100
            others on training days, so rather a mistake than a value. It counts as missing, and neither mean nor
            deviation know it. None where nothing is (a logarithm has no such tail).
    """

    mean: float
    deviation: float
    limit: float | None = None

    @property
    def wild_from(self) -> float:
        """`limit`, infinite where nothing is wild."""
        return np.inf if self.limit is None else self.limit


@dataclass(frozen=True)
class LevelState:
    """Level of an owner by exposure (`owners`, `levels`), or of an attribute (`cuts`)."""

    owners: VocabularyRows
    levels: np.ndarray  # int8, by row of `owners`; the first is that of unknown owners
    cuts: np.ndarray


@dataclass(frozen=True)
class EncoderState:
    """All that training days taught the encoder. Row 0 of every table stands for unknown and missing.

    Attributes:
        encoding: fingerprint of the part of the schema this was fitted for, see `encoding_fingerprint`.
        clock: what local time is, and when days begin.
        entry_rate: entries per impression on training days.
        largest_feed: most candidates of a training feed.
        tables: rows by table.
        numbers: scale by field.
        label_quantiles: by value target, of the positive labels at 257 evenly spaced shares from 0 to 1, ascending, float64,
            to less than 1/4096 of themselves; all 0 where there was no positive label.
        stage_medians: by `stages.RATES`, what users' stages are told by; None where the schema declares no stages.
        ids: what the log's ids were, integers or texts, by column (user_id, room_id, streamer_id, product_id), so that a
            request may spell them as its language has to (see `as_ids`); those that the log did not have are not there.
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
    ids: Mapping[str, IdKind] = field(default_factory=dict)

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
        """Makes sure that a schema can be encoded with this state.

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
        folder = place(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.safetensors").write_bytes(safetensors.numpy.save(self._arrays()))
        (folder / "encoder.json").write_bytes(_json(self._spelling()))

    @classmethod
    def load(cls, folder: Path) -> "EncoderState":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no encoder in the folder.
            DamagedEncoder: a file is cut short, or holds something else.
            ConfigError: it was written by another version.
        """
        folder = place(folder)
        try:
            state = cls._load(folder)
            state._spelling()  # what is of another type is told here, and not by who uses it
            return state
        except FileNotFoundError as error:
            raise FileNotFoundError(f"`{folder}` holds no encoder: {Path(error.filename).name} is missing.") from None
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise DamagedEncoder(f"{folder} is damaged ({error!r}).") from None

    @classmethod
    def _load(cls, folder: Path) -> "EncoderState":
        spelling = json.loads((folder / "encoder.json").read_bytes())
        arrays = safetensors.numpy.load((folder / "encoder.safetensors").read_bytes())
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
            ids=spelling["ids"],
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
            "numbers": {name: asdict(item) for name, item in self.numbers.items()},
            "ids": dict(self.ids),
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
    spelling = {part: value for part, value in decisive_part(schema).items() if part not in ("targets", "stages")}
    return hashlib.blake2b(_json(spelling), digest_size=8).hexdigest()


def _json(spelling: dict) -> bytes:
    return (json.dumps(spelling, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
