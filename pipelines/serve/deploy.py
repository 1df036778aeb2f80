"""Puts an endpoint on a Ray, exchanges it, and takes it away again: each application by who deployed it.

Other applications on the same Serve are never touched. What an application was last asked to be stands in Serve's own
state, with who asked; there is no other book of it.
"""

import getpass
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from models.config import ConfigError, from_dict, to_dict
from pipelines.bundle import fingerprint
from pipelines.ray_private import Asked, asked_of, end_serve, of_version, running_serve
from pipelines.runs.processes import host
from pipelines.serve.app import DEPLOYMENT, deployment, remember, remembered, target_of
from pipelines.serve.config import ServeConfig
from pipelines.serve.exchange import Target
from pipelines.serve.port import check_alone, check_port

PAUSE = 0.1  # seconds between two looks
REPORT_SECONDS = 10.0
END_SECONDS = 180.0
LONGEST = 100  # characters of a command in a message


@dataclass(frozen=True)
class Served:
    """An application that this process deployed.

    Attributes:
        url: where it answers.
        started_serve: whether Serve runs because of it.
    """

    url: str
    name: str
    started_serve: bool

    def end(self) -> None:
        """Takes the application away once it has answered what it holds; and Serve too, where this process started it and
        nobody else uses it."""
        stop(self.name)
        if self.started_serve:
            if others := sorted(serve.status().applications):
                print(f"Serve stays: it holds {', '.join(others)}.", flush=True)
            else:
                end_serve(END_SECONDS)


def deploy(bundle: Path, store: Path | None, config: ServeConfig, *, exchange: bool = False) -> Served:
    """Serves the bundle on the Ray this process is connected to; returns once all its replicas answer with it.

    Args:
        exchange: an application of this name is there, and its bundle and store are exchanged without losing a request.

    Raises:
        ConfigError: the name, the route or the port is taken, there is nothing to exchange, or a replica could not load the
            bundle or the store. What answered before goes on then.
        TimeoutError: it did not start in time, for example for lack of free CPUs.
    """
    started_serve = _join_serve(config)
    try:
        before = _before(config, exchange=exchange)
        _apply(config, target_of(bundle, store), before)
    except BaseException:
        if started_serve:
            end_serve(END_SECONDS)
        raise
    return Served(url_of(config), config.name, started_serve)


def beside(config: ServeConfig) -> ServeConfig:
    """The same for an application of this process alone, which is in nobody's way: on the Serve that runs, else on a free
    port."""
    name = f"{config.name}-{os.getpid()}"
    running = running_serve()
    if running is not None:
        return replace(config, name=name, route_prefix=f"/{name}", host=running.host, port=running.port)
    with socket.socket() as asked:
        asked.bind((config.host, 0))
        return replace(config, name=name, route_prefix="/", port=asked.getsockname()[1])


def roll_back(config: ServeConfig) -> Target:
    """Serves what answered before what answers now, and returns it. Doing it twice comes back.

    Raises:
        ConfigError: there is no such application, or nothing answered before.
    """
    before = _before(config, exchange=True)
    assert before is not None
    now = Target.of(before.user_config)
    older = next((target for target in remembered(config.name) if target != now), None)
    if older is None:
        raise ConfigError(f"nothing but {now.bundle} has answered under the name {config.name} yet; there is no way back.")
    _apply(from_dict(ServeConfig, before.args[0], where="serve"), older, before)
    return older


def stop(name: str) -> None:
    """Takes an application away once it has answered what it holds.

    Raises:
        ConfigError: there is none of ours under this name.
    """
    _require_serve(name)
    if name in serve.status().applications:
        _ours(name)
        serve.delete(name)
    remember(name, [])


def reports(name: str) -> list[dict[str, Any]]:
    """What every running replica says of itself; nothing while none runs."""
    try:
        found = serve.get_deployment_handle(DEPLOYMENT, name).broadcast("report").results(timeout_s=REPORT_SECONDS)
    except (DeploymentUnavailableError, TimeoutError, ray.exceptions.RayActorError):
        return []  # being told of something new, a replica is away for a moment
    return sorted(found, key=lambda report: report["replica"])


def url_of(config: ServeConfig) -> str:
    """Where it answers, for who is on the same machine."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    return f"http://{host}:{config.port}{config.route_prefix.rstrip('/')}"


def _join_serve(config: ServeConfig) -> bool:
    """Makes sure that a Serve runs as the config wants it, and returns whether it was started here."""
    running = running_serve()
    if running is None:
        _on_head(check_port, config)
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": config.host, "port": config.port, "request_timeout_s": config.timeout_seconds},
        )
        try:
            _on_head(check_alone, config)
        except ConfigError:
            end_serve(END_SECONDS)
            raise
        return True
    if (running.host, running.port) != (config.host, config.port):
        raise ConfigError(
            f"Serve runs on this Ray already, at {running.host}:{running.port}, and has one address for all its applications; "
            f"serve.host is {config.host} and serve.port {config.port}. Set them to those."
        )
    return False


def _on_head(check: Any, config: ServeConfig) -> None:
    """Runs a check of the port where the proxy is going to run."""
    nodes = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    here = ray.get_runtime_context().get_node_id()
    if not nodes or nodes[0]["NodeID"] == here:
        check(config)
        return
    task = ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001}, runtime_env=_code())(check)
    try:
        ray.get(task.remote(config))
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, ConfigError) else error from None


def _before(config: ServeConfig, *, exchange: bool) -> Asked | None:
    """What the application was asked to be, where it is there and may be changed."""
    if config.name not in serve.status().applications:
        if exchange:
            raise ConfigError(
                f"no application `{config.name}` runs on this Ray. Start it first, without what was to change it."
            )
        return None
    asked = _ours(config.name)
    if not exchange:
        raise ConfigError(
            f"an application `{config.name}` is there already, {holder_of(asked)}. `--swap` exchanges its bundle, `--stop` "
            "takes it away; for another one beside it set serve.name and serve.route_prefix."
        )
    if not asked.user_config.get("deployed"):
        raise ConfigError(
            f"the application `{config.name}` was deployed from a file, by `serve deploy`. Change `user_config` in that file, "
            "and deploy it again."
        )
    return asked


def _ours(name: str) -> Asked:
    asked = asked_of(name, DEPLOYMENT)
    if asked is None or not isinstance(asked.user_config, dict):
        raise ConfigError(f"the application `{name}` on this Ray is none of LiveRank's. Set serve.name to another name.")
    return asked


def holder_of(asked: Asked) -> str:
    """Who deployed an application, in words."""
    by = asked.user_config.get("deployed")
    if not by:
        return "deployed from a file, by `serve deploy`"
    return f"deployed by process {by['pid']} of {by['user']} on {by['host']} (`{by['command']}`) at {by['at']}"


def _apply(config: ServeConfig, target: Target, before: Asked | None) -> None:
    if before is None:
        remember(config.name, [])  # of another application, that had this name before
    try:
        _run(config, {**vars(target), "deployed": (mine := _this_process())})
        _wait(config, mine["id"])
    except ConfigError:
        if before is None:
            serve.delete(config.name)  # it would go on trying, and hold CPUs
        else:  # what answers stays what is asked for, so a replica that starts anew does not look for what was refused
            old, again = from_dict(ServeConfig, before.args[0], where="serve"), _this_process()
            _run(old, {**before.user_config, "deployed": {**before.user_config["deployed"], "id": again["id"]}})
            _wait(old, again["id"])
        raise


def _run(config: ServeConfig, user_config: Mapping[str, Any]) -> None:
    spelled = to_dict(config)
    options = {"num_cpus": config.cpus_per_replica, "runtime_env": _code()}
    made = deployment(config).options(user_config=dict(user_config), ray_actor_options=options)
    bound = of_version(made, fingerprint({"args": spelled, "options": options})).bind(spelled)
    logging_config = {"enable_access_log": False}
    run = serve.RunTarget(bound, name=config.name, route_prefix=config.route_prefix, logging_config=logging_config)
    try:
        serve.run_many([run], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except RayServeException as error:
        if "Prefix" not in str(error):
            raise
        raise ConfigError(
            f"serve.route_prefix {config.route_prefix} is that of another application on this Serve. Set it to another one, "
            f"for example /{config.name}."
        ) from None


def _wait(config: ServeConfig, mine: str) -> None:
    """Until every replica has been told by this very deployment, and answers with it."""
    deadline = time.monotonic() + config.start_seconds
    while time.monotonic() < deadline:
        status = serve.status().applications.get(config.name)
        if status is not None and (problem := _problem(status)):
            raise ConfigError(f"the endpoint could not start: {problem}")
        if status is not None and status.status == ApplicationStatus.RUNNING:
            states = {str(state): count for state, count in status.deployments[DEPLOYMENT].replica_states.items()}
            found = [report for report in reports(config.name) if (report["deployed"] or {}).get("id") == mine]
            if found and len(found) == states.get("RUNNING") == sum(states.values()) - states.get("STOPPING", 0):
                for report in found:
                    if report["refused"] and report["refused"]["target"] == report["target"]:
                        raise ConfigError(f"the endpoint keeps its old bundle: {report['refused']['why']}")
                if all(report["serving"] == report["target"] for report in found):
                    return
        time.sleep(PAUSE)
    free = ray.available_resources().get("CPU", 0)
    raise ConfigError(
        f"the endpoint did not start within serve.start_seconds ({config.start_seconds:g}). Its replicas ({config.replicas}) "
        f"need {config.cpus_per_replica:g} CPUs each; {free:g} are free. A large bundle or store may need longer."
    )


def _require_serve(name: str) -> None:
    if running_serve() is None:
        raise ConfigError(f"no Serve runs on this Ray, so there is no application `{name}` on it.")


def _code() -> dict[str, Any]:
    """A runtime environment in which replicas find this package: that of the job, else this folder."""
    job = ray.get_runtime_context().runtime_env
    shipped = {key: job[key] for key in ("working_dir", "py_modules") if job.get(key)}
    return shipped or {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}


def _problem(status: ApplicationStatusOverview) -> str | None:
    """Why the application will not come up, as one line; None while it still may."""
    texts = [status.message, *(item.message for item in status.deployments.values())]
    failed = status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
    for text in texts:
        for line in reversed(text.splitlines()):
            _, _, message = line.partition("ConfigError: ")
            if message:
                return message
    return next((text for text in texts if text), "no reason given") if failed else None


def _this_process() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    program, *words = sys.orig_argv or ["python"]
    command = " ".join(shlex.join([Path(program).name, *words]).split())
    return {
        "id": secrets.token_hex(8),
        "pid": os.getpid(),
        "host": host(),
        "user": user,
        "command": command if len(command) <= LONGEST else command[: LONGEST - 3] + "...",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
