"""Metrics by what was known of a user when a feed was shown: how much each history held, and how active the user had been.

The eLiveRec paper (Zhang et al. 2023, Sec. VI-C3) reports its gains as largest for users of low activity. It does not say
how it divides users; here they are divided into thirds by the impressions they were shown before their first feed of the
split.

    # R feeds, N candidates, U users
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.metrics.binary import auc
from models.metrics.value import transformed
from models.schema import LOG, Schema, Target
from pipelines.encode.arrays import flat, lengths
from pipelines.encode.feeds import EARLIER, LABEL_PREFIX
from pipelines.evaluate.insight import last_of
from pipelines.report.evaluation.metrics import Activity, ActivityGroup, ByGroup

KNOWN_PREFIX = "known."
IMPRESSIONS = f"{KNOWN_PREFIX}impressions"  # shown to the user before the feed, in the longest of the preference windows
ENTRIES_PREFIX = f"{KNOWN_PREFIX}entries."  # of a history, by its name
ACTIVITY = ("low", "medium", "high")


# -- what is known -------------------------------------------------------------------------------------------------


def sources(there: Iterable[str], schema: Schema) -> list[str]:
    """Columns of encoded feeds that `with_known` reads, of those that are there."""
    wanted = [EARLIER, *(_first_column(schema, history.name) for history in schema.histories)]
    return [name for name in wanted if name in set(there)]


def with_known(feeds: pa.Table, schema: Schema) -> pa.Table:
    """Encoded feeds with how many entries each history held and how many impressions the user had been shown, `known.*`."""
    there = sources(feeds.column_names, schema)
    for history in schema.histories:
        source = _first_column(schema, history.name)
        if source in there:
            feeds = feeds.append_column(ENTRIES_PREFIX + history.name, pa.array(lengths(feeds[source]).astype(np.int32)))
    if EARLIER in there:
        earlier_RW = flat(feeds[EARLIER]).to_numpy().reshape(feeds.num_rows, -1)
        feeds = feeds.append_column(IMPRESSIONS, pa.array(earlier_RW[:, np.argmax(schema.preference_days)]))
    return feeds


def known(columns: Iterable[str]) -> list[str]:
    """What `with_known` has added."""
    return [name for name in columns if name.startswith(KNOWN_PREFIX)]


def _first_column(schema: Schema, history: str) -> str:
    return f"{history}.{schema.history(history).fields[0].name}"


# -- groups --------------------------------------------------------------------------------------------------------


def length_groups(length: int) -> tuple[list[int], list[str]]:
    """Smallest number of entries of every group, ascending, and the groups' names, for a history of at most `length`.

    >>> length_groups(50)
    ([0, 1, 6, 21, 50], ['0', '1-5', '6-20', '21-49', 'full'])
    """
    starts = sorted({0, 1, length // 10 + 1, 2 * length // 5 + 1, length})
    names = [str(start) if start + 1 == stop else f"{start}-{stop - 1}" for start, stop in pairwise(starts)]
    return starts, [*names, "full"]


def activity_of(user_N: NDArray, at_N: NDArray, earlier_N: NDArray) -> tuple[NDArray, dict[str, ActivityGroup]]:
    """The third of users, by impressions before their first moment here, that each candidate's user is in.

    Users of equal numbers stay together, in the third in which the middle of them lies.

    Returns:
        place in `ACTIVITY`, int64 [N]; and the groups by its names.
    """
    first_U = last_of(-at_N, user_N)
    values, value_U, users = np.unique(earlier_N[first_U], return_inverse=True, return_counts=True)
    middle = np.cumsum(users) - users / 2
    third_U = (len(ACTIVITY) * middle / len(first_U)).astype(np.int64)[value_U]
    groups = {}
    for third, name in enumerate(ACTIVITY):
        own_U = values[value_U][third_U == third]
        bounds = {"least": int(own_U.min()), "most": int(own_U.max())} if len(own_U) else {}
        groups[name] = ActivityGroup(users=len(own_U), **bounds)
    return third_U[np.searchsorted(user_N[first_U], user_N)], groups


# -- metrics -------------------------------------------------------------------------------------------------------


def by_known(table: pa.Table, schema: Schema, targets: Iterable[str]) -> tuple[dict[str, ByGroup], Activity | None]:
    """Metrics of a scored table by what it knows in `known.*` columns; nothing where it has none.

    Returns:
        by target: `auc_by_history` (or `mse_by_history`, in the logarithm) by history and group, `rows_by_history`
        and for binary targets `positives_by_history`; the same `_by_activity` by `ACTIVITY`. None where undefined.
        And the groups of activity.
    """
    histories = {}
    for history in schema.histories:
        if ENTRIES_PREFIX + history.name in table.column_names:
            starts, names = length_groups(history.length)
            place_N = np.searchsorted(starts, table[ENTRIES_PREFIX + history.name].to_numpy(), side="right") - 1
            histories[history.name] = place_N, names
    activity = None
    if IMPRESSIONS in table.column_names:
        columns = (table[name].to_numpy() for name in ("user_id", "at", IMPRESSIONS))
        third_N, thirds = activity_of(*columns)
        activity = Activity(days=max(schema.preference_days), groups=thirds)
    found = {}
    for name in targets:
        prediction_N, label_N = (table[column].to_numpy().astype(np.float64) for column in (name, LABEL_PREFIX + name))
        target, final_N = schema.target(name), label_N >= 0
        if not target.is_binary:  # which are judged in the logarithm
            log_N = table[LOG + name].to_numpy() if LOG + name in table.column_names else transformed(prediction_N, target)
            prediction_N, label_N = log_N.astype(np.float64), transformed(label_N, target)
        by_history: dict[str, dict[str, dict[str, float | None]]] = {}
        for of, (place_N, names) in histories.items():
            for what, values in _by_group(target, prediction_N, label_N, np.where(final_N, place_N, -1), names).items():
                by_history.setdefault(f"{what}_by_history", {})[of] = values
        by_activity = {}
        if activity is not None:
            numbers = _by_group(target, prediction_N, label_N, np.where(final_N, third_N, -1), ACTIVITY)
            by_activity = {f"{what}_by_activity": values for what, values in numbers.items()}
        found[name] = ByGroup(groups=by_activity, histories=by_history)
    return found, activity


def _by_group(
    target: Target, prediction_N: NDArray, label_N: NDArray, group_N: NDArray, names: Iterable[str]
) -> dict[str, dict[str, float | None]]:
    """`rows`; and `positives` and `auc`, or `mse`; by group."""
    found: dict[str, dict[str, float | None]] = {}
    finite = bool(np.isfinite(prediction_N).all())
    for group, name in enumerate(names):
        own_N = group_N == group
        rows = int(own_N.sum())
        numbers: dict[str, float | None] = {"rows": rows}
        if target.is_binary:
            positive_N = label_N[own_N] > 0
            numbers |= {"positives": int(positive_N.sum()), "auc": auc(prediction_N[own_N], positive_N) if finite else None}
        else:
            known = finite and rows
            numbers["mse"] = float(np.square(prediction_N[own_N] - label_N[own_N]).mean()) if known else None
        for what, value in numbers.items():
            found.setdefault(what, {})[name] = value
    return found
