"""What an endpoint tells of itself: OpenAPI as JSON, and a page of it that needs nothing from elsewhere."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from models.catalogue import ROOM, USER
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.given import spelled
from pipelines.serve.request import Body, RankRequest, RankResponse, Refusal

_ROOMS = 5
_SCHEMAS = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "The body is no JSON.",
    "401": "No valid token, where one is asked for.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "A field is missing, unknown, or of a value that cannot be used; `loc` leads to it.",
    "500": "An error inside of the endpoint.",
    "503": "Overloaded, starting, or the store is too old; `Retry-After` says when to come again.",
    "504": "Scoring took too long.",
}


def openapi(endpoint: Endpoint) -> Body:
    """OpenAPI 3.1, with examples that this endpoint answers."""
    (request, response, refusal), components = msgspec.json.schema_components(
        (RankRequest, RankResponse, Refusal), ref_template=_SCHEMAS
    )
    content = lambda schema, **more: {"application/json": {"schema": schema, **more}}
    asked = example(endpoint)
    refusals = {code: {"description": text, "content": content(refusal)} for code, text in _REFUSALS.items()}
    get = lambda text: {"get": {"summary": text, "responses": {"200": {"description": text, "content": content({})}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "LiveRank", "description": "Which rooms, for this user, now.", "version": endpoint.bundle.name},
        "paths": {
            "/rank": {
                "post": {
                    "summary": "Ranks rooms for a user",
                    "requestBody": {"required": True, "content": content(request, example=asked)},
                    "responses": {
                        "200": {
                            "description": "The rooms in order, best first.",
                            "content": content(response, example=endpoint.ask(asked)),
                        },
                        **refusals,
                    },
                }
            },
            "/model": get("What is being served"),
            "/healthz": get("Whether and with what it answers"),
        },
        "components": {"schemas": components},
    }


def example(endpoint: Endpoint) -> Body:
    """A request that this endpoint answers: of a stored user for stored rooms, at the end of the log."""
    ids, store = endpoint.wanted.ids, endpoint.store
    if store is None:
        return {"user_id": 1, "candidates": [{"room_id": 11}, {"room_id": 12}]}
    most = endpoint.bundle.encoder.largest_feed if endpoint.bundle.schema.list_context else _ROOMS
    return {
        "user_id": spelled(store.first("users", 1)[0], ids.get(USER.key)),
        "at": store.as_of,
        "candidates": [{"room_id": spelled(room, ids.get(ROOM.key))} for room in store.first("rooms", min(most, _ROOMS))],
        "k": 3,
    }


def page(spec: Body) -> str:
    """The specification as a page, with a form that sends the example."""
    asked = spec["paths"]["/rank"]["post"]["requestBody"]["content"]["application/json"]["example"]
    info = spec["info"]
    parts = [
        f"<h1>{_text(info['title'])}</h1><p>{_text(info['description'])} Answering: <code>{_text(info['version'])}</code>.",
        'As <a id="spec" href="openapi.json">OpenAPI</a>.</p>',
        '<h2>Try it</h2><form id="try"><textarea id="body" rows="14" spellcheck="false">'
        f"{_text(json.dumps(asked, indent=2))}</textarea><p><button>POST /rank</button></p></form>",
        '<pre id="said"></pre>',
    ]
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            answers = [(code, each["description"]) for code, each in operation["responses"].items()]
            parts.append(f"<h2><code>{method.upper()} {_text(path)}</code> {_text(operation['summary'])}</h2>{_table(answers)}")
    for name, schema in spec["components"]["schemas"].items():
        fields = [
            (field, _kind(each) + (", required" if field in schema.get("required", ()) else ""), each.get("description", ""))
            for field, each in schema.get("properties", {}).items()
        ]
        parts.append(f'<h2 id="{_text(name)}">{_text(name)}</h2><p>{_text(schema.get("description", ""))}</p>{_table(fields)}')
    return _PAGE.replace("CONTENT", "\n".join(parts))


def _text(value: str) -> str:
    return html.escape(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = lambda row: "".join(f"<td>{_text(each)}</td>" for each in row)
    return f"<table>{''.join(f'<tr>{cells(row)}</tr>' for row in rows)}</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema:
        return " or ".join(f'"{each}"' for each in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema.get('items', {}))}"
        case "object":
            return f"object of {_kind(schema.get('additionalProperties', {}))}"
        case other:
            return other or "anything"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>LiveRank</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { font-size: 1.1rem; margin-top: 2rem; } table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #ddd; padding: .3rem .6rem .3rem 0; vertical-align: top; } td:first-child { font-family: monospace; }
textarea { width: 100%; font: 14px monospace; } pre { background: #f4f4f4; padding: .6rem; overflow: auto; max-height: 30rem; }
pre:empty { display: none; }
</style></head><body>
CONTENT
<script>
const root = location.pathname.replace(/docs\\/*$/, "");  // also where a slash stands behind it
document.getElementById("spec").href = root + "openapi.json";
document.getElementById("try").addEventListener("submit", async event => {
  event.preventDefault();
  const said = document.getElementById("said");
  try {
    const answer = await fetch(root + "rank", {method: "POST", body: document.getElementById("body").value});
    said.textContent = answer.status + "\\n" + JSON.stringify(await answer.json(), null, 2);
  } catch (error) { said.textContent = String(error); }
});
</script></body></html>
"""
