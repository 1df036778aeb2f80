"""How the endpoint is run."""

import ipaddress
import re
from typing import Literal

from models.config import config
from pipelines.paths import FolderName, LocalPath


@config
class ServeConfig:
    """One deployment of one ranker.

    Attributes:
        name: of the application on Ray Serve, which may hold others beside it.
        route_prefix: path below which it answers; `/` where it is alone.
        proxy: what answers HTTP before the replicas. `default` is Ray's own, one for the whole Ray, and needs nothing;
            `haproxy`, on every node, is for production.
        host: address at which HTTP is answered; 0.0.0.0 is that of all networks of the machine. Beyond this machine a token
            and a certificate are asked for.
        port: at which HTTP is answered.
        token_file: a file with a token a line; a request must bear one of them (`Authorization: Bearer ...`), but for
            `/healthz`. It is read again when it has changed.
        tls_certificate, tls_key: PEM files; with them HTTPS is answered. For proxy `default`; before HAProxy something else
            ends TLS.
        open: answers beyond this machine without a token or without TLS, because what stands before it sees to that.
        replicas: processes that answer; each loads the bundle once. `auto` is two where the CPUs are free, else one: with two
            none is missed while it is started again.
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
        max_age_hours: a store is stale for a request whose time (`at`, else now) is this long after the end of its log; None
            never is.
        stale: what then: `flag` answers and says so, `refuse` answers 503.
        drain_seconds: before its end `/healthz` answers 503 for so long, and all else goes on: load balancers turn away.
        start_seconds: a start or an exchange that takes longer is given up; what answered before goes on.
    """

    name: FolderName = "liverank"
    route_prefix: str = "/"
    proxy: Literal["default", "haproxy"] = "default"
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: LocalPath | None = None
    tls_certificate: LocalPath | None = None
    tls_key: LocalPath | None = None
    open: bool = False
    replicas: int | Literal["auto"] = "auto"
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
    drain_seconds: float = 0.0
    start_seconds: float = 300.0

    def __post_init__(self) -> None:
        at_least_one = ("batch", "max_ongoing_requests", "max_queued_requests", "max_candidates", "max_body_bytes")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"serve needs {name} >= 1, got {getattr(self, name)}.")
        if self.replicas != "auto" and self.replicas < 1:
            raise ValueError(f"serve needs replicas >= 1 or `auto`, got {self.replicas}.")
        if self.drain_seconds < 0:
            raise ValueError(f"serve needs drain_seconds >= 0, got {self.drain_seconds}.")
        if not re.fullmatch(r"(/[\w.~-]+)+|/", self.route_prefix):
            raise ValueError(
                f"serve.route_prefix is a path as / or /rankers/live, without a / at its end; got {self.route_prefix!r}."
            )
        for name in ("cpus_per_replica", "max_wait_seconds", "timeout_seconds", "max_age_hours", "start_seconds"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"serve needs {name} > 0, got {value}.")
        if self.stale == "refuse" and self.max_age_hours is None:
            raise ValueError("serve.stale is `refuse`, but without max_age_hours no store is stale; set it to hours.")
        if not 0 < self.port < 65536:
            raise ValueError(f"serve needs 0 < port < 65536, got {self.port}.")
        self._check_access()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def _check_access(self) -> None:
        tls = (self.tls_certificate, self.tls_key)
        if None in tls and tls != (None, None):
            raise ValueError("serve needs both of tls_certificate and tls_key, or neither.")
        if None not in tls and self.proxy == "haproxy":
            raise ValueError(
                "serve.proxy haproxy takes no certificate, as Ray starts it. End TLS in what stands before it (a load "
                "balancer, an ingress), leave tls_certificate and tls_key out, and set serve.open to true."
            )
        if not self.is_loopback and not self.open and (self.token_file is None or None in tls):
            raise ValueError(
                f"serve.host {self.host} is reached from other machines. Set token_file, and tls_certificate with tls_key; or, "
                "where something before it sees to that, set serve.open to true."
            )
