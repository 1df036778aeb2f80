"""What stands before an endpoint in Ray's proxy, with an application in the place of Ray."""

import asyncio
import json

import pytest

from pipelines.ray_private import Ingress, ingress_at
from pipelines.serve import front
from pipelines.serve.front import DEPLOYMENT, GRACE, Front, Vacancy


class Proxy:
    """Stands for Ray's proxy: does for each call what it is told to."""

    def __init__(self, *ways: str) -> None:
        self.ways, self.bodies, self.headers, self.there = list(ways), [], [], True

    async def __call__(self, scope, receive, send):
        self.headers.append(dict(scope["headers"]))
        scope["headers"].append((b"x-request-id", b"1"))  # as Ray does
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        match self.ways.pop(0):
            case "dies":
                return  # as where a replica dies: no answer at all, and the server says 500
            case "raises":
                raise RuntimeError("actor died")
            case "hangs":
                self.there = False
                await asyncio.sleep(60)
            case "breaks":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                raise RuntimeError("actor died")
            case "plain 408" | "plain 503" as way:
                headers = [(b"content-type", b"text/plain; charset=utf-8")]
                await send({"type": "http.response.start", "status": int(way[-3:]), "headers": headers})
                await send({"type": "http.response.body", "body": b"Ray's words"})
            case way:
                await send({"type": "http.response.start", "status": 200, "headers": [(b"x-way", way.encode())]})
                await send({"type": "http.response.body", "body": body})


def asked(app: Front, body: bytes = b"body", *, path: str = "/live/rank", headers=(), pieces: int = 3):
    """Status, headers and body of an answer; status 500 where none came, as a server says then."""
    size = -(-len(body) // pieces)
    waiting = [body[start : start + size] for start in range(0, len(body), size)]
    got = {"status": 500, "headers": [], "body": b""}

    async def receive():
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message):
        if message["type"] == "http.response.start":
            got.update(status=message["status"], headers=dict(message["headers"]))
        else:
            got["body"] += message["body"]

    scope = {"type": "http", "path": path, "method": "POST", "headers": list(headers)}
    asyncio.run(app(scope, receive, send))
    return got["status"], got["headers"], got["body"]


def fronted(*ways: str) -> tuple[Front, Proxy]:
    """An endpoint below /live, and somebody else's application below /other, which has a deployment of another name."""
    proxy = Proxy(*ways)

    def asked_at(app: Proxy, path: str) -> Ingress | None:
        names = {"live": (DEPLOYMENT, "liverank"), "other": ("Ranking", "theirs")}.get(path.split("/")[1])
        return names and Ingress(*names, lambda: app.there)

    return Front(proxy, asked_at), proxy


@pytest.mark.parametrize("way", ["dies", "raises"])
def test_a_request_of_a_replica_that_died_is_asked_of_another_one(way):
    app, proxy = fronted(way, "answers")
    timeout = (b"x-request-timeout-seconds", b"900")
    assert asked(app, headers=[timeout, (b"a", b"b")]) == (200, {b"x-way": b"answers"}, b"body")
    assert proxy.bodies == [b"body"] * 2 and proxy.headers == [{b"a": b"b"}] * 2


def test_it_is_asked_twice_and_not_more():
    app, proxy = fronted("dies", "dies", "answers")
    status, headers, _ = asked(app)
    assert (status, headers[b"retry-after"]) == (503, b"1") and proxy.ways == ["answers"]


def test_a_client_that_is_gone_is_not_asked_for_again():
    app, proxy = fronted("dies", "answers")

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError("to whom?")

    asyncio.run(app({"type": "http", "path": "/live/rank", "method": "POST", "headers": []}, receive, send))
    assert proxy.ways == ["answers"]


def test_others_behind_the_same_proxy_are_asked_once():
    """One has a deployment of another name; nobody is at the last path."""
    app, proxy = fronted("dies", "answers", "plain 503", "dies")
    proxy.there = False
    told = [asked(app, path=path)[::2] for path in ("/other/rank", "/other/rank", "/other/rank", "/lively")]
    assert told == [(500, b""), (200, b"body"), (503, b"Ray's words"), (500, b"")] and proxy.ways == []


def test_a_body_that_is_too_large_to_keep_is_asked_once(monkeypatch):
    monkeypatch.setattr(front, "MOST_KEPT", 8)
    app, _ = fronted("dies", "answers", "answers")
    assert asked(app, b"0123456789")[0] == 503
    assert asked(app, b"0123456789")[2] == b"0123456789"
    assert asked(app, b"01234567")[2] == b"01234567"


def test_an_answer_that_has_begun_is_not_begun_again():
    app, proxy = fronted("breaks", "answers")
    with pytest.raises(RuntimeError, match="actor died"):
        asked(app)
    assert proxy.ways == ["answers"]


def test_where_no_replica_is_left_that_is_told(monkeypatch):
    """At once where it is known already, else after a moment: a replica that is told of a new bundle is away so long."""
    monkeypatch.setattr(front, "GRACE", 0.3)
    app, proxy = fronted("hangs")
    status, headers, body = asked(app)
    assert (status, headers[b"retry-after"]) == (503, b"1") and len(proxy.bodies) == 1
    assert body == b'{"detail":[{"type":"unavailable","loc":[],"msg":"no replica answers; try again."}]}'
    assert asked(app)[0] == 503 and len(proxy.bodies) == 1
    proxy.there = True
    proxy.ways.append("answers")
    assert asked(app)[0] == 200
    assert GRACE == 1.0


def test_a_moment_without_a_replica_long_after_another_one_is_one_too(monkeypatch):
    """Behind HAProxy nobody looks in between."""
    times = iter([0.0, 0.5, 90.0, 90.5, 91.2])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    vacancy = Vacancy(lambda: False)
    assert [vacancy.lasts() for _ in range(5)] == [False, False, False, False, True]


def test_the_proxys_own_table_of_routes_is_asked():
    class Router:
        def match_route(self, path):
            return ("/live", HANDLE, False) if path.startswith("/live") else None

    class Handle:
        deployment_name, app_name = DEPLOYMENT, "liverank"

    class Layer:
        """A middleware, that keeps what it stands before."""

        def __init__(self, app):
            self._app = app

    HANDLE, proxy = Handle(), Layer(None)
    proxy.proxy_router = Router()
    found = ingress_at(Layer(Layer(proxy)), "/live/rank")
    assert (found.deployment, found.application, found.has_replica()) == (DEPLOYMENT, "liverank", True)
    assert ingress_at(Layer(proxy), "/other") is None and ingress_at(Layer(None), "/live") is None


@pytest.mark.parametrize("status", [408, 503])
def test_rays_own_answers_are_in_our_words(status):
    app, _ = fronted(f"plain {status}")
    got, headers, body = asked(app)
    assert got == status and headers[b"content-type"] == b"application/json" and "Ray" not in body.decode()
    assert list(json.loads(body)) == ["detail"] and headers.get(b"retry-after") == (b"1" if status == 503 else None)
