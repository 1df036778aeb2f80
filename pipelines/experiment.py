"""An experiment: one YAML file: logs, schema, preparation, model, training, search, comparison, report and endpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import field as default
from functools import cached_property
from pathlib import Path
from typing import Any

from models.config import ConfigError, config, from_dict, overlaid, replaced, to_dict
from models.schema import Schema
from models.system import SystemConfig
from models.zoo import resolve
from pipelines.check import CheckConfig
from pipelines.cluster import RayConfig, output_folder
from pipelines.compare import CompareConfig
from pipelines.compare.config import columns_of, systems_of
from pipelines.compare.curves import varied_of
from pipelines.compare.paper import PaperConfig
from pipelines.encode.feeds import feeds_schema
from pipelines.evaluate import EvaluateConfig
from pipelines.logs import LogsConfig, SimulateConfig
from pipelines.paths import FolderName, folder_name, local
from pipelines.places import place
from pipelines.prepare import PrepareConfig
from pipelines.serve import ServeConfig
from pipelines.train import TrainConfig
from pipelines.tune import TuneConfig
from pipelines.yaml_text import read_file, read_value


@config
class Experiment:
    """Everything a job needs to know.

    Attributes:
        name: of the run; results lie in `output/name`.
        output: folder of all runs, or a place in a store of objects (s3://bucket/runs; see `pipelines.places`). In a job that
            was submitted to a cluster, a URI or an absolute path that every node reaches.
        logs: where logs come from.
        schema: what a model reads, and what it predicts.
        prepare: logs to feeds.
        model: `system` names a row of the zoo; further keys change that row (see `models.zoo.resolve`).
        train: training.
        tune: search.
        evaluate: report.
        check: from where on something about the logs is worth a warning.
        compare: systems beside each other; None for none.
        paper: the comparison made in several simulated worlds (`jobs.paper`); None for none.
        serve: endpoint.
        ray: which Ray is used.
    """

    name: FolderName
    output: str = "runs"
    logs: LogsConfig
    schema: Schema
    check: CheckConfig = default(default_factory=CheckConfig)
    prepare: PrepareConfig = default(default_factory=PrepareConfig)
    model: dict[str, Any] = default(default_factory=lambda: {"system": "mmoe"})
    train: TrainConfig = default(default_factory=TrainConfig)
    tune: TuneConfig = default(default_factory=TuneConfig)
    evaluate: EvaluateConfig = default(default_factory=EvaluateConfig)
    compare: CompareConfig | None = None
    paper: PaperConfig | None = None
    serve: ServeConfig = default(default_factory=ServeConfig)
    ray: RayConfig = default(default_factory=RayConfig)

    def __post_init__(self) -> None:
        folder_name(self.name)
        place(self.output)
        feeds_schema(self.schema)  # names that two columns would have
        resolve(self.model)  # a wrong model is told before any work is done
        if self.compare is not None:
            varied_of(self.compare, self.schema, systems_of(self.compare, self.schema))
            columns_of(self.compare, self.schema, has_truth=isinstance(self.logs, SimulateConfig))

    @cached_property
    def system(self) -> SystemConfig:
        return resolve(self.model)

    @cached_property
    def folder(self) -> Path:
        return output_folder(self.output, self.name)


def load_spelling(file: str | Path, changes: Iterable[str] = ()) -> dict[str, Any]:
    """The YAML file as plain dicts, with `a.b=c` changes applied; a value is read as YAML.

    `extends: other.yaml` (beside the file, or a path from there) lays the file over another one: sections are merged key by
    key, lists and single values replace, and null takes a key away, so that its default stands.

    Raises:
        ConfigError: no such file, no YAML, a file that extends itself, a change without `=`.
    """
    spelling = _read(local(file), ())
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise ConfigError(f"`--set {change}`: write it as --set section.key=value.")
        spelling = replaced(spelling, key, read_value(value, f"`--set {change}`"))
    return spelling


def spelled_as_before(spelling: Mapping[str, Any]) -> list[str]:
    """What a configuration of an earlier version says that is still understood and means something else now, a line each."""
    schema = spelling.get("schema")
    targets = schema.get("targets") if isinstance(schema, dict) else None
    return [
        f"schema.targets: `{each.get('name')}` says `transform`, which is `head` now, and its fusion_weight "
        f"({each['fusion_weight']}) weighs the value in its unit now, and no longer its logarithm: lower one chosen before."
        for each in targets or ()
        if isinstance(each, dict) and each.get("transform") == "log1p" and each.get("fusion_weight")
    ]


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if not path.is_file():
        near = sorted(str(found) for found in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"no config file {path}." + (f" There are: {', '.join(near)}." if near else ""))
    if path.resolve() in above:
        raise ConfigError(f"{path} extends itself, by way of {', '.join(str(each) for each in above)}.")
    spelling = read_file(path)
    if not isinstance(spelling, dict):
        raise ConfigError(f"{path} holds no sections (found {type(spelling).__name__}).")
    below = spelling.pop("extends", None)
    if below is None:
        return spelling
    under = _read(path.parent / local(str(below)), (*above, path.resolve()))
    return _without_nulls(overlaid(under, spelling), under)


def _without_nulls(merged: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
    """`merged` without the keys of `under` that what lies over it has made null."""
    kept = {}
    for key, value in merged.items():
        old = under.get(key)
        if value is None and old is not None:
            continue
        kept[key] = _without_nulls(value, old) if isinstance(value, dict) and isinstance(old, dict) else value
    return kept


def load_experiment(file: str | Path, changes: Iterable[str] = ()) -> Experiment:
    """Reads and checks an experiment.

    Raises:
        ConfigError: unknown keys with the known ones, wrong values with their path.
    """
    spelling = load_spelling(file, changes)
    if isinstance(train := spelling.get("train", {}), dict):
        # so that one value below a default choice (`train.optimiser.dense.rate`) can be given without repeating its `kind`
        spelling["train"] = overlaid(to_dict(TrainConfig()), train)
    return from_dict(Experiment, spelling)
