"""What stages decide between a search and a training, and between prepared tables and a changed experiment."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.config import ConfigError, from_dict, overlaid, to_dict
from models.schema import Schema
from pipelines.encode.contract import differences, obstacles
from pipelines.experiment import Experiment, load_experiment
from pipelines.prepared import Prepared
from pipelines.report.search.graphs import StructureResult, Tried
from pipelines.report.search.trials import SearchResult, Trial
from pipelines.steps import search_plan, searched_of, with_best
from pipelines.tune.search import identity_of as settings_identity
from pipelines.tune.search import run_of
from pipelines.tune.structure.graphs import EMPTY
from pipelines.tune.structure.problem import identity as structure_identity
from pipelines.tune.structure.problem import posed_of, with_parents
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema, tiny_schema

QUICKSTART = Path(__file__).parents[2] / "jobs" / "configs" / "quickstart.yaml"


def test_the_best_settings_replace_a_section_of_another_kind_whole():
    experiment = load_experiment(QUICKSTART)
    values = {"train.optimiser.dense.kind": "adagrad", "train.optimiser.dense.rate": 0.02, "model.system": "ple"}
    trial = Trial(number=1, id="a", status="done", values=values, score=0.7, best_epoch=1, epochs=1, seconds=1.0)
    found = SearchResult(trials=[trial], best=trial, bundle_path=Path(), metric="click.auc", folder=Path(), fresh=True)
    best = with_best(experiment, found)
    assert best.train.optimiser.dense.kind == "adagrad" and best.train.optimiser.dense.rate == 0.02
    assert best.system.fusion.kind == "ple"
    assert best.schema == experiment.schema and best.train.batch_feeds == experiment.train.batch_feeds


def test_a_found_graph_is_the_schema_to_go_on_with():
    experiment = load_experiment(QUICKSTART)
    schema = with_parents(experiment.schema, {"order": ("click",)})
    graph = Tried(number=1, graph=EMPTY, round=0, change="start", scores=(0.7,))
    found = StructureResult(
        found=graph,
        schema=schema,
        tried=(graph,),
        steps=(),
        tolerance=0.0,
        final=(),
        final_seeds=(0,),
        final_error=None,
        final_tolerance=0.0,
        over_budget=False,
        bundle_path=Path(),
        metric="auc",
        folder=Path(),
        fresh=True,
    )
    best = with_best(experiment, found)
    assert best.schema.parents("order") == ("click",) and replace(best, schema=experiment.schema) == experiment


def test_a_finished_search_is_reported(tmp_path):
    spelling = {"name": "x", "output": str(tmp_path), "schema": tiny_schema().to_dict(), "logs": {"kind": "simulate"}}
    experiment = from_dict(Experiment, spelling)
    winner, other = SimpleNamespace(provenance={"structure": {}}), SimpleNamespace(provenance={"seed": 0})
    assert searched_of(experiment, [winner]) is None
    folder = tmp_path / "x" / "search"
    folder.mkdir(parents=True)
    (folder / "structure.json").write_text('{"summary": ["Found"]}')
    found = searched_of(experiment, [other, winner])
    assert (found.summary, found.table.name, found.picture.name) == (("Found",), "structure.csv", "structure.png")
    assert searched_of(experiment, [other]) is None  # it was trained otherwise


SPACE = {"space": {"train.epochs": {"type": "int", "low": 1, "high": 2}}}
STRUCTURE = {"structure": {"targets": ["click", "order"]}}


def identity_of(experiment):
    prepared, tune = experiment.folder / "prepared", experiment.tune
    if tune.structure is None:
        return settings_identity(to_dict(experiment), Prepared.open(prepared, schema=experiment.schema), tune)
    return structure_identity(posed_of(to_dict(experiment), prepared, tune, experiment.folder / "search").problem)


@pytest.mark.parametrize(("tune", "result"), [(SPACE, "search.json"), (STRUCTURE, "structure.json")])
def test_going_on_and_starting_anew_are_said_and_insisted_upon(tmp_path, tune, result):
    fabricate(tmp_path / "x" / "prepared")
    model = {"system": "dbmtl", "embedding_width": 4}
    spelling = {"name": "x", "output": str(tmp_path), "schema": tiny_schema().to_dict(), "logs": {"kind": "simulate"}}
    experiment = from_dict(Experiment, {**spelling, "model": model, "tune": tune})
    fresh = search_plan(experiment)
    assert "2 targets" in fresh[0] if tune == STRUCTURE else "8 trials" in fresh[0]
    with pytest.raises(ConfigError, match=r"there is no search at .* to go on with. Start one without --resume"):
        search_plan(experiment, resume=True)
    run_of(tmp_path / "x" / "search").begin(identity_of(experiment), way_out="")
    assert search_plan(experiment)[:-1] == search_plan(experiment, resume=True)[:-1] == fresh
    told = search_plan(experiment)[-1]
    assert "a search that was stopped: 0 trainings" in told and told.endswith("Going on with it; for a new one say --restart.")
    assert search_plan(experiment, restart=True)[-1].endswith("It is thrown away.")
    (tmp_path / "x" / "search" / result).touch()
    assert "holds a finished search. Going on" in search_plan(experiment)[-1]
    (tmp_path / "x" / "search" / "run.json").write_text(json.dumps({**identity_of(experiment), "data": "a"}))
    assert search_plan(experiment, restart=True)
    with pytest.raises(ConfigError, match=r"run with other settings: data \(.a. -> .fabricated-.*another `name`.*--restart"):
        search_plan(experiment)
    with pytest.raises(ConfigError, match=r"--resume goes on .* --restart throws it away; give one of them"):
        search_plan(experiment, resume=True, restart=True)


def changed(schema: Schema, place: int = 0, /, **of_target) -> Schema:
    spelling = schema.to_dict()
    spelling["targets"][place] = overlaid(spelling["targets"][place], of_target)
    return Schema.from_dict(spelling)


def test_weights_of_targets_need_no_new_preparation_but_labels_do(tiny_schema):
    weighted = changed(tiny_schema, loss_weight=0.5, fusion_weight=2.0)
    assert differences(tiny_schema, changed(weighted, 3, head="bins", bins=5, parents=["order"])) == []
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
    assert differences(tiny_schema, turned) == obstacles(tiny_schema, turned) == ["the order of fields"]


def test_fewer_targets_and_no_stages_can_still_be_read():
    there, here = full_schema(), full_schema().to_dict()
    here["targets"], here["stages"] = here["targets"][1::-1], None
    here["targets"][0]["parents"] = []
    fewer = Schema.from_dict(here)
    assert obstacles(there, fewer) == []
    missing = [*(f"target `{name}`" for name in ("order", "stay", "follow", "visit", "price")), "stages"]
    assert differences(there, fewer) == missing and obstacles(fewer, there) == missing
