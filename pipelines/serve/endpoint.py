"""From requests to answers in one process; nothing here knows HTTP or Ray (`pipelines.serve.http` and `.app` do).

# N candidates of a request, or of all requests of a batch, K best ones, T targets that are predicted
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.config import ConfigError, to_dict
from models.score import fused_score
from pipelines.bundle import Bundle, load_bundle
from pipelines.encode.plan import EncodePlan
from pipelines.logs.values import LARGEST
from pipelines.paths import without_paths
from pipelines.serve.assemble import Assembler
from pipelines.serve.config import ServeConfig
from pipelines.serve.request import (
    UNSET,
    Body,
    CandidateRequest,
    RankedColumns,
    RankedRoom,
    RankRequest,
    RankResponse,
    RequestError,
    Timing,
    as_json,
    from_json,
    read_request,
)
from pipelines.serve.store import Store
from pipelines.serve.told import Told, told
from pipelines.serve.wanted import Wanted


class NotReady(ConfigError):
    """There is no endpoint yet."""


class Stale(Exception):
    """The store is older than it may be."""


@dataclass(frozen=True)
class Answer:
    """What a request is told, and what is to be counted of it.

    Attributes:
        predictions: by target, [N] in the request's order.
        score_N: what the rooms are ordered by.
        unknown_rooms: candidates of which nothing is known.
    """

    response: RankResponse
    predictions: Mapping[str, np.ndarray]
    score_N: np.ndarray
    unknown_rooms: int


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
            FloatingPointError: the model predicts something that is not a finite number.
        """
        loaded = load_bundle(bundle)
        wanted = Wanted.by(loaded.schema, loaded.encoder.ids)
        if store is not None:
            wanted.check(store)
        endpoint = cls(loaded, store, wanted, config)
        weights: dict[str, int | float] = {name: 1.0 for name in loaded.ranker.trained}
        at = None if store is None else store.as_of  # whatever its age, it may be loaded
        (answer,) = endpoint.rank([RankRequest(candidates=[CandidateRequest(room_id=0)], at=at, fusion_weights=weights)])
        if isinstance(answer, Exception):
            raise answer
        return endpoint

    def rank(self, requests: Sequence[RankRequest]) -> list[Answer | Exception]:
        """For each request its answer, or why there is none: what is wrong with one is that one's alone.

        Errors are a `RequestError` for what cannot be done, `Stale` for a store that is too old, and a `FloatingPointError` for
        a prediction that is not a finite number.
        """
        began, now = time.perf_counter(), time.time_ns() // 1_000_000
        answers: dict[int, Answer | Exception] = {}
        heard: dict[int, Told] = {}
        for number, request in enumerate(requests):
            try:
                heard[number] = self.hear(request, now)
            except Exception as error:
                answers[number] = error
        try:
            answers |= self._scored(requests, heard, began)
        except Exception as error:
            # whose fault it is, shows when each is asked alone
            answers |= dict.fromkeys(heard, error) if len(heard) == 1 else {}
            for number in heard.keys() - answers.keys():
                (answers[number],) = self.rank([requests[number]])
        return [answers[number] for number in range(len(requests))]

    def ask(self, body: Body) -> Body:
        """One request as over HTTP, in this process.

        Raises:
            Exception: as `rank` gives them.
        """
        (answer,) = self.rank([read_request(as_json(body), most_candidates=self.config.max_candidates)])
        if isinstance(answer, Exception):
            raise answer
        return from_json(as_json(answer.response))

    def freshness(self, at: int | None = None) -> dict[str, Any]:
        """`as_of`, `age_seconds` and `stale` of the store at a moment in ms, now by default."""
        as_of = None if self.store is None else self.store.as_of
        at = time.time_ns() // 1_000_000 if at is None else at
        age = None if as_of is None else max(0, at - as_of) / 1000
        most = self.config.max_age_hours
        return {"as_of": as_of, "age_seconds": age, "stale": age is not None and most is not None and age > 3600 * most}

    def describe(self) -> dict[str, Any]:
        """What is being served, for everybody to see: for `GET /model`."""
        bundle = self.bundle
        whole: dict[str, Any] = {
            "name": bundle.name,
            "schema": bundle.schema.to_dict(),
            "config": to_dict(bundle.system),
            "metrics": dict(bundle.metrics),
            "provenance": dict(bundle.provenance),
            "store": None if self.store is None else {"prepared": self.store.fingerprint, "as_of": self.store.as_of},
        }
        return _public(whole)

    @cached_property
    def assemble(self) -> Assembler:
        """From what was heard to raw feeds."""
        return Assembler(self.wanted, self.store)

    @cached_property
    def plan(self) -> EncodePlan:
        """From raw feeds to a batch."""
        return EncodePlan(self.bundle.schema, self.bundle.encoder)

    @property
    def _targets(self) -> tuple[str, ...]:
        return self.bundle.ranker.trained

    def hear(self, request: RankRequest, now: int) -> Told:
        """The request in the columns that the schema reads.

        Args:
            now: ms.

        Raises:
            RequestError: it cannot be answered.
            Stale: the store is too old for it.
        """
        self._check(request)
        heard = told(request, self.wanted, now)
        fresh = self.freshness(heard.at)
        if fresh["stale"] and self.config.stale == "refuse":
            raise Stale(
                f"what is known of users and rooms is {fresh['age_seconds'] / 3600:.0f} hours old, more than "
                f"{self.config.max_age_hours:g}; deploy a newer store."
            )
        return heard

    def _scored(
        self, requests: Sequence[RankRequest], heard: Mapping[int, Told], began: float
    ) -> dict[int, Answer | Exception]:
        """All that can be answered, in one batch."""
        if not heard:
            return {}
        assembled = self.assemble(list(heard.values()))
        ready = time.perf_counter()
        batch = self.plan.batch(assembled.feeds)
        encoded = time.perf_counter()
        with torch.inference_mode():
            predicted_TN = torch.stack([*self.bundle.ranker.predict(batch).values()])
            is_finite = bool(predicted_TN.isfinite().all())
        scored = time.perf_counter()
        answers: dict[int, Answer | Exception] = {}
        end = 0
        for feed, (number, request) in enumerate(heard.items()):
            start, end = end, end + len(request.room_N)
            ranked = _Ranked(
                requests[number],
                request,
                user_known=assembled.user_known_R[feed],
                room_known_N=assembled.room_known_N[start:end],
                predicted_TN=predicted_TN[:, start:end],
                is_finite=is_finite,
            )
            timing = Timing(
                assemble_ms=_ms(ready - began),
                encode_ms=_ms(encoded - ready),
                model_ms=_ms(scored - encoded),
                total_ms=_ms(time.perf_counter() - began),
                batch=len(heard),
            )
            try:
                answers[number] = self._answer(ranked, timing)
            except Exception as error:
                answers[number] = error
        return answers

    def _check(self, request: RankRequest) -> None:
        count, largest = len(request.candidates), self.bundle.encoder.largest_feed
        if self.bundle.schema.list_context and count > largest:
            raise RequestError(
                ("candidates",),
                f"holds {count} rooms, but this model compares the rooms of a request with each other and has seen at most "
                f"{largest} at once in training. Send fewer, or serve a model whose schema has no list context.",
            )
        for name, weight in (request.fusion_weights or {}).items():
            if abs(weight) > LARGEST:
                raise RequestError(("fusion_weights", name), f"is beyond {LARGEST:.1e}, the largest number of float32.")

    def _score(self, ranked: "_Ranked") -> Tensor:
        """[N], finite.

        Raises:
            FloatingPointError: a prediction is not finite.
            RequestError: the weights cannot be used, or are so large that scores are not finite.
        """
        predictions = dict(zip(self._targets, ranked.predicted_TN, strict=True))
        if not ranked.is_finite:  # for one of the batch
            for name, values_N in predictions.items():
                if not bool(values_N.isfinite().all()):
                    raise FloatingPointError(f"bundle {self.bundle.name} gave a {name} that is not a finite number.")
        given = ranked.request.fusion_weights
        weights = None if given is None else {name: float(weight) for name, weight in given.items()}
        try:
            score_N = fused_score(predictions, self.bundle.schema, weights)
        except ValueError as error:
            raise RequestError(("fusion_weights",), str(error)) from None
        if not bool(score_N.isfinite().all()):
            if weights is None:
                raise FloatingPointError(f"bundle {self.bundle.name} gave a score that is not a finite number.")
            raise RequestError(("fusion_weights",), "are so large that scores are no finite numbers.")
        return score_N

    def _answer(self, ranked: "_Ranked", timing: Timing) -> Answer:
        request = ranked.request
        with torch.inference_mode():
            score_N = self._score(ranked).numpy()
        predicted_TN = ranked.predicted_TN.numpy()
        best_K = np.argsort(-score_N, kind="stable")[: request.k]
        rooms = [request.candidates[place].room_id for place in best_K.tolist()]
        scores, known, best_TK = score_N[best_K].tolist(), ranked.room_known_N[best_K].tolist(), predicted_TN[:, best_K]
        in_rows = request.format == "rows"
        response = RankResponse(
            ranked=[
                RankedRoom(room, score, dict(zip(self._targets, row, strict=True)), is_known)
                for room, score, row, is_known in zip(rooms, scores, best_TK.T.tolist(), known, strict=True)
            ]
            if in_rows
            else UNSET,
            columns=UNSET
            if in_rows
            else RankedColumns(rooms, scores, dict(zip(self._targets, best_TK.tolist(), strict=True)), known),
            user_known=ranked.user_known,
            ignored=list(ranked.told.ignored),
            model=self.bundle.name,
            timing=timing,
            **self.freshness(ranked.told.at),
        )
        predictions = dict(zip(self._targets, predicted_TN, strict=True))
        return Answer(response, predictions, score_N, len(score_N) - int(ranked.room_known_N.sum()))


@dataclass(frozen=True)
class _Ranked:
    """One request of a batch."""

    request: RankRequest
    told: Told
    user_known: bool
    room_known_N: np.ndarray
    predicted_TN: Tensor
    is_finite: bool  # of the whole batch


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


def _public(value: Any) -> Any:
    """The same as JSON, without what is nobody's business outside: of a path on this machine only its last name stays.

    Null stands for every number that JSON does not know (an AUC without positives, say).
    """
    if isinstance(value, dict):
        return {without_paths(key): _public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_public(inner) for inner in value]
    if isinstance(value, str):
        return without_paths(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
