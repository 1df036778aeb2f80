"""Whether a metric can have a value on the validation split at all, asked before anything is trained for it."""

from collections.abc import Iterable, Sequence

import numpy as np

from models.config import ConfigError
from models.metrics.evaluation import Evaluation
from pipelines.encode.arrays import flat, lengths
from pipelines.encode.feeds import LABEL_PREFIX, STAGE
from pipelines.prepared import Prepared
from pipelines.train.monitor import Monitor
from pipelines.train.order import row_groups
from pipelines.train.stream import read


def check_defined(prepared: Prepared, paths: Iterable[str | None], trained: Sequence[str], where: str) -> None:
    """Judges guesses by the metrics: what has no value for them has none for any model, since that depends on labels alone.

    Args:
        paths: of metrics, as `Monitor` takes them.
        trained: names of the targets that are trained for.
        where: the metrics are set, for the message.

    Raises:
        ConfigError: a metric that is not defined, an AUC of a target without positives say.
    """
    schema, rng = prepared.schema, np.random.default_rng(0)
    evaluation, first = Evaluation(schema, trained), 0
    keys = ["user_id", "room_id", "level", *([STAGE] if schema.stages is not None else [])]
    for group in row_groups(prepared.files("valid")):
        table = read([group], [*keys, *(LABEL_PREFIX + name for name in trained)])
        feed_of_N = np.repeat(np.arange(table.num_rows), lengths(table["room_id"]))
        evaluation.add(
            {name: rng.uniform(0.1, 0.9, len(feed_of_N)) for name in trained},
            {name: flat(table[LABEL_PREFIX + name]).to_numpy() for name in trained},
            flat(table["level"]).to_numpy(),
            feed_of_N + first,
            table["user_id"].to_numpy()[feed_of_N],
            table[STAGE].to_numpy()[feed_of_N] if STAGE in keys else None,
        )
        first += table.num_rows
    result = evaluation.result()
    for path in paths:
        try:
            Monitor(schema, path, tuple(trained)).value(result)
        except ConfigError as error:
            raise ConfigError(str(error).replace("train.monitor", where, 1)) from None
