"""The truth of a simulated world about a split: the probability of every label, candidate by candidate.

It judges predictions without the noise of drawn labels (`models.metrics.expected`), and is itself the best there can be. No
step that learns reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from models.metrics.expected import Known
from models.schema import LOG, Schema, Target
from pipelines.evaluate.baselines import Predicted
from pipelines.evaluate.score import labelled_candidates
from pipelines.logs.simulator import ACTIONS, STAY_CAP, STAY_MEAN, moments_of_log_stay
from pipelines.places import here
from pipelines.prepared import Prepared

ENTERED, STAY = "click", "stay_seconds"
_ROW = "row"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a world knows of a split's candidates.

    Attributes:
        rows: the candidates in the order in which `score` gives them, with keys and labels.
        known: given all that was drawn before the impression: by binary target the probability of a positive, float32, and of
            the stay the moments of its logarithm.
        values: of the stay, its expectation in seconds, float32.
    """

    rows: pa.Table
    known: Known
    values: Mapping[str, NDArray]

    @property
    def table(self) -> pa.Table:
        """As a table of predictions: in expectation no system can rank better, or be nearer to a value or its logarithm."""
        table = self.rows
        for name, chance_N in self.known.chances.items():
            table = table.append_column(name, pa.array(chance_N))
        for name, (mean_N, _) in self.known.moments.items():
            table = table.append_column(name, pa.array(self.values[name]))
            table = table.append_column(LOG + name, pa.array(mean_N))
        return table


def truth_of(prepared: Prepared, split: str, folder: Path) -> Truth | str:
    """The truth about the targets that are labelled as the world has them.

    Args:
        folder: holds `impressions/` with user_id, room_id, shown_at, a column for each binary target it knows, and what
            decides how long those who enter stay.

    Returns:
        a line that says why there is none: it knows no target, or not all of the split's candidates.
    """
    with here(folder / "impressions") as known:
        return _truth_of(prepared, split, ds.dataset(known))


def _truth_of(prepared: Prepared, split: str, source: ds.Dataset) -> Truth | str:
    schema = prepared.schema
    there = set(source.schema.names)
    targets = [target.name for target in schema.targets if target.name in there and is_known(target)]
    stays = [
        target.name for target in schema.targets if {STAY, STAY_MEAN, STAY_CAP, ENTERED} <= there and is_known_stay(target)
    ]
    if not targets and not stays:
        return f"left out: the truth knows none of the targets {', '.join(schema.target_names)}"
    wanted = dict.fromkeys([*targets, *([ENTERED, STAY, STAY_MEAN, STAY_CAP] if stays else [])])
    rows = labelled_candidates(prepared.files(split), schema)
    first, last = pc.min(rows["at"]), pc.max(rows["at"])
    known = source.to_table(
        columns=["user_id", "room_id", "shown_at", *wanted],
        filter=(ds.field("shown_at") >= first) & (ds.field("shown_at") <= last),
    )
    keys = rows.select(["user_id", "room_id", "at"]).append_column(_ROW, pa.array(np.arange(rows.num_rows)))
    joined = keys.join(known, ["user_id", "room_id", "at"], ["user_id", "room_id", "shown_at"], join_type="inner")
    if joined.num_rows != rows.num_rows or pc.count_distinct(joined[_ROW]).as_py() != rows.num_rows:
        share = pc.count_distinct(joined[_ROW]).as_py() / rows.num_rows
        return f"left out: the truth knows {share:.1%} of the split's candidates, and it must know each of them once"
    joined = joined.sort_by(_ROW)
    moments = {}
    if stays:
        entered_N, mean_N, cap_N = (joined[name].to_numpy().astype(np.float64) for name in (ENTERED, STAY_MEAN, STAY_CAP))
        first_N, second_N = moments_of_log_stay(mean_N, cap_N)
        moments = {name: (entered_N * first_N, entered_N * second_N) for name in stays}  # 0 for those who do not enter
    chances = {name: joined[name].to_numpy() for name in targets}
    values = {name: joined[STAY].to_numpy() for name in stays}
    return Truth(rows=rows, known=Known(chances=chances, moments=moments), values=values)


def as_predicted(truth: Truth) -> Predicted:
    return Predicted(table=truth.table, note="the simulator's own probabilities")


def knowable(schema: Schema, rows: int) -> Known:
    """As of so many candidates of which a simulated world knows everything that it may."""
    half_N = np.full(rows, 0.5)
    return Known(
        chances={target.name: half_N for target in schema.targets if is_known(target)},
        moments={target.name: (half_N, half_N) for target in schema.targets if is_known_stay(target)},
    )


def is_known(target: Target) -> bool:
    """Whether a target's label is what a simulated world calls by that name."""
    return target.is_binary and target.at_least is None and ACTIONS.get(target.name) == target.action


def is_known_stay(target: Target) -> bool:
    """Whether a target's label is the seconds of a simulated stay, judged after their logarithm."""
    return target.name == STAY and target.action == ACTIONS[ENTERED] and target.is_log
