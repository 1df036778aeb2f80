"""The evaluation of predictions for all targets of a schema, on one worker or many.

An `Evaluation` gathers candidates batch by batch; its `Summary` has everything that metrics follow from. It costs
17 + 8 T bytes a candidate for T targets in float32 (49 for four), four more for every value among them, and one more where
users have stages; while they are summarised it is some 150 more, whatever T is. Past `limit` candidates it goes on with a
part of the users, whole, drawn by a hash of their id: every metric is then exact for those users and `user_share` says how
many they are.

Several workers evaluate together in four moves, each of which all of them make:

    own.keep_within_limit(sum over workers of own.rows_by_halvings())         all keep the same users
    parts = own.by_user(workers)                                              worker w is sent everyone's parts[w]
    mine.merge(each that was sent to this worker)                             whole users and feeds from here on
    Summary.together([summary of every worker]).result()

The second and third may be left out where every user already lies with one worker. The result has the same bits as that of
one worker with all rows.

    # N candidates
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from models.hashing import splitmix64
from models.metrics.binary import BinarySummary, Groups
from models.metrics.expected import ExpectedErrors, ExpectedSummary, Known, undefined
from models.metrics.names import DIRECTIONS
from models.metrics.ordering import codes
from models.metrics.smearing import Seen
from models.metrics.sums import Mean
from models.metrics.value import ValueSummary, transformed
from models.schema import LOG, STAGES, Schema

LIMIT = 50_000_000  # candidates kept; 2.5 GB for four targets, and 10 GB while one worker summarises them all
HALVINGS = 64  # at most: as many as a hash has bits


class Evaluation:
    """Predictions and labels of candidates, gathered to be evaluated.

    Args:
        targets: which targets are predicted; all of the schema's by default.
        limit: candidates kept; see the module's text.

    Attributes:
        halvings: users whose hash is below 2 ** (64 - halvings) are kept.

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
        self.halvings = 0
        self._parts: list[dict[str, NDArray]] = []
        self._feeds = 0  # feeds numbered so far

    @property
    def rows(self) -> int:
        """Candidates kept."""
        return sum(len(part["user"]) for part in self._parts)

    # -- gathering ---------------------------------------------------------------------------------------------

    def add(
        self,
        predictions: Mapping[str, NDArray],
        labels: Mapping[str, NDArray],
        level_N: NDArray,
        feed_N: NDArray,
        user_N: NDArray,
        stage_N: NDArray | None = None,
        known: Known | None = None,
    ) -> None:
        """Takes in candidates of whole feeds: no feed is divided among calls.

        Args:
            predictions: by target, probabilities (binary) or label units (value), float [N]; and by `LOG` and the target, what
                is predicted of a value's logarithm, which is that of the prediction where it is not given.
            labels: by target, in the label's unit, finite, float [N]; below zero where not final (`models.batch.Early`), which
                the target is not judged by.
            level_N: index into the schema's level names.
            feed_N: any number that candidates of one feed share; it need not be unique beyond this call.
            user_N: user ids, the same in all calls.
            stage_N: the user's index into `schema.STAGES`; in all calls or in none.
            known: what a simulator knows of the candidates; of the same targets in all calls.

        Raises:
            ValueError: a target is missing, an array has another length, a label is not finite, a chance is no probability, or
                something is known of targets in only some calls, or stages are given in only some.
        """
        n = len(user_N)
        part: dict[str, NDArray] = {
            "level": np.asarray(level_N).astype(np.int8),
            "feed": np.unique(np.asarray(feed_N), return_inverse=True)[1].astype(np.int64),
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
        for name in self.targets:
            if not self.schema.target(name).is_binary:
                given = predictions.get(LOG + name)
                part[LOG + name] = (
                    transformed(part[f"prediction.{name}"].astype(np.float64), self.schema.target(name))
                    if given is None
                    else given
                )
            part |= {} if known is None else known.column(name)
        for name, column in part.items():
            if column.shape != (n,):
                raise ValueError(f"`{name}` has shape {column.shape}, but there are {n} user ids.")
            if name.startswith("label.") and not np.isfinite(column).all():
                raise ValueError(f"`{name}` holds {int((~np.isfinite(column)).sum())} labels that are not finite numbers.")
        if n:
            self._take(part)

    def seen(self, name: str) -> Seen:
        """What was observed where a value was predicted."""
        none = [np.zeros(0, np.float32)]
        return Seen.of(
            *(np.concatenate(none + [part[f"{kind}.{name}"] for part in self._parts]) for kind in ("prediction", "label"))
        )

    def become(self, name: str, change: Callable[[NDArray], NDArray]) -> None:
        """Replaces the predictions of a target by others that follow from them."""
        for part in self._parts:
            part[f"prediction.{name}"] = change(part[f"prediction.{name}"])

    def state(self) -> dict[str, Any]:
        """Everything gathered, as plain numbers and arrays, to travel to another process."""
        return {
            "targets": list(self.targets),
            "limit": self.limit,
            "halvings": self.halvings,
            "columns": self._columns() if self._parts else None,
        }

    @classmethod
    def from_state(cls, schema: Schema, state: Mapping[str, Any]) -> Self:
        evaluation = cls(schema, state["targets"], limit=state["limit"])
        evaluation.halvings = state["halvings"]
        if state["columns"] is not None:
            evaluation._take(dict(state["columns"]))
        return evaluation

    # -- several workers ---------------------------------------------------------------------------------------

    def rows_by_halvings(self) -> NDArray:
        """Candidates that would be kept after each number of halvings, int64 [64].

        For fewer halvings than were made it is not known, and the limit and one stand there.
        """
        rows = np.full(HALVINGS, self.limit + 1, np.int64)
        hash_N = splitmix64(np.concatenate([part["user"] for part in self._parts] or [np.zeros(0, np.int64)]))
        for halvings in range(self.halvings, HALVINGS):
            hash_N = hash_N[_is_kept(hash_N, halvings)]
            rows[halvings] = len(hash_N)
        return rows

    def keep_within_limit(self, rows_by_halvings: NDArray) -> None:
        """Keeps the users that all workers keep, so that their candidates together are within the limit.

        Args:
            rows_by_halvings: the sum over all workers of what they found.

        Raises:
            ValueError: single users have more candidates than the limit.
        """
        while rows_by_halvings[self.halvings] > self.limit:
            self._halve()

    def by_user(self, workers: int) -> list[Self]:
        """What was gathered, divided by a hash of the user: every user as a whole in one of the parts."""
        owner_of = lambda part: splitmix64(part["user"]) % np.uint64(workers)
        owners = [owner_of(part) for part in self._parts]
        found = []
        for worker in range(workers):
            mine = type(self)(self.schema, self.targets, limit=self.limit)
            mine.halvings = self.halvings
            for part, owner_N in zip(self._parts, owners, strict=True):
                own_N = owner_N == worker
                if own_N.any():
                    mine._take({name: column[own_N] for name, column in part.items()})
            found.append(mine)
        return found

    def merge(self, other: "Evaluation") -> None:
        """Takes in what another evaluation of other feeds has gathered.

        Raises:
            ValueError: evaluations of different targets; only one of them has stages.
        """
        if other.targets != self.targets:
            raise ValueError(f"evaluations of different targets: {list(self.targets)} and {list(other.targets)}.")
        while self.halvings < other.halvings:
            self._halve()
        for part in other._parts:
            self._take(part)

    # -- metrics -----------------------------------------------------------------------------------------------

    def summary(self) -> "Summary | None":
        """What the metrics of all candidates follow from; None without candidates. All rows of a user must be here."""
        if not self.rows:
            return None
        self._parts = [self._columns()]
        columns = self._parts[0] | {name: codes(self._parts[0][name]) for name in ("feed", "user")}
        groups: Groups = {"level": (columns["level"], self.schema.levels.names)}
        if "stage" in columns:
            groups = {**groups, "stage": (columns["stage"], STAGES)}
        found: dict[str, BinarySummary | ValueSummary] = {}
        expected: dict[str, ExpectedSummary | ExpectedErrors | None] = {}
        lists = {"feed_N": columns["feed"], "user_N": columns["user"]}
        for name in self.targets:
            target = self.schema.target(name)
            prediction_N, label_N = columns[f"prediction.{name}"], columns[f"label.{name}"]
            final_N = label_N >= 0
            final = _final(final_N, prediction_N, label_N, groups, lists) if not final_N.all() else None
            judged_N, known_N, of_groups, of_lists = final or (prediction_N, label_N, groups, lists)
            if target.is_binary:
                found[name] = BinarySummary.of(judged_N, known_N, groups=of_groups, **of_lists)
                if f"chance.{name}" in columns:
                    expected[name] = ExpectedSummary.of(prediction_N, columns[f"chance.{name}"], groups=groups, **lists)
            else:
                log_N = columns[LOG + name]
                found[name] = ValueSummary.of(
                    judged_N, log_N[final_N], known_N, groups=of_groups, target=target, feed_N=of_lists["feed_N"]
                )
                if f"mean.{name}" in columns:
                    moments = columns[f"mean.{name}"], columns[f"square.{name}"]
                    expected[name] = ExpectedErrors.of(log_N, moments, groups=groups)
        identical = {
            (first, second)
            for first, second in combinations(self.targets, 2)
            if np.array_equal(columns[f"prediction.{first}"], columns[f"prediction.{second}"])
        }
        return Summary(
            rows=len(columns["user"]),
            feeds=int(columns["feed"].max()) + 1,
            users=int(columns["user"].max()) + 1,
            halvings=self.halvings,
            targets=found,
            expected=expected,
            funnel=self._funnel(columns, "prediction"),
            funnel_labels=self._funnel(columns, "label"),
            identical=frozenset(identical),
        )

    def result(self) -> dict[str, Any]:
        """The metrics of all candidates, see `Summary.result`.

        Raises:
            ValueError: no candidates.
        """
        return Summary.together([self.summary()]).result()

    # -- parts -------------------------------------------------------------------------------------------------

    def _columns(self) -> dict[str, NDArray]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def _take(self, part: dict[str, NDArray]) -> None:
        """Takes in rows whose feeds are numbered anyhow, from 0 on."""
        known = [(f"{what}.{name}", "known") for name in self.targets for what in ("chance", "mean")]
        for what, given in (("stage", "stage_N"), *known):
            if self._parts and (what in part) != (what in self._parts[0]):
                raise ValueError(f"some candidates have a {what} and some have none; give `{given}` in all calls or in none.")
        feed_N = part["feed"] + self._feeds
        self._feeds = int(feed_N.max()) + 1
        self._parts += _kept([{**part, "feed": feed_N}], self.halvings)
        while self.rows > self.limit:
            self._halve()

    def _halve(self) -> None:
        # How often this happens depends only on all rows together, not on their order: a subset never needs more halvings.
        self.halvings += 1
        if self.halvings >= HALVINGS:
            raise ValueError(f"single users have more than {self.limit} candidates; raise the evaluation's limit.")
        self._parts = _kept(self._parts, self.halvings)

    def _funnel(self, columns: dict[str, NDArray], kind: Literal["prediction", "label"]) -> dict[str, Mean]:
        is_binary = {name: self.schema.target(name).is_binary for name in self.targets}

        def broken(child: str, parent: str) -> NDArray:
            child_N, parent_N = columns[f"{kind}.{child}"], columns[f"{kind}.{parent}"]
            if kind == "label":
                final_N = (child_N >= 0) & (parent_N >= 0)
                return child_N[final_N] > parent_N[final_N]
            return child_N > parent_N

        return {
            f"{name}<={parent}": Mean.of(broken(name, parent))
            for name in self.targets
            for parent in self.schema.parents(name)
            if is_binary[name] and is_binary.get(parent)
        }


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the metrics of candidates follow from; small beside them but for one sorted row a candidate and target.

    Attributes:
        rows, feeds, users: how many.
        halvings: as `Evaluation.halvings`.
        targets: by name.
        expected: of targets that a simulator knows the truth about; None where a prediction is not finite.
        funnel, funnel_labels: by `child<=parent`, the share of candidates whose predictions, or labels, break it.
        identical: pairs of targets whose predictions are the same for all candidates.
    """

    rows: int
    feeds: int
    users: int
    halvings: int
    targets: Mapping[str, BinarySummary | ValueSummary]
    expected: Mapping[str, ExpectedSummary | ExpectedErrors | None]
    funnel: Mapping[str, Mean]
    funnel_labels: Mapping[str, Mean]
    identical: frozenset[tuple[str, str]]

    @classmethod
    def together(cls, summaries: Sequence["Summary | None"]) -> "Summary":
        """Of all candidates, from summaries that have no user in common; None is that of a worker without candidates.

        Raises:
            ValueError: there are no candidates at all; not all workers keep the same users.
        """
        parts = [summary for summary in summaries if summary is not None]
        if not parts:
            raise ValueError("nothing to evaluate: no candidate was added, or none of the sampled users was kept.")
        first = parts[0]
        if len({part.halvings for part in parts}) > 1:
            raise ValueError(
                f"workers keep different shares of their users, halved {[part.halvings for part in parts]} times; "
                "call `keep_within_limit` on all of them before."
            )
        if len(parts) == 1:
            return first
        added = lambda of: {name: sum((of(part)[name] for part in parts), Mean()) for name in of(first)}
        return cls(
            rows=sum(part.rows for part in parts),
            feeds=sum(part.feeds for part in parts),
            users=sum(part.users for part in parts),
            halvings=first.halvings,
            targets={
                name: type(target).together([part.targets[name] for part in parts])  # type: ignore[misc]  # of one kind
                for name, target in first.targets.items()
            },
            expected={
                name: (ExpectedSummary if isinstance(first.targets[name], BinarySummary) else ExpectedErrors).together(
                    [part.expected[name] for part in parts]  # type: ignore[misc]  # of one kind
                )
                for name in first.expected
            },
            funnel=added(lambda part: part.funnel),
            funnel_labels=added(lambda part: part.funnel_labels),
            identical=frozenset.intersection(*(part.identical for part in parts)),
        )

    def result(self) -> dict[str, Any]:
        """All metrics as nested plain values; None where a metric is not defined (one class only, no rows).

        Returns:
            `rows`, `feeds`, `users`, `user_share`; `targets` by name (see `BinarySummary.result`, `ValueSummary.result`, and
            where the truth is known `ExpectedSummary.result`, `ExpectedErrors.result`); `mean` over the binary ones; `funnel`:
            by `child<=parent`, the share of candidates whose predictions break it, and `funnel_labels`, that of the labels;
            `alarms`: dicts of `kind`, `targets`, `message`.
        """
        targets = {name: target.result() for name, target in self.targets.items()}
        for name, expected in self.expected.items():
            of = self.targets[name]
            is_binary = isinstance(of, BinarySummary)
            groups = of.group_names if isinstance(of, BinarySummary) else of.squared_by
            targets[name] |= undefined(groups, is_binary=is_binary) if expected is None else expected.result()
        return {
            "rows": self.rows,
            "feeds": self.feeds,
            "users": self.users,
            "user_share": 0.5**self.halvings,
            "targets": targets,
            "mean": _means([metrics for metrics in targets.values() if metrics["kind"] == "binary"]),
            "funnel": {edge: mean.value for edge, mean in self.funnel.items()},
            "funnel_labels": {edge: mean.value for edge, mean in self.funnel_labels.items()},
            "alarms": self._alarms(targets),
        }

    def _alarms(self, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        alarms = []

        def alarm(kind: str, names: list[str], message: str) -> None:
            alarms.append({"kind": kind, "targets": names, "message": message})

        suspects = []  # targets whose predictions differ from row to row
        for name, target in self.targets.items():
            if not target.rows:
                alarm("not_final", [name], f"`{name}`: not one of {self.rows} labels is final, so nothing is judged.")
                continue
            if target.range is None:
                alarm(
                    "non_finite", [name], f"`{name}`: {target.non_finite} of {target.rows} predictions are not finite numbers."
                )
                continue
            smallest, largest = target.range
            if target.rows > 1 and smallest == largest:
                alarm("constant", [name], f"`{name}`: all {target.rows} predictions are {smallest:.6g}.")
            else:
                suspects.append(name)
                if results[name].get("auc") == 0.5:
                    alarm("auc_half", [name], f"`{name}`: the AUC is exactly .5; the predictions do not order anything.")
        for first, second in combinations(suspects, 2):
            if self.rows > 1 and (first, second) in self.identical:
                alarm("identical", [first, second], f"`{first}` and `{second}` have identical predictions.")
        return alarms


def _final(
    final_N: NDArray, prediction_N: NDArray, label_N: NDArray, groups: Groups, lists: Mapping[str, NDArray]
) -> tuple[NDArray, NDArray, Groups, dict[str, NDArray]]:
    """The rows whose label is final; lists are numbered from 0 without gaps again."""
    of_groups = {by: (group_N[final_N], names) for by, (group_N, names) in groups.items()}
    return prediction_N[final_N], label_N[final_N], of_groups, {name: codes(of_N[final_N]) for name, of_N in lists.items()}


def _means(metrics: list[dict[str, Any]]) -> dict[str, float | None]:
    names = [name for name in DIRECTIONS if any(name in each for each in metrics) and "_by_" not in name]
    values = {name: [each[name] for each in metrics if each.get(name) is not None] for name in names}
    return {name: float(np.mean(values[name])) if values[name] else None for name in names}


def _kept(parts: Sequence[dict[str, NDArray]], halvings: int) -> list[dict[str, NDArray]]:
    """The rows of kept users; parts without any are left out."""
    if not halvings:
        return list(parts)
    kept = [_is_kept(splitmix64(part["user"]), halvings) for part in parts]
    pairs = [(part, kept_N) for part, kept_N in zip(parts, kept, strict=True) if kept_N.any()]
    return [{name: column[kept_N] for name, column in part.items()} for part, kept_N in pairs]


def _is_kept(hash_N: NDArray, halvings: int) -> NDArray:
    return hash_N < np.uint64(2 ** (64 - halvings)) if halvings else np.ones(len(hash_N), bool)
