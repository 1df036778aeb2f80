"""From a request to an answer in one process; nothing here knows Ray (`pipelines.serve.app` does)."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.config import ConfigError, to_dict
from models.score import fused_score
from pipelines.bundle import Bundle, load_bundle
from pipelines.encode.batches import to_batch
from pipelines.encode.encode import encode
from pipelines.serve.assemble import Assembled, assemble
from pipelines.serve.config import ServeConfig
from pipelines.serve.request import Body, CandidateRequest, RankRequest, RequestError
from pipelines.serve.store import Store
from pipelines.serve.wanted import Wanted


@dataclass(frozen=True)
class Endpoint:
    """A bundle and a store, ready to answer. It never changes; a new bundle is a new endpoint."""

    bundle: Bundle
    store: Store | None
    wanted: Wanted
    config: ServeConfig

    @classmethod
    def open(cls, bundle: Path, store: Store | None, config: ServeConfig) -> "Endpoint":
        """Loads everything and answers one request for practice, so that whatever does not fit fails here.

        Raises:
            ConfigError: no whole bundle, or the store lacks columns that it reads.
        """
        loaded = load_bundle(bundle)
        wanted = Wanted.by(loaded.schema, loaded.encoder.ids)
        if store is not None:
            wanted.check(store)
        endpoint = cls(loaded, store, wanted, config)
        weights = {name: 1.0 for name in loaded.ranker.trained}
        endpoint.rank(RankRequest(candidates=[CandidateRequest(room_id=0)], fusion_weights=weights))
        return endpoint

    def rank(self, request: RankRequest) -> Body:
        """The answer, as `RankResponse` describes it.

        Raises:
            RequestError: what the request asks for cannot be done.
            FloatingPointError: the model predicted something that is not a finite number.
        """
        began = time.perf_counter()
        self._check_candidates(request)
        assembled = assemble(request, self.wanted, self.store, self.bundle.encoder.clock)
        ready = time.perf_counter()
        schema = self.bundle.schema
        try:
            feeds = encode(assembled.features, schema, self.bundle.encoder)
        except ConfigError:  # not the request's fault: its types were checked
            raise
        except ValueError as error:  # a number out of range
            raise RequestError((), str(error)) from None
        batch = to_batch(feeds, schema)
        encoded = time.perf_counter()
        with torch.inference_mode():
            predictions = self.bundle.ranker.predict(batch)
            try:
                score_N = fused_score(predictions, schema, request.fusion_weights)
            except ValueError as error:
                raise RequestError(("fusion_weights",), str(error)) from None
            if request.fusion_weights and not bool(score_N.isfinite().all()) and _are_finite(predictions):
                raise RequestError(("fusion_weights",), "are so large that scores are no finite numbers.")
        scored = time.perf_counter()
        answer = self._answer(request, assembled, predictions, score_N)
        answer["timing"] = {
            "assemble_ms": 1e3 * (ready - began),
            "encode_ms": 1e3 * (encoded - ready),
            "model_ms": 1e3 * (scored - encoded),
            "total_ms": 1e3 * (time.perf_counter() - began),
        }
        return answer

    def describe(self) -> dict[str, Any]:
        """What is being served: for `GET /model`."""
        bundle = self.bundle
        whole: dict[str, Any] = {
            "name": bundle.name,
            "schema": bundle.schema.to_dict(),
            "config": to_dict(bundle.system),
            "metrics": dict(bundle.metrics),
            "provenance": dict(bundle.provenance),
            "store": None if self.store is None else {"path": str(self.store.path), "prepared": self.store.fingerprint},
        }
        return _finite(whole)

    def _check_candidates(self, request: RankRequest) -> None:
        count, largest = len(request.candidates), self.bundle.encoder.largest_feed
        if count > self.config.max_candidates:
            raise RequestError(
                ("candidates",), f"holds {count} rooms; this endpoint takes at most {self.config.max_candidates}."
            )
        if self.bundle.schema.list_context and count > largest:
            raise RequestError(
                ("candidates",),
                f"holds {count} rooms, but this model compares the rooms of a request with each other and has seen at most "
                f"{largest} at once in training. Send fewer, or serve a model whose schema has no list context.",
            )

    def _answer(
        self, request: RankRequest, assembled: Assembled, predictions: dict[str, torch.Tensor], score_N: torch.Tensor
    ) -> Body:
        scores = score_N.tolist()
        columns = {name: values_N.tolist() for name, values_N in predictions.items()}
        for name, values in {**columns, "score": scores}.items():
            if not all(map(math.isfinite, values)):
                raise FloatingPointError(f"bundle {self.bundle.name} gave a {name} that is not a finite number.")
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[: request.k]
        return {
            "ranked": [
                {
                    "room_id": request.candidates[place].room_id,
                    "score": scores[place],
                    "predictions": {name: values[place] for name, values in columns.items()},
                    "room_known": bool(assembled.room_known_N[place]),
                }
                for place in best
            ],
            "user_known": assembled.user_known,
            "ignored": list(assembled.ignored),
            "model": self.bundle.name,
        }


def _are_finite(predictions: Mapping[str, torch.Tensor]) -> bool:
    return all(bool(values_N.isfinite().all()) for values_N in predictions.values())


def _finite(value: Any) -> Any:
    """The same with null for every number that JSON does not know (an AUC without positives, say)."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
