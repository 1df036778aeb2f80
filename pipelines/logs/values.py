"""Which single values of a log count as missing: those that name or measure nothing; and which time says "always"."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LARGEST = float(np.finfo(np.float32).max)  # numbers become float32 on their way into a model

_HOUR_MS, _YEAR_1 = 3_600_000, -62_135_596_800_000
NAN, INFINITE, EMPTY = "NaN", "infinite or beyond float32", "empty text"


def tidied(column: pa.Array) -> tuple[pa.Array, dict[str, int]]:
    """The column with what is no value as null, and how many of each kind there were.

    NaN, infinite numbers and those that float32 does not hold measure nothing; an empty text names nothing.

    >>> tidied(pa.array([1.0, float("inf"), float("nan")]))[1]
    {'NaN': 1, 'infinite or beyond float32': 1}
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.binary_length(column)
        if pc.min(lengths).as_py() != 0:
            return column, {}
        empty = pc.equal(lengths, 0)
        return pc.if_else(empty, pa.scalar(None, kind), column), {EMPTY: pc.sum(empty).as_py()}
    if not pa.types.is_floating(kind):
        return column, {}
    numbers = (column.fill_null(0) if column.null_count else column).to_numpy()
    size = np.abs(numbers)
    if not len(size) or size.max() <= LARGEST:  # False where there is a NaN
        return column, {}
    nan, large = np.isnan(numbers), size > LARGEST
    missing = pa.array(nan | large)
    found = {NAN: int(nan.sum()), INFINITE: int(large.sum())}
    return pc.if_else(missing, pa.scalar(None, kind), column), {what: count for what, count in found.items() if count}


def says_always(times: np.ndarray) -> np.ndarray:
    """Which times (ms) say that something holds from the beginning: 1970-01-01, and what comes before, by an hour at least.

    Numbers next to 0 are no times: -1 for "unknown", days or dates (20251129) that were taken for milliseconds.

    >>> says_always(np.array([0, -2_208_988_800_000, -28_800_000, -1, 20251129, 1_764_374_400_000])).tolist()
    [True, True, True, False, False, False]
    """
    return (times == 0) | ((times <= -_HOUR_MS) & (times >= _YEAR_1 - 24 * _HOUR_MS))
