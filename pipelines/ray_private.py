"""Everything this project uses of Ray that Ray does not promise to keep.

Each function says what it is for, since when Ray has it, and what happens when a new version has it no longer.
All of it was read and run on Ray 2.60.0. `tests/pipelines/test_ray_private.py` looks for each part in the Ray that is
installed, and makes sure that nothing outside of this file uses such parts, so an upgrade needs this file and that test only.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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


def listeners(port: int) -> list[Listener]:
    """Processes of this machine that listen at a TCP port.

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
    pids = {each.pid for each in found if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port}
    return [_listener(pid) for pid in sorted(pids, key=lambda pid: pid or 0)]


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


def apply_to_serve(config: Any) -> None:
    """Hands a `ServeDeploySchema` to Serve's controller, as `serve deploy` does by way of the dashboard's web server.

    `serve.run`, the public way, replaces all replicas even where only their `user_config` differs. The client and its
    controller's `apply_config` are there since 2.x; without them no endpoint can be deployed.
    """
    import ray
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None  # serve.start was called
    ray.get(client._controller.apply_config.remote(config))


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
