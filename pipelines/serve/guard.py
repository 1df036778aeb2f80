"""Lets in who bears a token; plain ASGI, so that it holds however a request comes: over Ray's proxy, HAProxy, or directly."""

import hashlib
import hmac
import logging
import ssl
import time
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from models.config import ConfigError
from pipelines.serve.config import ServeConfig
from pipelines.serve.request import Problem, Refusal, as_json

OPEN = ("/healthz",)  # what load balancers ask, who know no token
LEAST = 16  # characters of a token
LOOK_SECONDS = 1.0  # between two looks at the file
_BOM = b"\xef\xbb\xbf"  # with which some editors begin a file

logger = logging.getLogger(__name__)


class Tokens:
    """Those of a file, a token a line; lines that begin with # are left out. Two of them let one be replaced without a gap.

    The file is read again when it has changed. While it cannot be read, or holds no token, the tokens of before hold, and the
    log says so: to lock everybody out, write a new one.
    """

    def __init__(self, file: Path) -> None:
        """
        Raises:
            ConfigError: there is no such file, or no token in it.
        """
        self.file = file
        self._identity: tuple[int, ...] | None = None
        self._looked = float("-inf")
        self._complaint: str | None = None
        self._digests: list[bytes] = []
        try:
            self._read()
        except OSError as error:
            raise ConfigError(f"serve.token_file {file} cannot be read ({error.strerror}).") from None

    def __contains__(self, token: bytes) -> bool:
        """Takes as long for a wrong one as for a right one."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            try:
                self._read()
                complaint = None
            except (OSError, ConfigError) as error:  # perhaps it is just being replaced
                complaint = str(error)
            if complaint != self._complaint and complaint is not None:
                logger.warning("The tokens of before hold: %s", complaint)
            self._complaint = complaint
        digest = hashlib.sha256(token).digest()
        return any([hmac.compare_digest(digest, known) for known in self._digests])

    def _read(self) -> None:
        stat = self.file.stat()
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if identity == self._identity:
            return
        tokens = _tokens(self.file)
        if not tokens or any(len(token) < LEAST for token in tokens):
            raise ConfigError(
                f"serve.token_file {self.file} must hold a token a line, each of {LEAST} characters at least. "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one."
            )
        self._digests, self._identity = [hashlib.sha256(token).digest() for token in tokens], identity


def check_files(config: ServeConfig) -> None:
    """Makes sure that token, certificate and key can be used, before anything is started that needs them.

    Raises:
        ConfigError: a file is not there, is none of its kind, or the key is that of another certificate or has a password.
    """
    if config.token_file is not None:
        Tokens(config.token_file)
    if config.tls_certificate is None or config.tls_key is None:
        return
    for name in ("tls_certificate", "tls_key"):
        try:
            getattr(config, name).open("rb").close()
        except OSError as error:
            raise ConfigError(f"serve.{name} {getattr(config, name)} cannot be read ({error.strerror}).") from None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            config.tls_certificate,
            config.tls_key,
            password=lambda: "",  # instead of a question on the screen
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"serve.tls_certificate {config.tls_certificate} and serve.tls_key {config.tls_key} cannot be used "
            f"({getattr(error, 'reason', None) or error}). They must be PEM files that belong together, the key without "
            "a password."
        ) from None


def first_token(file: Path) -> str:
    """The one to ask with."""
    return _tokens(file)[0].decode("latin-1")


def _tokens(file: Path) -> list[bytes]:
    lines = [line.strip() for line in file.read_bytes().removeprefix(_BOM).splitlines()]
    return [line for line in lines if line and not line.startswith(b"#")]


class Guard:
    """An application behind tokens: without one of them a request is answered 401 before its body is read.

    Attributes:
        routes: of the application, by which Serve names its metrics.
    """

    def __init__(self, app: Any, tokens: Tokens) -> None:
        self._app: ASGIApp = app
        self._tokens = tokens
        self.routes = app.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") if scope["type"] == "http" else None
        if scope["type"] == "lifespan" or path in OPEN or self._lets_in(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = as_json(Refusal((Problem("unauthorized", ("header", "authorization"), "must be `Bearer` and a valid token."),)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"www-authenticate", b"Bearer"),
            (b"connection", b"close"),  # what is left of the body is not waited for
        ]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _lets_in(self, scope: Scope) -> bool:
        given = dict(scope.get("headers", [])).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        return scheme.lower() == b"bearer" and token.strip() in self._tokens
