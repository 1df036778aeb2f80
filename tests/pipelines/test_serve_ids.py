"""Both spellings of an id name the same user and room: JavaScript has to send large integers as text."""

import warnings
from dataclasses import replace

import pyarrow as pa
import pytest

from pipelines.logs.ids import as_ids
from pipelines.serve import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.example import example_request
from pipelines.serve.given import integer_of, spelled
from pipelines.serve.http import http_app
from pipelines.serve.parity import check_parity
from pipelines.serve.store import Store, build_store
from tests.pipelines.serve_samples import NOW, prepared_and_bundle, write_bundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather see another HTTP library
    from fastapi.testclient import TestClient

KEYS = ("user_id", "room_id", "streamer_id", "product_id")
BIG = 7_300_000_000_000_000_001


@pytest.fixture(scope="module")
def clients(tiny_schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    prepared, _ = prepared_and_bundle(folder, tiny_schema, feeds=40)
    store = Store(build_store(prepared, folder / "store"))
    made = {}
    for kind in ("integer", "text"):
        encoder = replace(prepared.encoder, ids=dict.fromkeys(KEYS, kind))
        bundle = write_bundle(folder / kind, tiny_schema, encoder)
        endpoint = Endpoint.open(bundle, store, ServeConfig())
        made[kind] = (replace(prepared, encoder=encoder), endpoint, TestClient(http_app(lambda endpoint=endpoint: endpoint)))
    yield made
    store.close()


def integers_of(values: list, ids: str | None = None) -> list[int | None]:
    return [integer_of(value, ids) for value in values]


def hashes(texts: list[str]) -> list[int]:
    return as_ids(pa.array(texts)).to_pylist()


def ranked(client, **body) -> dict:
    answer = client.post("/rank", json={"at": NOW, **body})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    predictions = {str(item["room_id"]): (item["predictions"], item["score"], item["room_known"]) for item in found["ranked"]}
    return {"rooms": predictions, "user_known": found["user_known"]}


def test_of_a_log_of_integers_digits_are_the_number():
    assert integers_of([BIG, str(BIG), "7", 7, None], "integer") == [BIG, BIG, 7, 7, None]
    assert integers_of(["07", "7.0", "room-7"], "integer") == hashes(["07", "7.0", "room-7"])


def test_of_a_log_of_texts_a_number_is_its_digits():
    five, padded, word = hashes(["5", "05", "room-7"])
    assert integers_of([5, "5", "05", "room-7", None, -3], "text") == [five, five, padded, word, None, hashes(["-3"])[0]]
    assert integers_of([spelled(five, "text")], "text") == [five] and spelled(five, "integer") == five
    assert integers_of(["xxh64:9223372036854775808"], "text") == hashes(["xxh64:9223372036854775808"])  # beyond int64: a name


def test_words_of_attributes_stay_what_they_are():
    assert integers_of(["5", 5]) == [hashes(["5"])[0], 5]


def test_both_spellings_get_the_same_answer_bit_for_bit(clients):
    _, _, client = clients["integer"]
    history = {"channels": [{"at": NOW - 1000, "room_id": 11, "streamer_id": 101}]}
    rooms = [{"room_id": 11}, {"room_id": 99, "features": {"streamer_id": 102}, "state": {"product_id": 7}}]
    numbers = ranked(client, user_id=1, candidates=rooms, histories=history)
    as_text = [{"room_id": "11"}, {"room_id": "99", "features": {"streamer_id": "102"}, "state": {"product_id": "7"}}]
    text_history = {"channels": [{"at": NOW - 1000, "room_id": "11", "streamer_id": "101"}]}
    assert ranked(client, user_id="1", candidates=as_text, histories=text_history) == numbers
    assert numbers["user_known"] and numbers["rooms"]["11"][2]
    assert not ranked(client, user_id="01", candidates=[{"room_id": 11}])["user_known"]


@pytest.mark.parametrize("kind", ["integer", "text"])
def test_a_room_in_two_spellings_is_refused(clients, kind):
    _, _, client = clients[kind]
    answer = client.post("/rank", json={"candidates": [{"room_id": 5}, {"room_id": 7}, {"room_id": "7"}]})
    assert answer.status_code == 422
    (told,) = answer.json()["detail"]
    assert (
        told["loc"] == ["body", "candidates", 2, "room_id"] and told["msg"] == "'7' is the same room as 7, spelled otherwise."
    )


@pytest.mark.parametrize("kind", ["integer", "text"])
def test_prepared_feeds_are_answered_as_they_are_scored_offline(clients, kind):
    """Of a log of texts, tables hold hashes; a request spells them as such."""
    prepared, endpoint, client = clients[kind]
    found = check_parity(prepared, endpoint.bundle, lambda body: client.post("/rank", json=body).json(), feeds=10)
    assert found.feeds >= 3 and found.unequal == 0
    request = example_request(prepared)
    assert isinstance(request["user_id"], int if kind == "integer" else str)
    assert client.post("/rank", json=request).status_code == 200
