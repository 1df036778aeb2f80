"""Which graph of targets is best (Wang et al. 2019, "Deep Bayesian multi-target learning for recommender systems", Sec. 2.3):
the search alone, over a function that scores graphs.

(a) Incremental greedy: from the graph without edges, targets get their turn one after the other. A target's turn starts with
no edge of its own; of all edges between it and the targets before it, in either direction, the best one is added, then the
best of the rest, while an edge improves the score by more than a tolerance. Edges once added stay.

(b) Local variations, of what (a) has found or of a given graph: one edge added, removed or reversed; the best variation is
taken, until none is better by more than the tolerance.

The paper leaves open what the rest of the network does meanwhile, and when a difference counts. Here every graph is scored
with all targets in the model, those that had no turn yet without edges, so that all scores of a search compare. A graph is
scored once a seed, and what counts is measured from the seeds (`Noise`). Differences within the tolerance are ties. Among
tied variations the one with fewer edges is taken, then the one that comes first by the paper's principles: an edge along
the order of targets before one against it, and an edge from a target's nearest predecessor before one from further back.
An edge is removed if the score stays within the tolerance of the best graph that was taken so far, so that many small losses
do not add up. A graph that was left is not taken again.

With n targets, (a) tries O(n^2) graphs, and one step of (b) as many.

    # a graph is a set of edges (parent, child); G graphs, S seeds
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from models.config import ConfigError, config
from pipelines.report.search.graphs import Edge, Graph, Step, Tried

Parents = Mapping[str, tuple[str, ...]]
EMPTY: Graph = frozenset()

SURE = 2.0  # standard errors of a difference that a measured tolerance is


@config
class StructureConfig:
    """A search over the parents of targets (`schema.targets`), in the place of one over settings.

    Attributes:
        targets: whose graph is searched; none means all that are trained for. Other targets keep the schema's parents.
        order: in which targets get their turn: `evenness` begins with the binary target whose share of positives among
            training candidates is nearest to 1/2, values last in the schema's order; `listed` is as in `targets`, which is
            where causes are put before effects.
        start: `empty` adds target by target to the graph without edges, then varies what it has found; `schema` (the graph of
            `schema.targets`), or parents by target (one left out has none), is varied as it is.
        vary: try local variations.
        seeds: of weights, data order and dropout; every graph is trained once a seed.
        min_gain: improvement of the score that counts; smaller differences are ties. None measures it: two standard errors
            of the difference between two graphs.
        budget: graphs tried at most.
        reference: a graph to set beside the one that was found, as `start`; not part of the search.
        final_seeds: the found graph, the first one and the reference are trained again with these for their comparison, since
            the best of many scores with the same seeds is partly luck; none compares them by `seeds`.
    """

    targets: tuple[str, ...] = ()
    order: Literal["evenness", "listed"] = "evenness"
    start: Literal["empty", "schema"] | dict[str, tuple[str, ...]] = "empty"
    vary: bool = True
    seeds: tuple[int, ...] = (0, 1, 2)
    min_gain: float | None = None
    budget: int = 40
    reference: Literal["empty", "schema"] | dict[str, tuple[str, ...]] | None = None
    final_seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.targets)) < len(self.targets) or len(self.targets) == 1:
            raise ValueError(f"structure.targets names at least two targets, each once, got {list(self.targets)}.")
        if self.order == "listed" and not self.targets:
            raise ValueError("structure.order `listed` is the order of structure.targets, which lists none.")
        both = [*self.seeds, *self.final_seeds]
        if not self.seeds or len(set(both)) < len(both):
            raise ValueError(
                f"structure.seeds needs a seed, and final_seeds others, each once; got {list(self.seeds)} and "
                f"{list(self.final_seeds)}."
            )
        if min(both) < 0:
            raise ValueError(f"structure.seeds and final_seeds must not be negative, got {both}.")
        if self.min_gain is None and len(self.seeds) < 2:
            raise ValueError(
                "structure.min_gain cannot be measured with one seed. Set it, or give structure.seeds two or more."
            )
        if self.min_gain is not None and not 0 <= self.min_gain < math.inf:
            raise ValueError(f"structure.min_gain must be at least 0, got {self.min_gain}.")
        if self.budget < 1:
            raise ValueError(f"structure.budget must be at least 1, got {self.budget}.")
        for name, graph in (("start", self.start), ("reference", self.reference)):
            if isinstance(graph, dict):
                try:
                    graph_of(graph)
                except ValueError as error:
                    raise ValueError(f"structure.{name}: {error}") from None


Score = Callable[[Sequence[Graph]], Mapping[Graph, tuple[float, ...]]]
"""Scores graphs, a number a seed, larger is better; a graph that cannot be scored is left out."""


class Noise:
    """How far scores of equally good graphs differ by chance.

    Scores are mean + graph + seed + chance, the same seeds for all graphs: chance has the variance of what is left of each
    score after the means of its graph and of its seed are taken out, with (G - 1)(S - 1) degrees of freedom. What a seed does
    to all graphs alike (a lucky order of the data) does not count.
    """

    def __init__(self, *blocks: Sequence[tuple[float, ...]]) -> None:
        """
        Args:
            blocks: graphs' scores; the seeds of a block are the same, those of different blocks are not.
        """
        squares, freedom = 0.0, 0
        for block in blocks:
            scores_GS = np.array([scores for scores in block if scores])
            if scores_GS.ndim == 2 and min(scores_GS.shape) > 1:
                left_GS = scores_GS - scores_GS.mean(1, keepdims=True) - scores_GS.mean(0) + scores_GS.mean()
                squares += float(np.square(left_GS).sum())
                freedom += (scores_GS.shape[0] - 1) * (scores_GS.shape[1] - 1)
        self.deviation = math.sqrt(squares / freedom) if freedom else math.inf

    def of_difference(self, seeds: int) -> float:
        """Standard error of the difference between the means of two graphs over so many seeds; inf where nothing is known."""
        return self.deviation * math.sqrt(2 / seeds)


class StructureSearch:
    """The search, step by step, and what it has come to.

    Attributes:
        tried: in the order of their numbers.
        steps: one a round.
        found: the graph that stands.
        over_budget: it ended because there was no budget for more graphs.

    Given the same scores it does the same, so a search that was killed repeats itself up to where it was.
    """

    def __init__(
        self,
        order: Sequence[str],
        config: StructureConfig,
        score: Score,
        after_round: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """
        Args:
            order: in which targets get their turn.
            after_round: called at the end of every round.
        """
        self.order = tuple(order)
        self.config = config
        self.ask = score
        self.after_round = after_round
        self.tried: dict[Graph, Tried] = {}
        self.steps: list[Step] = []
        self.left: set[Graph] = set()  # graphs that stood once, the present one included
        self.best = -math.inf  # score of any that stood
        self.over_budget = False

    def run(self, start: Graph | None) -> Tried:
        """Searches; from the graph without edges, target by target, if `start` is None.

        Raises:
            ConfigError: the first graph cannot be scored.
        """
        first = EMPTY if start is None else start
        self._try({first: "start"})
        self.found = self.tried[first]
        if not self.found.scores:
            raise ConfigError(f"the first graph ({spelled(first)}) cannot be scored, so there is nothing to improve.")
        self._take(self.found, taken=False)
        if start is None:
            for place, name in enumerate(self.order[1:], 1):
                while self._round(additions(self.found.graph, self._pairs(name, self.order[:place]))):
                    pass
        if self.config.vary:
            while self._round(variations(self.found.graph, self.order)):
                pass
        return self.found

    @property
    def tolerance(self) -> float:
        if self.config.min_gain is not None:
            return self.config.min_gain
        measured = Noise([each.scores for each in self.tried.values()]).of_difference(len(self.config.seeds))
        return SURE * measured

    @property
    def rounds(self) -> int:
        return len(self.steps)

    def _pairs(self, name: str, before: Sequence[str]) -> list[Edge]:
        """Edges of a target with those before it, from the nearest back, along the order before against it."""
        return [edge for other in reversed(before) for edge in ((other, name), (name, other))]

    def _round(self, candidates: Mapping[Graph, str]) -> bool:
        """Tries variations of the graph that stands and takes the best that is good enough; False if none is."""
        if not candidates or self.over_budget:
            return False
        self._try(candidates)
        tolerance = self.tolerance
        known = [self.tried[graph] for graph in candidates if graph in self.tried and graph not in self.left]
        good = [each for each in known if self._is_good(each, tolerance)]
        if good:
            highest = max(each.score for each in good)
            tied = [each for each in good if each.score >= highest - tolerance]
            self.found = min(tied, key=lambda each: len(each.graph))  # the first of several
        self._take(self.found, taken=bool(good))
        return bool(good)

    def _is_good(self, each: Tried, tolerance: float) -> bool:
        if len(each.graph) < len(self.found.graph):
            return each.score >= self.best - tolerance
        return each.score > self.found.score + tolerance

    def _take(self, each: Tried, *, taken: bool) -> None:
        self.left.add(each.graph)
        self.best = max(self.best, each.score)
        self.steps.append(Step(round=self.rounds, number=each.number, taken=taken, tolerance=self.tolerance))
        self.after_round(self.steps[-1])

    def _try(self, candidates: Mapping[Graph, str]) -> None:
        new = [graph for graph in candidates if graph not in self.tried]
        affordable = new[: self.config.budget - len(self.tried)]
        self.over_budget = len(affordable) < len(new)
        scores = self.ask(affordable) if affordable else {}
        for graph in affordable:
            number, change = len(self.tried) + 1, candidates[graph]
            self.tried[graph] = Tried(
                number=number, graph=graph, round=self.rounds, change=change, scores=tuple(scores.get(graph, ()))
            )


# -- graphs --------------------------------------------------------------------------------------------------------


def additions(graph: Graph, edges: Sequence[Edge]) -> dict[Graph, str]:
    """The graphs with one more of the edges that have no cycle, in the order of the edges, and what was added."""
    possible = [edge for edge in edges if edge not in graph and edge[::-1] not in graph and is_acyclic(graph | {edge})]
    return {graph | {edge}: f"+ {arrow(edge)}" for edge in possible}


def variations(graph: Graph, order: Sequence[str]) -> dict[Graph, str]:
    """The graphs that differ in one edge, and by what: one removed, reversed or added."""
    pairs = [
        edge for place, name in enumerate(order) for other in reversed(order[:place]) for edge in ((other, name), (name, other))
    ]
    have = [edge for edge in pairs if edge in graph]
    found = {graph - {edge}: f"- {arrow(edge)}" for edge in have}
    for edge in have:
        reversed_one = graph - {edge} | {edge[::-1]}
        if is_acyclic(reversed_one):
            found[reversed_one] = f"reversed: {arrow(edge[::-1])}"
    return found | additions(graph, pairs)


def is_acyclic(graph: Graph) -> bool:
    left = set(graph)
    while left:
        children = {child for _, child in left}
        starting = {edge for edge in left if edge[0] not in children}
        if not starting:
            return False
        left -= starting
    return True


def graph_of(parents: Parents) -> Graph:
    """The edges of a graph that is spelled as parents by target.

    Raises:
        ValueError: it has a cycle.
    """
    graph = frozenset((parent, child) for child, above in parents.items() for parent in above)
    if not is_acyclic(graph):
        raise ValueError(f"{spelled(graph)} has a cycle; the graph of targets must not.")
    return graph


def parents_of(graph: Graph, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parents of every target, in the order of the names."""
    return {child: tuple(parent for parent in names if (parent, child) in graph) for child in names}


def spelled(graph: Graph) -> str:
    """`click → order, click → follow`, alphabetically; `no edges`."""
    return ", ".join(arrow(edge) for edge in sorted(graph)) or "no edges"


def arrow(edge: Edge) -> str:
    return f"{edge[0]} → {edge[1]}"
