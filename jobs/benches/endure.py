"""What an endpoint loses while it is exchanged, and while its processes are killed: requests, and time.

    python -m jobs.bench endure --prepared runs/quickstart/prepared --bundle runs/quickstart/bundles/... --kills 10
    python -m jobs.bench endure --prepared runs/quickstart/prepared --bundle runs/quickstart/bundles/... --replicas 1 --swaps 20

Clients ask without a pause, each on a connection of its own. A request counts as lost whose answer is neither 200 nor a
503 that says when to come again; a connection that breaks or is refused counts as lost too, and apart. Kills are drawn at
random with a seed: kill -9 of a replica, of Serve's controller, of a proxy (with HAProxy: HAProxy itself, or Ray's process that
looks after it).
"""

import argparse
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from jobs.benches.serve import bodies_of
from models.config import ConfigError
from pipelines.cluster import RayConfig, connected
from pipelines.prepared import Prepared
from pipelines.serve.config import ServeConfig
from pipelines.serve.store import build_store

TITLES = {  # words of their commands
    "replica": ("ray::ServeReplica:endure:",),
    "controller": ("ray::ServeController",),
    "proxy": ("ray::ProxyActor", "ray::HAProxyManager", "/haproxy -db"),
}
BACK_SECONDS = 60.0  # after a kill, for all processes to be there again


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(prog="jobs.bench endure", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--prepared", type=Path, required=True, help="the prepared folder whose users and rooms are asked for")
    made.add_argument("--bundle", type=Path, required=True, help="the bundle that answers; copies of it take its place")
    made.add_argument("--proxy", choices=("default", "haproxy"), default="default", help="(default: %(default)s)")
    made.add_argument("--replicas", type=int, default=2, help="(default: %(default)s)")
    made.add_argument("--clients", type=int, default=4, help="that ask without a pause (default: %(default)s)")
    made.add_argument("--candidates", type=int, default=50, help="of a request (default: %(default)s)")
    made.add_argument(
        "--seconds", type=float, default=20.0, help="without any disturbance, to compare with (default: %(default)s)"
    )
    made.add_argument("--swaps", type=int, default=0, help="with one replica (default: none)")
    made.add_argument("--load-seconds", type=float, default=30.0, help="that a bundle takes to load (default: %(default)s)")
    made.add_argument("--kills", type=int, default=0, help="(default: none)")
    made.add_argument("--of", nargs="+", choices=TITLES, default=list(TITLES), help="what is killed (default: all)")
    made.add_argument("--seed", type=int, default=0, help="of the kills (default: %(default)s)")
    made.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    args = made.parse_args(argv)
    if args.swaps and args.replicas != 1:
        raise ConfigError("--swaps needs --replicas 1: a pipe makes the bundle slow, and its text comes to one reader alone.")
    prepared = Prepared.open(args.prepared)
    bodies = bodies_of(prepared, args.candidates)
    config = ServeConfig(
        name="endure", port=args.port, proxy=args.proxy, replicas=args.replicas, cpus_per_replica=0.5, start_seconds=600
    )
    told = f"proxy {args.proxy}, replicas {args.replicas}, clients {args.clients}, candidates {args.candidates}"
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {told}")
    with tempfile.TemporaryDirectory() as folder, connected(RayConfig(dashboard=False, num_cpus=4)):
        from pipelines.serve.deploy import deploy

        store = build_store(prepared, Path(folder) / "store")
        served = deploy(args.bundle, store, config)
        try:
            print(HEADER)
            with asked(served.client, bodies, args.clients) as seen:
                time.sleep(args.seconds)
            print(seen.line("undisturbed"), flush=True)
            if args.swaps:
                print(_swapped(served, args, store, bodies, Path(folder)), flush=True)
            draw = random.Random(args.seed)
            kills: dict[str, list[Seen]] = {}
            for number in range(args.kills):
                what = draw.choice(args.of)
                seen, title = _killed(served, what, args, bodies, draw)
                print(seen.line(f"{number + 1}. {title}"), flush=True)
                kills.setdefault(what, []).append(seen)
            for what, each in kills.items():
                every = Seen([answer for seen in each for answer in seen.answers])
                print(every.line(f"{len(each)} kills of a {what}", max(seen.gap for seen in each)), flush=True)
        finally:
            served.end()


HEADER = f"{'':<24}{'asked':>8}{'200':>8}{'503':>6}{'lost':>6}{'broken':>8}{'refused':>9}{'p50 ms':>9}{'p99 ms':>9}{'gap s':>8}"


@dataclass
class Seen:
    """What clients met. A gap is the longest time without an answer 200."""

    answers: list[tuple[float, float, int | str]] = field(default_factory=list)  # begun, seconds, status or error

    @property
    def gap(self) -> float:
        ends = sorted(begun + seconds for begun, seconds, status in self.answers if status == 200)
        return float(max(np.diff(ends), default=np.nan))

    def line(self, what: str, gap: float | None = None) -> str:
        kinds = Counter(_kind(status) for _, _, status in self.answers)
        taken = np.array([seconds for _, seconds, status in self.answers if status == 200]) * 1e3
        p50, p99 = np.percentile(taken, [50, 99]) if len(taken) else (np.nan, np.nan)
        counts = f"{kinds['200']:>8}{kinds['503']:>6}{kinds['lost']:>6}{kinds['broken']:>8}{kinds['refused']:>9}"
        return f"{what:<24}{len(self.answers):>8}{counts}{p50:>9.1f}{p99:>9.1f}{self.gap if gap is None else gap:>8.2f}"


def _kind(status: int | str) -> str:
    if status in (200, 503):
        return str(status)
    if isinstance(status, int):
        return "lost"
    return "refused" if status == "ConnectError" else "broken"


@contextmanager
def asked(client: Any, bodies: Sequence[dict[str, Any]], clients: int) -> Iterator[Seen]:
    """Inside, clients ask without a pause; after an answer that is none they pause for a moment."""
    seen, done = Seen(), threading.Event()

    def ask(number: int) -> None:
        with client() as own:
            while not done.is_set():
                number += 1
                began = time.monotonic()
                status: int | str
                try:
                    answer = own.post("/rank", json=bodies[number % len(bodies)], timeout=30)
                    status = answer.status_code if answer.status_code != 503 or "retry-after" in answer.headers else 500
                except httpx.HTTPError as error:
                    status = type(error).__name__
                seen.answers.append((began, time.monotonic() - began, status))
                if status != 200:
                    time.sleep(0.02)

    threads = [threading.Thread(target=ask, args=(7 * number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    try:
        yield seen
    finally:
        time.sleep(1)
        done.set()
        for thread in threads:
            thread.join()


def _swapped(served: Any, args: argparse.Namespace, store: Path, bodies: Sequence[dict[str, Any]], folder: Path) -> str:
    """Each bundle is a copy in which a file is a pipe, so it takes as long to load as nobody writes into that."""
    from pipelines.serve.deploy import exchange

    with asked(served.client, bodies, args.clients) as seen:
        for number in range(args.swaps):
            bundle = folder / f"swap-{number}"
            shutil.copytree(args.bundle, bundle)
            text = (bundle / "metrics.json").read_bytes()
            (bundle / "metrics.json").unlink()
            os.mkfifo(bundle / "metrics.json")
            done = threading.Event()
            writer = threading.Thread(
                target=_trickle, args=(bundle / "metrics.json", text, args.load_seconds, done), daemon=True
            )
            writer.start()
            exchange(served.name, bundle, store)
            done.set()
            writer.join()
            (bundle / "metrics.json").unlink()
            (bundle / "metrics.json").write_bytes(text)  # for a replica that starts anew
    return seen.line(f"{args.swaps} swaps of {args.load_seconds:g} s")


def _trickle(pipe: Path, text: bytes, seconds: float, done: threading.Event) -> None:
    """Gives the file to each reader that waits for it, `seconds` after the first came, until there are no more."""
    began = None
    while not done.is_set():
        try:
            handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails while nobody reads
        except OSError:
            time.sleep(0.02)
            continue
        began = began or time.monotonic()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        os.write(handle, text)
        os.close(handle)
        time.sleep(0.05)


def _killed(
    served: Any, what: str, args: argparse.Namespace, bodies: Sequence[dict[str, Any]], draw: random.Random
) -> tuple[Seen, str]:
    """What clients met, and the words of the command of what was killed."""
    from pipelines.serve.deploy import reports

    title = draw.choice(TITLES[what][1:] if (what, args.proxy) == ("proxy", "haproxy") else TITLES[what][:1])
    with asked(served.client, bodies, args.clients) as seen:
        before = processes(title)
        os.kill(draw.choice(sorted(before)), signal.SIGKILL)
        deadline = time.monotonic() + BACK_SECONDS
        while len(processes(title) - before) < 1 or len(reports(served.name)) < args.replicas:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        time.sleep(3)
    return seen, re.sub(r"[^A-Za-z]*(\w+).*", r"\1", title.removeprefix("ray::"))


def processes(title: str) -> set[int]:
    """That descend from this one and have these words in their command, by process id; as Linux tells it."""
    above, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                above[int(folder.name)] = int(
                    (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
                )
                titles[int(folder.name)] = (folder / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked

    def is_ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = above.get(process, 0)
        return process == os.getpid()

    return {process for process, found in titles.items() if title in found and is_ours(process)}
