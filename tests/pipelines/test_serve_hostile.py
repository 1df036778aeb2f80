"""Whatever is sent, the answer says what is wrong and where; nothing ends in an error of ours, and no path leaks."""

import asyncio
import http.client
import json
import re
import select
import socket
import time
import warnings
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.schema import Field, Number, Schema
from pipelines.prepared import Prepared
from pipelines.serve import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.http import RankingApp, http_app
from pipelines.serve.store import Store, build_store
from tests.pipelines.fabricate import noted_anew
from tests.pipelines.hostile import Hostile, hostile_requests
from tests.pipelines.serve_samples import write_bundle, write_prepared
from tests.pipelines.test_encode import random_feeds

HOSTILE = list(hostile_requests())
CONFIG = ServeConfig(max_candidates=50, max_body_bytes=20_000)


def viewers_schema(tiny_schema: Schema) -> Schema:
    """`tiny_schema`, and viewers as numbers of both kinds."""
    more = [Field(name="viewers", of="candidate", column="state.viewers", encoding=Number())]
    more += [Field(name="log_viewers", of="candidate", column="state.viewers", encoding=Number(transform="log1p"))]
    return Schema(fields=(*tiny_schema.fields, *more), histories=tiny_schema.histories, targets=tiny_schema.targets)


def check(hostile: Hostile, status: int, headers: dict[str, str], body: bytes) -> None:
    text = body.decode()
    assert status == hostile.status, (hostile.name, status, text[:300])
    assert not re.search(r"/(tmp|work|home|root|usr|var)/|Traceback|\.py\b", text), (hostile.name, text[:300])
    if hostile.method == "HEAD" or status == 204:
        assert not body
        assert status == 200 or headers["allow"], hostile.name
        return
    if headers["content-type"] != "application/json":
        assert hostile.path.startswith("/docs")
        return
    answer = json.loads(text, parse_constant=lambda name: pytest.fail(f"{hostile.name}: {name} in the answer"))
    if status == 200:
        assert "detail" not in answer, hostile.name
        return
    assert 1 <= len(answer["detail"]) <= 20, hostile.name
    places = [".".join(map(str, item["loc"])) for item in answer["detail"]]
    assert hostile.where and any(place.startswith(hostile.where) for place in places), (hostile.name, text[:300])
    assert all(item["type"] and 5 < len(item["msg"]) < 2000 for item in answer["detail"]), hostile.name


async def ask(app: RankingApp, hostile: Hostile) -> tuple[int, dict[str, str], bytes]:
    headers = [(name.lower().encode(), value.encode()) for name, value in hostile.headers.items()]
    headers.append((b"content-length", str(len(hostile.body)).encode()))
    scope = {"type": "http", "method": hostile.method, "path": unquote(hostile.path), "headers": headers}
    pieces = [hostile.body[: len(hostile.body) // 2], hostile.body[len(hostile.body) // 2 :]]
    sent = []

    async def receive() -> dict:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, b"".join(m["body"] for m in rest)


@pytest.fixture(scope="module")
def made(tiny_schema, tmp_path_factory):
    """A bundle and a store."""
    folder = tmp_path_factory.mktemp("hostile")
    schema = viewers_schema(tiny_schema)
    features = random_feeds(tiny_schema, 40, 0)
    features = features.append_column("state.viewers", features["room_entries.life"])
    prepared = Prepared.open(write_prepared(folder / "prepared", schema, features=features))
    rooms = prepared.snapshot("rooms")[0]
    pq.write_table(pq.read_table(rooms).append_column("state.viewers", pa.array([5, 900, None])), rooms)
    store = build_store(noted_anew(prepared.path), folder / "store")
    return write_bundle(folder / "bundle", schema, prepared.encoder), store


@pytest.fixture(scope="module")
def app(made):
    store = Store(made[1])
    endpoint = Endpoint.open(made[0], store, CONFIG)
    yield http_app(lambda: endpoint, CONFIG)
    store.close()


def test_there_are_as_many_as_are_promised():
    assert len(HOSTILE) >= 150 and len({hostile.name for hostile in HOSTILE}) == len(HOSTILE)


def test_hostile_requests_are_told_what_is_wrong(app):
    async def run() -> None:
        for hostile in HOSTILE:
            check(hostile, *await asyncio.wait_for(ask(app, hostile), 20))

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # no arithmetic goes wrong in silence
        asyncio.run(run())


@pytest.mark.ray
@pytest.mark.cluster
def test_a_running_serve_answers_the_same_and_slow_bodies_keep_nobody_waiting(local_ray, made):
    from pipelines.serve.deploy import deploy

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = replace(CONFIG, port=port, cpus_per_replica=0.5, timeout_seconds=20.0)
    slow: list[socket.socket] = []

    def over_http(hostile: Hostile) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request(hostile.method, hostile.path, hostile.body or None, hostile.headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    served = deploy(*made, config)
    try:
        for _ in range(100):  # a body of which two bytes have come, and no more
            slow.append(socket.create_connection(("127.0.0.1", port)))
            slow[-1].sendall(b"POST /rank HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n {")
        began = time.monotonic()
        for hostile in HOSTILE:
            check(hostile, *over_http(hostile))
        if time.monotonic() - began < 15:  # on a machine that is not too busy, all are still on their way
            assert not select.select(slow, [], [], 0)[0]
    finally:
        for each in slow:
            each.close()
        served.end()
