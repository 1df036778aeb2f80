"""Evaluation: bundles and baselines on the same held-out feeds, as a report folder."""

from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.evaluate import evaluate
from pipelines.evaluate.score import evaluate_table, score

__all__ = ["EvaluateConfig", "evaluate", "evaluate_table", "score"]
