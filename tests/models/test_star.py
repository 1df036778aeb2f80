"""The star topology against a loop over candidates, each with the product of the weights spelt out."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError, from_dict
from models.fusions.shared_bottom import SharedBottom, SharedBottomConfig
from models.fusions.star import Star, StarConfig
from models.layers.dropout import number_dropouts
from models.ranker import Ranker
from models.slots import Vectors, Widths
from models.system import SystemConfig
from tests.models.helpers import replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch

SCHEMA = full_schema()  # levels tail, medium, head
WIDTHS = Widths(feed={"a": 2, "b": 3}, candidate={"c": 4})
LEVELS = [2, 0, 1, 0, 2, 2, 1]
FEEDS = [0, 0, 0, 1, 1, 2, 2]


def some_vectors(widths: Widths = WIDTHS, levels: list[int] = LEVELS) -> Vectors:
    torch.manual_seed(0)
    return Vectors(
        feed={name: torch.randn(3, width, dtype=torch.float64) for name, width in widths.feed.items()},
        candidate={name: torch.randn(len(FEEDS), width, dtype=torch.float64) for name, width in widths.candidate.items()},
        feed_of_candidate_N=torch.tensor(FEEDS),
        level_N=torch.tensor(levels),
    )


def star(widths: Widths = WIDTHS, **config) -> Star:
    """Every weight random, biases too."""
    torch.manual_seed(1)
    module = Star(StarConfig(**{"hidden": (5, 3), "towers": (4, 2), **config}), SCHEMA, widths).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def of_candidate(fusion: Star, vectors: Vectors, n: int) -> dict[str, torch.Tensor]:
    """What one candidate's level makes of it: W * W_c and b + b_c in every layer."""
    c, first = vectors.level_N[n], fusion.first
    feed = torch.cat([values[vectors.feed_of_candidate_N[n]] for values in vectors.feed.values()] or [torch.zeros(0)])
    candidate = torch.cat([values[n] for values in vectors.candidate.values()] or [torch.zeros(0)])
    x = first.shared.bias + first.bias_CH[c]
    if first.feed is not None:
        x = x + feed @ (first.shared.feed * first.feed[c])
    if first.candidate is not None:
        x = x + candidate @ (first.shared.candidate * first.candidate[c])
    x = x.relu()

    def layers(bank, member, x):
        for depth, shared in enumerate(bank.shared):
            weight = shared.weight_BIH[member] * bank.weights[depth][c, member]
            x = (x @ weight + shared.bias_B1H[member, 0] + bank.biases[depth][c, member, 0]).relu()
        return x

    x = layers(fusion.bottom, 0, x)
    return {name: layers(fusion.towers, target, x) for target, name in enumerate(SCHEMA.target_names)}


@pytest.mark.parametrize("widths", [WIDTHS, Widths(feed=WIDTHS.feed), Widths(candidate=WIDTHS.candidate)])
@pytest.mark.parametrize("layers", [{}, {"hidden": (5,)}, {"towers": ()}])
def test_a_candidate_goes_through_its_levels_products(widths, layers):
    fusion, vectors = star(widths, **layers), some_vectors(widths)
    found = fusion(vectors)
    assert list(found) == list(SCHEMA.target_names) == list(fusion.widths)
    for n in range(len(FEEDS)):
        for name, expected in of_candidate(fusion, vectors, n).items():
            assert_close(found[name][n], expected)
            assert fusion.widths[name] == len(expected)


def test_it_starts_as_shared_bottom():
    shared_bottom = SharedBottom(SharedBottomConfig(hidden=(5, 3), towers=(4, 2)), SCHEMA, WIDTHS).double()
    fusion = Star(StarConfig(hidden=(5, 3), towers=(4, 2)), SCHEMA, WIDTHS).double()
    with torch.no_grad():
        pairs = [(fusion.first.shared, shared_bottom.bottom.first)]
        pairs += zip(fusion.bottom.shared, shared_bottom.bottom.rest.layers, strict=True)
        pairs += zip(fusion.towers.shared, shared_bottom.towers.layers, strict=True)
        for mine, theirs in pairs:
            mine.load_state_dict(theirs.state_dict())
    vectors = some_vectors()
    expected, found = shared_bottom(vectors), fusion(vectors)
    for name in SCHEMA.target_names:
        assert_close(found[name], expected[name])


def own_parameters(fusion: Star) -> dict[str, torch.Tensor]:
    """All parameters of levels; the first dimension is the level."""
    return {name: parameter for name, parameter in fusion.named_parameters() if "shared" not in name}


def test_a_levels_weights_change_its_candidates_only():
    fusion, vectors = star(), some_vectors()
    before = fusion(vectors)
    assert len(own_parameters(fusion)) == 3 + 2 + 4
    for parameter in own_parameters(fusion).values():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter[2] += 1.0
        changed = torch.stack([(values != before[name]).any(1) for name, values in fusion(vectors).items()]).any(0)
        with torch.no_grad():
            parameter.copy_(kept)
        assert changed.tolist() == [level == 2 for level in LEVELS]


def test_a_level_that_is_not_there_gets_no_gradient():
    fusion = star()
    vectors = some_vectors(levels=[2, 0, 0, 0, 2, 2, 0])
    outputs = fusion(vectors)
    for n in range(len(FEEDS)):
        assert_close(outputs["order"][n], of_candidate(fusion, vectors, n)["order"])
    sum(values.square().sum() for values in outputs.values()).backward()
    for name, parameter in own_parameters(fusion).items():
        assert [bool(parameter.grad[level].any()) for level in range(3)] == [True, False, True], name
        assert parameter.grad.isfinite().all()


def test_training_with_one_level_and_a_feed_alone():
    """Through a ranker: batches of one level, and of one candidate, give what the whole batch gave."""
    torch.manual_seed(0)
    ranker = Ranker(SCHEMA, SystemConfig(fusion=StarConfig(hidden=(8, 4), towers=(4,))), TABLE_SIZES)
    batch = random_batch(SCHEMA, TABLE_SIZES, feeds=6, seed=0)
    with torch.no_grad():
        for parameter in own_parameters(ranker.fusion).values():
            parameter.normal_()
    whole = ranker(batch)
    for level in range(3):
        mine = batch.level_N == level
        same = ranker(replaced(batch, level_N=torch.full_like(batch.level_N, level)))
        for name in whole:
            assert_close(same[name][mine], whole[name][mine])
    for name, values in ranker(take(batch, [3])).items():
        assert_close(values, whole[name][batch.feed_of_candidate_N == 3])


def test_dropout_acts_in_training_only():
    """A bottom and towers of one layer that give 1 everywhere: two dropouts of a half give 0 or 4 in training."""
    fusion = star(hidden=(1,), towers=(50,), dropout=0.5)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.zero_()
        fusion.first.bias_CH.fill_(1.0)
        for shared, own in zip(fusion.towers.shared, fusion.towers.weights, strict=True):
            shared.weight_BIH.fill_(1.0)
            own.fill_(1.0)
    number_dropouts(fusion)
    vectors = replace(some_vectors(), rows_N=torch.arange(len(FEEDS)))
    assert set(torch.cat(list(fusion(vectors).values())).flatten().tolist()) == {0.0, 4.0}
    assert set(torch.cat(list(fusion.eval()(vectors).values())).flatten().tolist()) == {1.0}


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"hidden": []}, "star needs at least one layer in hidden"),
        ({"towers": [8, 0]}, r"star needs layers of at least 1 unit, got towers=\[8, 0\]"),
        ({"dropout": 1.0}, "star needs 0 <= dropout < 1, got 1.0"),
    ],
)
def test_impossible_values_are_refused(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(StarConfig, spelling)


def test_nothing_to_read_is_refused():
    with pytest.raises(ConfigError, match="nothing to read"):
        Star(StarConfig(), SCHEMA, Widths())
