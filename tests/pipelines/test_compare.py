"""Comparisons: what may be configured, which cells run, what the table says, and the whole way on small data."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.config import ConfigError, from_dict
from pipelines.bundle import load_bundle
from pipelines.compare import CompareConfig
from pipelines.compare.cells import Cell, begin, failure_of, result_of, run
from pipelines.compare.comparison import Comparison
from pipelines.compare.config import columns_of, folder_of, parameters_of, systems_of
from pipelines.compare.execute import InProcess, OnRay, carry_out, overview, state_of_units
from pipelines.compare.results import TrainedCell, TrainingTook, UnitResult, Validated
from pipelines.compare.scores import positives_of
from pipelines.compare.table import compared
from pipelines.evaluate import EvaluateConfig, evaluate_table, score
from pipelines.report.comparison.write import html, markdown, parts_of, write_table
from pipelines.report.figures.style import MODEL_COLOURS
from pipelines.train import TrainConfig, train
from tests.pipelines.fabricate import fabricate
from tests.pipelines.report_samples import result_with
from tests.pipelines.test_evaluate import write_world

SMALL = {"fusion": {"hidden": [8], "towers": [4]}}
TRAIN = TrainConfig(epochs=2, batch_feeds=32, checkpoint_every_steps=None)
VALID = EvaluateConfig(split="valid", baselines=())


def compare(**spelling) -> CompareConfig:
    systems = {"bottom": {"system": "shared_bottom", **SMALL}, "mmoe": {"system": "mmoe", **SMALL}}
    base = {"systems": systems, "common": {"embedding_width": 4}, "seeds": [0, 1], "metrics": ["click.auc"]}
    spelling = base | {"fewest_positives": 0} | spelling
    return from_dict(CompareConfig, spelling, where="compare")


def three_systems(**spelling) -> CompareConfig:
    return compare(systems={label: {"system": "shared_bottom", **SMALL} for label in ("a", "b", "c")}, **spelling)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("compare") / "data")


def planned(config, prepared, output, *, train=TRAIN, evaluate=VALID, **more) -> Comparison:
    return Comparison(config, prepared, prepared.schema, train, evaluate, output, **more)


class Canned:
    """Instead of training, writes results from a function of the cell: metrics by path, validation score, or an error."""

    def __init__(self, of, valid=lambda cell: 0.5, alarms=lambda cell: ()):
        self.of, self.valid, self.alarms, self.queue, self.ran = of, valid, alarms, [], []

    def submit(self, unit):
        self.queue.append(unit)

    def next(self):
        unit = self.queue.pop(0)
        self.ran.append(unit.name)
        canned = self

        class Made:
            label, name, folder, identity = unit.label, unit.name, unit.folder, staticmethod(unit.identity)

            @staticmethod
            def make():
                targets: dict = {}
                for path, value in canned.of(unit).items():
                    target, metric, *part = path.split(".")
                    table = targets.setdefault(target, {})
                    if part:
                        table.setdefault(metric, {})[part[0]] = value
                    else:
                        table[metric] = value
                cell = TrainedCell(
                    rate=unit.rate,
                    seed=unit.seed,
                    valid=Validated(monitor="auc", value=canned.valid(unit)),
                    training=TrainingTook(
                        seconds=2.0,
                        candidates_per_second=100.0 * (1 + unit.seed),
                        steps=8,
                        epochs=2,
                        best_epoch=1,
                        stopped="all epochs done",
                        alarms=canned.alarms(unit),
                    ),
                    parameters=unit.parameters,
                )
                made = {"git_commit": "0123456789"}
                return UnitResult(label=unit.label, made=made, metrics=result_with(targets).to_dict(), cell=cell)

        return unit, run(Made())


def ran(comparison, executor) -> list[str]:
    carry_out(comparison, executor, say=lambda line: None)
    return executor.ran


# -- what may be configured ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"systems": {}}, r"compare\.systems is empty; name a row of the zoo"),
        ({"systems": {"a/b": {}, "a b": {}}}, r"`a/b` and `a b` would share the folder `a-b`"),
        ({"systems": {"booster": {}}}, r"`booster` is the name of a baseline"),
        ({"systems": {"a, b": {}}}, r"'a, b' holds a comma"),
        ({"systems": {"--": {}}}, r"'--' is no label"),
        ({"seeds": [1, 1]}, r"compare\.seeds must be different numbers, at least one, got \[1, 1\]"),
        ({"seeds": []}, r"compare\.seeds must be different"),
        ({"seeds": [-1]}, r"compare\.seeds must not be negative, got \[-1\]"),
        ({"rates": [0.1, 0]}, r"compare\.rates must be above 0, got \[0\.1, 0\.0\]"),
        ({"rate_seeds": []}, r"compare\.rate_seeds must be different numbers, at least one"),
        ({"base": "bottm"}, r"compare\.base: `bottm` is not among the systems: bottom, mmoe"),
        ({"claims": [{"better": "mmoe", "than": ["ple"]}]}, r"compare\.claims: `ple` is not among the systems"),
        ({"claims": [{"better": "mmoe", "than": ["mmoe"]}]}, "`mmoe` is better than itself"),
        ({"claims": [{"better": "mmoe", "than": []}]}, "needs at least one system in `than`"),
        ({"common": {"system": "mmoe"}}, "`system`, `targets`, `epochs`, `rate` and `optimiser` belong to a row"),
        ({"max_concurrent": 0}, r"max_concurrent must be at least 1, got 0"),
        ({"cpus_per_cell": 0}, r"needs cpus_per_cell > 0 and gpus_per_cell >= 0, got 0 and 0"),
        ({"sytems": {}}, r"`compare\.sytems` is not a known key\. Known here: systems, common"),
    ],
)
def test_a_wrong_comparison_cannot_be_configured(spelling, message):
    with pytest.raises(ConfigError, match=message):
        compare(**spelling)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"system": "mmo"}, r"compare\.systems\.x: `model\.system` is 'mmo', which is not in the zoo"),
        ({"system": "mmoe", "fusion": {"expertz": 2}}, r"compare\.systems\.x: .*expertz` is not a known key"),
        ({"targets": {"buy": {"bins": 3}}}, r"compare\.systems\.x: targets: `buy` is not a target\. Targets: click, goods_bag"),
        (
            {"targets": {"click": {"at_least": 3}}},
            r"targets\.click: `at_least` cannot be set for one row.*loss_weight, parents",
        ),
        ({"targets": {"click": 3}}, r"targets\.click: 3 cannot be set"),
        ({"targets": {"click": {"bins": 3}}}, r"compare\.systems\.x: .*`head` and `bins` are for values"),
        ({"targets": {"click": {"parents": ["order"]}}}, r"compare\.systems\.x: .*form a cycle: click, goods_bag, order"),
        ({"targets": [1]}, r"`targets` is \[1\]; write settings by target"),
    ],
)
def test_a_row_that_does_not_fit_is_told_with_its_label(tiny_schema, row, message):
    with pytest.raises(ConfigError, match=message):
        systems_of(compare(systems={"x": row}), tiny_schema)


def test_common_lies_over_the_zoo_and_below_what_a_system_says(tiny_schema):
    rows = {"esmm": {"system": "esmm"}, "wide": {"system": "esmm", "embedding_width": 32}}
    esmm, wide = systems_of(compare(systems=rows, common={"embedding_width": 6, "interest": {"kind": "din"}}), tiny_schema)
    assert (esmm.model.embedding_width, wide.model.embedding_width) == (6, 32)  # the zoo's row says 18
    assert esmm.model.interest.kind == wide.model.interest.kind == "din"
    assert esmm.model.coupling.kind == "esmm" and esmm.model.fusion.hidden == (360, 200, 80)
    assert esmm.schema == tiny_schema


def test_a_row_changes_its_own_targets_alone(tiny_schema):
    changes = {"stay": {"head": "bins", "bins": 10, "loss_weight": 0.5}, "order": {"parents": ["click"]}}
    plain, changed = systems_of(compare(systems={"x": {}, "y": {"targets": changes}}), tiny_schema)
    assert plain.schema == tiny_schema
    assert (changed.schema.target("stay").bins, changed.schema.target("stay").loss_weight) == (10, 0.5)
    assert changed.schema.target("stay").head == "bins" and changed.schema.parents("order") == ("click",)


def test_columns(tiny_schema):
    assert columns_of(compare(metrics=[]), tiny_schema) == ("click.auc", "goods_bag.auc", "order.auc", "stay.mse_transformed")
    named = ("order.ndcg@5", "click.auc_by_level.tail", "stay.mse_by_level.head", "mean.auc")
    assert columns_of(compare(metrics=named), tiny_schema) == named
    for path, message in {
        "click.uac": "compare.metrics: no metric `click.uac`: `uac` is not one of: kind",
        "buy.auc": "`buy` is not one of: click, goods_bag, order, stay, mean",
        "stay.auc": "`auc` is not one of",
        "click.auc_by_level": "`click.auc_by_level` is not one number",
    }.items():
        with pytest.raises(ConfigError) as error:
            columns_of(compare(metrics=[path]), tiny_schema)
        assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"compare\.claims: no metric `click\.x`"):
        columns_of(compare(claims=[{"better": "mmoe", "than": ["bottom"], "metrics": ["click.x"]}]), tiny_schema)


def test_a_label_as_a_folder():
    assert folder_of("STAN w/o Beta") == "STAN-w-o-Beta" and folder_of("mmoe") == "mmoe"


def test_parameters_by_hand(prepared):
    """Tables 4 wide; of the dense ones only the towers' last layers are counted here, by what a second target adds."""
    system = systems_of(compare(), prepared.schema)[0]
    counted = parameters_of(system, prepared.encoder.table_sizes)
    assert counted.tables == 4 * sum(prepared.encoder.table_sizes.values())
    wider = replace(system, model=replace(system.model, fusion=replace(system.model.fusion, towers=(5,))))
    # a tower is 8 -> w -> 1: 8 w + w weights and biases of the layer, w of the output
    per_target = 8 + 1 + 1
    assert parameters_of(wider, prepared.encoder.table_sizes).dense - counted.dense == 4 * per_target


def test_what_the_data_lack_is_told_before_anything_runs(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.split is `test`, but .* has no test feeds; set prepare\.test_days"):
        planned(compare(), prepared, tmp_path, evaluate=EvaluateConfig(baselines=()))
    alone = fabricate(tmp_path / "data", valid_files=())
    with pytest.raises(ConfigError, match=r"has no valid feeds"):
        planned(compare(), alone, tmp_path)
    with pytest.raises(ConfigError, match=r"train\.device is cuda, but compare\.gpus_per_cell is 0"):
        planned(compare(), prepared, tmp_path, train=replace(TRAIN, device="cuda"))
    with pytest.raises(ConfigError, match=r"--only: `ple` is no row of the table\. Rows: bottom, mmoe"):
        planned(compare(), prepared, tmp_path, only=["ple"])


# -- which cells run -----------------------------------------------------------------------------------------------


def test_cells_run_seed_by_seed_and_finished_ones_never_again(prepared, tmp_path):
    value = lambda cell: {"click.auc": 0.6}
    assert ran(planned(compare(), prepared, tmp_path), Canned(value)) == [
        "bottom seed 0",
        "mmoe seed 0",
        "bottom seed 1",
        "mmoe seed 1",
    ]
    assert ran(planned(compare(), prepared, tmp_path), Canned(value)) == []
    assert ran(planned(compare(seeds=[0, 1, 5]), prepared, tmp_path), Canned(value)) == ["bottom seed 5", "mmoe seed 5"]
    more = {**compare().systems, "esmm": {"system": "esmm", "fusion": {"hidden": [8]}}}
    assert ran(planned(compare(systems=more), prepared, tmp_path), Canned(value)) == ["esmm seed 0", "esmm seed 1"]


def test_only_some_rows(prepared, tmp_path):
    comparison = planned(compare(), prepared, tmp_path, only=["mmoe"])
    assert comparison.left() == 2
    assert ran(comparison, Canned(lambda cell: {"click.auc": 0.6})) == ["mmoe seed 0", "mmoe seed 1"]
    assert comparison.count() == (2, 4) and comparison.left() == 0
    assert compared(comparison, "x").warnings == ["not all of the 2 seeds are there yet: bottom 0"]


def test_other_settings_are_refused_and_replaced_alone(prepared, tmp_path):
    value = lambda cell: {"click.auc": 0.6}
    ran(planned(compare(), prepared, tmp_path), Canned(value))
    systems = {**compare().systems, "mmoe": {"system": "mmoe", "fusion": {**SMALL["fusion"], "experts": 3}}}
    changed = planned(compare(systems=systems), prepared, tmp_path)
    assert changed.count() == (2, 4)  # what was made with other settings is no result
    assert "2 results there were made with other settings" in overview(changed)
    assert "other   mmoe seed 0" in state_of_units(changed)
    assert compared(changed, "x").warnings[-1] == "2 results of other settings are left out"
    with pytest.raises(ConfigError) as error:
        changed.begin()
    assert "2 of the results in" in str(error.value) and "--replace" in str(error.value)
    assert "mmoe seed 0: model.fusion.experts (8 -> 3)\n" in str(error.value)
    changed.begin(replace=True)
    assert ran(changed, Canned(value)) == ["mmoe seed 0", "mmoe seed 1"]

    longer = planned(compare(), prepared, tmp_path, train=replace(TRAIN, epochs=3))
    with pytest.raises(ConfigError, match=r"bottom seed 0: train\.epochs \(2 -> 3\)"):
        longer.begin()
    faster = planned(compare(systems=systems), prepared, tmp_path, train=replace(TRAIN, threads=2, timeout_seconds=9))
    assert faster.count() == (4, 4)


def test_a_row_may_be_trained_for_its_own_number_of_epochs(prepared, tmp_path):
    systems = compare().systems
    config = compare(systems={"bottom": systems["bottom"], "mmoe": {**systems["mmoe"], "epochs": 7}})
    comparison = planned(config, prepared, tmp_path)
    assert [cell.train.epochs for cell in comparison.units() if isinstance(cell, Cell)] == [2, 7, 2, 7]
    ran(comparison, Canned(lambda cell: {"click.auc": 0.6}))
    table = compared(comparison, "x")
    assert "at most 2 (7 for mmoe); the best epoch" in table.words["Early stopping"]
    assert table.row("mmoe").settings["epochs"] == 7 and "epochs" not in table.row("bottom").settings
    for wrong in (0, 2.5, "many"):
        with pytest.raises(
            ConfigError, match=rf"compare\.systems\.x: epochs must be a whole number of at least 1, got {wrong!r}"
        ):
            planned(compare(systems={"x": {"system": "mmoe", "epochs": wrong}}), prepared, tmp_path)
    with pytest.raises(ConfigError, match="`system`, `targets`, `epochs`, `rate` and `optimiser` belong to a row"):
        compare(common={"epochs": 3})


def test_a_row_may_have_its_own_optimiser(prepared, tmp_path):
    systems = {
        "plain": {"system": "mmoe", **SMALL},
        "own": {"system": "mmoe", **SMALL, "optimiser": {"dense": {"l2": 0.1, "rate": 7}}},
    }
    comparison = planned(compare(systems=systems, rates=[0.01]), prepared, tmp_path)
    plain, own = (comparison.cells(system)[0].train.optimiser for system in comparison.systems)
    assert own == replace(plain, dense=replace(plain.dense, l2=0.1)) and plain.dense.rate == 0.01  # rates stand above it
    ran(comparison, Canned(lambda cell: {"click.auc": 0.7}))
    table = compared(comparison, "tiny")
    assert table.row("own").settings["optimiser"] == {"dense": {"l2": 0.1, "rate": 7}}
    assert table.words["Optimiser"] == "adam for dense parameters, lazy_adam for tables; own dense.l2 0.1; own dense.rate 7"
    systems["own"]["optimiser"] = {"dense": {"l3": 1}}
    with pytest.raises(ConfigError, match=r"compare\.systems\.own: .*`optimiser\.dense\.adam\.l3` is not a known key"):
        planned(compare(systems=systems), prepared, tmp_path)


def test_targets_that_nothing_taught_are_marked(prepared, tmp_path):
    systems = {
        "taught": {"system": "mmoe", **SMALL},
        "untaught": {"system": "mmoe", **SMALL, "targets": {"order": {"loss_weight": 0}}},
    }
    judged = replace(VALID, untaught=True)
    comparison = planned(compare(systems=systems, metrics=["order.auc"], seeds=[0]), prepared, tmp_path, evaluate=judged)
    carry_out(comparison, InProcess(), lambda line: None)
    table = compared(comparison, "tiny")
    assert [table.row(name).scores["order.auc"].untaught for name in systems] == [False, True]
    path = write_table(tmp_path, table, prepared.schema)
    lines = (tmp_path / "compare.md").read_text().splitlines()
    assert ["†" in next(line for line in lines if line.startswith(f"| {name} |")) for name in systems] == [False, True]
    assert "nothing taught the system this" in path.read_text()
    again = planned(compare(systems=systems, metrics=["order.auc"], seeds=[0]), prepared, tmp_path)
    assert again.left() == 2 == len(again.others)  # results of another question


def test_a_begun_cell_of_other_settings_is_refused(prepared, tmp_path):
    cell = planned(compare(), prepared, tmp_path).waiting()[0]
    begin(cell)
    planned(compare(), prepared, tmp_path).begin()
    with pytest.raises(
        ConfigError, match=r"1 of the results .* bottom seed 0: train\.patience \(2 -> 7\)".replace(" .* ", r"(.|\n)*")
    ):
        planned(compare(), prepared, tmp_path, train=replace(TRAIN, patience=7)).begin()


def test_a_key_that_a_config_got_since_says_nothing_else(prepared, tmp_path):
    comparison = planned(compare(), prepared, tmp_path)
    ran(comparison, Canned(lambda cell: {"click.auc": 0.6}))
    file = comparison.units()[0].folder / "run.json"
    identity = json.loads(file.read_text())
    del identity["model"]["hidden_ids"], identity["train"]["patience"]
    file.write_text(json.dumps(identity))
    assert planned(compare(), prepared, tmp_path).count() == (4, 4)
    identity["model"]["gone_since"] = 1
    file.write_text(json.dumps(identity))
    assert planned(compare(), prepared, tmp_path).count() == (3, 4)


def test_a_damaged_result_names_the_file(prepared, tmp_path):
    cell = planned(compare(), prepared, tmp_path).waiting()[0]
    begin(cell)
    (cell.folder / "result.json").write_text("{")
    with pytest.raises(ConfigError, match=r"result\.json is damaged .* Delete its folder"):
        planned(compare(), prepared, tmp_path)


# -- learning rates ------------------------------------------------------------------------------------------------


def test_the_rate_is_chosen_on_validation_by_the_mean_of_its_seeds(prepared, tmp_path):
    """Rate .1 is best on the scored split and in one seed; .2 has the better mean on validation."""
    config = compare(systems={"a": {"system": "shared_bottom", **SMALL}}, seeds=[0, 1, 2], rates=[0.1, 0.2], rate_seeds=[0, 1])
    valid = {(0.1, 0): 0.9, (0.1, 1): 0.3, (0.2, 0): 0.7, (0.2, 1): 0.6}
    comparison = planned(config, prepared, tmp_path)
    assert comparison.count() == (0, 5) and not comparison.cells(comparison.systems[0])
    assert "and 1 more, once learning rates are chosen" in state_of_units(comparison)
    said: list[str] = []
    executor = Canned(lambda cell: {"click.auc": 1 - cell.rate}, lambda cell: valid.get((cell.rate, cell.seed), 0.0))
    carry_out(comparison, executor, said.append)
    assert executor.ran == [*(f"a rate {rate} seed {seed}" for rate in (0.1, 0.2) for seed in (0, 1)), "a rate 0.2 seed 2"]
    assert "a takes rate 0.2 (on the validation split: 0.1 .6000, 0.2 .6500)" in said
    row = compared(comparison, "x").row("a")
    assert row.rate == 0.2 and row.seeds == [0, 1, 2] and row.rates == pytest.approx({0.1: 0.6, 0.2: 0.65})
    assert comparison.cells(comparison.systems[0])[2].train.optimiser.tables.rate == 0.2
    assert comparison.cells(comparison.systems[0])[2].train.optimiser.dense.rate == 0.2


def test_equal_rates_take_the_first_and_a_failed_rate_is_out(prepared, tmp_path):
    def valid(cell):
        if cell.rate == 0.1:
            raise FloatingPointError("the loss is not finite")
        return 0.5

    comparison = planned(compare(rates=[0.1, 0.3, 0.2], seeds=[0]), prepared, tmp_path)
    carry_out(comparison, Canned(lambda cell: {"click.auc": 0.6}, valid), lambda line: None)
    table = compared(comparison, "x")
    assert [row.rate for row in table.systems] == [0.3, 0.3]
    assert table.row("mmoe").rates == {0.1: None, 0.3: 0.5, 0.2: 0.5}
    assert (table.failed, table.missing) == (0, 0)  # the table lacks nothing
    assert table.warnings == [
        "the chosen learning rate lies at the end of the list for bottom, mmoe: a wider list may do better"
    ]
    assert "of 0.1, 0.3, 0.2, each system's best on the validation split (seed 0): bottom 0.3, mmoe 0.3" in markdown(
        table, prepared.schema
    )


def test_errors_as_monitor_are_best_when_small(prepared, tmp_path):
    comparison = planned(
        compare(rates=[0.1, 0.2], seeds=[0]), prepared, tmp_path, train=replace(TRAIN, monitor="click.log_loss")
    )
    carry_out(comparison, Canned(lambda cell: {"click.auc": 0.6}, lambda cell: cell.rate), lambda line: None)
    assert comparison.rate_of(comparison.systems[0]) == 0.1


def test_a_row_with_a_rate_of_its_own_is_not_searched(prepared, tmp_path):
    systems = {"a": {"system": "shared_bottom", **SMALL, "rate": 0.07}, "b": {"system": "shared_bottom", **SMALL}}
    comparison = planned(compare(systems=systems, seeds=[0, 1], rates=[0.1, 0.2, 0.3]), prepared, tmp_path)
    executor = ran(comparison, Canned(lambda cell: {"click.auc": 0.6}, lambda cell: cell.rate if cell.rate < 0.25 else 0.1))
    assert [name for name in executor if name.startswith("a ")] == ["a rate 0.07 seed 0", "a rate 0.07 seed 1"]
    table = compared(comparison, "x")
    assert table.row("a").rate == 0.07 and table.row("a").rates == {} and table.row("b").rate == 0.2
    assert table.row("a").settings["rate"] == 0.07 and not table.warnings  # .2 lies inside of the list
    with pytest.raises(ConfigError, match=r"compare\.systems\.a: rate must be a number above 0, got 0"):
        planned(compare(systems={"a": {"system": "shared_bottom", **SMALL, "rate": 0}}), prepared, tmp_path / "other")


def test_what_rests_on_few_positives_is_not_shown(prepared, tmp_path):
    """Of the validation split's clicks there are enough, of its orders too few; what is expected would need none."""
    systems = {label: {"system": "shared_bottom", **SMALL} for label in ("a", "b")}
    metrics = ["click.auc", "order.auc"]
    counts = {"click.positives": 120, "order.positives": 57}
    claims = [{"better": "a", "than": ["b"], "metrics": ["click.auc", "order.auc"]}]
    config = compare(systems=systems, metrics=metrics, claims=claims, fewest_positives=100)
    comparison = planned(config, prepared, tmp_path)
    ran(comparison, Canned(lambda cell: dict.fromkeys(metrics, 0.6) | counts))
    table = compared(comparison, "x")
    scores = table.row("a").scores
    assert [scores[path].mean for path in metrics] == [0.6, None]
    assert [scores[path].positives for path in metrics] == [120, 57]
    assert [claim.verdict for claim in table.claims] == ["does not show", "not tested"]
    assert table.words["Too few"] == "not shown, for fewer than 100 positives are behind it: order.auc 57"
    assert "| positives | 120 | 57 |" in markdown(table, prepared.schema)
    assert '<th class="first">57</th>' in html(table, prepared.schema)
    levels = {"click": {"positives": 120, "positives_by_level": {"tail": 7}, "auc_by_level": {"tail": 0.5}}}
    result = result_with({**levels, "order": {"positives": 57}})
    paths = ("click.auc_by_level.tail", "mean.auc", "click.expected_auc", "click.expected_auc_by_level.tail")
    assert [positives_of(result, path) for path in paths] == [7, 57, None, None]


# -- failures ------------------------------------------------------------------------------------------------------


def test_alarms_of_trainings_stand_among_the_warnings(prepared, tmp_path):
    """By what they are about, not by its value."""
    comparison = planned(compare(), prepared, tmp_path)
    told = lambda cell: (f"the rank is {1 + cell.seed}, below 3.",) if cell.label == "mmoe" else ()
    carry_out(comparison, Canned(lambda cell: {"click.auc": 0.6}, alarms=told), lambda line: None)
    expected = "mmoe: the rank is out of bounds in 2 trainings, so its scores say little about the system"
    assert compared(comparison, "x").warnings == [expected]


def test_a_failing_cell_stops_nothing_and_is_tried_again(prepared, tmp_path):
    def value(cell):
        if cell.name == "mmoe seed 0":
            raise ValueError("no luck\nand more")
        return {"click.auc": 0.6}

    comparison = planned(compare(), prepared, tmp_path)
    said: list[str] = []
    executor = Canned(value)
    carry_out(comparison, executor, said.append)
    assert len(executor.ran) == 4
    assert said[1] == "1/4  mmoe seed 0: failed · ValueError: no luck"
    table = compared(comparison, "x")
    assert (table.failed, table.missing) == (1, 1)
    assert table.warnings == ["mmoe seed 0 failed: ValueError: no luck"]
    assert table.row("mmoe").seeds == [1]
    assert "mmoe seed 0 failed: ValueError: no luck" in markdown(table, prepared.schema)
    assert "1 of 2 seeds" in html(table, prepared.schema)
    trace = json.loads((comparison.units()[1].folder / "failed.json").read_text())["trace"]
    assert "and more" in trace and "in value" in trace

    again = planned(compare(), prepared, tmp_path)
    assert again.left() == 0 and "failed  mmoe seed 0" in state_of_units(again)
    again.begin()
    assert ran(again, Canned(lambda cell: {"click.auc": 0.6})) == ["mmoe seed 0"]
    assert failure_of(again.units()[1]) is None and compared(again, "x").failed == 0


def test_a_system_without_a_rate_is_told(prepared, tmp_path):
    def value(cell):
        if cell.label == "mmoe":
            raise ValueError("never")
        return {"click.auc": 0.6}

    comparison = planned(compare(rates=[0.1, 0.2]), prepared, tmp_path)
    ran(comparison, Canned(value))
    table = compared(comparison, "x")
    assert table.row("bottom").seeds == [0, 1] and table.row("mmoe").seeds == []
    assert (table.failed, table.missing) == (2, 2)
    assert "mmoe rate 0.1 seed 0 failed: ValueError: never" in table.warnings


# -- the table -----------------------------------------------------------------------------------------------------


VALUES = {  # by system: three seeds of an AUC, three of an error
    "a": ([0.60, 0.61, 0.62], [2.0, 2.2, 2.4]),
    "b": ([0.70, 0.72, 0.74], [1.0, 1.2, 1.4]),
    "c": ([0.65, 0.68, 0.68], [1.1, 1.1, 1.4]),
}


@pytest.fixture
def table(prepared, tmp_path):
    claims = [
        {"better": "b", "than": ["a", "c"], "metrics": ["click.auc"]},
        {"better": "a", "than": ["b"], "metrics": ["stay.mse_transformed"]},
        {"better": "b", "than": ["c"], "metrics": ["stay.mse_transformed"], "or_equal": True},
    ]
    config = three_systems(seeds=[0, 1, 2], metrics=["click.auc", "stay.mse_transformed"], claims=claims)
    comparison = planned(config, prepared, tmp_path)
    of = lambda cell: {
        "click.auc": VALUES[cell.label][0][cell.seed],
        "stay.mse_transformed": VALUES[cell.label][1][cell.seed],
    }
    carry_out(comparison, Canned(of), lambda line: None)
    return compared(comparison, "numbers")


def test_scores_by_hand(table):
    a, b, c = (table.row(label).scores["click.auc"] for label in "abc")
    assert (a.mean, b.mean, c.mean) == pytest.approx((0.61, 0.72, 0.67))
    assert (a.std, b.std, c.std) == pytest.approx((0.01, 0.02, 0.0173205), abs=1e-6)
    assert a.relaimpr is None and (b.relaimpr, c.relaimpr) == pytest.approx((1.0, 6 / 11))
    assert (a.place, b.place, c.place) == (None, 1, 2)
    assert (a.against, b.against, c.against) == ("b", "c", "b")
    # gains of b on c: .05, .04, .06: mean .05, deviation .01, t = 5 sqrt(3), p = 1 - t / sqrt(t^2 + 2) = .0131
    assert b.test.mean == pytest.approx(0.05) and b.test.p == pytest.approx(0.01307, abs=1e-5)
    assert b.is_significant and not c.is_significant and not a.is_significant
    errors = [table.row(label).scores["stay.mse_transformed"] for label in "abc"]
    assert [score.place for score in errors] == [None, 1, 2] and not errors[1].is_significant
    assert [score.relaimpr for score in errors[1:]] == pytest.approx([1 - 1.2 / 2.2, 1 - 1.2 / 2.2])


def test_costs_by_hand(table):
    cost = table.row("b").cost
    assert (cost.seconds, cost.candidates_per_second, cost.epochs) == (2.0, 200.0, 2.0)
    assert (cost.dense_times, cost.step_times) == (1.0, 1.0)


def test_claims_by_hand(table):
    assert [str(claim) for claim in table.claims] == [
        # .10, .11, .12: t = 11 sqrt(3), p = 1 - 19.0526 / sqrt(365) = .0027
        "b > a on click.auc: +.1100 ± .0100 (3 seeds), p = .003: holds",
        "b > c on click.auc: +.0500 ± .0100 (3 seeds), p = .013: holds",
        # an error: a is larger by 1 in every seed
        "a > b on stay.mse_transformed: −1.0000 ± .0000 (3 seeds), p < .001: reversed",
        # .1, -.1, .0
        "b ≥ c on stay.mse_transformed: .0000 ± .1000 (3 seeds), p = 1.000: no difference shows",
    ]
    assert [claim.stands for claim in table.claims] == [True, True, False, True]


def test_the_pages_show_these_numbers(table, prepared, tmp_path):
    text = markdown(table, prepared.schema)
    assert "|  | click AUC | stay MSE (log) ↓ |" in text
    assert "| a | .6100 ± .0100 | 2.2000 ± .2000 |" in text
    assert "| b | **.7200**\\* ± .0200 (+100.0 %) | **1.2000** ± .2000 (+45.5 %) |" in text
    assert "| c | <u>.6700</u> ± .0173 (+54.5 %) | <u>1.2000</u> ± .1732 (+45.5 %) |" in text
    assert "over 3 seeds; sample deviation (n − 1)" in text
    assert "after 2 epochs without a better auc on the validation split, at most 2" in text
    path = write_table(tmp_path / "out", table, prepared.schema)
    page = path.read_text()
    assert page.count("data:image/svg+xml;base64,") == 2 and "http" not in page.replace("http-equiv", "")
    assert 'class="first best"' in page and "+100.0 %" in page and "seed 1: .7200" in page
    assert "3 of 4 stand" in page and '<span class="verdict reversed">reversed</span>' in page
    plain = json.loads((tmp_path / "out" / "compare.json").read_text())
    b = next(row for row in plain["rows"] if row["label"] == "b")["scores"]["click.auc"]
    assert b["mean"] == pytest.approx(0.72) and b["significant"] is True and b["by_seed"]["2"] == 0.74
    assert plain["claims"][0]["verdict"] == "holds" and plain["claims"][0]["text"] == str(table.claims[0])


def svg_of(page: str, alt: str) -> str:
    """The picture of that description; letters are outlines in it, so text shows as a comment."""
    assert page.count(f'alt="{alt}"') == 1
    start = page.rindex("base64,", 0, page.index(f'alt="{alt}"')) + len("base64,")
    return base64.b64decode(page[start : page.index('"', start)]).decode()


@pytest.mark.parametrize("asked", ["click.gini", "click.auc_by_level.head"])
def test_levels_are_drawn_side_by_side_where_one_or_gini_is_asked_for(prepared, tmp_path, asked):
    levels = prepared.schema.levels.names
    of = lambda cell: {
        **{f"click.auc_by_level.{level}": 0.6 + 0.1 * place + 0.01 * cell.seed for place, level in enumerate(levels)},
        "click.gini": 0.03 + 0.0042 * cell.seed,
        "click.auc": 0.7,
    }
    drawn = {}
    for columns in (["click.auc", asked], ["click.auc"]):
        comparison = planned(compare(metrics=columns), prepared, tmp_path)
        carry_out(comparison, Canned(of), lambda line: None)
        table = compared(comparison, "x")
        drawn[len(columns)] = html(table, prepared.schema)
        assert list(table.by_level) == (["click"] if len(columns) == 2 else [])
    svg = svg_of(drawn[2], "click by level and system")
    assert all(colour in svg for colour in MODEL_COLOURS[:3]) and MODEL_COLOURS[3] not in svg
    assert all(f"<!-- {level} -->" in svg for level in levels) and svg.count("<!-- .0321 -->") == 2  # mean of two seeds
    assert "by level and system" not in drawn[1]


def test_levels_and_gini_as_columns_and_claims(prepared, tmp_path):
    """Gini is better when small: the claim's gain is above 0 for the smaller one."""
    values = {"bottom": (0.60, 0.05), "mmoe": (0.64, 0.02)}
    of = lambda cell: dict(
        zip(("click.auc_by_level.tail", "click.gini"), [v + 0.001 * cell.seed for v in values[cell.label]], strict=True)
    )
    columns = ("click.auc_by_level.tail", "click.gini")
    claims = [{"better": "mmoe", "than": ["bottom"]}]
    comparison = planned(compare(metrics=columns, claims=claims), prepared, tmp_path)
    carry_out(comparison, Canned(of), lambda line: None)
    table = compared(comparison, "x")
    assert [table.row("mmoe").scores[path].place for path in columns] == [1, 1]
    assert [claim.test.mean for claim in table.claims] == pytest.approx([0.04, 0.03])
    assert "|  | click AUC tail | click Gini ↓ |" in markdown(table, prepared.schema)
    assert "by level and system" not in html(table, prepared.schema)  # two of the levels have no value


def test_one_seed_has_no_deviation_and_says_so(prepared, tmp_path):
    comparison = planned(compare(seeds=[3], claims=[{"better": "mmoe", "than": ["bottom"]}]), prepared, tmp_path)
    carry_out(comparison, Canned(lambda cell: {"click.auc": 0.7 if cell.label == "mmoe" else 0.6}), lambda line: None)
    table = compared(comparison, "x")
    assert str(table.claims[0]) == "mmoe > bottom on click.auc: +.1000 (1 seed), no p value: not tested"
    text = markdown(table, prepared.schema)
    assert "| mmoe | **.7000** (+100.0 %) |" in text and "no deviation, no p value" in text
    assert html(table, prepared.schema)


def test_an_empty_table_can_be_written(prepared, tmp_path):
    comparison = planned(compare(claims=[{"better": "mmoe", "than": ["bottom"]}]), prepared, tmp_path / "cells")
    table = compared(comparison, "x")
    assert "not tested, no seed of both is finished" in str(table.claims[0])
    assert "| mmoe | – |" in markdown(table, prepared.schema)
    assert write_table(tmp_path / "out", table, prepared.schema).exists()


def test_columns_are_divided_evenly_and_by_target():
    paths = lambda text: tuple(f"{target}.{metric}" for target, metric in zip(text, "abcdefghijklmnop", strict=False))
    sizes = lambda text: [len(part) for part in parts_of(paths(text))]
    assert sizes("xxxyyyz") == [7]
    assert sizes("abcdefghi") == [5, 4]
    assert sizes("xxxxxyyyz") == [5, 4]
    assert sizes("xxxxxxxxxx") == [8, 2]


# -- the whole way -------------------------------------------------------------------------------------------------


def test_two_systems_two_seeds(prepared, tmp_path):
    config = compare(
        systems={
            "mmoe": {"system": "mmoe", **SMALL},
            "binned": {"system": "shared_bottom", **SMALL, "targets": {"stay": {"head": "bins", "bins": 3}}},
        },
        metrics=["click.auc", "stay.mse_transformed"],
        rates=[0.01],
        claims=[{"better": "mmoe", "than": ["binned"]}],
    )
    comparison = planned(config, prepared, tmp_path)
    said: list[str] = []
    carry_out(comparison, InProcess(), said.append)
    assert len(said) == 4 and said[0].startswith("1/4  mmoe rate 0.01 seed 0: click AUC ") and "left" in said[0]
    table = compared(comparison, "tiny")
    for system in comparison.systems:
        for cell in comparison.cells(system):
            bundle = load_bundle(cell.folder / "bundle")
            assert bundle.schema == system.schema and bundle.provenance["seed"] == cell.seed
            assert bundle.provenance["train"]["optimiser"]["dense"]["rate"] == 0.01
            metrics = evaluate_table(score(bundle.ranker, bundle.schema, prepared.files("valid")), prepared.schema)
            for path in table.columns:
                assert table.row(cell.label).scores[path].by_seed[cell.seed] == metrics.value(path)
            result = result_of(cell)
            assert result.cell.training.steps == 8 and result.cell.training.epochs == 2
            assert result.cell.valid.value == bundle.provenance["monitor"]["auc"]
            assert not (cell.folder / "checkpoints").exists() and (cell.folder / "history.json").exists()
    assert table.row("mmoe").scores["click.auc"].mean > 0.55  # it has learnt something
    assert table.row("binned").settings["targets"] == {"stay": {"head": "bins", "bins": 3}}
    assert write_table(tmp_path, table, prepared.schema).exists()
    again = planned(config, prepared, tmp_path)
    assert again.left() == 0 and compared(again, "tiny").rows == table.rows


def test_a_killed_cell_goes_on_inside(prepared, tmp_path):
    """Broken off after its first epoch, a cell gives the scores of one that was not."""
    config = compare(systems={"mmoe": {"system": "mmoe", **SMALL}}, seeds=[0])
    whole = planned(config, prepared, tmp_path / "whole")
    carry_out(whole, InProcess(), lambda line: None)
    broken = planned(config, prepared, tmp_path / "broken")
    cell = broken.waiting()[0]
    assert isinstance(cell, Cell)

    def kill(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            prepared,
            cell.system.model,
            cell.train,
            output=cell.folder,
            purpose=cell.purpose,
            on_epoch=kill,
            say=lambda line: None,
        )
    carry_out(broken, InProcess(), lambda line: None)
    assert "Going on at epoch 2" in (cell.folder / "progress.log").read_text()
    results = [next(iter(each.results.values())) for each in (whole, broken)]
    assert results[0].metrics == results[1].metrics


def test_baselines_and_truth_stand_beside(tmp_path):
    prepared = write_world(tmp_path)
    evaluate = EvaluateConfig(baseline_iterations=5)
    claims = [{"better": "mmoe", "than": ["bottom"]}]
    comparison = planned(
        compare(seeds=[0], metrics=["click.auc", "order.auc", "stay.mse_transformed", "order.expected_auc"], claims=claims),
        prepared,
        tmp_path / "compare",
        evaluate=evaluate,
        truth=tmp_path / "truth",
    )
    said: list[str] = []
    carry_out(comparison, InProcess(), said.append)
    assert [line.split()[1] for line in said] == ["popularity:", "booster:", "truth:", "bottom", "mmoe"]
    table = compared(comparison, "world")
    truth = table.row("truth")
    assert [row.role for row in table.rows] == ["system", "system", "baseline", "baseline", "truth"]
    assert truth.scores["stay.mse_transformed"].mean is None and truth.scores["click.auc"].place is None
    ceiling = truth.scores["click.auc"].mean
    first, second = (table.row(label).scores["click.auc"].mean for label in ("mmoe", "bottom"))
    assert table.claims[0].gap == pytest.approx((first - second) / (ceiling - second))
    assert table.claims[2].gap is None
    expected = {row.label: row.scores["order.expected_auc"].mean for row in table.rows}  # no draw blurs these
    assert expected["truth"] == max(expected.values()) and table.claims[3].gap is not None
    assert "HistGradientBoosting" in table.words["booster"]
    assert ceiling > max(first, second)
    booster = table.row("booster").scores["click.auc"].mean
    assert (booster > max(first, second)) == any(
        "booster is better than every system on click.auc" in w for w in table.warnings
    )
    page = html(table, prepared.schema)
    assert "The truth is the simulator" in page and '<tr class="truth beside">' in page
    fewer = planned(
        compare(seeds=[0]), prepared, tmp_path / "compare", evaluate=replace(evaluate, baselines=("truth",)), truth=None
    )
    assert fewer.baselines == []
    other = replace(evaluate, baseline_iterations=6)
    changed = planned(compare(seeds=[0]), prepared, tmp_path / "compare", evaluate=other, truth=tmp_path / "truth")
    assert [unit.name for unit, _ in changed.others.values()] == ["booster"]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_cells_run_side_by_side_on_ray(local_ray, prepared, tmp_path):
    """No system survives a learning rate of 1e30; the others are not held up."""
    comparison = planned(compare(rates=[0.01, 1e30], max_concurrent=2), prepared, tmp_path)
    said: list[str] = []
    executor = OnRay(comparison.config)
    carry_out(comparison, executor, said.append)
    assert not executor.running and len(said) == 6 + 2
    assert sum("failed · FloatingPointError" in line for line in said) == 2
    table = compared(comparison, "x")
    assert [row.rate for row in table.systems] == [0.01, 0.01] and table.missing == 0
    here = planned(compare(rates=[0.01]), prepared, tmp_path / "here")
    carry_out(here, InProcess(), lambda line: None)
    for row in compared(here, "x").systems:
        assert row.scores["click.auc"].by_seed == pytest.approx(table.row(row.label).scores["click.auc"].by_seed)
    with pytest.raises(ConfigError, match=r"compare\.cpus_per_cell is 99, but no machine of the cluster has more than 4"):
        OnRay(compare(cpus_per_cell=99))


def test_without_ray_it_is_told(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="cells run on Ray"):
        OnRay(compare())


def test_paths_are_absolute(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = planned(compare(), prepared, Path("here")).waiting()[0]
    assert cell.folder == tmp_path / "here" / "cells" / "bottom" / "seed-0"
    assert cell.shared.data.is_absolute()
