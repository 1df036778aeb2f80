"""What is wrong with a body is told within bounds, however large or deep it is."""

import itertools
import json

import pytest

from pipelines.serve import request
from pipelines.serve.request import NotJson, RequestError, read_request

LARGE = request._LARGE


def refusal(body: bytes, most_candidates: int = 1000) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read_request(body, most_candidates=most_candidates)
    return raised.value


def looked_at(body: bytes, monkeypatch) -> tuple[RequestError, int]:
    """The refusal, and how many values were looked at for it."""
    counted = itertools.count()

    def counting(what):
        def looked(*args):
            for each in what(*args):
                next(counted)
                yield each

        return looked

    inner = request._problems, request._leaves
    outermost = lambda value, kind, place, found=inner[0]: found(value, kind, place)
    monkeypatch.setattr(request, "_leaves", counting(inner[1]))
    monkeypatch.setattr(request, "_problems", counting(outermost))
    return refusal(body), next(counted)


@pytest.mark.parametrize("wrong", ['"viewers": [1]', '"viewers": {}'])
def test_of_a_large_body_the_first_error_is_told_with_its_field(wrong):
    room = {"room_id": 0, "state": {f"s{number}": number for number in range(400)}}
    rooms = [json.dumps({**room, "room_id": number}) for number in range(60)]
    rooms[57] = rooms[57].replace('"s7": 7', wrong)
    rooms[58] = rooms[58].replace('"s7": 7', wrong)
    body = f'{{"candidates": [{", ".join(rooms)}]}}'.encode()
    assert len(body) > LARGE
    found = refusal(body)
    assert found.where == ("body", "candidates", 57, "state", "viewers") and len(found.problems) == 1


def test_of_a_small_body_all_are_told_and_of_a_key_that_is_there_twice_what_the_decoder_says():
    found = refusal(b'{"k": 0, "candidates": [{}, {"room_id": 1, "state": {"viewers": []}}], "at": "now"}')
    places = [".".join(map(str, each.loc)) for each in found.problems]
    assert sorted(places) == ["body.at", "body.candidates.0.room_id", "body.candidates.1.state.viewers", "body.k"]
    twice = refusal(b'{"candidates": [{"room_id": 1}, {"room_id": []}], "candidates": [{"room_id": 1}]}')
    assert twice.where == ("body", "candidates", 1, "room_id") and "expected" in str(twice).lower()


@pytest.mark.parametrize(
    "body",
    [
        b'{"candidates": [{"room_id": 1}], "user": ' + b"[" * 900 + b"1," * 800_000 + b"NaN" + b"]" * 900 + b"}",
        b'{"candidates": [{"room_id": 1}], "context": {"device": ' + b"[" * 900 + b"1," * 40_000 + b"NaN" + b"]" * 900 + b"}}",
        b'{"candidates": [{"room_id": 1}], "user": [' + b"1.5," * 400_000 + b"NaN]}",
        b'{"histories": {"channels": [' + b'{"at": 1},' * 150_000 + b'{"at": [1]}]}, "candidates": [{"room_id": 1}]}',
        b'{"candidates": [{"room_id": 1, "state": {"a": ' + b"[" * 90_000 + b"]" * 90_000 + b"}}]}",
        b'{"candidates": [' + b'{"room_id": 1},' * 130_000 + b"{}]}",
        b'{"fusion_weights": {' + b",".join(b'"%d": 1' % number for number in range(150_000)) + b'}, "candidates": [{}]}',
    ],
    ids=["deep and long", "deep", "long", "a long history", "very deep", "many rooms", "many weights"],
)
def test_nonsense_takes_no_longer_than_sense(body, monkeypatch):
    found, looked = looked_at(body, monkeypatch)
    assert looked <= request._MOST_LOOKED + 1 and sum(len(each.msg) for each in found.problems) < 30_000
    assert found.where[0] == "body"


def test_a_number_that_is_none_is_found_however_deep_it_is():
    body = b'{"context": {"a": ' + b"[0," * 500 + b"NaN" + b"]" * 500 + b"}}"
    found = refusal(body)
    assert isinstance(found, NotJson) and found.where == ("body", "context", "a", *[1] * 500)


def test_what_is_said_is_bounded():
    weights = {f"{number:0900d}": 1 for number in range(400)}
    from models.score import fused_score
    from tests.samples import tiny_schema

    with pytest.raises(ValueError) as raised:
        fused_score({}, tiny_schema(), weights)
    assert len(str(raised.value)) > 300_000
    assert len(RequestError(("fusion_weights",), str(raised.value)).problems[0].msg) < 1100
    too_many = refusal(
        json.dumps({"candidates": [{"room_id": 1}], "fusion_weights": dict.fromkeys(map(str, range(501)), 1)}).encode()
    )
    assert too_many.where == ("body", "fusion_weights")
