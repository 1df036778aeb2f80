"""Bodies that come slowly, never or too large; a full queue; formats, staleness, pages: over ASGI in this process."""

import asyncio
import gc
import json
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from pipelines.serve import ServeConfig
from pipelines.serve.endpoint import Answer, Endpoint, NotReady
from pipelines.serve.http import RankingApp, http_app
from pipelines.serve.request import RankRequest
from pipelines.serve.store import Store, build_store
from tests.pipelines.serve_samples import HOUR, NOW, prepared_and_bundle

GOOD = json.dumps({"user_id": 1, "at": NOW, "candidates": [{"room_id": 11}, {"room_id": 12}]}).encode()


@pytest.fixture(scope="module")
def endpoint(tiny_schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("http")
    prepared, bundle = prepared_and_bundle(folder, tiny_schema, feeds=40)
    store = Store(build_store(prepared, folder / "store"))
    yield Endpoint.open(bundle, store, ServeConfig())
    store.close()


class Client:
    """One connection: pieces of a body that come when the test says so."""

    def __init__(self, app: RankingApp, *, path: str = "/rank", method: str = "POST", headers: Sequence[tuple] = ()) -> None:
        self.pieces: asyncio.Queue[dict] = asyncio.Queue()
        self.asked = 0  # how often the application wanted more of the body
        self.sent: list[dict] = []
        scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def send(self, body: bytes, *, more: bool = False) -> "Client":
        self.pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def leave(self) -> None:
        self.pieces.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int, dict]:
        await asyncio.wait_for(self.task, 20)
        return self.sent[0]["status"], json.loads(self.sent[1]["body"] or b"null")

    def header(self, name: str) -> str | None:
        return dict(self.sent[0]["headers"]).get(name.encode(), b"").decode() or None

    async def _receive(self) -> dict:
        self.asked += 1
        return await self.pieces.get()

    async def _send(self, message: dict) -> None:
        self.sent.append(message)


class Slow:
    """An endpoint that answers when it is let."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.config = endpoint, endpoint.config
        self.may_go = threading.Event()
        self.batches: list[int] = []

    def rank(self, requests: Sequence[RankRequest]) -> list[Answer | Exception]:
        self.batches.append(len(requests))
        assert self.may_go.wait(10)
        return self.endpoint.rank(requests)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.005)


def test_bodies_on_their_way_keep_nobody_waiting_and_are_told_when_their_time_is_over(endpoint):
    app = http_app(lambda: endpoint, ServeConfig(timeout_seconds=0.5, max_queued_requests=1))

    async def test() -> None:
        slow = [Client(app).send(b"{", more=True) for _ in range(100)]
        await asyncio.sleep(0)
        for _ in range(5):
            assert (await Client(app).send(GOOD[:10], more=True).send(GOOD[10:]).answer())[0] == 200
        for client in slow:
            status, told = await client.answer()
            assert (status, told["detail"][0]["type"], client.header("connection")) == (408, "timeout", "close")

    run(test)


def test_who_comes_when_the_queue_is_full_is_turned_away_before_the_body_is_read(endpoint):
    slow = Slow(endpoint)
    app = http_app(lambda: slow, ServeConfig(max_queued_requests=2, batch=2))

    async def test() -> None:
        first = Client(app).send(GOOD)
        await eventually(lambda: slow.batches)
        late = Client(app).send(GOOD[:5], more=True)  # let in, but its body comes when others have taken the places
        await eventually(lambda: late.asked == 2)
        others = [Client(app).send(GOOD) for _ in range(2)]
        await eventually(lambda: app.admission.is_full)
        turned_away = Client(app).send(GOOD)
        assert (await turned_away.answer())[0] == 503 and turned_away.asked == 0
        assert turned_away.header("retry-after") == "1" and turned_away.header("connection") is None
        late.send(GOOD[5:])
        status, told = await late.answer()
        assert status == 503 and told["detail"][0]["type"] == "overloaded"
        slow.may_go.set()
        answers = [await client.answer() for client in (first, *others)]
        assert [status for status, _ in answers] == [200] * 3 and slow.batches == [1, 2]
        assert (await Client(app).send(GOOD).answer())[0] == 200

    run(test)


def test_a_request_has_its_answer_in_time_whatever_the_endpoint_does(endpoint):
    slow = Slow(endpoint)
    app = http_app(lambda: slow, ServeConfig(max_wait_seconds=0.2, timeout_seconds=0.6, batch=1))

    async def test() -> None:
        first = Client(app, headers=[(b"x-request-timeout-seconds", b"1000")]).send(GOOD)
        await eventually(lambda: slow.batches)
        second = Client(app).send(GOOD)
        told = [(await client.answer())[0] for client in (first, second)]
        assert told == [504, 503]
        slow.may_go.set()
        assert (await Client(app).send(GOOD).answer())[0] == 200
        assert slow.batches == [1, 1]  # nothing was computed for the second

    run(test)


def test_bodies_are_bounded_each_and_together(endpoint):
    app = http_app(lambda: endpoint, ServeConfig(max_body_bytes=1000))

    async def test() -> None:
        declared = Client(app, headers=[(b"content-length", b"1001")])
        assert (await declared.answer())[0] == 413 and declared.asked == 0
        assert (await Client(app, headers=[(b"content-length", b"9" * 30)]).send(GOOD).answer())[0] == 200
        growing = Client(app).send(b" " * 600, more=True).send(b" " * 600, more=True)
        status, told = await growing.answer()
        assert status == 413 and "1,000 bytes" in told["detail"][0]["msg"] and growing.header("connection") == "close"
        many = [Client(app).send(b" " * 1000, more=True) for _ in range(32)]
        await eventually(lambda: all(client.asked == 2 for client in many))
        one_more = Client(app).send(b" ", more=True)
        assert (await one_more.answer())[0] == 503
        for client in many:
            client.leave()
        await eventually(lambda: all(client.task.done() for client in many))
        assert not any(client.sent for client in many)  # there was nobody to answer
        assert (await Client(app).send(GOOD).answer())[0] == 200

    run(test)


def test_what_happens_inside_is_an_error_in_the_same_shape(endpoint, caplog):
    class Broken:
        config = endpoint.config

        def rank(self, requests):
            raise OSError(5, "Input/output error", "/stores/data.mdb")

    def not_ready():
        raise NotReady("no bundle")

    async def test() -> None:
        for current, status, kind in ((Broken, 500, "internal"), (not_ready, 503, "starting")):
            client = Client(http_app(current)).send(GOOD)
            found, told = await client.answer()
            assert (found, told["detail"][0]["type"]) == (status, kind) and "data.mdb" not in str(told)
        health = Client(http_app(not_ready), path="/healthz", method="GET")
        assert (await health.answer())[0] == 503

    run(test)
    assert "data.mdb" in caplog.text  # the log tells more


def test_everybody_is_counted(endpoint):
    seen = []
    app = http_app(lambda: endpoint, ServeConfig(), watch=lambda *what: seen.append(what))

    async def test() -> None:
        assert (await Client(app).send(GOOD).answer())[0] == 200
        assert (await Client(app).send(b"{}").answer())[0] == 422

    run(test)
    (ok, seconds, answer), (bad, _, nothing) = seen
    assert (ok, bad, nothing) == (200, 422, None) and 0 < seconds < 20
    assert (
        answer.unknown_rooms == 0
        and answer.score_N.shape == (2,)
        and set(answer.predictions)
        == {
            "click",
            "goods_bag",
            "order",
            "stay",
        }
    )


def test_columns_hold_what_rows_hold(endpoint):
    body = {"user_id": 1, "at": NOW, "candidates": [{"room_id": room} for room in (99, 11, 12, "x")], "k": 3}
    rows, columns = endpoint.ask(body), endpoint.ask({**body, "format": "columns"})
    assert "columns" not in rows and "ranked" not in columns
    found = columns["columns"]
    assert [len(values) for values in (found["room_id"], found["score"], found["room_known"])] == [3, 3, 3]
    for place, room in enumerate(rows["ranked"]):
        assert room == {
            "room_id": found["room_id"][place],
            "score": found["score"][place],
            "room_known": found["room_known"][place],
            "predictions": {name: values[place] for name, values in found["predictions"].items()},
        }


def test_an_old_store_is_told_of_and_may_be_refused(endpoint):
    ask = lambda endpoint, hours: endpoint.ask({"at": NOW + round(hours * HOUR), "candidates": [{"room_id": 11}]})
    answer = ask(endpoint, 1.5)
    assert (answer["as_of"], answer["age_seconds"], answer["stale"]) == (NOW, 5400.0, False)
    assert ask(endpoint, -3)["age_seconds"] == 0
    flags = replace(endpoint, config=ServeConfig(max_age_hours=2))
    assert [ask(flags, hours)["stale"] for hours in (2, 2.001)] == [False, True]
    bare = replace(endpoint, store=None, config=ServeConfig(max_age_hours=2))
    assert (ask(bare, 9)["as_of"], ask(bare, 9)["age_seconds"], ask(bare, 9)["stale"]) == (None, None, False)
    refuses = replace(endpoint, config=ServeConfig(max_age_hours=2, stale="refuse"))
    app = http_app(lambda: refuses)

    async def test() -> None:
        assert (await Client(app).send(GOOD).answer())[0] == 200
        status, told = await Client(app).send(json.dumps({"candidates": [{"room_id": 11}]}).encode()).answer()
        assert status == 503 and told["detail"][0]["type"] == "stale" and "more than 2" in told["detail"][0]["msg"]
        status, health = await Client(app, path="/healthz", method="GET").answer()
        assert status == 200 and health["stale"] and health["as_of"] == NOW

    run(test)


def test_a_user_is_known_only_if_something_was_read(endpoint):
    def known(**body) -> bool:
        return endpoint.ask({"at": NOW, "candidates": [{"room_id": 11}], **body})["user_known"]

    assert known(user_id=1) and known(user_id=2) and not known(user_id=5) and not known()
    assert known(user={"user_entries": 3}) and known(histories={"channels": [{"at": NOW - 1, "room_id": 5}]})
    assert not known(user={"user_entries": None}) and not known(user={"user_orders": 3})  # nothing, and what is not read
    assert not known(histories={"channels": []}) and not known(histories={"friends": [{"at": 1}]})
    assert not known(context={"device": "phone"})


def test_the_pages_need_nothing_from_elsewhere_and_their_example_works(endpoint):
    app = http_app(lambda: endpoint)

    async def test() -> None:
        status, spec = await Client(app, path="/openapi.json", method="GET").answer()
        asked = spec["paths"]["/rank"]["post"]["requestBody"]["content"]["application/json"]["example"]
        status, answer = await Client(app).send(json.dumps(asked).encode()).answer()
        assert status == 200 and answer["user_known"] and answer["ranked"][0]["room_known"] and not answer["stale"]
        fields = spec["components"]["schemas"]["RankRequest"]["properties"]
        assert set(fields) == {"user_id", "at", "user", "context", "histories", "candidates", "k", "fusion_weights", "format"}
        assert set(spec["components"]["schemas"]["RankResponse"]["properties"]) == {*answer, "columns"}
        client = Client(app, path="/docs", method="GET")
        await client.task
        page = client.sent[1]["body"].decode()
        assert (
            "http" not in page.replace("http-equiv", "")
            and "RankRequest" in page
            and '"user_id": 1' in page.replace("&quot;", '"')
        )

    run(test)


def test_a_page_is_made_once_for_an_endpoint_and_keeps_none_alive(endpoint, monkeypatch):
    """It takes a ranking, and the loop on which everybody else waits."""
    asked = []
    monkeypatch.setattr(Endpoint, "ask", lambda self, body, ask=Endpoint.ask: asked.append(body) or ask(self, body))
    current = [replace(endpoint)]
    app = http_app(lambda: current[0])

    async def get(path: str) -> bytes:
        client = Client(app, path=path, method="GET")
        await client.task
        assert client.sent[0]["status"] == 200
        return client.sent[1]["body"]

    async def test() -> None:
        pages = [[await get(path) for path in ("/openapi.json", "/docs", "/model")] for _ in range(3)]
        assert pages[0] == pages[1] == pages[2] and len(asked) == 2
        gone = weakref.ref(current[0])
        current[0] = replace(endpoint)
        gc.collect()
        assert gone() is None
        assert json.loads(await get("/openapi.json"))["info"] == json.loads(pages[0][0])["info"] and len(asked) == 3

    run(test)


def test_it_answers_as_http_has_it(endpoint):
    status = {"status": "draining", "bundle": None}
    app = http_app(lambda: endpoint, status=lambda: status)

    async def test() -> None:
        options = Client(app, method="OPTIONS")
        assert await options.answer() == (204, None)
        assert options.header("content-length") is None and options.header("content-type") is None
        assert (await Client(app, headers=[(b"content-encoding", b"")]).send(GOOD).answer())[0] == 200
        assert (await Client(app, headers=[(b"content-encoding", b" Identity ")]).send(GOOD).answer())[0] == 200
        coding = Client(app, headers=[(b"content-encoding", b"x" * 60_000)]).send(GOOD)
        found, told = await coding.answer()
        assert found == 415 and len(told["detail"][0]["msg"]) < 200
        health = Client(app, path="/healthz", method="GET")
        found, told = await health.answer()
        assert found == 503 and told["status"] == "draining" and told["detail"][0]["type"] == "draining"
        assert health.header("retry-after") == "1"

    run(test)


@pytest.mark.parametrize("when", ["before its body", "within its body", "while it waits", "at work"])
def test_who_goes_takes_nothing_along(endpoint, when):
    """Wherever a client is cancelled, as a server does that finds it gone: no place, no bytes, no turn are lost."""
    slow = Slow(endpoint)
    app = http_app(lambda: slow, ServeConfig(max_queued_requests=2, batch=1, max_wait_seconds=20, timeout_seconds=30))

    async def test() -> None:
        busy = Client(app).send(GOOD)
        await eventually(lambda: slow.batches)
        for _ in range(5):
            client = Client(app)
            if when != "before its body":
                client.send(GOOD[:9], more=True)
            if when in ("while it waits", "at work"):
                client.send(GOOD[9:])
                await eventually(lambda: app.admission.waiting == 1)
            else:
                await eventually(lambda client=client: client.asked)
            if when == "at work":
                slow.may_go.set()
                await eventually(lambda: app.admission.waiting == 0)
            client.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await client.task
            assert app.admission.waiting == 0 and app._held in (0, len(GOOD))
            if when == "at work":
                break
        slow.may_go.set()
        assert (await busy.answer())[0] == 200
        assert (await Client(app).send(GOOD).answer())[0] == 200
        assert app._held == 0 and app.admission.waiting == 0

    run(test)
