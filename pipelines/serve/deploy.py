"""Puts an endpoint on a Ray, exchanges it, and takes it away again: each application by who deployed it.

Other applications on the same Serve are never touched. What an application was last asked to be stands in Serve's own
state, with who asked; there is no other book of it.
"""

import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from models.config import ConfigError, from_dict, to_dict
from pipelines.bundle import fingerprint
from pipelines.ray_private import DIRECT, Asked, asked_of, end_serve, of_version, proxy_settings, running_serve
from pipelines.runs import Holder, this_process
from pipelines.serve.app import (
    SPARE_SECONDS,
    deployment,
    http_options,
    proxy_location,
    remember,
    remembered,
    replicas_of,
    target_of,
)
from pipelines.serve.config import ServeConfig
from pipelines.serve.exchange import Target
from pipelines.serve.front import DEPLOYMENT, is_found, middlewares
from pipelines.serve.guard import check_files, first_token
from pipelines.serve.port import check_alone, check_port

PAUSE = 0.1  # seconds between two looks
REPORT_SECONDS = 10.0
END_SECONDS = 180.0
AWAY = (DeploymentUnavailableError, TimeoutError, ray.exceptions.RayActorError)  # what is raised while no replica runs


@dataclass(frozen=True)
class Served:
    """An application that this process deployed.

    Attributes:
        url: where it answers.
        started_serve: whether Serve runs because of it.
        owner: token of the deployment, by which the application is known as this process's own through all exchanges.
    """

    url: str
    config: ServeConfig
    started_serve: bool
    owner: str = ""

    @property
    def name(self) -> str:
        return self.config.name

    def client(self) -> httpx.Client:
        """One that is let in, for a process on the same machine."""
        headers = {} if self.config.token_file is None else {"authorization": f"Bearer {first_token(self.config.token_file)}"}
        # whoever made the certificate: it is the file that this very endpoint was given
        verify = True if self.config.tls_certificate is None else ssl.create_default_context(cafile=self.config.tls_certificate)
        return httpx.Client(
            base_url=self.url, headers=headers, verify=verify, timeout=self.config.timeout_seconds + SPARE_SECONDS
        )

    def end(self) -> None:
        """Takes the application away once it has answered what it holds, unless somebody else has done so; and Serve too, where
        this process started it and nobody else uses it."""
        if self.name not in serve.status().applications:
            print(f"{self.name} has been taken away already.", flush=True)
        elif not _is_of(self.name, self.owner):
            print(f"{self.name} stays: it is another one by now, {holder_of(_ours(self.name))}.", flush=True)
        else:
            stop(self.name)
        if self.started_serve:
            _end_serve_unless_used()


@dataclass(frozen=True)
class Standing:
    """How an application stands.

    Attributes:
        by: who deployed it, in words.
        target: what it was asked to serve last.
        state: of the application and its replicas, in Serve's words.
        reports: what each running replica says.
        before: what answered before what answers now, the newest first.
        metrics: pages for Prometheus, one of each node.
    """

    url: str
    by: str
    target: Target
    state: str
    reports: tuple[Mapping[str, Any], ...]
    before: tuple[Target, ...]
    metrics: tuple[str, ...]


def deploy(bundle: Path, store: Path | None, config: ServeConfig) -> Served:
    """Serves the bundle on the Ray this process is connected to; returns once all replicas answer with it.

    Raises:
        ConfigError: the name, the route or the port is taken, a replica could not load the bundle or the store, or it did not
            start in time, for example for lack of free CPUs. Nothing of it is left then.
    """
    config = replace(config, replicas=replicas_of(config, ray.available_resources))  # for all its life
    started_serve = _join_serve(config)
    try:
        if config.name in serve.status().applications:  # `_wait` tells one that comes at the same moment
            raise ConfigError(
                f"an application `{config.name}` is there already, {holder_of(_ours(config.name))}. `--swap` exchanges its "
                "bundle, `--stop` takes it away; for another one beside it set serve.name and serve.route_prefix."
            )
        remember(config.name, [])  # of another application, that had this name before
        me = asdict(this_process())
        try:
            _apply(config, target_of(bundle, store), {**me, "owner": me["token"]}, is_new=True)
        except BaseException:
            if asked_of(config.name, DEPLOYMENT) is None or _is_of(config.name, me["token"]):
                serve.delete(config.name)  # it would go on trying, and hold CPUs
            raise
    except BaseException:
        if started_serve:
            _end_serve_unless_used()
        raise
    return Served(url_of(config), config, started_serve, me["token"])


def exchange(name: str, bundle: Path, store: Path | None) -> str:
    """Has a running application serve another bundle, another store, or both, without losing a request; returns its URL once
    all replicas answer with it.

    Raises:
        ConfigError: there is no such application, it was deployed from a file, or a replica could not load the bundle or the
            store. What answered before goes on then, and is asked for again.
        Overtaken: somebody asked for something else meanwhile, and that goes on.
    """
    return _exchange(name, _changeable(name), target_of(bundle, store))


def roll_back(name: str) -> Target:
    """Has it serve what answered before what answers now, and returns that. Doing it twice comes back.

    Raises:
        ConfigError: as `exchange`, or nothing answered before.
    """
    asked = _changeable(name)
    now, *older = remembered(name) or [Target.of(asked.user_config)]
    if not older:
        raise ConfigError(f"nothing but {now.bundle} has answered under the name {name} yet; there is no way back.")
    _exchange(name, asked, older[0])
    return older[0]


def stop(name: str) -> None:
    """Takes an application away once it has answered what it holds.

    Raises:
        ConfigError: there is none of ours under this name.
    """
    drain_seconds = _config_of(_ours(name)).drain_seconds
    if drain_seconds:
        with suppress(*AWAY):
            serve.get_deployment_handle(DEPLOYMENT, name).broadcast("drain").results(timeout_s=REPORT_SECONDS)
    try:
        time.sleep(drain_seconds)
    finally:  # whoever says it twice does not want to wait
        serve.delete(name)
        remember(name, [])


def standing(name: str) -> Standing:
    """
    Raises:
        ConfigError: there is none of ours under this name.
    """
    asked, status = _ours(name), serve.status().applications[name]
    config, found = _config_of(asked), reports(name)
    replicas = ", ".join(f"{count} {state.lower()}" for state, count in _states(status).items())
    serving = [Target(**report["serving"]) for report in found if report["serving"]]
    return Standing(
        url=url_of(config),
        by=holder_of(asked),
        target=Target.of(asked.user_config),
        state=f"{status.status.value.lower()}; replicas: {replicas or 'none'}",
        reports=tuple(found),
        before=tuple(target for target in remembered(name) if target not in serving),
        metrics=tuple(
            f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in ray.nodes() if node["Alive"]
        ),
    )


def reports(name: str) -> list[dict[str, Any]]:
    """What every running replica says of itself; nothing while none runs."""
    try:
        found = serve.get_deployment_handle(DEPLOYMENT, name).broadcast("report").results(timeout_s=REPORT_SECONDS)
    except AWAY:
        return []  # being told of something new, a replica is away for a moment
    return sorted(found, key=lambda report: report["replica"])


def beside(config: ServeConfig) -> ServeConfig:
    """The same for an application of this process alone, in nobody's way: on the Serve that runs, else on a free port of this
    machine alone."""
    name, running = f"{config.name}-{os.getpid()}", running_serve()
    config = replace(config, name=name, route_prefix="/", host="127.0.0.1", token_file=None, tls_certificate=None, tls_key=None)
    if running is None:
        return replace(config, port=_free_ports(1)[0], proxy="default")
    if running.certificate is not None:  # of the key no more is known than that Serve has it
        config = replace(config, tls_certificate=Path(running.certificate), tls_key=Path(running.certificate))
    config = replace(config, proxy="haproxy" if running.is_haproxy else "default", open=True)
    return replace(config, route_prefix=f"/{name}", host=running.host, port=running.port)


def holder_of(asked: Asked) -> str:
    """Who deployed an application, in words."""
    if not (by := _deployed(asked)):
        return "deployed from a file, by `serve deploy`"
    holder = Holder(**{name: value for name, value in by.items() if name != "owner"})
    return f"deployed by {holder} at {holder.since}"


def url_of(config: ServeConfig) -> str:
    """Where it answers, for who is on the same machine."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    host = f"[{host}]" if ":" in host else host
    scheme = "http" if config.tls_certificate is None else "https"
    return f"{scheme}://{host}:{config.port}{config.route_prefix.rstrip('/')}"


# -- Serve itself ----------------------------------------------------------------------------------------------------


def _join_serve(config: ServeConfig) -> bool:
    """Makes sure that a Serve runs as the config wants it, and returns whether it was started here."""
    running = running_serve()
    if running is None:
        _on_head(check_port, config)
        _on_head(check_files, config)
        serve.start(
            proxy_location=proxy_location(config),
            http_options=http_options(config),
            controller_options={"runtime_env": {"env_vars": _proxy_settings(config)}},
        )
        try:
            if config.proxy == "default":  # the other one does not share
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
    certificate = None if config.tls_certificate is None else str(config.tls_certificate)
    if running.certificate != certificate:
        raise ConfigError(
            f"Serve runs on this Ray already, with certificate {running.certificate} for all its applications; "
            f"serve.tls_certificate is {certificate}. Set it to that."
        )
    if running.is_haproxy != (config.proxy == "haproxy"):
        proxy = "haproxy" if running.is_haproxy else "default"
        raise ConfigError(
            f"Serve runs on this Ray already, with proxy `{proxy}` for all its applications; serve.proxy is {config.proxy}. "
            "Set it to that."
        )
    return False


def _proxy_settings(config: ServeConfig) -> dict[str, str]:
    """What the proxies are started with, so that a request of a replica that dies is asked of another one."""
    code = str(Path(__file__).resolve().parents[2])
    front: str | None = f"{middlewares.__module__}:{middlewares.__name__}"
    try:
        _on_head(is_found, runtime_env={"env_vars": {"PYTHONPATH": code}})
    except ray.exceptions.RayError:
        front = None
        print(
            "The head of this Ray does not find this program, so Ray's proxy answers 500 for a replica that dies. Install "
            "liverank on the head, or set serve.proxy to haproxy.",
            flush=True,
        )
    return proxy_settings(
        haproxy=config.proxy == "haproxy",
        front=front,
        code=[code],
        seconds=config.timeout_seconds + SPARE_SECONDS,
        errors={408: _refusal("timeout"), **dict.fromkeys((502, 503), _refusal("unavailable")), 504: _refusal("timeout")},
        ports=_free_ports(2),
    )


def _refusal(kind: str) -> str:
    """What HAProxy says where it has nobody to ask."""
    message = {"unavailable": "no replica answers; try again.", "timeout": "it was not answered in time."}[kind]
    return json.dumps({"detail": [{"type": kind, "loc": [], "msg": message}]})


def _on_head(do: Callable[..., Any], *args: Any, runtime_env: dict[str, Any] | None = None) -> None:
    """Does it where the proxy is going to run."""
    nodes = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    here = ray.get_runtime_context().get_node_id()
    if not nodes or nodes[0]["NodeID"] == here:
        do(*args)
        return
    how: dict[str, Any] = {"resources": {"node:__internal_head__": 0.001}, "runtime_env": runtime_env or _code()}
    try:
        ray.get(ray.remote(num_cpus=0, **how)(do).remote(*args))
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, ConfigError) else error from None


def _free_ports(count: int) -> list[int]:
    asked = [socket.socket() for _ in range(count)]
    for each in asked:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in asked]
    for each in asked:
        each.close()
    return ports


# -- an application --------------------------------------------------------------------------------------------------


def _ours(name: str) -> Asked:
    if running_serve() is None:
        raise ConfigError(f"no Serve runs on this Ray, so there is no application `{name}` on it.")
    if name not in serve.status().applications:
        raise ConfigError(f"no application `{name}` runs on this Ray. `python -m jobs.serve` starts one.")
    asked = asked_of(name, DEPLOYMENT)
    if asked is None or not isinstance(asked.user_config, dict):
        raise ConfigError(f"the application `{name}` on this Ray is none of LiveRank's. Set serve.name to another name.")
    return asked


def _changeable(name: str) -> Asked:
    asked = _ours(name)
    if not _deployed(asked):
        raise ConfigError(
            f"the application `{name}` was deployed from a file, by `serve deploy`. Change `user_config` in that file, and "
            "deploy it again."
        )
    return asked


def _config_of(asked: Asked) -> ServeConfig:
    return from_dict(ServeConfig, asked.args[0], where="serve")


class Overtaken(ConfigError):
    """Somebody else has asked for something else, or taken the application away, while this process waited."""


def _exchange(name: str, before: Asked, target: Target) -> str:
    config, good = _config_of(before), remembered(name)
    deployed = _deployed(before)
    mine = {**asdict(this_process()), "owner": deployed.get("owner")}
    try:
        _apply(config, target, mine, after=[deployed["token"]])
    except Overtaken:
        raise
    except BaseException as error:
        # what answered is asked for again, so that a replica that starts anew does not look for what was refused
        answered = good[0] if good else Target.of(before.user_config)
        by = {**deployed, "token": this_process().token}
        with suppress(ConfigError):  # where that does not come up either, the first error says more
            _apply(config, answered, by, wait=isinstance(error, ConfigError), after=[deployed["token"], mine["token"]])
            remember(name, good)  # what one replica refused is nothing to go back to
        raise
    return url_of(config)


def _apply(
    config: ServeConfig,
    target: Target,
    by: Mapping[str, Any],
    *,
    wait: bool = True,
    is_new: bool = False,
    after: Collection[str] = (),
) -> None:
    """Tells Serve what is to be served, and by whom it was asked.

    Args:
        by: a `Holder`, whose token tells this very deployment from all others, and the application's owner.
        is_new: there was no application of this name.
        after: tokens of deployments before this one.
    """
    spelled, environment = to_dict(config), _code()
    if config.proxy == "haproxy":
        environment["env_vars"] = environment.get("env_vars", {}) | DIRECT
    options = {"num_cpus": config.cpus_per_replica, "runtime_env": environment}
    made = deployment(config).options(user_config={**vars(target), "deployed": dict(by)}, ray_actor_options=options)
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
    if wait:
        _wait(config, by["token"], is_new, after)


def _wait(config: ServeConfig, token: str, is_new: bool, after: Collection[str]) -> None:
    """Until every replica has been told by this very deployment, and answers with it."""
    deadline, is_told = time.monotonic() + config.start_seconds, False
    while time.monotonic() < deadline:
        asked = asked_of(config.name, DEPLOYMENT)  # Serve's controller takes a moment to know of it
        known = _deployed(asked).get("token")
        if asked is None and (is_told or not is_new):
            raise Overtaken(f"the application `{config.name}` was taken away meanwhile.")
        if asked is not None and known != token and (is_told or known not in after):
            raise Overtaken(f"`{config.name}` was meanwhile asked to serve something else, {holder_of(asked)}. That goes on.")
        is_told = known == token
        status = serve.status().applications.get(config.name)
        if status is not None and (problem := _problem(status, is_new)):
            raise ConfigError(f"the endpoint could not start: {problem}")
        if status is not None and status.status == ApplicationStatus.RUNNING:
            states = _states(status)
            found = [report for report in reports(config.name) if (report["deployed"] or {}).get("token") == token]
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


def _is_of(name: str, owner: str) -> bool:
    """Whether an application is that of the deployment with this token, whoever exchanged its bundle since."""
    return _deployed(asked_of(name, DEPLOYMENT)).get("owner") == owner


def _deployed(asked: Asked | None) -> Mapping[str, Any]:
    """Who asked for it; nothing of an application from a file, or of somebody else's."""
    known = asked is not None and isinstance(asked.user_config, dict) and asked.user_config.get("deployed")
    return known or {}


def _end_serve_unless_used() -> None:
    if others := sorted(serve.status().applications):
        print(f"Serve stays: it holds {', '.join(others)}.", flush=True)
    else:
        end_serve(END_SECONDS)


def _states(status: ApplicationStatusOverview) -> dict[str, int]:
    deployments = status.deployments
    return {str(state): count for state, count in deployments[DEPLOYMENT].replica_states.items()} if deployments else {}


def _code() -> dict[str, Any]:
    """A runtime environment in which replicas find this package: that of the job, else this folder."""
    job = ray.get_runtime_context().runtime_env
    shipped = {key: job[key] for key in ("working_dir", "py_modules") if job.get(key)}
    return shipped or {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}


def _problem(status: ApplicationStatusOverview, is_new: bool) -> str | None:
    """Why the application will not come up, as one line; None while it still may.

    Of one that is not new, messages may be those of replicas that died before; what Serve itself calls failed has failed.
    """
    texts = [status.message, *(item.message for item in status.deployments.values())]
    failed = status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
    for text in texts if failed or is_new else ():
        for line in reversed(text.splitlines()):
            _, _, message = line.partition("ConfigError: ")
            if message:
                return message
    return next((text for text in texts if text), "no reason given") if failed else None
