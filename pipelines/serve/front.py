"""In front of an endpoint, in Ray's own proxy: a request of a replica that died is asked of another one, and whoever cannot be
answered is told at once, in the endpoint's own words.

Ray's proxy answers 500 where a replica dies over a request, waits in silence where none is left, and its own answers are
plain text. A ranking can be asked twice, so here it is, once. Applications of others behind the same proxy are not touched:
a path is ours where the proxy would ask a deployment of our name. HAProxy does the same by its settings
(`pipelines.ray_private`), and asks Ray's proxy, and so this, where no replica is left.

Ray's proxy takes it by an environment variable (`pipelines.ray_private`), and must be able to import it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.ray_private import Ingress, ingress_at

DEPLOYMENT = "LiveRank"  # name of every endpoint's deployment, whatever its application is called
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


@dataclass
class Vacancy:
    """Since when an application has no replica that takes requests.

    Args:
        is_there: whether it has one now.
    """

    is_there: Callable[[], bool]
    since: float | None = None
    looked: float = float("-inf")

    def lasts(self) -> bool:
        """Whether it has had none for longer than a moment, as far as was looked at it all along."""
        if self.is_there():
            self.since = None
            return False
        now = time.monotonic()
        if self.since is None or now - self.looked > GRACE:
            self.since = now
        self.looked = now
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
        asked_at: whom `app` would ask at a path.
    """

    def __init__(self, app: Any, asked_at: Callable[[Any, str], Ingress | None] = ingress_at) -> None:
        self._app = app
        self._asked_at = asked_at
        self._vacancies: dict[str, Vacancy] = {}  # by application

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        vacancy = self._vacancy_at(scope)
        if vacancy is None:
            await self._app(scope, receive, send)
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

    def _vacancy_at(self, scope: MutableMapping[str, Any]) -> Vacancy | None:
        """Of the endpoint at this path; None where somebody else answers."""
        if scope["type"] != "http":
            return None
        ingress = self._asked_at(self._app, scope["path"])
        if ingress is None or ingress.deployment != DEPLOYMENT:
            return None
        vacancy = self._vacancies.setdefault(ingress.application, Vacancy(ingress.has_replica))
        vacancy.is_there = ingress.has_replica  # an application that was taken away and came again has others
        return vacancy


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
