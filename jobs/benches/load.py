"""Requests sent to an endpoint and timed: a client that is cheap enough to stand beside it on one machine.

Closed loops keep a number of connections busy, so a slow endpoint is asked less. Open loops ask at a rate whatever comes
back, as users do, and time an answer from when it should have been asked for.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

PATIENCE = 40.0  # seconds after which an answer counts as lost


@dataclass
class Taken:
    """What became of some requests.

    Attributes:
        seconds: until the answer, by status.
        lost: requests without an answer, by what happened.
        wall: seconds that all of it took.
        lag: the longest that this client itself was late to ask, seconds.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0
    lag: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, ()))

    @property
    def rate(self) -> float:
        """Answers 200 a second."""
        return self.count(200) / self.wall if self.wall else 0.0

    def ms(self, status: int, percentile: float) -> float:
        """NaN where there is no such answer."""
        found = self.seconds.get(status)
        return 1e3 * float(np.percentile(found, percentile)) if found else float("nan")


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = bytearray()
        self._ends = 0  # length of the whole answer, once its head is there
        self._is_last = False  # whether the other side says that it closes after this answer

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    async def ask(self, request: bytes) -> int:
        """The status of the answer, once all of it has come."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self._is_last

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._ends and (head := self._received.find(b"\r\n\r\n")) >= 0:
            fields = dict(line.lower().split(b":", 1) for line in bytes(self._received[:head]).split(b"\r\n")[1:])
            self._ends = head + 4 + int(fields.get(b"content-length", b"0"))
            self._is_last = fields.get(b"connection", b"").strip() == b"close"
        if self._ends and len(self._received) >= self._ends and self._answer is not None:
            status = int(self._received[9:12])
            del self._received[: self._ends]
            self._ends = 0
            if not self._answer.done():
                self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed without an answer"))


@dataclass(frozen=True)
class Target:
    """Where to ask, and requests as bytes, which are asked in turn."""

    host: str
    port: int
    requests: Sequence[bytes]

    @classmethod
    def of(cls, host: str, port: int, bodies: Sequence[bytes], path: str = "/rank") -> "Target":
        head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\ncontent-length: ".encode()
        return cls(host, port, [head + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies])


async def closed(target: Target, connections: int, seconds: float) -> Taken:
    """Every connection asks again as soon as it has its answer."""
    taken, began = Taken(), time.perf_counter()

    async def keep_asking(first: int) -> None:
        connection, number = None, first
        while time.perf_counter() - began < seconds:
            connection = await _asked(target, connection, number, time.perf_counter(), taken)
            number += connections
        if connection is not None:
            connection.close()

    await asyncio.gather(*(keep_asking(first) for first in range(connections)))
    taken.wall = time.perf_counter() - began
    return taken


async def opened(target: Target, rate: float, seconds: float, *, seed: int = 0) -> Taken:
    """Asks at random moments, `rate` of them a second, on as many connections as that takes."""
    taken, began = Taken(), time.perf_counter()
    free: list[Connection] = []

    async def ask(number: int, due: float) -> None:
        connection = await _asked(target, free.pop() if free else None, number, due, taken)
        if connection is not None:
            free.append(connection)

    due, tasks = began, set()
    for number, pause in enumerate(np.random.default_rng(seed).exponential(1 / rate, round(rate * seconds)).tolist()):
        due += pause
        if (wait := due - time.perf_counter()) > 0.0005:
            await asyncio.sleep(wait)
        taken.lag = max(taken.lag, time.perf_counter() - due)
        task = asyncio.create_task(ask(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    taken.wall = time.perf_counter() - began
    if tasks:
        await asyncio.wait(tasks)
    for connection in free:
        connection.close()
    return taken


async def trickle(target: Target, bodies: int, until: asyncio.Event) -> int:
    """So many bodies on their way, two bytes a second each; how many connections had to be opened again."""
    request = target.requests[0]
    head = request[: request.index(b"\r\n\r\n") + 4]
    again = 0

    async def one() -> None:
        nonlocal again
        while not until.is_set():
            reader, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(head)
            answered = asyncio.create_task(reader.read(1))
            while not until.is_set() and not answered.done():
                writer.write(b"  ")
                await asyncio.wait([answered], timeout=1.0)
            again += not until.is_set()
            answered.cancel()
            writer.close()

    await asyncio.gather(*(one() for _ in range(bodies)), return_exceptions=True)
    return again


async def _asked(target: Target, connection: Connection | None, number: int, since: float, taken: Taken) -> Connection | None:
    """One request, timed since a moment; gives back the connection for the next one."""
    try:
        async with asyncio.timeout(PATIENCE):
            if connection is not None and not connection.is_open:
                connection.close()
                connection = None
            if connection is None:
                connection = await Connection.open(target.host, target.port)
            status = await connection.ask(target.requests[number % len(target.requests)])
    except (OSError, TimeoutError) as error:
        taken.lost[type(error).__name__] += 1
        if connection is not None:
            connection.close()
        return None
    taken.add(status, time.perf_counter() - since)
    return connection
