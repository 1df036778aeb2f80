"""What a structure search is about: which targets, in which order, from which graph; what a graph scores."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from models.config import ConfigError
from models.metrics.names import direction
from models.schema import Schema
from models.system import SystemConfig, ranker_without_weights
from pipelines.encode.feeds import LABEL_PREFIX
from pipelines.prepared import Prepared
from pipelines.report.search.graphs import Graph
from pipelines.runs import read_json
from pipelines.runs.sealed import SealedFile
from pipelines.train import TrainConfig
from pipelines.train.defined import check_defined
from pipelines.train.progress import read_history
from pipelines.train.training import identity_of as identity_of_training
from pipelines.tune.config import TuneConfig, checked, configs, schema_of
from pipelines.tune.objectives import measured
from pipelines.tune.structure.graphs import EMPTY, StructureConfig, graph_of, parents_of, spelled

Seeded = tuple[Graph, int]
"""One training: a graph and its seed."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What all trainings of a search share, by value; data by path.

    Attributes:
        schema: what the experiment trains for; the parents of the searched targets are replaced.
        names: the searched targets, in the schema's order.
    """

    spelling: Mapping[str, Any]
    prepared: Path
    fingerprint: str
    folder: Path
    schema: Schema
    names: tuple[str, ...]
    config: TuneConfig

    @property
    def structure(self) -> StructureConfig:
        assert self.config.structure is not None
        return self.config.structure

    def bundled(self) -> list[Path]:
        """Metrics of all finished trainings."""
        return list(self.folder.glob("trials/*/bundle/metrics.json"))

    def schema_with(self, graph: Graph) -> Schema:
        return with_parents(self.schema, parents_of(graph, self.names))

    def folder_of(self, graph: Graph, seed: int) -> Path:
        return self.folder / "trials" / f"{key_of(graph)}-seed-{seed}"

    def settings(self, seed: int) -> tuple[SystemConfig, TrainConfig]:
        """What a training monitors is the score where that is one metric, else what the experiment says."""
        config = self.config if len(self.config.metrics) == 1 else replace(self.config, metric=None)
        return configs(self.spelling, {"train.seed": seed}, config)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Metrics whose mean is the score."""
        binary = tuple(f"{name}.auc" for name in self.names if self.schema.target(name).is_binary)
        return self.config.metrics or binary

    @property
    def metric(self) -> str:
        """What the score is called."""
        paths = [path if direction(path) == "max" else f"-{path}" for path in self.paths]
        return paths[0] if len(paths) == 1 else f"mean of {', '.join(paths)}"

    def score(self, graph: Graph, seed: int) -> float | None:
        """Of the best epoch of a finished training, larger is better; None if it is not finished.

        Raises:
            ConfigError: the validation split does not define it.
        """
        file = self.folder_of(graph, seed) / "bundle" / "metrics.json"
        if not file.exists():
            return None
        metrics = read_json(file, way_out=f"Delete {file.parent} and start again.")
        values = {path: measured(metrics, path) for path in self.paths}
        return fmean(value if direction(path) == "max" else -value for path, value in values.items())

    def seconds(self, graph: Graph, seed: int) -> float:
        return sum((record.seconds for record in read_history(self.folder_of(graph, seed))), 0.0)


@dataclass(frozen=True, kw_only=True)
class Posed:
    """A search as it begins; without a `start`, target by target."""

    problem: Problem
    order: tuple[str, ...]
    start: Graph | None
    reference: Graph | None


def posed_of(spelling: Mapping[str, Any], prepared_path: Path, config: TuneConfig, output: Path) -> Posed:
    if config.structure is None:
        raise ConfigError("tune.structure is not set, so there is no graph to search; `structure: {}` takes all defaults.")
    prepared_path = Path(prepared_path).resolve()
    prepared = Prepared.open(prepared_path, schema=schema_of(spelling))
    if not prepared.files("valid"):
        raise ConfigError(f"`{prepared_path}` has no validation feeds to search by; set prepare.valid_days to 1 or more.")
    problem = Problem(
        spelling=spelling,
        prepared=prepared_path,
        fingerprint=prepared.fingerprint,
        folder=Path(output).resolve(),
        schema=prepared.schema,
        names=_names(prepared.schema, config.structure),
        config=config,
    )
    start = None if config.structure.start == "empty" else _graph("start", problem)
    reference = _graph("reference", problem)
    _check(problem, [graph for graph in (start, reference) if graph is not None])
    model, train = problem.settings(0)
    paths, trained = (*problem.paths, train.monitor), ranker_without_weights(prepared.schema, model).trained
    check_defined(prepared, dict.fromkeys(paths), trained, "tune.metric" if config.metrics else "train.monitor")
    return Posed(problem=problem, order=order_of(prepared, config.structure, problem.names), start=start, reference=reference)


def with_parents(schema: Schema, parents: Mapping[str, Sequence[str]]) -> Schema:
    """The schema with other parents of the targets that are named."""
    targets = [replace(target, parents=tuple(parents.get(target.name, target.parents))) for target in schema.targets]
    return replace(schema, targets=tuple(targets))


def order_of(prepared: Prepared, structure: StructureConfig, names: Sequence[str]) -> tuple[str, ...]:
    """In which targets get their turn."""
    if structure.order == "listed":
        return structure.targets
    binary = [name for name in names if prepared.schema.target(name).is_binary]
    uneven = {name: abs(share - 0.5) for name, share in shares_of(prepared, binary).items()}
    return (*sorted(binary, key=uneven.__getitem__), *(name for name in names if name not in uneven))


def shares_of(prepared: Prepared, names: Sequence[str]) -> dict[str, float]:
    """Positives among the final labels of the training split, by target."""
    positives, rows = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for file in prepared.files("train"):
        for batch in SealedFile(file).batches(65_536, [LABEL_PREFIX + name for name in names]):
            labels = {name: batch.column(LABEL_PREFIX + name).flatten().to_numpy() for name in names}
            for name, label_N in labels.items():
                rows[name] += int((label_N >= 0).sum())
                positives[name] += float((label_N > 0).sum())
    return {name: count / max(rows[name], 1) for name, count in positives.items()}


def _names(schema: Schema, structure: StructureConfig) -> tuple[str, ...]:
    for name in structure.targets:
        if name not in schema.target_names:
            raise ConfigError(
                f"structure.targets names `{name}`, which is not a target. Targets: {', '.join(schema.target_names)}."
            )
    wanted = structure.targets or tuple(target.name for target in schema.targets if target.loss_weight > 0)
    if len(wanted) < 2:
        raise ConfigError(f"a graph needs two targets that are trained for, there is {', '.join(wanted) or 'none'}.")
    return tuple(name for name in schema.target_names if name in wanted)


def _graph(which: Literal["start", "reference"], problem: Problem) -> Graph | None:
    given = getattr(problem.structure, which)
    match given:
        case None:
            return None
        case "empty":
            return EMPTY
        case "schema":
            given = {name: problem.schema.parents(name) for name in problem.names}
    unknown = sorted({*given, *(parent for above in given.values() for parent in above)} - set(problem.names))
    if unknown:
        raise ConfigError(
            f"structure.{which} has `{unknown[0]}` in its graph, which is not searched. Searched: {', '.join(problem.names)}."
        )
    return graph_of(given)


def _check(problem: Problem, graphs: Sequence[Graph]) -> None:
    """Refuses what no graph could make good, before anything is trained."""
    model, _ = problem.settings(0)
    coupling = model.coupling
    if coupling.kind == "independent":
        raise ConfigError(
            "the model's coupling is `independent`, so the graph of targets changes nothing. Take a system that has one: "
            "model.system=dbmtl, esmm, aitm or pimm."
        )
    if coupling.kind == "dbmtl" and (coupling.parents is not None or coupling.root is not None):
        raise ConfigError(
            "model.coupling has a graph of its own, so the schema's, which is searched, changes nothing. Leave out "
            "model.coupling.parents and root (system dbmtl)."
        )
    if not problem.paths:
        raise ConfigError(
            "none of the searched targets is binary, so there is no AUC to search by. Set tune.metric, to "
            f"{problem.names[0]}.mse_transformed say."
        )
    for graph in (EMPTY, *graphs):
        refused = refusal(problem, graph)
        if refused is not None:
            raise ConfigError(refused if graph == EMPTY else f"the graph {spelled(graph)} cannot be trained: {refused}")


def refusal(problem: Problem, graph: Graph) -> str | None:
    """Why no ranker can have the graph; None if one can."""
    schema = problem.schema_with(graph)
    try:
        model, _ = checked(problem.spelling, {}, problem.config, schema)
    except ConfigError as error:
        return str(error)
    trained = ranker_without_weights(schema, model).trained
    missing = [name for name in problem.names if name not in trained]
    if missing:
        return (
            f"`{missing[0]}` is not trained for, so its place in the graph shows in no score. Give it a loss_weight above 0, "
            "or leave it out of structure.targets."
        )
    return None


def identity(problem: Problem) -> dict[str, Any]:
    """What all scores in a folder have in common; how the search chooses among graphs is no part of it."""
    training = identity_of_training(problem.fingerprint, problem.schema_with(EMPTY), *problem.settings(0))
    del training["train"]["seed"]
    return {**training, "targets": list(problem.names)}


def key_of(graph: Graph) -> str:
    """A folder's name."""
    return hashlib.blake2b(spelled(graph).encode(), digest_size=5).hexdigest()
