"""The HTTP face of an endpoint: an ASGI application that any server can run; nothing here knows Ray."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from pipelines.serve.endpoint import Endpoint
from pipelines.serve.request import RankRequest, RankResponse, RequestError


def http_app(current: Callable[[], Endpoint], refused: Callable[[], str | None] = lambda: None) -> FastAPI:
    """The application.

    Args:
        current: gives the endpoint that answers now, so it may be exchanged between requests.
        refused: why a newer bundle is not being served, if so.
    """
    app = FastAPI(title="LiveRank", description="Which rooms, for this user, now.")

    # async, though it computes: a replica works on one request after the other on its one thread
    @app.post("/rank", response_model=RankResponse, responses={503: {"description": "Overloaded; try again."}})
    async def rank(request: RankRequest) -> Response:
        return _json(current().rank(request))

    @app.get("/model")
    async def model() -> Response:
        return _json(current().describe())

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok", "model": current().bundle.name, "refused": refused()})

    @app.exception_handler(RequestError)
    async def impossible(_: Request, error: RequestError) -> Response:
        return _json({"detail": [{"type": "value_error", "loc": list(error.where), "msg": str(error)}]}, 422)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        # the input is left out: it may be large, and it may hold numbers that JSON does not know
        detail = [
            {"type": item["type"], "loc": list(item["loc"]), "msg": item["msg"].removeprefix("Value error, ")}
            for item in error.errors()
        ]
        return _json({"detail": detail}, 422)

    @app.exception_handler(FloatingPointError)
    async def broken(_: Request, error: FloatingPointError) -> Response:
        return _json({"detail": str(error)}, 500)

    return app


def _json(content: dict[str, Any], status: int = 200) -> Response:
    """Floats are written so that they are read back exactly; NaN and infinity are never written."""
    return Response(json.dumps(content, allow_nan=False), status_code=status, media_type="application/json")
