"""The structure search: its steps over given scores, what it refuses and leaves, and a small one on Ray."""

import csv
import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from models.config import ConfigError, from_dict
from models.schema import Schema
from pipelines.bundle import load_bundle
from pipelines.prepared import Prepared
from pipelines.runs.noted import signed
from pipelines.tune import TuneConfig
from pipelines.tune.structure.graphs import EMPTY, Noise, StructureConfig, StructureSearch, graph_of, spelled, variations
from pipelines.tune.structure.problem import order_of, shares_of, with_parents
from pipelines.tune.structure.result import targets_yaml
from pipelines.tune.structure.search import search_structure, structure_preview
from tests.pipelines.fabricate import epoch_record, fabricate

ABC, ABCD = ("a", "b", "c"), ("a", "b", "c", "d")
EXACT = {"seeds": (0,), "min_gain": 0.0, "budget": 1000}


def edges(text):
    """`ab bc` for a → b, b → c."""
    return frozenset((pair[0], pair[1]) for pair in text.split())


def searched(score, order=ABCD, start=None, **settings):
    """A finished search over `score(graph)`, one number or one a seed, and the graphs it asked for, one list an ask."""
    asked = []

    def ask(graphs):
        asked.append(list(graphs))
        scores = {graph: score(graph) for graph in graphs}
        return {graph: each if isinstance(each, tuple) else (each,) for graph, each in scores.items() if each is not None}

    search = StructureSearch(order, StructureConfig(**{**EXACT, **settings}), ask)
    search.run(start)
    return search, asked


def distance(planted):
    """How many edges differ from a planted graph, negative; a reversed one counts as two."""
    return lambda graph: -float(len(graph ^ planted))


def acyclic_by_orders(graph, names):
    """There is an order in which every edge goes forward: without the search's own walk over the graph."""
    return any(all(order.index(a) < order.index(b) for a, b in graph) for order in itertools.permutations(names))


def all_graphs(names):
    """Every set of edges without a cycle, by trying all sets."""
    possible = list(itertools.permutations(names, 2))
    sets = (frozenset(each) for size in range(len(possible) + 1) for each in itertools.combinations(possible, size))
    return [graph for graph in sets if acyclic_by_orders(graph, names)]


# -- steps ---------------------------------------------------------------------------------------------------------


def test_a_planted_graph_is_found_from_an_empty_one():
    planted = edges("ab bc bd")
    search, asked = searched(distance(planted))
    assert search.found.graph == planted and search.found.score == 0
    # b's turn: two edges; c's: four, then a→c; d's: six, then c→d, d→c and a→d; the rest are variations
    assert [len(graphs) for graphs in asked[:6]] == [1, 2, 4, 1, 6, 3]
    assert asked[1] == [edges("ab"), edges("ba")]
    assert asked[2] == [edges("ab bc"), edges("ab cb"), edges("ab ac"), edges("ab ca")]  # nearest first, along the order first
    assert asked[3] == [edges("ab bc ac")]  # c→a would close a cycle
    assert [step.taken for step in search.steps] == [False, True, True, False, True, False, False]


def test_a_planted_graph_against_the_order_is_found():
    planted = edges("dc cb ba da")
    assert searched(distance(planted))[0].found.graph == planted
    assert searched(distance(planted), start=edges("ab bc cd"), vary=True)[0].found.graph == planted


def test_without_variations_edges_once_added_stay():
    """a→b is best while c has no edges; with c→b it is not, which variations alone find."""
    worth = {EMPTY: 0.0, edges("ab"): 1.0, edges("ab cb"): 2.0, edges("cb"): 3.0}
    score = lambda graph: worth.get(graph, -9.0)
    assert searched(score, ABC, vary=False)[0].found.graph == edges("ab cb")
    assert searched(score, ABC)[0].found.graph == edges("cb")


@pytest.mark.parametrize("seed", range(8))
def test_against_all_graphs_of_three(seed):
    """On scores that sum up over edges, the best of all 25 graphs is found, wherever the search starts."""
    every = all_graphs(ABC)
    assert len(every) == 25
    rng = np.random.default_rng(seed)
    # an edge between two costs or pays; enough of a difference between directions that no cycle is in the way
    along = {pair: float(value) for pair, value in zip(itertools.combinations(ABC, 2), rng.normal(size=3), strict=True)}
    worth = lambda a, b: along[a, b] if (a, b) in along else along[b, a] - 0.5
    score = lambda graph: sum(worth(*edge) for edge in graph)
    best = max(every, key=score)
    assert searched(score, ABC)[0].found.graph == best
    for start in every:
        search, _ = searched(score, ABC, start=start)
        assert search.found.graph == best
        steps = [search.tried[graph] for graph in search.tried]
        assert all(acyclic_by_orders(each.graph, ABC) for each in steps)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_cannot_be_bettered_by_one_edge(seed):
    """On any scores at all of the 543 graphs of four: no neighbour, listed by brute force, is better."""
    every = all_graphs(ABCD)
    assert len(every) == 543
    worth = dict(zip(every, np.random.default_rng(seed).normal(size=543).tolist(), strict=True))
    search, asked = searched(worth.__getitem__)
    tried = [graph for graphs in asked for graph in graphs]
    assert len(set(tried)) == len(tried)  # nothing is asked for twice
    assert set(tried) <= set(every)  # nothing has a cycle
    pairs = lambda graph: {frozenset(edge) for edge in graph}
    found = search.found.graph
    for graph in every:
        one_more_or_less = len(graph ^ found) == 1
        one_reversed = len(graph ^ found) == 2 and pairs(graph) == pairs(found)
        if one_more_or_less or one_reversed:
            assert graph in tried and worth[graph] <= worth[found]


def test_all_variations_are_made():
    every = all_graphs(ABCD)
    pairs = lambda graph: {frozenset(edge) for edge in graph}
    for graph in every[::23]:
        near = {each for each in every if len(each ^ graph) == 1 or (len(each ^ graph) == 2 and pairs(each) == pairs(graph))}
        assert set(variations(graph, ABCD)) == near
    changes = variations(edges("ab bc"), ABC)
    assert changes[edges("ab")] == "- b → c" and changes[edges("ba bc")] == "reversed: b → a"
    assert changes[edges("ab bc ac")] == "+ a → c"


def test_the_budget_is_kept():
    planted = edges("ab bc cd")
    for budget in (1, 2, 3, 5, 9, 14):
        search, asked = searched(distance(planted), budget=budget)
        assert len(search.tried) == sum(map(len, asked)) == budget and search.over_budget
        assert search.found.score == max(each.score for each in search.tried.values())  # what was tried counts
    search, _ = searched(distance(planted))
    assert not search.over_budget


def test_ties_go_to_the_sparser_graph():
    """All graphs are equal: nothing is added to the empty one, and all is taken from a full one."""
    assert searched(lambda graph: 0.5)[0].found.graph == EMPTY
    search, _ = searched(lambda graph: 0.5, start=edges("ab ac bc"), order=ABC)
    assert search.found.graph == EMPTY
    assert [len(each.graph) for each in search.tried.values() if each.number in {step.number for step in search.steps}] == [
        3,
        2,
        1,
        0,
    ]


def test_among_tied_edges_the_one_along_the_order_is_taken():
    """An edge between a and b pays 1, a bit more against the order."""
    score = {EMPTY: 0.0, edges("ab"): 1.0, edges("ba"): 1.05}.__getitem__
    assert searched(score, ("a", "b"), min_gain=0.1)[0].found.graph == edges("ab")
    assert searched(score, ("b", "a"), min_gain=0.1)[0].found.graph == edges("ba")
    assert searched(score, ("a", "b"), min_gain=0.01)[0].found.graph == edges("ba")


def test_many_small_losses_do_not_add_up():
    """Each edge is worth .04 and the tolerance is .05: one may go, not all three."""
    score = lambda graph: 0.04 * len(graph & edges("ab bc cd"))
    search, _ = searched(score, start=edges("ab bc cd"), min_gain=0.05)
    assert len(search.found.graph) == 2 and search.best == pytest.approx(0.12)
    search, _ = searched(score, start=edges("ab bc cd"), min_gain=0.03)
    assert search.found.graph == edges("ab bc cd")


def test_noise_below_the_tolerance_changes_nothing():
    """Scores differ by chance alone: the measured tolerance holds in most searches, one of 0 in few."""

    def moves(seed, **settings):
        rng = np.random.default_rng(seed)
        score = lambda graph: tuple((0.8 + rng.normal(size=4) * 0.001).tolist())
        search, _ = searched(score, seeds=(0, 1, 2, 3), budget=60, **settings)
        return sum(step.taken for step in search.steps)

    assert sum(moves(seed, min_gain=None) == 0 for seed in range(20)) >= 14
    assert sum(moves(seed, min_gain=0.0) == 0 for seed in range(20)) <= 4
    assert all(moves(seed, min_gain=0.005) == 0 for seed in range(20))


def test_a_gain_that_shows_through_the_noise_is_taken():
    """Each planted edge is worth five deviations of a training; what a seed does to all graphs is ten."""
    planted = edges("ab bc cd")
    rng = np.random.default_rng(3)
    of_seed = (0.0, 0.01, -0.01)
    score = lambda graph: tuple(
        0.8 + 0.005 * (len(graph & planted) - len(graph - planted)) + seed + rng.normal() * 0.001 for seed in of_seed
    )
    search, _ = searched(score, seeds=(0, 1, 2), min_gain=None)
    assert search.found.graph == planted
    assert 0.0005 < search.tolerance < 0.004  # two standard errors: 2 * .001 * sqrt(2 / 3) = .0016


def test_chance_is_what_graphs_and_seeds_leave_over():
    """Two graphs, two seeds: left over are +-.5 of the mean pattern, with one degree of freedom."""
    scores = [(1.0, 2.0), (3.0, 6.0)]  # graph means 1.5, 4.5, seed means 2, 4, mean 3: left over .5 -.5 -.5 .5
    assert Noise(scores).deviation == pytest.approx(1.0)
    assert Noise(scores).of_difference(2) == pytest.approx(1.0)
    assert Noise(scores).of_difference(8) == pytest.approx(0.5)
    assert Noise(scores, [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)]).deviation == pytest.approx(math.sqrt(1 / 3))  # 1 + 2 degrees
    assert Noise([(1.0, 2.0)]).deviation == Noise([(1.0,), (2.0,)]).deviation == math.inf
    assert Noise([(1.0, 2.0), (), (3.0, 6.0)]).deviation == pytest.approx(1.0)  # a graph without scores


def test_a_graph_that_cannot_be_scored_is_passed_over():
    planted = edges("ab bc")
    score = lambda graph: None if graph == edges("ab") else distance(planted)(graph)
    search, asked = searched(score, ABC)
    assert search.found.graph == planted  # by way of c's turn and variations
    assert sum(edges("ab") in graphs for graphs in asked) == 1 and search.tried[edges("ab")].scores == ()
    with pytest.raises(ConfigError, match=r"first graph \(no edges\) cannot be scored"):
        searched(lambda graph: None)


def test_a_search_repeats_itself_over_the_same_scores():
    rng = np.random.default_rng(0)
    known = {}

    def score(graph):
        if graph not in known:
            known[graph] = tuple((distance(edges("ab cb"))(graph) / 100 + rng.normal(size=2) / 500).tolist())
        return known[graph]

    first, _ = searched(score, seeds=(0, 1), min_gain=None)
    scored = len(known)
    again, _ = searched(score, seeds=(0, 1), min_gain=None)
    assert again.steps == first.steps and again.tried == first.tried and len(known) == scored


# -- what a search may be told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"targets": ["click"]}, r"at least two targets, each once, got \['click'\]"),
        ({"order": "listed"}, "the order of structure.targets, which lists none"),
        ({"seeds": [0, 1], "final_seeds": [1, 2]}, r"final_seeds others, each once; got \[0, 1\] and \[1, 2\]"),
        ({"seeds": [0]}, r"min_gain cannot be measured with one seed\. Set it, or give structure\.seeds two"),
        ({"min_gain": -0.1}, "min_gain must be at least 0, got -0.1"),
        ({"seeds": [0, 1], "final_seeds": [-1]}, r"must not be negative, got \[0, 1, -1\]"),
        ({"budget": 0}, "budget must be at least 1, got 0"),
        ({"start": {"click": ["order"], "order": ["click"]}}, "structure.start: click → order, order → click has a cycle"),
        ({"reference": {"a": ["a"]}}, "structure.reference: a → a has a cycle"),
        ({"strat": "empty"}, r"`tune\.structure\.strat` is not a known key\. Known here: targets, order, start"),
    ],
)
def test_a_wrong_search_cannot_be_configured(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TuneConfig, {"structure": spelling}, where="tune")


def test_settings_and_graphs_are_searched_one_after_the_other():
    space = {"train.seed": {"type": "choice", "values": [0, 1]}}
    with pytest.raises(ConfigError, match=r"settings \(`space`\) or the graph of targets \(`structure`\), one after the other"):
        from_dict(TuneConfig, {"structure": {}, "space": space}, where="tune")


DBMTL = {"system": "dbmtl", "embedding_width": 4, "fusion": {"hidden": [8], "towers": [4]}, "coupling": {"hidden": [4]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("structure") / "data")


def tune(**structure):
    return from_dict(TuneConfig, {"structure": {"seeds": [0], "min_gain": 0.0, **structure}}, where="tune")


@pytest.mark.parametrize(
    ("model", "structure", "message"),
    [
        ({"system": "mmoe"}, {}, r"coupling is `independent`, so the graph of targets changes nothing.*dbmtl, esmm"),
        ({"system": "dbmtl_click"}, {}, r"has a graph of its own.*Leave out model\.coupling\.parents and root"),
        (DBMTL, {"targets": ["click", "sale"]}, r"`sale`, which is not a target\. Targets: click, goods_bag, order, stay"),
        (DBMTL, {"targets": ["click", "order"], "start": {"order": ["goods_bag"]}}, "start has `goods_bag` in its graph"),
        ({"system": "esmm"}, {"start": {"click": ["stay"]}}, r"graph stay → click cannot be trained: esmm multiplies"),
        ({**DBMTL, "weighting": {"targets": "roots"}}, {"start": {"order": ["click"]}}, "`order` is not trained for"),
    ],
)
def test_what_the_experiment_does_not_allow_is_told_before_the_search(data, tmp_path, model, structure, message):
    with pytest.raises(ConfigError, match=message):
        search_structure({"model": model}, data.path, tune(**structure), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_a_score_is_told(data, tmp_path):
    with pytest.raises(ConfigError, match="begins with none that is trained: click, goods_bag"):
        search_structure({"model": DBMTL}, data.path, replace(tune(), metric="sale.auc"), tmp_path)
    schema = data.schema.to_dict()
    schema["targets"].append({**schema["targets"][3], "name": "visit"})
    values = fabricate(tmp_path / "values", schema=Schema.from_dict(schema))
    with pytest.raises(
        ConfigError, match=r"none of the searched targets is binary.*Set tune\.metric, to stay\.mse_transformed"
    ):
        search_structure({"model": DBMTL}, values.path, tune(targets=["stay", "visit"]), tmp_path / "out")


def test_targets_without_weight_are_not_searched(data, tmp_path):
    schema = data.schema.to_dict()
    schema["targets"][1]["loss_weight"] = 0.0
    spelling = {"schema": schema, "model": DBMTL}
    lines = structure_preview(spelling, data.path, tune(), tmp_path)
    assert "3 targets" in lines[0] and "goods_bag" not in lines[0]
    with pytest.raises(ConfigError, match="`goods_bag` is not trained for, so its place in the graph shows in no score"):
        structure_preview(spelling, data.path, tune(targets=["click", "goods_bag"]), tmp_path)


def test_the_more_even_target_comes_first(data):
    """Shares counted row by row, and a value after all binary targets."""
    labels = {name: [] for name in ("click", "goods_bag", "order")}
    for file in data.files("train"):
        for row in pq.read_table(file).to_pylist():
            for name in labels:
                labels[name] += row[f"label.{name}"]
    shares = {name: sum(values) / len(values) for name, values in labels.items()}
    assert shares_of(data, list(labels)) == pytest.approx(shares)
    expected = sorted(labels, key=lambda name: abs(shares[name] - 0.5))
    assert order_of(data, StructureConfig(), data.schema.target_names) == (*expected, "stay")
    listed = StructureConfig(targets=("order", "click"), order="listed")
    assert order_of(data, listed, ("click", "order")) == ("order", "click")


def test_other_parents_are_another_schema_of_the_same_data(data):
    """Prepared data take any graph; the others keep theirs; and what is printed can be put into the schema."""
    schema = with_parents(data.schema, {"click": ("order",), "goods_bag": (), "order": ()})
    assert [schema.parents(name) for name in schema.target_names] == [("order",), (), (), ("click",)]
    assert Prepared.open(data.path, schema=schema).schema == schema
    text = targets_yaml(schema)
    assert "{name: click, action: enter, parents: [order], fusion_weight: 0.5}" in text
    assert Schema.from_dict({**data.schema.to_dict(), **yaml.safe_load(text)}) == schema


# -- what a search leaves ------------------------------------------------------------------------------------------


class Trained:
    """In the place of trainings on Ray: writes what one leaves, with AUCs that grow with planted edges."""

    def __init__(self, planted, broken=EMPTY, fail_after=None):
        self.planted, self.broken, self.fail_after = planted, broken, fail_after
        self.done = []

    def __call__(self, problem, trainings, round, over):
        for graph, seed in trainings:
            if self.fail_after is not None and len(self.done) >= self.fail_after:
                raise KeyboardInterrupt
            if graph & self.broken:
                over((graph, seed), "FloatingPointError: not finite")
                continue
            auc = 0.7 + 0.01 * (len(graph & self.planted) - 0.5 * len(graph - self.planted)) + 0.001 * seed
            targets = {name: {"auc": auc, "mse_transformed": 1 - auc} for name in problem.schema.target_names}
            bundle = problem.folder_of(graph, seed) / "bundle"
            bundle.mkdir(parents=True)
            (bundle / "metrics.json").write_text(json.dumps({"targets": targets, "mean": {"auc": auc}}))
            (bundle / "provenance.json").write_text(json.dumps(signed({"seed": seed, "weights": "none"})))
            (bundle.parent / "history.json").write_text(
                json.dumps([asdict(epoch_record(epoch, seconds=2.0 + epoch)) for epoch in (0, 1)])
            )
            self.done.append((graph, seed))
            over((graph, seed), None)


@pytest.fixture
def trained(monkeypatch):
    def use(*args, **settings):
        trainings = Trained(*args, **settings)
        monkeypatch.setattr("pipelines.tune.structure.ray_tune.run_trainings", trainings)
        watch = lambda what, curves, config, say: say(f"{what} Watch: {curves}")
        monkeypatch.setattr("pipelines.tune.structure.trainings.say_where_to_watch", watch)
        return trainings

    return use


CHAIN = graph_of({"goods_bag": ("click",), "order": ("goods_bag",)})
THREE = {"targets": ["click", "goods_bag", "order"], "order": "listed", "seeds": [0, 1], "min_gain": 0.001}


def test_a_search_finds_the_graph_and_leaves_tables(trained, data, tmp_path):
    trainings = trained(CHAIN)
    config = tune(**THREE, reference="schema", final_seeds=[5, 6])
    said = []
    result = search_structure({"model": DBMTL}, data.path, config, tmp_path, say=said.append)
    assert result.found.graph == CHAIN and result.fresh and not result.over_budget
    assert result.found.scores == pytest.approx((0.72, 0.721)) and result.metric.startswith("mean of click.auc, goods_bag.auc")
    assert "trials" in said[0] and "Watch" in said[0]
    assert result.schema.parents("order") == ("goods_bag",) and result.schema.parents("stay") == ("click",)
    assert "graph 1 of at most 40 · 0.7005 ± 0.0007 (2 seeds) · no edges" in said
    assert "Round 1: graph 2 is taken (+ click → goods_bag; tolerance 0.0010)" in said

    # the found graph is the reference; both are trained anew with the final seeds, as is the empty one
    assert [(each.roles, each.graph) for each in result.final] == [(("found", "reference"), CHAIN), (("first",), EMPTY)]
    assert result.final[0].difference == 0 and result.final[1].difference == pytest.approx(0.02)
    assert result.final[1].scores == pytest.approx((0.705, 0.706))
    assert {seed for graph, seed in trainings.done if graph == CHAIN} == {0, 1, 5, 6}
    assert any("found - first = +0.0200" in line and "better by more than 0.0010" in line for line in said)
    assert "  - {name: order, action: order, parents: [goods_bag], fusion_weight: 1.0}" in said

    rows = list(csv.DictReader(result.table.open()))
    assert [row["graph"] for row in rows] == [str(each.number) for each in result.tried]
    assert [row["parents"] for row in rows if row["taken"]] == ["click → goods_bag", spelled(CHAIN)]
    assert (rows[0]["score"], rows[0]["spread"], rows[0]["seed 1"], rows[0]["gain"]) == ("0.700500", "0.000707", "0.701000", "")
    assert (rows[1]["gain"], rows[1]["edges"], rows[1]["seconds"]) == ("+0.010000", "1", "10.0")
    found = json.loads((tmp_path / "structure.json").read_text())
    assert found["parents"] == {"click": [], "goods_bag": ["click"], "order": ["goods_bag"]}
    assert Schema.from_dict(
        {**data.schema.to_dict(), **yaml.safe_load((tmp_path / "targets.yaml").read_text())}
    ) == with_parents(data.schema, found["parents"])
    assert result.picture.read_bytes()[:4] == b"\x89PNG"
    assert "found - first" in (tmp_path / "structure.md").read_text()
    # the best seed's bundle, and where it comes from
    assert result.bundle_path.parent.name.endswith("-seed-6")
    assert json.loads((result.bundle_path / "provenance.json").read_text())["structure"]["graph"] == spelled(CHAIN)


def test_nothing_is_trained_twice(trained, data, tmp_path):
    config = tune(**THREE)
    whole = trained(CHAIN)
    straight = search_structure({"model": DBMTL}, data.path, config, tmp_path / "straight", say=lambda line: None)
    all_of_it = list(whole.done)
    for killed_after in (0, 1, 5, len(all_of_it) - 1):
        output = tmp_path / str(killed_after)
        first = trained(CHAIN, fail_after=killed_after)
        with pytest.raises(KeyboardInterrupt):
            search_structure({"model": DBMTL}, data.path, config, output, say=lambda line: None)
        second = trained(CHAIN)
        result = search_structure({"model": DBMTL}, data.path, config, output, say=lambda line: None)
        assert first.done + second.done == all_of_it
        assert (result.tried, result.steps, result.found) == (straight.tried, straight.steps, straight.found)

    third, said = trained(CHAIN), []
    again = search_structure({"model": DBMTL}, data.path, config, tmp_path / "straight", say=said.append)
    assert third.done == [] and not again.fresh and said[0].startswith("Already searched")
    assert (again.tried, again.found, again.bundle_path) == (straight.tried, straight.found, straight.bundle_path)


def test_another_budget_goes_on_with_the_same_trainings(trained, data, tmp_path):
    trainings = trained(CHAIN)
    small = search_structure({"model": DBMTL}, data.path, tune(**THREE, budget=2), tmp_path, say=lambda line: None)
    assert small.over_budget and len(trainings.done) == 4 and small.found.graph == graph_of({"goods_bag": ("click",)})
    large = search_structure({"model": DBMTL}, data.path, tune(**THREE), tmp_path, say=lambda line: None)
    assert large.found.graph == CHAIN and len(set(trainings.done)) == len(trainings.done)
    other = {"model": {**DBMTL, "embedding_width": 8}}
    with pytest.raises(ConfigError, match=r"with other settings: model.embedding_width \(4 -> 8\)\. Search into another"):
        search_structure(other, data.path, tune(**THREE), tmp_path)
    assert search_structure(other, data.path, tune(**THREE), tmp_path, resume=False, say=lambda line: None).fresh


def test_a_graph_that_fails_is_told_and_passed_over(trained, data, tmp_path):
    trained(CHAIN, broken=graph_of({"click": ("goods_bag",)}))
    said = []
    result = search_structure({"model": DBMTL}, data.path, tune(**THREE), tmp_path, say=said.append)
    assert result.found.graph == CHAIN
    failed = [line for line in said if "cannot be scored" in line]
    assert failed[0] == "graph 3 of at most 40 · cannot be scored: FloatingPointError: not finite · goods_bag → click"
    row = list(csv.DictReader(result.table.open()))[2]
    assert (row["score"], row["reason"]) == ("", "FloatingPointError: not finite")

    # esmm refuses values as parents; that costs no training
    trainings, said = trained(CHAIN), []
    config = tune(targets=["click", "stay"], order="listed", min_gain=0.001)
    search_structure({"model": {"system": "esmm"}}, data.path, config, tmp_path / "esmm", say=said.append)
    assert {spelled(graph) for graph, _ in trainings.done} == {"no edges", "click → stay"}
    assert any("cannot be scored: " in line and "stay`, above `click`, is a value" in line for line in said)

    trained(CHAIN, broken=CHAIN)
    config = tune(**THREE, start="schema")
    with pytest.raises(ConfigError, match=r"first graph .* cannot be scored.*FloatingPointError: not finite"):
        search_structure({"model": DBMTL}, data.path, config, tmp_path / "all", say=lambda line: None)


def test_a_graph_whose_seeds_end_together_is_told_once(trained, data, tmp_path, monkeypatch):
    """Both trainings have written their scores when the first of them is reported."""
    trainings = trained(CHAIN)

    def together(problem, missing, rounds, over):
        ended = []
        trainings(problem, missing, rounds, lambda training, failure: ended.append(training))
        for training in ended:
            over(training, None)

    monkeypatch.setattr("pipelines.tune.structure.ray_tune.run_trainings", together)
    said = []
    result = search_structure({"model": DBMTL}, data.path, tune(**THREE), tmp_path, say=said.append)
    told = [line.split(" · ")[0] for line in said if " of at most 40 · " in line]
    assert len(told) == len(set(told)) == len(result.tried)


def test_scores_of_several_metrics(trained, data, tmp_path):
    """The mean of an AUC and minus a squared error: .7 - .3 over 2."""
    trained(CHAIN)
    config = replace(tune(**THREE), metric=("click.auc", "stay.mse_transformed"))
    result = search_structure({"model": DBMTL}, data.path, config, tmp_path, say=lambda line: None)
    assert result.metric == "mean of click.auc, -stay.mse_transformed"
    assert result.tried[0].scores == pytest.approx((0.2, 0.201))


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_small_search_on_ray(local_ray, data, tmp_path):
    """Scores are those of the bundles, every graph is trained with its own parents, and nothing is trained again."""
    config = tune(targets=["click", "order"], order="listed", seeds=[0, 1], min_gain=None)
    config = replace(
        config, structure=replace(config.structure, vary=False, reference={"order": ("click",)}), metric="click.auc"
    )
    spelling = {"model": DBMTL, "train": {"epochs": 1, "batch_feeds": 16}}
    said = []
    result = search_structure(spelling, data.path, config, tmp_path, say=said.append)
    assert "tensorboard --logdir" in said[0] and result.fresh
    assert {each.graph for each in result.tried} == {EMPTY, frozenset({("click", "order")}), frozenset({("order", "click")})}
    assert sum(" of at most 40 · " in line for line in said) == 3
    folders = sorted(path.parent for path in tmp_path.glob("trials/*/bundle"))
    assert len(folders) == 6 and not list(tmp_path.glob("trials/*/checkpoints"))
    means = {}
    for folder in folders:
        bundle = load_bundle(folder / "bundle")
        parents = {name: bundle.schema.parents(name) for name in bundle.schema.target_names}
        assert parents["goods_bag"] == ("click",) and parents["stay"] == ("click",)  # not searched
        means.setdefault((parents["click"], parents["order"]), []).append(bundle.metrics["targets"]["click"]["auc"])
        assert str(bundle.provenance["seed"]) == folder.name[-1]
    assert set(means) == {((), ()), ((), ("click",)), (("order",), ())}
    for each in result.tried:
        parents = tuple(tuple(a for a, b in each.graph if b == name) for name in ("click", "order"))
        assert sorted(each.scores) == pytest.approx(sorted(means[parents]))
    assert load_bundle(result.bundle_path).metrics["targets"]["click"]["auc"] == max(result.found.scores)
    again = search_structure(spelling, data.path, config, tmp_path, say=said.append)
    assert not again.fresh and again.tried == result.tried
