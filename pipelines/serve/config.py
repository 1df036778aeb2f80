"""How the endpoint is run."""

from typing import Literal

from models.config import config


@config
class ServeConfig:
    """One deployment of one ranker.

    Attributes:
        host: address at which HTTP is answered; 0.0.0.0 opens it to other machines.
        port: at which HTTP is answered.
        replicas: processes that answer; each loads the bundle once.
        cpus_per_replica: logical CPUs that Ray reserves for a replica; PyTorch uses one thread in each.
        batch: requests that a replica scores at once, of those that wait; none waits for others. 1 scores each alone, bit by
            bit as offline; in company the last digits may differ, by 2e-6 at most.
        max_ongoing_requests: requests that a replica holds at once, those included whose bodies are still on their way, which
            cost it a socket each.
        max_queued_requests: requests that wait for their turn in a replica, whose bodies are there; any more are answered 503.
        max_wait_seconds: a request whose turn does not come within this time is answered 503.
        timeout_seconds: a request has its answer within this time, counted from its arrival: 408 if its body was not there,
            504 if scoring took longer.
        max_candidates: most candidates of one request.
        max_body_bytes: largest body of a request; a larger one is answered 413.
        max_age_hours: a store is stale when a request comes this long after the end of its log; None never is.
        stale: what then: `flag` answers and says so, `refuse` answers 503.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    cpus_per_replica: float = 1.0
    batch: int = 8
    max_ongoing_requests: int = 1000
    max_queued_requests: int = 64
    max_wait_seconds: float = 1.0
    timeout_seconds: float = 5.0
    max_candidates: int = 1000
    max_body_bytes: int = 2_000_000
    max_age_hours: float | None = None
    stale: Literal["flag", "refuse"] = "flag"

    def __post_init__(self) -> None:
        at_least_one = ("replicas", "batch", "max_ongoing_requests", "max_queued_requests", "max_candidates", "max_body_bytes")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"serve needs {name} >= 1, got {getattr(self, name)}.")
        for name in ("cpus_per_replica", "max_wait_seconds", "timeout_seconds", "max_age_hours"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"serve needs {name} > 0, got {value}.")
        if self.stale == "refuse" and self.max_age_hours is None:
            raise ValueError("serve.stale is `refuse`, but without max_age_hours no store is stale; set it to hours.")
        if not 0 < self.port < 65536:
            raise ValueError(f"serve needs 0 < port < 65536, got {self.port}.")
