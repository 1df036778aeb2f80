import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.interests.conet import Conet, ConetConfig, CrossUnit
from models.slots import Training
from tests.models.sides import content_and_item, drawn, embedded
from tests.samples import tiny_schema


def test_a_cross_unit_sends_both_layers_through_one_matrix():
    unit = CrossUnit(1, 1)
    with torch.no_grad():
        unit.target_IO.fill_(2.0)
        unit.source_IO.fill_(3.0)
        unit.cross_IO.fill_(10.0)
        unit.bias_P.copy_(torch.tensor([0.5, -0.5]))
    # target: 2 * 1 + 10 * 4 + .5; source: 3 * 4 + 10 * 1 - .5; and below 0 nothing passes
    found = unit(torch.tensor([[1.0, 4.0], [-1.0, 0.0]]), None, torch.tensor([0, 0]))
    assert_close(found, torch.tensor([[42.5, 21.5], [0.0, 0.0]]))


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
def test_conet_is_two_networks_with_cross_connections(most_candidates):
    """Candidate by candidate in the published form, where both networks read [user, item, content] and H covers them all."""
    schema, embedding, batch, vectors = embedded(feeds=4, most_candidates=most_candidates)
    interest = drawn(Conet(ConetConfig(width=6, heads=2, hidden=(5, 4, 3)), schema, embedding.inputs))
    found = interest(vectors, batch)
    assert interest.widths.candidate == {"interest.channels": 3, "interest.products": 3} and found.feed == {}
    first = interest.units[0]
    fields = len(first.fields_FP)
    of_user = torch.randn(fields, 5, dtype=torch.float64)  # any H for the shared user: its part goes off W
    cross = [torch.cat([of_user, first.cross_IO]), *(unit.cross_IO for unit in interest.units[1:])]
    target = [torch.cat([first.fields_FP[:, :5] - of_user, first.target_IO]), *(unit.target_IO for unit in interest.units[1:])]
    source = [torch.cat([first.fields_FP[:, 5:] - of_user, first.source_IO]), *(unit.source_IO for unit in interest.units[1:])]
    for candidate in range(batch.candidates):
        user = torch.cat([vectors.feed[name][int(batch.feed_of_candidate_N[candidate])] for name in vectors.feed])
        rooms, products = (
            torch.cat([user, *content_and_item(interest.contents[name], schema, vectors, batch, candidate)])
            for name in ("channels", "products")
        )
        for layer, unit in enumerate(interest.units):
            size = unit.cross_IO.shape[1]
            next_rooms = rooms @ target[layer] + products @ cross[layer] + unit.bias_P[:size]
            next_products = products @ source[layer] + rooms @ cross[layer] + unit.bias_P[size:]
            rooms, products = next_rooms.relu(), next_products.relu()
        assert_close(found.candidate["interest.channels"][candidate], rooms)
        assert_close(found.candidate["interest.products"][candidate], products)
    assert any(found.candidate[f"interest.{name}"].gt(0).any() for name in ("channels", "products"))


def test_the_lasso_is_the_weighted_sum_of_cross_connections_in_training():
    schema, embedding, batch, vectors = embedded(feeds=3)
    training = Training(progress=0.0, batch=batch, beliefs={})
    interest = Conet(ConetConfig(width=4, heads=2, hidden=(3, 2), sparse=0.5, source=0.0), schema, embedding.inputs).double()
    with torch.no_grad():
        for unit in interest.units:
            unit.cross_IO.fill_(-0.25)
    total, count = interest(vectors, batch, training).penalties["conet.sparse"]
    # 8 x 3 and 3 x 2 entries
    assert interest.penalties == ("conet.sparse",) and count == 3
    assert total.item() / count.item() == pytest.approx(0.5 * 0.25 * (24 + 6))
    assert interest(vectors, batch).penalties == {}
    (total / count).backward()
    assert_close(interest.units[1].cross_IO.grad, torch.full((3, 2), -0.5, dtype=torch.float64))
    assert interest.units[1].target_IO.grad is None
    without = Conet(ConetConfig(width=4, heads=2, hidden=(3, 2), source=0.0), schema, embedding.inputs).double()
    assert without.penalties == () and without(vectors, batch, training).penalties == {}


def test_values_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="conet needs a width that its heads divide, got width=10, heads=4"):
        ConetConfig(width=10, heads=4)
    with pytest.raises(ValueError, match=r"conet needs sparse >= 0, got -1\.0"):
        ConetConfig(sparse=-1.0)
    with pytest.raises(ValueError, match="conet needs at least one layer in hidden"):
        ConetConfig(hidden=())
    spelling = tiny_schema().to_dict()
    spelling["histories"] = spelling["histories"][:1]
    _, embedding, _, _ = embedded(feeds=1)
    with pytest.raises(ConfigError, match="interest `conet` is defined between two domains"):
        Conet(ConetConfig(), type(tiny_schema()).from_dict(spelling), embedding.inputs)
