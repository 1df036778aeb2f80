"""The settings of a paper's tables: over which simulated worlds a comparison is made, and what the paper printed."""

from dataclasses import field as default
from typing import Any

from models.config import config
from pipelines.compare.config import folder_of

MAIN = "main"  # the variant that claims are decided on


@config
class Published:
    """A table of the paper.

    Attributes:
        table: its number, and of which data it is.
        columns: its columns by the metric here that stands for them (`order.expected_auc: purchase`).
        rows: its figures by system's label, in the order of `columns`; null where it has none.
    """

    table: str
    columns: dict[str, str]
    rows: dict[str, tuple[float | None, ...]]

    def __post_init__(self) -> None:
        for label, figures in self.rows.items():
            if len(figures) != len(self.columns):
                raise ValueError(
                    f"paper.published: {self.table}: `{label}` has {len(figures)} figures, but there are {len(self.columns)} "
                    f"columns: {', '.join(self.columns)}."
                )

    def figure(self, label: str, path: str) -> float | None:
        """What the paper printed for a system; None where it printed nothing."""
        if label not in self.rows or path not in self.columns:
            return None
        return self.rows[label][list(self.columns).index(path)]


@config
class PaperConfig:
    """A paper's tables, each row trained in several simulated worlds; the section `compare` says the rows and the claims.

    The unit of a test is a world: seeds within one are averaged first. Learning rates are searched for in the first pilot
    world, with as many trials for every row, and the variance between the pilot's worlds and seeds says before anything else
    runs how small an effect the design can see.

    Attributes:
        title: of the paper, with its year.
        premise: one sentence on what the worlds have of the paper.
        worlds: seeds of the worlds (`logs.seed`).
        pilot: seeds of other worlds, for rates and variance; at least two.
        rows: labels of systems that are trained; none means all. The others stand in the file for larger runs, and claims about
            them are not tested.
        pilot_seeds: of trainings in the pilot; at least two, so that worlds and seeds can be told apart.
        variants: further worlds by name, as changes laid over the experiment (`{logs: {levels: {strength: 1}}}`); the
            experiment itself is `main`, where the claims are decided. They take the rates of `main`.
        curve: variants in the order of a strength, `main` among them: the gains of the claims are drawn over it.
        published: the paper's tables.
    """

    title: str
    premise: str = ""
    rows: tuple[str, ...] = ()
    worlds: tuple[int, ...] = (1, 2, 3)
    pilot: tuple[int, ...] = (101, 102)
    pilot_seeds: tuple[int, ...] = (0, 1)
    variants: dict[str, dict[str, Any]] = default(default_factory=dict)
    curve: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("worlds", 2), ("pilot", 2), ("pilot_seeds", 2)):
            values = getattr(self, name)
            if len(set(values)) < len(values) or len(values) < least or min(values) < 0:
                raise ValueError(f"paper.{name} must be at least {least} different numbers from 0 on, got {list(values)}.")
        if shared := set(self.worlds) & set(self.pilot):
            raise ValueError(
                f"paper.pilot: world {min(shared)} is one of paper.worlds as well; rates would be chosen where rows are "
                "compared."
            )
        names = [MAIN, *self.variants]
        if len({folder_of(name) for name in names}) < len(names):
            raise ValueError(f"paper.variants: {', '.join(names)} must be different folders, and none is called {MAIN}.")
        if unknown := [name for name in self.curve if name not in names]:
            raise ValueError(f"paper.curve: `{unknown[0]}` is no variant. There are: {', '.join(names)}.")

    def published_figure(self, label: str, path: str) -> float | None:
        """What the paper printed for a system on what a metric stands for; of several tables the first that has it."""
        figures = (table.figure(label, path) for table in self.published)
        return next((figure for figure in figures if figure is not None), None)
