"""Curves of a comparison: which systems their values make, when these run, and what the pages show of them."""

import json

import pytest

from models.config import ConfigError, from_dict
from pipelines.compare import CompareConfig
from pipelines.compare.config import columns_of, systems_of
from pipelines.compare.curves import varied_of
from pipelines.compare.execute import carry_out, overview, state_of_units
from pipelines.compare.table import compared
from pipelines.report.comparison.write import html, markdown, write_table
from tests.pipelines.fabricate import fabricate
from tests.pipelines.test_compare import SMALL, Canned, planned, ran, svg_of

CMLIR = {"system": "mmoe_cmlir", **SMALL}
STEPS = {"of": "cmlir", "axis": "model.learner.specific_steps", "symbol": "k", "title": "step number k", "values": [8, 1, 2]}
ETA = {"of": "cmlir", "axis": "model.learner.eta", "values": [0.5, 2]}
PATHS = ["click.auc", "click.gini", "click.auc_by_level.tail"]


def compare(*curves, **spelling) -> CompareConfig:
    systems = {"mmoe": {"system": "mmoe", **SMALL}, "cmlir": CMLIR}
    common = {"embedding_width": 4}
    base = {"systems": systems, "common": common, "seeds": [0, 1], "metrics": PATHS, "curves": curves}
    spelling = base | {"fewest_positives": 0} | spelling
    return from_dict(CompareConfig, spelling, where="compare")


def varied(config, schema):
    return varied_of(config, schema, systems_of(config, schema))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("curves") / "data")


# -- which systems -------------------------------------------------------------------------------------------------


def test_values_become_systems_with_the_own_value_among_them(tiny_schema):
    (curve,) = varied(compare(STEPS), tiny_schema)
    assert curve.values == (1, 2, 4, 8) and curve.own == 2
    assert [system.label for system in curve.systems] == ["cmlir[k=1]", "cmlir[k=2]", "cmlir", "cmlir[k=8]"]
    assert [system.model.learner.specific_steps for system in curve.systems] == [1, 2, 4, 8]
    assert {system.model.embedding_width for system in curve.systems} == {4}  # of `common`
    assert {system.model.fusion.hidden for system in curve.systems} == {(8,)}
    assert {system.model.learner.kind for system in curve.systems} == {"cmlir"}
    (named,) = varied(compare({**STEPS, "values": [4, 4.0, 8], "symbol": ""}), tiny_schema)  # its own value takes its cells
    assert [system.label for system in named.systems] == ["cmlir", "cmlir[specific_steps=8]"]


def test_words_and_lists_stand_as_given_behind_the_own_value(tiny_schema):
    sampling = {"of": "cmlir", "axis": "model.learner.sampling", "values": ["under", "curriculum", "natural"]}
    width = {"of": "mmoe", "axis": "model.fusion.hidden", "values": [[16, 8], [4]]}
    words, lists = varied(compare(sampling, width), tiny_schema)
    assert words.values == ("curriculum", "under", "natural") and words.own == 0
    assert [system.label for system in lists.systems] == ["mmoe", "mmoe[hidden=16-8]", "mmoe[hidden=4]"]
    assert lists.systems[1].model.fusion.hidden == (16, 8)


def test_a_value_that_is_a_row_of_the_table_or_of_another_curve_is_not_made_twice(tiny_schema):
    systems = {"cmlir": CMLIR, "fast": {**CMLIR, "learner": {"specific_steps": 8}}}
    again = {"of": "fast", "axis": "model.learner.specific_steps", "values": [2, 4]}
    first, second = varied(compare(STEPS, again, systems=systems), tiny_schema)
    assert [system.label for system in first.systems] == ["cmlir[k=1]", "cmlir[k=2]", "cmlir", "fast"]
    assert [system.label for system in second.systems] == ["cmlir[k=2]", "cmlir", "fast"] and second.own == 2


def test_a_curve_may_be_over_how_long_a_row_is_trained(tiny_schema):
    systems = {"mmoe": {"system": "mmoe", **SMALL}, "cmlir": {**CMLIR, "epochs": 10}}
    (curve,) = varied(
        compare({"of": "cmlir", "axis": "epochs", "symbol": "N", "values": [20, 5, 10]}, systems=systems), tiny_schema
    )
    assert curve.values == (5, 10, 20) and curve.own == 1
    assert [(system.label, system.epochs) for system in curve.systems] == [
        ("cmlir[N=5]", 5),
        ("cmlir", 10),
        ("cmlir[N=20]", 20),
    ]
    assert len({system.model for system in curve.systems}) == 1


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({"of": "ple"}, r"compare\.curves: `ple` is not among the systems: mmoe, cmlir"),
        ({"axis": "train.epochs"}, r"axis is a setting of the system's model, .* got 'train\.epochs'\. .* alike for all"),
        ({"axis": "model.system"}, r"got 'model\.system'\. Another row of the zoo is a system of its own"),
        (
            {"axis": "epochs"},
            r"compare\.curves: cmlir\[k=8\]: a curve over epochs needs a row that says its own; give `cmlir` epochs",
        ),
        ({"values": []}, r"a curve over model\.learner\.specific_steps needs at least one value"),
        ({"values": [2, 2]}, r"compare\.curves: model\.learner\.specific_steps has the value 2 twice"),
        ({"values": [0]}, r"compare\.curves: cmlir\[k=0\]: .*cmlir needs rounds >= 1, specific_steps >= 1"),
        ({"axis": "model.learner.stepz"}, r"compare\.curves: cmlir\[k=8\]: .*stepz` is not a known key"),
        ({"axis": "model.learner.eta", "values": [{"a": 1, "b": 2}]}, r"compare\.curves: cmlir\[k=.*`model\.learner.*eta`"),
        ({"of": "mmoe"}, r"compare\.curves: mmoe\[k=8\]: .*specific_steps` is not a known key"),
        ({"metrics": ["click.uac"]}, r"compare\.curves: no metric `click\.uac`"),
    ],
)
def test_a_wrong_curve_cannot_be_configured(tiny_schema, curve, message):
    with pytest.raises(ConfigError, match=message):
        config = compare({**STEPS, **curve})
        varied(config, tiny_schema)
        columns_of(config, tiny_schema)


def test_labels_that_are_alike_but_for_signs_are_refused(tiny_schema):
    systems = {"cmlir": CMLIR, "cmlir k 8": {**CMLIR, "embedding_width": 2}}
    with pytest.raises(ConfigError, match=r"compare\.curves: `cmlir k 8` and `cmlir\[k=8\]` would share the folder"):
        varied(compare(STEPS, systems=systems), tiny_schema)


# -- which cells run -----------------------------------------------------------------------------------------------


def test_cells_of_curves_run_after_the_table_and_never_again(prepared, tmp_path):
    value = lambda cell: {"click.auc": 0.6}
    comparison = planned(compare(STEPS), prepared, tmp_path)
    assert comparison.count() == (0, 10)
    assert "Comparing: 4 cells (2 systems x 2 seeds) + 6 for 3 more values of curves; 0 of 10 done." in overview(comparison)
    assert "to run  cmlir[k=8] seed 1" in state_of_units(comparison)
    beside = [f"cmlir[k={k}] seed {seed}" for seed in (0, 1) for k in (1, 2, 8)]
    rows = [f"{label} seed {seed}" for seed in (0, 1) for label in ("mmoe", "cmlir")]
    assert ran(comparison, Canned(value)) == [*rows, *beside]
    table = compared(comparison, "x")
    assert [row.label for row in table.systems] == ["mmoe", "cmlir"]
    assert [row.label for row in table.beside] == ["cmlir[k=1]", "cmlir[k=2]", "cmlir[k=8]"]
    wider = {**STEPS, "values": [1, 2, 8, 16]}
    more = ran(planned(compare(wider), prepared, tmp_path), Canned(value))
    assert more == ["cmlir[k=16] seed 0", "cmlir[k=16] seed 1"]
    assert ran(planned(compare(STEPS), prepared, tmp_path, only=["cmlir[k=1]"]), Canned(value)) == []


def test_what_is_not_there_or_failed_is_told(prepared, tmp_path):
    def value(cell):
        if cell.name == "cmlir[k=8] seed 1":
            raise ValueError("no luck")
        return {"click.auc": 0.6}

    comparison = planned(compare(STEPS), prepared, tmp_path, only=["mmoe", "cmlir", "cmlir[k=8]"])
    ran(comparison, Canned(value))
    table = compared(comparison, "x")
    assert (table.failed, table.missing) == (1, 5)
    assert table.warnings == [
        "cmlir[k=8] seed 1 failed: ValueError: no luck",
        "not all of the 2 seeds are there yet: cmlir[k=1] 0, cmlir[k=2] 0",
    ]


def test_every_value_takes_its_own_best_rate(prepared, tmp_path):
    best = {"mmoe": 0.1, "cmlir": 0.2, "cmlir[k=8]": 0.1}
    comparison = planned(compare({**STEPS, "values": [8]}, rates=[0.1, 0.2]), prepared, tmp_path)
    assert comparison.count() == (0, 9)
    ran(comparison, Canned(lambda cell: {"click.auc": 0.6}, lambda cell: float(cell.rate == best[cell.label])))
    table = compared(comparison, "x")
    assert {row.label: row.rate for row in [*table.systems, *table.beside]} == best
    assert "mmoe 0.1, cmlir 0.2, cmlir[k=8] 0.1" in table.words["Learning rate"]


# -- what is shown -------------------------------------------------------------------------------------------------


@pytest.fixture
def table(prepared, tmp_path):
    auc = {"mmoe": 0.5, "cmlir[k=1]": 0.61, "cmlir[k=2]": 0.63, "cmlir": 0.66, "cmlir[k=8]": 0.64}
    of = lambda cell: {"click.auc": auc[cell.label] + 0.02 * cell.seed, "click.gini": 0.0312, "click.auc_by_level.tail": 0.6}
    overall = {"of": "cmlir", "axis": "model.learner.eta", "values": [2.0], "metrics": ["click.auc_by_level.tail"]}
    auc["cmlir[eta=2]"] = 0.5
    comparison = planned(compare(STEPS, overall), prepared, tmp_path)
    carry_out(comparison, Canned(of), lambda line: None)
    return compared(comparison, "numbers")


def test_curves_by_hand(table):
    steps, eta = table.curves
    assert (steps.of, steps.axis, steps.title) == ("cmlir", "model.learner.specific_steps", "step number k")
    assert (steps.values, steps.own) == (["1", "2", "4", "8"], 2) and eta.title == "learner.eta"
    assert list(steps.scores) == ["click.auc", "click.gini"]  # of the table's, that which is no single level's
    assert [score.mean for score in steps.scores["click.auc"]] == pytest.approx([0.62, 0.64, 0.67, 0.65])
    assert [score.std for score in steps.scores["click.auc"]] == pytest.approx([0.02 / 2**0.5] * 4)
    assert list(eta.scores) == ["click.auc_by_level.tail"] and eta.values == ["1", "2"] and eta.own == 0


def test_pages_show_curves_and_keep_their_systems_out_of_the_table(table, prepared, tmp_path):
    text = markdown(table, prepared.schema)
    assert "| step number k, cmlir | 1 | 2 | **4** | 8 |" in text
    assert "| click AUC | .6200 ± .0141 | .6400 ± .0141 | .6700 ± .0141 | .6500 ± .0141 |" in text
    assert "| cmlir[k=8]" not in text
    page = html(table, prepared.schema)
    main = page[page.index('<section id="table">') : page.index('<section id="settings-varied">')]
    assert "cmlir[k=8]" not in main and page.count("over step number k of cmlir") == 2
    svg = svg_of(page, "click.auc over step number k of cmlir")
    assert all(f"<!-- {text} -->" in svg for text in ("1", "2", "4", "8", "step number k", "click AUC"))
    assert '<th class="own">4</th>' in page and page.count('class="own"') == 3 + 2  # head and two rows, head and one
    write_table(tmp_path / "out", table, prepared.schema)
    plain = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert plain["curves"][0]["scores"]["click.auc"][2]["mean"] == pytest.approx(0.67)
    assert plain["beside"][2]["settings"]["model"]["learner"]["specific_steps"] == 8


def test_curves_of_which_nothing_is_there_yet(prepared, tmp_path):
    page = html(compared(planned(compare(STEPS, ETA), prepared, tmp_path), "x"), prepared.schema)
    assert "over step number k" not in page and page.count("<h3>cmlir: ") == 2
