"""The search's checks, tables and registry without Ray."""

import csv
import json
import multiprocessing
from pathlib import Path

import pytest

from models.config import ConfigError, from_dict
from models.ranker import Ranker
from models.zoo import resolve
from pipelines.bundle import load_bundle
from pipelines.train import TrainConfig, train
from pipelines.train.monitor import Monitor
from pipelines.tune import TuneConfig, latest, register
from pipelines.tune.config import MOST_CHECKED, check_space, checked, configs
from pipelines.tune.folder import claim
from pipelines.tune.picture import draw
from pipelines.tune.search import Trial, _trial, _write_tables, search
from tests.pipelines.fabricate import fabricate
from tests.samples import TABLE_SIZES, full_schema

MODEL = {"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}}
RATE = "train.optimiser.dense.rate"


def tune(space, **more):
    return from_dict(TuneConfig, {"space": space, **more}, where="tune")


def choice(*values):
    return {"type": "choice", "values": list(values)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    prepared = fabricate(folder / "data")
    config = TrainConfig(epochs=2, batch_feeds=64)
    return prepared, train(prepared, resolve(MODEL), config, output=folder / "run", say=lambda line: None)


# -- what a search may be told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.fusion.expertz": choice(2)}, r"model\.fusion\.expertz = 2: .*expertz` is not a known key.*experts, hidden"),
        ({"train.optimizer.rate": choice(1)}, r"`train\.optimizer` is not a known key. Known here: .*optimiser"),
        ({"model.fusion.experts": choice(4, "many")}, r"experts = 'many': .*should be a valid integer"),
        ({"train.epochs": {"type": "int", "low": 0, "high": 3}}, r"train\.epochs = 0: .*must be at least 1, got 0"),
        ({"model.embedding_width": {"type": "uniform", "low": 4, "high": 8.5}}, r"embedding_width` is 8\.5"),
        ({"model.system": choice("mmoe", "mmoo")}, r"'mmoo', which is not in the zoo\. Systems: wdl, din"),
        (
            {"model.system": choice("mmoe", "esmm"), "model.fusion.experts": choice(2, 4)},
            r"model\.system = 'esmm', model\.fusion\.experts = 2: .*experts` is not a known key",
        ),
        ({}, r"tune\.space is empty"),
    ],
)
def test_what_the_experiment_does_not_allow_is_told_before_the_search(tiny_schema, space, message):
    with pytest.raises(ConfigError, match=message):
        check_space({"model": {"system": "mmoe"}}, tune(space), tiny_schema)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"space": {"schema.levels": choice(1)}}, r"`schema\.levels` cannot be searched over; write model\.\* or train\.\*"),
        ({"space": {"train.workers": choice(1)}}, r"`train\.workers` says how a trial is run"),
        ({"space": {RATE: {"type": "loguniform", "low": 0, "high": 1}}}, "needs 0 < low < high, got 0.0 and 1.0"),
        ({"space": {RATE: {"type": "normal", "low": 0, "high": 1}}}, "'choice', 'uniform', 'loguniform', 'int'"),
        ({"space": {RATE: choice()}}, "at least one value"),
        ({"metric": "click.uac"}, r"tune\.metric: no metric `click\.uac`"),
        ({"metric": "click.calibration"}, "neither to be large nor small"),
        ({"trails": 3}, r"`tune\.trails` is not a known key\. Known here: trials"),
        ({"reduction": 1}, "reduction must be at least 2, got 1"),
    ],
)
def test_a_wrong_search_cannot_be_configured(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TuneConfig, spelling, where="tune")


UNIFORM = lambda low, high: {"type": "uniform", "low": low, "high": high}


@pytest.mark.parametrize(
    ("model", "space", "message"),
    [
        ({"system": "pimm"}, {"model.coupling.alfa": UNIFORM(0, 1)}, r"alfa = 0\.0: .*alfa` is not a known key.*alpha, decay"),
        ({"system": "pimm"}, {"model.coupling.alpha": UNIFORM(0.5, 1.5)}, r"alpha = 1\.5: .*floor <= alpha <= 1, got .*1\.5"),
        (
            {"system": "aitm"},
            {"model.coupling.alpha": UNIFORM(0, 1)},
            r"alpha` is not a known key. Known here: kind, calibrator",
        ),
        ({"system": "stan"}, {"model.weighting.window": choice(7.0, 14.0)}, r"window = 14\.0: .*14\.0 days, .*\[7\.0, 30\.0\]"),
        ({"system": "ple"}, {"model.weighting.window": choice(7.0)}, r"window` is not a known key. Known here: kind"),
    ],
)
def test_settings_of_couplings_and_weightings_are_checked_against_system_and_schema(model, space, message):
    with pytest.raises(ConfigError, match=message):
        check_space({"model": model}, tune(space), full_schema())


def test_settings_of_couplings_and_weightings_reach_the_ranker():
    """The settings of the papers' curricula, at both ends, and the window that a weighting looks at."""
    schema = full_schema()
    space = {
        "alpha": UNIFORM(0.5, 1),
        "decay": UNIFORM(0.1, 0.5),
        "floor": UNIFORM(0, 0.5),
        "pace": choice("epoch", "continuous"),
    }
    config = tune({f"model.coupling.{name}": item for name, item in space.items()})
    check_space({"model": {"system": "pimm"}}, config, schema)
    values = {"model.coupling.alpha": 0.75, "model.coupling.decay": 0.125, "model.coupling.floor": 0.25}
    model, _ = checked({"model": {"system": "pimm"}}, values, config, schema)
    coupling = Ranker(schema, model, TABLE_SIZES).coupling
    assert [coupling.probability(epochs) for epochs in (0, 1, 2.5, 9)] == [0.75, 0.625, 0.5, 0.25]

    config = tune({"model.weighting.window": choice(*schema.preference_days)})
    check_space({"model": {"system": "stan"}}, config, schema)
    windows = [
        Ranker(schema, checked({"model": {"system": "stan"}}, {"model.weighting.window": days}, config, schema)[0], TABLE_SIZES)
        for days in (7.0, 30.0)
    ]
    assert [ranker.weighting.window for ranker in windows] == [0, 1]


def test_values_that_only_some_others_go_with_may_be_searched_over():
    """floor <= alpha: a floor of .5 goes with the higher alpha alone; one of .75 goes with none."""
    alpha, floor = "model.coupling.alpha", "model.coupling.floor"
    spelling = {"model": {"system": "pimm"}}
    check_space(spelling, tune({alpha: UNIFORM(0.25, 0.5), floor: choice(0.0, 0.5)}), full_schema())
    check_space(spelling, tune({alpha: choice(0.25, 0.5), floor: choice(0.0, 0.5), RATE: UNIFORM(0.1, 0.2)}), full_schema())
    for values in (choice(0.25, 0.5), UNIFORM(0.25, 0.5)):
        with pytest.raises(ConfigError, match=r"alpha = 0\.25, .*floor = 0\.75: .*floor <= alpha <= 1, got floor=0\.75, alpha"):
            check_space(spelling, tune({alpha: values, floor: choice(0.0, 0.75)}), full_schema())
    tenths = choice(*(place / 10 for place in range(1, 11)))
    assert MOST_CHECKED < 100  # of these combinations, and a floor of 1 goes with an alpha of 1 alone
    check_space(spelling, tune({alpha: tenths, floor: tenths}), full_schema())


def test_more_grace_than_epochs_is_refused(tiny_schema):
    with pytest.raises(ConfigError, match=r"grace_epochs is 5, but trials have only train\.epochs=2"):
        check_space({"train": {"epochs": 2}}, tune({RATE: choice(0.1)}, grace_epochs=5), tiny_schema)


def test_many_choices_are_sampled(tiny_schema):
    space = {f"model.{name}": choice(*range(4, 12)) for name in ("embedding_width", "fusion.experts")}
    space["model.fusion.hidden"] = choice([8], [8, 4], [4])
    assert MOST_CHECKED < 8 * 8 * 3
    check_space({"model": {"system": "mmoe"}}, tune(space), tiny_schema)


def test_sampled_values_reach_model_and_training():
    config = tune({RATE: choice(0.5)}, metric="click.gauc_feed", cpus_per_trial=2)
    spelling = {"model": MODEL, "train": {"workers": 2, "reader": "ray_data", "epochs": 7, "optimiser": {"clip_norm": 3.0}}}
    model, trained = configs(spelling, {RATE: 0.5, "model.fusion.experts": 6}, config)
    assert (model.fusion.experts, model.fusion.hidden, model.embedding_width) == (6, (8,), 4)
    assert (trained.optimiser.dense.kind, trained.optimiser.dense.rate, trained.optimiser.clip_norm) == ("adam", 0.5, 3.0)
    assert (trained.epochs, trained.monitor) == (7, "click.gauc_feed")
    assert (trained.workers, trained.reader, trained.threads) == (0, "thread", 2)


def test_another_kind_replaces_a_section():
    _, trained = configs({}, {"train.optimiser.dense.kind": "adagrad", RATE: 0.02}, tune({}))
    assert (trained.optimiser.dense.kind, trained.optimiser.dense.rate) == ("adagrad", 0.02)


def test_a_folder_belongs_to_one_search(tmp_path):
    claim(tmp_path, {"data": "a", "tune": {"trials": 3}})
    claim(tmp_path, {"data": "a", "tune": {"trials": 3}})
    with pytest.raises(ConfigError, match=r"holds another search \(tune differ\)"):
        claim(tmp_path, {"data": "a", "tune": {"trials": 4}})


def test_no_validation_feeds(tmp_path):
    fabricate(tmp_path / "data", valid_files=())
    with pytest.raises(ConfigError, match=r"no validation feeds to search by; set prepare\.valid_days"):
        search({}, tmp_path / "data", tune({RATE: choice(0.1)}), tmp_path / "out")


# -- what a search leaves ------------------------------------------------------------------------------------------


def test_a_trial_is_read_from_its_folder(trained, tiny_schema):
    _, result = trained
    monitor = Monitor(tiny_schema)
    trial = _trial(3, "abc", {RATE: 0.1}, None, result.bundle_path.parent, monitor)
    assert (trial.status, trial.epochs) == ("done", 2)
    assert trial.score == max(record["monitor"] for record in result.history)
    assert trial.best_epoch == result.best_metrics["epoch"] + 1
    missing = _trial(4, "def", {RATE: 0.1}, "ValueError: no", Path("nowhere"), monitor)
    assert (missing.status, missing.score, missing.reason) == ("failed", None, "ValueError: no")
    refused = _trial(5, "ghi", {RATE: 0.1}, None, Path("nowhere"), monitor, "floor > alpha")
    assert (refused.status, refused.score, refused.epochs, refused.reason) == ("refused", None, 0, "floor > alpha")


def some_trials():
    values = [(0.001, "mmoe", 0.71), (0.01, "ple", 0.74), (0.1, "mmoe", None)]
    return [
        Trial(
            number=i + 1,
            id=str(i),
            status="failed" if score is None else ("done", "stopped")[i % 2],
            values={RATE: rate, "model.system": system},
            score=score,
            best_epoch=None if score is None else 2,
            epochs=3,
            seconds=1.5,
            reason="ValueError: a | b" if score is None else "",
        )
        for i, (rate, system, score) in enumerate(values)
    ]


def test_tables_hold_every_trial(tmp_path):
    config = tune({RATE: {"type": "loguniform", "low": 1e-4, "high": 1}, "model.system": choice("mmoe", "ple")})
    _write_tables(tmp_path, some_trials(), config, "click.auc")
    rows = list(csv.DictReader((tmp_path / "search.csv").open()))
    assert [row["click.auc"] for row in rows] == ["0.710000", "0.740000", ""]
    assert [row[RATE] for row in rows] == ["0.001", "0.01", "0.1"]
    assert [row["model.system"] for row in rows] == ["mmoe", "ple", "mmoe"]
    assert rows[2]["reason"] == "ValueError: a | b"
    lines = (tmp_path / "search.md").read_text().splitlines()
    assert len(lines) == 5 and r"ValueError: a \| b" in lines[4]


def test_the_picture_has_a_panel_for_every_parameter(tmp_path):
    import matplotlib.image

    sizes = []
    for space in ({RATE: choice(0.001, 0.01, 0.1)}, {RATE: choice(0.001, 0.01, 0.1), "model.system": choice("mmoe", "ple")}):
        draw(tmp_path / "search.png", some_trials(), tune(space), "click.auc", "max")
        sizes.append(matplotlib.image.imread(tmp_path / "search.png").shape)
    assert sizes[1][1] == pytest.approx(1.5 * sizes[0][1], rel=0.01)  # three panels beside each other, not two
    assert sizes[0][0] == sizes[1][0]


# -- registry ------------------------------------------------------------------------------------------------------


def test_versions_count_up_and_the_latest_is_found(trained, tmp_path):
    prepared, result = trained
    first = register(result.bundle_path, tmp_path, "quick")
    assert first == latest(tmp_path, "quick") == tmp_path / "quick" / "quick-0001"
    assert register(result.bundle_path, tmp_path, "quick") == first  # nothing new
    other = train(
        prepared, resolve(MODEL), TrainConfig(epochs=1, seed=5), output=tmp_path / "run", say=lambda line: None
    ).bundle_path
    assert register(other, tmp_path, "quick").name == "quick-0002" == latest(tmp_path, "quick").name
    loaded = load_bundle(latest(tmp_path, "quick"))
    assert loaded.provenance["seed"] == 5
    assert json.loads((loaded.path / "history.json").read_text())[0]["epoch"] == 0
    assert not list((tmp_path / "quick").glob(".writing-*"))


def test_what_is_no_bundle_is_not_registered(trained, tmp_path):
    _, result = trained
    with pytest.raises(ConfigError, match="there is no bundle"):
        register(tmp_path / "nothing", tmp_path / "registry", "quick")
    with pytest.raises(ConfigError, match=r"becomes a folder.*'a/b'"):
        register(result.bundle_path, tmp_path / "registry", "a/b")
    register(result.bundle_path, tmp_path / "registry", "quick")
    with pytest.raises(ConfigError, match=r"no bundle `slow` in .*; there are: quick"):
        latest(tmp_path / "registry", "slow")


def _register(bundle, registry):
    register(bundle, registry, "quick")


def test_two_at_once_never_share_a_version(trained, tmp_path):
    prepared, result = trained
    bundles = [result.bundle_path]
    for seed in (1, 2):
        config = TrainConfig(epochs=1, max_steps=1, seed=seed)
        bundles.append(train(prepared, resolve(MODEL), config, output=tmp_path / str(seed), say=lambda line: None).bundle_path)
    spawn = multiprocessing.get_context("fork")
    processes = [spawn.Process(target=_register, args=(bundle, tmp_path / "registry")) for bundle in bundles]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    versions = sorted((tmp_path / "registry" / "quick").iterdir())
    assert [path.name for path in versions] == ["quick-0001", "quick-0002", "quick-0003"]
    assert len({(path / "provenance.json").read_text() for path in versions}) == 3
