"""How good predictions are: ranking, calibration, evenness over levels and life-cycle stages; and alarms for predictions
that cannot be right.

An `Evaluation` gathers candidates batch by batch, on one worker or many, and computes everything at the end from the
gathered arrays, so that merged parts give exactly what the whole gives. It costs 17 + 8 T bytes a candidate for T targets
in float32 (49 for four), and one more where users have stages; past `limit` candidates it goes on with a part of the
users, whole, drawn by a hash of their id: every metric is then exact for those users and `user_share` says how many they
are.

    # N candidates, G groups (feeds, users, levels, stages), B bins
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.schema import STAGES, Schema, Target

CUTOFFS = (1, 5, 10)  # k of NDCG@k and Precision@k
TOPS = (1, 3, 5)  # k of the share of exposure-poor candidates among the first k
CURVE_BINS = 20  # points of a calibration curve
LIMIT = 50_000_000  # candidates kept; 2.5 GB for four targets
SMALLEST = 1e-7  # probabilities are clipped to [SMALLEST, 1 - SMALLEST] in the log loss

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
    "mse": "min",
    "mae": "min",
    **{f"poor@{k}": "max" for k in TOPS},
}
"""Which way every metric is better: larger, smaller, or nearer to one. Some are added where more is known of a feed."""


class Evaluation:
    """Mergeable evaluation of predictions for the targets of a schema.

    Args:
        targets: which targets are predicted; all of the schema's by default.
        limit: candidates kept; see the module's text.

    Example:
        evaluation = Evaluation(schema)
        for batch in batches:
            evaluation.add(predictions, labels, level_N, feed_N, user_N)
        print(evaluation.result()["targets"]["click"]["auc"])
    """

    def __init__(self, schema: Schema, targets: Sequence[str] | None = None, *, limit: int = LIMIT) -> None:
        self.schema = schema
        self.targets = tuple(schema.target_names if targets is None else targets)
        for name in self.targets:
            schema.target(name)
        if limit < 1:
            raise ValueError(f"an evaluation keeps at least one candidate, got limit={limit}.")
        self.limit = limit
        self.halvings = 0  # users with hash < 2**(64 - halvings) are kept
        self._parts: list[dict[str, NDArray]] = []
        self._feeds = 0  # feeds numbered so far

    @property
    def rows(self) -> int:
        """Candidates kept."""
        return sum(len(part["user"]) for part in self._parts)

    def add(
        self,
        predictions: Mapping[str, NDArray],
        labels: Mapping[str, NDArray],
        level_N: NDArray,
        feed_N: NDArray,
        user_N: NDArray,
        stage_N: NDArray | None = None,
    ) -> None:
        """Takes in candidates of whole feeds: no feed is divided among calls.

        Args:
            predictions: by target, probabilities (binary) or label units (value), float [N].
            labels: by target, in the label's unit, float [N].
            level_N: index into the schema's level names.
            feed_N: any number that candidates of one feed share; it need not be unique beyond this call.
            user_N: user ids, the same in all calls.
            stage_N: the user's index into `schema.STAGES`; in all calls or in none.

        Raises:
            ValueError: a target is missing, an array has another length, or only some calls have stages.
        """
        n = len(user_N)
        part: dict[str, NDArray] = {
            "level": np.asarray(level_N).astype(np.int8),
            "feed": np.unique(np.asarray(feed_N), return_inverse=True)[1].astype(np.int64) + self._feeds,
            "user": np.asarray(user_N).astype(np.int64),
        }
        if stage_N is not None:
            part["stage"] = np.asarray(stage_N).astype(np.int8)
        for kind, columns in (("prediction", predictions), ("label", labels)):
            for name in self.targets:
                if name not in columns:
                    raise ValueError(f"{kind}s lack target `{name}`; there are: {', '.join(columns) or 'none'}.")
                column = np.asarray(columns[name])
                part[f"{kind}.{name}"] = column if column.dtype in (np.float32, np.float64) else column.astype(np.float64)
        for name, column in part.items():
            if column.shape != (n,):
                raise ValueError(f"`{name}` has shape {column.shape}, but there are {n} user ids.")
        if n:
            self._feeds = int(part["feed"].max()) + 1
            self._take(part)

    def merge(self, other: "Evaluation") -> None:
        """Takes in what another evaluation of other feeds has gathered."""
        if other.targets != self.targets:
            raise ValueError(f"evaluations of different targets: {list(self.targets)} and {list(other.targets)}.")
        while self.halvings < other.halvings:
            self._halve()
        for part in other._parts:
            self._take({**part, "feed": part["feed"] + self._feeds})
        self._feeds += other._feeds

    def state(self) -> dict[str, Any]:
        """Everything gathered, as plain numbers and arrays, to travel to another process."""
        return {
            "targets": list(self.targets),
            "limit": self.limit,
            "halvings": self.halvings,
            "feeds": self._feeds,
            "columns": self._columns() if self._parts else None,
        }

    @classmethod
    def from_state(cls, schema: Schema, state: Mapping[str, Any]) -> "Evaluation":
        evaluation = cls(schema, state["targets"], limit=state["limit"])
        evaluation.halvings = state["halvings"]
        evaluation._feeds = state["feeds"]
        if state["columns"] is not None:
            evaluation._parts = [dict(state["columns"])]
        return evaluation

    def result(self) -> dict[str, Any]:
        """All metrics as nested plain values; None where a metric is not defined (one class only, no rows).

        Returns:
            `rows`, `feeds`, `users`, `user_share`; `targets` by name (see `binary_metrics`, `value_metrics`); `mean` over
            the binary targets; `funnel`: by `child<=parent`, the share of candidates whose predictions break it, and
            `funnel_labels`, the share whose labels do; `alarms`: dicts of `kind`, `targets`, `message`.
        """
        if not self.rows:
            raise ValueError("nothing to evaluate: no candidate was added, or none of the sampled users was kept.")
        self._parts = [self._columns()]
        columns = self._parts[0] | {name: _codes(self._parts[0][name]) for name in ("feed", "user")}
        groups: Groups = {"level": (columns["level"], self.schema.levels.names)}
        if "stage" in columns:
            groups["stage"] = (columns["stage"], STAGES)
        targets: dict[str, Any] = {}
        for name in self.targets:
            target = self.schema.target(name)
            compute = binary_metrics if target.is_binary else value_metrics
            targets[name] = compute(
                columns[f"prediction.{name}"].astype(np.float64),
                columns[f"label.{name}"].astype(np.float64),
                groups=groups,
                feed_N=columns["feed"],
                user_N=columns["user"],
                **({} if target.is_binary else {"target": target}),
            )
        return {
            "rows": len(columns["user"]),
            "feeds": int(columns["feed"].max()) + 1,
            "users": int(columns["user"].max()) + 1,
            "user_share": 0.5**self.halvings,
            "targets": targets,
            "mean": _means([metrics for metrics in targets.values() if metrics["kind"] == "binary"]),
            "funnel": self._funnel(columns, "prediction"),
            "funnel_labels": self._funnel(columns, "label"),
            "alarms": self._alarms(columns, targets),
        }

    # -- gathering ---------------------------------------------------------------------------------------------

    def _columns(self) -> dict[str, NDArray]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def _take(self, part: dict[str, NDArray]) -> None:
        if self._parts and ("stage" in part) != ("stage" in self._parts[0]):
            raise ValueError("some candidates have a stage and some have none; give `stage_N` in all calls or in none.")
        self._parts.append(_of_kept_users(part, self.halvings))
        while self.rows > self.limit:
            self._halve()

    def _halve(self) -> None:
        # How often this happens depends only on all rows together, not on their order: a subset never needs more halvings.
        self.halvings += 1
        if self.halvings > 63:
            raise ValueError(f"single users have more than {self.limit} candidates; raise the evaluation's limit.")
        self._parts = [part for part in (_of_kept_users(part, self.halvings) for part in self._parts) if len(part["user"])]

    # -- checks over targets -----------------------------------------------------------------------------------

    def _funnel(self, columns: dict[str, NDArray], kind: Literal["prediction", "label"]) -> dict[str, float]:
        shares = {}
        for name in self.targets:
            for parent in self.schema.parents(name):
                if parent in self.targets and self.schema.target(name).is_binary and self.schema.target(parent).is_binary:
                    broken_N = columns[f"{kind}.{name}"] > columns[f"{kind}.{parent}"]
                    shares[f"{name}<={parent}"] = float(broken_N.mean())
        return shares

    def _alarms(self, columns: dict[str, NDArray], targets: dict[str, Any]) -> list[dict[str, Any]]:
        alarms = []

        def alarm(kind: str, names: list[str], message: str) -> None:
            alarms.append({"kind": kind, "targets": names, "message": message})

        suspects = {}  # targets whose predictions differ from row to row
        for name in self.targets:
            prediction_N = columns[f"prediction.{name}"]
            broken = int((~np.isfinite(prediction_N)).sum())
            if broken:
                alarm("non_finite", [name], f"`{name}`: {broken} of {len(prediction_N)} predictions are not finite numbers.")
            elif len(prediction_N) > 1 and prediction_N.min() == prediction_N.max():
                alarm("constant", [name], f"`{name}`: all {len(prediction_N)} predictions are {prediction_N[0]:.6g}.")
            else:
                suspects[name] = prediction_N
                if targets[name].get("auc") == 0.5:
                    alarm("auc_half", [name], f"`{name}`: the AUC is exactly .5; the predictions do not order anything.")
        names = list(suspects)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if len(suspects[first]) > 1 and np.array_equal(suspects[first], suspects[second]):
                    alarm("identical", [first, second], f"`{first}` and `{second}` have identical predictions.")
        return alarms


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


# -- metrics of one target -----------------------------------------------------------------------------------------


Groups = dict[str, tuple[NDArray, Sequence[str]]]
"""What candidates are divided by (`level`, `stage`): the group of each, int [N], and the groups' names."""


def binary_metrics(
    prediction_N: NDArray, label_N: NDArray, *, groups: Groups, feed_N: NDArray, user_N: NDArray
) -> dict[str, Any]:
    """Metrics of probabilities against labels 0 or 1.

    Args:
        groups: `level` at least.
        feed_N, user_N: numbered from 0 without gaps, int64.
    Returns:
        `auc`; `auc_by_level` and their `gini`; `auc_by_` every other of the `groups`; `gauc_feed`, `gauc_user` with the
        `_share` of groups that have both classes; `ndcg@k`, `precision@k` over feeds, and `ndcg_user@k` over users, all of
        whose candidates are one list (the STAN paper's NDCG); `log_loss`; `calibration` = predicted / observed
        positives; `ece`, the mean gap of the `calibration_curve` weighted by rows; counts. All None where a prediction is
        not finite.
    """
    finite = bool(np.isfinite(prediction_N).all())
    positive_N = label_N > 0
    result: dict[str, Any] = {
        "kind": "binary",
        "rows": len(label_N),
        "positives": int(positive_N.sum()),
        "positive_rate": float(positive_N.mean()),
    }
    for by, (group_N, group_names) in groups.items():
        for what, of_N in (("rows", group_N), ("positives", group_N[positive_N])):
            counts = np.bincount(of_N, minlength=len(group_names)).tolist()
            result[f"{what}_by_{by}"] = dict(zip(group_names, counts, strict=True))
    names = [name for name in DIRECTIONS if name.startswith(("ndcg", "precision"))]
    if not finite:
        undefined = ["auc", "gini", "gauc_feed", "gauc_user", *names, "log_loss", "calibration", "ece"]
        by_group = {f"auc_by_{by}": dict.fromkeys(group_names) for by, (_, group_names) in groups.items()}
        return result | dict.fromkeys(undefined) | by_group | {"calibration_curve": []}
    code_N = _codes(prediction_N)
    auc_by: dict[str, dict[str, float | None]] = {}
    for by, (group_N, group_names) in groups.items():
        found, values, _ = _aucs(code_N, positive_N, group_N.astype(np.int64))
        auc_by[f"auc_by_{by}"] = dict.fromkeys(group_names) | dict(
            zip((group_names[group] for group in found), values.tolist(), strict=True)
        )
    clipped_N = np.clip(prediction_N, SMALLEST, 1 - SMALLEST)
    curve = calibration_curve(prediction_N, label_N)
    by_user = ranking(prediction_N, positive_N, user_N)
    return (
        result
        | {
            "auc": auc(prediction_N, positive_N),
            **auc_by,
            "gini": gini([value for value in auc_by["auc_by_level"].values() if value is not None]),
        }
        | _grouped("gauc_feed", code_N, positive_N, feed_N)
        | _grouped("gauc_user", code_N, positive_N, user_N)
        | ranking(prediction_N, positive_N, feed_N)
        | {f"ndcg_user@{k}": by_user[f"ndcg@{k}"] for k in CUTOFFS}
        | {
            "log_loss": float(-np.log(np.where(positive_N, clipped_N, 1 - clipped_N)).mean()),
            "calibration": _ratio(prediction_N.sum(), label_N.sum()),
            "ece": float(sum(abs(point["predicted"] - point["observed"]) * point["rows"] for point in curve) / len(label_N)),
            "calibration_curve": curve,
        }
    )


def value_metrics(
    prediction_N: NDArray,
    label_N: NDArray,
    *,
    groups: Groups,
    feed_N: NDArray,
    user_N: NDArray,
    target: Target,
) -> dict[str, Any]:
    """Errors of predicted values in the label's unit, and of both after the target's transform (negative ones as 0)."""
    result: dict[str, Any] = {"kind": "value", "rows": len(label_N), "mean": float(label_N.mean())}
    if not np.isfinite(prediction_N).all():
        undefined = dict.fromkeys(["mse_transformed", "mse", "mae", "calibration"])
        by_group = {f"mse_by_{by}": dict.fromkeys(group_names) for by, (_, group_names) in groups.items()}
        return result | undefined | by_group | {"calibration_curve": []}
    error_N = prediction_N - label_N
    squared_N = squared_errors(prediction_N, label_N, target)
    mse_by = {}
    for by, (group_N, group_names) in groups.items():
        rows_G = np.bincount(group_N, minlength=len(group_names))
        squares_G = np.bincount(group_N, weights=squared_N, minlength=len(group_names))
        means = (_ratio(total, rows) for total, rows in zip(squares_G, rows_G, strict=True))
        mse_by[f"mse_by_{by}"] = dict(zip(group_names, means, strict=True))
    return result | {
        "mse_transformed": float(squared_N.mean()),
        **mse_by,
        "mse": float(np.square(error_N).mean()),
        "mae": float(np.abs(error_N).mean()),
        "calibration": _ratio(prediction_N.sum(), label_N.sum()),
        "calibration_curve": calibration_curve(prediction_N, label_N),
    }


def squared_errors(prediction_N: NDArray, label_N: NDArray, target: Target) -> NDArray:
    """[N], after the target's transform (negative values as 0)."""
    if target.transform == "log1p":
        return np.square(np.log1p(np.maximum(prediction_N, 0)) - np.log1p(np.maximum(label_N, 0)))
    return np.square(prediction_N - label_N)


def auc(prediction_N: NDArray, positive_N: NDArray) -> float | None:
    """Probability that a random positive is placed above a random negative, ties counted half; None with one class only."""
    values = _aucs(_codes(prediction_N), positive_N, np.zeros(len(prediction_N), np.int64))[1]
    return float(values[0]) if len(values) else None


def gini(values: Sequence[float]) -> float | None:
    """Unevenness of AUCs over C levels: sum over i, j of |a_i - a_j| / (C * sum a_i), as CMLIR prints it.

    Twice the textbook coefficient. 0 when all are equal; None for fewer than two levels.
    """
    a = np.asarray(values, np.float64)
    if len(a) < 2 or a.sum() == 0:
        return None
    return float(np.abs(a[:, None] - a[None, :]).sum() / (len(a) * a.sum()))


def ranking(prediction_N: NDArray, positive_N: NDArray, feed_N: NDArray) -> dict[str, Any]:
    """NDCG@k and Precision@k over the feeds that have a positive; equal predictions share their places' gains evenly.

    Precision@k divides by k even where a feed is shorter, as published. Feeds are numbered from 0 without gaps.

    Returns:
        `ndcg@k`, `precision@k` (None where no feed has a positive) and `ranked_feeds`, the share of feeds used.
    """
    gain_N, feed_of_N, place_N = _placed(prediction_N, positive_N, feed_N)
    positives_G = np.rint(np.bincount(feed_of_N, weights=gain_N)).astype(np.int64)
    used_G = positives_G > 0
    result: dict[str, Any] = {"ranked_feeds": float(used_G.mean())}
    for k in CUTOFFS:
        discounts = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate([[0.0], np.cumsum(discounts)])
        at_top_N = place_N < k
        top_feed_N, top_gain_N = feed_of_N[at_top_N], gain_N[at_top_N]
        dcg_G = np.bincount(top_feed_N, weights=top_gain_N * discounts[place_N[at_top_N]], minlength=len(used_G))
        hits_G = np.bincount(top_feed_N, weights=top_gain_N, minlength=len(used_G))
        any_used = bool(used_G.any())
        result[f"ndcg@{k}"] = float((dcg_G[used_G] / ideal[np.minimum(positives_G[used_G], k)]).mean()) if any_used else None
        result[f"precision@{k}"] = float(hits_G[used_G].mean() / k) if any_used else None
    return result


def share_at_top(prediction_N: NDArray, marked_N: NDArray, feed_N: NDArray, k: int) -> float | None:
    """Share of marked candidates among the first k places, over the feeds that are larger than k.

    Equal predictions share their places evenly, so a constant gives what a random order has on average. Feeds are numbered
    from 0 without gaps.

    Returns:
        None where no feed has more than k candidates.
    """
    mark_N, feed_of_N, place_N = _placed(prediction_N, marked_N, feed_N)
    counted_N = (place_N < k) & (np.bincount(feed_of_N)[feed_of_N] > k)
    return float(mark_N[counted_N].mean()) if counted_N.any() else None


def calibration_curve(prediction_N: NDArray, label_N: NDArray, bins: int = CURVE_BINS) -> list[dict[str, Any]]:
    """Mean prediction and mean label in bins of equal frequency, from the smallest prediction up.

    Equal predictions are never divided, so there may be fewer bins.
    """
    code_N = _codes(prediction_N)
    rows_of_code = np.bincount(code_N)
    first_of_code = np.cumsum(rows_of_code) - rows_of_code
    bin_N = _runs(first_of_code * bins // max(len(code_N), 1))[1][code_N]
    rows_B = np.bincount(bin_N)
    predicted_B = np.bincount(bin_N, weights=prediction_N) / rows_B
    observed_B = np.bincount(bin_N, weights=label_N) / rows_B
    return [
        {"predicted": predicted, "observed": observed, "rows": rows}
        for predicted, observed, rows in zip(predicted_B.tolist(), observed_B.tolist(), rows_B.tolist(), strict=True)
    ]


# -- parts ---------------------------------------------------------------------------------------------------------


def _runs(sorted_N: NDArray) -> tuple[NDArray, NDArray]:
    """Where runs of equal values start, int64 [G], and every row's run, int64 [N]."""
    first_N = np.ones(len(sorted_N), bool)
    first_N[1:] = sorted_N[1:] != sorted_N[:-1]
    return np.flatnonzero(first_N), np.cumsum(first_N) - 1


def _codes(values_N: NDArray) -> NDArray:
    """Order-keeping numbers 0, 1, ... for values, equal ones the same, int64."""
    order = np.argsort(values_N)
    codes_N = np.empty(len(order), np.int64)
    codes_N[order] = _runs(values_N[order])[1]
    return codes_N


def _sorted_ties(code_N: NDArray, positive_N: NDArray, group_N: NDArray) -> tuple[NDArray, NDArray]:
    """Rows by group, then code, as (group * N + code, positive).

    Group, code and class travel in one integer, so that a plain sort (many times faster than an indirect one) does it.
    """
    key_N = np.sort((group_N * len(code_N) + code_N) * 2 + positive_N)
    return key_N >> 1, key_N & 1


def _placed(prediction_N: NDArray, mark_N: NDArray, feed_N: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Rows by feed, the largest prediction first, as (mark, feed, place in the feed from 0); equal predictions share marks.

    Args:
        mark_N: bool.
        feed_N: numbered from 0 without gaps.
    """
    tie_N, marked_N = _sorted_ties(_codes(-prediction_N), mark_N, feed_N)
    feed_starts, feed_of_N = _runs(tie_N // max(len(tie_N), 1))
    _, tie_of_N = _runs(tie_N)
    shared_N = (np.bincount(tie_of_N, weights=marked_N) / np.bincount(tie_of_N))[tie_of_N]
    return shared_N, feed_of_N, np.arange(len(feed_N)) - feed_starts[feed_of_N]


def _aucs(code_N: NDArray, positive_N: NDArray, group_N: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Rank-based AUC of every group that has both classes: (group, AUC, rows of the group).

    Args:
        code_N, group_N: as `_codes` gives them, at most N.
    """
    tie_N, positive_N = _sorted_ties(code_N, positive_N, group_N)
    starts_G, group_of_N = _runs(tie_N // max(len(tie_N), 1))
    tie_starts, tie_of_N = _runs(tie_N)
    tie_ranks = tie_starts + (np.bincount(tie_of_N, minlength=len(tie_starts)) + 1) / 2
    rank_N = tie_ranks[tie_of_N] - starts_G[group_of_N]  # from 1 within the group, ties share their mean
    rows_G = np.bincount(group_of_N, minlength=len(starts_G))
    positives_G = np.bincount(group_of_N, weights=positive_N, minlength=len(starts_G))
    ranks_G = np.bincount(group_of_N, weights=rank_N * positive_N, minlength=len(starts_G))
    negatives_G = rows_G - positives_G
    both_G = (positives_G > 0) & (negatives_G > 0)
    pairs_G = positives_G[both_G] * negatives_G[both_G]
    above_G = ranks_G[both_G] - positives_G[both_G] * (positives_G[both_G] + 1) / 2
    return (tie_N[starts_G] // max(len(tie_N), 1))[both_G], above_G / pairs_G, rows_G[both_G]


def _grouped(name: str, code_N: NDArray, positive_N: NDArray, group_N: NDArray) -> dict[str, float | None]:
    """AUC inside groups, weighted by their rows, and the share of groups that have both classes."""
    _, values, rows_G = _aucs(code_N, positive_N, group_N)
    value = float(np.average(values, weights=rows_G)) if len(values) else None
    return {name: value, f"{name}_share": len(values) / (int(group_N.max()) + 1)}


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def _means(metrics: list[dict[str, Any]]) -> dict[str, float | None]:
    names = [name for name in DIRECTIONS if metrics and name in metrics[0] and "_by_" not in name]
    values = {name: [each[name] for each in metrics if each[name] is not None] for name in names}
    return {name: float(np.mean(values[name])) if values[name] else None for name in names}


def _of_kept_users(part: dict[str, NDArray], halvings: int) -> dict[str, NDArray]:
    if not halvings:
        return part
    kept_N = _splitmix64(part["user"]) < np.uint64(2 ** (64 - halvings))
    return {name: column[kept_N] for name, column in part.items()}


def _splitmix64(value_N: NDArray) -> NDArray:
    """A well mixed uint64 for every int64 (Steele et al. 2014); wraps around on purpose."""
    with np.errstate(over="ignore"):
        z = value_N.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
