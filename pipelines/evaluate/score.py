"""Predictions of a ranker for feed tables on disk, one row a candidate, and their metrics."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from models.leveled import Leveled
from models.metrics.evaluation import Evaluation
from models.metrics.expected import Known
from models.ranker import Ranker
from models.schema import LOG, Schema
from pipelines.encode.arrays import flat, is_list, lengths
from pipelines.encode.batches import to_batch
from pipelines.encode.feeds import LABEL_PREFIX, STAGE
from pipelines.evaluate.activity import by_known, sources, with_known
from pipelines.evaluate.activity import known as known_columns
from pipelines.evaluate.exposure import FUSED, at_top
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.runs.sealed import SealedFile

KEYS = ("feed_id", "user_id", "room_id", "at", "level")


def score(
    ranker: Ranker | Leveled, schema: Schema, files: Iterable[Path], batch_feeds: int = 1024, *, untaught: bool = False
) -> pa.Table:
    """Predictions for every candidate of encoded feed files, in the files' order.

    Streams: at most `batch_feeds` feeds are in memory as tensors, on the ranker's own device.

    Args:
        untaught: of targets of weight 0 as well, see `Ranker.predict`.

    Returns:
        feed_id, user_id, room_id, at, level (index into the schema's levels), stage (index into `models.schema.STAGES`,
        where the schema has stages), `known.*` (what was known of the user, see `activity.with_known`), `label.<target>` where
        the file has it (below zero where it is not final), and `<target>`: a probability, or the expectation of a value in the
        label's unit, with `log.<target>`, that of its logarithm, where it is judged by it.

    Raises:
        ValueError: no feed in the files.
    """
    device = next(ranker.parameters()).device
    was_training = ranker.training
    ranker.eval()
    tables = []
    try:
        with torch.inference_mode():
            for file in files:
                for part in SealedFile(file).batches(batch_feeds):
                    feeds = pa.Table.from_batches([part])
                    if not feeds.num_rows:
                        continue
                    predictions = ranker.predict(to_batch(feeds, schema).to(device), untaught=untaught, judged=True)
                    feeds = with_known(feeds, schema)
                    columns = feeds.column_names
                    table = candidates(feeds, [*_keys(columns, schema), *known_columns(columns), *_labels(feeds, schema)])
                    for name, prediction_N in predictions.items():
                        table = table.append_column(name, pa.array(prediction_N.float().cpu().numpy()))
                    tables.append(table)
    finally:
        ranker.train(was_training)
    if not tables:
        raise ValueError("no feeds to score: the files are empty, or there are none.")
    return pa.concat_tables(tables).combine_chunks()


def evaluate_table(
    table: pa.Table,
    schema: Schema,
    new_rooms: NDArray | None = None,
    known: Known | None = None,
    *,
    taught: Collection[str] | None = None,
) -> EvaluationResult:
    """Metrics of a table as `score` gives it, for the targets that it has predictions of.

    Args:
        new_rooms: as `exposure.new_rooms_of` gives them.
        known: what a simulated world knows of the table's rows (`truth.Truth`); None for real logs.
        taught: targets that the ranker is trained for; None for all. Others have metrics of their own that say so, and are in
            no mean, no funnel, no alarm and no fused score.

    Returns:
        what `models.metrics.evaluation` gives; besides, of every target its metrics by what was known of the user
        (`activity.by_known`); and of targets without parents and of the fused score the shares at the top
        (`exposure.at_top`).
    """
    targets = [name for name in schema.target_names if name in table.column_names]
    untaught = [] if taught is None else [name for name in targets if name not in taught]
    result = _measured(table, schema, [name for name in targets if name not in untaught], known)
    measured = dict(result.targets)
    if untaught:
        beside = _measured(table, schema, untaught, known).targets
        measured |= {name: replace(metrics, untaught=True) for name, metrics in beside.items()}
    by_target, activity = by_known(table, schema, targets)
    shares = at_top(table.drop_columns(untaught), schema, new_rooms)
    return replace(
        result,
        targets={name: measured[name].with_more(by_target[name], shares.get(name)) for name in targets},
        activity=activity,
        fused=shares.get(FUSED, {}),
    )


def _measured(table: pa.Table, schema: Schema, targets: Sequence[str], known: Known | None) -> EvaluationResult:
    evaluation = Evaluation(schema, targets)
    logs = [LOG + name for name in targets if LOG + name in table.column_names]
    evaluation.add(
        {name: table[name].to_numpy() for name in (*targets, *logs)},
        {name: table[LABEL_PREFIX + name].to_numpy() for name in targets},
        table["level"].to_numpy(),
        table["feed_id"].to_numpy(),
        table["user_id"].to_numpy(),
        table[STAGE].to_numpy() if has_stages(table.column_names, schema) else None,
        known,
    )
    return EvaluationResult.from_dict(evaluation.result())


def candidates(feeds: pa.Table, columns: Iterable[str]) -> pa.Table:
    """One row a candidate: candidate columns flattened, feed columns repeated."""
    feed_of_N = pa.array(np.repeat(np.arange(feeds.num_rows), lengths(feeds["room_id"])))
    return pa.table({name: flat(feeds[name]) if is_list(feeds[name].type) else feeds[name].take(feed_of_N) for name in columns})


def labelled_candidates(files: Iterable[Path], schema: Schema) -> pa.Table:
    """The candidates of encoded feed files, in the files' order; as `score`, without predictions."""
    tables = []
    for file in files:
        with SealedFile(file) as source:
            columns = [*_keys(source.names, schema), *(LABEL_PREFIX + name for name in schema.target_names)]
            feeds = with_known(source.read([*columns, *sources(source.names, schema)]), schema)
        tables.append(candidates(feeds, [*columns, *known_columns(feeds.column_names)]))
    return pa.concat_tables(tables).combine_chunks()


def has_stages(columns: Iterable[str], schema: Schema) -> bool:
    """Whether a table says which life-cycle stage users are in; one prepared before its schema had stages does not."""
    return schema.stages is not None and STAGE in columns


def _keys(columns: Iterable[str], schema: Schema) -> list[str]:
    return [*KEYS, STAGE] if has_stages(columns, schema) else [*KEYS]


def _labels(feeds: pa.Table, schema: Schema) -> list[str]:
    names = [LABEL_PREFIX + name for name in schema.target_names]
    return [name for name in names if name in feeds.column_names]
