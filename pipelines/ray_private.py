"""Everything this project uses of Ray that Ray does not promise to keep.

Each function says what it is for, since when Ray has it, and what happens when a new version has it no longer.
All of it was read and run on Ray 2.60.0. `tests/pipelines/test_ray_private.py` looks for each part in the Ray that is
installed, and makes sure that nothing outside of this file uses such parts, so an upgrade needs this file and that test only.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# -- settings that a Ray reads when it starts ---------------------------------------------------------------------

WARM_WORKERS = {
    # How long a worker process may idle before it is ended (1000 by default), and how many may always idle.
    # Flags of Ray's core, in C++, since 1.x; the second counts only idle workers since 2.6.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_num_workers_soft_limit": "10",
}
TRAIN_PAGE = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}  # since 2024, of Train's present version since 2025; off by default
PLAIN_TUNE = {"RAY_AIR_NEW_OUTPUT": "0"}  # since 2.5; "1" is the default since 2.6


def keep_workers_warm() -> None:
    """Idle workers outlive the pause between two steps: each new one imports Ray again, a second or two on a small machine.

    Holds for a Ray that is started afterwards. A version without the flags ignores them: slower steps, the same results.
    """
    _set(WARM_WORKERS)


def show_train_page() -> None:
    """Fills the dashboard's page of Ray Train. A version without the flag ignores it: an empty page."""
    _set(TRAIN_PAGE)


def plain_tune_output() -> None:
    """Lets our own reporter speak for Ray Tune: the newer output prints its settings even when it is told to be silent.

    A version without the older output ignores it: tables of Ray's own appear between our lines.
    """
    _set(PLAIN_TUNE)


def _set(variables: dict[str, str]) -> None:
    """What the user has set already stays."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


# -- where this process runs -----------------------------------------------------------------------------------------

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def in_submitted_job() -> bool:
    """Whether `ray job submit` started this process, which then runs in a temporary copy of the project.

    Ray's job manager hands its own settings over in an environment variable, since 2021 (1.9). A version that does so in
    another way lets relative output folders through, and they are lost with the copy.
    """
    return JOB_VARIABLE in os.environ


def most_resources() -> dict[str, float]:
    """What the cluster has, or can have where an autoscaler adds nodes: `CPU`, `GPU` and others.

    The autoscaler's limits stand in no public place; the driver's state object tells them since 2025 (ray#49501 asks for a
    public call). Without it every training on Ray fails at the start; `ray.cluster_resources()` alone would do for clusters
    that do not grow.
    """
    import ray
    from ray._private.state import state

    return {**ray.cluster_resources(), **(state.get_max_resources_from_cluster_config() or {})}


def dashboard_url() -> str | None:
    """Where the dashboard of the Ray we are connected to listens, as `host:port`; None without one.

    `ray.init` tells it only to whoever called it, so others ask the driver, since 1.x. Without it
    searches fail at the start, in the line that says where to watch them.
    """
    import ray

    return ray._private.worker.get_dashboard_url() or None


AUTHENTICATION = "RAY_AUTH_MODE"


def authentication() -> str:
    """How the Ray of this process knows its clients: `token` or `disabled`.

    A Ray that is started here sets the variable for its own processes, since 2.59.
    """
    return os.environ.get(AUTHENTICATION, "disabled")


def authenticate(mode: str) -> None:
    """Lets this process join a Ray of the same user that knows its clients so, where the user has not said how.

    Ray shows its token to the Ray that it finds by itself, and to one that it is given the address of only with this
    variable, which its core reads when it is loaded. Where that has another way, the Ray is not joined, in one line.
    """
    if AUTHENTICATION not in os.environ:
        os.environ[AUTHENTICATION] = mode
        import_module("ray._raylet").Config.initialize("")


# -- lines of Ray's own ----------------------------------------------------------------------------------------------

AUTHENTICATION_LOGGER = "ray._private.authentication"
DATA_LOGGERS = {
    "ray.data._internal.progress": logging.ERROR,
    "ray.data._internal.execution.streaming_executor": logging.WARNING,
}


def quiet_authentication() -> None:
    """Without the warning that a Ray of this machine's own makes a token (since 2.59); it listens on loopback alone.

    Where the logger has another name, the warning is seen again.
    """
    logging.getLogger(AUTHENTICATION_LOGGER).setLevel(logging.ERROR)


@contextmanager
def quiet_data() -> Iterator[None]:
    """Inside, Ray Data says nothing about missing progress bars and about every execution that ends.

    Loggers by the names of its internal modules (the first since 2025). Where they have others, those lines are seen again.
    """
    loggers = {logging.getLogger(name): level for name, level in DATA_LOGGERS.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


# -- errors ----------------------------------------------------------------------------------------------------------

BEHIND = ("_base_exc", "cause", "__cause__")  # where Ray keeps what an error came from; the first is Ray Train's, since 2025


def origin(error: BaseException) -> BaseException:
    """What first went wrong, in a worker perhaps, behind an error that Ray raises.

    Where Ray keeps it elsewhere, the error itself comes back: a longer line that names the cause somewhere.
    """
    while (behind := next((each for name in BEHIND if (each := getattr(error, name, None)) is not None), None)) is not None:
        error = behind
    return error


# -- what listens on this machine ------------------------------------------------------------------------------------

LONGEST_COMMAND = 100  # characters of a command in a message


@dataclass(frozen=True)
class Listener:
    """A process that holds a port, and who started it where Ray did.

    Attributes:
        pid: None for a process of another user.
    """

    pid: int | None
    command: str = ""
    starter: "Listener | None" = None

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} (`{self.command}`)" + (f", which {self.starter} started" if self.starter else "")


def listeners(port: int, address: str | None = None) -> list[Listener]:
    """Processes of this machine that listen at a TCP port.

    Args:
        address: of an interface; those at others, which get none of its connections, are left out.

    `psutil` travels inside of Ray since 1.x. Without it nobody is named: a message says that another process holds the port.
    """
    import ray  # noqa: F401  puts psutil in reach

    try:
        import psutil
    except ImportError:
        return []
    try:
        found = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # some systems show them to the administrator alone
        return []
    there = [each for each in found if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port]
    pids = {each.pid for each in there if _overlap(address, each.laddr.ip)}
    return [_listener(pid) for pid in sorted(pids, key=lambda pid: pid or 0)]


def _overlap(one: str | None, other: str) -> bool:
    everywhere = ("0.0.0.0", "::")
    return one is None or one == other or one in everywhere or other in everywhere


def _listener(pid: int | None) -> Listener:
    """With the first process above it that is none of Ray's own."""
    import psutil

    if pid is None:
        return Listener(None)
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline())
        above = process.parents() if command.startswith("ray::") else []
        starter = next((each for each in above if not _is_of_ray(each)), None)
        known = None if starter is None or starter.pid == 1 else Listener(starter.pid, _short(" ".join(starter.cmdline())))
        return Listener(pid, _short(command), known)
    except psutil.Error:  # it ended while we looked, or is another user's
        return Listener(pid, "?")


def _is_of_ray(process: Any) -> bool:
    words = process.cmdline()
    return bool(words) and ("raylet" in words[0] or words[0].startswith("ray::") or "ray/_private" in " ".join(words[:3]))


def _short(command: str) -> str:
    command = " ".join(command.split())
    return command if len(command) <= LONGEST_COMMAND else command[: LONGEST_COMMAND - 3] + "..."


# -- Ray Serve ---------------------------------------------------------------------------------------------------------

SERVE_NOTES = b"liverank"  # whose notes they are, in the table that Serve keeps its own state in


@dataclass(frozen=True)
class Running:
    """A Serve that runs.

    Attributes:
        host, port: where its proxies answer.
        is_haproxy: whether HAProxy is in front, rather than Ray's own proxy.
        certificate: file of it; None where HTTP is answered.
    """

    host: str
    port: int
    is_haproxy: bool
    certificate: str | None


@dataclass(frozen=True)
class Asked:
    """What a deployment was last asked to be.

    Attributes:
        args: of its class.
        user_config: of `reconfigure`.
    """

    args: tuple[Any, ...]
    user_config: Any


PROXY = {
    # How often the controller looks after its proxies (10 s by default); three looks in vain, and it starts a new one.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # since 2.5x; in front of the replicas themselves, which then answer HTTP
    # What was sent to a replica that died is sent to another one: a ranking can be asked twice. HAProxy keeps as much of a
    # body for that as fits its buffer (16 KiB by default).
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(256 * 1024),
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
}
DIRECT = {
    # What a replica behind HAProxy must know too: that it answers HTTP itself, and how long it stays reachable at its end,
    # until every HAProxy knows (30 s by default).
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
}
FRONT = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # since 2.3x; a function that gives middlewares for Ray's proxy
BALANCE = "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"  # written as it is into `defaults` of HAProxy's configuration, as its last line


def proxy_settings(
    *, haproxy: bool, front: str | None, code: Sequence[str], seconds: float, errors: Mapping[int, str], ports: Sequence[int]
) -> dict[str, str]:
    """Variables of a Serve controller that is going to be started, and so of its proxies.

    Args:
        haproxy: HAProxy in front of the replicas, in the place of Ray's proxy.
        front: `module:function`, gives middlewares for Ray's proxy; None for none.
        code: folders in which that is found.
        seconds: within which a request must have come to HAProxy, and its answer.
        errors: by status, what HAProxy says as JSON where it answers itself; Ray would have it say 500 in plain text.
        ports: two free ones, for the pages of HAProxy.

    A version without one of them ignores it: a proxy that died is missed for half a minute, requests of dead replicas are
    lost, HAProxy answers 500, or it is not there at all, which `running_serve` then tells.
    """
    settings = dict(PROXY)
    if front is not None:
        settings |= {FRONT: front, "PYTHONPATH": os.pathsep.join(code)}
    if haproxy:
        told = [
            f'http-error status {status} content-type application/json hdr Retry-After 1 string "{_quoted(text)}"'
            for status, text in errors.items()
        ]
        # only a request that HAProxy holds whole when it sends it on can be sent on again
        whole = ["option http-buffer-request", f"timeout http-request {math.ceil(seconds)}s"]
        settings |= (
            HAPROXY
            | DIRECT
            | {
                "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(math.ceil(seconds)),
                BALANCE: "\n    ".join(["leastconn", *whole, *told]),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[0]),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[1]),
                "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
            }
        )
        # a folder of this user's own: that of the default is whose who came first
        folder = f"/tmp/haproxy-serve-{os.getuid()}"
        for name, file in (
            ("CONFIG_FILE_LOC", "haproxy.cfg"),
            ("SOCKET_PATH", "admin.sock"),
            ("METRICS_SOCKET_PATH", "metrics.sock"),
            ("SERVER_STATE_FILE", "server-state"),
        ):
            settings[f"RAY_SERVE_HAPROXY_{name}"] = f"{folder}/{file}"
        settings["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"] = folder
    return settings


def _quoted(text: str) -> str:
    """Inside of double quotes in HAProxy's configuration."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def running_serve() -> Running | None:
    """The Serve of the Ray we are connected to.

    `serve.start` gives no more than a warning where one runs with other options. The client and its options are there since
    2.x, the controller's mark of HAProxy since 2.5x; without them no endpoint can be deployed.
    """
    import ray
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    options = client.http_config
    has_haproxy = ray.get(client._controller.__ray_call__.remote(lambda controller: controller._ha_proxy_enabled))
    return Running(options.host, options.port, has_haproxy, options.ssl_certfile)


def asked_of(application: str, deployment: str) -> Asked | None:
    """What Serve's controller was last told of a deployment; None where there is none of these names.

    `serve.status()` says how it is, not what it is. The controller's method is there since 2.x. Without it no endpoint can be
    deployed a second time.
    """
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None
    try:
        info, _ = client.get_deployment_info(deployment, application)
    except KeyError:  # Ray raises an error of the controller's task, which is one too
        return None
    return Asked(tuple(info.replica_config.init_args), info.deployment_config.user_config)


def of_version(deployment: Any, version: str) -> Any:
    """The deployment under a name for its code and arguments: run again under the same one, its replicas stay as they are, and
    are told a changed `user_config` alone.

    Serve makes names of its own for what `serve.run` is given, each time another, so all replicas would be replaced. The
    attribute is there since 1.x; without it every exchange starts new replicas, which costs time and no requests.
    """
    deployment._version = version
    return deployment


@dataclass(frozen=True)
class Ingress:
    """What Ray's proxy would ask at a path.

    Attributes:
        deployment, application: their names.
        has_replica: whether it has a replica that takes requests, as far as this process knows; asks nobody.
    """

    deployment: str
    application: str
    has_replica: Callable[[], bool]


def ingress_at(app: Any, path: str) -> Ingress | None:
    """In Ray's proxy, by its own table of routes; None where it has none.

    Args:
        app: what a middleware of the proxy stands before.

    The proxy is an ASGI application with a router, which finds a path's handle, since 2.x; the replicas stand in the handle's
    router. Without the first no path is anybody's, so requests of dead replicas are lost; without the second there always is
    a replica: requests wait in silence while none is.
    """
    while not hasattr(app, "proxy_router"):
        app = getattr(app, "_app", None) or getattr(app, "app", None)
        if app is None:
            return None
    found = app.proxy_router.match_route(path)
    if found is None:
        return None
    handle = found[1]

    def has_replica() -> bool:
        try:
            return bool(handle._router._asyncio_router.request_router.curr_replicas)
        except AttributeError:
            return True

    return Ingress(handle.deployment_name, handle.app_name, has_replica)


def read_note(name: str) -> bytes | None:
    """What `write_note` wrote, perhaps in another process.

    Notes lie in the key-value table of Ray's head, where Serve keeps its own state; they live as long as that. Its functions
    are there since 1.x and are not public; without them no replica starts.
    """
    from ray.experimental.internal_kv import _internal_kv_get

    return _internal_kv_get(name.encode(), namespace=SERVE_NOTES)


def write_note(name: str, text: bytes | None) -> None:
    """Keeps a text under a name for all processes of this Ray; None forgets it."""
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    if text is None:
        _internal_kv_del(name.encode(), namespace=SERVE_NOTES)
    else:
        _internal_kv_put(name.encode(), text, overwrite=True, namespace=SERVE_NOTES)


def end_serve(timeout_seconds: float) -> None:
    """Ends replicas, proxy and controller without a red line; a Ray that was there before stays.

    The controller ends itself in this call. With the retries that `serve.shutdown` asks for, Ray reports that as a failed task
    on every driver's screen. If the client has another shape, `serve.shutdown` alone does the work, with those lines.
    """
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        with suppress(ray.exceptions.RayActorError):
            ray.get(client._controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=timeout_seconds)
        client._shutdown = True
    serve.shutdown()
