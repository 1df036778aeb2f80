import pytest
import torch
from torch.testing import assert_close

from models.interests.dtcdr import OPERATORS, Dtcdr, DtcdrConfig
from tests.models.sides import drawn, embedded, user_and_item

ROOMS, PRODUCTS = torch.tensor([[1.0, -4.0]]), torch.tensor([[3.0, -6.0]])


@pytest.mark.parametrize(
    ("combine", "expected"), [("concatenate", [1.0, -4.0, 3.0, -6.0]), ("max", [3.0, -4.0]), ("mean", [2.0, -5.0])]
)
def test_operators(combine, expected):
    assert_close(OPERATORS[combine](ROOMS, PRODUCTS), torch.tensor([expected]))


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
@pytest.mark.parametrize("combine", OPERATORS)
def test_both_networks_read_the_combined_user(combine, most_candidates):
    schema, embedding, batch, vectors = embedded(feeds=4, most_candidates=most_candidates)
    interest = drawn(Dtcdr(DtcdrConfig(width=6, heads=3, hidden=(5, 4), combine=combine), schema, embedding.inputs))
    found = interest(vectors, batch)
    assert interest.widths.candidate == {"interest.channels": 4, "interest.products": 4} and found.feed == {}
    lower, upper = interest.networks.layers
    for candidate in range(batch.candidates):
        users, items = {}, {}
        for name in ("channels", "products"):
            users[name], items[name] = user_and_item(interest.sides[name], schema, vectors, batch, candidate)
        pairs = list(zip(users["channels"], users["products"], strict=True))
        user = {
            "concatenate": torch.cat([users["channels"], users["products"]]),
            "max": torch.stack([a if a > b else b for a, b in pairs]),
            "mean": torch.stack([0.5 * a + 0.5 * b for a, b in pairs]),
        }[combine]
        for member, name in enumerate(("channels", "products")):
            hidden = torch.cat([user, items[name]]) @ lower.weight_BIH[member] + lower.bias_B1H[member, 0]
            expected = (hidden.relu() @ upper.weight_BIH[member] + upper.bias_B1H[member, 0]).relu()
            assert_close(found.candidate[f"interest.{name}"][candidate], expected)
    assert all(vector_NO.gt(0).any() for vector_NO in found.candidate.values())


@pytest.mark.parametrize("combine", OPERATORS)
def test_every_operator_lets_both_users_learn_from_rooms_alone(combine):
    schema, embedding, batch, vectors = embedded(feeds=12)
    interest = drawn(Dtcdr(DtcdrConfig(width=6, heads=3, hidden=(8, 8), combine=combine), schema, embedding.inputs))
    interest(vectors, batch).candidate["interest.channels"].sum().backward()
    for name in ("channels", "products"):
        assert interest.sides[name].profile_FD.grad.any() and interest.sides[name].content.attention.both_D2D.grad.any()


def test_values_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="dtcdr needs a width that its heads divide, got width=10, heads=4"):
        DtcdrConfig(width=10, heads=4)
    with pytest.raises(ValueError, match=r"dtcdr needs layers of at least 1 unit, got hidden=\[4, 0\]"):
        DtcdrConfig(hidden=(4, 0))
