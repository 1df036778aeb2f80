"""The one place that starts or joins Ray, and says what it found. Ray's private parts are in `pipelines.ray_private`."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.config import ConfigError, config
from pipelines.places import place
from pipelines.ray_private import in_submitted_job, keep_workers_warm, quiet_authentication, show_train_page

LEAST_STORE_MB = 75  # Ray refuses less
ANSWER_SECONDS = 5.0  # in which a Ray that is to be joined must take a connection


@config
class RayConfig:
    """Which Ray to use.

    Attributes:
        address: None starts a Ray on this machine for the length of the job (or joins the one a submitted job runs
            in); `auto` or `host:port` joins a running one.
        num_cpus: logical CPUs of a Ray started here; None takes the machine's, at least 4, because Train, Tune and
            Data each hold some and a job in which all are held by one of them never ends.
        object_store_mb: shared memory of a Ray started here.
        dashboard: start the dashboard too (loopback only).
    """

    address: str | None = None
    num_cpus: int | None = None
    object_store_mb: int = 500
    dashboard: bool = True

    def __post_init__(self) -> None:
        if self.num_cpus is not None and self.num_cpus < 2:
            raise ValueError(f"ray needs num_cpus >= 2 (a worker and the data it reads), got {self.num_cpus}.")
        if self.object_store_mb < LEAST_STORE_MB:
            raise ValueError(f"ray needs object_store_mb >= {LEAST_STORE_MB}, got {self.object_store_mb}.")


def starts_ray(ray_config: RayConfig) -> bool:
    """Whether `connected` starts a Ray of its own, rather than to join one that runs."""
    return not (ray_config.address or os.environ.get("RAY_ADDRESS"))


@contextmanager
def connected(ray_config: RayConfig) -> Iterator[None]:
    """Inside, Ray is up. What was started here is stopped at the end; a Ray that was there before is left alone."""
    keep_workers_warm()
    show_train_page()
    import ray

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet_authentication()
    if ray.is_initialized():
        yield
        return
    address = ray_config.address or os.environ.get("RAY_ADDRESS")
    if address:
        _refuse_silence(address)
        try:
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"`ray.address` is {address!r}, but no Ray answers there: {str(error).splitlines()[0]}") from None
    else:
        try:
            context = ray.init(
                address="local",  # never by chance another Ray that runs, or ran, on this machine
                num_cpus=ray_config.num_cpus or max(4, os.cpu_count() or 1),
                include_dashboard=ray_config.dashboard,
                object_store_memory=ray_config.object_store_mb * 2**20,
                log_to_driver=False,
                logging_level=logging.WARNING,  # the line below says what it would
            )
        except Exception as error:  # Ray raises errors of any kind here, and all of them come from the machine
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError(
                f"Ray does not start on this machine: {reason.rstrip('.')}. Where the machine is busy, set "
                "RAY_raylet_start_wait_time_s=240 and start again; else lower ray.object_store_mb "
                f"({ray_config.object_store_mb}), look after disk and memory, or join a Ray that runs with ray.address."
            ) from error
    dashboard = context.dashboard_url
    where = f"Ray {ray.__version__} with {ray.cluster_resources().get('CPU', 0):.0f} CPUs"
    gpus = ray.cluster_resources().get("GPU", 0)
    print(where + (f", {gpus:.0f} GPUs" if gpus else "") + (f", dashboard http://{dashboard}" if dashboard else ""), flush=True)
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_silence(address: str) -> None:
    """Says at once that nobody listens at `host:port`; Ray itself would try again for minutes."""
    if (found := re.fullmatch(r"([\w.-]+):(\d+)", address)) is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"`ray.address` is {address!r}, but no Ray answers there: {error}. Start one, or leave `ray.address` "
            "(and RAY_ADDRESS) out: the job then starts its own."
        ) from None


def output_folder(output: str, name: str) -> Path:
    """`output/name`, absolute. A submitted job runs in a temporary copy, where a relative folder would be lost."""
    path = place(output)
    if not path.is_absolute() and in_submitted_job():
        raise ConfigError(
            f"`output` is {output!r}: in a submitted job it must be an absolute path that all nodes reach, "
            "or a place in a bucket (add `--set output=s3://bucket/runs`), because the job's own folder is temporary."
        )
    return (path / name).resolve()
