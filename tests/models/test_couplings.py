import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.couplings.esmm import Esmm, EsmmConfig, logit_of_log
from models.couplings.independent import Independent, IndependentConfig
from models.schema import Field, Schema, Target
from tests.samples import tiny_schema


def with_targets(*targets: Target) -> Schema:
    return Schema(fields=(Field(name="room", of="candidate"),), targets=targets)


def identity(coupling):
    """Width 1, weight 1, bias 0: a target's vector is its own logit."""
    with torch.no_grad():
        for head in coupling.heads.linear.values():
            head.weight_BIH.fill_(1.0)
    return coupling


def logits(**probabilities: float) -> dict[str, torch.Tensor]:
    return {name: torch.logit(torch.tensor([[p]], dtype=torch.float64)) for name, p in probabilities.items()}


def test_independent_outputs_are_linear_in_the_targets_own_vector():
    coupling = Independent(IndependentConfig(), tiny_schema(), {"click": 2, "goods_bag": 1, "order": 1, "stay": 1})
    with torch.no_grad():
        coupling.heads.linear["click"].weight_BIH.copy_(torch.tensor([[[2.0], [3.0]]]))
        coupling.heads.linear["click"].bias_B1H.fill_(0.5)
    vectors = {name: torch.ones(1, 1) for name in ("goods_bag", "order", "stay")}
    assert coupling({"click": torch.tensor([[10.0, 1.0]]), **vectors}, {}).outputs["click"].tolist() == [23.5]


def test_esmm_multiplies_along_the_chain():
    """click .5, goods bag given click .4, order given goods bag .1; stay 3 in log space, given click."""
    coupling = identity(Esmm(EsmmConfig(), tiny_schema(), dict.fromkeys(("click", "goods_bag", "order", "stay"), 1))).double()
    vectors = {**logits(click=0.5, goods_bag=0.4, order=0.1), "stay": torch.tensor([[3.0]], dtype=torch.float64)}
    outputs = coupling(vectors, {}).outputs
    assert outputs["click"].sigmoid().item() == pytest.approx(0.5)
    assert outputs["goods_bag"].sigmoid().item() == pytest.approx(0.2)
    assert outputs["order"].sigmoid().item() == pytest.approx(0.02)
    assert outputs["stay"].item() == pytest.approx(1.5)


def test_esmm_counts_an_ancestor_once_where_paths_meet():
    """a -> b, a -> c, (b, c) -> d with .5, .4, .2, .1: d is .5 * .4 * .2 * .1."""
    schema = with_targets(
        Target(name="d", action="d", parents=("c", "b")),
        Target(name="b", action="b", parents=("a",)),
        Target(name="c", action="c", parents=("a",)),
        Target(name="a", action="a"),
    )
    assert schema.ancestors("d") == ("a", "b", "c")
    coupling = identity(Esmm(EsmmConfig(), schema, dict.fromkeys("abcd", 1))).double()
    outputs = coupling(logits(a=0.5, b=0.4, c=0.2, d=0.1), {}).outputs
    assert outputs["d"].sigmoid().item() == pytest.approx(0.004)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_esmm_is_exact_at_tiny_probabilities(dtype):
    """A chain of three targets of 1e-4 each is 1e-12; its logit, log loss and gradients are finite and right."""
    schema = with_targets(
        Target(name="a", action="a"),
        Target(name="b", action="b", parents=("a",)),
        Target(name="c", action="c", parents=("b",)),
    )
    coupling = identity(Esmm(EsmmConfig(), schema, dict.fromkeys("abc", 1))).to(dtype)
    vectors = {name: value.to(dtype).requires_grad_() for name, value in logits(a=1e-4, b=1e-4, c=1e-4).items()}
    logit = coupling(vectors, {}).outputs["c"]
    assert logit.item() == pytest.approx(math.log(1e-12 / (1 - 1e-12)), rel=1e-6)
    assert logit.sigmoid().item() == pytest.approx(1e-12, rel=1e-4)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.ones_like(logit))
    assert loss.item() == pytest.approx(-math.log(1e-12), rel=1e-6)
    loss.backward()  # d(-log p)/d(own logit) = -(1 - own p)
    assert all(value.grad.item() == pytest.approx(-(1 - 1e-4), rel=1e-4) for value in vectors.values())


def test_a_child_is_never_likelier_than_its_parent():
    torch.manual_seed(0)
    coupling = Esmm(EsmmConfig(), tiny_schema(), dict.fromkeys(("click", "goods_bag", "order", "stay"), 3))
    outputs = coupling({name: 100 * torch.randn(1000, 3) for name in ("click", "goods_bag", "order", "stay")}, {}).outputs
    p = {name: outputs[name].double().sigmoid() for name in ("click", "goods_bag", "order")}
    rounding = 1e-5
    assert (p["order"] <= p["goods_bag"] * (1 + rounding)).all() and (p["goods_bag"] <= p["click"] * (1 + rounding)).all()


def test_logit_of_log_over_the_whole_range():
    logit = torch.cat([torch.linspace(-80, 36, 400, dtype=torch.float64), torch.tensor([-700.0, 1e-9, 0.0])])
    log_p = torch.nn.functional.logsigmoid(logit).requires_grad_()
    assert_close(logit_of_log(log_p), logit, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(logit_of_log(log_p).sum(), log_p)
    assert_close(gradient, 1 + logit.exp(), rtol=1e-6, atol=1e-6)  # d logit / d log p = 1 / (1 - p)
    extreme = torch.tensor([0.0, -1e-45, -1e4], requires_grad=True)
    assert logit_of_log(extreme).isfinite().all()
    assert torch.autograd.grad(logit_of_log(extreme).sum(), extreme)[0].isfinite().all()


def test_esmm_refuses_a_value_as_parent():
    schema = with_targets(
        Target(name="stay", action="enter", kind="value"), Target(name="order", action="o", parents=("stay",))
    )
    with pytest.raises(ConfigError, match=r"`stay`, above `order`, is a value. Give `order` binary parents only"):
        Esmm(EsmmConfig(), schema, {"stay": 1, "order": 1})
