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

from models.schema import Schema, Target
from pipelines.evaluate.baselines import Predicted
from pipelines.evaluate.score import labelled_candidates
from pipelines.logs.simulator import ACTIONS
from pipelines.prepared import Prepared

_ROW = "row"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a world knows of a split's candidates.

    Attributes:
        rows: the candidates in the order in which `score` gives them, with keys and labels.
        chances: by binary target, the probability of a positive given all that was drawn before the impression, float32 [N].
    """

    rows: pa.Table
    chances: Mapping[str, NDArray]

    @property
    def table(self) -> pa.Table:
        """As a table of predictions: no system can rank better in expectation."""
        table = self.rows
        for name, chance_N in self.chances.items():
            table = table.append_column(name, pa.array(chance_N))
        return table


def truth_of(prepared: Prepared, split: str, folder: Path) -> Truth | str:
    """The truth about the binary targets that are labelled as the world has them; a value has none without a spread.

    Args:
        folder: holds `impressions.parquet` with user_id, room_id, shown_at and a column for each target it knows.

    Returns:
        a line that says why there is none: it knows no target, or not all of the split's candidates.
    """
    schema = prepared.schema
    source = ds.dataset(folder / "impressions.parquet")
    targets = [target.name for target in schema.targets if target.name in source.schema.names and is_known(target)]
    if not targets:
        return f"left out: the truth knows none of the binary targets among {', '.join(schema.target_names)}"
    rows = labelled_candidates(prepared.files(split), schema)
    first, last = pc.min(rows["at"]), pc.max(rows["at"])
    known = source.to_table(
        columns=["user_id", "room_id", "shown_at", *targets],
        filter=(ds.field("shown_at") >= first) & (ds.field("shown_at") <= last),
    )
    keys = rows.select(["user_id", "room_id", "at"]).append_column(_ROW, pa.array(np.arange(rows.num_rows)))
    joined = keys.join(known, ["user_id", "room_id", "at"], ["user_id", "room_id", "shown_at"], join_type="inner")
    if joined.num_rows != rows.num_rows or pc.count_distinct(joined[_ROW]).as_py() != rows.num_rows:
        share = pc.count_distinct(joined[_ROW]).as_py() / rows.num_rows
        return f"left out: the truth knows {share:.1%} of the split's candidates, and it must know each of them once"
    joined = joined.sort_by(_ROW)
    return Truth(rows=rows, chances={name: joined[name].to_numpy() for name in targets})


def as_predicted(truth: Truth) -> Predicted:
    return Predicted(table=truth.table, note="the simulator's own probabilities")


def knowable(schema: Schema) -> list[str]:
    """Targets that a simulated world may have a truth about."""
    return [target.name for target in schema.targets if is_known(target)]


def is_known(target: Target) -> bool:
    """Whether a target's label is what a simulated world calls by that name."""
    return target.is_binary and target.at_least is None and ACTIONS.get(target.name) == target.action
