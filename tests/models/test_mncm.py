import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError, from_dict
from models.fusions.mncm import Mncm, MncmConfig
from tests.models.test_fusions import expert, mlp, shuffled, whole
from tests.models.test_layers import WIDTHS, side_by_side, some_vectors
from tests.models.test_transfer import walked
from tests.samples import tiny_schema

SCHEMA = tiny_schema()  # click -> goods_bag -> order, click -> stay
BELOW = {
    "click": {"click", "goods_bag", "order", "stay"},
    "goods_bag": {"goods_bag", "order"},
    "order": {"order"},
    "stay": {"stay"},
}


@pytest.mark.parametrize(("specific", "shared"), [(1, 1), (2, 1), (2, 3)])
def test_experts_hand_on_before_the_gates(specific, shared):
    fusion = shuffled(Mncm(MncmConfig(specific=specific, shared=shared, hidden=(5, 4), towers=(2,)), SCHEMA, WIDTHS))
    vectors = some_vectors()
    x = side_by_side(vectors)
    names, numbers = SCHEMA.target_names, range(specific)
    first = {(name, s): expert(fusion.experts, t * specific + s, x) for t, name in enumerate(names) for s in numbers}
    common = [expert(fusion.experts, len(names) * specific + c, x) for c in range(shared)]
    parents = {(name, s): tuple((parent, r) for parent in SCHEMA.parents(name) for r in numbers) for name, s in first}
    label = {each: f"{each[0]} {each[1] + 1}" for each in first}
    become, _ = walked(
        fusion.transfer,
        {label[each]: tuple(label[parent] for parent in above) for each, above in parents.items()},
        {label[each]: vector for each, vector in first.items()},
        residual=False,
    )
    found, gates = fusion(vectors), fusion.gates(vectors)
    for t, name in enumerate(names):
        size = specific + shared
        gate = whole(fusion.gate_scores, x)[:, t * size : (t + 1) * size].softmax(1)
        experts = torch.stack([*(become[label[name, s]] for s in numbers), *common], dim=1)
        assert_close(gates[name], gate)
        assert_close(found[name], mlp(fusion.towers, t, (gate.unsqueeze(2) * experts).sum(1)))
        assert fusion.expert_names[name] == (
            *(f"own {s + 1}" for s in numbers),
            *(f"shared {c + 1}" for c in range(shared)),
        )
        assert fusion.widths[name] == 2


@pytest.mark.parametrize("changed", SCHEMA.target_names)
def test_experts_are_heard_by_descendants_alone(changed):
    fusion, vectors = shuffled(Mncm(MncmConfig(hidden=(5, 4), towers=()), SCHEMA, WIDTHS)), some_vectors()
    before = fusion(vectors)
    with torch.no_grad():  # the second of the target's experts
        fusion.experts.rest.layers[0].bias_B1H[2 * SCHEMA.target_names.index(changed) + 1] += 1.0
    after = fusion(vectors)
    assert {name for name in before if not torch.equal(before[name], after[name])} == BELOW[changed]


def test_targets_without_children_send_nothing():
    """click and goods_bag have two experts each that hand on; order and stay have none."""
    fusion = Mncm(MncmConfig(), SCHEMA, WIDTHS)
    assert fusion.transfer.senders == ("click 1", "click 2", "goods_bag 1", "goods_bag 2")
    assert sum(len(each.message.weight_BIH) for each in fusion.transfer.generations if each.message is not None) == 4


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"specific": 0}, "mncm needs specific and shared of at least 1, got specific=0, shared=2"),
        ({"hidden": []}, "mncm needs at least one layer in hidden"),
    ],
)
def test_impossible_values_are_refused(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(MncmConfig, spelling)
