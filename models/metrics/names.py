"""Which metrics there are, which way each is better, and how a metric is addressed in a result."""

from collections.abc import Mapping
from typing import Any, Literal

CUTOFFS = (1, 5, 10)  # k of NDCG@k and Precision@k
TOPS = (1, 3, 5)  # k of the share of exposure-poor candidates among the first k

DIRECTIONS: dict[str, Literal["max", "min", "one"]] = {
    "auc": "max",
    "auc_by_level": "max",
    "auc_by_stage": "max",
    "auc_by_history": "max",
    "auc_by_activity": "max",
    "gauc_feed": "max",
    "gauc_user": "max",
    **{f"ndcg@{k}": "max" for k in CUTOFFS},
    **{f"ndcg_user@{k}": "max" for k in CUTOFFS},
    **{f"precision@{k}": "max" for k in CUTOFFS},
    "log_loss": "min",
    "calibration": "one",
    "ece": "min",
    "gini": "min",
    "mse_transformed": "min",
    "mse_by_level": "min",
    "mse_by_stage": "min",
    "mse_by_history": "min",
    "mse_by_activity": "min",
    "normalised_gini": "max",
    **{f"value_ndcg@{k}": "max" for k in CUTOFFS},
    "calibration_by_decile": "one",
    "decile_error": "min",
    "mse": "min",
    "mae": "min",
    **{f"poor@{k}": "max" for k in TOPS},
    "expected_auc": "max",
    "expected_auc_by_level": "max",
    "expected_auc_by_stage": "max",
    "expected_gauc_feed": "max",
    **{f"expected_ndcg@{k}": "max" for k in CUTOFFS},
    **{f"expected_ndcg_user@{k}": "max" for k in CUTOFFS},
    "expected_log_loss": "min",
    "expected_gini": "min",
    "expected_mse_transformed": "min",
    "expected_mse_by_level": "min",
    "expected_mse_by_stage": "min",
}
"""Which way every metric is better: larger, smaller, or nearer to one. Some are added where more is known of a feed, and the
`expected_` ones, which no drawn label blurs, where a simulator knows the truth (`models.metrics.expected`)."""


def value_of(result: Mapping[str, Any], path: str) -> float | None:
    """The metric at `target.metric`, `mean.metric`, `fused.metric` or `target.auc_by_level.level` of a result.

    Raises:
        KeyError: naming what there is instead.
    """
    here: Any = {**result["targets"], **{name: result[name] for name in ("mean", "fused") if name in result}}
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            known = ", ".join(here) if isinstance(here, Mapping) else "nothing below it"
            raise KeyError(f"no metric `{path}`: `{part}` is not one of: {known}")
        here = here[part]
    if isinstance(here, Mapping | list | str):
        raise KeyError(f"`{path}` is not one number; metrics are `target.metric`, `mean.metric` or `target.auc_by_level.level`")
    return here


def direction(path: str) -> Literal["max", "min", "one"]:
    """Which way the metric at a path such as `click.auc` is better: larger, smaller, or nearer to one.

    Raises:
        KeyError: a metric of unknown name.
    """
    for part in path.split(".")[1:]:
        if part in DIRECTIONS:
            return DIRECTIONS[part]
    raise KeyError(f"no metric `{path}`; metrics are `target.metric` or `mean.metric` with: {', '.join(DIRECTIONS)}")
