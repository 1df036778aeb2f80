"""Logs: from any source to canonical tables.

A source is a frozen config with a `kind`; `materialise` turns it into `CanonicalLogs`. Canonical logs are read where they
lie. All others have a converter in `SOURCES`, and what it writes is kept:

    OUTPUT/logs/          the canonical tables
    OUTPUT/truth/         simulated worlds only; no step that learns reads it
    OUTPUT/account.json   what became of all that was read
    OUTPUT/run.json       what was converted, and how

The folder appears whole or not at all; a conversion that was killed starts afresh.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from models.config import config, to_dict
from pipelines.logs import ebnerd, simulator, wechat2021
from pipelines.logs.account import Converted, write_converted
from pipelines.logs.canonical import CanonicalLogs, file_digest
from pipelines.logs.check import check
from pipelines.logs.ebnerd import EbnerdConfig
from pipelines.logs.ids import as_ids
from pipelines.logs.simulator import SimulateConfig
from pipelines.logs.wechat2021 import Wechat2021Config
from pipelines.paths import LocalPath
from pipelines.runs import RUN, RunFolder, told, write_json, written
from pipelines.runs.noted import digest_of

__all__ = [
    "SOURCES",
    "CanonicalConfig",
    "CanonicalLogs",
    "EbnerdConfig",
    "LogsConfig",
    "SimulateConfig",
    "Wechat2021Config",
    "as_ids",
    "check",
    "materialise",
]

_FORMAT = 2  # raised when a converter writes something else for the same config


@config
class CanonicalConfig:
    """Logs that are canonical already; they are read where they lie.

    Attributes:
        path: the folder of the tables.
    """

    kind: Literal["canonical"] = "canonical"
    path: LocalPath


LogsConfig = Annotated[CanonicalConfig | SimulateConfig | EbnerdConfig | Wechat2021Config, Discriminator("kind")]

# Converters by kind. `convert(source, output)` writes the canonical tables into `output/logs` and, where it is known, what is
# true about them into `output/truth`; it returns what became of all that it read. `source.inputs()` names the files that it
# reads, so that changed ones are noticed.
SOURCES: dict[str, Callable[[Any, Path], list[Converted]]] = {
    "simulate": simulator.simulate,
    "ebnerd": ebnerd.convert,
    "wechat2021": wechat2021.convert,
}


def materialise(source: LogsConfig, output: Path) -> CanonicalLogs:
    """The canonical logs of `source`, checked. Converted ones are written to `output` unless they are there already.

    Raises:
        ConfigError: the source does not fit, or `output` holds something that was not written here.
    """
    if isinstance(source, CanonicalConfig):
        return _checked(CanonicalLogs(source.path))
    run, identity = RunFolder(output, "logs"), _identity(source)
    found = run.differences(identity)
    if run.is_finished and not found:
        print(f"Logs: {output} is finished ({source.kind}); nothing to do.", flush=True)
        return _checked(CanonicalLogs(output / "logs"))
    run.refuse_foreign()
    if found:
        print(f"Logs: {output} was converted from something else ({told(found)}); replacing it.", flush=True)
    print(f"Logs: converting {source.kind} to {output}", flush=True)
    started = time.monotonic()
    with written(output) as draft:
        converted = SOURCES[source.kind](source, draft)
        write_converted(draft, converted)
        _checked(CanonicalLogs(draft / "logs"))
        write_json(draft / RUN, identity)
    for each in converted:
        print(f"Logs: {each}", flush=True)
    print(f"Logs: {output / 'logs'} written in {time.monotonic() - started:.1f} s", flush=True)
    return CanonicalLogs(output / "logs")


def _identity(source: SimulateConfig | EbnerdConfig | Wechat2021Config) -> dict[str, Any]:
    """All that decides what a conversion writes: the config, the inputs it reads, the version of the converter."""
    return {
        "format": _FORMAT,
        "config": {key: value for key, value in to_dict(source).items() if key != "path"},  # the inputs, wherever they lie
        "inputs": {file.name: _digest(file) for file in source.inputs()},
    }


def _digest(file: Path) -> str:
    """Changes with the file's content; a Parquet file's footer tells it without reading the whole."""
    return file_digest(file) if file.suffix == ".parquet" else digest_of(file)


def _checked(logs: CanonicalLogs) -> CanonicalLogs:
    for remark in check(logs):
        print(f"Logs: {remark}", flush=True)
    return logs
