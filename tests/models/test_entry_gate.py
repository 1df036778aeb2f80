import dataclasses

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from models.config import ConfigError, from_dict
from models.fusions.entry_gate import EntryGate, EntryGateConfig
from models.schema import Schema
from models.slots import STAGE, Vectors, Widths
from tests.models.test_fusions import layer, mlp, shuffled, whole
from tests.samples import tiny_schema

SCHEMA = tiny_schema()  # click; goods_bag, order and stay after it. The room's state: product, rate_bin, rate
CONFIG = EntryGateConfig(entering=(6, 5), gate_hidden=3, experts=2, hidden=(4, 3), towers=(2,))
WIDTHS = Widths(
    feed={"user": 2, "hour": 1, "user_entries": 1, "interest.products": 3, STAGE: 2},
    candidate={"room": 2, "streamer": 1, "category": 1, "product": 2, "rate_bin": 1, "rate": 1, "interest.channels": 3},
)
# what the members are here, the feed's first
CONTEXT, ROOM, STATE = (
    ("user", "hour", "user_entries", STAGE),
    ("room", "streamer", "category"),
    ("product", "rate_bin", "rate"),
)
FEED_MEMBERS, CANDIDATE_MEMBERS = [CONTEXT, ("interest.products",)], [ROOM, ("interest.channels",)]


def some_vectors(feed_of_candidate=(0, 0, 0, 1, 2, 2), seed: int = 0) -> Vectors:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda widths, rows: {name: torch.randn(rows, width, generator=generator) for name, width in widths.items()}
    feed_N = torch.tensor(feed_of_candidate, dtype=torch.int64)
    feeds = int(feed_N.max()) + 1 if len(feed_N) else 2
    return Vectors(
        feed=draw(WIDTHS.feed, feeds),
        candidate=draw(WIDTHS.candidate, len(feed_N)),
        feed_of_candidate_N=feed_N,
        level_N=torch.zeros_like(feed_N),
    )


def one_candidate(vectors: Vectors, n: int) -> dict[str, torch.Tensor]:
    """All its vectors by name, the feed's included."""
    feed = vectors.feed_of_candidate_N[n]
    return {name: values[feed] for name, values in vectors.feed.items()} | {
        name: values[n] for name, values in vectors.candidate.items()
    }


def side_by_side(own: dict[str, torch.Tensor], names) -> torch.Tensor:
    return torch.cat([own[name] for name in names])


def gated_input(fusion: EntryGate, own: dict[str, torch.Tensor]) -> torch.Tensor:
    """[members of the feed, e_d, members of the candidate], each times its gate: the order of the weights' rows."""
    after, state = fusion.after, side_by_side(own, STATE)
    scaled = []
    for index, member in enumerate([*FEED_MEMBERS, *CANDIDATE_MEMBERS]):
        hidden = mlp(after.gate_hidden, index, state)
        gate = layer(after.gate, index, hidden).sigmoid().flatten()
        scaled.append(gate * side_by_side(own, member))
    return torch.cat([*scaled[:2], state, *scaled[2:]])


@pytest.mark.parametrize("state_before_entering", [False, True])
def test_candidate_by_candidate(state_before_entering):
    """The definition in plain loops: towers over what is seen, gates per member, experts and their mixtures."""
    config = dataclasses.replace(CONFIG, state_before_entering=state_before_entering)
    fusion, vectors = shuffled(EntryGate(config, SCHEMA, WIDTHS)), some_vectors()
    found = fusion(vectors)
    assert list(found) == ["click", "goods_bag", "order", "stay"]
    after = fusion.after
    for n in range(6):
        own = one_candidate(vectors, n)
        seen = [name for name in (*WIDTHS.feed, *WIDTHS.candidate) if state_before_entering or name not in STATE]
        first = whole(fusion.entering.first, side_by_side(own, seen)).relu()
        assert_close(found["click"][n : n + 1], mlp(fusion.entering.rest, 0, first), rtol=1e-4, atol=1e-5)
        x = gated_input(fusion, own)
        first = whole(after.first, x).relu().unflatten(0, (2, 4))
        experts = torch.stack([mlp(after.rest, index, first[index : index + 1])[0] for index in range(2)])
        scores = whole(after.expert_scores, x).unflatten(0, (3, 2)).softmax(1)
        for index, name in enumerate(("goods_bag", "order", "stay")):
            mixed = scores[index] @ experts
            assert_close(found[name][n : n + 1], mlp(after.towers, index, mixed[None])[:1, :], rtol=1e-4, atol=1e-5)
            assert_close(fusion.gates(vectors)[name][n], scores[index])


def test_a_gate_is_one_number_a_member_and_candidate():
    """Gates with log odds of log(1/3) and log(3) let through a quarter and three quarters."""
    fusion, vectors = EntryGate(CONFIG, SCHEMA, WIDTHS), some_vectors()
    with torch.no_grad():
        fusion.after.gate.weight_BIH.zero_()
        fusion.after.gate.bias_B1H.copy_(torch.log(torch.tensor([1 / 3, 3.0, 1.0, 3.0])).view(4, 1, 1))
    assert_close(fusion.after.importance_NM(vectors), torch.tensor([[0.25, 0.75, 0.5, 0.75]]).expand(6, -1))


def test_gates_start_about_half_open_and_depend_on_the_rooms_state_alone():
    torch.manual_seed(0)
    fusion = EntryGate(CONFIG, SCHEMA, WIDTHS)
    before, other = some_vectors(), some_vectors(seed=1)
    kept = {name: values if name in STATE else other.candidate[name] for name, values in before.candidate.items()}
    gates = fusion.after.importance_NM(before)
    assert gates.shape == (6, 4) and (gates - 0.5).abs().max() < 0.4 and gates.std() > 0
    assert_close(gates, fusion.after.importance_NM(dataclasses.replace(other, candidate=kept)))
    assert (gates != fusion.after.importance_NM(other)).any()


def read_by(fusion: EntryGate, target: str) -> set[str]:
    """The vectors that the target's output depends on."""
    vectors = some_vectors()
    leaves = {name: values.requires_grad_() for name, values in {**vectors.feed, **vectors.candidate}.items()}
    fusion(vectors)[target].sum().backward()
    return {name for name, leaf in leaves.items() if leaf.grad is not None and leaf.grad.any()}


def test_who_has_not_entered_does_not_see_the_rooms_state():
    everything = {*WIDTHS.feed, *WIDTHS.candidate}
    fusion = shuffled(EntryGate(CONFIG, SCHEMA, WIDTHS))
    assert read_by(fusion, "click") == everything - set(STATE)
    assert read_by(fusion, "order") == everything
    open_feed = shuffled(EntryGate(dataclasses.replace(CONFIG, state_before_entering=True), SCHEMA, WIDTHS))
    assert read_by(open_feed, "click") == everything


def test_fields_of_the_state_can_be_named():
    fusion = shuffled(EntryGate(dataclasses.replace(CONFIG, dynamic=("rate", "category")), SCHEMA, WIDTHS))
    assert read_by(fusion, "click") == {*WIDTHS.feed, *WIDTHS.candidate} - {"rate", "category"}


def test_the_feeds_members_are_multiplied_once_per_feed():
    """One feed of 8 candidates against 8 feeds of one: what is saved is 7 products of the feed's 9 numbers with the 6 units
    of the entering layer, the 8 of the experts and the 6 scores of their gates, to the last operation."""
    fusion = EntryGate(CONFIG, SCHEMA, WIDTHS)

    def operations(vectors: Vectors) -> int:
        with FlopCounterMode(display=False) as counter:
            fusion(vectors)
        return counter.get_total_flops()

    saved = operations(some_vectors(range(8))) - operations(some_vectors([0] * 8))
    assert saved == 7 * 2 * 9 * (6 + 8 + 6)


def test_widths_before_and_after_entering():
    fusion = EntryGate(CONFIG, SCHEMA, WIDTHS)
    assert fusion.widths == {"click": 5, "goods_bag": 2, "order": 2, "stay": 2}
    assert fusion.expert_names == dict.fromkeys(("goods_bag", "order", "stay"), ("expert 1", "expert 2"))


def with_targets(*targets: dict) -> Schema:
    return Schema.from_dict({**SCHEMA.to_dict(), "targets": targets})


def test_without_targets_after_entering_nothing_is_made_for_them():
    fusion = EntryGate(CONFIG, with_targets({"name": "click", "action": "enter"}), WIDTHS)
    assert {name.split(".")[0] for name, _ in fusion.named_parameters()} == {"entering"}
    assert fusion.gates(some_vectors()) == {} == fusion.expert_names


def test_every_root_has_a_tower_of_its_own():
    schema = with_targets(
        {"name": "order", "action": "order", "parents": ["click"]},
        {"name": "click", "action": "enter"},
        {"name": "share", "action": "share"},
    )
    fusion, vectors = shuffled(EntryGate(CONFIG, schema, WIDTHS)), some_vectors()
    found = fusion(vectors)
    assert list(found) == ["order", "click", "share"] and [values.shape[1] for values in found.values()] == [2, 5, 5]
    found["share"].sum().backward()
    first = fusion.entering.first.candidate.grad.unflatten(1, (2, 6))
    assert [bool(first[:, tower].any()) for tower in range(2)] == [False, True]
    assert all(parameter.grad is None for parameter in fusion.after.parameters())


def test_a_level_without_members():
    """No vectors of the feed, and the room's state alone of the candidate: e_c or e_v is absent."""
    state = {name: WIDTHS.candidate[name] for name in STATE}
    vectors = some_vectors()
    no_feed = Widths(feed={}, candidate=WIDTHS.candidate)
    found = EntryGate(CONFIG, SCHEMA, no_feed)(dataclasses.replace(vectors, feed={}))
    assert all(values.shape[0] == 6 for values in found.values())
    only = dataclasses.replace(vectors, candidate={name: vectors.candidate[name] for name in STATE})
    found = EntryGate(CONFIG, SCHEMA, Widths(feed=WIDTHS.feed, candidate=state))(only)
    assert all(values.shape[0] == 6 for values in found.values())
    assert_close(found["click"][0], found["click"][2])  # of one feed, and nothing tells them apart before entering
    assert (found["order"][0] != found["order"][2]).any()


def test_no_candidates_at_all():
    found = EntryGate(CONFIG, SCHEMA, WIDTHS)(some_vectors(()))
    assert [values.shape for values in found.values()] == [(0, 5), (0, 2), (0, 2), (0, 2)]


@pytest.mark.parametrize(
    ("dynamic", "widths", "message"),
    [
        (
            ("rate", "hour", "viewers"),
            WIDTHS,
            r"`fusion.dynamic` names hour, viewers, but candidate fields are: room, streamer",
        ),
        (
            (),
            WIDTHS,
            r"goods_bag, order, stay through the real-time state of the room, but no candidate field is any.*fusion `mmoe`",
        ),
        (
            STATE,
            Widths(candidate={name: WIDTHS.candidate[name] for name in STATE}),
            r"nothing to look at beside the real-time state of the room \(product, rate_bin, rate\)",
        ),
    ],
)
def test_roles_that_cannot_be_filled_are_refused(dynamic, widths, message):
    with pytest.raises(ConfigError, match=message):
        EntryGate(dataclasses.replace(CONFIG, dynamic=dynamic), SCHEMA, widths)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"entering": []}, "entry_gate's entering needs at least one layer in hidden"),
        ({"experts": 0}, "entry_gate needs gate_hidden >= 1 and experts >= 1, got 32 and 0"),
        ({"towers": [0]}, r"entry_gate needs layers of at least 1 unit, got towers=\[0\]"),
    ],
)
def test_impossible_values_are_refused(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(EntryGateConfig, spelling)
