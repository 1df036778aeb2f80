"""How numbers and metrics are written in tables and lines."""

from models.metrics.names import CUTOFFS, TOPS, direction
from models.schema import Schema

MISSING = "–"
UNTAUGHT = "†"  # behind numbers of a target that nothing taught
EXPECTED = "expected_"  # of metrics under a simulated world's truth, told by an E before their name
HEADS = {
    "auc": "AUC",
    "gauc_feed": "gAUC feed",
    "gauc_user": "gAUC user",
    **{f"ndcg@{k}": f"NDCG@{k}" for k in CUTOFFS},
    **{f"ndcg_user@{k}": f"NDCG@{k} user" for k in CUTOFFS},
    **{f"precision@{k}": f"Prec@{k}" for k in CUTOFFS},
    "log_loss": "Log loss",
    "calibration": "Calibration",
    "ece": "ECE",
    "gini": "Gini",
    "mse_transformed": "MSE",
    "mse": "MSE",
    "mae": "MAE",
    "normalised_gini": "Norm. Gini",
    **{f"value_ndcg@{k}": f"NDCG@{k} value" for k in CUTOFFS},
    "calibration_by_decile": "Calibration, decile",
    "decile_error": "Decile error",
    "auc_by_level": "AUC",
    "auc_by_stage": "AUC",
    "mse_by_level": "MSE",
    "mse_by_stage": "MSE",
    "auc_by_history": "AUC",
    "auc_by_activity": "AUC",
    "mse_by_history": "MSE",
    "mse_by_activity": "MSE",
    **{f"poor@{k}": f"Poor@{k}" for k in TOPS},
}


def head(path: str, schema: Schema) -> tuple[str, str]:
    """Target and metric as a table's head writes them: `stay.mse_transformed` is (stay, MSE (log))."""
    target, metric, *part = path.split(".")
    plain = metric.removeprefix(EXPECTED)
    text = HEADS[metric] if metric == plain else f"E {HEADS[plain]}"
    if plain == "mse_transformed" or plain.startswith("mse_by_"):
        text += " (log)" if schema.target(target).is_log else ""
    return target, " ".join([text, *part])


def arrow(path: str) -> str:
    """A sign for metrics that are not best when large."""
    return {"max": "", "min": " ↓", "one": " →1"}[direction(path)]


def shown(value: float | None, *, sign: bool = False) -> str:
    """Four decimals, without the zero before the point; four places of large numbers."""
    if value is None:
        return MISSING
    size = abs(value)
    mark = "" if size < 5e-5 else "−" if value < 0 else "+" if sign else ""  # nothing has no sign
    if size >= 10:
        return f"{mark}{size:,.1f}"
    text = f"{size:.4f}"
    return mark + (text[1:] if text.startswith("0") else text)


def spread_shown(mean: float | None, std: float | None, *, sign: bool = False) -> str:
    """`.7159 ± .0011`; without a deviation the mean alone."""
    return shown(mean, sign=sign) + (f" ± {shown(std)}" if std is not None else "")


def percent(share: float | None, *, sign: bool = True) -> str:
    if share is None:
        return MISSING
    mark = "−" if share < 0 else "+" if sign else ""
    return f"{mark}{abs(share) * 100:.1f} %"


def p_shown(p: float | None) -> str:
    if p is None:
        return "no p value"
    if p < 0.001:
        return "p < .001"
    return f"p = {p:.3f}".replace("= 0", "= ")
