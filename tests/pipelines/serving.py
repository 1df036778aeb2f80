"""A Serve on the Ray of the tests, seen from outside: its processes, and clients that ask it."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.pipelines.serve_samples import NOW

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


@contextmanager
def asked_meanwhile(url: str, clients: int = 3) -> Iterator[list[tuple[int, str]]]:
    """Clients that ask without a pause; gives what they were answered: status and model, or text."""
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not done.is_set():
                try:
                    answer = client.post(f"{url}/rank", json=BODY, timeout=30)
                    answers.append((answer.status_code, answer.json().get("model", answer.text)))
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


def kill(processes: set[int]) -> None:
    """As a machine that runs out of memory does."""
    for process in processes:
        os.kill(process, signal.SIGKILL)


def kill_and_wait(url: str, processes: set[int]) -> None:
    """Until others answer."""
    kill(processes)

    def answers_anew() -> bool:
        try:
            return not processes & serving().keys() and httpx.post(f"{url}/rank", json=BODY, timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers_anew, seconds=60)


def wait_until(holds, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
