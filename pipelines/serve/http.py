"""The HTTP face of an endpoint: an ASGI application that any server can run; nothing here knows Ray.

A request for a ranking is turned away before its body is read where too many wait. While its body is on its way it costs
a socket and what has come of it, both bounded; then it waits for its turn (`pipelines.serve.admission`).

Every answer other than 200 is a `Refusal`: a line for each thing that is wrong.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pipelines.serve.admission import Admission, Full, Late
from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Answer, Endpoint, NotReady, Stale
from pipelines.serve.openapi import openapi, page
from pipelines.serve.request import NotJson, Problem, RankRequest, Refusal, RequestError, as_json, read_request

RETRY_AFTER = {"retry-after": "1"}  # seconds
CLOSE = {"connection": "close"}  # what is left of the body is not waited for
BATCH_CANDIDATES = 1000  # of all requests that are scored at once
LARGE_BODIES = 32  # bodies of the largest size that are held at once, or as many bytes in smaller ones

logger = logging.getLogger(__name__)


class Watch(Protocol):
    """Is told what became of every request for a ranking."""

    def __call__(self, status: int, seconds: float, answer: Answer | None) -> None:
        """
        Args:
            seconds: from the arrival of the request to its answer.
            answer: of a request that was ranked.
        """


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Refused(Exception):
    def __init__(self, status: int, *problems: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.reply = Reply(status, as_json(Refusal(problems)), headers or {})


class _Gone(Exception):
    """The client closed the connection; there is nobody to answer."""


_PAGES: Mapping[str, Callable[[Endpoint], Reply]] = {
    "/model": lambda endpoint: Reply(200, as_json(endpoint.describe())),
    "/openapi.json": lambda endpoint: Reply(200, as_json(openapi(endpoint))),
    "/docs": lambda endpoint: Reply(200, page(openapi(endpoint)).encode(), {"content-type": "text/html; charset=utf-8"}),
}


class RankingApp(Starlette):
    """The application. Of Starlette it is the start and end, and the routes by which a server names its metrics.

    Attributes:
        admission: in front of the endpoint.
    """

    def __init__(
        self, current: Callable[[], Endpoint], config: ServeConfig, status: Callable[[], Mapping[str, Any]], watch: Watch
    ) -> None:
        self._current, self._config, self._status, self._watch = current, config, status, watch
        self._pages: dict[str, Reply] = {}
        self._pages_of: weakref.ref[Endpoint] | None = None
        self._allowed = {"/rank": ("POST", "OPTIONS"), **dict.fromkeys(("/healthz", *_PAGES), ("GET", "HEAD", "OPTIONS"))}
        super().__init__(routes=[Route(path, lambda request: None, methods=[of[0]]) for path, of in self._allowed.items()])
        self.admission: Admission[RankRequest, Answer] = Admission(
            lambda requests: current().rank(requests),
            waiting=config.max_queued_requests,
            batch=config.batch,
            weight=BATCH_CANDIDATES,
        )
        self._held = 0  # bytes of all bodies, those on their way included

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
        try:
            if path == "/rank" and scope["method"] == "POST":
                reply = await self._answer(scope, receive)
            else:
                reply = await self._other(path, scope["method"])
        except _Gone:
            return
        headers = dict(reply.headers)
        if reply.status != 204:  # which has no body, and may not speak of one
            headers = {"content-type": "application/json", **headers, "content-length": str(len(reply.body))}
        start = {"type": "http.response.start", "status": reply.status}
        await send({**start, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _other(self, path: str, method: str) -> Reply:
        allowed = self._allowed.get(path)
        if allowed is None:
            return _reply(404, "not_found", f"there is nothing here but {', '.join(self._allowed)}.", "path")
        allow = {"allow": ", ".join(allowed)}
        if method == "OPTIONS":
            return Reply(204, b"", allow)
        if method not in allowed:
            return _reply(405, "not_allowed", f"{path} takes {', '.join(allowed)}.", "method", headers=allow)
        try:
            return self._health() if path == "/healthz" else self._page(path)
        except Exception as error:
            return self._refusal(error)

    def _page(self, path: str) -> Reply:
        """What is said of an endpoint is made once, at the first question: it takes a ranking, and the time of who waits."""
        endpoint = self._current()
        if self._pages_of is None or self._pages_of() is not endpoint:
            self._pages, self._pages_of = {}, weakref.ref(endpoint)  # held by nobody here, so that it can go
        if path not in self._pages:
            self._pages[path] = _PAGES[path](endpoint)
        return self._pages[path]

    def _health(self) -> Reply:
        endpoint = self._current()
        told = {"status": "ok", "model": endpoint.bundle.name, **endpoint.freshness(), "waiting": self.admission.waiting}
        told |= self._status()
        if told["status"] == "ok":
            return Reply(200, as_json(told))
        ends = Problem(told["status"], (), "it is going to end; ask another one.")
        return Reply(503, as_json({**told, "detail": [ends]}), RETRY_AFTER)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        arrived = time.monotonic()
        answer = None
        try:
            answer = await self._ranked(scope, receive, arrived + self._config.timeout_seconds)
            reply = Reply(200, as_json(answer.response))
        except _Gone:
            raise
        except Exception as error:
            reply = self._refusal(error)
        self._watch(reply.status, time.monotonic() - arrived, answer)
        return reply

    async def _ranked(self, scope: Scope, receive: Receive, deadline: float) -> Answer:
        if self.admission.is_full:
            raise Full
        headers = dict(scope["headers"])
        coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        if coding not in ("", "identity"):
            wrong = Problem("encoding", ("header", "content-encoding"), f"is `{coding[:50]}`; send the body as it is.")
            raise _Refused(415, wrong, headers={**CLOSE, "accept-encoding": "identity"})
        held, largest = 0, self._config.max_body_bytes
        if _declared(headers) > largest:
            raise _too_large(largest)
        try:
            pieces = []
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    async for piece in _pieces(receive):
                        held += len(piece)
                        self._held += len(piece)
                        if held > largest:
                            raise _too_large(largest)
                        if self._held > LARGE_BODIES * largest:
                            raise Full
                        pieces.append(piece)
            except TimeoutError:
                message = f"did not arrive within {self._config.timeout_seconds:g} s."
                raise _Refused(408, Problem("timeout", ("body",), message), headers=CLOSE) from None
            request = read_request(b"".join(pieces), most_candidates=self._config.max_candidates)
            begin_by = time.monotonic() + self._config.max_wait_seconds
            return await self.admission.result(request, weight=len(request.candidates), begin_by=begin_by, end_by=deadline)
        finally:
            self._held -= held

    def _refusal(self, error: Exception) -> Reply:
        match error:
            case _Refused():
                return error.reply
            case NotJson():
                return Reply(400, as_json(Refusal(error.problems)))
            case RequestError():
                return Reply(422, as_json(Refusal(error.problems)))
            case Full():
                return _reply(503, "overloaded", "as many requests wait as may; try again.", headers=RETRY_AFTER)
            case Late(begun=False):
                return _reply(503, "overloaded", "its turn did not come in time; try again.", headers=RETRY_AFTER)
            case Late():
                return _reply(504, "timeout", f"it was not scored within {self._config.timeout_seconds:g} s.")
            case NotReady():
                return _reply(503, "starting", "no model is loaded yet; try again.", headers=RETRY_AFTER)
            case Stale():
                return _reply(503, "stale", str(error))
            case FloatingPointError():
                logger.error("%s", error)
                return _reply(500, "model", str(error))
            case _:
                logger.error("A request failed.", exc_info=error)
                return _reply(500, "internal", "it failed inside of the endpoint, whose log says how.")


def http_app(
    current: Callable[[], Endpoint],
    config: ServeConfig = ServeConfig(),  # noqa: B008  frozen
    status: Callable[[], Mapping[str, Any]] = dict,
    watch: Watch = lambda status, seconds, answer: None,
) -> RankingApp:
    """The application.

    Args:
        current: gives the endpoint that answers now, so it may be exchanged between batches; raises `NotReady` before the
            first.
        config: bounds of queue, bodies and time.
        status: what `GET /healthz` says beside the endpoint's own; with a `status` that is not `ok` it answers 503.
        watch: is told what became of every request for a ranking.
    """
    return RankingApp(current, config, status, watch)


def _reply(status: int, kind: str, message: str, *where: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, as_json(Refusal((Problem(kind, where, message),))), headers or {})


def _too_large(largest: int) -> _Refused:
    return _Refused(413, Problem("too_large", ("body",), f"has more than {largest:,} bytes."), headers=CLOSE)


def _declared(headers: Mapping[bytes, bytes]) -> int:
    """Length of the body as the client declares it; 0 where it does not say."""
    declared = headers.get(b"content-length", b"")
    return int(declared) if declared.isdigit() and len(declared) < 20 else 0


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
