"""What any model has to beat on the same split: popularity and gradient boosting on point-in-time counters.

Both read the raw feature tables, learn from training days alone, and give the same kind of table as `score`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from models.catalogue import WINDOWS, find
from models.config import ConfigError
from models.layers.values import Smearing
from models.metrics.binary import auc
from models.metrics.smearing import Seen
from models.metrics.value import transformed
from models.schema import LOG, Bins, Number, Schema, Target
from pipelines.encode.arrays import floats, lengths, whole
from pipelines.encode.columns import column
from pipelines.encode.derive import derive_columns
from pipelines.encode.feeds import LABEL_PREFIX
from pipelines.evaluate.score import KEYS, candidates, labelled_candidates
from pipelines.prepared import Prepared

MOST_CATEGORIES = 32  # values of a categorical column that the booster may split on; ids have far more and are left out


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A baseline's predictions for a split, as `score` gives them, and one line on how they were made."""

    table: pa.Table
    note: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Candidates of sampled feeds with the asked columns and labels, and the share of feeds taken."""

    table: pa.Table
    share: float


def popularity(prepared: Prepared, split: str, *, rows: int, seed: int) -> Predicted | str:
    """Every target by one popularity signal of the room: its smoothed entry rate or its entries, in one of the windows.

    Which signal, training days decide, target by target (AUC; for a value, of being above 0). Predictions are the signal
    times the training days' ratio of labels to signal, and of their logarithms for the logarithm of a value.

    Returns:
        predictions, or a line that says why there are none: the feature tables lack the room's counters.
    """
    schema = prepared.schema
    there = _columns_on_disk(prepared, split)
    windows = [window for window in WINDOWS if {f"room_entries.{window}", f"room_impressions.{window}"} <= there]
    if not windows:
        wanted = "room_entries.life and room_impressions.life"
        return f"left out: the feature tables hold no counters of the room; add {wanted} to prepare.extra_columns"
    signals = [name for window in windows for name in (f"room_entry_rate.{window}", f"room_entries.{window}")]
    train = training_sample(prepared, signals, rows=rows, seed=seed)
    chosen: dict[str, str] = {}
    ratios: dict[str, float] = {}  # by what is predicted: a target, or the logarithm of a value
    for target in schema.targets:
        label_N, final_N = _final_labels(train.table, target)
        by_signal = {name: auc(_signal(train.table, name)[final_N], label_N > 0) or 0.5 for name in signals}
        best = max(by_signal, key=lambda name: by_signal[name])
        chosen[target.name] = best
        signal = max(_signal(train.table, best)[final_N].sum(), 1e-9)
        ratios[target.name] = float(label_N.sum() / signal)
        if target.is_log:
            ratios[LOG + target.name] = float(np.log1p(label_N).sum() / signal)

    def predict(table: pa.Table) -> dict[str, NDArray]:
        predictions = {}
        for name, ratio in ratios.items():
            target = schema.target(name.removeprefix(LOG))
            scaled_N = _signal(table, chosen[target.name]) * ratio
            predictions[name] = np.clip(scaled_N, 0, 1 if target.is_binary else None)
        return predictions

    by_column: dict[str, list[str]] = {}
    for target_name, name in chosen.items():
        by_column.setdefault(name, []).append(target_name)
    choice = "; ".join(f"{name} for {', '.join(names)}" for name, names in by_column.items())
    return Predicted(
        table=_predicted(prepared, split, signals, predict),
        note=f"by {choice} (chosen and scaled on {_sampled(train)})",
    )


def booster(
    prepared: Prepared, split: str, *, columns: Iterable[str] = (), rows: int, iterations: int, seed: int
) -> Predicted | str:
    """scikit-learn's histogram gradient boosting, one for each target, on the counters that the schema's fields read.

    Columns: fields encoded as numbers or bins, as numbers; all other fields with at most `MOST_CATEGORIES` values, as
    categories (hour, device; ids drop out), and `columns`. Values are learnt by their logarithm, whose retransformation is
    mended on the validation split (`layers.values.Smearing`). Boosting stops when that split no longer gains.

    Returns:
        predictions, or a line that says why there are none.
    """
    schema = prepared.schema
    wanted = booster_columns(schema, _columns_on_disk(prepared, split), columns)
    if not wanted:
        return "left out: no field of the schema reads a counter; name some in evaluate.baseline_columns"
    train = training_sample(prepared, list(wanted), rows=rows, seed=seed)
    valid = training_sample(prepared, list(wanted), rows=max(rows // 4, 1), seed=seed, split="valid")
    matrix = Matrix.fitted(train.table, wanted)
    train_NC, valid_NC = matrix(train.table), matrix(valid.table)
    models = {}
    for target in schema.targets:
        label_N, final_N = _final_labels(train.table, target)
        valid_label_N, valid_final_N = _final_labels(valid.table, target)
        models[target.name] = _boosted(
            target,
            train_NC[final_N],
            label_N,
            valid_NC[valid_final_N],
            valid_label_N,
            iterations=iterations,
            categories=matrix.categorical,
            seed=seed,
        )

    def predict(table: pa.Table) -> dict[str, NDArray]:
        matrix_NC = matrix(table)
        return {name: values_N for model in models.values() for name, values_N in model(matrix_NC).items()}

    return Predicted(
        table=_predicted(prepared, split, list(wanted), predict),
        note=f"HistGradientBoosting on {_sampled(train)}; {len(matrix.columns)} columns: {', '.join(matrix.columns)}",
    )


# -- columns -------------------------------------------------------------------------------------------------------


def booster_columns(schema: Schema, there: set[str], extra: Iterable[str]) -> dict[str, bool]:
    """Columns for the booster in the schema's order, and whether each is a number (else a category).

    Args:
        there: columns of the feature tables; others must be derivable from them.
        extra: further columns; refused if they cannot be had.

    Raises:
        ConfigError: a column of `extra` is neither on disk nor derivable.
    """
    found: dict[str, bool] = {}
    for field in schema.fields:
        if field.column.endswith("_id") or not _available(field.column, there, schema):
            continue
        found[field.column] = found.get(field.column, False) or isinstance(field.encoding, Number | Bins)
    for name in extra:
        if not _available(name, there, schema):
            raise ConfigError(
                f"evaluate.baseline_columns: `{name}` is not in the feature tables and cannot be derived from them; "
                "add it to prepare.extra_columns."
            )
        found.setdefault(name, True)
    return found


def _available(name: str, there: set[str], schema: Schema) -> bool:
    known = column(name, schema)
    if name in there:
        return True
    return known is not None and known.inputs != () and all(_available(item, there, schema) for item in known.inputs)


def _to_read(names: Iterable[str], there: set[str], schema: Schema) -> tuple[list[str], list[str]]:
    """Columns on disk that `names` need, and the derived ones, inputs first."""
    read: dict[str, None] = {}
    derived: dict[str, None] = {}

    def need(name: str) -> None:
        if name in there:
            read[name] = None
            return
        known = column(name, schema)
        if known is None or not known.inputs:
            raise ConfigError(f"column `{name}` is not in the feature tables; add it to prepare.extra_columns.")
        for item in known.inputs:
            need(item)
        derived[name] = None

    for name in names:
        need(name)
    return list(read), list(derived)


def _columns_on_disk(prepared: Prepared, split: str) -> set[str]:
    files = prepared.features(split)
    return set(pq.read_schema(files[0]).names) if files else set()


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Turns candidate tables into the booster's float matrix; categories get numbers on training days."""

    columns: tuple[str, ...]
    values: dict[str, pa.Array]  # known values of the categorical columns

    @classmethod
    def fitted(cls, train: pa.Table, wanted: dict[str, bool]) -> "Matrix":
        columns, values = [], {}
        for name, is_number in wanted.items():
            array = _plain(train[name])
            if is_number and not pa.types.is_string(array.type):
                columns.append(name)
                continue
            known = pc.drop_null(pc.unique(array))
            if len(known) <= MOST_CATEGORIES:
                columns.append(name)
                values[name] = known.take(pc.sort_indices(known))
        return cls(columns=tuple(columns), values=values)

    @property
    def categorical(self) -> list[bool]:
        return [name in self.values for name in self.columns]

    def __call__(self, table: pa.Table) -> NDArray:
        """float64 [N, C]; NaN where missing, or where a category was not there on training days."""
        matrix_NC = np.empty((table.num_rows, len(self.columns)))
        for i, name in enumerate(self.columns):
            array = _plain(table[name])
            if name in self.values:
                array = pc.index_in(array, self.values[name])
            matrix_NC[:, i] = floats(array)
        return matrix_NC


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = whole(column)
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def _signal(table: pa.Table, name: str) -> NDArray:
    values_N = np.nan_to_num(floats(whole(table[name])))
    known = find(name)
    return np.log1p(values_N) if known is not None and known.is_count else values_N


# -- rows ----------------------------------------------------------------------------------------------------------


def training_sample(prepared: Prepared, columns: list[str], *, rows: int, seed: int, split: str = "train") -> Sample:
    """At most about `rows` candidates of a split, in whole feeds drawn by a hash of the feed id."""
    files = prepared.features(split)
    total = sum(int(lengths(pq.read_table(file, columns=["room_id"], partitioning=None)["room_id"]).sum()) for file in files)
    share = min(1.0, rows / max(total, 1))
    labels = [LABEL_PREFIX + name for name in prepared.schema.target_names]
    tables = []
    for features in _read(prepared, split, [*columns, *labels]):
        if share < 1:
            features = features.filter(pa.array(_uniform(features["feed_id"].to_numpy(), seed) < share))
        tables.append(candidates(features, [*columns, *labels]))
    return Sample(table=pa.concat_tables(tables, promote_options="permissive").combine_chunks(), share=share)


def _read(prepared: Prepared, split: str, columns: list[str]) -> Iterator[pa.Table]:
    """The split's feature files with `columns`, derived where needed."""
    for file in prepared.features(split):
        there = set(pq.read_schema(file).names)
        read, derived = _to_read([*("feed_id", "user_id", "at", "room_id"), *columns], there, prepared.schema)
        features = pq.read_table(file, columns=read, partitioning=None)
        yield derive_columns(features, derived, entry_rate=prepared.encoder.entry_rate, clock=prepared.encoder.clock)


def _predicted(
    prepared: Prepared, split: str, columns: list[str], predict: Callable[[pa.Table], dict[str, NDArray]]
) -> pa.Table:
    """Predictions for a split, file by file, with levels and labels of the encoded feeds."""
    tables = []
    for features, file in zip(_read(prepared, split, columns), prepared.files(split), strict=True):
        known = labelled_candidates([file], prepared.schema)
        table = candidates(features, dict.fromkeys([*(key for key in KEYS if key != "level"), *columns]))
        if table["feed_id"] != known["feed_id"] or table["room_id"] != known["room_id"]:
            raise ConfigError(f"{file} and its feature table do not hold the same feeds; run prepare again.")
        for name, prediction_N in predict(table).items():
            known = known.append_column(name, pa.array(prediction_N))
        tables.append(known)
    return pa.concat_tables(tables).combine_chunks()


def _uniform(ids_N: NDArray, seed: int) -> NDArray:
    """A number in [0, 1) for every id, the same in every run (a multiplicative hash; ids are already unique)."""
    with np.errstate(over="ignore"):
        mixed = (ids_N.astype(np.uint64) + np.uint64(seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(11)) / 2.0**53


def _sampled(sample: Sample) -> str:
    part = "all training feeds" if sample.share == 1 else f"{sample.share:.1%} of the training feeds"
    return f"{part}, {sample.table.num_rows:,} rows"


def _final_labels(table: pa.Table, target: Target) -> tuple[NDArray, NDArray | slice]:
    """The labels whose window has closed, and which rows they are of."""
    label_N = table[LABEL_PREFIX + target.name].to_numpy()
    final_N = label_N >= 0
    return (label_N, slice(None)) if final_N.all() else (label_N[final_N], final_N)


# -- boosting ------------------------------------------------------------------------------------------------------


def _boosted(
    target: Target,
    train_NC: NDArray,
    label_N: NDArray,
    valid_NC: NDArray,
    valid_label_N: NDArray,
    *,
    iterations: int,
    categories: list[bool],
    seed: int,
) -> Callable[[NDArray], dict[str, NDArray]]:
    """A fitted booster as a function from matrix to predictions, of a value's logarithm too.

    A constant where training days hold one value only.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    if not len(label_N) or label_N.min() == label_N.max():
        return lambda matrix_NC: {target.name: np.full(len(matrix_NC), float(label_N[0]) if len(label_N) else 0.0)}
    settings: dict[str, Any] = {
        "max_iter": iterations,
        "categorical_features": categories,
        "early_stopping": True,
        "n_iter_no_change": 10,
        "random_state": seed,
    }
    if target.is_binary:
        classifier = HistGradientBoostingClassifier(**settings)
        # Both classes must be seen at validation; where they are not, a tenth of the training rows stands in.
        known = {"X_val": valid_NC, "y_val": valid_label_N > 0} if 0 < (valid_label_N > 0).sum() < len(valid_label_N) else {}
        classifier.fit(train_NC, label_N > 0, **known)
        return lambda matrix_NC: {target.name: classifier.predict_proba(matrix_NC)[:, 1]}
    forward = lambda values_N: transformed(values_N, target)
    regressor = HistGradientBoostingRegressor(**settings)
    known = {"X_val": valid_NC, "y_val": forward(valid_label_N)} if len(valid_label_N) else {}
    regressor.fit(train_NC, forward(label_N), **known)
    if not target.is_log:
        return lambda matrix_NC: {target.name: np.maximum(regressor.predict(matrix_NC), 0)}
    smearing = Smearing()
    if len(valid_label_N):
        knots = Seen.of(np.expm1(np.maximum(regressor.predict(valid_NC), 0)), valid_label_N).knots()
        smearing.set(*map(torch.from_numpy, knots))

    def predict(matrix_NC: NDArray) -> dict[str, NDArray]:
        log_N = np.maximum(regressor.predict(matrix_NC), 0)
        return {target.name: smearing(torch.from_numpy(np.expm1(log_N))).numpy(), LOG + target.name: log_N}

    return predict
