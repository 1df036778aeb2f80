"""The units of work of a comparison: a training with one rate and seed, or a baseline; each leaves `result.json` in its folder.

A unit whose `result.json` is there is never run again. Everything here travels to the process that runs it.
"""

import json
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from models.config import ConfigError, from_dict, to_dict
from models.metrics.expected import Known
from models.schema import Schema
from models.system import SystemConfig
from pipelines.bundle import load_bundle, provenance
from pipelines.compare.config import Parameters, System, folder_of
from pipelines.compare.results import TrainedCell, TrainingTook, UnitResult, Validated
from pipelines.evaluate.baselines import Predicted, booster, popularity
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.score import evaluate_table, score
from pipelines.evaluate.truth import Truth, as_predicted, truth_of
from pipelines.prepared import Prepared
from pipelines.runs import RunFolder, differences, read_json, write_text
from pipelines.train import TrainConfig, train
from pipelines.train.config import EXECUTION
from pipelines.train.monitor import Monitor
from pipelines.train.training import identity_of
from pipelines.train.worker import CHECKPOINTS

RESULT, FAILED, LINES = "result.json", "failed.json", "progress.log"


class Unit(Protocol):
    """What can be run: a `Cell` or a `Baseline`."""

    @property
    def label(self) -> str:
        """Of the row that it belongs to."""

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    def identity(self) -> dict[str, Any]:
        """What makes its result this one; how fast and where it is made does not."""

    def make(self) -> UnitResult:
        """Does the work, goes on where a killed run was, and gives the result."""


@dataclass(frozen=True, kw_only=True)
class SharedByUnits:
    """What all units share.

    Attributes:
        data: the prepared folder; it and the cells' folders must be reachable from all machines.
        schema: of the experiment; all rows are evaluated with it, whatever they were trained for.
        truth: folder of a simulator's truth, None for real logs.
    """

    data: Path
    fingerprint: str
    schema: Schema
    evaluate: EvaluateConfig
    truth: Path | None

    def found(self) -> Truth | str:
        """The truth about the evaluated split, or why there is none."""
        if self.truth is None:
            return "left out: these logs are real"
        return truth_of(replace(Prepared.open(self.data), schema=self.schema), self.evaluate.split, self.truth)

    def known(self) -> Known | None:
        """What a simulated world knows of the split's candidates; None where nobody does."""
        found = self.found()
        return found.known if isinstance(found, Truth) else None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training and its scores.

    Attributes:
        rate: None stands for the optimiser's own rates.
        train: with rate and seed in place.
    """

    shared: SharedByUnits
    system: System
    rate: float | None
    seed: int
    train: TrainConfig
    parameters: Parameters
    folder: Path

    @property
    def label(self) -> str:
        return self.system.label

    @property
    def name(self) -> str:
        return f"{self.label}{'' if self.rate is None else f' rate {self.rate:g}'} seed {self.seed}"

    def identity(self) -> dict[str, Any]:
        training = identity_of(self.shared.fingerprint, self.system.schema, self.system.model, self.train)
        return {**training, **self.purpose}

    @property
    def purpose(self) -> dict[str, Any]:
        """What its result depends on beyond the training."""
        return {"split": self.shared.evaluate.split} | ({"untaught": True} if self.shared.evaluate.untaught else {})

    def make(self) -> UnitResult:
        prepared = Prepared.open(self.shared.data)

        def say(line: str) -> None:
            with (self.folder / LINES).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

        trained = train(
            prepared,
            self.system.model,
            self.train,
            output=self.folder,
            schema=self.system.schema,
            purpose=self.purpose,
            say=say,
        )
        bundle = load_bundle(trained.bundle_path)
        if self.train.device != "cpu" and torch.cuda.is_available():
            bundle.ranker.to("cuda")
        files = prepared.files(self.shared.evaluate.split)
        evaluate = self.shared.evaluate
        scored = score(bundle.ranker, bundle.schema, files, evaluate.batch_feeds, untaught=evaluate.untaught)
        return UnitResult(
            label=self.label,
            made=provenance(),
            metrics=evaluate_table(
                scored, self.shared.schema, known=self.shared.known(), taught=bundle.ranker.trained
            ).to_dict(),
            cell=TrainedCell(
                rate=self.rate,
                seed=self.seed,
                valid=Validated(
                    monitor=Monitor(self.system.schema, self.train.monitor).name,
                    value=trained.best.monitor,
                ),
                training=TrainingTook(
                    seconds=trained.seconds,
                    candidates_per_second=trained.candidates_per_second,
                    steps=trained.history[-1].total_steps,
                    epochs=len(trained.history),
                    best_epoch=trained.best.epoch + 1,
                    stopped=bundle.provenance["stopped"],
                    alarms=tuple(trained.best.alarms),
                ),
                parameters=self.parameters,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline or the simulator's truth, by its name in `evaluate.baselines`."""

    shared: SharedByUnits
    name: str
    folder: Path

    @property
    def label(self) -> str:
        return self.name

    def identity(self) -> dict[str, Any]:
        evaluate = to_dict(self.shared.evaluate)
        shared = (
            ("baselines", "batch_feeds", "untaught")
            if self.name == "booster"
            else tuple(key for key in evaluate if key != "split")
        )
        return {
            "data": self.shared.fingerprint,
            "targets": self.shared.schema.to_dict()["targets"],
            "evaluate": {key: value for key, value in evaluate.items() if key not in shared},
        }

    def make(self) -> UnitResult:
        found = self._predicted()
        if isinstance(found, str):
            return UnitResult(label=self.name, made=provenance(), note=found)
        metrics = evaluate_table(found.table, self.shared.schema, known=self.shared.known()).to_dict()
        return UnitResult(label=self.name, made=provenance(), metrics=metrics, note=found.note)

    def _predicted(self) -> Predicted | str:
        prepared = replace(Prepared.open(self.shared.data), schema=self.shared.schema)
        config = self.shared.evaluate
        rows, seed = config.baseline_rows, config.seed
        match self.name:
            case "popularity":
                return popularity(prepared, config.split, rows=rows, seed=seed)
            case "booster":
                columns, iterations = config.baseline_columns, config.baseline_iterations
                return booster(prepared, config.split, columns=columns, rows=rows, iterations=iterations, seed=seed)
            case _:
                truth = self.shared.found()
                return as_predicted(truth) if isinstance(truth, Truth) else truth


def cell_folder(output: Path, system: System, rate: float | None, seed: int) -> Path:
    return output / "cells" / folder_of(system.label) / f"{'' if rate is None else f'rate-{rate:g}-'}seed-{seed}"


# -- running -------------------------------------------------------------------------------------------------------


def run(unit: Unit) -> str | None:
    """Does a unit's work and leaves its result; None, or the first line of what went wrong, the rest in `failed.json`."""
    try:
        begin(unit)
        (unit.folder / FAILED).unlink(missing_ok=True)
        began = time.monotonic()
        result = unit.make().after(time.monotonic() - began)
        write_text(unit.folder / RESULT, json.dumps(result.to_dict(), indent=1, allow_nan=False))
        drop_checkpoints(unit)
    except Exception as error:  # one cell's fault stands in its row; the others go on
        return note_failure(unit, error)
    return None


def begin(unit: Unit) -> None:
    run_of(unit).begin(unit.identity(), way_out="Start with --replace to throw it away and run it again.")


def note_failure(unit: Unit, error: BaseException) -> str:
    """Writes `failed.json`; returns the line that tables show."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    told = line if isinstance(error, ConfigError) else f"{type(error).__name__}: {line}"
    with suppress(ConfigError):  # which would be the error that is told
        begin(unit)
    trace = "".join(traceback.format_exception(error))
    write_text(unit.folder / FAILED, json.dumps({"error": told, "trace": trace}, indent=1))
    return told


def drop_checkpoints(unit: Unit) -> None:
    """A finished cell keeps its bundle, history and curves."""
    shutil.rmtree(unit.folder / CHECKPOINTS, ignore_errors=True)


# -- what is there -------------------------------------------------------------------------------------------------


def run_of(unit: Unit) -> RunFolder:
    return RunFolder(unit.folder, RESULT)


def result_of(unit: Unit) -> UnitResult | None:
    """The finished result; None if there is none.

    Raises:
        ConfigError: it is damaged, or was written by another version of this program.
    """
    found = _read(unit.folder / RESULT)
    try:
        return None if found is None else UnitResult.from_dict(found)
    except ConfigError as error:
        raise ConfigError(
            f"{unit.folder / RESULT} was written by another version of this program ({error}). Delete its folder, and it is "
            "made again."
        ) from None


def failure_of(unit: Unit) -> str | None:
    """Why the last attempt failed; None if it did not, or was not made."""
    found = _read(unit.folder / FAILED)
    return None if found is None else found["error"]


def differing(unit: Unit) -> list[str]:
    """In which settings the folder's result, or begun training, is not this unit's; empty if it may stand."""
    run = run_of(unit)
    before = run.identity
    if before is not None and run.is_finished:
        return differences(_as_now(before), unit.identity())
    return run.differences(unit.identity())


def _as_now(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with the defaults of keys that configs got since: a key that was not there says nothing else."""
    known = {"model": SystemConfig, "schema": Schema, "train": TrainConfig}
    spelled = dict(identity)
    for part, cls in known.items():
        if part in spelled:
            try:
                now = to_dict(from_dict(cls, spelled[part]))
            except ConfigError:  # a key that is gone: another configuration
                continue
            spelled[part] = {key: value for key, value in now.items() if part != "train" or key not in EXECUTION}
    return spelled


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path, way_out="Delete its folder, and the cell runs again.") if path.exists() else None
