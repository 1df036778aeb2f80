"""Which units a comparison has, which are done, which may run now."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from models.config import ConfigError
from models.schema import Schema
from pipelines.compare.cells import (
    Baseline,
    Cell,
    SharedByUnits,
    Unit,
    cell_folder,
    differing,
    drop_checkpoints,
    failure_of,
    result_of,
)
from pipelines.compare.config import CompareConfig, Parameters, System, columns_of, parameters_of, systems_of
from pipelines.compare.curves import varied_of
from pipelines.compare.results import UnitResult
from pipelines.evaluate.config import EvaluateConfig
from pipelines.prepared import Prepared
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.runs import discard
from pipelines.train import TrainConfig
from pipelines.train.monitor import Monitor

MOST_TOLD = 5  # cells named in a message


class Comparison:
    """Systems x seeds, with what is known of them so far.

    With several rates, every system is first trained with each of them and the `rate_seeds`; the rate that is best on the
    validation split, on the mean over these seeds, is the one that all its seeds are trained with.

    Args:
        output: of cells, baselines and the table; all machines must reach it.
        truth: folder of a simulator's truth; None for real logs.
        only: labels of systems or names of baselines that are to be run; the others are shown with what they have.

    Attributes:
        systems, columns, baselines: rows and columns of the table.
        curves: with their systems.
        every: the rows' systems, then those that only curves have.
        parameters: by label.
        results: of finished units, by folder.
        failures: the first line of the error of failed units, by folder.
        others: units whose folder holds something made with other settings, and in what it differs, by folder; what it
            holds is no result of this comparison.

    Raises:
        ConfigError: whatever is wrong and can be known before anything runs.
    """

    def __init__(
        self,
        compare: CompareConfig,
        prepared: Prepared,
        schema: Schema,
        train: TrainConfig,
        evaluate: EvaluateConfig,
        output: Path,
        truth: Path | None = None,
        *,
        only: Collection[str] = (),
    ) -> None:
        self.config, self.train, self.output = compare, train, Path(output).resolve()
        self.prepared = prepared
        self.columns = columns_of(compare, schema, has_truth=truth is not None)
        self.systems = systems_of(compare, schema)
        self.curves = varied_of(compare, schema, self.systems)
        labelled = {system.label: system for system in self.systems}
        for varied in self.curves:
            labelled |= {system.label: system for system in varied.systems}
        self.every = tuple(labelled.values())
        self.parameters: dict[str, Parameters] = {
            label: parameters_of(system, prepared.encoder.table_sizes) for label, system in labelled.items()
        }
        for system in self.every:
            Monitor(system.schema, train.monitor)
            system.optimiser_over(train.optimiser)
        self._check(prepared, evaluate)
        self.shared = SharedByUnits(
            data=prepared.path.resolve(),
            fingerprint=prepared.fingerprint,
            schema=schema,
            evaluate=evaluate,
            truth=None if truth is None else Path(truth).resolve(),
        )
        names = [name for name in evaluate.baselines if name != "truth" or truth is not None]
        self.baselines = [Baseline(shared=self.shared, name=name, folder=self.output / "baselines" / name) for name in names]
        known = [*labelled, *names]
        if unknown := [name for name in only if name not in known]:
            raise ConfigError(f"--only: `{unknown[0]}` is no row of the table. Rows: {', '.join(known)}.")
        self.only = frozenset(only)
        self.results: dict[Path, UnitResult] = {}
        self.failures: dict[Path, str] = {}
        self.others: dict[Path, tuple[Unit, list[str]]] = {}
        for unit in self._known():
            self._read(unit)

    # -- units -------------------------------------------------------------------------------------------------

    def cell(self, system: System, rate: float | None, seed: int) -> Cell:
        optimiser = system.optimiser_over(self.train.optimiser)
        if rate is not None:
            dense, tables = replace(optimiser.dense, rate=rate), replace(optimiser.tables, rate=rate)
            optimiser = replace(optimiser, dense=dense, tables=tables)
        device = self.train.device if self.config.gpus_per_cell else "cpu"
        train = replace(self.train, epochs=system.epochs or self.train.epochs, seed=seed, optimiser=optimiser)
        return Cell(
            shared=self.shared,
            system=system,
            rate=rate,
            seed=seed,
            train=replace(train, workers=0, reader="thread", device=device),
            parameters=self.parameters[system.label],
            folder=cell_folder(self.output, system, rate, seed),
        )

    def rates(self, system: System) -> tuple[float | None, ...]:
        """The rates that the system may take; None stands for the optimiser's own."""
        return (system.rate,) if system.rate is not None else self.config.rates or (None,)

    def trials(self, system: System) -> list[Cell]:
        """The cells that choose the system's rate; none where there is no choice."""
        if len(self.rates(system)) == 1:
            return []
        return [self.cell(system, rate, seed) for rate in self.rates(system) for seed in self.config.seeds_of_rates]

    def scores_of_rates(self, system: System) -> dict[float | None, float | None]:
        """Mean validation score by rate; None where a trial failed, left out where one is still to be run."""
        scores: dict[float | None, float | None] = {}
        for rate in self.rates(system):
            trials = [cell for cell in self.trials(system) if cell.rate == rate]
            if any(cell.folder in self.failures for cell in trials):
                scores[rate] = None
            elif trials and all(cell.folder in self.results for cell in trials):
                values = [value for cell in trials if (value := self.validated(cell)) is not None]
                scores[rate] = sum(values) / len(values)
        return scores

    def has_rate(self, system: System) -> bool:
        """Whether it is known which rate the system takes."""
        if len(self.rates(system)) == 1:
            return True
        scores = self.scores_of_rates(system)
        return len(scores) == len(self.rates(system)) and any(score is not None for score in scores.values())

    def rate_of(self, system: System) -> float | None:
        """The rate the system takes: of several the one with the best validation score, the first of equals."""
        if len(self.rates(system)) == 1:
            return self.rates(system)[0]
        monitor = Monitor(system.schema, self.train.monitor)
        best: tuple[float | None, float] | None = None
        for rate, score in self.scores_of_rates(system).items():
            if score is not None and (best is None or monitor.is_better(score, best[1])):
                best = rate, score
        if best is None:
            raise ValueError(f"no rate of `{system.label}` can be chosen yet; ask `has_rate` first.")
        return best[0]

    def cells(self, system: System) -> list[Cell]:
        """The row's cells, one a seed; none while the rate is not known."""
        return [self.cell(system, self.rate_of(system), seed) for seed in self.config.seeds] if self.has_rate(system) else []

    def evaluated(self, unit: Unit) -> EvaluationResult | None:
        """The metrics of a unit; None while it is not finished, and for a baseline that could not be had."""
        result = self.results.get(unit.folder)
        return None if result is None else result.evaluated

    def validated(self, cell: Cell) -> float | None:
        """The score of a finished cell on the validation split; None without one."""
        result = self.results.get(cell.folder)
        return None if result is None or result.cell is None else result.cell.valid.value

    def results_of(self, system: System) -> dict[int, EvaluationResult]:
        """The metrics of a system's finished cells, by seed."""
        found = {cell.seed: self.evaluated(cell) for cell in self.cells(system)}
        return {seed: result for seed, result in found.items() if result is not None}

    def units(self) -> list[Unit]:
        """All units that are known by now, in the order in which they are to run: the table first, and seed by seed, so that
        rows grow alike."""
        trials = [cell for system in self.every for cell in self.trials(system)]
        rows = [cell for system in self.systems for cell in self.cells(system)]
        beside = [cell for system in self.every[len(self.systems) :] for cell in self.cells(system)]
        for cells in (rows, beside):
            cells.sort(key=lambda cell: self.config.seeds.index(cell.seed))
        every: list[Unit] = [*self.baselines, *trials, *rows, *beside]
        return list({unit.folder: unit for unit in every}.values())

    def waiting(self) -> list[Unit]:
        """Units that can run now."""
        return [
            unit
            for unit in self.units()
            if unit.folder not in self.results and unit.folder not in self.failures and self._wanted(unit.label)
        ]

    def count(self) -> tuple[int, int]:
        """Finished units and all units, those included whose rate is still to be chosen."""
        units = self.units()
        unknown = sum(self._unknown(system) for system in self.every)
        return sum(unit.folder in self.results for unit in units), len(units) + unknown

    def left(self) -> int:
        """Units still to be run in this run."""
        unknown = sum(self._unknown(system) for system in self.every if self._wanted(system.label))
        return len(self.waiting()) + unknown

    # -- what is there -----------------------------------------------------------------------------------------

    def settle(self, unit: Unit, error: str | None) -> None:
        """Takes in that a unit has been run: its result, or what went wrong."""
        if error is not None:
            self.failures[unit.folder] = error
            return
        result = result_of(unit)
        if result is None:
            self.failures[unit.folder] = f"nothing was left in {unit.folder}: all machines must share this folder"
            return
        self.results[unit.folder] = result

    def begin(self, *, replace: bool = False) -> None:
        """Makes the folder ready to run: failures are tried again, checkpoints that a kill left of finished cells go.

        Args:
            replace: throws away what was made with other settings, of the rows that are to be run.

        Raises:
            ConfigError: there is such, and it is not to be replaced; names the cells, the settings and the way out.
        """
        others = [(unit, found) for unit, found in self.others.values() if self._wanted(unit.label)]
        if others and not replace:
            lines = [f"  {unit.name}: {', '.join(found[:3])}" for unit, found in others[:MOST_TOLD]]
            more = [f"  and {len(others) - MOST_TOLD} more"] if len(others) > MOST_TOLD else []
            raise ConfigError(
                f"{len(others)} of the results in {self.output} have other settings, and one table must not mix them:\n"
                + "\n".join([*lines, *more])
                + "\nStart with --replace to throw just these away and run them again, or give the experiment another `name`."
            )
        for unit, _ in others:
            discard(unit.folder)
            del self.others[unit.folder]
        for unit in self._known():
            if unit.folder in self.failures and self._wanted(unit.label):
                del self.failures[unit.folder]
            if unit.folder in self.results:
                drop_checkpoints(unit)

    # -- inside ------------------------------------------------------------------------------------------------

    def _unknown(self, system: System) -> int:
        """Cells of a row whose rate is not known yet, beyond those that choose it; none if all its rates failed."""
        if self.has_rate(system) or len(self.scores_of_rates(system)) == len(self.rates(system)):
            return 0
        return len(set(self.config.seeds) - set(self.config.seeds_of_rates))

    def _known(self) -> Iterator[Unit]:
        """Every unit of the configuration that may have a folder, whatever the rate will be."""
        yield from self.baselines
        for system in self.every:
            seeds: Sequence[int] = list(dict.fromkeys((*self.config.seeds_of_rates, *self.config.seeds)))
            for rate in self.rates(system):
                yield from (self.cell(system, rate, seed) for seed in seeds)

    def _read(self, unit: Unit) -> None:
        if found := differing(unit):
            self.others[unit.folder] = unit, found
        elif (result := result_of(unit)) is not None:
            self.results[unit.folder] = result
        elif (error := failure_of(unit)) is not None:
            self.failures[unit.folder] = error

    def _wanted(self, label: str) -> bool:
        return not self.only or label in self.only

    def _check(self, prepared: Prepared, evaluate: EvaluateConfig) -> None:
        split = evaluate.split
        if not prepared.files(split):
            raise ConfigError(
                f"evaluate.split is `{split}`, but `{prepared.path}` has no {split} feeds; "
                f"set prepare.{split}_days to 1 or more."
            )
        if len(self.config.rates) > 1 and not prepared.files("valid"):
            raise ConfigError(
                f"compare.rates has {len(self.config.rates)} rates to choose among on the validation split, but "
                f"`{prepared.path}` has no valid feeds; set prepare.valid_days to 1 or more, or name one rate."
            )
        if self.train.device == "cuda" and not self.config.gpus_per_cell:
            raise ConfigError("train.device is cuda, but compare.gpus_per_cell is 0; give a cell 1 GPU, or a part of one.")
