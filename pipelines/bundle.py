"""A trained ranker with all that serving it needs, as a folder that is whole or not there.

schema.json         the problem
config.json         the ranker
encoder/            what turns raw columns into rows and numbers
weights.safetensors parameters; their metadata say which other files they belong to, and what they hold themselves
metrics.json        how good it was on validation
provenance.json     where it comes from
history.json        epochs and diagnostics of its training, for the report; need not be there
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from models.config import ConfigError, from_dict, to_dict
from models.leveled import Leveled
from models.ranker import Ranker
from models.schema import Schema
from models.system import SystemConfig, build_ranker
from pipelines.encode.state import DamagedEncoder, EncoderState
from pipelines.places import Remote, here, place, put_folder
from pipelines.runs import read_json, write_text, written
from pipelines.runs.noted import signed, unsigned

_SPELLED = {
    "schema": "schema.json",
    "config": "config.json",
    "file of metrics": "metrics.json",
}
_TENSORS, _WEIGHTS = "tensors", "weights"  # keys of the digest of the weights, in their metadata and in the provenance
FILES = ("schema.json", "config.json", "encoder", "weights.safetensors", "metrics.json", "provenance.json")


class DamagedBundle(ConfigError):
    """Files of a bundle are missing, cut short or not its own; another copy may be whole."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A loaded bundle; the ranker is in eval mode, on the CPU.

    Attributes:
        name: of its folder.
    """

    path: Path
    schema: Schema
    system: SystemConfig
    encoder: EncoderState
    ranker: Ranker | Leveled
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.path.name


def save_bundle(
    path: Path,
    *,
    schema: Schema,
    system: SystemConfig,
    encoder: EncoderState,
    ranker: Ranker | Leveled,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Path:
    """Writes a bundle; one that is already there is replaced. Returns its path."""
    path = place(path)
    with written(path) as draft:
        draft.mkdir()
        _write(draft / "schema.json", schema.to_dict())
        _write(draft / "config.json", to_dict(system))
        encoder.save(draft / "encoder")
        _write(draft / "metrics.json", metrics)
        tensors = _digest(ranker.state_dict())
        _write_provenance(draft, provenance, tensors)
        parts = _parts({name: _read(draft / file) for name, file in _SPELLED.items()}, encoder)
        save_weights(draft / "weights.safetensors", ranker, parts | {_TENSORS: tensors})
    return path


def load_bundle(path: Path) -> Bundle:
    """Reads a bundle and makes sure that its parts belong together.

    Raises:
        DamagedBundle: a file is missing or damaged, or the schema, config or encoder is that of another bundle.
        ConfigError: no bundle there, or the weights do not fit the ranker.
    """
    path = place(path)
    if not path.is_dir():
        raise ConfigError(f"there is no bundle at {path}. `python -m jobs.train` makes one.")
    with here(path) as folder:
        try:
            return replace(_loaded(folder), path=path.resolve())
        except ConfigError as error:
            raise type(error)(str(error).replace(str(folder), str(path))) from error.__cause__  # not the copy's


def _loaded(path: Path) -> Bundle:
    missing = [name for name in FILES if not (path / name).exists()]
    if missing:
        raise DamagedBundle(f"{path} is not a whole bundle: {', '.join(missing)} missing. Copy the whole folder.")
    spelled = {part: _read(path / name) for part, name in _SPELLED.items()}
    encoder = _read_encoder(path / "encoder")
    weights, metadata = _read_weights(path / "weights.safetensors")
    for part, fingerprint in _parts(spelled, encoder).items():
        if metadata.get(part) != fingerprint:
            raise DamagedBundle(
                f"{path}: the {part} is not the one its weights were trained with (fingerprint {fingerprint}, the weights say "
                f"{metadata.get(part)}). A bundle's files belong together; copy the whole folder from one source."
            )
    tensors = _digest(weights)
    if metadata.get(_TENSORS) != tensors:
        raise DamagedBundle(
            f"{path / 'weights.safetensors'} does not hold what was written to it. Copy it again, or train again."
        )
    origin = _read_provenance(path)
    if origin.pop(_WEIGHTS, None) != tensors:
        raise DamagedBundle(f"{path}: the provenance is that of other weights. Copy the whole folder from one source.")
    schema = from_dict(Schema, spelled["schema"], where="schema")
    system = from_dict(SystemConfig, spelled["config"], where="model")
    encoder.check(schema)
    ranker = build_ranker(schema, system, encoder.table_sizes)
    _check_weights(path, ranker, weights)
    ranker.load_state_dict(weights)
    return Bundle(
        path=path,
        schema=schema,
        system=system,
        encoder=encoder,
        ranker=ranker.eval(),
        metrics=spelled["file of metrics"],
        provenance=origin,
    )


def amend_provenance(path: Path, key: str, value: Any) -> None:
    """Says one thing more of where a bundle comes from.

    Raises:
        DamagedBundle: what it says now is damaged.
    """
    with here(path) as folder:
        known = _read_provenance(folder)
        _write_provenance(folder, {**known, key: value}, known[_WEIGHTS])
        if isinstance(path, Remote):
            put_folder(folder, path)


def _write_provenance(path: Path, known: Mapping[str, Any], tensors: str) -> None:
    text = json.dumps(signed(json.loads(json.dumps({**known, _WEIGHTS: tensors}))), indent=1) + "\n"
    write_text(path / "provenance.json", text)


def _read_provenance(path: Path) -> dict[str, Any]:
    file = path / "provenance.json"
    try:
        return unsigned(_read(file))
    except ValueError as error:
        raise DamagedBundle(f"{file} is damaged ({error}). Copy it again, or train again.") from None


def provenance(**known: Any) -> dict[str, Any]:
    """Where and when this runs, with what else is known (data fingerprint, seed, configuration)."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in ("liverank", "torch", "ray")}},
        **known,
    }


def save_weights(path: Path, module: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Parameters and buffers as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, path, metadata)


def fingerprint(value: Any) -> str:
    """Of a plain value, the same for equal ones on every machine."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _parts(spelled: Mapping[str, Mapping[str, Any]], encoder: EncoderState) -> dict[str, str]:
    """Fingerprints of the parts as they are written, so that a bundle outlives keys that are added to a config later."""
    return {"encoder": encoder.fingerprint, **{part: fingerprint(value) for part, value in spelled.items()}}


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of names, types, shapes and all numbers."""
    digest = xxhash.xxh3_64()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_weights(path: Path, ranker: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    expected = ranker.state_dict()
    wrong = [f"{name} is missing" for name in expected if name not in weights]
    wrong += [f"{name} is not known" for name in weights if name not in expected]
    wrong += [
        f"{name} has shape {list(weights[name].shape)}, the ranker needs {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ConfigError(
            f"{path}: weights do not fit the ranker: {'; '.join(wrong[:3])}{more}. "
            "They come from another version of the model's code; train again."
        )


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    path.open("rb").close()  # `safe_open` says of a file that may not be read that it is not there
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedBundle(f"{path} is damaged or cut short ({error}). Copy it again, or train again.") from None


def _read_encoder(path: Path) -> EncoderState:
    try:
        return EncoderState.load(path)
    except FileNotFoundError as error:
        raise DamagedBundle(f"{error} Copy the whole folder again, or train again.") from None
    except DamagedEncoder as error:
        raise DamagedBundle(f"{error} Copy it again, or train again.") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, way_out="Copy it again, or train again.")
    except ConfigError as error:
        raise DamagedBundle(str(error)) from None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _git_commit() -> str | None:
    """The commit of this source tree, with a `+` where it was changed since; None outside of git."""

    def ask(*command: str) -> str:
        asked = subprocess.run(
            ["git", *command],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        )
        return asked.stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
