import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError, from_dict
from models.couplings.pimm import Pimm, PimmConfig
from models.losses import Losses
from models.ranker import Ranker
from models.schema import Target
from models.slots import Training
from models.system import SystemConfig
from tests.models.helpers import replaced
from tests.models.test_couplings import with_targets
from tests.models.test_transfer import random_vectors, shuffled, walked
from tests.samples import TABLE_SIZES, full_schema, random_batch

SCHEMA = full_schema()
CHAIN = with_targets(Target(name="click", action="c"), Target(name="order", action="o", parents=("click",)))
KINDS = with_targets(  # parents of every kind, one child of them all
    Target(name="click", action="c"),
    Target(name="stay", action="s", kind="value", head="log1p", parents=("click",)),
    Target(name="visit", action="v", kind="value", head="bins", bins=3),
    Target(name="order", action="o", parents=("click", "stay", "visit")),
)
ALWAYS = {"alpha": 1.0, "decay": 0.0, "floor": 1.0}
NEVER = {"alpha": 0.0, "decay": 0.0, "floor": 0.0}


def coupling_of(schema, width=3, **settings):
    return Pimm(PimmConfig(**settings), schema, dict.fromkeys(schema.target_names, width))


def training_of(schema, progress=0.0, feeds=4, seed=0):
    batch = random_batch(schema, TABLE_SIZES, feeds=feeds, seed=seed)
    batch = replaced(batch, user_R=torch.arange(feeds))  # feeds of one user share their draws
    return Training(progress=progress, batch=batch, beliefs=Losses(schema).beliefs(batch.labels))


def one_candidate(**labels):
    batch = random_batch(CHAIN, TABLE_SIZES | {"room": 40}, feeds=1, seed=0, most_candidates=1)
    return Training(progress=0.0, batch=batch, beliefs={name: torch.tensor([value]) for name, value in labels.items()})


def test_a_chain_by_hand():
    """Width 1. Click's vector 0: prediction .5, H = 0. W = 2 log 9: Z = sigmoid(log 9) = .9, told of a click 81/82, of none .5.
    Equal attention and V = 1: U = .1 + (.1 + Z) / 2."""
    coupling = coupling_of(CHAIN, width=1, **ALWAYS)
    with torch.no_grad():
        for name, parameter in coupling.named_parameters():
            parameter.fill_(0.0 if "bias" in name or "query" in name else 1.0)
        coupling.prior_PH.fill_(2 * math.log(9))
    vectors = {"click": torch.tensor([[0.0]]), "order": torch.tensor([[0.1]])}
    order = lambda training: coupling(vectors, training).outputs["order"].item()
    assert coupling(vectors, None).outputs["click"].tolist() == [0.0]
    assert order(None) == pytest.approx(0.1 + (0.1 + 0.9) / 2)
    assert order(one_candidate(click=1.0, order=0.0)) == pytest.approx(0.1 + (0.1 + 81 / 82) / 2)
    assert order(one_candidate(click=0.0, order=0.0)) == pytest.approx(0.1 + (0.1 + 0.5) / 2)
    assert coupling.edges(vectors)["click", "order"].tolist() == [0.5]


@pytest.mark.parametrize("schema", [SCHEMA, KINDS], ids=["full", "parents of every kind"])
@pytest.mark.parametrize("settings", [ALWAYS, NEVER], ids=["p = 1", "p = 0"])
def test_outputs_follow_the_paper_candidate_by_candidate(schema, settings):
    """Eq. 1-6 in loops, y* being the label at p = 1 and the prediction at p = 0."""
    coupling, training = shuffled(coupling_of(schema, **settings)), training_of(schema)
    vectors = random_vectors(dict.fromkeys(schema.target_names, 3), training.batch.candidates)
    parents = {name: schema.parents(name) for name in schema.target_names}

    def head(name, vector):
        linear = coupling.heads.linear[name]
        return vector @ linear.weight_BIH[0] + linear.bias_B1H[0, 0]

    def prediction(target, output):
        if target.is_binary:
            return 1 / (1 + math.exp(-output.item()))
        if target.bins is None:
            return output.item()
        shares = [math.exp(each) for each in output.tolist()]
        return sum(place / target.bins * share for place, share in enumerate(shares)) / sum(shares)

    def label(target, n):
        value = training.batch.labels[target.name][n].item()
        if target.is_binary:
            return value
        if target.bins is None:
            return math.log1p(value)
        edges = range(1, target.bins)  # of bins that were never fitted
        return 0.0 if value == 0 else (1 + sum(value >= edge for edge in edges)) / target.bins

    def merged(name, n, vector, message):
        target = schema.target(name)
        told = label(target, n) if settings is ALWAYS else prediction(target, head(name, vector))
        weight = coupling.prior_PH[coupling.transfer.senders.index(name)]
        return message + 1 / (1 + torch.exp(-told * weight))

    become, weights = walked(coupling.transfer, parents, vectors, residual=True, passed_on=merged)
    outputs = coupling(vectors, training).outputs
    assert list(outputs) == list(schema.target_names)
    for name in outputs:
        expected = torch.stack([head(name, vector) for vector in become[name]])
        assert_close(outputs[name], expected.squeeze(1) if expected.shape[1] == 1 else expected, rtol=1e-6, atol=1e-6)
    if settings is NEVER:
        assert {edge: values.tolist() for edge, values in coupling.edges(vectors).items()} == {
            edge: pytest.approx(values, rel=1e-6) for edge, values in weights.items()
        }


def test_the_course_of_the_probability():
    paper = coupling_of(CHAIN)  # Ali-CCP: .5 - .25 E, at least .25
    assert [paper.probability(progress) for progress in (0, 0.99, 1, 1.5, 2, 7.3)] == [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    fractions = coupling_of(CHAIN, pace="continuous")
    assert [fractions.probability(progress) for progress in (0, 0.4, 0.5, 1, 3)] == pytest.approx([0.5, 0.4, 0.375, 0.25, 0.25])


def mixed(p, progress=0.0, name="click", feeds=3000):
    """Which candidates are told their label: all labels are 1, all predictions .5."""
    coupling, training = coupling_of(SCHEMA, alpha=p, floor=p), training_of(SCHEMA, progress, feeds)
    n = training.batch.candidates
    training = dataclasses.replace(training, beliefs={name: torch.ones(n)})
    told_N = coupling.label_or_prediction(name, torch.zeros(n), training)
    assert ((told_N == 1) | (told_N == 0.5)).all()
    return told_N == 1


@pytest.mark.parametrize("p", [0.25, 0.5, 2 / 3])
def test_labels_are_told_with_probability_p(p):
    told_N = mixed(p)
    sigma = math.sqrt(p * (1 - p) / len(told_N))
    assert len(told_N) > 5000 and abs(told_N.double().mean().item() - p) < 4 * sigma


def test_all_and_none_at_the_ends():
    assert mixed(1.0).all() and not mixed(0.0).any()


def test_draws_differ_between_candidates_steps_and_targets():
    """Independent draws of 1/2 agree in a half of the candidates."""
    first, later, other = mixed(0.5), mixed(0.5, progress=0.01), mixed(0.5, name="goods_bag")
    sigma = 0.5 / math.sqrt(len(first))
    for second in (later, other, first.roll(1)):
        assert abs((first == second).double().mean().item() - 0.5) < 4 * sigma
    assert torch.equal(first, mixed(0.5))


def test_the_probability_falls_with_progress_in_training():
    coupling = coupling_of(SCHEMA, alpha=1.0, decay=1.0, floor=0.0)
    for progress, share in ((0.0, 1.0), (0.9, 1.0), (1.0, 0.0)):
        training = training_of(SCHEMA, progress)
        n = training.batch.candidates
        told_N = coupling.label_or_prediction(
            "click", torch.zeros(n), dataclasses.replace(training, beliefs={"click": torch.ones(n)})
        )
        assert (told_N == 1).double().mean().item() == share


def test_values_are_told_in_their_transformed_space_and_binned_values_by_place():
    """Classes of 0, 1/3, 2/3, 1 with probabilities 1/6, 1/6, 1/6, 1/2: (1/3 + 2/3) / 6 + 1/2 = 2/3."""
    coupling = coupling_of(KINDS)
    output = torch.tensor([[0.0, 0.0, 0.0, math.log(3)]])
    assert coupling.label_or_prediction("visit", output, None).item() == pytest.approx(2 / 3)
    assert coupling.label_or_prediction("stay", torch.tensor([3.5]), None).tolist() == [3.5]
    always, training = coupling_of(KINDS, **ALWAYS), training_of(KINDS)
    n = training.batch.candidates
    assert_close(always.label_or_prediction("stay", torch.zeros(n), training), training.batch.labels["stay"].log1p())
    assert set((always.label_or_prediction("visit", torch.zeros(n, 4), training) * 3).tolist()) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("settings", [ALWAYS, NEVER, {"alpha": 0.5}])
def test_no_gradient_flows_through_what_is_told(settings):
    """Click's head makes the prediction that order is told of, yet order's loss does not move it; click's vector is moved
    by what is handed on beside."""
    coupling, training = shuffled(coupling_of(CHAIN, **settings)), training_of(CHAIN, feeds=20)
    vectors = random_vectors({"click": 3, "order": 3}, training.batch.candidates)
    vectors["click"].requires_grad_()
    head = coupling.heads.linear["click"]
    before = coupling(vectors, training).outputs["order"]
    before.sum().backward()
    assert head.weight_BIH.grad is None and head.bias_B1H.grad is None
    assert vectors["click"].grad.any()
    assert coupling.prior_PH.grad.all()
    with torch.no_grad():
        head.bias_B1H += 1.0
    after = coupling(vectors, training).outputs["order"]
    assert (after == before).all() == (settings is ALWAYS)  # the value of the prediction does arrive


def test_predictions_need_no_labels_and_are_those_at_p_0():
    """A ranker trained with labels told predicts the same whatever the labels are, also without any."""
    torch.manual_seed(0)
    ranker = shuffled(Ranker(SCHEMA, SystemConfig(coupling=PimmConfig(**ALWAYS)), TABLE_SIZES)).float()
    batch = random_batch(SCHEMA, TABLE_SIZES, feeds=6, seed=1)
    predicted = ranker.predict(batch)
    others = replaced(batch, labels={name: 1 - label.clamp(max=1) for name, label in batch.labels.items()})
    unlabelled = replaced(batch, labels={})
    told, told_others = ranker.outcome(batch).outputs, ranker.outcome(others).outputs
    assert not torch.equal(told["goods_bag"], told_others["goods_bag"])  # while training, labels matter
    ranker.coupling.config = PimmConfig(**NEVER)
    at_0 = ranker.losses.predictions(ranker.outcome(batch).outputs)
    for name in predicted:
        assert torch.equal(predicted[name], ranker.predict(others)[name])
        assert torch.equal(predicted[name], ranker.predict(unlabelled)[name])
        assert torch.equal(predicted[name], at_0[name])


def test_a_schema_without_edges_has_nothing_to_hand_on():
    schema = with_targets(Target(name="a", action="a"), Target(name="b", action="b"))
    coupling = shuffled(coupling_of(schema))
    vectors = random_vectors({"a": 3, "b": 3})
    assert coupling.edges(vectors) == {}
    assert_close(coupling(vectors, None).outputs, coupling.heads(vectors))
    assert {name.split(".")[0] for name, _ in coupling.named_parameters()} == {"heads"}


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 1),
        ({"alpha": 2 / 3, "decay": 1 / 3, "floor": 0.0}, 2),
        ({"alpha": 0.7, "decay": 0.1, "floor": 0.0}, 7),
        ({"decay": 0}, 0),
    ],
    ids=["Ali-CCP", "the paper's own data", "sevenths", "no curriculum"],
)
def test_the_curriculum_ends_with_the_first_epoch_at_the_floor(settings, epochs):
    coupling = coupling_of(CHAIN, **settings)
    assert coupling.curriculum_epochs == epochs
    floor = coupling.config.floor if coupling.config.decay else coupling.config.alpha
    assert coupling.probability(epochs) == pytest.approx(floor, abs=1e-12)
    assert not epochs or coupling.probability(epochs - 1) > floor + 1e-3


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"floor": 0.6}, "pimm needs 0 <= floor <= alpha <= 1, got floor=0.6, alpha=0.5"),
        ({"alpha": 1.5}, "got floor=0.25, alpha=1.5"),
        ({"decay": -0.1}, "pimm needs decay >= 0, got -0.1"),
        ({"pace": "step"}, "`pace` is 'step'"),
    ],
)
def test_impossible_values_are_refused(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(PimmConfig, spelling)
