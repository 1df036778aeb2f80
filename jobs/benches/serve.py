"""How long an answer of the endpoint takes, part by part, for known users and stored rooms.

    python -m jobs.bench serve --prepared runs/quickstart/prepared --bundle runs/quickstart/bundles/...

`HTTP` is measured by one client over Ray Serve's default proxy; all other parts inside this process.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from pipelines.cluster import RayConfig, connected
from pipelines.prepared import Prepared
from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.given import spelled
from pipelines.serve.request import as_json, read_request
from pipelines.serve.store import Store, build_store

WARM_UP = 30


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(prog="jobs.bench serve", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--prepared", type=Path, required=True, help="the prepared folder whose feeds are asked for")
    made.add_argument("--bundle", type=Path, required=True, help="the bundle that answers")
    made.add_argument("--requests", type=int, default=300, help="measured per row, after a warm-up (default: %(default)s)")
    made.add_argument("--candidates", type=int, nargs="+", default=[50, 200], help="of a request (default: 50 200)")
    made.add_argument("--port", type=int, default=8000, help="of the endpoint (default: %(default)s)")
    made.add_argument("--no-http", action="store_true", help="leave Ray out")
    args = made.parse_args(argv)
    torch.set_num_threads(1)
    prepared = Prepared.open(args.prepared)
    bodies = {count: _bodies(prepared, count, args.requests) for count in args.candidates}
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {args.requests} requests a row; milliseconds")
    print(f"{'candidates':>10}  {'part':<22}{'p50':>9}{'p99':>9}")
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(prepared, Path(folder) / "store")
        opened = Store(store)
        endpoint = Endpoint.open(args.bundle, opened, ServeConfig())
        for count, requests in bodies.items():
            for part, taken in _parts(endpoint, requests).items():
                _line(count, part, taken)
        opened.close()
        if not args.no_http:
            with connected(RayConfig(dashboard=False)):
                _over_http(args.bundle, store, ServeConfig(port=args.port), bodies)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def _parts(endpoint: Endpoint, bodies: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {"check the body": [], "assemble": [], "encode": [], "model": [], "whole answer": []}
    for body in bodies:
        raw = as_json(body)
        began = time.perf_counter()
        request = read_request(raw)
        taken["check the body"].append(1e3 * (time.perf_counter() - began))
        (answer,) = endpoint.rank([request])
        if isinstance(answer, Exception):
            raise answer
        for part in ("assemble", "encode", "model"):
            taken[part].append(getattr(answer.response.timing, f"{part}_ms"))
        as_json(answer.response)
        taken["whole answer"].append(1e3 * (time.perf_counter() - began))
    return taken


def _over_http(bundle: Path, store: Path, config: ServeConfig, bodies: dict[int, list[dict[str, Any]]]) -> None:
    import httpx

    from pipelines.serve.app import deploy, shutdown

    try:
        url = deploy(bundle, store, config)
        with httpx.Client(timeout=30) as client:
            for count, requests in bodies.items():
                _line(count, "HTTP, one client", _timed(requests, lambda body: client.post(f"{url}/rank", json=body)))
            _line(0, "HTTP, /healthz", _timed([{}] * len(requests), lambda _: client.get(f"{url}/healthz")))
    finally:
        shutdown()


def _timed(bodies: Sequence[dict[str, Any]], ask: Callable[[dict[str, Any]], Any]) -> list[float]:
    taken = []
    for body in bodies:
        began = time.perf_counter()
        ask(body).raise_for_status()
        taken.append(1e3 * (time.perf_counter() - began))
    return taken


def _bodies(prepared: Prepared, candidates: int, requests: int) -> list[dict[str, Any]]:
    """Requests of users drawn from the snapshot for rooms drawn from it, just after the end of the log."""
    rng = np.random.default_rng(0)
    users = pq.read_table(prepared.snapshot("users"), columns=["user_id", "user_last_at"], partitioning=None)
    rooms = pq.read_table(prepared.snapshot("rooms"), columns=["room_id"], partitioning=None)["room_id"].to_numpy()
    if len(rooms) < candidates:
        raise SystemExit(f"error: the snapshot holds {len(rooms)} rooms, too few for {candidates} candidates.")
    ids = prepared.encoder.ids
    room_of = lambda room: {"room_id": spelled(int(room), ids.get("room_id"))}
    at = int(np.nanmax(users["user_last_at"].to_numpy())) + 1000
    return [
        {
            "user_id": spelled(int(user), ids.get("user_id")),
            "at": at,
            "candidates": list(map(room_of, rng.choice(rooms, candidates, replace=False))),
        }
        for user in rng.choice(users["user_id"].to_numpy(), WARM_UP + requests)
    ]


def _line(candidates: int, part: str, taken: list[float]) -> None:
    p50, p99 = np.percentile(taken[WARM_UP:], [50, 99])
    print(f"{candidates or '-':>10}  {part:<22}{p50:>9.2f}{p99:>9.2f}")


if __name__ == "__main__":
    main()
