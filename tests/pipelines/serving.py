"""A Serve on the Ray of the tests, seen from outside: its processes, and clients that ask it."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.pipelines.serve_samples import NOW

if TYPE_CHECKING:
    from pipelines.serve.deploy import Served

BODY = {"user_id": 1, "at": NOW, "candidates": [{"room_id": 11}, {"room_id": 12}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serving() -> dict[int, str]:
    """Titles of the Serve processes that descend from this one, by process id."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked

    def is_ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return {
        process: title
        for process, title in titles.items()
        if title.startswith(("ray::Serve", "ray::Proxy", "ray::HAProxy")) and is_ours(process)
    }


def replicas(application: str) -> set[int]:
    """Processes that answer for an application."""
    return {process for process, title in serving().items() if title.startswith(f"ray::ServeReplica:{application}:")}


def certificate(folder: Path) -> tuple[Path, Path]:
    """One of this machine, that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "liverank")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def asked_meanwhile(served: "Served", clients: int = 3) -> Iterator[list[tuple[int, str]]]:
    """Clients that ask without a pause; gives what they were answered: status and model, or text."""
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        with served.client() as client:
            while not done.is_set():
                try:
                    answer = client.post("/rank", json=BODY, timeout=30)
                    told = answer.json()["model"] if answer.status_code == 200 else answer.text
                    answers.append((answer.status_code, told))
                except Exception as error:  # so that it is seen, and not only in the thread
                    answers.append((0, repr(error)))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(answers) > 10)
        yield answers
        asked = len(answers)
        wait_until(lambda: len(answers) > asked + 10)
    finally:
        done.set()
        for thread in threads:
            thread.join()


def in_rotation(application: str) -> int:
    """Replicas that HAProxy sends requests to: those of Serve, once HAProxy has been told and has asked them."""
    found = 0
    for path in Path(f"/tmp/haproxy-serve-{os.getuid()}").glob("*/admin.sock"):
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(str(path))
            except OSError:  # of one that has ended
                continue
            asked.sendall(b"show stat\n")
            lines = b"".join(iter(lambda asked=asked: asked.recv(1 << 16), b"")).decode().splitlines()
        found += sum(f",SERVE_REPLICA_{application}-" in line and ",UP," in line for line in lines)
    return found


def kill(processes: set[int]) -> None:
    """As a machine that runs out of memory does."""
    for process in processes:
        os.kill(process, signal.SIGKILL)


def kill_and_wait(served: "Served", processes: set[int]) -> None:
    """Until others answer."""
    kill(processes)

    def answers_anew() -> bool:
        try:
            return not processes & serving().keys() and rank(served).status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers_anew, seconds=60)


def rank(served: "Served") -> httpx.Response:
    """One answer, on a connection of its own."""
    with served.client() as client:
        return client.post("/rank", json=BODY, timeout=30)


def wait_until(holds, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
