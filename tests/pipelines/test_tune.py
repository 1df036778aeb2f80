"""The search's checks, tables and registry without Ray."""

import csv
import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError, from_dict
from models.ranker import Ranker
from models.zoo import resolve
from pipelines.bundle import load_bundle
from pipelines.experiment import Experiment
from pipelines.report.search.picture import draw
from pipelines.report.search.trials import Trial
from pipelines.runs import RunFolder
from pipelines.steps import bundle_of, register_step
from pipelines.train import TrainConfig, train
from pipelines.train.monitor import Monitor
from pipelines.tune import TuneConfig, register, versions
from pipelines.tune.config import MOST_CHECKED, check_space, checked, configs
from pipelines.tune.folder import left_over
from pipelines.tune.objectives import Objectives, objectives_of
from pipelines.tune.search import _sorted, _trial, _with_front, _write_tables, axes_of, search, search_preview
from tests.pipelines.fabricate import epoch_record, fabricate, noted_anew
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
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"metric": []}, r"names one metric or several different ones, got \[\]"),
        ({"metric": ["click.auc", "click.auc"]}, "several different ones"),
        ({"metric": ["click.auc", "click.uac"]}, r"tune\.metric: no metric `click\.uac`"),
        ({"metric": ["click.auc", "click.gini"], "scheduler": "asha"}, "would give up those that are good at the others"),
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


@pytest.mark.parametrize("learner", ["cmlir", "finetune"])
def test_what_plans_its_whole_training_cannot_be_judged_before_its_end(tiny_schema, learner):
    spelling = {"model": {"system": f"mmoe_{learner}"}}
    with pytest.raises(ConfigError, match=rf"learner `{learner}` plans its whole training.*tune\.scheduler to none"):
        check_space(spelling, tune({RATE: choice(0.1)}), tiny_schema)
    # also where it is one of the values
    with pytest.raises(ConfigError, match=rf"`{learner}` plans its whole training"):
        check_space({}, tune({"model.system": choice("mmoe", f"mmoe_{learner}")}), tiny_schema)
    assert check_space(spelling, tune({RATE: choice(0.1)}, scheduler="none"), tiny_schema) == 1


def test_several_metrics_take_no_scheduler(tiny_schema):
    config = tune({RATE: choice(0.1)}, metric=["click.auc", "click.gini"])
    assert config.scheduler_taken == "none" and tune({RATE: choice(0.1)}).scheduler_taken == "asha"
    assert check_space({"model": {"system": "mmoe_cmlir"}}, config, tiny_schema) == 1
    assert configs({}, {}, config)[1].monitor == "click.auc"
    with pytest.raises(ConfigError, match=r"`follow\.auc` begins with none that is trained: click, goods_bag, order, stay"):
        check_space({}, tune({RATE: choice(0.1)}, metric=["click.auc", "follow.auc"]), tiny_schema)


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


def test_no_validation_feeds(tmp_path):
    fabricate(tmp_path / "data", valid_files=())
    with pytest.raises(ConfigError, match=r"no validation feeds to search by; set prepare\.valid_days"):
        search({}, tmp_path / "data", tune({RATE: choice(0.1)}), tmp_path / "out")


def test_the_plan_says_what_is_searched_and_by_what(trained, tmp_path):
    prepared, _ = trained
    config = tune(
        {RATE: {"type": "loguniform", "low": 0.001, "high": 0.1}, "model.system": choice("mmoe", "ple")},
        metric=["click.auc", "click.gini"],
        trials=5,
    )
    lines = search_preview({"train": {"epochs": 3}}, prepared.path, config, tmp_path)
    assert "5 trials of at most 3 epochs" in lines[0] and "trains all trials to their end" in lines[0]
    assert lines[1] == "By validation metrics: click.auc (large), click.gini (small)"
    assert lines[2:4] == [f"  {RATE}  from 0.001 to 0.1, on a log scale", f"  {'model.system':<{len(RATE)}}  one of mmoe, ple"]
    assert "4 combinations of ends build rankers" in lines[4] and str(tmp_path) in lines[4]
    with pytest.raises(ConfigError, match="begins with none that is trained"):
        search_preview({}, prepared.path, tune({RATE: choice(0.1)}, metric="follow.auc"), tmp_path)


def test_what_an_earlier_search_left_is_counted(tmp_path):
    run = RunFolder(tmp_path, "result.json")
    assert left_over(run) == ""
    run.begin({"data": "a"}, way_out="")
    for name, epochs in (("one", 3), ("two", 2)):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "history.json").write_text(json.dumps([{}] * epochs))
    (tmp_path / "trials" / "one" / "bundle").mkdir()
    told = left_over(run)
    assert told == f"{tmp_path} holds a search that was stopped: 1 trainings are done and 1 begun, 5 epochs in all."
    (tmp_path / "result.json").touch()
    assert left_over(run) == f"{tmp_path} holds a finished search."


# -- what it goes by -----------------------------------------------------------------------------------------------


def by(schema, *metrics) -> Objectives:
    config = tune({RATE: choice(0.1)}, metric=list(metrics))
    return objectives_of(config, Monitor(schema, config.metrics[0]))


def test_the_front_is_what_none_betters_in_all(tiny_schema):
    objectives = by(tiny_schema, "click.auc", "click.gini")
    assert objectives.names == ("click.auc", "click.gini") and objectives.modes == ("max", "min")
    points = [(0.70, 0.03), (0.72, 0.05), (0.71, 0.05), (0.72, 0.05), (0.69, 0.04), (0.68, 0.02)]
    scores = [dict(zip(objectives.names, point, strict=True)) for point in points]
    # the third is as fair as the second and worse; the fifth is worse than the first in both; equal ones both stay
    assert objectives.front(scores) == [0, 1, 3, 5]
    assert objectives.front([]) == []


def test_the_front_against_trying_every_pair(tiny_schema):
    objectives = by(tiny_schema, "click.auc", "click.gini", "order.log_loss")
    points = np.random.default_rng(0).integers(0, 6, (80, 3))
    beats = lambda a, b: a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2] and tuple(a) != tuple(b)
    expected = [i for i, mine in enumerate(points) if not any(beats(other, mine) for other in points)]
    scores = [dict(zip(objectives.names, point.tolist(), strict=True)) for point in points]
    assert objectives.front(scores) == expected and 0 < len(expected) < 80


def test_other_metrics_are_those_of_the_best_epoch(tiny_schema):
    objectives = by(tiny_schema, "click.auc", "click.gini")
    metrics = lambda auc, gini: {"targets": {"click": {"auc": auc, "gini": gini}}, "mean": {}}
    record = lambda auc, gini: epoch_record(0, monitor=auc, metrics=metrics(auc, gini))
    best = objectives.best([record(0.6, 0.01), record(0.7, 0.05), record(0.7, 0.02)])
    assert objectives.scores(best) == {"click.auc": 0.7, "click.gini": 0.05}  # the earliest of equal ones
    with pytest.raises(ConfigError, match=r"`click\.gini` is not defined on the validation split .*a Gini two levels"):
        objectives.scores(record(0.6, None))


# -- what a search leaves ------------------------------------------------------------------------------------------


def test_a_trial_is_read_from_its_folder(trained, tiny_schema):
    _, result = trained
    monitor = objectives_of(tune({RATE: choice(0.1)}), Monitor(tiny_schema))
    trial = _trial(3, "abc", {RATE: 0.1}, None, result.bundle_path.parent, monitor)
    assert (trial.status, trial.epochs) == ("done", 2)
    assert trial.score == max(record.monitor for record in result.history)
    assert trial.best_epoch == result.best.epoch + 1
    assert trial.scores == {"auc": trial.score}
    both = _trial(3, "abc", {RATE: 0.1}, None, result.bundle_path.parent, by(tiny_schema, "click.auc", "click.gini"))
    best = result.history[trial.best_epoch - 1].metrics["targets"]["click"]
    assert both.scores["click.gini"] == best["gini"]
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
            scores={} if score is None else {"click.auc": score, "click.gini": 0.05 - 0.01 * i},
            best_epoch=None if score is None else 2,
            epochs=3,
            seconds=1.5,
            reason="ValueError: a | b" if score is None else "",
        )
        for i, (rate, system, score) in enumerate(values)
    ]


def test_tables_hold_every_trial(tiny_schema, tmp_path):
    config = tune({RATE: {"type": "loguniform", "low": 1e-4, "high": 1}, "model.system": choice("mmoe", "ple")})
    _write_tables(tmp_path, some_trials(), config, by(tiny_schema, "click.auc"))
    rows = list(csv.DictReader((tmp_path / "search.csv").open()))
    assert [row["click.auc"] for row in rows] == ["0.710000", "0.740000", ""]
    assert [row[RATE] for row in rows] == ["0.001", "0.01", "0.1"]
    assert [row["model.system"] for row in rows] == ["mmoe", "ple", "mmoe"]
    assert rows[2]["reason"] == "ValueError: a | b"
    lines = (tmp_path / "search.md").read_text().splitlines()
    assert len(lines) == 5 and r"ValueError: a \| b" in lines[4]


def test_of_several_metrics_the_table_marks_the_front(tiny_schema, tmp_path):
    """Of the two that were trained to their end, both are on it: one is better, the other fairer. The stopped one is not."""
    objectives = by(tiny_schema, "click.auc", "click.gini")
    trials = [replace(some_trials()[0], number=number) for number in (1, 2, 3)]
    trials[1] = replace(trials[1], score=0.69, scores={"click.auc": 0.69, "click.gini": 0.01})
    trials[2] = replace(trials[2], status="stopped", score=0.9, scores={"click.auc": 0.9, "click.gini": 0.0})
    trials = _with_front(_sorted([*trials, some_trials()[2]], objectives), objectives)
    assert [(trial.number, trial.front) for trial in trials] == [(3, False), (1, True), (2, True), (3, False)]
    _write_tables(tmp_path, trials, tune({RATE: choice(0.1), "model.system": choice("mmoe")}), objectives)
    rows = list(csv.DictReader((tmp_path / "search.csv").open()))
    assert [row["front"] for row in rows] == ["", "yes", "yes", ""]
    assert [row["click.gini"] for row in rows] == ["0.000000", "0.050000", "0.010000", ""]


def test_the_picture_has_a_panel_for_every_parameter_and_one_for_two_metrics(tiny_schema, tmp_path):
    import matplotlib.image

    one, two = by(tiny_schema, "click.auc"), by(tiny_schema, "click.auc", "click.gini")
    rates, systems = {RATE: choice(0.001, 0.01, 0.1)}, {"model.system": choice("mmoe", "ple")}
    sizes = []
    for space, objectives in ((rates, one), ({**rates, **systems}, one), (rates, two)):
        trials = _with_front(some_trials(), objectives)
        draw(tmp_path / "search.png", trials, axes_of(tune(space)), objectives.names, largest=True)
        sizes.append(matplotlib.image.imread(tmp_path / "search.png").shape)
    assert sizes[1][1] == pytest.approx(1.5 * sizes[0][1], rel=0.01)  # three panels beside each other, not two
    assert sizes[0][0] == sizes[1][0] and sizes[2] == sizes[1]


# -- registry ------------------------------------------------------------------------------------------------------


def test_versions_count_up_and_the_latest_is_found(trained, tmp_path):
    prepared, result = trained
    first = register(result.bundle_path, tmp_path, "quick")
    assert first == versions(tmp_path, "quick")[0] == tmp_path / "quick" / "quick-0001"
    assert register(result.bundle_path, tmp_path, "quick") == first  # nothing new
    other = train(
        prepared, resolve(MODEL), TrainConfig(epochs=1, seed=5), output=tmp_path / "run", say=lambda line: None
    ).bundle_path
    assert register(other, tmp_path, "quick").name == "quick-0002" == versions(tmp_path, "quick")[0].name
    assert [path.name for path in versions(tmp_path, "quick")] == ["quick-0002", "quick-0001"]
    loaded = load_bundle(versions(tmp_path, "quick")[0])
    assert loaded.provenance["seed"] == 5
    assert json.loads((loaded.path / "history.json").read_text())[0]["epoch"] == 0


def test_a_damaged_version_is_passed_over_and_said(trained, tmp_path, capsys):
    prepared, result = trained
    spelling = {"name": "quick", "output": str(tmp_path), "schema": prepared.schema.to_dict(), "logs": {"kind": "simulate"}}
    experiment = from_dict(Experiment, spelling)
    first = register_step(experiment, result.bundle_path)
    second = first.with_name("quick-0002")
    shutil.copytree(first, second)
    weights = second / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert bundle_of(experiment).path == first
    said = capsys.readouterr().out
    assert f"{weights} is damaged or cut short" in said and "Meanwhile quick-0001, the one before, is taken." in said
    with pytest.raises(ConfigError, match="is damaged or cut short"):
        bundle_of(experiment, str(second))  # asked for by name
    (first / "encoder" / "encoder.json").unlink()
    with pytest.raises(ConfigError, match=r"quick-0002/weights.safetensors is damaged"):
        bundle_of(experiment)
    assert register_step(experiment, result.bundle_path).name == "quick-0003"  # what is damaged is another one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "order.auc"}, r"tune\.metric: order\.auc is not defined on the validation split"),
        ({"metric": ["click.auc", "order.gauc_user"]}, r"tune\.metric: order\.gauc_user is not defined"),
    ],
)
def test_a_metric_that_no_trial_could_have_is_told_before_the_first(tmp_path, change, message):
    """Nobody of the validation split ordered anything."""
    prepared = fabricate(tmp_path / "data")
    for file in prepared.files("valid"):
        table = pq.read_table(file)
        place = table.schema.get_field_index("label.order")
        none = pa.array([[0.0] * len(labels) for labels in table["label.order"].to_pylist()], table.schema.field(place).type)
        pq.write_table(table.set_column(place, "label.order", none), file, row_group_size=16)
    noted_anew(prepared.path)
    spelling = {"model": MODEL, "train": {"epochs": 1}}
    config = tune({RATE: {"type": "loguniform", "low": 1e-4, "high": 1e-2}}, **change)
    with pytest.raises(ConfigError, match=message):
        search_preview(spelling, prepared.path, config, tmp_path / "out")
    fine = tune({RATE: {"type": "loguniform", "low": 1e-4, "high": 1e-2}}, metric="click.auc")
    assert search_preview(spelling, prepared.path, fine, tmp_path / "out")[1] == "By validation metrics: click.auc (large)"


def test_what_is_no_bundle_is_not_registered(trained, tmp_path):
    _, result = trained
    with pytest.raises(ConfigError, match="there is no bundle"):
        register(tmp_path / "nothing", tmp_path / "registry", "quick")
    with pytest.raises(ConfigError, match=r"'a/b'; it names a folder"):
        register(result.bundle_path, tmp_path / "registry", "a/b")
    register(result.bundle_path, tmp_path / "registry", "quick")
    with pytest.raises(ConfigError, match=r"no bundle `slow` in .*; there are: quick"):
        versions(tmp_path / "registry", "slow")


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
