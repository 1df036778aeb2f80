"""Serves the newest registered bundle with Ray Serve until it is interrupted.

Features come from the prepared tables through an embedded store, which is built first if it is not there. With
`ray.address` the endpoint joins a Ray that runs, beside what others serve there.
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import httpx
import yaml

from jobs import screen
from pipelines.bundle import Bundle
from pipelines.cluster import connected, starts_ray
from pipelines.prepared import Prepared
from pipelines.serve.app import application
from pipelines.serve.deploy import deploy
from pipelines.serve.example import example_request
from pipelines.serve.parity import check_parity
from pipelines.serve.port import check_port
from pipelines.steps import bundle_of, prepared_of, store_of


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument("--bundle", metavar="FOLDER", help="the bundle to serve (default: the newest registered one)")
    parser.add_argument("--yaml", action="store_true", help="print the application for `serve deploy` and start nothing")
    parser.add_argument(
        "--check", type=int, metavar="FEEDS", help="compare this many test feeds with offline scoring, bit by bit, then end"
    )
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    bundle, prepared, store = bundle_of(experiment, args.bundle), prepared_of(experiment), store_of(experiment)
    if args.yaml:
        print(yaml.safe_dump(application(bundle.path, store, experiment.serve), sort_keys=False))
        return
    if starts_ray(experiment.ray):
        check_port(experiment.serve)  # before Ray takes its seconds to start
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped job ends the endpoint as Ctrl-C does
    with connected(experiment.ray):
        served = deploy(bundle.path, store, experiment.serve)
        try:
            if args.check:
                _check(args.check, served.url, experiment.serve.timeout_seconds, prepared, bundle)
                return
            _say(served.url, bundle.path, example_request(prepared))
            while True:
                signal.pause()
        finally:
            served.end()
            print("Endpoint stopped.")


def _say(url: str, bundle: Path, request: dict) -> None:
    print(f"Serving {bundle}")
    print(f"  try it:  curl -s {url}/rank -H 'content-type: application/json' -d '{json.dumps(request)}'")
    print(f"  pages:   {url}/docs  {url}/model  {url}/healthz")
    print("Ctrl-C ends it.")
    print(f"Endpoint: {url}/rank")


def _check(feeds: int, url: str, timeout: float, prepared: Prepared, bundle: Bundle) -> None:
    with httpx.Client(timeout=timeout) as client:

        def rank(body: dict) -> dict:
            answer = client.post(f"{url}/rank", json=body)
            answer.raise_for_status()
            return answer.json()

        parity = check_parity(prepared, bundle, rank, feeds=feeds)
    print(
        f"{parity.feeds} test feeds, {parity.values} predictions and scores ({parity.skipped} feeds show a room twice: skipped)"
    )
    print(f"  {parity.unequal} differ in any bit from offline scoring of the same feed alone")
    print(f"  against one large batch the largest relative difference is {parity.largest_difference:.1e}")
    if parity.unequal:
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    screen.run(main)
