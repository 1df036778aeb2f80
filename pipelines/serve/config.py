"""How the endpoint is run."""

import re
from typing import Literal

from models.config import config
from pipelines.paths import FolderName


@config
class ServeConfig:
    """One deployment of one ranker.

    Attributes:
        name: of the application on Ray Serve, which may hold others beside it.
        route_prefix: path below which it answers; `/` where it is alone.
        proxy: what answers HTTP before the replicas. `default` is Ray's own, one for the whole Ray, and needs nothing;
            `haproxy`, on every node, takes a third of its CPU, and is for production.
        host: address at which HTTP is answered; 0.0.0.0 opens it to other machines.
        port: at which HTTP is answered.
        replicas: processes that answer; each loads the bundle once.
        cpus_per_replica: logical CPUs that Ray reserves for a replica; PyTorch uses one thread in each.
        max_ongoing_requests: requests that a replica holds at once; it works on them one after the other.
        max_queued_requests: requests that wait in front of all replicas; any more are answered 503.
        timeout_seconds: a request that takes longer, waiting included, is answered 408.
        max_candidates: most candidates of one request.
        start_seconds: a start or an exchange that takes longer is given up; what answered before goes on.
    """

    name: FolderName = "liverank"
    route_prefix: str = "/"
    proxy: Literal["default", "haproxy"] = "default"
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    cpus_per_replica: float = 1.0
    max_ongoing_requests: int = 8
    max_queued_requests: int = 64
    timeout_seconds: float = 5.0
    max_candidates: int = 1000
    start_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("replicas", "max_ongoing_requests", "max_queued_requests", "max_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"serve needs {name} >= 1, got {getattr(self, name)}.")
        for name in ("cpus_per_replica", "timeout_seconds", "start_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"serve needs {name} > 0, got {getattr(self, name)}.")
        if not re.fullmatch(r"(/[\w.~-]+)+|/", self.route_prefix):
            raise ValueError(
                f"serve.route_prefix is a path as / or /rankers/live, without a / at its end; got {self.route_prefix!r}."
            )
        if not 0 < self.port < 65536:
            raise ValueError(f"serve needs 0 < port < 65536, got {self.port}.")
