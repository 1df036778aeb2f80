import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.interests.dasl import Dasl, DaslConfig
from models.slots import Training
from tests.models.helpers import replaced
from tests.models.test_minet import embedded_as, real_entries, scattered, with_histories, without_feed_fields
from tests.samples import tiny_schema


def interest_of(schema, embedding, **settings):
    interest = Dasl(DaslConfig(**{"width": 4, "attention": 3, "source": 0.0, **settings}), schema, embedding.inputs).double()
    scattered(interest)
    return interest


def told(batch):
    return Training(progress=0.0, batch=batch, beliefs={})


def gru_states(gru, inputs):
    """Cho et al. 2014 as torch writes it, step by step."""
    state, states = torch.zeros(gru.hidden_size, dtype=torch.float64), []
    for read in inputs:
        of_input = (gru.weight_ih_l0 @ read + gru.bias_ih_l0).chunk(3)
        of_state = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
        reset, update = torch.sigmoid(of_input[0] + of_state[0]), torch.sigmoid(of_input[1] + of_state[1])
        state = (1 - update) * torch.tanh(of_input[2] + reset * of_state[2]) + update * state
        states.append(state)
    return states


@pytest.mark.parametrize("schema", [tiny_schema(), without_feed_fields()], ids=["user", "no user"])
@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
def test_the_formulas_candidate_by_candidate(schema, most_candidates):
    embedding, batch, vectors = embedded_as(schema, feeds=6, most_candidates=most_candidates)
    interest = interest_of(schema, embedding)
    found = interest(vectors, batch)
    assert found.feed == {}
    assert list(found.candidate) == ["interest.channels", "interest.products"]
    assert interest.widths.candidate == dict.fromkeys(found.candidate, 4)

    channels, products = vectors.histories["channels"], vectors.histories["products"]
    entries_RLD, target_ND = interest.domain.entries(vectors), interest.domain.candidates(vectors)
    attention = interest.attention
    for candidate in range(batch.candidates):
        feed = int(batch.feed_of_candidate_N[candidate])
        user = [torch.zeros(0).double()] * 2
        if vectors.feed:
            user = (torch.cat([values[feed] for values in vectors.feed.values()]) @ interest.user_F2D).chunk(2)
        watched = [torch.cat([entry, user[0]]) for entry in real_entries(entries_RLD, channels.is_real_RL, feed)]
        clicked = [torch.cat([entry, user[1]]) for entry in real_entries(products.entries_RLE, products.is_real_RL, feed)]
        own = gru_states(interest.of_channels.gru, watched)
        other = [state @ interest.map_DD for state in gru_states(interest.of_products.gru, clicked)]
        of_target = target_ND[candidate] @ attention.target_DA
        weights = [
            (torch.tanh(state @ attention.state_DA + of_target + attention.bias_A) @ attention.score_A1[:, 0]).exp()
            for state in [*own, *other]
        ]
        for name, states, mine in (("channels", own, weights[: len(own)]), ("products", other, weights[len(own) :])):
            expected = torch.zeros(4).double()
            for weight, state in zip(mine, states, strict=True):
                expected += weight / sum(weights) * state
            assert_close(found.candidate[f"interest.{name}"][candidate], expected)


def test_both_sequences_share_one_softmax():
    """Without scores every real entry weighs the same: a state of 3 channels and of 1 product weighs a quarter."""
    schema = tiny_schema()
    embedding, batch, vectors = embedded_as(schema, feeds=1, most_candidates=1)
    interest = interest_of(schema, embedding)
    torch.nn.init.zeros_(interest.attention.score_A1)
    rows = {field: torch.tensor([[1, 2, 3, 0]]) for field in ("room", "streamer", "category", "stay")}
    real = torch.tensor([[True, True, True, False]])
    channels, products = batch.histories["channels"], batch.histories["products"]
    batch = replaced(
        batch,
        histories={
            "channels": type(channels)(rows=rows, is_real_RL=real),
            "products": type(products)(rows={"product": torch.tensor([[4]])}, is_real_RL=torch.tensor([[True]])),
        },
    )
    vectors = embedding(batch)
    found = interest(vectors, batch).candidate
    user = (torch.cat([values[0] for values in vectors.feed.values()]) @ interest.user_F2D).chunk(2)
    own = gru_states(interest.of_channels.gru, [torch.cat([e, user[0]]) for e in interest.domain.entries(vectors)[0, :3]])
    other = gru_states(interest.of_products.gru, [torch.cat([vectors.histories["products"].entries_RLE[0, 0], user[1]])])
    assert_close(found["interest.channels"][0], sum(own) / 4)
    assert_close(found["interest.products"][0], other[0] @ interest.map_DD / 4)


def test_penalties_by_hand():
    """W = [[1, 1], [0, 1]]: W W' - I = [[1, 1], [1, 0]], of square sum 3. u_p = (1, 0), so u_p W = (1, 1), and u_c = (1, 0)
    for every feed: 1 - cos = 1 - 1 / sqrt 2."""
    schema = tiny_schema()
    embedding, batch, vectors = embedded_as(schema, feeds=5)
    interest = interest_of(schema, embedding, width=2, orthogonal=0.5, mapping=0.25)
    assert interest.penalties == ("dasl.orthogonal", "dasl.mapping")
    with torch.no_grad():
        interest.map_DD.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        interest.user_F2D.zero_()[0] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    field = next(iter(vectors.feed))
    for name, values in vectors.feed.items():  # the first of all numbers is 1
        vectors.feed[name] = torch.ones_like(values) if name == field else values
    assert interest(vectors, batch).penalties == {}
    found = interest(vectors, batch, told(batch)).penalties
    assert list(found) == ["dasl.orthogonal", "dasl.mapping"]
    assert [value.item() for value in found["dasl.orthogonal"]] == pytest.approx([0.5 * 3 * 5, 5])
    assert [value.item() for value in found["dasl.mapping"]] == pytest.approx([0.25 * 5 * (1 - 1 / math.sqrt(2)), 5])


def test_the_map_starts_orthogonal():
    schema = tiny_schema()
    embedding, batch, vectors = embedded_as(schema, feeds=3)
    interest = Dasl(DaslConfig(width=6), schema, embedding.inputs).double()
    total, count = interest(vectors, batch, told(batch)).penalties["dasl.orthogonal"]
    assert 0 <= total.item() < 1e-9 and count.item() == 3


def test_penalties_without_weight_or_without_a_user_are_left_out():
    embedding, batch, vectors = embedded_as(tiny_schema(), feeds=3)
    for settings, names in (({"mapping": 0.0}, ("dasl.orthogonal",)), ({"orthogonal": 0.0}, ("dasl.mapping",))):
        interest = interest_of(tiny_schema(), embedding, **settings)
        assert interest.penalties == tuple(interest(vectors, batch, told(batch)).penalties) == names
    schema = without_feed_fields()
    embedding, batch, vectors = embedded_as(schema, feeds=3)
    interest = interest_of(schema, embedding)
    assert interest.penalties == tuple(interest(vectors, batch, told(batch)).penalties) == ("dasl.orthogonal",)


def test_values_without_sense_are_refused():
    for name in ("width", "attention"):
        with pytest.raises(ValueError, match=f"dasl needs {name} >= 1, got 0"):
            DaslConfig(**{name: 0})
    for name in ("orthogonal", "mapping"):
        with pytest.raises(ValueError, match=f"dasl needs {name} >= 0, got -1"):
            DaslConfig(**{name: -1.0})


def test_one_domain_is_refused():
    schema = with_histories(("products", "products"))
    embedding, _, _ = embedded_as(schema, feeds=2)
    with pytest.raises(
        ConfigError, match=r"`dasl` is defined between two domains.* engagements: none; product_clicks: products"
    ):
        Dasl(DaslConfig(), schema, embedding.inputs)
