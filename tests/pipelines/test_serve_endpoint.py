"""The endpoint over HTTP in this process, without Ray."""

import warnings
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from models.schema import Schema, Stages
from models.system import SystemConfig
from pipelines.bundle import amend_provenance
from pipelines.encode.clock import Clock
from pipelines.encode.fit import finish, fit_encoder, fit_partial
from pipelines.prepared import Prepared
from pipelines.serve import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.http import http_app
from pipelines.serve.parity import check_parity
from pipelines.serve.store import Store, build_store
from tests.pipelines.serve_samples import NOW, asked, prepared_and_bundle, write_bundle, write_prepared
from tests.pipelines.test_encode import random_feeds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather see another HTTP library
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def parts(tiny_schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    prepared, bundle = prepared_and_bundle(folder, tiny_schema, feeds=40)
    store = Store(build_store(prepared, folder / "store"))
    yield prepared, bundle, store, folder
    store.close()


@pytest.fixture(scope="module")
def client(parts):
    endpoint = Endpoint.open(parts[1], parts[2], ServeConfig(max_candidates=50))
    return TestClient(http_app(lambda: endpoint, endpoint.config))


def rank(client, **body) -> dict:
    answer = client.post("/rank", json={"at": NOW, "candidates": [{"room_id": 11}, {"room_id": 12}, {"room_id": 99}], **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_rooms_come_best_first_with_all_predictions_and_flags(client):
    answer = rank(client, user_id=1)
    assert {item["room_id"]: item["room_known"] for item in answer["ranked"]} == {11: True, 12: True, 99: False}
    scores = [item["score"] for item in answer["ranked"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    for item in answer["ranked"]:
        made = item["predictions"]
        assert list(made) == ["click", "goods_bag", "order", "stay"] and 0 < made["click"] < 1
        expected = 0.5 * made["click"] + 0.2 * made["goods_bag"] + made["order"] + 0.1 * np.log1p(made["stay"])
        assert item["score"] == pytest.approx(expected, rel=1e-6)
    assert answer["user_known"] and answer["model"] == "bundle" and answer["ignored"] == []
    assert set(answer["timing"]) == {"assemble_ms", "encode_ms", "model_ms", "total_ms", "batch"}
    assert not rank(client, user_id=5)["user_known"] and not rank(client)["user_known"]


def test_k_cuts_the_list_and_changes_nothing_else(client):
    all_of_them, best = rank(client, user_id=1)["ranked"], rank(client, user_id=1, k=2)["ranked"]
    assert best == all_of_them[:2] and rank(client, user_id=1, k=9)["ranked"] == all_of_them


def test_fusion_weights_decide_the_order(client):
    by_click = rank(client, user_id=1, fusion_weights={"click": 1})["ranked"]
    turned = rank(client, user_id=1, fusion_weights={"click": -1.0})["ranked"]
    assert [item["score"] for item in by_click] == [item["predictions"]["click"] for item in by_click]
    assert [item["room_id"] for item in turned] == [item["room_id"] for item in by_click][::-1]


def test_the_user_and_the_room_make_a_difference(client):
    alone = lambda **body: rank(client, candidates=[{"room_id": 11}], **body)["ranked"][0]["predictions"]["click"]
    assert len({alone(user_id=1), alone(user_id=2), alone(user_id=1, user={"user_entries": 1000})}) == 3


def test_a_room_is_scored_alike_in_any_company_and_order(client):
    one, other = {"room_id": 11}, {"room_id": 12}
    both = {item["room_id"]: item["score"] for item in rank(client, user_id=1, candidates=[one, other])["ranked"]}
    turned = {item["room_id"]: item["score"] for item in rank(client, user_id=1, candidates=[other, one])["ranked"]}
    assert both == pytest.approx(turned, rel=1e-6)
    assert rank(client, user_id=1, candidates=[one])["ranked"][0]["score"] == pytest.approx(both[11], rel=1e-6)


def test_texts_name_rooms_and_come_back_as_given(client):
    answer = rank(client, candidates=[{"room_id": "room-a"}, {"room_id": 2**53 + 1}])
    assert {item["room_id"] for item in answer["ranked"]} == {"room-a", 2**53 + 1}


@pytest.mark.parametrize(
    ("body", "loc", "message"),
    [
        ({}, ["body", "candidates"], "is missing"),
        ({"candidates": []}, ["body", "candidates"], "length >= 1"),
        ({"candidates": [{"room": 1}]}, ["body", "candidates", 0, "room_id"], "is missing"),
        (
            {"candidates": [{"room": 1}]},
            ["body", "candidates", 0, "room"],
            "known are: room_id, state, features",
        ),
        ({"candidates": [{"room_id": ""}]}, ["body", "candidates", 0, "room_id"], "`str` of length >= 1"),
        ({"candidates": [{"room_id": 1.5}]}, ["body", "candidates", 0, "room_id"], "expected `int | str`, got `float`"),
        ({"candidates": [{"room_id": True}]}, ["body", "candidates", 0, "room_id"], "got `bool`"),
        ({"candidates": [{"room_id": 2**63}]}, ["body", "candidates", 0, "room_id"], "`int` <= 9223372036854775807"),
        ({"candidates": [{"room_id": 7}, {"room_id": 7}]}, ["body", "candidates", 1, "room_id"], "7 is among the rooms twice"),
        ({"candidates": [{"room_id": place} for place in range(51)]}, ["body", "candidates"], "at most 50"),
        ({"at": 1_700_000_000}, ["body", "at"], "1700000000 is no time in ms"),
        ({"k": 0}, ["body", "k"], "`int` >= 1"),
        ({"K": 3}, ["body", "K"], "is no field here"),
        ({"format": "row"}, ["body", "format"], "invalid enum value 'row'"),
        ({"fusion_weights": {"klick": 1}}, ["body", "fusion_weights"], "klick; predicted are: click, goods_bag, order, stay"),
        ({"fusion_weights": {"click": 0}}, ["body", "fusion_weights"], "all fusion weights of what is predicted"),
        ({"fusion_weights": {"click": 2**128}}, ["body", "fusion_weights", "click"], "is beyond 3.4e+38"),
        ({"user": {"user_entries": "x"}}, ["body", "user", "user_entries"], "this column holds numbers"),
        ({"user": {"user_entries": [1]}}, ["body", "user", "user_entries"], "got `array`"),
        ({"histories": {"channels": [{"at": NOW + 1}]}}, ["body", "histories", "channels", 0, "at"], "not before"),
    ],
)
def test_bad_input_is_422_and_names_the_field(client, body, loc, message):
    if body and "candidates" not in body:
        body = {"candidates": [{"room_id": 11}], "at": NOW, **body}
    answer = client.post("/rank", json=body)
    assert answer.status_code == 422
    assert any(item["loc"] == loc and message in item["msg"] for item in answer.json()["detail"]), answer.text


@pytest.mark.parametrize("entries", [-3, -1e300, 1e300, 3.5e38])
def test_a_number_that_measures_nothing_is_missing_as_offline(client, entries):
    body = {"candidates": [{"room_id": 11}], "at": NOW}
    scores = [
        client.post("/rank", json={**body, "user": {"user_entries": value}}).json()["ranked"] for value in (entries, None)
    ]
    assert scores[0] == scores[1] and np.isfinite(scores[0][0]["score"])


def test_model_says_what_is_served_without_nan(client, tiny_schema):
    answer = client.get("/model").json()
    assert Schema.from_dict(answer["schema"]) == tiny_schema and answer["name"] == "bundle"
    assert answer["metrics"] == {"click": {"auc": 0.75, "auc_head": None}}
    assert answer["provenance"]["seed"] == 0 and answer["provenance"]["created"] and answer["provenance"]["versions"]["ray"]
    assert answer["store"] == {"prepared": "abc", "as_of": NOW}
    health = client.get("/healthz").json()
    assert health.pop("age_seconds") > 3600
    assert health == {"status": "ok", "model": "bundle", "as_of": NOW, "stale": False, "waiting": 0}


def test_model_tells_no_path_of_this_machine(parts, tiny_schema):
    prepared, _, store, folder = parts
    bundle = write_bundle(folder / "somewhere", tiny_schema, prepared.encoder)
    said = {"command": f"train --out {folder}/a --log=~ann/b", "files": {f"{folder}/c": [f"file://{folder}/d"]}, "e": "x/hour"}
    amend_provenance(bundle, "search", said)
    told = Endpoint.open(bundle, store, ServeConfig()).describe()["provenance"]["search"]
    assert told == {"command": "train --out a --log=b", "files": {"c": ["d"]}, "e": "x/hour"}


def test_a_model_that_gives_no_number_does_not_start_serving(parts, tiny_schema):
    prepared, _, store, folder = parts
    broken = write_bundle(folder / "broken", tiny_schema, prepared.encoder, broken=True)
    with pytest.raises(FloatingPointError, match="bundle broken gave a click that is not a finite number"):
        Endpoint.open(broken, store, ServeConfig())


def test_a_number_that_is_none_leaves_as_an_error_not_as_nan(parts):
    endpoint = Endpoint.open(parts[1], parts[2], ServeConfig())
    next(endpoint.bundle.ranker.parameters()).data.fill_(float("nan"))
    answer = TestClient(http_app(lambda: endpoint)).post("/rank", json={"candidates": [{"room_id": 11}]})
    assert answer.status_code == 500 and "is not a finite number" in answer.json()["detail"][0]["msg"]


def test_a_model_with_list_context_refuses_more_rooms_than_it_was_trained_on(parts, tiny_schema):
    prepared, _, _, folder = parts
    spelling = tiny_schema.to_dict()
    spelling["list_context"] = True
    spelling["fields"].append({"name": "size", "of": "feed", "column": "feed_size", "encoding": {"kind": "number"}})
    schema = Schema.from_dict(spelling)
    encoder = fit_encoder(prepared.features("train"), schema, entry_rate=0.1, clock=prepared.encoder.clock)
    assert encoder.largest_feed == 4
    endpoint = Endpoint.open(write_bundle(folder / "listwise", schema, encoder), None, ServeConfig())
    client = TestClient(http_app(lambda: endpoint))
    rooms = [{"room_id": place} for place in range(5)]
    assert len(rank(client, candidates=rooms[:4])["ranked"]) == 4
    answer = client.post("/rank", json={"candidates": rooms})
    assert answer.status_code == 422 and "has seen at most 4 at once in training" in answer.json()["detail"][0]["msg"]
    # of a batch, each is compared with its own rooms alone
    requests = [asked({"at": NOW, "candidates": rooms[:count]}) for count in (4, 1, 3)]
    for together, request in zip(endpoint.rank(requests), requests, strict=True):
        (alone,) = endpoint.rank([request])
        assert together.score_N == pytest.approx(alone.score_N, rel=2e-6)


def test_of_a_batch_an_error_is_that_of_one_request_alone(parts, monkeypatch):
    endpoint = Endpoint.open(parts[1], parts[2], ServeConfig())
    rooms = [{"room_id": 11}, {"room_id": 12}]
    wrong = [
        {"candidates": rooms, "fusion_weights": {"klick": 1}},
        {"candidates": [{"room_id": 11}, {"room_id": 11}]},
        {"candidates": rooms, "user": {"user_entries": "x"}},
        {"candidates": rooms, "fusion_weights": {"click": 3e38, "order": 3e38, "stay": 3e38, "goods_bag": 3e38}},
    ]
    requests = [asked({"at": NOW, "candidates": rooms, "user_id": 1}), *map(asked, wrong), asked({"candidates": rooms})]
    first, *refused, last = endpoint.rank(requests)
    (alone,) = endpoint.rank(requests[:1])
    assert first.score_N == pytest.approx(alone.score_N, rel=2e-6) and first.response.timing.batch == 4
    assert [error.where[1] for error in refused] == ["fusion_weights", "candidates", "user", "fusion_weights"]
    assert last.response.ranked[0].room_id in (11, 12) and endpoint.rank([]) == []

    predict = endpoint.bundle.ranker.predict

    def broken(batch):
        """Nobody can be answered together with user 5, and user 5 not at all; of user 6 a number is none."""
        if 5 in batch.user_R:
            raise RuntimeError("no")
        made = predict(batch)
        made["click"][(batch.user_R == 6)[batch.feed_of_candidate_N]] = float("nan")
        return made

    monkeypatch.setattr(endpoint.bundle.ranker, "predict", broken)
    users = [asked({"at": NOW, "candidates": rooms, "user_id": user}) for user in (1, 5, 6, 1)]
    one, five, six, again = endpoint.rank(users)
    assert one.score_N.tolist() == again.score_N.tolist() == alone.score_N.tolist()  # each was asked alone
    assert isinstance(five, RuntimeError) and isinstance(six, FloatingPointError)
    one, six, again = endpoint.rank([users[0], *users[2:]])
    assert isinstance(six, FloatingPointError) and one.response.timing.batch == again.response.timing.batch == 3


def test_a_store_of_another_schema_and_a_folder_without_bundle_are_refused(parts, tiny_schema):
    _, _, store, folder = parts
    spelling = tiny_schema.to_dict()
    spelling["levels"]["column"] = "room.size"
    schema = Schema.from_dict(spelling)
    features = random_feeds(schema, 10, 0)
    features = features.append_column("room.size", features["room_entries.life"])
    encoder = finish(fit_partial(features, schema, entry_rate=0.1, clock=Clock()), schema, entry_rate=0.1, clock=Clock())
    other = write_bundle(folder / "other", schema, encoder)
    with pytest.raises(ConfigError, match=r"lacks room.size, which the bundle's schema reads"):
        Endpoint.open(other, store, ServeConfig())
    with pytest.raises(ConfigError, match="there is no bundle"):
        Endpoint.open(folder / "nowhere", store, ServeConfig())


def test_online_equals_offline_bit_for_bit(parts, client):
    prepared = parts[0]
    endpoint = Endpoint.open(parts[1], parts[2], ServeConfig())
    found = check_parity(prepared, endpoint.bundle, lambda body: client.post("/rank", json=body).json(), feeds=30)
    assert found.feeds + found.skipped == 30 and found.feeds >= 10 and found.values == 5 * found.candidates
    assert found.unequal == 0 and found.largest_difference < 1e-5


def test_a_model_that_reads_stages_predicts_online_what_it_does_offline(tiny_schema, tmp_path):
    schema = replace(tiny_schema, stages=Stages(stay="stay"), preference_days=(7.0, 30.0))
    prepared = Prepared.open(write_prepared(tmp_path / "prepared", schema, feeds=40, seed=4))
    stages = {stage for file in prepared.files("test") for stage in pq.read_table(file)["stage"].to_pylist()}
    assert stages == {0, 1, 2, 3}
    bundle = write_bundle(tmp_path / "bundle", schema, prepared.encoder, model=SystemConfig(stage=True))
    endpoint = Endpoint.open(bundle, None, ServeConfig())
    client = TestClient(http_app(lambda: endpoint))
    found = check_parity(prepared, endpoint.bundle, lambda body: client.post("/rank", json=body).json(), feeds=40)
    assert found.feeds >= 10 and found.unequal == 0 and found.largest_difference < 1e-5

    def without_past(body):
        user = {name: value for name, value in body["user"].items() if not name.startswith("preference")}
        return client.post("/rank", json={**body, "user": user}).json()

    assert check_parity(prepared, endpoint.bundle, without_past, feeds=40).largest_difference > 1e-3


def test_parity_notices_a_difference_in_the_last_bit(parts, client):
    endpoint = Endpoint.open(parts[1], parts[2], ServeConfig())

    def off_by_one_bit(body):
        answer = client.post("/rank", json=body).json()
        made = answer["ranked"][0]["predictions"]
        made["click"] = float(np.nextafter(np.float32(made["click"]), np.float32(1)))
        return answer

    found = check_parity(parts[0], endpoint.bundle, off_by_one_bit, feeds=30)
    assert found.unequal == found.feeds

    def without_history(body):
        return client.post("/rank", json={**body, "histories": {}, "user_id": None}).json()

    assert check_parity(parts[0], endpoint.bundle, without_history, feeds=30).largest_difference > 1e-3


def test_a_bundle_may_be_served_with_every_feature_inline(parts):
    endpoint = Endpoint.open(parts[1], None, ServeConfig())
    client = TestClient(http_app(lambda: endpoint))
    given = {"streamer_id": 3, "room.category": "c1", "room_entries.life": 4, "room_impressions.life": 90}
    answer = rank(
        client,
        user={"user_entries": 4},
        histories={"products": [{"at": NOW - 1, "product_id": 7}]},
        candidates=[{"room_id": 11, "state": {"product_id": 7}, "features": given}],
    )
    assert answer["user_known"] and answer["ranked"][0]["room_known"]


def test_config_is_checked():
    with pytest.raises(ValueError, match="serve needs replicas >= 1 or `auto`, got 0"):
        ServeConfig(replicas=0)
    with pytest.raises(ValueError, match="serve needs timeout_seconds > 0, got 0"):
        ServeConfig(timeout_seconds=0)
    with pytest.raises(ValueError, match="0 < port < 65536, got 70000"):
        ServeConfig(port=70000)
