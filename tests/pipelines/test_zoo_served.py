"""Every system of the zoo by its name: trained, saved, loaded, and asked over HTTP in this process."""

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.weightings.fixed import FixedConfig
from models.zoo import ZOO, resolve
from pipelines.bundle import load_bundle
from pipelines.encode.batches import to_batch
from pipelines.encode.encode import encode
from pipelines.encode.feeds import LABEL_PREFIX
from pipelines.prepared import Prepared
from pipelines.serve import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.http import http_app
from pipelines.serve.parity import check_parity, request_of
from pipelines.serve.store import Store, build_store
from pipelines.train import TrainConfig, train
from tests.pipelines.serve_samples import NOW, as_table, asked, assembled, write_bundle, write_prepared
from tests.pipelines.test_encode import random_feeds
from tests.samples import full_schema

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather see another HTTP library
    from fastapi.testclient import TestClient

TARGETS = ["click", "goods_bag", "order", "stay", "follow", "visit", "price"]
PROBABILITIES = ["click", "goods_bag", "order", "follow"]
BODY = {"user_id": 1, "at": NOW, "candidates": [{"room_id": 11}, {"room_id": 12}, {"room_id": 99}]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    schema = full_schema()
    features = with_labels(random_feeds(schema, 40, seed=0).drop_columns("label.click"))
    return Prepared.open(write_prepared(tmp_path_factory.mktemp("zoo") / "prepared", schema, features=features))


@pytest.fixture(scope="module")
def store(prepared, tmp_path_factory):
    opened = Store(build_store(prepared, tmp_path_factory.mktemp("zoo") / "store"))
    yield opened
    opened.close()


def with_labels(features: pa.Table) -> pa.Table:
    """Labels along the target graph; values are seconds."""
    rng = np.random.default_rng(0)
    offsets = features["room_id"].combine_chunks().offsets
    labels: dict[str, np.ndarray] = {}
    for target in full_schema().targets_parents_first:
        happened = rng.random(offsets[-1].as_py()) < 0.5
        for parent in target.parents:
            happened = happened & (labels[parent] > 0)
        labels[target.name] = np.where(happened, 1.0 if target.is_binary else rng.exponential(60, len(happened)), 0.0)
    for name, values in labels.items():
        cut = pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.float32)))
        features = features.append_column(LABEL_PREFIX + name, cut)
    return features


def served(bundle: Path, store: Store) -> TestClient:
    endpoint = Endpoint.open(bundle, store, ServeConfig())
    return TestClient(http_app(lambda: endpoint))


@pytest.mark.parametrize("name", ZOO)
def test_every_system_is_trained_by_name_and_served(prepared, store, tmp_path, name):
    config = TrainConfig(epochs=1, max_steps=2, batch_feeds=16)
    trained = train(prepared, resolve({"system": name}), config, output=tmp_path, say=lambda line: None)
    bundle = load_bundle(trained.bundle_path)
    learnt = [target for target in TARGETS if bundle.system.weighting != FixedConfig(targets="roots") or target == "click"]
    assert bundle.system == ZOO[name] and [*bundle.metrics["targets"]] == learnt
    compared = bundle.ranker.together.names if bundle.ranker.together else ()
    assert trained.history[0].losses.keys() == {*TARGETS, *bundle.ranker.penalties, *compared}

    client = served(trained.bundle_path, store)
    answer = client.post("/rank", json=BODY)
    assert answer.status_code == 200, answer.text
    ranked = {item["room_id"]: item["predictions"] for item in answer.json()["ranked"]}
    features = as_table(assembled(bundle.schema, store, BODY).feeds)
    with torch.inference_mode():
        expected = bundle.ranker.predict(to_batch(encode(features, bundle.schema, bundle.encoder), bundle.schema))
    for place, room in enumerate((11, 12, 99)):
        assert ranked[room] == {target: expected[target][place].item() for target in learnt}
    assert all(0 < made[target] < 1 for made in ranked.values() for target in learnt if target in PROBABILITIES)
    assert all(made[target] >= 0 for made in ranked.values() for target in learnt if target not in PROBABILITIES)
    if bundle.system.coupling.kind == "esmm":  # the funnel holds by its making
        assert all(made["order"] < made["goods_bag"] < made["click"] > made["follow"] for made in ranked.values())

    found = check_parity(prepared, bundle, lambda body: client.post("/rank", json=body).json(), feeds=8)
    assert found.feeds >= 3 and found.unequal == 0 and found.largest_difference < 1e-5
    check_company(Endpoint.open(trained.bundle_path, store, ServeConfig()), prepared)


def check_company(endpoint: Endpoint, prepared: Prepared) -> None:
    """An answer does not depend on who else is in the batch: known and unknown users, none at all, empty histories."""
    feeds = pq.read_table(prepared.features("test")[0])
    bodies = [request_of(feeds.slice(row, 1), prepared.schema) for row in range(6)]
    bodies = [{**body, "candidates": [*{item["room_id"]: item for item in body["candidates"]}.values()]} for body in bodies]
    bodies += [BODY, {**BODY, "user_id": 77}, {"at": NOW, "candidates": [{"room_id": room} for room in range(100, 140)]}]
    bodies.append({**BODY, "histories": {"channels": [], "products": []}})
    requests = [asked(body) for body in bodies]
    for answer, request in zip(endpoint.rank(requests), requests, strict=True):
        (alone,) = endpoint.rank([request])
        for name, values_N in {**answer.predictions, "score": answer.score_N}.items():
            expected_N = alone.score_N if name == "score" else alone.predictions[name]
            small = 1e-3 if name in (*PROBABILITIES, "score") else 1.0
            assert (np.abs(values_N - expected_N) <= 2e-6 * np.maximum(np.abs(expected_N), small)).all(), name


def test_the_stage_of_a_stored_user_matters_to_a_system_that_reads_it(prepared, store, tmp_path):
    """Without clicks the user is new; the bundle's other inputs are the same."""
    config = TrainConfig(epochs=1, max_steps=2, batch_feeds=16)
    said = {}
    for name in ("ple", "ple_stage"):
        trained = train(prepared, resolve({"system": name}), config, output=tmp_path / name, say=lambda line: None)
        client = served(trained.bundle_path, store)
        asked = [client.post("/rank", json={**BODY, "user": user}) for user in ({}, {"preference.click": 0.0})]
        assert all(answer.status_code == 200 for answer in asked), asked[1].text
        said[name] = [answer.json()["ranked"] for answer in asked]
    assert said["ple"][0] == said["ple"][1] and said["ple_stage"][0] != said["ple_stage"][1]


def test_one_answer_holds_predictions_of_every_level(prepared, store, tmp_path):
    """Rankers of levels that know nothing of each other: each candidate is answered by that of its level."""
    bundle_path = write_bundle(tmp_path / "bundle", prepared.schema, prepared.encoder, model=resolve({"system": "mmoe_cmlir"}))
    bundle = load_bundle(bundle_path)
    levels = bundle.encoder.level.levels.tolist()
    owner = f"{bundle.schema.levels.of}_id"
    rooms = [
        {"room_id": room, "features": {owner: int(bundle.encoder.level.owners.values[levels.index(level) - 1])}}
        for room, level in ((11, 2), (12, 1), (99, 2))
    ]
    body = {**BODY, "candidates": rooms}
    features = as_table(assembled(bundle.schema, store, body).feeds)
    batch = to_batch(encode(features, bundle.schema, bundle.encoder), bundle.schema)
    assert batch.level_N.tolist() == [2, 1, 2]
    answer = served(bundle_path, store).post("/rank", json=body)
    ranked = {item["room_id"]: item["predictions"]["click"] for item in answer.json()["ranked"]}
    with torch.inference_mode():
        by_level = [each.predict(batch)["click"] for each in bundle.ranker.rankers]
    for place, (room, level) in enumerate(zip((11, 12, 99), batch.level_N.tolist(), strict=True)):
        assert ranked[room] == pytest.approx(by_level[level][place].item(), rel=1e-5)
        assert all(abs(ranked[room] - other[place].item()) > 1e-3 for n, other in enumerate(by_level) if n != level)
