"""How good predictions are: ranking, calibration, errors, evenness over levels and stages, and alarms.

`evaluation` gathers rows and computes everything; `binary` and `value` hold what is said of one target, `ranking` what is
computed inside of lists, `calibration` the curve of both kinds of target; `names` says which metrics there are and which way
each of them is better. `sums` and `ordering` are what all of them stand on.

Every metric is computed in two halves, so that a validation split can be divided among workers: a worker summarises its
own rows (sums, counts and rows sorted by prediction), summaries are added, and the metrics follow from the sum. Sums are
exact (`sums`), so the result has the same bits for any number of workers and any order of rows.
"""

from models.metrics.binary import auc, gini
from models.metrics.evaluation import Evaluation
from models.metrics.names import CUTOFFS, DIRECTIONS, TOPS, direction, value_of
from models.metrics.ranking import share_at_top
from models.metrics.value import squared_errors

__all__ = [
    "CUTOFFS",
    "DIRECTIONS",
    "TOPS",
    "Evaluation",
    "auc",
    "direction",
    "gini",
    "share_at_top",
    "squared_errors",
    "value_of",
]
