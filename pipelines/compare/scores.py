"""Numbers of a comparison's cells: a metric's values over the seeds of a row."""

from collections.abc import Mapping

from pipelines.compare.statistics import spread
from pipelines.report.comparison.compared import Score
from pipelines.report.evaluation.metrics import EvaluationResult

Results = Mapping[int, EvaluationResult]
"""Of a system's finished cells, by seed."""


def score_of(results: Results, path: str) -> Score:
    """Values of the seeds in which the metric is defined."""
    by_seed = {seed: value for seed, result in results.items() if (value := result.find(path)) is not None}
    mean, std = spread(list(by_seed.values())) if by_seed else (None, None)
    target = path.split(".")[0]
    untaught = any(target in result.targets and result.targets[target].untaught for result in results.values())
    return Score(mean=mean, std=std, by_seed=by_seed, untaught=untaught)
