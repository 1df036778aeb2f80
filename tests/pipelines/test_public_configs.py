"""Every public data set by its shipped config alone: checked, prepared, trained on, judged, and asked through the endpoint."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.benches.lookalikes import LOOKALIKES
from pipelines.bundle import load_bundle
from pipelines.experiment import load_experiment
from pipelines.logs import DATA_SETS
from pipelines.report.evaluation import write
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.parity import check_parity
from pipelines.serve.store import Store
from pipelines.steps import check_step, evaluate_step, prepare_step, store_of, train_step
from tests.test_layering import ROOT

SHARES = {
    "kuailive": 1e-4,
    "kuailive_m3": 2e-5,
    "kuairand": 1e-5,
    "taobao": 4e-5,
    "wechat2021": 5e-4,
    "csv": 3e-4,
    "ali_ccp": 1e-4,
}
SAYS_WHEN_LIVE = ("kuailive", "kuailive_m3")  # whose tables of rooms have starts and ends


def test_every_data_set_has_a_config_and_a_look_alike():
    assert {*SHARES, "ebnerd"} == {*LOOKALIKES, "ebnerd"} == set(DATA_SETS)


@pytest.mark.parametrize("kind", SHARES)
def test_from_files_to_an_answer(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(write, "html", lambda *_: "")  # its pictures take longer than all else here
    folder = tmp_path / "in"
    folder.mkdir()
    LOOKALIKES[kind](folder, SHARES[kind], days=4)
    small = [f"logs.path={folder}", f"output={tmp_path}", "prepare.parallel=none", "train.epochs=1", "train.batch_feeds=64"]
    config = ROOT / "jobs" / "configs" / f"{kind}.yaml"
    candidates = "live" if kind in SAYS_WHEN_LIVE else "logged"
    more = ["evaluate.baselines=[popularity]", f"evaluate.candidates={candidates}"]
    experiment = load_experiment(config, [*small, *more])
    checked = check_step(experiment)
    assert not [(finding.kind, finding.told) for finding in checked.findings if finding.severity == "high"]

    prepared = prepare_step(experiment)
    feeds = pq.read_table(prepared.files("train"))
    for target in experiment.schema.targets:
        label_N = np.concatenate(feeds[f"label.{target.name}"].to_numpy())
        assert 0 < (label_N > 0).mean() < (0.9 if target.is_binary else 2), target.name
    for history in experiment.schema.histories:
        assert any(len(entries) > 1 for entries in feeds[f"{history.name}.{history.fields[0].name}"].to_pylist()), history.name

    bundle = train_step(experiment).bundle_path
    report = evaluate_step(experiment, [load_bundle(bundle)])
    metrics = json.loads((report.parent / "metrics.json").read_text())
    (model,) = [entry for entry in metrics["entries"] if entry["role"] == "model"]
    assert set(model["result"]["targets"]) == {target.name for target in experiment.schema.targets}
    if kind in SAYS_WHEN_LIVE:
        assert metrics["live"]["sample"]["entries"] > 10
        orders = {name: set(found) for name, found in metrics["live"]["ranks"].items()}
        assert orders == {model["name"]: {"click", "fused"}, "chance": {"chance"}, "popularity": {"popularity"}}

    endpoint = Endpoint.open(bundle, Store(store_of(experiment)), experiment.serve)
    parity = check_parity(prepared, load_bundle(bundle), endpoint.ask, feeds=20)
    assert parity.feeds >= 5 and parity.unequal == 0  # feeds that show a room twice are no request
