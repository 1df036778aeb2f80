"""Requests as broken clients, load balancers and strangers send them, each with the status and the field that it is told."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

NOW = 1_700_000_000_000
ROOMS = [{"room_id": 11}, {"room_id": 12}]
HALF = "\\ud83d"  # of an emoji that was cut, as JSON spells it
LONG = "x" * 1001


@dataclass(frozen=True)
class Hostile:
    """A request and what is to become of it.

    Attributes:
        where: of what is wrong, as `loc` joined by dots; empty where nothing is.
    """

    name: str
    status: int
    where: str = ""
    body: bytes = b""
    method: str = "POST"
    path: str = "/rank"
    headers: dict[str, str] = field(default_factory=dict)


def hostile_requests() -> Iterator[Hostile]:
    """For an endpoint of `tiny_schema` with `state.viewers` as two numbers, at most 50 candidates and 20,000 bytes."""
    yield from no_json()
    yield from wrong_shapes()
    yield from wrong_ids_and_times()
    yield from wrong_columns()
    yield from wild_numbers()
    yield from other_http()


def told(name: str, status: int, where: str, **body) -> Hostile:
    """JSON of a body with two rooms."""
    whole = {"at": NOW, "candidates": ROOMS, **body}
    return Hostile(name, status, f"body.{where}" if where else "", json.dumps(whole).encode())


def spelled(name: str, status: int, where: str, text: str) -> Hostile:
    """JSON as it is written, with two rooms behind it."""
    raw = f'{{{text}, "candidates": [{{"room_id": 11}}, {{"room_id": 12}}]}}'
    return Hostile(name, status, f"body.{where}" if where else "", raw.encode())


def one(room: object, **body) -> dict:
    return {"candidates": [{"room_id": 11}, room], **body}


def no_json() -> Iterator[Hostile]:
    good = json.dumps({"candidates": ROOMS}).encode()
    for name, raw in {
        "empty": b"",
        "blank": b" \n\t ",
        "cut off": good[:-5],
        "cut off in a text": b'{"user_id": "abc',
        "comma at the end": good[:-1] + b",}",
        "single quotes": b"{'candidates': [{'room_id': 1}]}",
        "a comment": b'{/* rooms */ "candidates": [{"room_id": 1}]}',
        "keys without quotes": b"{candidates: [{room_id: 1}]}",
        "two documents": good + good,
        "words behind it": good + b" thanks",
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": good.decode().encode("utf-16"),
        "Latin-1": '{"user_id": "Müller", "candidates": [{"room_id": 1}]}'.encode("latin-1"),
        "bytes of no text": bytes(range(128, 256)),
        "a NUL byte": b"\0",
        "a form": b"user_id=1&room_id=2",
        "XML": b"<rank><user>1</user></rank>",
        "a page": b"<!doctype html><html></html>",
        "YAML": b"candidates:\n- room_id: 1\n",
        "compressed without saying so": gzip.compress(good),
        "a line break in a text": b'{"user_id": "a\nb", "candidates": [{"room_id": 1}]}',
        "an escape that is none": b'{"user_id": "\\q", "candidates": [{"room_id": 1}]}',
        "half an escape": b'{"user_id": "\\u12", "candidates": [{"room_id": 1}]}',
        "a leading zero": b'{"user_id": 01, "candidates": [{"room_id": 1}]}',
        "a plus": b'{"user_id": +1, "candidates": [{"room_id": 1}]}',
        "hexadecimal": b'{"user_id": 0x1, "candidates": [{"room_id": 1}]}',
        "words of Python": b'{"user_id": None, "candidates": [{"room_id": 1}]}',
        "a bracket of the other kind": b'{"candidates": [{"room_id": 1}}',
        "no value": b'{"candidates": }',
    }.items():
        yield Hostile(name, 400, "body", raw)
    for name, where, text in [
        ("NaN in a column", "user.user_entries", '"user": {"user_entries": NaN}'),
        ("Infinity in a column", "user.user_entries", '"user": {"user_entries": Infinity}'),
        ("-Infinity as a weight", "fusion_weights.click", '"fusion_weights": {"click": -Infinity}'),
        ("NaN as a time", "at", '"at": NaN'),
        ("NaN in a history", "histories.channels.0.stay_seconds", '"histories": {"channels": [{"stay_seconds": NaN}]}'),
        ("1e999 in a column", "user.user_entries", '"user": {"user_entries": 1e999}'),
        ("1e400 as a weight", "fusion_weights.click", '"fusion_weights": {"click": 1e400}'),
        ("half a character as user", "user_id", f'"user_id": "{HALF}"'),
        ("the other half as user", "user_id", '"user_id": "\\udfff"'),
        ("halves in the wrong order", "user_id", '"user_id": "\\udfff\\ud83d"'),
        ("half a character in a context", "context.device", f'"context": {{"device": "{HALF}"}}'),
        ("half a character as key", "context", f'"context": {{"{HALF}": 1}}'),
        (
            "half a character in a history",
            "histories.channels.0.room_id",
            f'"histories": {{"channels": [{{"room_id": "{HALF}"}}]}}',
        ),
        ("5000 digits as user", "user_id", f'"user_id": {"9" * 5000}'),
        ("5000 digits as weight", "fusion_weights.click", f'"fusion_weights": {{"click": {"9" * 5000}}}'),
    ]:
        yield spelled(name, 400, where, text)
    room = lambda inner: f'{{"candidates": [{{"room_id": 11}}, {inner}]}}'.encode()
    yield Hostile("half a character as room", 400, "body.candidates.1.room_id", room(f'{{"room_id": "{HALF}"}}'))
    half = f'{{"room_id": 12, "state": {{"product_id": "{HALF}"}}}}'
    yield Hostile("half a character in a state", 400, "body.candidates.1.state.product_id", room(half))
    half = f'{{"room_id": 12, "features": {{"room.category": "{HALF}"}}}}'
    yield Hostile("half a character in a feature", 400, "body.candidates.1.features.room.category", room(half))
    nan = '{"room_id": 12, "state": {"viewers": NaN}}'
    yield Hostile("NaN in a state", 400, "body.candidates.1.state.viewers", room(nan))


def wrong_shapes() -> Iterator[Hostile]:
    for name, raw in {"null": b"null", "a number": b"1", "a text": b'"rank"', "true": b"true", "a list": b"[]"}.items():
        yield Hostile(name, 422, "body", raw)
    yield Hostile("a list of requests", 422, "body", json.dumps([{"candidates": ROOMS}]).encode())
    yield Hostile("an empty object", 422, "body.candidates", b"{}")
    yield Hostile("5000 lists, never closed", 400, "body.candidates.0", b'{"candidates": ' + b"[" * 5000)
    deep = b"[" * 5000 + b"]" * 5000
    yield Hostile("candidates 5000 deep", 400, "body.candidates.0", b'{"candidates": ' + deep + b"}")
    yield Hostile("a context 5000 deep", 400, "body.context", b'{"context": ' + deep + b', "candidates": [{"room_id": 1}]}')
    for name, value in {
        "none": None,
        "a number": 5,
        "a text": "11,12",
        "true": True,
        "an object": {"room_id": 1},
        "no": [],
    }.items():
        yield told(f"candidates: {name}", 422, "candidates", candidates=value)
    for name, value in {"null": None, "a number": 11, "a text": "11", "a list": [11]}.items():
        yield told(f"a candidate: {name}", 422, "candidates.1", **one(value))
    yield told("a candidate without room", 422, "candidates.1.room_id", **one({}))
    yield told("a candidate with more keys", 422, "candidates.1.price", **one({"room_id": 12, "price": 3}))
    yield told("a state that is a list", 422, "candidates.1.state", **one({"room_id": 12, "state": [1]}))
    yield told("features that are null", 422, "candidates.1.features", **one({"room_id": 12, "features": None}))
    yield told("30 rooms without id", 422, "candidates.0.room_id", candidates=[{}] * 30)
    yield told("51 rooms at once", 422, "candidates", candidates=[{"room_id": place} for place in range(51)])
    yield told("a key that is unknown", 422, "users", users=[1])
    yield told("a key in capitals", 422, "User_ID", User_ID=1)
    yield told("a very long key", 422, "x" * 100, **{LONG: 1})
    for part in ("user", "context", "histories"):
        for name, value in {"null": None, "a list": [1], "a text": "x", "a number": 1}.items():
            yield told(f"{part} as {name}", 422, part, **{part: value})
    yield told("a history that is an object", 422, "histories.channels", histories={"channels": {"at": 1}})
    yield told("an entry that is a number", 422, "histories.channels.0", histories={"channels": [1]})
    yield told("501 columns", 422, "user", user={str(place): 1 for place in range(501)})
    yield told("1001 entries", 422, "histories.channels", histories={"channels": [{"at": 1}] * 1001})
    yield told("a column that is a list", 422, "user.user_entries", user={"user_entries": [1]})
    yield told("a column that is an object", 422, "context.device", context={"device": {"os": "x"}})
    yield told("weights that are a list", 422, "fusion_weights", fusion_weights=[1])
    yield told("a format that is none", 422, "format", format="csv")
    yield told("a format of another type", 422, "format", format=1)
    for name, value in {"0": 0, "-1": -1, "1.5": 1.5, "true": True, "a text": "3", "a list": [3]}.items():
        yield told(f"k: {name}", 422, "k", k=value)
    yield told("k: 10**30", 200, "", k=10**30)


def wrong_ids_and_times() -> Iterator[Hostile]:
    wrong = {"true": True, "a fraction": 1.5, "a whole float": 1.0, "1e30": 1e30, "empty": "", "a list": [1], "an object": {}}
    wrong |= {"2**63": 2**63, "-2**63 - 1": -(2**63) - 1, "10**30": 10**30, "very long": LONG}
    for name, value in wrong.items():
        yield told(f"user: {name}", 422, "user_id", user_id=value)
        yield told(f"room: {name}", 422, "candidates.1.room_id", **one({"room_id": value}))
    yield told("room: null", 422, "candidates.1.room_id", **one({"room_id": None}))
    yield told("a room twice", 422, "candidates.1.room_id", **one({"room_id": 11}))
    for name, value in {
        "NUL": "a\0b",
        "an emoji": "\U0001f600",
        "a path": "../../etc/passwd",
        "SQL": "1; DROP TABLE rooms",
    }.items():
        yield told(f"names with {name}", 200, "", user_id=value, **one({"room_id": value}))
    yield told("names of right to left", 200, "", user_id="\u202eabc", **one({"room_id": "\u0634\u0631\u0643\u0629"}))
    yield told("the least id", 200, "", user_id=-(2**63), **one({"room_id": -(2**63)}))
    yield told("the largest id", 200, "", user_id=2**63 - 1, **one({"room_id": 2**63 - 1}))
    yield told("negative ids", 200, "", user_id=-5, **one({"room_id": -5}))
    yield told("as a hash is spelled", 200, "", user_id="xxh64:1", **one({"room_id": "xxh64:99999999999999999999"}))
    wrong = {"a text": "now", "a date": "2023-11-14T22:13:20Z", "a float": 1.7e12, "true": True, "seconds": NOW // 1000}
    wrong |= {"microseconds": 1000 * NOW, "0": 0, "negative": -NOW, "2**63": 2**63, "a list": [NOW]}
    for name, value in wrong.items():
        yield told(f"at: {name}", 422, "at", at=value)
    yield spelled("a key twice", 200, "", f'"at": 5, "user_id": 1, "user_id": 2, "at": {NOW}')


def wrong_columns() -> Iterator[Hostile]:
    yield told("a user column that is none", 422, "user.user_entriess", user={"user_entriess": 1})
    yield told("a derived user column", 422, "user.user_entry_rate", user={"user_entry_rate": 0.5})
    yield told("the id as a user column", 422, "user.user_id", user={"user_id": 5})
    yield told("a context as user column", 422, "user.context.device", user={"context.device": "x"})
    yield told("a text for a number", 422, "user.user_entries", user={"user_entries": "many"})
    yield told("an empty text for a number", 422, "user.user_entries", user={"user_entries": ""})
    yield told("a very long text", 422, "user.user_entries", user={"user_entries": LONG})
    yield told("true for a number", 200, "", user={"user_entries": True})
    yield told("nothing for a number", 200, "", user={"user_entries": None})
    yield told("a context that is not read", 200, "", context={"weather": "rain", "": 1})
    feature = lambda name, value: one({"room_id": 12, "features": {name: value}})
    yield told("a feature that is none", 422, "candidates.1.features.price", **feature("price", 1))
    yield told("a derived feature", 422, "candidates.1.features.room_entry_rate.life", **feature("room_entry_rate.life", 1))
    yield told("the id as a feature", 422, "candidates.1.features.room_id", **feature("room_id", 1))
    yield told("a user's column as a feature", 422, "candidates.1.features.user_entries", **feature("user_entries", 1))
    yield told("a fraction for a name", 422, "candidates.1.features.room.category", **feature("room.category", 0.5))
    yield told("a text for a count", 422, "candidates.1.features.room_entries.life", **feature("room_entries.life", "5"))
    state = lambda name, value: one({"room_id": 12, "state": {name: value}})
    yield told("a fraction for a product", 422, "candidates.1.state.product_id", **state("product_id", 2.5))
    yield told("a text for viewers", 422, "candidates.1.state.viewers", **state("viewers", "12"))
    yield told("a state that is not read", 200, "", **state("mood", "good"))
    history = lambda **entry: {"histories": {"channels": [{"at": NOW - 5, "room_id": 1}, entry]}}
    yield told("an entry without time", 422, "histories.channels.1.at", **history(room_id=1))
    yield told("an entry now", 422, "histories.channels.1.at", **history(at=NOW))
    yield told("an entry at a fraction", 422, "histories.channels.1.at", **history(at=0.5))
    yield told("an entry at true", 422, "histories.channels.1.at", **history(at=True))
    yield told("an entry at null", 422, "histories.channels.1.at", **history(at=None))
    yield told("an entry with a column that is none", 422, "histories.channels.1.colour", **history(at=1, colour=3))
    yield told("a fraction for an entry's room", 422, "histories.channels.1.room_id", **history(at=1, room_id=0.5))
    yield told("a text for an entry's stay", 422, "histories.channels.1.stay_seconds", **history(at=1, stay_seconds="5"))
    yield told("an entry long ago", 200, "", **history(at=-(2**63), room_id=None))
    yield told("a history that is not read", 200, "", histories={"friends": [{"at": 1}]})
    yield told("an empty history", 200, "", histories={"channels": []})


def wild_numbers() -> Iterator[Hostile]:
    for name, value in {"1e39": 1e39, "1e308": 1e308, "2**128": 2**128, "10**400": 10**400, "-1e39": -1e39}.items():
        yield told(f"a weight of {name}", 422, "fusion_weights.click", fusion_weights={"order": 1, "click": value})
    yield told("a weight of 2**64", 200, "", fusion_weights={"click": 2**64})
    yield told("a weight below zero", 200, "", fusion_weights={"click": -1})
    yield told("weights beyond float32 together", 422, "fusion_weights", fusion_weights={"click": 3.4e38, "order": 3.4e38})
    yield told("a weight of true", 422, "fusion_weights.click", fusion_weights={"click": True})
    yield told("a weight of null", 422, "fusion_weights.click", fusion_weights={"click": None})
    yield told("a weight of a text", 422, "fusion_weights.click", fusion_weights={"click": "1"})
    yield told("a weight of a target that is none", 422, "fusion_weights", fusion_weights={"clicks": 1})
    yield told("no weights", 422, "fusion_weights", fusion_weights={})
    yield told("weights of zero", 422, "fusion_weights", fusion_weights={"click": 0, "order": 0.0})
    yield told("weights too small to see", 200, "", fusion_weights={"click": 5e-324})
    for name, value in {"1e39": 1e39, "1.7e308": 1.7e308, "-1": -1, "-1e308": -1e308, "3.4e38": 3.4e38, "1e38": 1e38}.items():
        yield told(f"{name} viewers", 200, "", **one({"room_id": 12, "state": {"viewers": value}}))
    yield told("2**63 viewers", 422, "candidates.1.state.viewers", **one({"room_id": 12, "state": {"viewers": 2**63}}))
    yield told("1e39 entries", 200, "", user={"user_entries": 1e39})
    yield told("a stay of 1e39", 200, "", histories={"channels": [{"at": 1, "stay_seconds": 1e39}]})


def other_http() -> Iterator[Hostile]:
    good = json.dumps({"candidates": ROOMS}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "*/*", ""):
        yield Hostile(f"content type {kind!r}", 200, "", good, headers={"content-type": kind})
    for coding in ("gzip", "br", "deflate", "zstd", "GZIP, br"):
        squeezed = gzip.compress(good)
        yield Hostile(f"in {coding}", 415, "header.content-encoding", squeezed, headers={"content-encoding": coding})
    yield Hostile("in identity", 200, "", good, headers={"content-encoding": "identity"})
    yield Hostile("a slash at the end", 200, "", good, path="/rank/")
    yield Hostile("a deadline of its own", 200, "", good, headers={"x-request-timeout-seconds": "1e9"})
    yield Hostile("no deadline", 200, "", good, headers={"x-request-timeout-seconds": "0"})
    yield Hostile("20,001 bytes", 413, "body", good + b" " * 20_001)
    yield Hostile("20,001 bytes of rooms", 413, "body", b'{"candidates": [' + b'{"room_id": 1}, ' * 1300 + b"]}")
    for method in ("GET", "PUT", "PATCH", "DELETE", "HEAD", "PROPFIND"):
        yield Hostile(f"{method} /rank", 405, "method", method=method)
    for path in ("/model", "/healthz", "/openapi.json", "/docs"):
        yield Hostile(f"POST {path}", 405, "method", b"{}", path=path)
        yield Hostile(f"HEAD {path}", 200, "", method="HEAD", path=path)
        yield Hostile(f"GET {path}/", 200, "", method="GET", path=f"{path}/")
        yield Hostile(f"OPTIONS {path}", 204, "", method="OPTIONS", path=path)
    yield Hostile("OPTIONS /rank", 204, "", method="OPTIONS")
    nowhere = ["/", "/RANK", "/rank/1", "/ranks", "/rank/../model", "/.env", "/healthz%00", "//evil.example/rank"]
    for path in [*nowhere, "/%2e%2e/etc/passwd"]:
        yield Hostile(f"GET {path}", 404, "path", method="GET", path=path)
        yield Hostile(f"POST {path}", 404, "path", good, path=path)
