"""Trainings of a structure search: graphs to scores, from folders of finished ones and from new ones on Ray."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from pipelines.report.search.graphs import Graph
from pipelines.tune.folder import say_where_to_watch
from pipelines.tune.structure.graphs import spelled
from pipelines.tune.structure.problem import Problem, Seeded, refusal

Say = Callable[[str], None]


class Trainings:
    """Scores of graphs, from the folders of finished trainings and from new ones on Ray.

    Attributes:
        failures: why a graph has no score, in one line.
        fresh: whether anything was trained.
    """

    def __init__(self, problem: Problem, say: Say) -> None:
        self.problem = problem
        self.say = say
        self.failures: dict[Graph, str] = {}
        self.fresh = False
        self.numbers: dict[Graph, int] = {}
        self.rounds = 0

    def scores(
        self, graphs: Sequence[Graph], seeds: Sequence[int], names: Mapping[Graph, str] | None = None
    ) -> dict[Graph, tuple[float, ...]]:
        """A score a seed of every graph; graphs that fail are left out, and said.

        Args:
            names: what the graphs are called in lines; None numbers them.
        """
        if names is None:
            for graph in graphs:
                self.numbers.setdefault(graph, len(self.numbers) + 1)
            names = {graph: f"graph {self.numbers[graph]} of at most {self.problem.structure.budget}" for graph in graphs}
        fitting = []
        for graph in graphs:
            refused = refusal(self.problem, graph)
            if refused is None:
                fitting.append(graph)
            else:
                self._failed(graph, refused, names)
        missing = [(graph, seed) for graph in fitting for seed in seeds if self.problem.score(graph, seed) is None]
        if missing:
            self._train(missing, seeds, names)
        found: dict[Graph, tuple[float, ...]] = {}
        for graph in fitting:
            scores = self._known(graph, seeds)
            if scores is not None:
                found[graph] = scores
        return found

    def _train(self, missing: list[Seeded], seeds: Sequence[int], names: Mapping[Graph, str]) -> None:
        from pipelines.tune.structure.ray_tune import run_trainings  # only here is Ray needed

        if not self.fresh:
            self.fresh = True
            self._say_what_is_searched()
        self.rounds += 1
        told: set[Graph] = set()  # seeds side by side may both have written their scores when the first of them is reported

        def over(training: Seeded, failure: str | None) -> None:
            graph, _ = training
            if failure is not None:
                if graph not in self.failures:
                    self._failed(graph, failure, names)
                return
            scores = self._known(graph, seeds)
            if scores is not None and graph not in told:
                told.add(graph)
                self.say(f"{names[graph]} · {score_text(scores)} · {spelled(graph)}")

        run_trainings(self.problem, missing, self.rounds, over)

    def _known(self, graph: Graph, seeds: Sequence[int]) -> tuple[float, ...] | None:
        scores = [self.problem.score(graph, seed) for seed in seeds]
        return tuple(score for score in scores if score is not None) if None not in scores else None

    def _failed(self, graph: Graph, reason: str, names: Mapping[Graph, str]) -> None:
        self.failures[graph] = " ".join(reason.split())
        self.say(f"{names[graph]} · cannot be scored: {self.failures[graph]} · {spelled(graph)}")

    def _say_what_is_searched(self) -> None:
        have = len(self.problem.bundled())
        before = f"; {have} trainings are there from before" if have else ""
        seeds = len(self.problem.structure.seeds)
        what = f"Training at most {self.problem.structure.budget} graphs, {seeds} times each{before}."
        say_where_to_watch(what, self.problem.folder / "trials", self.problem.config, self.say)
        self.say(f"Graphs tried so far: {self.problem.folder / 'structure.md'}")


def score_text(scores: Sequence[float]) -> str:
    """Mean and spread, `0.8123 ± 0.0011 (3 seeds)`."""
    if len(scores) < 2:
        return f"{fmean(scores):.4f}"
    return f"{fmean(scores):.4f} ± {stdev(scores):.4f} ({len(scores)} seeds)"
