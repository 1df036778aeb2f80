"""In front of an endpoint, in Ray's own proxy: a request of a replica that died is asked of another one, and whoever cannot be
answered is told at once, in the endpoint's own words.

Ray's proxy answers 500 where a replica dies over a request, waits in silence where none is left, and its own answers are
plain text. A ranking can be asked twice, so here it is, once. Applications of others behind the same proxy are not touched:
a path is ours once an answer from it has said so (`MARK`). HAProxy does the same by its settings (`pipelines.ray_private`).

Ray's proxy takes it by an environment variable (`pipelines.ray_private`), and must be able to import it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

MARK = b"x-liverank"  # header of every answer of an endpoint: its application and the route it is at
MOST_KEPT = 2_000_000  # bytes of a body that can be asked twice
GRACE = 1.0  # seconds without a replica before that is told; one that is told of a new bundle is away for .2
LOOK = 0.2  # seconds between two looks whether there is one
_PLAIN = b"text/plain"  # of Ray's own answers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def middlewares() -> list[Any]:
    """What Ray puts in front of its proxy; nothing in a replica, which asks too where it answers HTTP itself."""
    import ray
    from starlette.middleware import Middleware

    name = ray.get_runtime_context().get_actor_name() or ""
    return [] if name.startswith("SERVE_REPLICA") else [Middleware(Front)]


def is_found() -> None:
    """Does nothing where this file can be found, which is what is asked."""


class Marked:
    """An endpoint whose answers say that they are its own.

    Attributes:
        routes: of the application, by which Serve names its metrics.
    """

    def __init__(self, app: Any, application: str) -> None:
        self._app, self._application = app, application
        self.routes = app.routes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        mark = (MARK, f"{self._application} {scope.get('root_path') or '/'}".encode())

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), mark]}
            await send(message)

        await self._app(scope, receive, marked)


@dataclass
class Vacancy:
    """Since when an application has no replica that takes requests.

    Args:
        is_there: whether it has one now.
    """

    is_there: Callable[[], bool]
    since: float | None = None

    def lasts(self) -> bool:
        """Whether it has had none for longer than a moment."""
        if self.is_there():
            self.since = None
            return False
        now = time.monotonic()
        if self.since is None:
            self.since = now
        return now - self.since > GRACE


@dataclass
class _Kept:
    """A request's messages, which can be received once more.

    Attributes:
        is_gone: whether the client has closed the connection.
    """

    receive: Receive
    is_gone: bool = False
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    given: int = 0

    @property
    def can_be_asked_again(self) -> bool:
        return self.size <= MOST_KEPT

    def again(self) -> None:
        self.given = 0

    async def __call__(self) -> Message:
        if self.given < len(self.messages):
            self.given += 1
            return dict(self.messages[self.given - 1])
        message = await self.receive()
        self.is_gone = self.is_gone or message["type"] == "http.disconnect"
        self.size += len(message.get("body", b""))
        if self.can_be_asked_again:
            self.messages.append(dict(message))
            self.given += 1
        return message


class Front:
    """ASGI middleware.

    Args:
        vacancy_of: by name of an application.
    """

    def __init__(self, app: Any, vacancy_of: Callable[[str], Vacancy] | None = None) -> None:
        self._app = app
        self._vacancy_of = vacancy_of or _vacancy_of
        self._applications: dict[str, Vacancy] = {}  # by route

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        vacancy = self._application_of(scope)
        if vacancy is None:
            await self._app(scope, receive, self._noticing(send))
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"x-request-timeout-seconds"]
        kept = _Kept(receive)
        for _ in range(2):
            if vacancy.lasts() or not kept.can_be_asked_again:
                break
            kept.again()
            copy = {**scope, "headers": list(headers)}  # Ray writes into both
            if await self._answered(copy, kept, send, vacancy) or kept.is_gone:
                return
        await _say(send, 503, "unavailable", "no replica answers; try again.")

    async def _answered(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, vacancy: Vacancy) -> bool:
        """Whether an answer has gone back; False where the replica died before it had one, or there is none."""
        begun = own = False

        async def watched(message: Message) -> None:
            nonlocal begun, own
            if message["type"] == "http.response.start":
                begun = True
                if own := _is_plain(message) and message["status"] in _OF_RAY:
                    await _say(send, message["status"], *_OF_RAY[message["status"]])
                    return
            if not own:
                await send(message)

        asked = asyncio.ensure_future(self._app(scope, receive, watched))
        try:
            while not asked.done():
                await asyncio.wait({asked}, timeout=LOOK)
                if not begun and not asked.done() and vacancy.lasts():
                    asked.cancel()
                    await asyncio.wait({asked})
        finally:
            asked.cancel()
        if not asked.cancelled() and (error := asked.exception()) is not None and begun:
            raise error
        return begun

    def _application_of(self, scope: MutableMapping[str, Any]) -> Vacancy | None:
        if scope["type"] != "http":
            return None
        path = scope["path"]
        for route, vacancy in self._applications.items():
            if route == "/" or path == route or path.startswith(f"{route}/"):
                return vacancy
        return None

    def _noticing(self, send: Send) -> Send:
        async def noticing(message: Message) -> None:
            if message["type"] == "http.response.start":
                mark = next((value for name, value in message.get("headers", []) if name == MARK), None)
                if mark is not None:
                    application, _, route = mark.decode("latin-1").partition(" ")
                    self._applications[route] = self._vacancy_of(application)
            await send(message)

        return noticing


# what Ray itself answers, by status, in the words of the endpoint
_OF_RAY = {
    408: ("timeout", "it was not answered in time."),
    500: ("internal", "it failed inside of the endpoint, whose log says how."),
    503: ("overloaded", "as many requests wait as may; try again."),
}


def _is_plain(message: Message) -> bool:
    return any(name == b"content-type" and value.startswith(_PLAIN) for name, value in message.get("headers", []))


async def _say(send: Send, status: int, kind: str, message: str) -> None:
    """As `pipelines.serve.request.Refusal` is spelled."""
    body = json.dumps({"detail": [{"type": kind, "loc": [], "msg": message}]}, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _vacancy_of(application: str) -> Vacancy:
    from ray import serve

    from pipelines.ray_private import has_replica

    handle = serve.get_deployment_handle("Ranking", application)  # Ray's proxy has this very one, and asks nobody for it
    return Vacancy(lambda: has_replica(handle))
