"""Whatever is sent, the answer says what is wrong and where; nothing ends in an error of ours, and no path leaks."""

import asyncio
import json
import re
import warnings
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
def app(tiny_schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    schema = viewers_schema(tiny_schema)
    features = random_feeds(tiny_schema, 40, 0)
    features = features.append_column("state.viewers", features["room_entries.life"])
    prepared = Prepared.open(write_prepared(folder / "prepared", schema, features=features))
    rooms = prepared.snapshot("rooms")[0]
    pq.write_table(pq.read_table(rooms).append_column("state.viewers", pa.array([5, 900, None])), rooms)
    store = Store(build_store(noted_anew(prepared.path), folder / "store"))
    endpoint = Endpoint.open(write_bundle(folder / "bundle", schema, prepared.encoder), store, CONFIG)
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
