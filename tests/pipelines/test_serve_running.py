"""The endpoint on a Ray Serve that runs, beside an application of somebody else: start, exchange, refusal, kill, end.

Behind Ray's own proxy, over TLS and with a token, and behind HAProxy. The tests share one Serve of each kind, and go on from
each other in their order.
"""

import json
import os
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from models.config import ConfigError, to_dict
from pipelines.bundle import load_bundle
from pipelines.serve import ServeConfig
from pipelines.serve.parity import check_parity
from pipelines.serve.store import build_store
from tests.pipelines.serve_samples import prepared_and_bundle, write_bundle
from tests.pipelines.serving import (
    BODY,
    asked_meanwhile,
    certificate,
    free_port,
    in_rotation,
    kill,
    kill_and_wait,
    rank,
    replicas,
    serving,
    wait_until,
)

pytestmark = [pytest.mark.ray, pytest.mark.cluster]

ROOT = Path(__file__).parents[2]
ONE = pytest.mark.parametrize("world", ["default"], indirect=True)
BOTH = pytest.mark.parametrize("world", ["default", "haproxy"], indirect=True)
PATIENT = {"max_wait_seconds": 15.0, "timeout_seconds": 20.0}  # the machine may be busy


def test_yaml_spells_the_same_application(tmp_path):
    from pipelines.serve.app import application, build

    config = ServeConfig(name="live", route_prefix="/live", port=8123, replicas=2, max_ongoing_requests=7, timeout_seconds=1.5)
    spelling = yaml.safe_load(yaml.safe_dump(application(tmp_path / "bundle", None, config)))
    (app,) = spelling["applications"]
    assert (app["name"], app["route_prefix"]) == ("live", "/live")
    assert app["args"] == to_dict(config) and app["deployments"][0]["user_config"]["bundle"] == str(tmp_path / "bundle")
    assert spelling["http_options"] == {"host": "127.0.0.1", "port": 8123, "request_timeout_s": 6.5}
    deployment = build(app["args"])._bound_deployment
    assert deployment.name == app["deployments"][0]["name"]
    assert (deployment.num_replicas, deployment.max_ongoing_requests, deployment.max_queued_requests) == (2, 7, 7)
    with pytest.raises(ConfigError, match=r"`args.replica` is not a known key"):
        build({"replica": 2})


@dataclass
class World:
    """A Serve with an endpoint of ours and somebody else's application on it, and what the endpoint may serve."""

    config: ServeConfig
    folder: Path
    prepared: Any
    first: Path
    second: Path
    store: Path

    @property
    def served(self):
        from pipelines.serve.deploy import Served, url_of

        return Served(url_of(self.config), self.config, False)

    def get(self, path: str) -> httpx.Response:
        with self.served.client() as client:
            return client.get(path)

    def post(self, body: Any = BODY) -> httpx.Response:
        with self.served.client() as client:
            return client.post("/rank", json=body)

    @property
    def model(self) -> str:
        return self.post().json()["model"]

    @property
    def refused(self) -> tuple[str, str, bool] | None:
        """Names of the bundle and the store that were refused, and whether it is told why without a path of this machine."""
        told = self.get("/healthz").json()["refused"]
        return told and (told["bundle"], told["store"], bool(told["why"]) and "/" not in told["why"])

    @property
    def applications(self) -> set[str]:
        """Those on Serve; that of somebody else answers."""
        from ray import serve

        with replace(self, config=replace(self.config, route_prefix="/neighbour")).served.client() as client:
            assert client.get("").text == "mine"
        return set(serve.status().applications)

    @property
    def is_whole(self) -> bool:
        """Whether all replicas are there, for the proxy too."""
        from pipelines.serve.deploy import reports

        there = len(reports(self.config.name)) == self.config.replicas
        return there and (self.config.proxy == "default" or in_rotation(self.config.name) == self.config.replicas)


@pytest.fixture(scope="module")
def world(request, local_ray, tiny_schema, tmp_path_factory) -> Iterator[World]:
    from ray import serve

    from pipelines.ray_private import end_serve
    from pipelines.serve.deploy import deploy

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    def neighbour(request):
        return "mine"

    folder = tmp_path_factory.mktemp("served")
    prepared, first = prepared_and_bundle(folder, tiny_schema, feeds=40)
    second = write_bundle(folder / "second", tiny_schema, prepared.encoder, seed=1)
    store = build_store(prepared, folder / "store")
    config = ServeConfig(route_prefix="/live", proxy=request.param, port=free_port(), cpus_per_replica=0.5)
    if request.param == "default":
        tls_certificate, tls_key = certificate(folder)
        (folder / "token").write_text("a-token-of-the-tests-1234")
        config = replace(config, token_file=folder / "token", tls_certificate=tls_certificate, tls_key=tls_key)
        config = replace(config, replicas=1, batch=1, max_queued_requests=2, max_wait_seconds=5.0)
    else:
        config = replace(config, replicas=2, **PATIENT)
    assert not serving()
    made = deploy(first, store, config)
    assert made.started_serve
    assert made.url == f"{'https' if request.param == 'default' else 'http'}://127.0.0.1:{config.port}/live"
    serve.run(neighbour.bind(), name="neighbour", route_prefix="/neighbour")
    yield World(config, folder, prepared, first, second, store)
    end_serve(60)
    wait_until(lambda: not serving())


@ONE
def test_who_bears_no_token_is_not_let_in(world):
    trusted = ssl.create_default_context(cafile=world.config.tls_certificate)
    with httpx.Client(base_url=world.served.url, verify=trusted) as stranger:
        assert stranger.post("/rank", json=BODY).status_code == stranger.get("/model").status_code == 401
        assert stranger.get("/healthz").json()["status"] == "ok"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{world.served.url}/healthz")


@ONE
def test_names_routes_and_addresses_of_others_are_told(world):
    from pipelines.serve.deploy import deploy, exchange, roll_back, stop

    other = replace(world.config, name="other", route_prefix="/other")
    said = r"Serve runs on this Ray already, at 127.0.0.1:\d+, and has one address .* serve.port 1234. Set"
    with pytest.raises(ConfigError, match=said):
        deploy(world.first, world.store, replace(other, port=1234))
    with pytest.raises(ConfigError, match=r"serve.route_prefix /neighbour is that of another application .* example /other"):
        deploy(world.first, world.store, replace(other, route_prefix="/neighbour"))
    with pytest.raises(ConfigError, match="`neighbour` on this Ray is none of LiveRank's"):
        deploy(world.first, world.store, replace(other, name="neighbour"))
    with pytest.raises(ConfigError, match="`neighbour` on this Ray is none of LiveRank's"):
        stop("neighbour")
    with pytest.raises(ConfigError, match=r"no application `other` runs on this Ray\. `python -m jobs.serve` starts"):
        exchange("other", world.first, world.store)
    said = rf"`liverank` is there already, deployed by process {os.getpid()} of .* \(`.*pytest.*\) at .*`--swap` exchanges"
    with pytest.raises(ConfigError, match=said):
        deploy(world.second, world.store, world.config)
    with pytest.raises(ConfigError, match=r"nothing but .*bundle has answered under the name liverank yet"):
        roll_back("liverank")
    assert world.applications == {"liverank", "neighbour"} and world.model == "bundle"


@ONE
def test_a_first_bundle_that_is_damaged_leaves_no_application(world):
    from pipelines.serve.deploy import deploy

    (world.folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"the endpoint could not start: .*empty is not a whole bundle: schema.json"):
        deploy(world.folder / "empty", world.store, replace(world.config, name="other", route_prefix="/other"))
    assert world.applications == {"liverank", "neighbour"}


@ONE
def test_answers_are_those_of_offline_scoring(world):
    from pipelines.serve.deploy import reports

    (report,) = reports("liverank")
    assert report["serving"]["bundle"] == str(world.first) and report["refused"] is None
    with world.served.client() as client:
        ask = lambda body: client.post("/rank", json=body).json()
        found = check_parity(world.prepared, load_bundle(world.first), ask, feeds=20)
    assert found.feeds > 5 and found.unequal == 0


@ONE
def test_an_exchange_loses_nothing_and_stays_in_its_process(world):
    from pipelines.serve.deploy import exchange, roll_back

    before = replicas(world.config.name)
    with asked_meanwhile(world.served) as answers:
        assert exchange("liverank", world.second, world.store) == world.served.url
        wait_until(lambda: answers[-1] == (200, "second"))
    assert {status for status, _ in answers} == {200} and answers[0][1] == "bundle"
    assert replicas(world.config.name) == before and len(before) == 1
    assert Path(roll_back("liverank").bundle) == world.first and world.model == "bundle"
    assert Path(roll_back("liverank").bundle) == world.second and world.model == "second"


@ONE
def test_files_written_anew_in_their_place_are_another_version(world, tiny_schema):
    from pipelines.serve.deploy import exchange

    seen = world.post().json()["ranked"]
    write_bundle(world.second, tiny_schema, world.prepared.encoder, seed=2)
    exchange("liverank", world.second, world.store)
    assert world.post().json()["ranked"] != seen


@ONE
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


@ONE
def test_what_is_damaged_is_refused_and_what_answered_comes_back_after_a_kill(world, tiny_schema):
    from pipelines.runs import this_process
    from pipelines.serve.deploy import _apply, exchange, target_of

    bundle = write_bundle(world.folder / "damaged", tiny_schema, world.prepared.encoder, seed=4)
    store = build_store(world.prepared, world.folder / "cut_short")
    for file in (bundle / "weights.safetensors", store / "data.mdb"):
        os.truncate(file, file.stat().st_size // 2)
    gone = world.folder / "gone"
    with asked_meanwhile(world.served) as answers:
        for wrong, said in {
            (bundle, world.store): r"damaged.* is damaged",
            (world.second, store): r"cut_short.* is not whole",
            (gone, world.store): r"there is no bundle at .*gone",
        }.items():
            with pytest.raises(ConfigError, match=rf"the endpoint keeps its old bundle: .*{said}"):
                exchange("liverank", *wrong)
            assert world.refused == (wrong[0].name, wrong[1].name, True)
    assert set(answers) == {(200, "slow")}
    kill_and_wait(world.served, replicas(world.config.name))  # which starts with what Serve has been told again
    assert world.model == "slow" and world.refused is None
    # as by a file: nobody waits, and Serve goes on asking for what was refused
    _apply(world.config, target_of(bundle, world.store), vars(this_process()), wait=False)
    wait_until(lambda: world.refused is not None)
    kill_and_wait(world.served, replicas(world.config.name))
    assert world.model == "slow" and world.refused == ("damaged", "store", True)


@ONE
def test_the_pipeline_ranks_beside_it(world, monkeypatch, capsys):
    from jobs import pipeline
    from pipelines.experiment import load_experiment

    experiment = replace(load_experiment("jobs/configs/quickstart.yaml"), serve=world.config)
    monkeypatch.setattr(pipeline, "prepared_of", lambda _: world.prepared)
    monkeypatch.setattr(pipeline, "bundle_of", lambda _: load_bundle(world.first))
    monkeypatch.setattr(pipeline, "store_of", lambda _: world.store)
    pipeline._rank_once(experiment)
    assert f"/liverank-{os.getpid()}/rank for user" in capsys.readouterr().out
    assert world.model == "slow" and world.applications == {"liverank", "neighbour"}


@ONE
def test_overload_is_told(world):
    """More than one in work and two that wait are answered 503 at once, and told to come back; the others are served."""
    many = {"candidates": [{"room_id": place} for place in range(1000)]}
    with world.served.client() as client, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: client.post("/rank", json=many), range(48)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503} and statuses[200] >= 1, statuses
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert all(answer.json()["detail"][0]["type"] == "overloaded" for answer in refused)
    assert world.post(many).status_code == 200


@ONE
def test_all_that_the_dashboard_shows_is_told(world):
    """Names and tags in the queries of Grafana's page, against what the metrics page of the node has."""
    import ray

    trickle(world)
    assert world.post().status_code == 200
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    wanted = {name for query in queries for name in re.findall(r"\bray_liverank_\w+", query)}
    tags = {tag for query in queries for each in re.findall(r"\bby \(([^)]*)\)", query) for tag in each.split(", ")} - {"le"}
    page = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    series: dict[str, str] = {}

    def are_told() -> bool:
        lines = httpx.get(page).text.splitlines()
        lines = [line for line in lines if 'application="liverank"' in line]  # there are those of others, too
        series.update({line.partition("{")[0]: line for line in lines if line.startswith("ray_liverank_")})
        return wanted <= series.keys()

    try:
        wait_until(are_told, seconds=60)
    finally:
        assert wanted - series.keys() == set()
    assert len(wanted) > 15
    assert {tag for tag in tags if not any(f'{tag}="' in line for line in series.values())} == set()
    assert not any(str(world.folder) in line for line in series.values())
    from pipelines.serve.meters import METERS

    assert {name for name in METERS if not any(f"ray_{name}" in query for query in queries)} == set()


def trickle(world: World) -> None:
    """A body that does not come is told after a while, as everything else is."""
    token = world.config.token_file.read_text()
    trusted = ssl.create_default_context(cafile=world.config.tls_certificate)
    with (
        socket.create_connection(("127.0.0.1", world.config.port)) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        head = f"POST /live/rank HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\n{{"
        sock.sendall(head.encode())
        answer = b"".join(iter(lambda: sock.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 408 ") and '"loc":["body"]' in answer


@ONE
def test_it_is_taken_away_and_another_one_comes_in_its_place(world):
    from pipelines.serve.app import remembered
    from pipelines.serve.deploy import deploy, stop

    stop("liverank")
    assert world.applications == {"neighbour"} and world.post().status_code == 404 and remembered("liverank") == []
    world.config = replace(world.config, replicas=2, batch=8, max_queued_requests=64, **PATIENT)
    assert not deploy(world.first, world.store, world.config).started_serve


@BOTH
def test_no_request_is_lost_with_a_replica_of_two(world):
    from pipelines.serve.deploy import reports

    wait_until(lambda: world.is_whole, seconds=60)
    with asked_meanwhile(world.served, clients=4) as answers:
        kill_and_wait(world.served, {reports("liverank")[0]["pid"]})
        wait_until(lambda: world.is_whole, seconds=60)
    assert set(answers) == {(200, "bundle")}


@BOTH
def test_nor_with_the_controller_nor_by_an_exchange(world):
    from pipelines.serve.deploy import exchange

    with asked_meanwhile(world.served) as answers:
        kill_and_wait(world.served, running("ServeController"))
        wait_until(lambda: running("ServeController"))
        exchange("liverank", world.second, world.store)
        wait_until(lambda: answers[-1] == (200, "second"))
    assert {status for status, _ in answers} == {200}


@BOTH
def test_without_a_replica_that_is_told_and_it_comes_back(world):
    answers: list[httpx.Response] = []

    def says(status: int) -> bool:
        try:
            answers.append(rank(world.served))
        except httpx.RemoteProtocolError:  # HAProxy hangs up on who was being answered when the last one died
            return False
        return answers[-1].status_code == status

    kill(replicas("liverank"))
    wait_until(lambda: says(503))
    wait_until(lambda: says(200), seconds=60)
    told = [answer for answer in answers if answer.status_code != 200]
    # 502 of HAProxy for who was being answered when the last one died
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in told} <= {(503, "1"), (502, "1")}
    assert told[-1].status_code == 503 and told[-1].json() == {
        "detail": [{"type": "unavailable", "loc": [], "msg": "no replica answers; try again."}]
    }


@BOTH
def test_a_proxy_that_dies_comes_back(world):
    before = running("ProxyActor", "HAProxyManager")
    kill_and_wait(world.served, before)
    wait_until(lambda: len(running("ProxyActor", "HAProxyManager") - before) == len(before), seconds=60)
    assert rank(world.served).status_code == 200


@BOTH
def test_it_is_taken_away_and_others_stay(world):
    from pipelines.serve.app import remembered
    from pipelines.serve.deploy import stop

    stop("liverank")
    assert world.applications == {"neighbour"} and world.post().status_code == 404 and remembered("liverank") == []


def running(*titles: str) -> set[int]:
    return {process for process, found in serving().items() if any(title in found for title in titles)}
