"""Which experiments a paper's tables are made of: one for every world of every variant, and the pilot's.

OUTPUT/NAME/VARIANT/world-SEED/     source, prepared, compare: an experiment of its own
OUTPUT/NAME/main/pilot-SEED/        the same, of the pilot
OUTPUT/NAME/pilot.json              the learning rates that were chosen, and the variance of every claim's gain
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from models.config import ConfigError, from_dict, overlaid, to_dict
from pipelines.compare.config import CompareConfig, folder_of
from pipelines.compare.paper import MAIN, PaperConfig
from pipelines.evaluate.config import Baseline
from pipelines.experiment import Experiment
from pipelines.logs import SimulateConfig

Rates = Mapping[str, float | None]
"""Learning rates by system; None stands for the optimiser's own."""


@dataclass(frozen=True)
class Study:
    """An experiment with the sections `paper` and `compare`, and all that is made of it.

    Args:
        changes: that were laid over the experiment's file, as `--set` spells them; the page's commands repeat them.

    Raises:
        ConfigError: a section is missing, logs are real, a variant does not fit.
    """

    experiment: Experiment
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        experiment = self.experiment
        if experiment.paper is None or experiment.compare is None:
            raise ConfigError(
                f"`{experiment.name}` has no section `{'paper' if experiment.paper is None else 'compare'}`; a paper's tables "
                "need both. Shipped ones lie in jobs/configs/papers."
            )
        if not isinstance(experiment.logs, SimulateConfig):
            raise ConfigError(
                f"`logs.kind` is {experiment.logs.kind!r}; tables over worlds need simulated ones. "
                "For real logs run jobs.compare."
            )
        if unknown := [label for label in experiment.paper.rows if label not in experiment.compare.systems]:
            raise ConfigError(f"paper.rows: `{unknown[0]}` is not among the systems: {', '.join(experiment.compare.systems)}.")
        for variant in self.variants:
            self.world(variant, self.paper.worlds[0], {})

    @property
    def paper(self) -> PaperConfig:
        assert self.experiment.paper is not None
        return self.experiment.paper

    @property
    def compare(self) -> CompareConfig:
        assert self.experiment.compare is not None
        return self.experiment.compare

    @property
    def name(self) -> str:
        return self.experiment.name.removeprefix("paper_")

    @property
    def folder(self) -> Path:
        return self.experiment.folder

    @property
    def variants(self) -> tuple[str, ...]:
        return (MAIN, *self.paper.variants)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Systems that are trained, in the order of the table."""
        return tuple(label for label in self.compare.systems if not self.paper.rows or label in self.paper.rows)

    @cached_property
    def claimed(self) -> tuple[str, ...]:
        """Those of them that a claim is about."""
        named = {label for claim in self.compare.claims for label in (claim.better, *claim.than)}
        return tuple(label for label in self.rows if label in named)

    def world(
        self,
        variant: str,
        seed: int,
        rates: Rates,
        *,
        only: str | None = None,
        seeds: tuple[int, ...] = (),
        output: Path | None = None,
        baselines: tuple[Baseline, ...] | None = None,
    ) -> Experiment:
        """A world's experiment, with the learning rates that the pilot has chosen.

        Args:
            only: one row alone.
            seeds: others than the comparison's.
            output: another folder than the study's own.
            baselines: others than the experiment's.
        """
        labels = [only] if only is not None else list(self.rows)
        found = self._experiment(variant, f"world-{seed}", seed, labels, rates, seeds or self.compare.seeds)
        found = found if output is None else replace(found, output=str(output))
        return found if baselines is None else replace(found, evaluate=replace(found.evaluate, baselines=baselines))

    def pilot(self, seed: int, rates: Rates | None) -> Experiment:
        """A pilot's experiment: of all rows where rates are still to be chosen, else of those that claims are about."""
        labels = list(self.rows) if rates is None else list(self.claimed)
        return self._experiment(MAIN, f"pilot-{seed}", seed, labels, rates, self.paper.pilot_seeds)

    def _experiment(
        self, variant: str, name: str, seed: int, labels: list[str], rates: Rates | None, seeds: tuple[int, ...]
    ) -> Experiment:
        spelled = overlaid(to_dict(self.experiment), self.paper.variants.get(variant, {}))
        compare = spelled["compare"]
        systems = {label: dict(compare["systems"][label]) for label in labels}
        for label, row in systems.items():
            if rates is not None and rates.get(label) is not None and "rate" not in row:
                row["rate"] = rates[label]
        if rates is not None:
            compare |= {"rates": [], "rate_seeds": None}
        kept = [
            claim | {"than": than}
            for claim in compare["claims"]
            if claim["better"] in labels and (than := [label for label in claim["than"] if label in labels])
        ]
        base = compare["base"] if compare["base"] in labels else ""
        compare |= {"systems": systems, "claims": kept, "curves": [], "base": base, "seeds": list(seeds)}
        return from_dict(
            Experiment,
            spelled
            | {
                "name": name,
                "output": str(self.folder / folder_of(variant)),
                "logs": {**spelled["logs"], "seed": seed},
                "compare": compare,
                "paper": None,
            },
        )

    def command(self, *, again: str = "") -> str:
        """The line that makes the page, or one of its cells anew."""
        changes = "".join(f" --set {shlex.quote(change)}" for change in self.changes)
        return f"python -m jobs.paper {self.name}{changes}" + (f" --again {shlex.quote(again)}" if again else "")


def changes_of(study: Study, variant: str) -> dict[str, Any]:
    return study.paper.variants.get(variant, {})
