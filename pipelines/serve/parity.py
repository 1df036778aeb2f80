"""Does the endpoint predict what offline scoring predicts? Logged feeds are sent to it and the answers compared."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.catalogue import CONTEXT, ROOM, STATE_FAMILY, USER
from models.schema import Schema
from models.score import fused_score
from pipelines.bundle import Bundle
from pipelines.encode.batches import to_batch
from pipelines.encode.columns import base_columns
from pipelines.encode.feeds import META
from pipelines.logs.ids import IdKind
from pipelines.places import source
from pipelines.prepared import Prepared
from pipelines.runs.sealed import read_sealed
from pipelines.serve.given import spelled
from pipelines.serve.request import Body
from pipelines.serve.wanted import Wanted

# differences are relative to the prediction, or to this where it is smaller: a per mille of a probability or a score,
# one unit of a value (a stay of 0.0001 s is as good as one of 0.0002 s, and comes from a difference near 0)
SMALL = {"binary": 1e-3, "score": 1e-3, "value": 1.0}


@dataclass(frozen=True)
class Parity:
    """How a number of logged feeds compare.

    Attributes:
        feeds, candidates, values: that were compared; a value is one prediction or score of one candidate.
        skipped: feeds that show a room twice, which a request may not.
        unequal: values in which the endpoint and offline scoring of that feed alone differ in any bit.
        largest_difference: between the endpoint and offline scoring of all these feeds in one batch, relative.
    """

    feeds: int
    candidates: int
    values: int
    skipped: int
    unequal: int
    largest_difference: float


def check_parity(
    prepared: Prepared,
    bundle: Bundle,
    rank: Callable[[Body], Body],
    *,
    feeds: int = 1000,
    split: str = "test",
) -> Parity:
    """Compares feeds drawn evenly from a split.

    Args:
        bundle: of the same weights as the endpoint's.
        rank: sends a body to `POST /rank` and gives the answer, read from JSON.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a replica: the number of threads decides in which order sums are taken
    try:
        return _compare(prepared, bundle, rank, feeds, split)
    finally:
        torch.set_num_threads(threads)


def request_of(features: pa.Table, schema: Schema, ids: Mapping[str, IdKind] | None = None) -> Body:
    """One raw feed (a table of one row) as a request in which every feature comes inline.

    Args:
        ids: what the log's were (`EncoderState.ids`).
    """
    (row,) = features.to_pylist()
    wanted = Wanted.by(schema, ids)

    def value(name: str, raw: Any) -> Any:
        kind = wanted.ids_of(name)
        return _value(raw) if raw is None or kind is None else spelled(raw, kind)

    of_candidates: list[Body] = []
    for place, room_id in enumerate(row["room_id"]):
        item: Body = {"room_id": value(ROOM.key, room_id), "state": {}, "features": {}}
        for name, known in wanted.candidate.items():
            is_state = known.family == STATE_FAMILY
            item["state" if is_state else "features"][known.member if is_state else name] = value(name, row[name][place])
        of_candidates.append(item)
    return {
        "user_id": value(USER.key, row["user_id"]),
        "at": row["at"],
        "user": {known.name: _value(row[known.name]) for known in wanted.of(USER)},
        "context": {known.member: _value(row[known.name]) for known in wanted.of(CONTEXT)},
        "histories": {
            history: [
                {name: value(f"{history}.{name}", row[f"{history}.{name}"][place]) for name in names}
                for place in range(len(row[f"{history}.at"]))
            ]
            for history, names in wanted.histories.items()
        },
        "candidates": of_candidates,
    }


def _compare(prepared: Prepared, bundle: Bundle, rank: Callable[[Body], Body], feeds: int, split: str) -> Parity:
    schema = bundle.schema
    alone: list[dict[str, np.ndarray]] = []
    answered: list[dict[str, np.ndarray]] = []
    encoded: list[pa.Table] = []
    skipped = 0
    for raw, feed in _drawn(prepared, schema, split, feeds):
        rooms = raw["room_id"][0].as_py()
        if len(set(rooms)) < len(rooms):
            skipped += 1
            continue
        request = request_of(raw, schema, bundle.encoder.ids)
        answer = {item["room_id"]: item for item in rank(request)["ranked"]}
        ordered = [answer[item["room_id"]] for item in request["candidates"]]
        found = {name: np.array([item["predictions"][name] for item in ordered]) for name in bundle.ranker.trained}
        answered.append({**found, "score": np.array([item["score"] for item in ordered])})
        alone.append(_offline(bundle, feed))
        encoded.append(feed)
    if not alone:
        raise ValueError(f"no feed of split `{split}` could be compared ({skipped} show a room twice).")
    together = _offline(bundle, pa.concat_tables(encoded))
    online = {name: np.concatenate([each[name] for each in answered]) for name in together}
    expected = {name: np.concatenate([each[name] for each in alone]) for name in together}
    kinds = {"score": "score", **{target.name: target.kind for target in schema.targets}}
    # the endpoint's numbers are compared as JSON gives them, in double precision: nothing may be rounded on the way
    return Parity(
        feeds=len(alone),
        candidates=len(online["score"]),
        values=sum(len(values) for values in online.values()),
        skipped=skipped,
        unequal=sum(int((online[name] != expected[name].astype(np.float64)).sum()) for name in online),
        largest_difference=max(_difference(online[name], together[name], SMALL[kinds[name]]) for name in online),
    )


def _offline(bundle: Bundle, feeds: pa.Table) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        predictions = bundle.ranker.predict(to_batch(feeds, bundle.schema))
        score = fused_score(predictions, bundle.schema)
    return {**{name: values.numpy() for name, values in predictions.items()}, "score": score.numpy()}


def _drawn(prepared: Prepared, schema: Schema, split: str, feeds: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Raw and encoded rows of about evenly spaced feeds."""
    pairs = list(zip(prepared.features(split), prepared.files(split), strict=True))
    total = sum(pq.read_metadata(source(file)).num_rows for _, file in pairs)
    wanted = np.unique(np.linspace(0, total - 1, min(feeds, total)).astype(np.int64)) if total else np.zeros(0, np.int64)
    columns = [*META.names, *sorted(base_columns(schema))]
    start = 0
    for raw_file, file in pairs:
        rows = pq.read_metadata(source(file)).num_rows
        here = wanted[(wanted >= start) & (wanted < start + rows)] - start
        start += rows
        if len(here):
            raw, encoded = (
                pq.read_table(raw_file, columns=columns, partitioning=None).take(here),
                read_sealed(file).take(here),
            )
            for row in range(len(here)):
                yield raw.slice(row, 1), encoded.slice(row, 1)


def _difference(found: np.ndarray, expected: np.ndarray, small: float) -> float:
    return float((np.abs(found - expected) / np.maximum(np.abs(expected), small)).max(initial=0.0))


def _value(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
