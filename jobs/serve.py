"""Serves the newest registered bundle with Ray Serve until it is interrupted; looks after an endpoint that runs.

Features come from the prepared tables through an embedded store, which is built first if it is not there. With
`ray.address` the endpoint joins a Ray that runs, beside what others serve there; else it has a Ray of its own.
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import yaml

from jobs import screen
from models.config import ConfigError
from pipelines.bundle import Bundle
from pipelines.cluster import connected, starts_ray
from pipelines.experiment import Experiment
from pipelines.prepared import Prepared
from pipelines.ray_private import authenticate
from pipelines.runs import claim
from pipelines.serve import here
from pipelines.serve.app import application
from pipelines.serve.deploy import Served, Standing, deploy, exchange, roll_back, standing, stop
from pipelines.serve.example import example_request
from pipelines.serve.guard import check_files
from pipelines.serve.parity import check_parity
from pipelines.serve.port import check_port
from pipelines.steps import bundle_of, endpoint_of, prepared_of, store_of


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    experiment = screen.experiment_of(args)
    if args.yaml:
        spelled = application(bundle_of(experiment, args.bundle).path, store_of(experiment), experiment.serve)
        print(yaml.safe_dump(spelled, sort_keys=False))
    elif args.status or args.rollback or args.swap is not None:
        with _joined(experiment):
            _look_after(experiment, args)
    elif args.stop:
        _stop(experiment)
    elif args.detach:
        _detach(experiment, args, sys.argv[1:] if argv is None else argv)
    else:
        _serve(experiment, args)


def _parser() -> argparse.ArgumentParser:
    parser = screen.parser(__doc__)
    parser.add_argument("--bundle", metavar="FOLDER", help="the bundle to serve (default: the newest registered one)")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--detach", action="store_true", help="return once it answers; it goes on")
    way.add_argument(
        "--swap",
        nargs="?",
        const="",
        metavar="BUNDLE",
        help="have the endpoint that runs serve this bundle (default: the newest registered one) and the newest store",
    )
    way.add_argument("--rollback", action="store_true", help="have it serve what answered before; twice comes back")
    way.add_argument("--status", action="store_true", help="say what it serves, what it loads, and what it refused")
    way.add_argument("--stop", action="store_true", help="end it once it has answered what it holds")
    way.add_argument("--yaml", action="store_true", help="print the application for `serve deploy` and start nothing")
    way.add_argument(
        "--check", type=int, metavar="FEEDS", help="compare this many test feeds with offline scoring, bit by bit, then end"
    )
    return parser


def _serve(experiment: Experiment, args: argparse.Namespace) -> None:
    bundle, prepared, store = bundle_of(experiment, args.bundle), prepared_of(experiment), store_of(experiment)
    if starts_ray(experiment.ray):
        check_port(experiment.serve)  # before Ray takes its seconds to start
        check_files(experiment.serve)
    folder, answers = endpoint_of(experiment), False
    try:
        with claim(folder), connected(experiment.ray):
            signal.signal(signal.SIGTERM, _interrupt)  # ends it as Ctrl-C does; not before, for Ray takes it when it starts
            served = deploy(bundle.path, store, experiment.serve)
            try:
                if args.check:
                    _check(args.check, served, prepared, bundle)
                    return
                with here.kept(folder, served.url):
                    _say(served, bundle.path, example_request(prepared))
                    answers = True
                    while True:
                        signal.pause()
            finally:
                served.end()
                print("Endpoint stopped.")
    except KeyboardInterrupt:  # which is how it is ended
        if not answers:
            raise


def _detach(experiment: Experiment, args: argparse.Namespace, words: Sequence[str]) -> None:
    if not starts_ray(experiment.ray):  # a Ray that runs by itself keeps it
        with connected(experiment.ray):
            url = deploy(bundle_of(experiment, args.bundle).path, store_of(experiment), experiment.serve).url
    else:
        prepared_of(experiment)  # what is wrong is told here, not in a log
        bundle_of(experiment, args.bundle)
        words = ["-m", "jobs.serve", *(word for word in words if word != "--detach")]
        note = here.keep(endpoint_of(experiment), words, experiment.serve.start_seconds)
        url = note.url
        print(f"Process {note.pid} keeps it; what it says is in {endpoint_of(experiment) / here.LOG}")
    print("--status, --swap, --rollback and --stop, with the same --config and --set, look after it.")
    print(f"Endpoint: {url}/rank")


@contextmanager
def _joined(experiment: Experiment) -> Iterator[None]:
    """On the Ray of the endpoint that runs."""
    ray = experiment.ray
    if starts_ray(ray):
        note = here.found(endpoint_of(experiment))
        if note is None:
            raise ConfigError(
                f"nothing is served on this machine under serve.name {experiment.serve.name} of {experiment.name}. "
                "`python -m jobs.serve` starts it; for an endpoint on a Ray that runs by itself set ray.address."
            )
        authenticate(note.authentication)
        ray = replace(ray, address=note.ray)
    with connected(ray):
        yield


def _look_after(experiment: Experiment, args: argparse.Namespace) -> None:
    name = experiment.serve.name
    if args.rollback:
        target = roll_back(name)
        print(f"All replicas answer with {target.bundle} again.")
    elif args.swap is not None:
        bundle = bundle_of(experiment, args.swap or args.bundle)
        exchange(name, bundle.path, store_of(experiment))
        print(f"All replicas answer with {bundle.path}.")
    else:
        for line in _told(name, standing(name)):
            print(line)


def _told(name: str, now: Standing) -> Iterator[str]:
    """An application in lines."""
    yield f"{name} at {now.url}, {now.by}"
    yield f"  it is {now.state}"
    for report in now.reports:
        serving = report["serving"]
        yield f"  {report['replica']} (process {report['pid']}) answers with {serving['bundle']}, store {serving['store']}"
        if report["age_seconds"] is not None:
            stale = ", which is stale" if report["stale"] else ""
            yield f"    trained {report['trained']}; the store's log ended {report['age_seconds'] / 3600:,.1f} hours ago{stale}"
        if report["loading"]:
            yield f"    it is loading {report['loading']['bundle']}"
        if report["refused"]:
            when = datetime.fromtimestamp(report["refused"]["at"], UTC).isoformat(timespec="seconds")
            yield f"    it refused {report['refused']['target']['bundle']} at {when}: {report['refused']['why']}"
    if now.before:
        yield f"  before that answered {now.before[0].bundle}; --rollback goes back to it"
    yield f"  metrics for Prometheus: {' '.join(now.metrics)}"


def _stop(experiment: Experiment) -> None:
    if starts_ray(experiment.ray):
        here.end(endpoint_of(experiment), experiment.serve.drain_seconds)
    else:
        with connected(experiment.ray):
            stop(experiment.serve.name)
    print("Endpoint stopped.")


def _say(served: Served, bundle: Path, request: dict) -> None:
    config, url = served.config, served.url
    quoted = lambda file: shlex.quote(str(file))
    first = "" if config.token_file is None else f"grep -m 1 '^[^#]' {quoted(config.token_file)} | tr -d '\\r'"
    token = first and f' -H "authorization: Bearer $({first})"'
    trust = "" if config.tls_certificate is None else f" --cacert {quoted(config.tls_certificate)}"
    print(f"Serving {bundle}, {config.replicas} replica{'s' if config.replicas != 1 else ''}")
    body = shlex.quote(json.dumps(request))
    print(f"  try it:  curl -s{trust} {url}/rank{token} -H 'content-type: application/json' -d {body}")
    print(f"  pages:   {url}/docs  {url}/model  {url}/healthz")
    print("Ctrl-C ends it.")
    print(f"Endpoint: {url}/rank")


def _check(feeds: int, served: Served, prepared: Prepared, bundle: Bundle) -> None:
    with served.client() as client:
        rank = lambda body: client.post("/rank", json=body).raise_for_status().json()
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
