"""The settings of a comparison: which systems, over which seeds, by which metrics, and which orderings are claimed."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from models.config import ConfigError, config, from_dict, overlaid, replaced, to_dict
from models.layers.tables import TableSet
from models.optim import OptimiserConfig
from models.schema import Schema
from models.system import SystemConfig, build_ranker
from models.zoo import resolve
from pipelines.encode.feeds import LABEL_PREFIX, STAGE
from pipelines.evaluate.activity import ENTRIES_PREFIX, IMPRESSIONS
from pipelines.evaluate.score import KEYS, evaluate_table
from pipelines.evaluate.truth import knowable
from pipelines.report.evaluation.metrics import EvaluationResult

BASELINES = ("popularity", "booster", "truth")  # rows that `evaluate.baselines` adds
TARGETS, EPOCHS, RATE, OPTIMISER = "targets", "epochs", "rate", "optimiser"  # what a row may say beside its model
BESIDE_MODEL = (TARGETS, EPOCHS, RATE, OPTIMISER)
OF_A_ROW = ("loss_weight", "parents", "head", "bins")  # what a row may change of a target: nothing that decides a label


@config
class Claim:
    """An ordering to be tested: `better` above each of `than` on each metric. A chain is several claims.

    Attributes:
        better: label of the system that is claimed to be better.
        than: labels of those that it is claimed to be better than.
        metrics: as in `compare.metrics`; none means all of the table's.
        or_equal: it is enough that no difference to the contrary shows.
        premise: it is no claim of a paper's but what its claims stand on (`jobs.paper` says it first).
    """

    better: str
    than: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    or_equal: bool = False
    premise: bool = False

    def __post_init__(self) -> None:
        if not self.than:
            raise ValueError(f"a claim about `{self.better}` needs at least one system in `than`.")
        if self.better in self.than:
            raise ValueError(f"a claim says that `{self.better}` is better than itself.")


@config
class Curve:
    """One setting of a system varied, all else as it is: a picture of the metrics over its values.

    Each value is a system of its own, trained over the same seeds and kept out of the table. The system's own value is among
    them, and a value that makes a row of the table anew takes that row's cells.

    Attributes:
        of: the system's label.
        axis: the setting, as path in an experiment (`model.learner.specific_steps`), or `epochs` of a row that says its own.
        values: numbers, words or lists of them.
        title: what the axis is called; empty means its path.
        symbol: its name in labels (`mmoe_cmlir[k=8]`); empty means the path's last part.
        metrics: as in `compare.metrics`; none means those of the table that are no single level's, stage's or history's.
    """

    of: str
    axis: str
    values: tuple[Any, ...]
    title: str = ""
    symbol: str = ""
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.axis != EPOCHS and (not self.axis.startswith("model.") or self.axis in ("model.", "model.system")):
            raise ValueError(
                "a curve's axis is a setting of the system's model, such as model.learner.specific_steps, or epochs, got "
                f"{self.axis!r}. Another row of the zoo is a system of its own, and what is in `train` is alike for all."
            )
        if not self.values:
            raise ValueError(f"a curve over {self.axis} needs at least one value.")

    @property
    def name(self) -> str:
        return self.title or self.axis.removeprefix("model.")

    def label(self, value: Any) -> str:
        return f"{self.of}[{self.symbol or self.axis.rpartition('.')[2]}={spelled(value)}]"


@config
class CompareConfig:
    """Systems x seeds on one prepared table. All else (early stopping, batch; split, baselines) is the experiment's.

    Attributes:
        systems: rows of the table by label, spelled as `model:`; `targets` may change, by name, a target's loss_weight,
            parents, head or bins for this row, `epochs` how long it is trained, for learners that plan their whole
            training need another length than those that are stopped early, `rate` its learning rate, of dense parameters and
            tables alike, which is then not searched for, and `optimiser` what else is laid over `train.optimiser` for it (L2 or
            eps, say).
        common: laid over every system's row of the zoo, so that all are alike in it (widths, say); what a system says
            itself stands.
        seeds: of weights, data order and dropout; one training each.
        rates: learning rates, of dense parameters and tables alike. Of several, each system takes the one that is best on
            the validation split; none means those of `train.optimiser`.
        rate_seeds: seeds that choose among the rates; None means the first of `seeds`.
        base: the row that RelaImpr and costs refer to; empty means the first system.
        metrics: columns, as `target.metric` (`click.auc`, `order.ndcg@5`, `click.auc_by_level.tail`,
            `click.auc_by_activity.low`, `click.auc_by_history.channels.1-5`, `fused.poor@3`); none means the AUC of every
            binary target and the squared error, in the logarithm, of every value.
        fewest_positives: a metric with drawn labels that rests on fewer positives is not shown, and no claim is tested on it;
            expected metrics are always shown.
        claims: orderings to be tested.
        curves: settings of single systems to be varied.
        max_concurrent: cells at a time; None leaves it to Ray's logical CPUs.
        cpus_per_cell: logical CPUs that a cell holds; `train.threads` are its PyTorch threads.
        gpus_per_cell: GPUs that a cell holds; may be a part of one.
    """

    systems: dict[str, dict[str, Any]]
    common: dict[str, Any] = default(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = ()
    rate_seeds: tuple[int, ...] | None = None
    base: str = ""
    metrics: tuple[str, ...] = ()
    fewest_positives: int = 100
    claims: tuple[Claim, ...] = ()
    curves: tuple[Curve, ...] = ()
    max_concurrent: int | None = None
    cpus_per_cell: float = 1.0
    gpus_per_cell: float = 0.0

    def __post_init__(self) -> None:
        if not self.systems:
            raise ValueError("compare.systems is empty; name a row of the zoo: systems: {mmoe: {system: mmoe}}.")
        self._check_labels()
        for name, values in (("seeds", self.seeds), ("rate_seeds", self.seeds_of_rates), ("rates", self.rates)):
            if len(set(values)) < len(values) or (not values and name != "rates"):
                raise ValueError(f"compare.{name} must be different numbers, at least one, got {list(values)}.")
        if min((*self.seeds, *self.seeds_of_rates)) < 0:
            raise ValueError(f"compare.seeds must not be negative, got {list(self.seeds)} and {list(self.seeds_of_rates)}.")
        if not all(rate > 0 for rate in self.rates):
            raise ValueError(f"compare.rates must be above 0, got {list(self.rates)}.")
        if {"system", *BESIDE_MODEL} & self.common.keys():
            raise ValueError(
                "compare.common is what all systems share; `system`, `targets`, `epochs`, `rate` and `optimiser` belong to a "
                "row of `systems`."
            )
        if self.fewest_positives < 0:
            raise ValueError(f"compare.fewest_positives must not be negative, got {self.fewest_positives}.")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError(f"compare.max_concurrent must be at least 1, got {self.max_concurrent}.")
        if self.cpus_per_cell <= 0 or self.gpus_per_cell < 0:
            raise ValueError(
                "compare needs cpus_per_cell > 0 and gpus_per_cell >= 0, "
                f"got {self.cpus_per_cell:g} and {self.gpus_per_cell:g}."
            )

    @property
    def seeds_of_rates(self) -> tuple[int, ...]:
        return self.seeds[:1] if self.rate_seeds is None else self.rate_seeds

    @property
    def base_label(self) -> str:
        return self.base or next(iter(self.systems))

    def _check_labels(self) -> None:
        check_labels(self.systems)
        named = [("base", self.base)] if self.base else []
        named += [("claims", label) for claim in self.claims for label in (claim.better, *claim.than)]
        named += [("curves", curve.of) for curve in self.curves]
        for where, label in named:
            if label not in self.systems:
                raise ValueError(f"compare.{where}: `{label}` is not among the systems: {', '.join(self.systems)}.")


@dataclass(frozen=True, kw_only=True)
class System:
    """A row of the table, resolved: the ranker and the schema it is trained for.

    Attributes:
        epochs: how long it is trained at most; None as the experiment says.
        rate: its learning rate; None as the comparison says.
        optimiser: what is laid over the experiment's.
    """

    label: str
    model: SystemConfig
    schema: Schema
    epochs: int | None = None
    rate: float | None = None
    optimiser: Mapping[str, Any] = default(default_factory=dict)

    def optimiser_over(self, shared: OptimiserConfig) -> OptimiserConfig:
        """
        Raises:
            ConfigError: settings that do not fit, with the system's label.
        """
        try:
            return from_dict(OptimiserConfig, overlaid(to_dict(shared), self.optimiser), where=OPTIMISER)
        except ConfigError as error:
            raise ConfigError(f"compare.systems.{self.label}: {error}") from None


def folder_of(label: str) -> str:
    """A label as the name of a folder: `STAN w/o Beta` becomes `STAN-w-o-Beta`."""
    return re.sub(r"[^A-Za-z0-9._+]+", "-", label).strip("-.")


def check_labels(labels: Iterable[str], where: str = "systems") -> None:
    """
    Raises:
        ValueError: a label that cannot be one, or two whose folders would be one.
    """
    folders: dict[str, str] = {}
    for label in labels:
        folder = folder_of(label)
        if not folder:
            raise ValueError(f"compare.{where}: {label!r} is no label; it needs a letter or digit.")
        if "," in label:
            raise ValueError(f"compare.{where}: {label!r} holds a comma, which divides labels in --only; leave it out.")
        if label in BASELINES:
            raise ValueError(f"compare.{where}: `{label}` is the name of a baseline; give the system another label.")
        if folder in folders:
            raise ValueError(
                f"compare.{where}: `{folders[folder]}` and `{label}` would share the folder `{folder}`; "
                "make the labels differ in more than signs."
            )
        folders[folder] = label


def spelled(value: Any) -> str:
    """A curve's value in a label or at an axis: `0.001`, `natural`, `128-64`."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "-".join(map(spelled, value))
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value)


def systems_of(compare: CompareConfig, schema: Schema) -> tuple[System, ...]:
    """The rows in their order.

    Raises:
        ConfigError: a spelling that does not fit, with the system's label.
    """
    found = []
    for label in compare.systems:
        try:
            found.append(system_of(compare, schema, label))
        except ConfigError as error:
            raise ConfigError(f"compare.systems.{label}: {error}") from None
    return tuple(found)


def system_of(compare: CompareConfig, schema: Schema, of: str, varied: Curve | None = None, value: Any = None) -> System:
    """A row, or the system that a curve makes of it.

    Raises:
        ConfigError: a spelling that does not fit.
    """
    spelling = compare.systems[of]
    model = overlaid(compare.common, {key: setting for key, setting in spelling.items() if key not in BESIDE_MODEL})
    epochs = spelling.get(EPOCHS)
    if varied is not None and varied.axis == EPOCHS:
        if epochs is None:
            raise ConfigError(f"a curve over epochs needs a row that says its own; give `{of}` epochs.")
        epochs = value
    elif varied is not None:
        model = replaced(model, varied.axis.removeprefix("model."), value)
    if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
        raise ConfigError(f"epochs must be a whole number of at least 1, got {epochs!r}.")
    rate = spelling.get(RATE)
    if rate is not None and (not isinstance(rate, int | float) or rate <= 0):
        raise ConfigError(f"rate must be a number above 0, got {rate!r}.")
    label = of if varied is None else varied.label(value)
    targets = _with_targets(schema, spelling.get(TARGETS) or {})
    optimiser = spelling.get(OPTIMISER) or {}
    if not isinstance(optimiser, Mapping):
        raise ConfigError(f"`optimiser` is {optimiser!r}; write settings: {{dense: {{l2: 0.00001}}}}.")
    return System(label=label, model=resolve(model), schema=targets, epochs=epochs, rate=rate, optimiser=optimiser)


def columns_of(compare: CompareConfig, schema: Schema, *, has_truth: bool = False) -> tuple[str, ...]:
    """The table's metrics, as `target.metric`.

    Args:
        has_truth: the logs are simulated, so that there are expected metrics.

    Raises:
        ConfigError: a metric, of the table, a claim or a curve, that an evaluation of this schema does not give.
    """
    columns = compare.metrics or tuple(
        f"{target.name}.{'auc' if target.is_binary else 'mse_transformed'}" for target in schema.targets
    )
    result = _blank_result(schema, has_truth)
    asked = [("metrics", columns), *(("claims", claim.metrics) for claim in compare.claims)]
    for where, paths in (*asked, *(("curves", curve.metrics) for curve in compare.curves)):
        for path in paths:
            try:
                result.value(path)
            except KeyError as error:
                raise ConfigError(f"compare.{where}: {error.args[0]}") from None
    return tuple(dict.fromkeys(columns))


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many numbers a system learns: in the embedding tables, and outside of them."""

    dense: int
    tables: int


def parameters_of(system: System, table_sizes: Mapping[str, int]) -> Parameters:
    """Counted on a ranker that takes no memory.

    Raises:
        ConfigError: a system that cannot work on its schema.
    """
    try:
        with torch.device("meta"):
            ranker = build_ranker(system.schema, system.model, table_sizes)
    except ValueError as error:
        raise ConfigError(f"compare.systems.{system.label}: {error}") from None
    tables = sum(module.weight.numel() for module in ranker.modules() if isinstance(module, TableSet))  # each once
    return Parameters(dense=sum(parameter.numel() for parameter in ranker.parameters()) - tables, tables=tables)


def _with_targets(schema: Schema, changes: Mapping[str, Any]) -> Schema:
    """The schema with targets changed in what a row may change."""
    if not isinstance(changes, Mapping):
        raise ConfigError(f"`targets` is {changes!r}; write settings by target: {{{schema.target_names[0]}: {{bins: 10}}}}.")
    spelling = schema.to_dict()
    targets = {target["name"]: target for target in spelling["targets"]}
    for name, change in changes.items():
        if name not in targets:
            raise ConfigError(f"targets: `{name}` is not a target. Targets: {', '.join(targets)}.")
        if not isinstance(change, Mapping) or (wrong := [key for key in change if key not in OF_A_ROW]):
            found = repr(change) if not isinstance(change, Mapping) else f"`{wrong[0]}`"
            raise ConfigError(
                f"targets.{name}: {found} cannot be set for one row, for all rows share the prepared labels. "
                f"A row may set: {', '.join(OF_A_ROW)}."
            )
        targets[name] = {**targets[name], **change}
    return from_dict(Schema, {**spelling, "targets": list(targets.values())}, where="targets") if changes else schema


def _blank_result(schema: Schema, has_truth: bool) -> EvaluationResult:
    """The metrics of two candidates, to see which there are."""
    zeros = np.zeros(2, np.int64)
    columns = {**{name: zeros for name in (*KEYS, IMPRESSIONS)}, **({STAGE: zeros} if schema.stages is not None else {})}
    columns |= {ENTRIES_PREFIX + history.name: zeros for history in schema.histories}
    for name in schema.target_names:
        columns |= {name: np.array([0.25, 0.75]), LABEL_PREFIX + name: np.array([0.0, 1.0])}
    return evaluate_table(pa.table(columns), schema, known=knowable(schema, 2) if has_truth else None)
