"""Words of Python, of torch and of tables as names, from the log to the report and the answer of the endpoint."""

import json
from pathlib import Path

import pytest

from models.config import ConfigError, from_dict
from models.schema import Schema
from pipelines.encode.feeds import feeds_schema
from pipelines.experiment import Experiment
from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.example import as_table, example_request
from pipelines.serve.store import Store
from pipelines.steps import bundle_of, evaluate_step, prepare_step, register_step, store_of, train_step

VOCABULARY = {"kind": "vocabulary", "min_count": 1}
TARGETS = ("forward", "items", "loss", "label")
SCHEMA = {
    "targets": [
        {"name": "forward", "action": "enter", "fusion_weight": 1.0},
        {"name": "items", "action": "order", "parents": ["forward"], "fusion_weight": 1.0},
        {"name": "loss", "action": "follow", "parents": ["forward"]},
        {"name": "label", "action": "enter", "kind": "value", "head": "bins", "bins": 4, "parents": ["forward"]},
    ],
    "fields": [
        {"name": "type", "of": "feed", "column": "user.age_band", "encoding": VOCABULARY},
        {"name": "index", "of": "feed", "column": "user_id", "encoding": {"kind": "hash", "buckets": 50}},
        {"name": "class", "of": "candidate", "column": "streamer_id", "encoding": VOCABULARY},
        {"name": "values", "of": "candidate", "column": "state.viewers", "encoding": {"kind": "number", "transform": "log1p"}},
        {"name": "None", "of": "candidate", "column": "state.product_id", "encoding": VOCABULARY},
    ],
    "histories": [
        {
            "name": "label",
            "events": "engagements",
            "length": 5,
            "fields": [{"name": "train", "column": "streamer_id", "table": "class", "encoding": VOCABULARY}],
        },
        {
            "name": "feed",
            "events": "product_clicks",
            "length": 5,
            "fields": [{"name": "len", "column": "product_id", "table": "None", "encoding": VOCABULARY}],
        },
    ],
}


def experiment_with(output: Path, schema: dict) -> Experiment:
    spelling = {
        "name": "class",
        "output": str(output),
        "logs": {"kind": "simulate", "users": 60, "days": 4, "seed": 1},
        "schema": schema,
        "prepare": {"valid_days": 1, "test_days": 1, "parallel": "none"},
        "model": {"system": "din"},
        "train": {"epochs": 1, "max_steps": 3, "batch_feeds": 32},
        "evaluate": {"baselines": ["popularity"]},
    }
    return from_dict(Experiment, spelling)


def test_words_that_others_use_are_names_all_the_way(tmp_path):
    experiment = experiment_with(tmp_path, SCHEMA)
    prepare_step(experiment)
    register_step(experiment, train_step(experiment).bundle_path)
    page = evaluate_step(experiment, [bundle_of(experiment)])
    metrics = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))
    assert [*metrics["entries"][0]["result"]["targets"]] == [*TARGETS]
    store = Store(store_of(experiment))
    try:
        endpoint = Endpoint.open(bundle_of(experiment).path, store, ServeConfig())
        request = example_request(prepare_step(experiment))
        answer = endpoint.ask(request)
    finally:
        store.close()
    assert [*answer["ranked"][0]["predictions"]] == [*TARGETS]
    assert "forward" in as_table(answer)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"field": "level"}, "the feed table would have two columns `level`"),
        ({"field": "at"}, "the feed table would have two columns `at`"),
        ({"history_field": "forward"}, "the feed table would have two columns `label.forward`"),
        ({"target": "mean"}, "no target may be named `mean`"),
    ],
)
def test_names_that_two_things_would_have_are_refused_when_the_file_is_read(tmp_path, change, told):
    spelling = json.loads(json.dumps(SCHEMA))
    for what, name in change.items():
        match what:
            case "field":
                spelling["fields"][0]["name"] = name
            case "history_field":
                spelling["histories"][0]["fields"][0]["name"] = name
            case "target":
                spelling["targets"][2]["name"] = name
    with pytest.raises(ConfigError, match=told):
        experiment_with(tmp_path, spelling)
    if "target" not in change:
        with pytest.raises(ConfigError, match=told):
            feeds_schema(Schema.from_dict(spelling))
