"""The endpoint as a real Ray Serve application over HTTP, beside one of somebody else: start, exchange, refusal, kill, end.

The tests of this file share one Serve, and go on from each other in their order.
"""

import json
import os
import re
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import yaml

from models.config import ConfigError, to_dict
from pipelines.bundle import load_bundle
from pipelines.serve import ServeConfig
from pipelines.serve.parity import check_parity
from pipelines.serve.store import build_store
from tests.pipelines.serve_samples import prepared_and_bundle, write_bundle
from tests.pipelines.serving import BODY, asked_meanwhile, free_port, kill_and_wait, replicas, serving, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster]

ROOT = Path(__file__).parents[2]


def test_yaml_spells_the_same_application(tmp_path):
    from pipelines.serve.app import application, build

    config = ServeConfig(name="live", route_prefix="/live", port=8123, replicas=2, max_ongoing_requests=7, timeout_seconds=1.5)
    spelling = yaml.safe_load(yaml.safe_dump(application(tmp_path / "bundle", None, config)))
    (app,) = spelling["applications"]
    assert (app["name"], app["route_prefix"]) == ("live", "/live")
    assert app["args"] == to_dict(config) and app["deployments"][0]["user_config"]["bundle"] == str(tmp_path / "bundle")
    assert spelling["http_options"] == {"host": "127.0.0.1", "port": 8123, "request_timeout_s": 6.5}
    deployment = build(app["args"])._bound_deployment
    assert (deployment.num_replicas, deployment.max_ongoing_requests, deployment.max_queued_requests) == (2, 7, 7)
    with pytest.raises(ConfigError, match=r"`args.replica` is not a known key"):
        build({"replica": 2})


@dataclass
class World:
    """A Serve with somebody else's application on it, and what of ours may be put beside it."""

    config: ServeConfig
    folder: Path
    prepared: object
    first: Path
    second: Path
    store: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config.port}{self.config.route_prefix}"

    @property
    def served(self):
        from pipelines.serve.deploy import Served

        return Served(self.url, self.config, False)

    def ask(self) -> httpx.Response:
        return httpx.post(f"{self.url}/rank", json=BODY, timeout=30)

    @property
    def model(self) -> str:
        return self.ask().json()["model"]

    @property
    def refused(self) -> tuple[str, bool] | None:
        """Name of the bundle that was refused, and whether it is told why without a path of this machine."""
        told = httpx.get(f"{self.url}/healthz").json()["refused"]
        return told and (told["bundle"], "damaged" in told["why"] and str(self.folder) not in told["why"])

    @property
    def neighbour(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.config.port}/neighbour").text


@pytest.fixture(scope="module")
def world(local_ray, tiny_schema, tmp_path_factory):
    from ray import serve

    from pipelines.ray_private import end_serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    def neighbour(request):
        return "mine"

    folder = tmp_path_factory.mktemp("served")
    prepared, first = prepared_and_bundle(folder, tiny_schema, feeds=40)
    second = write_bundle(folder / "second", tiny_schema, prepared.encoder, seed=1)
    store = build_store(prepared, folder / "store")
    config = ServeConfig(port=free_port(), route_prefix="/live", cpus_per_replica=0.5, replicas=1)
    assert not serving()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": config.port})
    serve.run(neighbour.bind(), name="neighbour", route_prefix="/neighbour")
    yield World(config, folder, prepared, first, second, store)
    end_serve(60)
    wait_until(lambda: not serving())


def test_a_first_bundle_that_is_none_leaves_no_application(world):
    from ray import serve

    from pipelines.serve.deploy import deploy

    with pytest.raises(ConfigError, match=r"the endpoint could not start: there is no bundle at .*nowhere"):
        deploy(world.folder / "nowhere", world.store, world.config)
    assert list(serve.status().applications) == ["neighbour"] and world.neighbour == "mine"


def test_names_routes_and_addresses_of_others_are_told(world):
    from pipelines.serve.deploy import deploy, exchange, stop

    said = r"Serve runs on this Ray already, at 127.0.0.1:\d+, and has one address .* serve.port 1234. Set"
    with pytest.raises(ConfigError, match=said):
        deploy(world.first, world.store, replace(world.config, port=1234))
    with pytest.raises(ConfigError, match=r"serve.route_prefix /neighbour is that of another application .* example /liverank"):
        deploy(world.first, world.store, replace(world.config, route_prefix="/neighbour"))
    with pytest.raises(ConfigError, match="`neighbour` on this Ray is none of LiveRank's"):
        deploy(world.first, world.store, replace(world.config, name="neighbour"))
    with pytest.raises(ConfigError, match="`neighbour` on this Ray is none of LiveRank's"):
        stop("neighbour")
    with pytest.raises(ConfigError, match=r"no application `liverank` runs on this Ray\. `python -m jobs.serve` starts"):
        exchange("liverank", world.first, world.store)
    assert world.neighbour == "mine"


def test_an_endpoint_answers_beside_others_and_is_its_deployers(world):
    from pipelines.serve.deploy import deploy, reports, roll_back

    served = deploy(world.first, world.store, world.config)
    assert served.url == world.url and not served.started_serve and world.neighbour == "mine"
    assert world.model == "bundle"
    (report,) = reports("liverank")
    assert report["serving"]["bundle"] == str(world.first) and report["refused"] is None
    ask = lambda body: httpx.post(f"{world.url}/rank", json=body).json()
    found = check_parity(world.prepared, load_bundle(world.first), ask, feeds=20)
    assert found.feeds > 5 and found.unequal == 0
    said = rf"`liverank` is there already, deployed by process {os.getpid()} of .* \(`.*pytest.*\) at .*`--swap` exchanges"
    with pytest.raises(ConfigError, match=said):
        deploy(world.second, world.store, world.config)
    with pytest.raises(ConfigError, match=r"nothing but .*bundle has answered under the name liverank yet"):
        roll_back("liverank")


def test_an_exchange_loses_nothing_and_stays_in_its_process(world):
    from pipelines.serve.deploy import exchange, roll_back

    before = replicas(world.config.name)
    with asked_meanwhile(world.served) as answers:
        assert exchange("liverank", world.second, world.store) == world.url
        wait_until(lambda: answers[-1] == (200, "second"))
    assert {status for status, _ in answers} == {200} and answers[0][1] == "bundle"
    assert replicas(world.config.name) == before and len(before) == 1
    assert Path(roll_back("liverank").bundle) == world.first and world.model == "bundle"
    assert Path(roll_back("liverank").bundle) == world.second and world.model == "second"


def test_files_written_anew_in_their_place_are_another_version(world, tiny_schema):
    from pipelines.serve.deploy import exchange

    seen = world.ask().json()["ranked"]
    write_bundle(world.second, tiny_schema, world.prepared.encoder, seed=2)
    exchange("liverank", world.second, world.store)
    assert world.ask().json()["ranked"] != seen


def test_the_old_one_answers_for_as_long_as_the_new_one_loads(world, tiny_schema):
    """A pipe stands for a slow disk: the load waits until somebody writes."""
    from pipelines.serve.deploy import exchange, reports

    slow = write_bundle(world.folder / "slow", tiny_schema, world.prepared.encoder, seed=3)
    metrics = slow / "metrics.json"
    text = metrics.read_text()
    metrics.unlink()
    os.mkfifo(metrics)
    with asked_meanwhile(world.served) as answers:
        deployed = threading.Thread(target=exchange, args=("liverank", slow, world.store))
        deployed.start()
        wait_until(lambda: any(report["loading"] for report in reports("liverank")))
        asked = len(answers)
        wait_until(lambda: len(answers) > asked + 50)
        assert answers[-1] == (200, "second")
        metrics.write_text(text)
        deployed.join(60)
        wait_until(lambda: answers[-1] == (200, "slow"))
    assert {status for status, _ in answers} == {200}
    metrics.unlink()
    metrics.write_text(text)  # for who loads it again


@pytest.mark.parametrize("what", ["bundle", "store"])
def test_a_damaged_one_is_refused_and_what_answered_comes_back_after_a_kill(world, tiny_schema, what):
    from pipelines.runs import this_process
    from pipelines.serve.deploy import _apply, exchange, target_of

    bundle = write_bundle(world.folder / "damaged", tiny_schema, world.prepared.encoder, seed=4)
    store = build_store(world.prepared, world.folder / "damaged_store")
    file = bundle / "weights.safetensors" if what == "bundle" else store / "data.mdb"
    os.truncate(file, file.stat().st_size // 2)
    said = r"the endpoint keeps its old bundle: .*damaged.* (is damaged|is not whole)"
    with asked_meanwhile(world.served) as answers, pytest.raises(ConfigError, match=said):
        exchange("liverank", bundle, store)
    assert set(answers) == {(200, "slow")}
    assert world.refused == ("damaged", True)
    kill_and_wait(world.served, replicas(world.config.name))  # which starts with what Serve has been told again
    assert world.model == "slow" and world.refused is None
    # as by a file: nobody waits, and Serve goes on asking for what was refused
    _apply(world.config, target_of(bundle, store), vars(this_process()), wait=False)
    wait_until(lambda: world.refused is not None)
    kill_and_wait(world.served, replicas(world.config.name))
    assert world.model == "slow" and world.refused == ("damaged", True)


def test_the_pipeline_ranks_beside_it(world, monkeypatch, capsys):
    from jobs import pipeline
    from pipelines.experiment import load_experiment

    experiment = replace(load_experiment("jobs/configs/quickstart.yaml"), serve=world.config)
    monkeypatch.setattr(pipeline, "prepared_of", lambda _: world.prepared)
    monkeypatch.setattr(pipeline, "bundle_of", lambda _: load_bundle(world.first))
    monkeypatch.setattr(pipeline, "store_of", lambda _: world.store)
    pipeline._rank_once(experiment)
    assert f"/liverank-{os.getpid()}/rank for user" in capsys.readouterr().out
    assert world.model == "slow" and world.neighbour == "mine"


def test_overload_is_told(world):
    from pipelines.serve.deploy import deploy, stop

    stop("liverank")
    deploy(world.second, world.store, replace(world.config, max_queued_requests=2, batch=1, timeout_seconds=3.0))
    overload(world.url)


def test_all_that_the_dashboard_shows_is_told(world):
    """Names and tags in the queries of Grafana's page, against what the metrics page of the node has."""
    import ray

    trickle(world)
    assert world.ask().status_code == 200
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    wanted = {name for query in queries for name in re.findall(r"\bray_liverank_\w+", query)}
    tags = {tag for query in queries for each in re.findall(r"\bby \(([^)]*)\)", query) for tag in each.split(", ")} - {"le"}
    page = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    series: dict[str, str] = {}

    def are_told() -> bool:
        lines = httpx.get(page).text.splitlines()
        series.update({line.partition("{")[0]: line for line in lines if line.startswith("ray_liverank_")})
        return wanted <= series.keys()

    try:
        wait_until(are_told, seconds=60)
    finally:
        assert wanted - series.keys() == set()
    assert len(wanted) > 15 and all('application="liverank"' in line for line in series.values())
    assert {tag for tag in tags if not any(f'{tag}="' in line for line in series.values())} == set()
    from pipelines.serve.meters import METERS

    assert {name for name in METERS if not any(f"ray_{name}" in query for query in queries)} == set()


def trickle(world: World) -> None:
    """A body that does not come is told after a while, as everything else is."""
    with socket.create_connection(("127.0.0.1", world.config.port)) as sock:
        sock.sendall(
            b"POST /live/rank HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        answer = b"".join(iter(lambda: sock.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 408 ") and '"loc":["body"]' in answer


def test_it_is_taken_away_and_others_stay(world):
    from ray import serve

    from pipelines.serve.app import remembered
    from pipelines.serve.deploy import stop

    stop("liverank")
    assert list(serve.status().applications) == ["neighbour"] and world.neighbour == "mine"
    assert world.ask().status_code == 404 and remembered("liverank") == []


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
