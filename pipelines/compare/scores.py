"""Numbers of a comparison's cells: a metric's values over the seeds of a row, and on how many positives they rest."""

import re
from collections.abc import Mapping

from pipelines.compare.statistics import spread
from pipelines.report.comparison.compared import Score
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.report.words import EXPECTED

Results = Mapping[int, EvaluationResult]
"""Of a system's finished cells, by seed."""

_DIVIDED = re.compile(r"_by_(level|stage|history|activity)$")


def score_of(results: Results, path: str, fewest: int) -> Score:
    """Values of the seeds in which the metric is defined; none where it rests on drawn labels and too few positives."""
    positives = next((positives_of(result, path) for result in results.values()), None)
    if positives is not None and positives < fewest:
        return Score(positives=positives)
    by_seed = {seed: value for seed, result in results.items() if (value := result.find(path)) is not None}
    mean, std = spread(list(by_seed.values())) if by_seed else (None, None)
    target = path.split(".")[0]
    untaught = any(target in result.targets and result.targets[target].untaught for result in results.values())
    return Score(mean=mean, std=std, by_seed=by_seed, positives=positives, untaught=untaught)


def positives_of(result: EvaluationResult, path: str) -> int | None:
    """Positives that a metric with drawn labels rests on; of a mean over targets, those of the rarest.

    Returns:
        None for what rests on none: errors of a value, and what is expected under the truth.
    """
    target, metric, *part = path.split(".")
    if metric.startswith(EXPECTED):
        return None
    if target == "mean":
        return min((known.positives for known in result.targets.values() if known.positives is not None), default=None)
    divided = _DIVIDED.search(metric)
    found = result.find(".".join([target, f"positives_by_{divided[1]}", *part] if divided else [target, "positives"]))
    return None if found is None else int(found)
