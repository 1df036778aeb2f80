"""Runs what a comparison has left, one after the other here or side by side on Ray, and tells how far it is."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from models.config import ConfigError
from pipelines.compare.cells import Cell, Unit, note_failure, run
from pipelines.compare.comparison import Comparison
from pipelines.compare.config import CompareConfig
from pipelines.report.words import head, shown

TARGETS_NAMED = 3  # in a progress line, the first metric of each


class Executor(Protocol):
    """Runs units. What goes wrong in one is its result, never raised."""

    def submit(self, unit: Unit) -> None: ...

    def next(self) -> tuple[Unit, str | None]:
        """Waits for the next submitted unit to end; it and the first line of what went wrong."""


class InProcess:
    """One after the other, in this process."""

    def __init__(self) -> None:
        self.queue: deque[Unit] = deque()

    def submit(self, unit: Unit) -> None:
        self.queue.append(unit)

    def next(self) -> tuple[Unit, str | None]:
        unit = self.queue.popleft()
        return unit, run(unit)


class OnRay:
    """Side by side as Ray tasks, on all machines of the cluster; Ray must be up.

    Raises:
        ConfigError: no Ray, or a cell asks for more than the cluster has, which would wait for ever.
    """

    def __init__(self, config: CompareConfig) -> None:
        import ray

        if not ray.is_initialized():
            raise ConfigError("cells run on Ray: call this inside `pipelines.cluster.connected(...)`, as jobs.compare does.")
        for name, kind, asked in (("cpus", "CPU", config.cpus_per_cell), ("gpus", "GPU", config.gpus_per_cell)):
            have = max((node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]), default=0)
            if asked > have:
                raise ConfigError(
                    f"compare.{name}_per_cell is {asked:g}, but no machine of the cluster has more than {have:g}."
                )
        self.most = config.max_concurrent
        self.queue: deque[Unit] = deque()
        self.running: dict[Any, Unit] = {}  # by Ray's reference
        # A lost worker (memory, a machine that goes) starts the cell once more, from its last checkpoint.
        self.task: Any = ray.remote(num_cpus=config.cpus_per_cell, num_gpus=config.gpus_per_cell, max_retries=1)(run)

    def submit(self, unit: Unit) -> None:
        self.queue.append(unit)
        self._start()

    def next(self) -> tuple[Unit, str | None]:
        import ray

        ended = ray.wait(list(self.running), num_returns=1)[0][0]
        unit = self.running.pop(ended)
        try:
            error = ray.get(ended)
        except ray.exceptions.RayError as lost:  # the worker itself died; what a cell raises is its result
            error = note_failure(unit, lost)
        self._start()
        return unit, error

    def _start(self) -> None:
        while self.queue and (self.most is None or len(self.running) < self.most):
            unit = self.queue.popleft()
            self.running[self.task.options(name=unit.name).remote(unit)] = unit


def carry_out(comparison: Comparison, executor: Executor, say: Callable[[str], None]) -> None:
    """Runs all that is left; a system's seeds follow as soon as its rate is chosen.

    Progress lines: `12/75  dbmtl seed 3: click AUC .7810 · order AUC .8730 · 41 s · about 14 min left`.
    """
    began, ran = time.monotonic(), 0
    running: dict[Any, Unit] = {}
    while True:
        for unit in comparison.waiting():
            if unit.folder not in running:
                running[unit.folder] = unit
                executor.submit(unit)
        if not running:
            return
        unit, error = executor.next()
        del running[unit.folder]
        comparison.settle(unit, error)
        ran += 1
        done, total = comparison.count()
        place = f"{done:>{len(str(total))}}/{total}  {unit.name}: "
        if unit.folder in comparison.failures:
            say(f"{place}failed · {comparison.failures[unit.folder]}")
        else:
            left = comparison.left()
            rest = f" · about {_duration((time.monotonic() - began) / ran * left)} left" if left else ""
            say(place + _headline(comparison, unit) + rest)
        _tell_rate(comparison, unit, say)


def overview(comparison: Comparison) -> str:
    """How many cells there are, how many are done, where the table will lie."""
    config = comparison.config
    rows, seeds, tried = len(comparison.systems), len(config.seeds), len(config.rates)
    parts = [f"{rows * seeds} cells ({rows} system{'s' if rows > 1 else ''} x {seeds} seed{'s' if seeds > 1 else ''})"]
    if beside := len(comparison.every) - rows:
        parts.append(f"{beside * seeds} for {beside} more value{'s' if beside > 1 else ''} of curves")
    if tried > 1:
        searched = [system for system in comparison.every if system.rate is None]
        trials = len(searched) * tried * len(config.seeds_of_rates)
        parts.append(f"{trials} to choose among {tried} learning rates (those of the chosen one stay)")
    if comparison.baselines:
        parts.append(", ".join(baseline.name for baseline in comparison.baselines))
    done, total = comparison.count()
    lines = [
        f"Comparing: {' + '.join(parts)}; {done} of {total} done.",
        f"Table: {comparison.output / 'compare.html'}",
        f"Curves: tensorboard --logdir {comparison.output / 'cells'}",
    ]
    if comparison.others:
        lines.append(f"{len(comparison.others)} results there were made with other settings and do not count.")
    return "\n".join(lines)


def state_of_units(comparison: Comparison) -> str:
    """Systems with their parameters, then every unit with its state, one a line."""
    width = max(len(system.label) for system in comparison.every)
    lines = ["", f"{'system':<{width}}  {'dense parameters':>16}  {'in tables':>12}  {'rate':<20}  seeds done"]
    for system in comparison.every:
        counted, cells = comparison.parameters[system.label], comparison.cells(system)
        rate = comparison.rate_of(system) if cells else None
        spelled = "as in train.optimiser" if cells and rate is None else f"{rate:g}" if rate is not None else "to be chosen"
        done = sum(cell.folder in comparison.results for cell in cells)
        seeds = f"{done} of {len(comparison.config.seeds)}"
        lines.append(f"{system.label:<{width}}  {counted.dense:>16,}  {counted.tables:>12,}  {spelled:<20}  {seeds}")
    lines += ["", *(f"{_state(comparison, unit)}  {unit.name}" for unit in comparison.units())]
    unknown = comparison.count()[1] - len(comparison.units())
    return "\n".join([*lines, f"and {unknown} more, once learning rates are chosen"] if unknown else lines)


def _state(comparison: Comparison, unit: Unit) -> str:
    if unit.folder in comparison.results:
        return "done  "
    if unit.folder in comparison.others:
        return "other "
    return "failed" if unit.folder in comparison.failures else "to run"


def _headline(comparison: Comparison, unit: Unit) -> str:
    result, metrics = comparison.results[unit.folder], comparison.evaluated(unit)
    if metrics is None:
        return result.note
    by_target: dict[str, str] = {}
    for path in comparison.columns:
        target, metric = head(path, comparison.shared.schema)
        known = target in (*metrics.targets, "mean") and target not in by_target
        if known and len(by_target) < TARGETS_NAMED:
            by_target[target] = f"{target} {metric} {shown(metrics.value(path))}"
    return " · ".join([*by_target.values(), _duration(result.took_seconds)])


def _tell_rate(comparison: Comparison, unit: Unit, say: Callable[[str], None]) -> None:
    """Says which rate a system takes, once its last trial is over."""
    if not isinstance(unit, Cell) or unit.folder not in {cell.folder for cell in comparison.trials(unit.system)}:
        return
    scores = comparison.scores_of_rates(unit.system)
    if len(scores) == len(comparison.rates(unit.system)):
        spelled = ", ".join(f"{rate:g} {'failed' if score is None else shown(score)}" for rate, score in scores.items())
        chosen = f"takes rate {comparison.rate_of(unit.system):g}" if comparison.has_rate(unit.system) else "has no rate"
        say(f"{unit.label} {chosen} (on the validation split: {spelled})")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
