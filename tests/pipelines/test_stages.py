"""What stages decide between a search and a training, and between prepared tables and a changed experiment."""

from pathlib import Path

from models.config import overlaid
from models.schema import Schema
from pipelines.config import load_experiment
from pipelines.stages import _differing, with_best

QUICKSTART = Path(__file__).parents[2] / "jobs" / "configs" / "quickstart.yaml"


def test_the_best_settings_replace_a_section_of_another_kind_whole():
    experiment = load_experiment(QUICKSTART)
    values = {"train.optimiser.dense.kind": "adagrad", "train.optimiser.dense.rate": 0.02, "model.system": "ple"}
    best = with_best(experiment, values)
    assert best.train.optimiser.dense.kind == "adagrad" and best.train.optimiser.dense.rate == 0.02
    assert best.ranker.fusion.kind == "ple"
    assert best.schema == experiment.schema and best.train.batch_feeds == experiment.train.batch_feeds


def changed(schema: Schema, **of_first_target) -> Schema:
    spelling = schema.to_dict()
    spelling["targets"][0] = overlaid(spelling["targets"][0], of_first_target)
    return Schema.from_dict(spelling)


def test_weights_of_targets_need_no_new_preparation_but_labels_do(tiny_schema):
    assert _differing(tiny_schema, changed(tiny_schema, loss_weight=0.5, fusion_weight=2.0)) == []
    assert _differing(tiny_schema, changed(tiny_schema, at_least=30.0)) == ["targets"]
    assert _differing(tiny_schema, changed(tiny_schema, attribution_seconds=60.0)) == ["targets"]
