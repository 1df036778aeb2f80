"""The endpoint as a Ray Serve application: what runs in a replica, and its spelling for `serve deploy`.

By YAML (`application` writes the same):

    applications:
      - name: liverank
        import_path: pipelines.serve.app:build
        args: {replicas: 2, max_queued_requests: 128}
        deployments:
          - name: LiveRank
            user_config: {bundle: /models/2024-06-01, store: /stores/2024-06-01}

Deploying again with another `user_config` alone exchanges bundle and store inside the running replicas; anything else
that changes starts new replicas. Serve only looks at the text: if files were replaced in place, say another `version`.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.config import BackpressureConfig

from models.config import ConfigError, from_dict, to_dict
from pipelines.bundle import Bundle
from pipelines.faults import told
from pipelines.paths import without_paths
from pipelines.places import place
from pipelines.ray_private import read_note, write_note
from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Endpoint, NotReady
from pipelines.serve.exchange import Exchange, Target
from pipelines.serve.front import DEPLOYMENT
from pipelines.serve.guard import Guard, Tokens
from pipelines.serve.http import RankingApp, http_app
from pipelines.serve.meters import PUBLISH_SECONDS, Meters
from pipelines.serve.store import Store

SPARE_SECONDS = 5.0
_TOLD = ("bundle", "store", "version", "deployed")  # keys of `user_config`

logger = logging.getLogger(__name__)


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Ranking:
    """A replica: one endpoint at a time, exchanged by `reconfigure`."""

    def __init__(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(1)  # replicas are how it scales; threads of several replicas would fight for the same CPUs
        self._config = from_dict(ServeConfig, config, where="serve")
        context = serve.get_replica_context()
        self._name, self._application = context.replica_tag, context.app_name
        self._deployed: Mapping[str, Any] | None = None
        self._exchange: Exchange[Endpoint] = Exchange(
            self._load, remember=lambda good: remember(self._application, good), told=lambda error: told(error) or str(error)
        )
        self._is_draining = False
        self._meters = Meters()
        self._publishing: asyncio.Task[None] | None = None
        self._http = http_app(self._current, self._config, self._status, self._meters.watch)
        self._tokens = None if self._config.token_file is None else Tokens(self._config.token_file)

    def __serve_build_asgi_app__(self) -> RankingApp | Guard:
        return self._http if self._tokens is None else Guard(self._http, self._tokens)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Has bundle and store loaded beside those that answer, and returns: Serve sends no request to a replica meanwhile.

        What does not fit is refused, and `GET /healthz` says so: raising would make Serve replace a replica that answers
        by one that cannot. Only a replica that is new loads here, what answered last where the target cannot be loaded.
        """
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish())
        is_new = self._exchange.current is None
        try:
            if unknown := user_config.keys() - set(_TOLD):
                raise ConfigError(f"user_config takes {', '.join(_TOLD)}; got {', '.join(sorted(unknown))}.")
            target = Target.of(user_config)
        except ConfigError as error:
            if is_new:
                raise
            self._exchange.refuse(user_config, str(error))
        else:
            if is_new:
                try:
                    await asyncio.to_thread(self._exchange.start, target, remembered(self._application))
                except Exception as error:
                    if (message := told(error)) is None:
                        raise
                    raise ConfigError(message) from error  # by this name the deployer finds it in what Serve says
            else:
                self._exchange.aim(target)
        self._deployed = user_config.get("deployed")

    def report(self) -> dict[str, Any]:
        """How far it is, for who deployed it."""
        endpoint = self._exchange.current
        now = {} if endpoint is None else {**endpoint.freshness(), **origin(endpoint.bundle)}
        own = {"replica": self._name, "pid": os.getpid(), "deployed": self._deployed}
        return {**own, **self._exchange.report.to_dict(), **now}

    def drain(self) -> None:
        """Tells load balancers to turn away, by `/healthz`; everything else goes on."""
        self._is_draining = True

    def check_health(self) -> None:
        self._current()

    def _load(self, target: Target, answered_before: bool) -> Endpoint:
        now, path = self._exchange.current, None if target.store is None else place(target.store)
        if path is None:
            store = None
        elif now is not None and now.store is not None and now.store.is_current(path):
            store = now.store
        else:
            store = Store(path, verify=not answered_before)
        try:
            return Endpoint.open(place(target.bundle), store, self._config)
        except BaseException:
            if store is not None and (now is None or store is not now.store):
                store.close()  # a process opens a store once, and what answered before may need this one
            raise

    def _status(self) -> dict[str, Any]:
        """What anybody may know of an exchange: folders by their names alone."""
        report, endpoint = self._exchange.report, self._exchange.current
        refused = report.refused
        return {
            "status": "draining" if self._is_draining else "ok",
            "bundle": None if endpoint is None else origin(endpoint.bundle),
            "loading": None if report.loading is None else report.loading.names,
            "refused": None
            if refused is None
            else {**refused.target.names, "why": without_paths(refused.why), "at": refused.at},
        }

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            endpoint = self._exchange.current
            if endpoint is None:
                continue
            try:
                ages = {"store": endpoint.freshness()["age_seconds"], "bundle": origin(endpoint.bundle)["trained_seconds_ago"]}
                self._meters.publish(self._exchange.report, self._http.admission.waiting, ages)
            except Exception:  # what answers is worth more than what is told of it, and the next time comes
                logger.exception("The metrics could not be told.")

    def _current(self) -> Endpoint:
        endpoint = self._exchange.current
        if endpoint is None:
            raise NotReady("the endpoint has no bundle yet: give the deployment `user_config: {bundle: ..., store: ...}`.")
        return endpoint


def origin(bundle: Bundle) -> dict[str, Any]:
    """When a bundle was made, and up to which moment (ms) it has seen what happened; None where it does not say."""
    created, data = bundle.provenance.get("created"), bundle.provenance.get("data")
    ago = None
    with suppress(TypeError, ValueError):
        ago = max(0.0, time.time() - datetime.fromisoformat(created).timestamp())  # type: ignore[arg-type]
    return {
        "trained": created,
        "trained_seconds_ago": ago,
        "learnt_until": data.get("as_of") if isinstance(data, Mapping) else None,
    }


def remembered(application: str) -> list[Target]:
    """What answered under this name, the newest first."""
    note = read_note(application)
    return [] if note is None else [Target(**spelling) for spelling in json.loads(note)]


def remember(application: str, good: Sequence[Target]) -> None:
    """Notes what answered, for replicas that start anew and for who wants to go back; nothing forgets it all."""
    write_note(application, json.dumps([vars(target) for target in good]).encode() if good else None)


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a `ServeConfig` spelled as plain values; what a YAML's `import_path` names."""
    return deployment(from_dict(ServeConfig, args, where="args")).bind(args)


def deployment(config: ServeConfig) -> serve.Deployment:
    """As many replicas as the config wants. New ones are there before old ones go."""
    made: serve.Deployment = Ranking  # type: ignore[assignment]
    return made.options(
        num_replicas=replicas_of(config, ray.cluster_resources),
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_ongoing_requests,  # in front of all replicas; in each, `http_app` counts who waits
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        ray_actor_options={"num_cpus": config.cpus_per_replica},
        health_check_period_s=2,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=config.timeout_seconds + SPARE_SECONDS,
        max_surge_percent=100,
    )


def replicas_of(config: ServeConfig, resources: Callable[[], Mapping[str, float]]) -> int:
    """How many replicas there are to be.

    Args:
        resources: gives what is there for them; is called where that decides.
    """
    if config.replicas != "auto":
        return config.replicas
    return 2 if resources().get("CPU", 0.0) >= 2 * config.cpus_per_replica else 1


def http_options(config: ServeConfig) -> dict[str, Any]:
    """Of Serve's proxies. Their time is for what never gets to the endpoint; it keeps its own, whatever headers ask of Ray."""
    options = {"host": config.host, "port": config.port, "request_timeout_s": config.timeout_seconds + SPARE_SECONDS}
    tls = {"ssl_keyfile": config.tls_key, "ssl_certfile": config.tls_certificate}
    return options | {name: str(path) for name, path in tls.items() if path is not None}


def proxy_location(config: ServeConfig) -> str:
    """Where Serve's proxies are: Ray's own on the head, HAProxy on every node."""
    return "EveryNode" if config.proxy == "haproxy" else "HeadOnly"


def application(bundle: Path, store: Path | None, config: ServeConfig) -> dict[str, Any]:
    """What `serve deploy` takes as YAML."""
    return {
        "proxy_location": proxy_location(config),
        "http_options": http_options(config),
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": config.name,
                "route_prefix": config.route_prefix,
                "import_path": "pipelines.serve.app:build",
                "args": to_dict(config),
                "deployments": [{"name": DEPLOYMENT, "user_config": vars(target_of(bundle, store))}],
            }
        ],
    }


def target_of(bundle: Path, store: Path | None) -> Target:
    """These folders, as they are now."""
    folders = [place(bundle).resolve(), *([] if store is None else [place(store).resolve()])]
    files = [folders[0] / "weights.safetensors", *(folder / "store.json" for folder in folders[1:])]
    version = "-".join(str(file.stat().st_mtime_ns) for file in files if file.exists())
    return Target(str(folders[0]), str(folders[1]) if folders[1:] else None, version)
