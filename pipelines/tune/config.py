"""The settings of a search: where to look, how long, how many at a time."""

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import field as default
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from models.config import ConfigError, config, from_dict, overlaid, replaced, to_dict
from models.metrics.names import direction
from models.schema import Schema
from models.system import SystemConfig, is_leveled, ranker_without_weights
from models.zoo import resolve
from pipelines.train import TrainConfig
from pipelines.train.config import EXECUTION
from pipelines.train.monitor import Monitor
from pipelines.tune.structure.graphs import StructureConfig

MOST_CHECKED = 50  # combinations of choices that are tried out before a search starts; of more, as many at random


@config
class Choice:
    """One of several values.

    Attributes:
        values: of any kind (`[128, 64]`, `mmoe`, null).
    """

    type: Literal["choice"] = "choice"
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a choice needs at least one value.")

    def __str__(self) -> str:
        return "one of " + ", ".join(value if isinstance(value, str) else json.dumps(value) for value in self.values)

    def ends(self) -> tuple[Any, ...]:
        return self.values


@config
class Uniform:
    """A real number from `low` to `high`.

    Attributes:
        low, high: the ends of the range.
    """

    type: Literal["uniform"] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"uniform needs low < high, got {self.low} and {self.high}.")

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)


@config
class LogUniform:
    """A real number from `low` to `high` whose logarithm is uniform.

    Attributes:
        low, high: the ends of the range, above 0.
    """

    type: Literal["loguniform"] = "loguniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"loguniform needs 0 < low < high, got {self.low} and {self.high}.")

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}, on a log scale"

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)


@config
class Int:
    """A whole number.

    Attributes:
        low, high: the ends of the range, both included.
        log: draw small numbers as often as large ones.
    """

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low < 1):
            raise ValueError(f"int needs low < high, and low >= 1 with log, got {self.low} and {self.high}.")

    def __str__(self) -> str:
        return f"whole, from {self.low} to {self.high}" + (", on a log scale" if self.log else "")

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)


Dimension = Annotated[Choice | Uniform | LogUniform | Int, Discriminator("type")]


@config
class TuneConfig:
    """A search over an experiment's `model` and `train` sections.

    Attributes:
        trials: configurations tried.
        space: what varies, by path in the experiment, for example
            `train.optimiser.dense.rate: {type: loguniform, low: 1e-4, high: 1e-2}`.
        metric: validation metric to search by, `target.metric` or `mean.metric`; None takes what training monitors. Of
            several, the first decides which epoch of a trial is its best and which trial wins; what cannot be bettered in
            one without losing in another is marked in the table (the Pareto front).
        searcher: `optuna` learns from finished trials (TPE), `random` does not.
        scheduler: `asha` stops trials that are behind; `none` trains all to their end. None takes asha, or none where there are
            several metrics: one of them alone would stop trials that are good at the others. Learners that plan the whole
            training (cmlir, finetune) want none.
        grace_epochs: asha stops no trial before so many epochs.
        reduction: of asha; at every rung one in so many trials goes on. Rungs are at grace_epochs * reduction ** k.
        max_concurrent: trials at a time.
        cpus_per_trial: logical CPUs (and PyTorch threads) of a trial.
        gpus_per_trial: GPUs of a trial.
        seed: of the searcher.
        structure: search for the graph of targets in the place of settings; of the rest only `metric` (several: their mean
            counts, those to be small with a minus; None: the mean AUC of the binary targets searched), `max_concurrent`,
            `cpus_per_trial` and `gpus_per_trial` matter to it.
    """

    trials: int = 8
    space: dict[str, Dimension] = default(default_factory=dict)
    metric: str | tuple[str, ...] | None = None
    searcher: Literal["optuna", "random"] = "optuna"
    scheduler: Literal["asha", "none"] | None = None
    grace_epochs: int = 1
    reduction: int = 3
    max_concurrent: int = 2
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    seed: int = 0
    structure: StructureConfig | None = None

    def __post_init__(self) -> None:
        if self.structure is not None and self.space:
            raise ValueError(
                "tune searches settings (`space`) or the graph of targets (`structure`), one after the other. "
                "Set tune.space or tune.structure to null."
            )
        for name, least in (("trials", 1), ("grace_epochs", 1), ("reduction", 2), ("max_concurrent", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"tune.{name} must be at least {least}, got {getattr(self, name)}.")
        if self.cpus_per_trial <= 0 or self.gpus_per_trial < 0:
            raise ValueError(
                f"tune needs cpus_per_trial > 0 and gpus_per_trial >= 0, got {self.cpus_per_trial} and {self.gpus_per_trial}."
            )
        for path in self.space:
            section, _, rest = path.partition(".")
            if section not in ("model", "train") or not rest:
                raise ValueError(
                    f"tune.space: `{path}` cannot be searched over; write model.* or train.* (the prepared data are shared)."
                )
            if section == "train" and rest.split(".")[0] in EXECUTION | {"device", "precision", "monitor"}:
                raise ValueError(f"tune.space: `{path}` says how a trial is run or judged, not what is trained.")
        if self.metric == () or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"tune.metric names one metric or several different ones, got {list(self.metrics)}.")
        for metric in self.metrics:
            try:
                way = direction(metric)
            except KeyError as error:
                raise ValueError(f"tune.metric: {error.args[0]}") from None
            if way == "one":
                raise ValueError(f"tune.metric: `{metric}` is neither to be large nor small; search by a log_loss or an auc.")
        if len(self.metrics) > 1 and self.scheduler == "asha":
            raise ValueError(
                "tune.scheduler `asha` compares trials by one metric and would give up those that are good at the others; with "
                f"the {len(self.metrics)} of tune.metric set it to none."
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that are named; none where what training monitors is taken."""
        if self.metric is None:
            return ()
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def scheduler_taken(self) -> Literal["asha", "none"]:
        """What `scheduler` comes to."""
        return self.scheduler or ("none" if len(self.metrics) > 1 else "asha")


def configs(spelling: Mapping[str, Any], values: Mapping[str, Any], config: TuneConfig) -> tuple[SystemConfig, TrainConfig]:
    """Model and training of the experiment `spelling` with the sampled values set; trials run in one process each.

    Raises:
        ConfigError: a path or value that the experiment does not allow.
    """
    changed: dict[str, Any] = {"model": spelling.get("model") or {"system": "mmoe"}, "train": spelling.get("train") or {}}
    for path, value in values.items():
        changed = replaced(changed, path, value)
    if config.metrics:
        changed = replaced(changed, "train.monitor", config.metrics[0])
    train = overlaid(to_dict(TrainConfig()), changed["train"])
    run = {"workers": 0, "reader": "thread", "threads": max(1, int(config.cpus_per_trial))}
    return resolve(changed["model"]), from_dict(TrainConfig, {**train, **run}, where="train")


def schema_of(spelling: Mapping[str, Any]) -> Schema | None:
    """The schema that an experiment's trials train for; None where it does not say."""
    return Schema.from_dict(spelling["schema"]) if "schema" in spelling else None


def checked(
    spelling: Mapping[str, Any], values: Mapping[str, Any], config: TuneConfig, schema: Schema
) -> tuple[SystemConfig, TrainConfig]:
    """`configs` that a ranker of the schema can be built from.

    Raises:
        ConfigError: naming the values and what is wrong.
    """
    try:
        model, train = configs(spelling, values, config)
        ranker = ranker_without_weights(schema, model)
        for metric in config.metrics:
            if metric.split(".")[0] not in (*ranker.trained, "mean"):
                raise ConfigError(
                    f"tune.metric: `{metric}` begins with none that is trained: {', '.join((*ranker.trained, 'mean'))}."
                )
        Monitor(schema, train.monitor, tuple(ranker.trained))
    except ValueError as error:
        shown = ", ".join(f"{path} = {value!r}" for path, value in values.items())
        raise ConfigError(f"tune.space, with {shown}: {error}" if shown else str(error)) from None
    return model, train


def check_space(spelling: Mapping[str, Any], config: TuneConfig, schema: Schema) -> int:
    """Tries out what a search could sample, so that a wrong path or value is refused before it starts.

    Every choice with every other, up to `MOST_CHECKED` combinations, each with all ranges at their low and high ends; a
    ranker of the schema is built from every one. Values that are refused together, but not each of them always, may be
    searched over (`floor` and `alpha` of pimm): a trial that draws such a combination is refused when its turn comes.

    Returns:
        combinations that were tried.

    Raises:
        ConfigError: naming the path, the value and what is wrong.
    """
    if not config.space:
        raise ConfigError("tune.space is empty, so there is nothing to search. Name a path, or run jobs.train instead.")
    checked(spelling, {}, config, schema)
    tried: set[Places] = set()
    accepted: set[tuple[int, int]] = set()  # dimension and place among its ends
    refused: dict[tuple[int, int], ConfigError] = {}

    def try_out(places: Places) -> None:
        tried.add(places)
        values = {path: item.ends()[place] for (path, item), place in zip(config.space.items(), places, strict=True)}
        try:
            model, train = checked(spelling, values, config, schema)
        except ConfigError as error:
            for end in enumerate(places):
                refused.setdefault(end, error)
        else:
            _check_scheduler(model, train, config)
            accepted.update(enumerate(places))

    for places in _combinations(config):
        try_out(places)
    rng = random.Random(config.seed)
    for end, error in list(refused.items()):
        others = dict.fromkeys(_with_end(end, config, rng) for _ in range(MOST_CHECKED))
        for places in others:
            if end not in accepted and places not in tried:
                try_out(places)
        if end not in accepted:
            raise error
    return len(tried)


Places = tuple[int, ...]
"""One of the ends of every dimension of a space, by its place among them."""


def _combinations(config: TuneConfig) -> Iterator[Places]:
    dimensions = config.space.values()
    counts = [len(item.values) if isinstance(item, Choice) else 1 for item in dimensions]
    if math.prod(counts) <= MOST_CHECKED:
        picks: Iterator[Places] = itertools.product(*map(range, counts))
    else:
        rng = random.Random(config.seed)
        picks = (tuple(rng.randrange(count) for count in counts) for _ in range(MOST_CHECKED))
    has_ranges = not all(isinstance(item, Choice) for item in dimensions)
    for pick in picks:
        for end in (0, 1) if has_ranges else (0,):
            yield tuple(place if isinstance(item, Choice) else end for place, item in zip(pick, dimensions, strict=True))


def _with_end(end: tuple[int, int], config: TuneConfig, rng: random.Random) -> Places:
    """The end of one dimension with any ends of the others."""
    drawn = [rng.randrange(len(item.ends())) for item in config.space.values()]
    drawn[end[0]] = end[1]
    return tuple(drawn)


def _check_scheduler(model: SystemConfig, train: TrainConfig, config: TuneConfig) -> None:
    if config.scheduler_taken == "none":
        return
    if train.epochs < config.grace_epochs:
        raise ConfigError(f"tune.grace_epochs is {config.grace_epochs}, but trials have only train.epochs={train.epochs}.")
    if is_leveled(model.learner):
        raise ConfigError(
            f"the learner `{model.learner.kind}` plans its whole training, so trials cannot be judged before its end, as "
            "tune.scheduler `asha` does. Set tune.scheduler to none."
        )
