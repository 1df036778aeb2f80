"""An S3 server in this process (moto's, over HTTP), and a proxy before it that misbehaves as networks do."""

import contextlib
import http.client
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

BUCKET = "shop"
FAULTS = ("503", "cut before", "cut after", "half", "slow")


@contextlib.contextmanager
def served(port: int = 0) -> Iterator[int]:
    """A server that holds objects in memory; gives its port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@contextlib.contextmanager
def reached(port: int) -> Iterator[str]:
    """The environment in which pyarrow finds it, for this process and its children. Gives the URI of an empty bucket."""
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    from pipelines import places

    with mock.patch.dict(os.environ, environment):
        places._store.cache_clear()
        try:
            yield f"s3://{BUCKET}"
        finally:
            places._store.cache_clear()


def make_bucket(port: int, name: str = BUCKET) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{name}", headers={"Host": f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


class FaultyProxy:
    """Hands requests on to a server, some of them badly.

    `503` answers that the server is overloaded, `cut before` hangs up before the server hears of the request, `cut after`
    once it has done what was asked, `half` in the middle of the answer, `slow` waits a moment. While `away` it refuses all.

    Args:
        share: of requests that meet a fault.
    """

    def __init__(self, target: int, share: float = 0.0, seed: int = 0, faults: Sequence[str] = FAULTS) -> None:
        self.target, self.share, self.faults = target, share, faults
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.met: dict[str, int] = dict.fromkeys([*FAULTS, "away"], 0)
        self.requests = 0
        self.away = False
        self.away_after: int | None = None  # so many requests
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.hand_on(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None: ...  # a client that hung up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _fault(self) -> str:
        with self.lock:
            self.requests += 1
            self.away |= self.away_after is not None and self.requests > self.away_after
            fault = "away" if self.away else self.random.choice(self.faults) if self.random.random() < self.share else ""
            if fault:
                self.met[fault] += 1
            return fault

    def hand_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = _chunks(request.rfile)
        fault = self._fault()
        if fault in ("cut before", "away"):
            return _hang_up(request)
        if fault == "slow":
            time.sleep(0.3)
        if fault == "503":
            text = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            return _answer(request, 503, [("Content-Type", "application/xml")], text, len(text))
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
            headers = {
                name: value
                for name, value in request.headers.items()
                if name.lower() not in ("connection", "transfer-encoding", "expect", "content-length")
            }
            connection.request(request.command, request.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
        except OSError:  # the server is being restarted
            return _hang_up(request)
        if fault == "cut after":
            return _hang_up(request)
        size = int(answer.getheader("Content-Length") or 0) if request.command == "HEAD" else len(content)
        kept = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server")
        ]
        sent = content[: len(content) // 2] if fault == "half" else content
        _answer(request, answer.status, kept, sent, size)
        if fault == "half":
            _hang_up(request)


def _chunks(stream) -> bytes:  # type: ignore[no-untyped-def]
    found = b""
    while size := int(stream.readline().split(b";")[0], 16):
        found += stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass
    return found


def _answer(request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes, size: int) -> None:
    request.send_response(status)
    for name, value in headers:
        request.send_header(name, value)
    request.send_header("Content-Length", str(size))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


def _hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)
