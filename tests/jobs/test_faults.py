"""Whoever is at fault is told in one line; what is our own fault keeps its trace."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs import screen
from models.config import ConfigError
from pipelines.cluster import RayConfig, connected, starts_ray
from pipelines.faults import told
from pipelines.ray_private import listeners
from pipelines.runs.runner import Done, Item, Runner, Workers
from pipelines.serve.config import ServeConfig
from pipelines.serve.port import check_alone, check_port

ROOT = Path(__file__).parents[2]


def of_the_system(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (of_the_system(errno.ENOSPC, "/r/a"), "/r/a: there is no space left on the disk. Make room and start again."),
        (of_the_system(errno.ENOSPC), "there is no space left on the disk. Make room and start again."),
        (of_the_system(errno.EACCES, "/r/a"), "/r/a: this user may not read or write it."),
        (of_the_system(errno.EROFS, "/r/a"), "/r/a: it lies on a disk that can only be read. Name another `output`."),
        (of_the_system(errno.ENOTDIR, "/r/a"), "/r/a: a part of this path is a file where a folder is needed."),
        (of_the_system(errno.EISDIR, "/r/a"), "/r/a: it is a folder where a file is needed."),
        (of_the_system(errno.ENOENT, "/r/a"), "/r/a: it is not there."),
        (of_the_system(errno.EMFILE, "/r/a"), "/r/a: too many files are open. Raise the limit (ulimit -n)"),
        (of_the_system(errno.ELOOP, "/r/a"), "/r/a: its symbolic links go in a circle."),
        (RuntimeError("Symlink loop from '/r/a'"), "/r/a: its symbolic links go in a circle."),
        (UnicodeEncodeError("ascii", "/r/日志", 3, 5, "ordinal"), "`/r/日志` cannot be spelled in this locale (ascii)."),
        (MemoryError(), "there is no memory left."),
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU has no memory left. Lower train.batch_feeds"),
        (FloatingPointError("the loss is not finite for `click` (nan)"), "the loss is not finite for `click` (nan)"),
    ],
)
def test_what_a_user_can_change_is_one_line(error, line, capsys, monkeypatch):
    assert told(error).startswith(line)
    monkeypatch.setattr(sys, "argv", ["job"])

    class FromAWorker(Exception):
        cause = error

    def main(argv):
        raise RuntimeError("task failed") from FromAWorker()

    with pytest.raises(SystemExit) as ended:
        screen.run(main)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {line}") and said.count("\n") == 1


def test_our_own_faults_are_not_blamed_on_a_file_that_was_being_handled():
    def ours():
        try:
            Path("/nowhere/at/all").read_bytes()
        except OSError:
            return {}["a name of ours"]

    with pytest.raises(KeyError) as error:
        ours()
    assert told(error.value) is None
    assert told(OSError("of no kind")) is None and told(of_the_system(errno.ENOENT)) is None
    assert told(ZeroDivisionError()) is None and told(RuntimeError("ours")) is None


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("{file}", "a part of this path is a file where a folder is needed"),
        ("{file}/below", "a part of this path is a file where a folder is needed"),
        ("/proc/none", "it is not there"),
        ("{long}", "its name is too long"),
    ],
)
def test_an_output_that_is_no_folder_is_told(tmp_path, output, line):
    (tmp_path / "file").write_text("")
    output = output.format(file=tmp_path / "file", long="a" * 300)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.simulate", "--set", f"output={output}", "--set", "logs.users=60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and line in done.stderr
    assert done.stderr.count("\n") == 1


def task(work):
    if work == "ours":
        raise ZeroDivisionError("of ours")
    open(work, "rb").close()
    return Done({"rows": 1})


@pytest.mark.parametrize("parallel", ["none", pytest.param("ray", marks=pytest.mark.ray)])
def test_an_error_in_a_task_reaches_the_screen_once(tmp_path, parallel, request, capfd):
    if parallel == "ray":
        request.getfixturevalue("local_ray")
    runner = Runner(tmp_path, tmp_path / "notes", Workers(parallel))
    with pytest.raises(ConfigError, match=r"/nowhere/part.parquet: it is not there"):
        runner.step("clean", [Item("a", "/nowhere/part.parquet", 1)], task)
    with pytest.raises(RuntimeError) as error:
        runner.step("clean", [Item("b", "ours", 1)], task)
    assert str(error.value).startswith("clean, task b, failed where it was run:\nTraceback")
    assert str(error.value).rstrip().endswith("ZeroDivisionError: of ours") and told(error.value) is None
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err and "/nowhere" not in out + err


def test_a_port_that_is_taken_is_told_before_anything_starts():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        # The command is not looked at: a worker of pytest names itself differently from one version to the next.
        with pytest.raises(
            ConfigError, match=rf"serve.port {port} of serve.host 127.0.0.1 is taken by process {os.getpid()} \(`"
        ):
            check_port(ServeConfig(port=port))
    check_port(ServeConfig(port=port))
    check_alone(ServeConfig(port=port))
    with pytest.raises(ConfigError, match=r"this machine has no such address. Set serve.host"):
        check_port(ServeConfig(host="192.0.2.1", open=True))
    with pytest.raises(ConfigError, match=r"serve.host is `no such host`, which is no address"):
        check_port(ServeConfig(host="no such host", open=True))


def test_a_port_of_another_address_is_nobodys_here():
    with socket.socket() as ours, socket.socket() as other:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        port = ours.getsockname()[1]
        other.bind(("127.0.0.2", port))
        other.listen()
        assert len(listeners(port, "127.0.0.1")) == 1 and listeners(port, "127.0.0.3") == []
        check_port(ServeConfig(host="127.0.0.3", port=port))
        check_alone(ServeConfig(port=port))
        for host in ("0.0.0.0", "localhost"):  # the latter is 127.0.0.1 for Ray, whatever else it is here
            with pytest.raises(ConfigError, match="is taken by"):
                check_port(ServeConfig(host=host, port=port, open=True))


def test_a_port_that_two_share_is_told():
    """As two proxies of Ray do, each of which gets a part of the requests."""
    share = f"import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, {socket.SO_REUSEPORT}, 1)\n"
    share += "s.bind(('127.0.0.1', int(sys.argv[1])))\ns.listen()\nprint(s.getsockname()[1], flush=True)\nsys.stdin.read()"
    command, piped = [sys.executable, "-c", share], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "0"], **piped) as one:
        port = int(one.stdout.readline())
        with pytest.raises(ConfigError, match=rf"serve.port {port} .* is taken by process {one.pid} "):
            check_port(ServeConfig(port=port))
        check_alone(ServeConfig(port=port))
        with subprocess.Popen([*command, str(port)], **piped) as other:
            other.stdout.readline()
            with pytest.raises(ConfigError, match=rf"{port} is shared by process {one.pid} .* and process {other.pid} "):
                check_alone(ServeConfig(port=port))
            other.stdin.close()
        one.stdin.close()


def test_a_ray_that_does_not_start_is_told(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def fails(**how):
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", fails)
    with (
        pytest.raises(ConfigError, match=r"machine: The current node timed out during startup\. Where"),
        connected(RayConfig()),
    ):
        pass
    assert starts_ray(RayConfig()) and not starts_ray(RayConfig(address="auto"))
