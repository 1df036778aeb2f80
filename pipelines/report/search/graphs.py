"""What a search for the graph of targets leaves: the graphs that were tried, and how the one that was found compares.

A graph is a set of edges (parent, child).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from models.schema import Schema

Edge = tuple[str, str]
Graph = frozenset[Edge]

TABLE, PICTURE = "structure.csv", "structure.png"  # in the folder of a search


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A graph and what became of it.

    Attributes:
        number: from 1, in the order in which graphs were asked for.
        round: from 0; the graphs of a round are variations of the same one.
        change: against the graph it was made from.
        scores: a seed each, larger is better; empty where it could not be scored.
    """

    number: int
    graph: Graph
    round: int
    change: str
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean; -inf without scores."""
        return sum(self.scores) / len(self.scores) if self.scores else -math.inf


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a round came to: the graph that stands after it, and the tolerance it was judged by."""

    round: int
    number: int
    taken: bool
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A graph of the last comparison.

    Attributes:
        roles: `found`, `first`, `reference`: one graph may be several.
        scores: by the final seeds.
        difference: of the found graph's mean from this one's.
    """

    roles: tuple[str, ...]
    graph: Graph
    scores: tuple[float, ...]
    difference: float


@dataclass(frozen=True, kw_only=True)
class StructureResult:
    """What a finished search leaves.

    Attributes:
        found: the graph that stands at the end.
        schema: the experiment's, with this graph.
        tried: all graphs, by number; `found` is one of them.
        steps: what every round came to.
        tolerance: of the search at its end; smaller differences are ties.
        final: the found graph beside the first one and the reference.
        final_seeds: of the comparison.
        final_error: standard error of its differences; None where nothing is known of chance.
        final_tolerance: smaller ones of them are ties.
        over_budget: there was no budget for more graphs.
        bundle_path: of the found graph, the best of its seeds.
        fresh: False if nothing was left to be trained.
    """

    found: Tried
    schema: Schema
    tried: tuple[Tried, ...]
    steps: tuple[Step, ...]
    tolerance: float
    final: tuple[Finalist, ...]
    final_seeds: tuple[int, ...]
    final_error: float | None
    final_tolerance: float
    over_budget: bool
    bundle_path: Path
    metric: str
    folder: Path
    fresh: bool

    @property
    def table(self) -> Path:
        return self.folder / TABLE

    @property
    def picture(self) -> Path:
        return self.folder / PICTURE
