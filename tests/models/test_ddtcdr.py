import pytest
import torch
from torch.testing import assert_close

from models.interests.ddtcdr import Ddtcdr, DdtcdrConfig
from models.slots import Training
from tests.models.sides import drawn, embedded, user_and_item


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
def test_each_network_also_judges_the_other_domains_user_and_item(most_candidates):
    """Candidate by candidate, with X applied to the user itself, there and back."""
    schema, embedding, batch, vectors = embedded(feeds=4, most_candidates=most_candidates)
    config = DdtcdrConfig(width=6, heads=3, hidden=(5, 4), alpha=0.3)
    interest = drawn(Ddtcdr(config, schema, embedding.inputs))  # X no longer orthogonal: its transpose is no inverse
    found = interest(vectors, batch)
    assert interest.widths.candidate == {"interest.channels": 4, "interest.products": 4} and found.feed == {}
    lower, upper = interest.first, interest.rest.layers[0]

    def network(member, user, item):
        hidden = torch.cat([user, item]) @ lower.weight_BIH[member] + lower.bias_B1H[member, 0]
        return (hidden.relu() @ upper.weight_BIH[member] + upper.bias_B1H[member, 0]).relu()

    for candidate in range(batch.candidates):
        (room_user, room), (product_user, product) = (
            user_and_item(interest.sides[name], schema, vectors, batch, candidate) for name in ("channels", "products")
        )
        there, back = interest.mapping_DD.mv(room_user), interest.mapping_DD.T.mv(product_user)
        of_rooms = 0.7 * network(0, room_user, room) + 0.3 * network(1, there, room)
        of_products = 0.7 * network(1, product_user, product) + 0.3 * network(0, back, product)
        assert_close(found.candidate["interest.channels"][candidate], of_rooms)
        assert_close(found.candidate["interest.products"][candidate], of_products)
    assert all(vector_NO.gt(0).any() for vector_NO in found.candidate.values())


def test_rooms_alone_teach_both_networks_and_the_mapping():
    schema, embedding, batch, vectors = embedded(feeds=12)
    interest = drawn(Ddtcdr(DdtcdrConfig(width=6, heads=3, hidden=(8, 8)), schema, embedding.inputs))
    interest(vectors, batch).candidate["interest.channels"].sum().backward()
    assert interest.mapping_DD.grad.any()
    assert all(weight_IH.any() for weight_IH in interest.first.weight_BIH.grad)


def test_the_mapping_starts_orthogonal_and_its_distance_from_that_is_a_penalty():
    schema, embedding, batch, vectors = embedded(feeds=3)
    training = Training(progress=0.0, batch=batch, beliefs={})
    interest = Ddtcdr(
        DdtcdrConfig(width=2, heads=1, hidden=(3,), orthogonal=0.5, source=0.0), schema, embedding.inputs
    ).double()
    assert interest.penalties == ("ddtcdr.orthogonal",)
    total, count = interest(vectors, batch, training).penalties["ddtcdr.orthogonal"]
    assert total.item() == pytest.approx(0, abs=1e-10) and count == 3
    with torch.no_grad():
        interest.mapping_DD.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    # X X' = [[5, 2], [2, 1]], off by [[4, 2], [2, 0]]: 16 + 4 + 4
    total, count = interest(vectors, batch, training).penalties["ddtcdr.orthogonal"]
    assert total.item() / count.item() == pytest.approx(0.5 * 24)
    (total / count).backward()
    # 4 (X X' - 1) X, times the weight
    assert_close(interest.mapping_DD.grad, 0.5 * 4 * torch.tensor([[4.0, 10.0], [2.0, 4.0]], dtype=torch.float64))
    assert interest(vectors, batch).penalties == {}
    without = Ddtcdr(DdtcdrConfig(width=2, heads=1, hidden=(3,), orthogonal=0.0, source=0.0), schema, embedding.inputs).double()
    assert without.penalties == () and without(vectors, batch, training).penalties == {}


def test_the_penalty_is_exact_under_autocast():
    schema, embedding, batch, _ = embedded(feeds=3)
    interest = Ddtcdr(DdtcdrConfig(width=64, heads=1, hidden=(3,), orthogonal=1.0), schema, embedding.inputs)
    embedding.float()
    training = Training(progress=0.0, batch=batch, beliefs={})
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = interest(embedding(batch), batch, training).penalties["ddtcdr.orthogonal"]
    assert total.dtype == torch.float32 and total.item() == pytest.approx(0, abs=1e-9)


def test_values_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"ddtcdr needs 0 < alpha < 1, got 0\.0; without transfer, take an interest"):
        DdtcdrConfig(alpha=0.0)
    with pytest.raises(ValueError, match=r"ddtcdr needs orthogonal >= 0, got -1\.0"):
        DdtcdrConfig(orthogonal=-1.0)
    with pytest.raises(ValueError, match="ddtcdr needs a width that its heads divide, got width=10, heads=4"):
        DdtcdrConfig(width=10, heads=4)
