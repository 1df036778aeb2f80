"""Logs: from any source to canonical tables.

A source is a frozen config with a `kind`; `materialise` turns it into `CanonicalLogs`. Converted logs are written once:

    OUTPUT/logs/            the canonical tables
    OUTPUT/truth/           simulated worlds only; no step of the pipeline reads it
    OUTPUT/manifest.json    what was converted, written last

A conversion works in `OUTPUT.partial` and is renamed when it is whole, so one that was killed leaves nothing behind
that could be mistaken for a log, and starts afresh.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from models.config import ConfigError, config, to_dict
from pipelines.logs import ebnerd, simulate
from pipelines.logs.canonical import CanonicalLogs, file_digest
from pipelines.logs.check import check
from pipelines.logs.ebnerd import EbnerdConfig
from pipelines.logs.ids import as_ids
from pipelines.logs.simulate import SimulateConfig

__all__ = ["CanonicalConfig", "CanonicalLogs", "EbnerdConfig", "LogsConfig", "SimulateConfig", "as_ids", "check", "materialise"]

_FORMAT = 1  # raised when a converter writes something else for the same config


@config
class CanonicalConfig:
    """Logs that are canonical already; they are read where they lie."""

    kind: Literal["canonical"] = "canonical"
    path: Path


LogsConfig = Annotated[CanonicalConfig | SimulateConfig | EbnerdConfig, Discriminator("kind")]


def materialise(source: CanonicalConfig | SimulateConfig | EbnerdConfig, output: Path) -> CanonicalLogs:
    """The canonical logs of `source`, checked. Converted ones are written to `output` unless they are there already.

    Raises:
        ConfigError: the source does not fit, or `output` holds something that was not written here.
    """
    if isinstance(source, CanonicalConfig):
        return _checked(CanonicalLogs(source.path))
    wanted = _identity(source)
    manifest = output / "manifest.json"
    if manifest.is_file() and _read_identity(manifest) == wanted:
        print(f"Logs: {output} is finished ({source.kind}); nothing to do.", flush=True)
        return _checked(CanonicalLogs(output / "logs"))
    if output.exists() and not manifest.is_file() and any(output.iterdir()):
        raise ConfigError(f"{output} holds something else than converted logs. Name another folder, or empty this one.")
    partial = output.with_name(output.name + ".partial")
    if partial.exists():
        print(f"Logs: {partial} is from a conversion that did not finish; starting afresh.", flush=True)
        shutil.rmtree(partial)
    print(f"Logs: converting {source.kind} to {output}", flush=True)
    started = time.monotonic()
    partial.mkdir(parents=True)
    try:
        if isinstance(source, SimulateConfig):
            simulate.simulate(source, partial / "logs", partial / "truth")
        else:
            ebnerd.convert(source, partial / "logs")
        logs = _checked(CanonicalLogs(partial / "logs"))
    except Exception:
        shutil.rmtree(partial)
        raise
    content = {"source": wanted, "fingerprint": logs.fingerprint(), "seconds": round(time.monotonic() - started, 1)}
    (partial / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
    if output.exists():
        if manifest.is_file():
            print(f"Logs: {output} was converted from something else; replacing it.", flush=True)
        shutil.rmtree(output)
    partial.rename(output)
    print(f"Logs: {output / 'logs'} written in {content['seconds']} s", flush=True)
    return CanonicalLogs(output / "logs")


def _identity(source: SimulateConfig | EbnerdConfig) -> dict[str, Any]:
    """All that decides what a conversion writes: the config, the inputs it reads, the version of the converter."""
    inputs = source.inputs() if isinstance(source, EbnerdConfig) else []
    return {
        "format": _FORMAT,
        "config": {key: value for key, value in to_dict(source).items() if key != "path"},  # the inputs, wherever they lie
        "inputs": {file.name: file_digest(file) for file in inputs},
    }


def _read_identity(manifest: Path) -> dict[str, Any] | None:
    try:
        return json.loads(manifest.read_text())["source"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ConfigError(f"{manifest} is damaged, so {manifest.parent} cannot be trusted. Remove that folder.") from None


def _checked(logs: CanonicalLogs) -> CanonicalLogs:
    for remark in check(logs):
        print(f"Logs: {remark}", flush=True)
    return logs
