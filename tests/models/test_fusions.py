import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError, from_dict
from models.fusions.mmoe import Mmoe, MmoeConfig
from models.fusions.ple import Ple, PleConfig
from models.fusions.shared_bottom import SharedBottom, SharedBottomConfig
from models.fusions.single import Single, SingleConfig
from models.slots import Widths
from tests.models.test_layers import WIDTHS, side_by_side, some_vectors
from tests.samples import tiny_schema

SCHEMA = tiny_schema()  # targets click, goods_bag, order, stay


def shuffled(module: torch.nn.Module) -> torch.nn.Module:
    """Biases too, so that a forgotten one is seen."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def layer(bank, member, x):
    return x @ bank.weight_BIH[member] + bank.bias_B1H[member]


def mlp(bank, member, x):
    for each in bank.layers:
        x = layer(each, member, x).relu()
    return x


def whole(mixed, x):
    return x @ torch.cat([mixed.feed, mixed.candidate]) + mixed.bias


def expert(bank, member, x):
    first = whole(bank.first, x).relu().unflatten(1, (bank.members, -1))[:, member]
    return mlp(bank.rest, member, first)


def test_single_is_one_mlp_a_target():
    fusion, vectors = shuffled(Single(SingleConfig(hidden=(5, 3)), SCHEMA, WIDTHS)), some_vectors()
    found = fusion(vectors)
    assert list(found) == list(SCHEMA.target_names) == list(fusion.widths)
    for index, name in enumerate(SCHEMA.target_names):
        assert_close(found[name], expert(fusion.bank, index, side_by_side(vectors)))
        assert fusion.widths[name] == 3


def test_single_shares_nothing_between_targets():
    fusion = shuffled(Single(SingleConfig(hidden=(5, 3)), SCHEMA, WIDTHS))
    fusion(some_vectors())["order"].sum().backward()
    first = fusion.bank.first.candidate.grad.unflatten(1, (4, 5))
    assert [bool(first[:, target].any()) for target in range(4)] == [False, False, True, False]


def test_shared_bottom_is_one_mlp_then_a_tower_a_target():
    fusion, vectors = shuffled(SharedBottom(SharedBottomConfig(hidden=(5,), towers=(3,)), SCHEMA, WIDTHS)), some_vectors()
    shared = expert(fusion.bottom, 0, side_by_side(vectors))
    for index, name in enumerate(SCHEMA.target_names):
        assert_close(fusion(vectors)[name], mlp(fusion.towers, index, shared))


def test_mmoe_mixes_experts_per_target():
    fusion, vectors = shuffled(Mmoe(MmoeConfig(experts=3, hidden=(5, 4), towers=(2,)), SCHEMA, WIDTHS)), some_vectors()
    x = side_by_side(vectors)
    experts = torch.stack([expert(fusion.experts, index, x) for index in range(3)], dim=1)
    for index, name in enumerate(SCHEMA.target_names):
        gate = whole(fusion.gate_scores, x)[:, 3 * index : 3 * index + 3].softmax(1)
        mixed = (gate.unsqueeze(2) * experts).sum(1)
        assert_close(fusion(vectors)[name], mlp(fusion.towers, index, mixed))


@pytest.mark.parametrize(("levels", "specific", "shared"), [(1, 2, 1), (2, 1, 2), (3, 2, 3)])
def test_ple_level_by_level(levels, specific, shared):
    config = PleConfig(levels=levels, specific=specific, shared=shared, hidden=(5, 4), towers=(2,))
    fusion, vectors = shuffled(Ple(config, SCHEMA, WIDTHS)), some_vectors()
    targets, x = 4, side_by_side(vectors)
    total = targets * specific + shared
    first = fusion.first
    experts = [expert(first.experts, index, x) for index in range(total)]
    scores = whole(first.gates, x)
    own = list(scores[:, : targets * (specific + shared)].split(specific + shared, dim=1))
    shared_scores = scores[:, targets * (specific + shared) :]

    def mix(scores, experts):
        return (scores.softmax(1).unsqueeze(2) * torch.stack(experts, 1)).sum(1)

    def for_targets():
        return [mix(own[t], experts[t * specific : (t + 1) * specific] + experts[targets * specific :]) for t in range(targets)]

    for level in fusion.later:
        mixed, common = for_targets(), mix(shared_scores, experts)  # the shared gate sees the experts of all targets
        hidden = [part for t in range(targets) for part in layer(level.own, t, mixed[t]).split(5, dim=1)]
        hidden += layer(level.shared, 0, common).split(5, dim=1)
        own = [layer(level.own_gates, t, mixed[t]) for t in range(targets)]
        shared_scores = layer(level.shared_gate, 0, common) if level.shared_gate is not None else None
        experts = [mlp(level.rest, index, part.relu()) for index, part in enumerate(hidden)]
    for index, (name, mixed) in enumerate(zip(SCHEMA.target_names, for_targets(), strict=True)):
        assert_close(fusion(vectors)[name], mlp(fusion.towers, index, mixed))


def test_the_last_level_of_ple_has_no_shared_gate():
    fusion = Ple(PleConfig(levels=3), SCHEMA, WIDTHS)
    assert [level.shared_gate is None for level in fusion.later] == [False, True]
    assert Ple(PleConfig(levels=1, specific=1, shared=2), SCHEMA, WIDTHS).first.gates.bias.shape == (4 * 3,)


def test_nothing_to_read_is_refused():
    with pytest.raises(ConfigError, match="nothing to read"):
        Single(SingleConfig(), SCHEMA, Widths())


@pytest.mark.parametrize(
    ("config", "spelling", "message"),
    [
        (SingleConfig, {"hidden": []}, "single needs at least one layer in hidden"),
        (SharedBottomConfig, {"towers": [8, 0]}, r"shared_bottom needs layers of at least 1 unit, got towers=\[8, 0\]"),
        (MmoeConfig, {"experts": 0}, "mmoe needs experts >= 1, got 0"),
        (MmoeConfig, {"dropout": 1.0}, "mmoe needs 0 <= dropout < 1, got 1.0"),
        (PleConfig, {"shared": 0}, "levels=2, specific=1, shared=0"),
    ],
)
def test_impossible_values_are_refused(config, spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(config, spelling)
