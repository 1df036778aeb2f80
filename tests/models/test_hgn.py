import pytest
import torch
from torch.testing import assert_close

from models.interests.hgn import Hgn, HgnConfig
from models.layers.embedding import Embedded, Embedding
from models.layers.numbers import RawConfig
from models.schema import Schema
from tests.models.helpers import with_no_entries, without_history
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

WIDTH = 5


def without_feed_fields() -> Schema:
    spelling = tiny_schema().to_dict()
    spelling["fields"] = [item for item in spelling["fields"] if item["of"] != "feed"]
    return Schema.from_dict(spelling)


def built(schema: Schema, **kwargs):
    """The interest with all weights random, in float64; a batch; its embedding."""
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, seed=0, **kwargs)
    interest = Hgn(HgnConfig(width=WIDTH), schema, embedding.inputs).double()
    for parameter in interest.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return interest, batch, embedding


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def expected(interest: Hgn, embedded: Embedded, name: str, feed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The published formulas entry by entry: the interest, and what a candidate is multiplied with."""
    gates, history = interest.gates[name], embedded.histories[name]
    length = int(history.is_real_RL[feed].sum())
    entries = interest.domains[name].entries(embedded)[feed, :length]
    user = None
    if interest.user_FD is not None:
        user = torch.cat([values[feed] for values in embedded.feed.values()]) @ interest.user_FD
    pooled, plain = torch.zeros(WIDTH).double(), torch.zeros(WIDTH).double()
    for place, entry in enumerate(entries):
        of_features = entry @ gates.feature_DD + gates.feature_bias_D
        if user is not None:
            of_features = of_features + user @ gates.feature_user_UD
        gated = entry * sigmoid(of_features)
        of_instance = gated @ gates.instance_D1[:, 0]
        if user is not None:
            of_instance = of_instance + user @ gates.instance_user_UP[:, length - 1 - place]
        pooled, plain = pooled + gated * sigmoid(of_instance) / length, plain + entry / length
    return pooled, [pooled, plain] if user is None else [pooled, plain, user]


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
@pytest.mark.parametrize("schema", [tiny_schema(), without_feed_fields()], ids=["user", "no feed fields"])
def test_hgn_gates_features_and_instances_and_multiplies_with_the_candidate(schema, most_candidates):
    interest, batch, embedding = built(schema, feeds=6, most_candidates=most_candidates)
    embedded = embedding(batch)
    found = interest(embedded, batch)
    assert {name: values.shape[1] for name, values in found.feed.items()} == interest.widths.feed
    assert {name: values.shape[1] for name, values in found.candidate.items()} == interest.widths.candidate
    for name in ("channels", "products"):
        candidates_ND = interest.domains[name].candidates(embedded)
        for candidate, feed in enumerate(batch.feed_of_candidate_N.tolist()):
            pooled, compared = expected(interest, embedded, name, feed)
            assert_close(found.feed[f"interest.{name}"][feed], pooled)
            products = torch.stack([candidates_ND[candidate] @ each for each in compared])
            assert_close(found.candidate[f"match.{name}"][candidate], products)


def test_without_products_a_candidate_is_compared_with_nothing():
    interest, batch, embedding = built(tiny_schema(), feeds=6)
    embedded = embedding(batch)
    torch.manual_seed(0)
    without = Hgn(HgnConfig(width=WIDTH, products=False), tiny_schema(), embedding.inputs).double()
    assert set(interest.state_dict()) - set(without.state_dict()) == {
        f"domains.of_{name}.{part}" for name in ("channels", "products") for part in ("candidate_CD", "candidate_bias_D")
    }
    without.load_state_dict(interest.state_dict(), strict=False)
    found = without(embedded, batch)
    assert found.candidate == {} and without.widths.candidate == {}
    for name, values in interest(embedded, batch).feed.items():
        assert_close(found.feed[name], values)


def test_one_entry_by_hand():
    """Gates without weights are one half each: a quarter of the entry; q = (1, 2, 0, 0, 0)."""
    interest, batch, embedding = built(tiny_schema(), feeds=2, most_candidates=1)
    embedded = embedding(batch)
    history = embedded.histories["channels"]
    history.is_real_RL[:] = torch.arange(history.is_real_RL.shape[1]) < 1
    for parameter in interest.gates.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.zeros_(interest.user_FD)
    domain = interest.domains["channels"]
    for parameter in domain.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        domain.entry_bias_D.copy_(torch.tensor([4.0, 8.0, -4.0, 0.0, 0.0]))
        domain.candidate_bias_D.copy_(torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0]))
    found = interest(embedded, batch)
    assert found.feed["interest.channels"].tolist() == [[1.0, 2.0, -1.0, 0.0, 0.0]] * 2
    assert found.candidate["match.channels"].tolist() == [[5.0, 20.0, 0.0]] * 2


def test_without_entries_only_the_user_matches():
    interest, batch, embedding = built(tiny_schema(), feeds=4)
    for changed in (without_history(batch), with_no_entries(batch)):
        embedded = embedding(changed)
        found = interest(embedded, changed)
        user_RD = torch.cat(list(embedded.feed.values()), dim=1) @ interest.user_FD
        assert_close(found.feed["interest.channels"], torch.zeros(4, WIDTH).double())
        of_user_N = (interest.domains["channels"].candidates(embedded) * user_RD[batch.feed_of_candidate_N]).sum(1)
        nothing_N = torch.zeros_like(of_user_N)
        assert_close(found.candidate["match.channels"], torch.stack([nothing_N, nothing_N, of_user_N], dim=1))


def test_a_width_without_places_is_refused():
    with pytest.raises(ValueError, match=r"hgn needs layers of at least 1 unit, got hidden=\[0\]"):
        HgnConfig(width=0)
