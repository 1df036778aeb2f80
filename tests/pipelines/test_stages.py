"""What stages decide between a search and a training, and between prepared tables and a changed experiment."""

from pathlib import Path

from models.config import overlaid
from models.schema import Schema
from pipelines.config import load_experiment
from pipelines.prepare.deciding import differences, unreadable
from pipelines.stages import with_best
from tests.samples import full_schema

QUICKSTART = Path(__file__).parents[2] / "jobs" / "configs" / "quickstart.yaml"


def test_the_best_settings_replace_a_section_of_another_kind_whole():
    experiment = load_experiment(QUICKSTART)
    values = {"train.optimiser.dense.kind": "adagrad", "train.optimiser.dense.rate": 0.02, "model.system": "ple"}
    best = with_best(experiment, values)
    assert best.train.optimiser.dense.kind == "adagrad" and best.train.optimiser.dense.rate == 0.02
    assert best.ranker.fusion.kind == "ple"
    assert best.schema == experiment.schema and best.train.batch_feeds == experiment.train.batch_feeds


def changed(schema: Schema, place: int = 0, /, **of_target) -> Schema:
    spelling = schema.to_dict()
    spelling["targets"][place] = overlaid(spelling["targets"][place], of_target)
    return Schema.from_dict(spelling)


def test_weights_of_targets_need_no_new_preparation_but_labels_do(tiny_schema):
    weighted = changed(tiny_schema, loss_weight=0.5, fusion_weight=2.0)
    assert differences(tiny_schema, changed(weighted, 3, transform="none", bins=5, parents=["order"])) == []
    assert differences(tiny_schema, changed(tiny_schema, at_least=30.0)) == ["target `click`"]
    assert differences(tiny_schema, changed(tiny_schema, attribution_seconds=60.0)) == ["target `click`"]


def test_all_that_decides_tables_is_named(tiny_schema):
    spelling = tiny_schema.to_dict()
    spelling["fields"][1]["encoding"]["min_count"] = 7
    spelling["fields"][2]["width"] = None
    spelling["histories"][0]["fields"][0]["width"] = spelling["fields"][3]["width"] = 32  # one table: room
    spelling["histories"][1]["length"] = 3
    spelling["preference_days"] = [7.0, 30.0]
    spelling["stages"] = {"click": "click", "stay": "stay", "order": "order"}
    other = Schema.from_dict(spelling)
    assert differences(tiny_schema, other) == ["field `hour`", "history `products`", "preference_days", "stages"]
    turned = Schema.from_dict({**tiny_schema.to_dict(), "fields": tiny_schema.to_dict()["fields"][::-1]})
    assert differences(tiny_schema, turned) == unreadable(tiny_schema, turned) == ["the order of fields"]


def test_fewer_targets_and_no_stages_can_still_be_read():
    there, here = full_schema(), full_schema().to_dict()
    here["targets"], here["stages"] = here["targets"][1::-1], None
    here["targets"][0]["parents"] = []
    fewer = Schema.from_dict(here)
    assert unreadable(there, fewer) == []
    assert differences(there, fewer) == ["target `order`", "target `stay`", "target `follow`", "target `visit`", "stages"]
    assert unreadable(fewer, there) == ["target `order`", "target `stay`", "target `follow`", "target `visit`", "stages"]
