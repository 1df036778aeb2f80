"""How many requests the endpoint answers, how fast, and what that costs: beside the same application under uvicorn alone.

    python -m jobs.bench serve --prepared runs/quickstart/prepared --bundle runs/quickstart/bundles/...

* parts: CPU of the parts of an answer, in this process.
* closed: one, eight and sixteen connections that are kept busy; rate, p50, p99, and CPU seconds of all of Ray's processes.
* overload: requests at one, three and ten times the rate that was reached with sixteen connections.
* slow: the rate of others while bodies trickle in at two bytes a second.

Contestants take turns, and a ratio is taken within a turn. On a machine that is busy before, nothing is compared.
`--beside URL` takes another endpoint that runs, of an older version perhaps, in the place of uvicorn.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pyarrow.parquet as pq
import torch

from jobs.benches import load
from jobs.benches.load import Taken, Target
from jobs.benches.measure import ratio, row, title
from models.config import ConfigError
from pipelines.cluster import RayConfig, connected
from pipelines.prepared import Prepared
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy import deploy
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.given import spelled
from pipelines.serve.request import Body, as_json, read_request
from pipelines.serve.store import Store, build_store

WARM_UP = 30
BODIES = 200  # different ones
BUSY = 10.0  # per cent of the CPUs from which on the machine is busy
BUSY_SECONDS = 3.0  # that are looked at
PARTS = ("parts", "closed", "overload", "slow")
TIMES = (1, 3, 10)


@dataclass(frozen=True)
class Contestant:
    """An endpoint that answers.

    Attributes:
        pids: of its processes, now; none of one that this process did not start.
    """

    name: str
    host: str
    port: int
    pids: Callable[[], list[int]]
    path: str = "/rank"

    def asked(self, bodies: Sequence[bytes]) -> Target:
        return Target.of(self.host, self.port, bodies, self.path)


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(prog="jobs.bench serve", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--prepared", type=Path, required=True, help="the prepared folder whose feeds are asked for")
    made.add_argument("--bundle", type=Path, required=True, help="the bundle that answers")
    made.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of it (default: all)")
    made.add_argument("--candidates", type=int, nargs="+", default=[20, 200, 1000], help="of a request (default: 20 200 1000)")
    made.add_argument("--connections", type=int, nargs="+", default=[1, 8, 16], help="of closed loops (default: 1 8 16)")
    made.add_argument("--proxy", choices=("default", "haproxy"), default="default", help="(default: %(default)s)")
    made.add_argument("--replicas", type=int, default=1, help="as uvicorn has one process (default: %(default)s)")
    made.add_argument("--beside", metavar="URL", help="an endpoint that runs, to be compared with in the place of uvicorn")
    made.add_argument("--batch", type=int, default=ServeConfig().batch, help="as `serve.batch` (default: %(default)s)")
    made.add_argument("--turns", type=int, default=4, help="of each contestant (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=4.0, help="of a turn (default: %(default)s)")
    made.add_argument("--overload-seconds", type=float, default=30.0, help="of each rate (default: %(default)s)")
    made.add_argument("--slow-bodies", type=int, nargs="+", default=[8, 100], help="at once (default: 8 100)")
    made.add_argument("--port", type=int, default=8100, help="first of two (default: %(default)s)")
    made.add_argument("--busy", action="store_true", help="measure on a busy machine, too")
    args = made.parse_args(argv)
    torch.set_num_threads(1)
    _check_quiet(args.busy)
    prepared = Prepared.open(args.prepared)
    bodies = {count: [as_json(body) for body in bodies_of(prepared, count)] for count in args.candidates}
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(prepared, Path(folder) / "store")
        if "parts" in args.only:
            _parts(args.bundle, store, bodies)
        if {"closed", "overload", "slow"} & set(args.only):
            _contest(args, store, bodies)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def _check_quiet(may_be_busy: bool) -> None:
    busy = _psutil().cpu_percent(BUSY_SECONDS)
    print(f"{os.cpu_count()} CPUs, {busy:.0f} % busy before anything was started")
    if busy > BUSY and not may_be_busy:
        raise ConfigError(
            f"the CPUs are busy ({busy:.0f} %, more than {BUSY:.0f} %), so nothing is compared. Wait, or say --busy."
        )


# -- parts of an answer ------------------------------------------------------------------------------------------------


def _parts(bundle: Path, store: Path, bodies: Mapping[int, Sequence[bytes]]) -> None:
    title("Parts of an answer, in this process: CPU ms a request (median)")
    opened = Store(store)
    endpoint = Endpoint.open(bundle, opened, ServeConfig())
    row("candidates", "read the body", "assemble", "encode", "model", "answer", "as JSON", "all of it", "in batches of 8")
    row(*["---"] * 9)
    for count, raw in bodies.items():
        taken: list[list[float]] = []
        for body in raw:
            at = [time.thread_time()]
            request = read_request(body)
            at.append(time.thread_time())
            heard = endpoint.hear(request, time.time_ns() // 1_000_000)
            assembled = endpoint.assemble([heard])
            at.append(time.thread_time())
            batch = endpoint.plan.batch(assembled.feeds)
            at.append(time.thread_time())
            with torch.inference_mode():
                endpoint.bundle.ranker.predict(batch)
            at.append(time.thread_time())
            (answer,) = endpoint.rank([request])
            at.append(time.thread_time())
            if isinstance(answer, Exception):
                raise answer
            as_json(answer.response)
            at.append(time.thread_time())
            steps = np.diff(at)
            ranking = steps[4] - steps[1] - steps[2] - steps[3]
            taken.append([*steps[:4], ranking, steps[5], steps[0] + steps[4] + steps[5]])
        together = []
        for first in range(0, len(raw) - 8, 8):
            began = time.thread_time()
            for answer in endpoint.rank([read_request(body) for body in raw[first : first + 8]]):
                assert not isinstance(answer, Exception)
                as_json(answer.response)
            together.append((time.thread_time() - began) / 8)
        middle = 1e3 * np.median(np.array(taken[WARM_UP:]), axis=0)
        row(str(count), *(f"{value:.2f}" for value in middle), f"{1e3 * median(together):.2f}")
    opened.close()


# -- over HTTP -----------------------------------------------------------------------------------------------------------


def _contest(args: argparse.Namespace, store: Path, bodies: Mapping[int, Sequence[bytes]]) -> None:
    beside = _alone(args, store) if args.beside is None else nullcontext(_running(args.beside))
    with beside as other, connected(RayConfig(dashboard=False)):
        config = ServeConfig(port=args.port, batch=args.batch, proxy=args.proxy, replicas=args.replicas)
        served = deploy(args.bundle, store, config)
        try:
            ray_pids = lambda: [pid for pid in _below(os.getpid()) if pid not in set(other.pids())]
            name = f"Ray Serve, proxy {args.proxy}, {args.replicas} replica{'s' if args.replicas > 1 else ''}"
            ours = Contestant(name, config.host, config.port, ray_pids)
            if "closed" in args.only:
                _closed(args, ours, other, bodies)
            if "overload" in args.only:
                _overload(args, ours, bodies)
            if "slow" in args.only:
                _slow(args, ours, bodies)
        finally:
            served.end()


def _running(url: str) -> Contestant:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"--beside takes a URL as http://127.0.0.1:8000, got {url}.")
    return Contestant(url, parts.hostname, parts.port or 80, list, f"{parts.path.rstrip('/')}/rank")


def _closed(args: argparse.Namespace, ours: Contestant, other: Contestant, bodies: Mapping[int, Sequence[bytes]]) -> None:
    title(f"{ours.name}, and {other.name}: closed loops")
    row(
        *("candidates", "connections", "contestant", "requests/s", "p50 ms", "p99 ms", "CPU ms a request"),
        *("requests/s beside the other", "CPU beside the other"),
    )
    row(*["---"] * 9)
    for count, raw in bodies.items():
        for connections in args.connections:
            taken: dict[str, list[Taken]] = {ours.name: [], other.name: []}
            cpu: dict[str, list[float]] = {ours.name: [], other.name: []}
            for turn in range(-1, args.turns):
                for each in (ours, other) if turn % 2 else (other, ours):
                    before = _cpu_seconds(each.pids())
                    found = asyncio.run(load.closed(each.asked(raw), connections, args.seconds))
                    _check_answers(each.name, found)
                    if turn >= 0:  # the first is for practice
                        taken[each.name].append(found)
                        cpu[each.name].append(1e3 * _since(before, each.pids()) / found.count(200))
            rates = {name: [found.rate for found in turns] for name, turns in taken.items()}
            for each in (ours, other):
                seconds = [second for found in taken[each.name] for second in found.seconds[200]]
                beside = each is ours
                row(
                    *(str(count), str(connections), each.name),
                    f"{median(rates[each.name]):.0f} ({min(rates[each.name]):.0f} - {max(rates[each.name]):.0f})",
                    *(f"{1e3 * np.percentile(seconds, percentile):.1f}" for percentile in (50, 99)),
                    f"{median(cpu[each.name]):.2f}" if each.pids() else "",
                    ratio(rates[ours.name], rates[other.name]) if beside else "",
                    ratio(cpu[ours.name], cpu[other.name]) if beside and other.pids() else "",
                )


def _overload(args: argparse.Namespace, ours: Contestant, bodies: Mapping[int, Sequence[bytes]]) -> None:
    title(f"{ours.name}: requests at a multiple of what sixteen connections reached, {args.overload_seconds:.0f} s each")
    row(
        "candidates",
        "asked/s",
        "times",
        "answered 200/s",
        "of capacity",
        "p50 ms",
        "p99 ms",
        "503/s",
        "503 p50 ms",
        "others",
        "lost",
        "MB",
        "client late ms",
    )
    row(*["---"] * 13)
    for count, raw in bodies.items():
        target = ours.asked(raw)
        capacity = max(asyncio.run(load.closed(target, 16, args.seconds)).rate for _ in range(2))
        for times in TIMES:
            found = asyncio.run(load.opened(target, times * capacity, args.overload_seconds))
            others = sum(found.count(status) for status in found.seconds if status not in (200, 503))
            row(
                *(str(count), f"{times * capacity:.0f}", str(times), f"{found.rate:.0f}", f"{found.rate / capacity:.0%}"),
                *(f"{found.ms(200, percentile):.0f}" for percentile in (50, 99)),
                *(f"{found.count(503) / found.wall:.0f}", f"{found.ms(503, 50):.0f}", str(others)),
                *(str(found.lost.total()), f"{_megabytes(ours.pids()):.0f}", f"{1e3 * found.lag:.0f}"),
            )
            time.sleep(1.0)


def _slow(args: argparse.Namespace, ours: Contestant, bodies: Mapping[int, Sequence[bytes]]) -> None:
    title(f"{ours.name}: the rate of eight connections while bodies trickle in")
    row("candidates", "slow bodies", "without/s", "with/s", "with beside without")
    row(*["---"] * 5)

    async def beside(target: Target, slow: int) -> Taken:
        until = asyncio.Event()
        trickling = asyncio.create_task(load.trickle(target, slow, until))
        await asyncio.sleep(1.0)
        try:
            return await load.closed(target, 8, args.seconds)
        finally:
            until.set()
            await trickling

    for count, raw in bodies.items():
        target = ours.asked(raw)
        for slow in args.slow_bodies:
            without, with_them = [], []
            for _ in range(args.turns):
                without.append(asyncio.run(load.closed(target, 8, args.seconds)).rate)
                with_them.append(asyncio.run(beside(target, slow)).rate)
            shown = [f"{median(rates):.0f} ({min(rates):.0f} - {max(rates):.0f})" for rates in (without, with_them)]
            row(str(count), str(slow), *shown, ratio(with_them, without))


def _check_answers(name: str, found: Taken) -> None:
    others = {status: len(seconds) for status, seconds in found.seconds.items() if status != 200}
    if others or found.lost:
        print(f"  {name} did not answer 200: {others or ''} {dict(found.lost) or ''}", flush=True)


@contextmanager
def _alone(args: argparse.Namespace, store: Path) -> Iterator[Contestant]:
    """The same application in a process of its own, without Ray."""
    port = args.port + 1
    command = [sys.executable, "-m", "jobs.benches.alone", "--bundle", str(args.bundle), "--store", str(store)]
    process = subprocess.Popen([*command, "--port", str(port), "--batch", str(args.batch)])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz").raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise ConfigError(f"uvicorn did not start at port {port}.") from None
                time.sleep(0.2)
        yield Contestant("uvicorn alone", "127.0.0.1", port, lambda: [process.pid])
    finally:
        process.terminate()
        process.wait()


# -- the process table ---------------------------------------------------------------------------------------------------


def _psutil() -> Any:
    import psutil
    import ray  # noqa: F401  puts psutil in reach

    return psutil


def _below(pid: int) -> list[int]:
    return [child.pid for child in _psutil().Process(pid).children(recursive=True)]


def _cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    psutil, found = _psutil(), {}
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
            found[pid] = times.user + times.system
        except psutil.Error:  # it ended
            continue
    return found


def _since(before: Mapping[int, float], pids: Sequence[int]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in _cpu_seconds(pids).items())


def _megabytes(pids: Sequence[int]) -> float:
    psutil, total = _psutil(), 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            total += process.memory_info().rss if "ServeReplica" in " ".join(process.cmdline()) else 0
        except psutil.Error:
            continue
    return total / 2**20


def bodies_of(prepared: Prepared, candidates: int) -> list[Body]:
    """Requests of users drawn from the snapshot for rooms drawn from it, just after the end of the log."""
    rng = np.random.default_rng(0)
    users = pq.read_table(prepared.snapshot("users"), columns=["user_id"], partitioning=None)["user_id"].to_numpy()
    rooms = pq.read_table(prepared.snapshot("rooms"), columns=["room_id"], partitioning=None)["room_id"].to_numpy()
    if len(rooms) < candidates:
        raise ConfigError(f"the snapshot holds {len(rooms)} rooms, too few for {candidates} candidates; say --candidates.")
    ids = prepared.encoder.ids
    return [
        {
            "user_id": spelled(int(user), ids.get("user_id")),
            "at": prepared.manifest.ending,
            "candidates": [
                {"room_id": spelled(int(room), ids.get("room_id"))} for room in rng.choice(rooms, candidates, replace=False)
            ],
        }
        for user in rng.choice(users, BODIES)
    ]
