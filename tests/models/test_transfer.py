"""Graph and attention against loops over single candidates."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.layers.graph import depths, generations
from models.layers.transfer import Transfer, TransferAttention

DIAMOND = {"d": ("c", "b"), "b": ("a",), "c": ("a",), "a": ()}
LARGER = {**DIAMOND, "e": ("d", "a"), "alone": (), "f": ("d",), "g": ("a", "alone")}


def test_depth_is_the_longest_way_from_a_root():
    assert depths({"c": ("b", "a", "d"), "a": (), "b": ("a",), "d": ()}) == {"a": 0, "b": 1, "c": 2, "d": 0}


def shuffled(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Biases too, so that a forgotten one is seen; in float64."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return module.double()


def random_vectors(widths: dict[str, int], candidates: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(candidates, width, dtype=torch.float64) for name, width in widths.items()}


def attended(attention: TransferAttention, member: int, sources: list[Tensor]) -> tuple[Tensor, list[float]]:
    """One candidate's attention, as the papers write it."""
    query, key, value = (each[member] for each in (attention.query_BHH, attention.key_BHH, attention.value_BHH))
    scores = [math.exp(((a @ query) @ (a @ key)).item() / math.sqrt(len(a))) for a in sources]
    weights = [score / sum(scores) for score in scores]
    return sum(weight * (a @ value) for weight, a in zip(weights, sources, strict=True)), weights


def walked(
    transfer: Transfer, parents: dict, vectors: dict, *, residual: bool, passed_on=lambda name, n, vector, message: message
):
    """What nodes become and the weights of their parents, candidate by candidate and node by node."""
    place = {name: (each, index) for each in transfer.generations for index, name in enumerate(each.names)}
    count = len(next(iter(vectors.values())))
    become, weights = {name: [] for name in parents}, {}
    for n in range(count):
        messages: dict[str, Tensor] = {}
        waiting = list(parents)
        while waiting:
            name = next(each for each in waiting if not set(parents[each]) & set(waiting))
            waiting.remove(name)
            generation, index = place[name]
            vector = vectors[name][n]
            if parents[name]:
                heard, shares = attended(generation.attention, index, [vector, *(messages[parent] for parent in parents[name])])
                for parent, share in zip(parents[name], shares[1:], strict=True):
                    weights.setdefault((parent, name), []).append(share)
                vector = vector + heard if residual else heard
            become[name].append(vector)
            if any(name in above for above in parents.values()):
                linear = generation.message
                message = (vector @ linear.weight_BIH[index] + linear.bias_B1H[index, 0]).relu()
                messages[name] = passed_on(name, n, vector, message)
    return {name: torch.stack(rows) for name, rows in become.items()}, weights


@pytest.mark.parametrize("parents", [DIAMOND, LARGER, {"a": ()}, {"a": (), "b": ()}])
def test_generations_put_parents_first_and_equals_together(parents):
    kinds = {name: name in "cf" for name in parents}
    for groups in (generations(parents), generations(parents, kinds)):
        place = {name: index for index, group in enumerate(groups) for name in group}
        assert sorted(place) == sorted(parents) and sum(map(len, groups)) == len(parents)
        assert all(place[parent] < place[name] for name in parents for parent in parents[name])
        assert all(len({len(parents[name]) for name in group}) == 1 for group in groups)
    assert all(len({kinds[name] for name in group}) == 1 for group in generations(parents, kinds))


def test_a_diamond_has_three_generations():
    assert generations(DIAMOND) == (("a",), ("b", "c"), ("d",))
    assert generations(DIAMOND, {"a": 1, "b": 1, "c": 2, "d": 1}) == (("a",), ("b",), ("c",), ("d",))


def test_attention_by_hand():
    """Width 1, Q = K = 1, V = 3: scores of 1 and 2 are 1 and 4, the sum is 3 (e + 2 e^4) / (e + e^4)."""
    attention = TransferAttention(1, 1)
    with torch.no_grad():
        attention.query_BHH.fill_(1.0)
        attention.key_BHH.fill_(1.0)
        attention.value_BHH.fill_(3.0)
    heard, weight = attention(torch.tensor([[[[1.0]], [[2.0]]]]))
    share = math.exp(4) / (math.exp(1) + math.exp(4))
    assert_close(weight, torch.tensor([[[1 - share], [share]]]))
    assert heard.item() == pytest.approx(3 * (1 - share) + 6 * share)


def test_attention_is_the_published_formula_for_every_member_and_candidate():
    attention = shuffled(TransferAttention(2, 3))
    x_BANH = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    heard_BNH, weight_BAN = attention(x_BANH)
    for member in range(2):
        for n in range(5):
            expected, weights = attended(attention, member, list(x_BANH[member, :, n]))
            assert_close(heard_BNH[member, n], expected)
            assert weight_BAN[member, :, n].tolist() == pytest.approx(weights)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("parents", [DIAMOND, LARGER])
def test_transfer_is_a_walk_from_node_to_node(parents, residual):
    transfer = shuffled(Transfer(parents, dict.fromkeys(parents, 3), residual=residual))
    vectors = random_vectors(dict.fromkeys(parents, 3))
    become, weights = transfer(vectors)
    expected, shares = walked(transfer, parents, vectors, residual=residual)
    assert become.keys() == expected.keys() and weights.keys() == shares.keys()
    for name in become:
        assert_close(become[name], expected[name])
    for edge in weights:
        assert weights[edge].tolist() == pytest.approx(shares[edge])


def test_messages_pass_through_what_is_given():
    """The message of `a` comes to its children with 10 added, of `b` and `c` as it is; `d` has no children to tell."""
    transfer = shuffled(Transfer(DIAMOND, dict.fromkeys(DIAMOND, 3), residual=False))
    vectors = random_vectors(dict.fromkeys(DIAMOND, 3))
    seen = {}

    def passed_on(name, vector_NH, message_NH):
        seen[name] = vector_NH
        return message_NH + 10 if name == "a" else message_NH

    become, _ = transfer(vectors, passed_on)
    expected, _ = walked(
        transfer, DIAMOND, vectors, residual=False, passed_on=lambda name, n, vector, m: m + 10 if name == "a" else m
    )
    for name in become:
        assert_close(become[name], expected[name])
    assert set(seen) == {"a", "b", "c"} == set(transfer.senders)
    assert all(torch.equal(seen[name], become[name]) for name in seen)


def test_narrow_vectors_are_mapped_to_the_widest():
    widths = {"a": 2, "b": 3, "c": 1, "d": 3}
    transfer = shuffled(Transfer(DIAMOND, widths, residual=True))
    vectors = random_vectors(widths)
    wide = dict(vectors)
    for name, linear in zip(("c", "a"), transfer.widened, strict=True):
        wide[name] = vectors[name] @ linear.weight_BIH[0] + linear.bias_B1H[0, 0]
    become, _ = transfer(vectors)
    expected, _ = walked(transfer, DIAMOND, wide, residual=True)
    for name in become:
        assert_close(become[name], expected[name])
    assert transfer.width == 3
