"""What the endpoint tells Prometheus, by way of Ray's own metrics: the page of each node at its metrics port.

Every name is declared once, in `METERS`; Ray puts `ray_` before it, and the application, deployment and replica beside it.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ray.serve import metrics

from pipelines.serve.endpoint import Answer
from pipelines.serve.exchange import Report

PUBLISH_SECONDS = 5.0  # between two looks at what is measured now and then
SHED, LATE = (503,), (408, 504)  # answers of who had no room, and no time
_SAMPLE = 200  # answers whose predictions are looked at between two looks
_MS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 1000, 2000, 5000)
_ROOMS = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Meter:
    """One name on the page.

    Attributes:
        tags: that tell its series apart.
        bounds: of a histogram's buckets.
    """

    kind: Literal["counter", "gauge", "histogram"]
    says: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METERS: Mapping[str, Meter] = {
    "liverank_requests": Meter("counter", "Requests for a ranking, by the status of their answer.", ("status",)),
    "liverank_shed": Meter(
        "counter", "Requests turned away with 503: too many waited, the store is too old, or there is no model yet."
    ),
    "liverank_late": Meter("counter", "Requests whose body or score came too late."),
    "liverank_latency_ms": Meter(
        "histogram",
        "Of answered requests, by part: assemble, encode, model, and request for all from arrival to answer.",
        ("part",),
        _MS,
    ),
    "liverank_candidates": Meter("histogram", "Rooms of a ranked request.", (), _ROOMS),
    "liverank_unknown_users": Meter("counter", "Ranked requests of whose user nothing was read."),
    "liverank_unknown_rooms": Meter("counter", "Candidates of which nothing is known."),
    "liverank_waiting": Meter("gauge", "Requests whose turn has not come."),
    "liverank_store_age_seconds": Meter("gauge", "Since the end of the log that the store was built from."),
    "liverank_bundle_age_seconds": Meter("gauge", "Since the bundle was trained."),
    "liverank_serving": Meter("gauge", "1 for the model and the store that answer.", ("model", "store")),
    "liverank_loading": Meter("gauge", "1 while another bundle is being loaded."),
    "liverank_refused": Meter("gauge", "1 while what is asked for is not what answers, because it was refused."),
    "liverank_prediction_mean": Meter("gauge", "Mean prediction of recent answers, by target.", ("target",)),
    "liverank_prediction_std": Meter("gauge", "Standard deviation of these predictions.", ("target",)),
}


class Meters:
    """Those of one replica."""

    def __init__(self) -> None:
        kinds: dict[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}
        self._of: dict[str, Any] = {}
        for name, meter in METERS.items():
            bounds = {"boundaries": list(meter.bounds)} if meter.bounds else {}
            self._of[name] = kinds[meter.kind](name, description=meter.says, tag_keys=meter.tags, **bounds)
        self._recent: deque[Answer] = deque(maxlen=_SAMPLE)
        self._serving: dict[str, str] | None = None

    def watch(self, status: int, seconds: float, answer: Answer | None) -> None:
        """Counts a request that has its answer."""
        self._of["liverank_requests"].inc(tags={"status": str(status)})
        if status in SHED:
            self._of["liverank_shed"].inc()
        if status in LATE:
            self._of["liverank_late"].inc()
        if answer is None:
            return
        timing = answer.response.timing
        parts = {"assemble": timing.assemble_ms, "encode": timing.encode_ms, "model": timing.model_ms, "request": 1e3 * seconds}
        for part, taken in parts.items():
            self._of["liverank_latency_ms"].observe(taken, tags={"part": part})
        self._of["liverank_candidates"].observe(len(answer.score_N))
        if not answer.response.user_known:
            self._of["liverank_unknown_users"].inc()
        if answer.unknown_rooms:
            self._of["liverank_unknown_rooms"].inc(answer.unknown_rooms)
        self._recent.append(answer)

    def publish(self, report: Report, waiting: int, ages: Mapping[str, float | None]) -> None:
        """Tells what is so now.

        Args:
            ages: of `store` and `bundle`, in seconds; None where they are not known.
        """
        self._of["liverank_waiting"].set(waiting)
        for what, age in ages.items():
            if age is not None:
                self._of[f"liverank_{what}_age_seconds"].set(age)
        self._of["liverank_loading"].set(int(report.loading is not None))
        self._of["liverank_refused"].set(int(report.serving != report.target and report.loading is None))
        if report.serving is not None:
            serving = {"model": report.serving.names["bundle"] or "", "store": report.serving.names["store"] or ""}
            if self._serving not in (None, serving):
                self._of["liverank_serving"].set(0, tags=self._serving)
            self._of["liverank_serving"].set(1, tags=serving)
            self._serving = serving
        recent = [self._recent.popleft() for _ in range(len(self._recent))]
        columns: dict[str, list[np.ndarray]] = {}
        for answer in recent:
            for target, values_N in {**answer.predictions, "score": answer.score_N}.items():
                columns.setdefault(target, []).append(values_N)
        for target, parts in columns.items():
            values = np.concatenate(parts)
            self._of["liverank_prediction_mean"].set(float(values.mean()), tags={"target": target})
            self._of["liverank_prediction_std"].set(float(values.std()), tags={"target": target})
