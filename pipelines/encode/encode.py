"""Raw feeds to encoded feeds, by what training days taught; offline and in the endpoint the same code."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from models.schema import Number, Schema
from pipelines.encode.arrays import arrays_of, in_lists
from pipelines.encode.columns import derived_columns, level_column, preference_columns
from pipelines.encode.derive import derive_arrays
from pipelines.encode.feeds import (
    EARLIER,
    LABEL_PREFIX,
    META,
    PER_CLICK_PREFIX,
    PREFERENCE_PREFIX,
    STAGE,
    feeds_schema,
)
from pipelines.encode.levels import level_of
from pipelines.encode.stages import stage_columns, stages_of
from pipelines.encode.state import EncoderState, LevelState, encoding_fingerprint
from pipelines.encode.values import SHARES, Lists, column_of, floats_of, one_a_feed, rows_of, stage_means, standardised


def encode(features: pa.Table, schema: Schema, state: EncoderState) -> pa.Table:
    """Raw feeds as table rows and numbers: `feeds_schema(schema)`, as far as the features hold what training alone needs.

    A label that they lack is left out; running preferences are there for all targets and windows or not at all. A value
    that is missing, or was not kept in training, is row 0; a missing number is 0, the mean. As missing count an empty text,
    and numbers that are infinite, beyond float32, below zero under log1p, or wild (see `Scale`). A missing user id is
    written as -1 (it names nobody; the user's table row is 0).

    Raises:
        ConfigError: the state is of another schema, a column is missing, has a type the encoding does not take, or
            lists that do not fit the feed's candidates or history.
    """
    known = _known(schema)
    if known.encoding != state.encoding or (known.stages and state.stage_medians is None):
        state.check(schema)
    arrays = derive_arrays(arrays_of(features), known.derived, entry_rate=state.entry_rate, clock=state.clock)
    out: dict[str, pa.Array] = {}
    for item in META:
        array = column_of(arrays, item.name)
        out[item.name] = array if array.type == item.type else array.cast(item.type)
    if out["user_id"].null_count:
        out["user_id"] = out["user_id"].fill_null(-1)
    room_id = out["room_id"]
    candidates = Lists.of(room_id)

    if known.stages and state.stage_medians is not None:
        out[STAGE] = pa.array(stages_of(stage_means(arrays, known.stages), state.stage_medians))
    measure = level_column(schema)
    level = _level(candidates.flat(arrays, measure), measure, state.level, by_owner=schema.levels.column is None)
    out["level"] = candidates.cut(level)
    for field in schema.fields:
        values = candidates.flat(arrays, field.column) if field.of == "candidate" else one_a_feed(arrays, field.column)
        if isinstance(field.encoding, Number):
            encoded = standardised(values, field.column, field.encoding, state.numbers[field.name])
        else:
            encoded = rows_of(values, field.column, state.tables[field.table])
        out[field.name] = candidates.cut(encoded) if field.of == "candidate" else pa.array(encoded)
    for history in schema.histories:
        entries = Lists.of(column_of(arrays, f"{history.name}.at"))
        for item in history.fields:
            column = f"{history.name}.{item.column}"
            rows = rows_of(entries.flat(arrays, column), column, state.tables[item.table])
            out[f"{history.name}.{item.name}"] = entries.cut(rows)
    for name in schema.target_names:
        column = LABEL_PREFIX + name
        if column in arrays:
            out[column] = candidates.cut(floats_of(candidates.flat(arrays, column), column).astype(np.float32))
    if known.raw_preferences <= arrays.keys():
        out.update(_preferences(arrays, schema, state))
    return pa.table(out, schema=pa.schema([item for item in known.columns if item.name in out]))


@dataclass(frozen=True)
class _Known:
    """What encoding needs to know of a schema, worked out once: finding a schema in a cache means hashing all of it."""

    encoding: str
    derived: tuple[str, ...]
    columns: pa.Schema
    stages: Mapping[str, str]  # columns of `stages.RATES`; none without stages
    raw_preferences: frozenset[str]


@lru_cache(maxsize=64)
def _known(schema: Schema) -> _Known:
    return _Known(
        encoding=encoding_fingerprint(schema),
        derived=derived_columns(schema),
        columns=feeds_schema(schema),
        stages={} if schema.stages is None else stage_columns(schema.stages),
        raw_preferences=frozenset(name for windows in preference_columns(schema).values() for name in windows),
    )


def _preferences(arrays: Mapping[str, pa.Array], schema: Schema, state: EncoderState) -> dict[str, pa.Array]:
    """Running preferences with the windows of a feed side by side, and the impressions they are means over."""
    state.check(schema)
    names = preference_columns(schema)
    windows = len(schema.preference_days)
    rows = len(arrays["room_id"])
    side_by_side = lambda of: np.stack([floats_of(one_a_feed(arrays, column), column) for column in names[of]], axis=1).ravel()
    per_feed = np.full(rows, windows)
    out = {EARLIER: in_lists(np.nan_to_num(side_by_side(EARLIER)).astype(np.int64), per_feed)}
    means = {target.name: side_by_side(target.name) for target in schema.targets}
    clicks = None if schema.stages is None else np.where(means[schema.stages.click] > 0, means[schema.stages.click], np.nan)
    for target in schema.targets:
        found = {PREFERENCE_PREFIX: means[target.name]}
        if schema.stages is not None and target.name != schema.stages.click:
            rate = means[target.name] / clicks
            found[PER_CLICK_PREFIX] = np.minimum(rate, 1.0) if target.is_binary else rate
        for prefix, mean in found.items():
            if not target.is_binary:
                mean = place_among(mean, state.label_quantiles[target.name])
            out[prefix + target.name] = in_lists(mean.astype(np.float32), per_feed)
    return out


def place_among(values: np.ndarray, label_quantiles: np.ndarray) -> np.ndarray:
    """The share of positive labels that lie below each value, in [0, 1], by linear interpolation of their quantiles.

    0 for 0, whatever the labels; NaN stays. Of a value that many labels have, their last share.
    """
    place = np.interp(values, label_quantiles, SHARES)
    return np.where(values <= 0, 0.0, place)


def _level(values: pa.Array, column: str, state: LevelState, *, by_owner: bool) -> np.ndarray:
    if by_owner:
        return state.levels[rows_of(values, column, state.owners)]
    return level_of(floats_of(values, column), state.cuts)
