import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError, from_dict, to_dict
from models.couplings.dbmtl import Dbmtl, DbmtlConfig
from models.losses import believed
from models.schema import Target
from models.slots import Training
from tests.models.test_couplings import with_targets
from tests.models.test_draws import feeds
from tests.models.test_transfer import random_vectors, shuffled
from tests.samples import full_schema, tiny_schema

DIAMOND = with_targets(  # every kind as parent and as child, declared children first
    Target(name="d", action="d", parents=("c", "b")),
    Target(name="b", action="b", kind="value", head="log1p", parents=("a",)),
    Target(name="c", action="c", kind="value", head="bins", bins=3, parents=("a",)),
    Target(name="a", action="a"),
)
WIDTHS = {"a": 2, "b": 3, "c": 2, "d": 4}
BELOW = {"a": {"a", "b", "c", "d"}, "b": {"b", "d"}, "c": {"c", "d"}, "d": {"d"}}


def coupling_of(schema=DIAMOND, widths=WIDTHS, **settings):
    return shuffled(Dbmtl(DbmtlConfig(**settings), schema, widths))


def by_hand(coupling, vectors, *, without=None):
    """Outputs target by target, candidate by candidate; `without` = (parent, child) replaces that embedding by zeros."""
    place = {name: (bank, index) for group, bank in zip(coupling.groups, coupling.banks) for index, name in enumerate(group)}  # noqa: B905
    outputs = {name: [] for name in coupling.parents}
    for n in range(len(next(iter(vectors.values())))):
        embeddings = {}
        while len(embeddings) < len(coupling.parents):
            for name, parents in coupling.parents.items():
                if name in embeddings or not all(parent in embeddings for parent in parents):
                    continue
                handed = [embeddings[parent] * ((parent, name) != without) for parent in parents]
                x = torch.cat([vectors[name][n], *handed])
                bank, index = place[name]
                for layer in bank.layers:
                    x = (x @ layer.weight_BIH[index] + layer.bias_B1H[index, 0]).relu()
                embeddings[name] = x
                head = coupling.heads.linear[name]
                outputs[name].append(x @ head.weight_BIH[0] + head.bias_B1H[0, 0])
    return {name: torch.stack(rows).squeeze(1) for name, rows in outputs.items()}


def test_a_chain_by_hand():
    """Width 1, weights 1: click's embedding is relu(2) = 2; order's relu(3 + 2) = 5, at click = -2 relu(3 + 0) = 3."""
    schema = with_targets(Target(name="click", action="c"), Target(name="order", action="o", parents=("click",)))
    coupling = Dbmtl(DbmtlConfig(hidden=(1,)), schema, {"click": 1, "order": 1})
    with torch.no_grad():
        for name, parameter in coupling.named_parameters():
            parameter.fill_(0.0 if "bias" in name else 1.0)
    vectors = {"click": torch.tensor([[2.0], [-2.0]]), "order": torch.tensor([[3.0], [3.0]])}
    outputs = coupling(vectors, None).outputs
    assert outputs["click"].tolist() == [2.0, 0.0]  # a root passes its own layer too
    assert outputs["order"].tolist() == [5.0, 3.0]
    assert coupling.edges(vectors)["click", "order"].tolist() == [2.0, 0.0]


@pytest.mark.parametrize("hidden", [(5,), (6, 4)])
def test_outputs_follow_the_paper_target_by_target(hidden):
    coupling, vectors = coupling_of(hidden=hidden), random_vectors(WIDTHS)
    outputs, expected = coupling(vectors, None).outputs, by_hand(coupling, vectors)
    assert list(outputs) == ["d", "b", "c", "a"] and outputs["c"].shape == (7, 4)
    for name in outputs:
        assert_close(outputs[name], expected[name])


@pytest.mark.parametrize("changed", WIDTHS)
def test_parents_change_children_and_never_the_reverse(changed):
    coupling, vectors = coupling_of(), random_vectors(WIDTHS, candidates=50)
    before = coupling(vectors, None).outputs
    after = coupling({**vectors, changed: vectors[changed] + 1}, None).outputs
    assert {name for name in before if not torch.equal(before[name], after[name])} == BELOW[changed]


@pytest.mark.parametrize("trained", WIDTHS)
def test_the_loss_of_a_target_moves_its_ancestors_and_no_descendant(trained):
    coupling, vectors = coupling_of(), random_vectors(WIDTHS, candidates=50)
    for vector in vectors.values():
        vector.requires_grad_()
    coupling(vectors, None).outputs[trained].sum().backward()
    moved = {name for name, vector in vectors.items() if vector.grad is not None and vector.grad.any()}
    assert moved == {name for name, below in BELOW.items() if trained in below}


def test_edges_are_what_the_child_would_change_without_the_parent():
    coupling, vectors = coupling_of(hidden=(6, 4)), random_vectors(WIDTHS)
    edges, outputs = coupling.edges(vectors), by_hand(coupling, vectors)
    assert list(edges) == [("c", "d"), ("b", "d"), ("a", "b"), ("a", "c")]
    for (parent, child), carried_N in edges.items():
        said = lambda output: believed(DIAMOND.target(child), output) if child == "c" else output  # noqa: B023
        without = by_hand(coupling, vectors, without=(parent, child))
        assert_close(carried_N, (said(outputs[child]) - said(without[child])).abs())
        assert carried_N.any()


def test_the_graph_is_the_schemas_by_default():
    schema = full_schema()
    coupling = Dbmtl(DbmtlConfig(), schema, dict.fromkeys(schema.target_names, 2))
    assert coupling.parents == {name: schema.parents(name) for name in schema.target_names}
    assert coupling.groups == (("click",), ("goods_bag", "stay", "follow", "visit"), ("order",), ("price",))


@pytest.mark.parametrize("root", ["click", "goods_bag", "stay"])
def test_a_root_points_at_all_others(root):
    coupling = coupling_of(tiny_schema(), dict.fromkeys(tiny_schema().target_names, 2), root=root)
    assert coupling.parents == {name: () if name == root else (root,) for name in tiny_schema().target_names}
    vectors = random_vectors(dict.fromkeys(tiny_schema().target_names, 2), candidates=50)
    before = coupling(vectors, None).outputs
    for changed in tiny_schema().target_names:
        after = coupling({**vectors, changed: vectors[changed] + 1}, None).outputs
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == (set(before) if changed == root else {changed})


def test_another_graph_replaces_the_schemas():
    """A value above the click, two parents, and targets without any."""
    coupling = coupling_of(
        tiny_schema(), dict.fromkeys(tiny_schema().target_names, 2), parents={"click": ("stay",), "order": ("stay", "click")}
    )
    assert coupling.parents == {"click": ("stay",), "goods_bag": (), "order": ("stay", "click"), "stay": ()}
    vectors = random_vectors(dict.fromkeys(tiny_schema().target_names, 2))
    expected = by_hand(coupling, vectors)
    for name, output in coupling(vectors, None).outputs.items():
        assert_close(output, expected[name])


def test_the_graph_survives_its_spelling():
    config = DbmtlConfig(parents={"click": (), "order": ("click",)})
    assert from_dict(DbmtlConfig, to_dict(config)) == config
    assert from_dict(DbmtlConfig, {"kind": "dbmtl", "parents": {"click": [], "order": ["click"]}}) == config


def test_dropout_acts_in_training_only():
    coupling, vectors = coupling_of(dropout=0.5), random_vectors(WIDTHS)
    training = Training(progress=0.5, batch=feeds([3, 1], [3, 4]), beliefs={})
    predicted = coupling(vectors, None).outputs["d"]
    assert not torch.equal(coupling(vectors, training).outputs["d"], predicted)
    assert torch.equal(coupling.eval()(vectors, training).outputs["d"], predicted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "share"}, "dbmtl.root is `share`, which is not a target. Targets: click, goods_bag, order, stay"),
        ({"parents": {"share": ("click",)}}, "dbmtl.parents names `share`, which is not a target"),
        ({"parents": {"click": ("share",)}}, "dbmtl.parents: target `click` has parent `share`, which is not a target"),
        ({"parents": {"click": ("order",), "order": ("stay", "click")}}, "dbmtl.parents: .* form a cycle: click, order"),
        ({"parents": {"click": ("click",)}}, "form a cycle: click"),
        ({"parents": {"order": ("click", "click")}}, "dbmtl.parents.order names a parent twice: click, click"),
    ],
)
def test_graphs_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        coupling_of(tiny_schema(), dict.fromkeys(tiny_schema().target_names, 2), **settings)


def test_two_graphs_at_once_are_refused():
    with pytest.raises(
        ConfigError, match=r"dbmtl takes one graph, got .*root='click'. Leave out `root`, or leave out `parents`"
    ):
        from_dict(DbmtlConfig, {"root": "click", "parents": {"order": ["click"]}})
    with pytest.raises(ConfigError, match="dbmtl needs at least one layer in hidden"):
        from_dict(DbmtlConfig, {"hidden": []})
