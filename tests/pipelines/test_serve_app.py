"""The endpoint as a real Ray Serve deployment over HTTP: start, exchange, overload, end."""

import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from models.config import ConfigError, to_dict
from pipelines.bundle import load_bundle
from pipelines.serve import ServeConfig
from pipelines.serve.parity import check_parity
from pipelines.serve.store import build_store
from tests.pipelines.serve_samples import NOW, prepared_and_bundle, write_bundle

pytestmark = [pytest.mark.ray, pytest.mark.cluster]


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
        if title.startswith(("ray::Serve", "ray::Proxy")) and is_ours(process)
    }


def replicas() -> set[int]:
    return {process for process, title in serving().items() if title.startswith("ray::ServeReplica")}


def test_yaml_spells_the_same_application(tmp_path):
    from pipelines.serve.app import application, build

    config = ServeConfig(port=8123, replicas=2, max_ongoing_requests=7, timeout_seconds=1.5)
    spelling = yaml.safe_load(yaml.safe_dump(application(tmp_path / "bundle", None, config)))
    (app,) = spelling["applications"]
    assert app["args"] == to_dict(config) and app["deployments"][0]["user_config"]["bundle"] == str(tmp_path / "bundle")
    assert spelling["http_options"] == {"host": "127.0.0.1", "port": 8123, "request_timeout_s": 6.5}
    deployment = build(app["args"])._bound_deployment
    assert (deployment.num_replicas, deployment.max_ongoing_requests, deployment.max_queued_requests) == (2, 7, 7)
    with pytest.raises(ConfigError, match=r"`args.replica` is not a known key"):
        build({"replica": 2})


def test_deploy_exchange_overload_and_end(local_ray, tiny_schema, tmp_path):
    from pipelines.serve.app import deploy, shutdown

    prepared, first = prepared_and_bundle(tmp_path, tiny_schema, feeds=40)
    second = write_bundle(tmp_path / "second", tiny_schema, prepared.encoder, seed=1)
    store = build_store(prepared, tmp_path / "store")
    config = ServeConfig(port=free_port(), cpus_per_replica=0.5)
    body = {"user_id": 1, "at": NOW, "candidates": [{"room_id": 11}, {"room_id": 12}]}
    assert not serving()
    try:
        with pytest.raises(ConfigError, match=r"the endpoint could not start: there is no bundle at .*nowhere"):
            deploy(tmp_path / "nowhere", store, config)
        url = deploy(first, store, config)
        assert httpx.post(f"{url}/rank", json=body).json()["model"] == "bundle"
        assert httpx.post(f"{url}/rank", json={}).status_code == 422
        found = check_parity(prepared, load_bundle(first), lambda body: httpx.post(f"{url}/rank", json=body).json(), feeds=20)
        assert found.feeds > 5 and found.unequal == 0

        exchange_under_load(url, body, replicas(), lambda: deploy(second, store, config))

        seen = httpx.post(f"{url}/rank", json=body).json()["ranked"]
        write_bundle(second, tiny_schema, prepared.encoder, seed=2)  # in the place of the old one
        deploy(second, store, config)
        assert httpx.post(f"{url}/rank", json=body).json()["ranked"] != seen

        with pytest.raises(ConfigError, match=r"the endpoint keeps its old bundle: there is no bundle at .*nowhere"):
            deploy(tmp_path / "nowhere", store, config)
        assert httpx.get(f"{url}/healthz").json()["model"] == "second"
        assert httpx.post(f"{url}/rank", json=body).status_code == 200

        narrow = ServeConfig(port=config.port, cpus_per_replica=0.5, max_queued_requests=2, batch=1)
        deploy(second, store, narrow)
        overload(url)
    finally:
        shutdown()
    wait_until(lambda: not serving())
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def exchange_under_load(url: str, body: dict, before: set[int], exchange) -> None:
    """Not a request is lost while bundles are exchanged, in the same process."""
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not done.is_set():
                answer = client.post(f"{url}/rank", json=body, timeout=30)
                answers.append((answer.status_code, answer.json().get("model", answer.text)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    exchange()
    asked = len(answers)
    wait_until(lambda: len(answers) > asked + 10)
    done.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert answers[0][1] == "bundle" and answers[-1][1] == "second"
    assert replicas() == before and len(before) == 1


def overload(url: str) -> None:
    """More than one in work and two that wait are answered 503 at once, and told to come back; the others are served."""
    many = {"candidates": [{"room_id": place} for place in range(1000)]}
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{url}/rank", json=many, timeout=60), range(48)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503} and statuses[200] >= 1, statuses
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert all(answer.json()["detail"][0]["type"] == "overloaded" for answer in refused)
    assert httpx.post(f"{url}/rank", json=many, timeout=60).status_code == 200


def wait_until(holds, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
