"""Jobs submitted to a running Ray, as users do: status, logs, exit codes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# as in an activated environment: a job's `python` is the head's
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "PATH": f"{BIN}:{os.environ['PATH']}"}
SMALL = ["logs.users=60", "logs.days=4", "train.epochs=1", "prepare.row_group_feeds=256", "tune.space={}"]


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@pytest.fixture(scope="module")
def client():
    """Of a head node's job server; the head and all it started are ended by their process group."""
    from ray.job_submission import JobSubmissionClient

    port, web, other, agent = (free_port() for _ in range(4))  # also where another Ray runs
    options = [f"--port={port}", f"--dashboard-port={web}", f"--ray-client-server-port={other}", "--num-cpus=4"]
    options += [f"--dashboard-agent-listen-port={agent}"]
    folder = tempfile.mkdtemp(prefix="ray")  # short, for socket names; not Ray's own, where it notes which cluster is current
    options += [f"--temp-dir={folder}"]
    options += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--object-store-memory={300 * 2**20}"]
    head = subprocess.Popen(
        [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", *options],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    made = None
    while made is None:
        assert head.poll() is None and time.monotonic() < deadline, "the head did not answer"
        try:
            made = JobSubmissionClient(f"http://127.0.0.1:{web}")
        except ConnectionError:
            time.sleep(0.5)
    yield made
    os.killpg(head.pid, signal.SIGTERM)
    try:
        head.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def submitted(client, *words: str):
    """Info and logs of a job, after its end."""
    job = client.submit_job(entrypoint=" ".join(["python", "-m", *words]), runtime_env={"working_dir": str(ROOT)})
    while not client.get_job_status(job).is_terminal():
        time.sleep(0.2)
    return client.get_job_info(job), client.get_job_logs(job)


def settings(output: Path, *changes: str) -> list[str]:
    return [f"--set '{change}'" for change in [*SMALL, f"output={output}", *changes]]


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_jobs_run_where_they_are_submitted(client, tmp_path):
    info, logs = submitted(client, "jobs.prepare", *settings(tmp_path))
    assert info.status == "SUCCEEDED", logs
    assert logs.strip().splitlines()[-1] == f"Prepared: {tmp_path / 'quickstart' / 'prepared'}"

    info, logs = submitted(client, "jobs.train", *settings(tmp_path, "train.workers=1"))
    assert info.status == "SUCCEEDED", logs
    assert "epoch 1/1" in logs
    bundle = Path(re.findall(r"^Bundle: (.*)$", logs, re.MULTILINE)[-1])
    assert (bundle / "weights.safetensors").is_file()


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.epochs=0", "error: train: train.epochs must be at least 1, got 0."),
        ("output=runs", "error: `output` is 'runs': in a submitted job it must be an absolute path"),
    ],
)
def test_a_failing_config_fails_the_job_with_one_line(client, tmp_path, change, told):
    info, logs = submitted(client, "jobs.train", *settings(tmp_path, change))
    assert info.status == "FAILED" and info.driver_exit_code == 2
    assert told in logs
    assert "Traceback" not in logs
