"""Processes of an endpoint are killed while it is asked, behind each kind of proxy; behind Ray's own over TLS, with a token."""

import ssl
from dataclasses import replace

import httpx
import pytest

from pipelines.serve import ServeConfig
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

TOKEN = "a-token-of-the-tests-1234"


@pytest.fixture(scope="module", params=["default", "haproxy"])
def served(request, local_ray, tiny_schema, tmp_path_factory):
    from pipelines.serve.deploy import deploy

    folder = tmp_path_factory.mktemp("killed")
    prepared, bundle = prepared_and_bundle(folder, tiny_schema, feeds=40)
    write_bundle(folder / "second", tiny_schema, prepared.encoder, seed=1)
    config = ServeConfig(name="kept", proxy=request.param, port=free_port(), cpus_per_replica=0.5, replicas=2)
    if request.param == "default":
        tls_certificate, tls_key = certificate(folder)
        (folder / "token").write_text(TOKEN)
        config = replace(config, token_file=folder / "token", tls_certificate=tls_certificate, tls_key=tls_key)
    made = deploy(bundle, build_store(prepared, folder / "store"), config)
    scheme = "https" if request.param == "default" else "http"
    assert made.started_serve and made.url == f"{scheme}://127.0.0.1:{config.port}"
    wait_until(lambda: rank(made).status_code == 200)
    yield made, config, folder
    made.end()
    wait_until(lambda: not serving())


def running(title: str) -> set[int]:
    return {process for process, found in serving().items() if title in found}


def test_who_bears_no_token_is_not_let_in(served):
    made, config, _ = served
    if config.token_file is None:
        pytest.skip("no token is asked for")
    with httpx.Client(base_url=made.url, verify=ssl.create_default_context(cafile=config.tls_certificate)) as stranger:
        assert stranger.post("/rank", json=BODY).status_code == stranger.get("/model").status_code == 401
        assert stranger.get("/healthz").json()["status"] == "ok"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{made.url}/healthz")


def test_no_request_is_lost_with_a_replica_of_two(served):
    from pipelines.serve.deploy import reports

    made, config, _ = served
    both = lambda: len(reports(config.name)) == 2 and (config.proxy == "default" or in_rotation() == 2)
    for _ in range(2):
        wait_until(both, seconds=60)
        with asked_meanwhile(made, clients=4) as answers:
            kill_and_wait(made, {reports(config.name)[0]["pid"]})
            wait_until(both, seconds=60)
        assert set(answers) == {(200, "bundle")}


def test_nor_with_the_controller_nor_by_an_exchange(served):
    from pipelines.serve.deploy import exchange

    made, config, folder = served
    with asked_meanwhile(made) as answers:
        kill_and_wait(made, running("ServeController"))
        wait_until(lambda: running("ServeController"))
        exchange(config.name, folder / "second", folder / "store")
        wait_until(lambda: answers[-1] == (200, "second"))
    assert {status for status, _ in answers} == {200}


def test_without_a_replica_that_is_told_and_it_comes_back(served):
    made, config, _ = served
    answers: list[httpx.Response] = []

    def says(status: int) -> bool:
        try:
            answers.append(rank(made))
        except httpx.RemoteProtocolError:  # HAProxy hangs up on who was being answered when the last one died
            return False
        return answers[-1].status_code == status

    kill(replicas(config.name))
    wait_until(lambda: says(503))
    wait_until(lambda: says(200), seconds=60)
    told = [answer for answer in answers if answer.status_code != 200]
    # 502 of HAProxy for who was being answered when the last one died
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in told} <= {(503, "1"), (502, "1")}
    assert told[-1].status_code == 503 and told[-1].json() == {
        "detail": [{"type": "unavailable", "loc": [], "msg": "no replica answers; try again."}]
    }


def test_a_proxy_that_dies_comes_back(served):
    made, config, _ = served
    kill_and_wait(made, running("HAProxyManager" if config.proxy == "haproxy" else "ProxyActor"))
