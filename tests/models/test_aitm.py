import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError, from_dict
from models.couplings.aitm import Aitm, AitmConfig
from models.schema import Target
from models.slots import Training
from tests.models.test_couplings import with_targets
from tests.models.test_transfer import random_vectors, shuffled, walked
from tests.samples import TABLE_SIZES, full_schema, random_batch, tiny_schema

CHAIN = with_targets(Target(name="click", action="c"), Target(name="order", action="o", parents=("click",)))


def coupling_of(schema, width=3, **settings):
    return Aitm(AitmConfig(**settings), schema, dict.fromkeys(schema.target_names, width))


def some_training(schema, feeds=3):
    batch = random_batch(schema, TABLE_SIZES, feeds=feeds, seed=0)
    return Training(progress=0.0, batch=batch, beliefs={})


def test_a_chain_by_hand():
    """Width 1 and all weights 1: click 1 sends relu(1) = 1; order has 2, so z is 1 and 2 by the softmax of 1 and 4."""
    coupling = coupling_of(CHAIN, width=1)
    with torch.no_grad():
        for name, parameter in coupling.named_parameters():
            parameter.fill_(0.0 if "bias" in name else 1.0)
    vectors = {"click": torch.tensor([[1.0]]), "order": torch.tensor([[2.0]])}
    outputs = coupling(vectors, None).outputs
    share = math.exp(4) / (math.exp(1) + math.exp(4))
    assert outputs["click"].tolist() == [1.0]
    assert outputs["order"].item() == pytest.approx(1 * (1 - share) + 2 * share)
    assert coupling.edges(vectors)["click", "order"].item() == pytest.approx(1 - share)


@pytest.mark.parametrize("schema", [tiny_schema(), full_schema()], ids=["tiny", "full"])
def test_outputs_follow_the_paper_target_by_target(schema):
    coupling = shuffled(coupling_of(schema))
    vectors = random_vectors(dict.fromkeys(schema.target_names, 3))
    parents = {name: schema.parents(name) for name in schema.target_names}
    become, weights = walked(coupling.transfer, parents, vectors, residual=False)
    outputs, edges = coupling(vectors, None).outputs, coupling.edges(vectors)
    for name in schema.target_names:
        head = coupling.heads.linear[name]
        expected = become[name] @ head.weight_BIH[0] + head.bias_B1H[0]
        assert_close(outputs[name], expected.squeeze(1) if expected.shape[1] == 1 else expected)
    assert list(edges) and {edge: values.tolist() for edge, values in edges.items()} == {
        edge: pytest.approx(values) for edge, values in weights.items()
    }


def calibrated(vectors, **settings):
    """Children whose probability does not depend on anything: with V = 0 their z is 0, and p is what the bias says."""
    schema = tiny_schema()
    coupling = coupling_of(schema, width=1, **settings).double()
    with torch.no_grad():
        for generation in coupling.transfer.generations:
            if generation.attention is not None:
                generation.attention.value_BHH.zero_()
        coupling.heads.linear["click"].weight_BIH.fill_(1.0)
        coupling.heads.linear["goods_bag"].bias_B1H.fill_(0.0)  # .5
        coupling.heads.linear["order"].bias_B1H.fill_(math.log(0.6 / 0.4))
    return coupling, coupling(vectors, some_training(schema))


def test_calibrator_by_hand():
    """Click .2 and .7, goods bag .5, order .6: (.3 + .1) for the first candidate, .1 for the second; stay has no part in it."""
    click = torch.logit(torch.tensor([[0.2], [0.7]], dtype=torch.float64))
    vectors = {name: torch.ones(2, 1, dtype=torch.float64) for name in ("goods_bag", "order", "stay")}
    coupling, coupled = calibrated({"click": click, **vectors})
    total, count = coupled.penalties["aitm.calibrator"]
    assert coupling.penalties == ("aitm.calibrator",)
    assert (total.item(), count.item()) == (pytest.approx(0.6 * 0.5), 2)
    coupling, coupled = calibrated({"click": click, **vectors}, calibrator=2.0)
    assert coupled.penalties["aitm.calibrator"][0].item() == pytest.approx(2 * 0.5)


def test_the_calibrator_pulls_the_child_down_and_the_parent_up():
    """d/d logit of p is p (1 - p): .2 * .8 for click, .25 for goods bag, which is both child and, below order, parent."""
    click = torch.logit(torch.tensor([[0.2]], dtype=torch.float64)).requires_grad_()
    vectors = {name: torch.ones(1, 1, dtype=torch.float64) for name in ("goods_bag", "order", "stay")}
    coupling, coupled = calibrated({"click": click, **vectors}, calibrator=1.0)
    coupled.penalties["aitm.calibrator"][0].backward()
    assert click.grad.item() == pytest.approx(-0.2 * 0.8)
    assert coupling.heads.linear["goods_bag"].bias_B1H.grad.item() == pytest.approx(0.25 - 0.25)
    assert coupling.heads.linear["order"].bias_B1H.grad.item() == pytest.approx(0.6 * 0.4)


def test_the_calibrator_teaches_nothing_to_a_target_without_a_loss_weight():
    untaught = with_targets(
        Target(name="click", action="c"),
        Target(name="order", action="o", parents=("click",)),
        Target(name="like", action="l", parents=("click",), loss_weight=0.0),
        Target(name="share", action="s", parents=("like",)),
    )
    assert coupling_of(untaught).calibrated == (("click", "order"),)


def test_without_calibrator_there_is_no_penalty():
    vectors = random_vectors(dict.fromkeys(tiny_schema().target_names, 3))
    off, on = shuffled(coupling_of(tiny_schema(), calibrator=0.0)), shuffled(coupling_of(tiny_schema()))
    assert off.penalties == () and off(vectors, some_training(tiny_schema())).penalties == {}
    assert on(vectors, None).penalties == {}  # predicting
    assert on(vectors, some_training(tiny_schema())).penalties.keys() == {"aitm.calibrator"}
    alone = with_targets(Target(name="a", action="a"), Target(name="b", action="b", kind="value", parents=("a",)))
    assert coupling_of(alone).penalties == ()  # no edge between binary targets
    below = with_targets(Target(name="a", action="a", kind="value"), Target(name="b", action="b", parents=("a",)))
    assert coupling_of(below).penalties == ()


def test_two_parents_share_the_attention_with_the_own_vector():
    schema = with_targets(
        Target(name="a", action="a"), Target(name="b", action="b"), Target(name="c", action="c", parents=("a", "b"))
    )
    coupling = shuffled(coupling_of(schema))
    with torch.no_grad():
        coupling.transfer.generations[1].attention.query_BHH.zero_()
    edges = coupling.edges(random_vectors(dict.fromkeys("abc", 3), candidates=1))
    assert edges["a", "c"].item() == pytest.approx(1 / 3) == edges["b", "c"].item()


def test_a_negative_calibrator_is_refused():
    with pytest.raises(ConfigError, match=r"aitm needs calibrator >= 0, got -0.1"):
        from_dict(AitmConfig, {"calibrator": -0.1})
