"""Logs: from any source to canonical tables.

A source is a frozen config with a `kind`; `materialise` turns it into `CanonicalLogs`. Canonical logs are read where they
lie. All others have a converter in `SOURCES`, and what it writes is kept:

    OUTPUT/logs/         the canonical tables
    OUTPUT/truth/        simulated worlds only; no step that learns reads it
    OUTPUT/state/        simulated worlds only; what it takes to go on for further days
    OUTPUT/rows.json     data sets in files: what became of every row of every file
    OUTPUT/quarantine/   rows of these files that make no sense
    OUTPUT/run.json      what was converted, and how
    OUTPUT/inputs.json   size, time and digest of the files that were read

The folder appears whole or not at all. Meanwhile the work lies beside it, in `.OUTPUT.unfinished`; a conversion that was
killed goes on there where its converter leaves notes (`pipelines.logs.convert`), and starts afresh where it does not.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from models.config import ConfigError, config, from_dict, to_dict
from pipelines.logs import simulator
from pipelines.logs.canonical import CanonicalLogs, file_digest
from pipelines.logs.check import check
from pipelines.logs.convert import DataSet, Work, convert_files
from pipelines.logs.ids import as_ids
from pipelines.logs.simulator import SimulateConfig
from pipelines.logs.sources import ali_ccp, ebnerd, kuailive, kuailive_m3, kuairand, mapped, taobao, wechat2021
from pipelines.logs.sources.ali_ccp import AliCcpConfig
from pipelines.logs.sources.ebnerd import EbnerdConfig
from pipelines.logs.sources.kuailive import KuaiLiveConfig
from pipelines.logs.sources.kuailive_m3 import KuaiLiveM3Config
from pipelines.logs.sources.kuairand import KuaiRandConfig
from pipelines.logs.sources.mapped import CsvConfig
from pipelines.logs.sources.taobao import TaobaoConfig
from pipelines.logs.sources.wechat2021 import Wechat2021Config
from pipelines.places import Place, Remote, aside, fetch, mark_whole, put_folder
from pipelines.runs import RUN, RunFolder, discard, read_json, told, write_json, written
from pipelines.runs.noted import digest_of

__all__ = [
    "DATA_SETS",
    "SOURCES",
    "AliCcpConfig",
    "CanonicalConfig",
    "CanonicalLogs",
    "CsvConfig",
    "EbnerdConfig",
    "KuaiLiveConfig",
    "KuaiLiveM3Config",
    "KuaiRandConfig",
    "LogsConfig",
    "SimulateConfig",
    "TaobaoConfig",
    "Wechat2021Config",
    "Work",
    "as_ids",
    "check",
    "materialise",
]

_FORMAT = 4  # raised when a converter writes something else for the same config
_INPUTS = "inputs.json"
_GONE_ON_FROM = ("logs", "truth", "state")  # what a converter that goes on needs of what it wrote before


@config
class CanonicalConfig:
    """Logs that are canonical already; they are read where they lie.

    Attributes:
        path: the folder of the tables, or a place in a store of objects (s3://bucket/logs; see `pipelines.places`).
    """

    kind: Literal["canonical"] = "canonical"
    path: Place


LogsConfig = Annotated[
    CanonicalConfig
    | SimulateConfig
    | EbnerdConfig
    | KuaiLiveConfig
    | KuaiLiveM3Config
    | KuaiRandConfig
    | TaobaoConfig
    | Wechat2021Config
    | AliCcpConfig
    | CsvConfig,
    Discriminator("kind"),
]

# Data sets in files, by kind: from a source's config to what its files are, and what becomes of their rows.
DATA_SETS: dict[str, Callable[[Any], DataSet]] = {
    "ebnerd": ebnerd.data_set,
    "kuailive": kuailive.data_set,
    "kuailive_m3": kuailive_m3.data_set,
    "kuairand": kuairand.data_set,
    "taobao": taobao.data_set,
    "wechat2021": wechat2021.data_set,
    "ali_ccp": ali_ccp.data_set,
    "csv": mapped.data_set,
}

# Converters of their own, by kind. `convert(source, output)` writes the canonical tables into `output/logs` and, where it is
# known, what is true about them into `output/truth`. `source.inputs()` names the files that it reads, so that changed ones
# are noticed.
SOURCES: dict[str, Callable[[Any, Path], None]] = {"simulate": simulator.simulate}

# Of converters that can go on from what they wrote for another config, whether they can.
GOES_ON: dict[str, Callable[[Any, Any], bool]] = {"simulate": simulator.goes_on}


def materialise(source: LogsConfig, output: Path, work: Work | None = None) -> CanonicalLogs:
    """The canonical logs of `source`, checked. Converted ones are written to `output` unless they are there already.

    Raises:
        ConfigError: the source does not fit, or `output` holds something that was not written here.
    """
    if isinstance(source, CanonicalConfig):
        return _checked(CanonicalLogs(source.path))
    run, unfinished = RunFolder(output, "logs"), output.with_name(f".{output.name}.unfinished")
    if isinstance(output, Remote):
        unfinished = output  # nothing is renamed there; `logs` counts once it is whole
    convert, files = _conversion(source, work or Work())
    inputs = _inputs(source, files, output, unfinished)
    identity = _identity(source, inputs)
    found = run.differences(identity)
    if run.is_finished and not found:
        print(f"Logs: {output} is finished ({source.kind}); nothing to do.", flush=True)
        if _seen(output) != inputs:
            write_json(output / _INPUTS, inputs)
        return _checked(CanonicalLogs(output / "logs"))
    run.refuse_foreign()
    goes_on = run.is_finished and _goes_on(source, run.identity, identity)
    if goes_on:
        print(f"Logs: {output} is the beginning of what is asked for ({told(found)}); going on", flush=True)
    elif found:
        print(f"Logs: {output} was converted from something else ({told(found)}); replacing it.", flush=True)
    print(f"Logs: converting {source.kind} to {output}", flush=True)
    started = time.monotonic()
    if isinstance(output, Remote) and source.kind not in DATA_SETS:
        with aside(output.name) as draft:
            for folder in _GONE_ON_FROM if goes_on else ():
                fetch(output / folder, draft / folder)
            convert(draft)
            _checked(CanonicalLogs(draft / "logs"))
            if found:
                discard(output)
            write_json(output / _INPUTS, inputs)
            write_json(output / RUN, identity)
            for made in sorted(draft.iterdir(), key=lambda made: made.name == "logs"):  # which says that all is there: last
                put_folder(made, output / made.name)
        print(f"Logs: {output / 'logs'} written in {time.monotonic() - started:.1f} s", flush=True)
        return CanonicalLogs(output / "logs")
    if isinstance(output, Remote) and found:
        discard(output)
    _begin(unfinished, identity, inputs)
    if goes_on:
        for folder in _GONE_ON_FROM:
            shutil.copytree(output / folder, unfinished / folder, copy_function=_linked)
    try:
        convert(unfinished)
        _checked(CanonicalLogs(unfinished / "logs"))
    except BaseException:
        if not _can_go_on(unfinished):
            discard(unfinished)
        raise
    if isinstance(output, Remote):
        mark_whole(output / "logs")
    else:
        with written(output) as draft:
            unfinished.rename(draft)
    print(f"Logs: {output / 'logs'} written in {time.monotonic() - started:.1f} s", flush=True)
    return CanonicalLogs(output / "logs")


def _goes_on(source: Any, before: Mapping[str, Any] | None, identity: Mapping[str, Any]) -> bool:
    """Whether what was written for another config is the beginning of what is asked for now."""
    if source.kind not in GOES_ON or before is None or {**before, "config": identity["config"]} != identity:
        return False
    try:
        return GOES_ON[source.kind](from_dict(type(source), before["config"]), source)
    except ConfigError:
        return False


def _linked(file: str, beside: str) -> None:
    """The same file at another place as well; no converter changes a file that it has written."""
    try:
        os.link(file, beside)
    except OSError:
        shutil.copyfile(file, beside)


def _conversion(source: Any, work: Work) -> tuple[Callable[[Path], None], list[Path]]:
    """What writes the tables of a source into a folder, and the files that it reads."""
    if source.kind not in DATA_SETS:
        return partial(SOURCES[source.kind], source), source.inputs()
    data = DATA_SETS[source.kind](source)
    found = data.find(source.path)
    return partial(convert_files, data, source, found, work=work), found.paths


def _begin(unfinished: Path, identity: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Makes sure that what is left of an earlier conversion is of this one, and can be gone on with."""
    before = RunFolder(unfinished, "logs")
    if unfinished.exists() and (
        not (unfinished / "work" / "notes").is_dir() or before.is_foreign or before.differences(identity)
    ):
        discard(unfinished)
    elif unfinished.exists():
        print(f"Logs: going on in {unfinished}", flush=True)
    write_json(unfinished / _INPUTS, inputs)
    write_json(unfinished / RUN, identity)


def _can_go_on(unfinished: Path) -> bool:
    return (unfinished / "work" / "notes").is_dir()


def _identity(source: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that decides what a conversion writes: the config, the inputs it reads, the version of the converter."""
    return {
        "format": _FORMAT,
        "config": {key: value for key, value in to_dict(source).items() if key != "path"},  # the inputs, wherever they lie
        "inputs": {name: digest for name, (_, _, digest) in inputs.items()},
    }


def _inputs(source: Any, files: Iterable[Path], *before: Path) -> dict[str, list[Any]]:
    """Size, time and digest of every file that a source reads, by its path below `source.path`.

    A file of the size and time that it had before is not read again for its digest.

    Args:
        before: folders of earlier conversions.
    """
    known: dict[str, list[Any]] = {}
    for folder in before:
        known |= _seen(folder)
    found: dict[str, list[Any]] = {}
    for file in files:
        name = file.relative_to(source.path).as_posix() if file.is_relative_to(source.path) else file.name
        status = file.stat()
        size, changed, digest = known.get(name, [None, None, ""])
        if [size, changed] != [status.st_size, status.st_mtime_ns]:
            digest = file_digest(file) if file.suffix == ".parquet" else digest_of(file)
        found[name] = [status.st_size, status.st_mtime_ns, digest]
    return found


def _seen(folder: Path) -> dict[str, list[Any]]:
    try:
        return read_json(folder / _INPUTS, way_out="Delete it.")
    except (FileNotFoundError, ConfigError):
        return {}  # all it saves is reading


def _checked(logs: CanonicalLogs) -> CanonicalLogs:
    for remark in check(logs.as_now()):
        print(f"Logs: {remark}", flush=True)
    return logs
