"""The endpoint as one Ray Serve deployment: the only file of serving that knows Ray.

By YAML, as `serve deploy` takes it (`application` writes the same):

    applications:
      - name: liverank
        import_path: pipelines.serve.app:build
        args: {replicas: 2, max_queued_requests: 128}
        deployments:
          - name: Ranking
            user_config: {bundle: /models/2024-06-01, store: /stores/2024-06-01}

Deploying again with another `user_config` alone exchanges bundle and store inside the running replicas; anything else
that changes starts new replicas. Serve only looks at the text: if files were replaced in place, say another `version`.
"""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import ray
import torch
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from models.config import ConfigError, from_dict, to_dict
from pipelines.ray_private import apply_to_serve, end_serve
from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Endpoint, NotReady
from pipelines.serve.http import RankingApp, http_app
from pipelines.serve.store import Store

NAME = "liverank"
_START_SECONDS = 180.0
_SPARE_SECONDS = 5.0


@serve.deployment(name="Ranking")
@serve.ingress()
class Ranking:
    """A replica: one endpoint at a time, exchanged by `reconfigure`."""

    def __init__(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(1)  # replicas are how it scales; threads of several replicas would fight for the same CPUs
        self._config = from_dict(ServeConfig, config, where="serve")
        self._store: Store | None = None
        self._endpoint: Endpoint | None = None
        self._refused: str | None = None

        self._app = http_app(self._current, self._config, lambda: {"refused": self._refused})

    def __serve_build_asgi_app__(self) -> RankingApp:
        return self._app

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Loads bundle and store whole while the old ones go on answering, then exchanges one reference.

        Where the new ones are not fit to serve, the old ones stay, and `GET /healthz` says why: raising would make
        Serve replace a replica that answers by one that cannot.
        """
        try:
            await self._exchange(user_config)
            self._refused = None
        except Exception as error:
            if self._endpoint is None:
                raise
            logging.getLogger("ray.serve").exception("The new bundle was refused; the old one stays.")
            self._refused = str(error)

    async def _exchange(self, user_config: dict[str, Any]) -> None:
        if user_config.keys() - {"bundle", "store", "version"} or not user_config.get("bundle"):
            raise ConfigError(f"user_config takes `bundle` and `store`, both paths, and `version`; got {user_config}.")
        path = user_config.get("store")
        kept = self._store if path and self._store is not None and self._store.is_current(Path(path)) else None
        store = kept or (Store(Path(path)) if path else None)
        try:
            endpoint = await asyncio.to_thread(Endpoint.open, Path(user_config["bundle"]), store, self._config)
        except BaseException:
            if store is not None and store is not kept:
                store.close()
            raise
        old, self._endpoint, self._store = self._store, endpoint, store
        if old is not None and old is not store:
            await self._app.admission.settled()  # what is being scored still reads it
            old.close()

    def check_health(self) -> None:
        self._current()

    def _current(self) -> Endpoint:
        if self._endpoint is None:
            raise NotReady("the endpoint has no bundle yet: give the deployment `user_config: {bundle: ..., store: ...}`.")
        return self._endpoint


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a `ServeConfig` spelled as plain values; what a YAML's `import_path` names."""
    config = from_dict(ServeConfig, args, where="args")
    deployment: serve.Deployment = Ranking  # type: ignore[assignment]
    return deployment.options(
        num_replicas=config.replicas,
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_ongoing_requests,  # in front of all replicas; in each, `http_app` counts who waits
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        ray_actor_options={"num_cpus": config.cpus_per_replica},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=5,
    ).bind(to_dict(config))


def application(bundle: Path, store: Path | None, config: ServeConfig) -> dict[str, Any]:
    """What `serve deploy` takes as YAML."""
    user_config = {
        "bundle": str(Path(bundle).resolve()),
        "store": None if store is None else str(Path(store).resolve()),
        "version": _version(bundle, store),
    }
    return {
        "proxy_location": "HeadOnly",
        # the endpoint keeps its time itself, whatever headers ask of Ray; this is for what never gets there
        "http_options": {
            "host": config.host,
            "port": config.port,
            "request_timeout_s": config.timeout_seconds + _SPARE_SECONDS,
        },
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": "pipelines.serve.app:build",
                "args": to_dict(config),
                "deployments": [{"name": "Ranking", "user_config": user_config}],
            }
        ],
    }


def deploy(bundle: Path, store: Path | None, config: ServeConfig) -> str:
    """Serves the bundle on the Ray this process is connected to, and returns the URL once it answers.

    Called again with another bundle or store it exchanges them without losing a request.

    Raises:
        ConfigError: the replica could not load the bundle or the store; the message is the replica's.
        TimeoutError: it did not start in time, for example for lack of free CPUs.
    """
    spelling = application(bundle, store, config)
    spelling["applications"][0]["runtime_env"] = _code()
    serve.start(proxy_location=spelling["proxy_location"], http_options=spelling["http_options"])
    was_there = NAME in serve.status().applications
    apply_to_serve(ServeDeploySchema.model_validate(spelling))
    url = f"http://{config.host}:{config.port}"
    try:
        _wait(config)
    except (ConfigError, TimeoutError):
        if not was_there:
            serve.delete(NAME)  # it would go on trying, and hold CPUs
        raise
    refused = json.loads(urlopen(f"{url}/healthz", timeout=config.timeout_seconds).read())["refused"]
    if refused:
        raise ConfigError(f"the endpoint keeps its old bundle: {refused}")
    return url


def shutdown() -> None:
    """Ends replicas, proxy and controller; a Ray that was there before stays."""
    end_serve(_START_SECONDS)


def _version(bundle: Path, store: Path | None) -> str:
    """Another text when one of the two was written anew in its old place."""
    files = [Path(bundle) / "weights.safetensors", *([Path(store) / "store.json"] if store is not None else [])]
    return "-".join(str(file.stat().st_mtime_ns) for file in files if file.exists())


def _wait(config: ServeConfig) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        status = serve.status().applications.get(NAME)
        if status is not None and status.status == ApplicationStatus.RUNNING:
            return
        if status is not None and (problem := _problem(status)):
            raise ConfigError(f"the endpoint could not start: {problem}")
        time.sleep(0.1)
    free = ray.available_resources().get("CPU", 0)
    raise TimeoutError(
        f"the endpoint did not start within {_START_SECONDS:.0f} s. Its {config.replicas} replicas need "
        f"{config.cpus_per_replica} CPUs each; {free} are free."
    )


def _code() -> dict[str, Any]:
    """A runtime environment in which replicas find this package: that of the job, else this folder."""
    job = ray.get_runtime_context().runtime_env
    shipped = {key: job[key] for key in ("working_dir", "py_modules") if job.get(key)}
    return shipped or {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}


def _problem(status: Any) -> str | None:
    """Why the application will not come up, as one line; None while it still may."""
    texts = [status.message, *(item.message for item in status.deployments.values())]
    failed = status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
    for text in texts:
        for line in reversed(text.splitlines()):
            _, _, message = line.partition("ConfigError: ")
            if message:
                return message
    return next((text for text in texts if text), "no reason given") if failed else None
