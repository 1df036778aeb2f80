import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.interests.minet import InterestAttention, ItemAttention, Minet, MinetConfig
from models.layers.embedding import Embedding
from models.layers.grid import grid
from models.layers.histories import chosen, domains
from models.layers.numbers import RawConfig
from models.schema import Schema
from tests.samples import TABLE_SIZES, random_batch, tiny_schema


def without_feed_fields() -> Schema:
    spelling = tiny_schema().to_dict()
    return Schema.from_dict({**spelling, "fields": [field for field in spelling["fields"] if field["of"] == "candidate"]})


def with_histories(*of: tuple[str, str]) -> Schema:
    """`tiny_schema` with other histories: (name, like which)."""
    spelling = tiny_schema().to_dict()
    by_name = {history["name"]: history for history in spelling["histories"]}
    return Schema.from_dict({**spelling, "histories": [{**by_name[like], "name": name} for name, like in of]})


def embedded_as(schema: Schema, **kwargs):
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, seed=0, **kwargs)
    return embedding, batch, embedding(batch)


def scattered(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)


def real_entries(entries_RLD, is_real_RL, feed):
    return entries_RLD[feed, : int(is_real_RL[feed].sum())]


def item_level(attention, entries, transferred, q, u):
    """sum_i softmax_i(h . relu([k, q, u, (k M) * q] V)) k, entry by entry."""
    weights = [attention.entry_DA, attention.target_DA, *([] if u is None else [attention.user_DA]), attention.pair_DA]
    scores = []
    for entry, carried in zip(entries, transferred, strict=True):
        read = torch.cat([entry, q, *([] if u is None else [u]), carried * q])
        scores.append(((read @ torch.cat(weights)).relu() @ attention.score_A1[:, 0]).exp())
    found = torch.zeros_like(q)
    for score, entry in zip(scores, entries, strict=True):
        found += score / sum(scores) * entry
    return found


@pytest.mark.parametrize("schema", [tiny_schema(), without_feed_fields()], ids=["user", "no user"])
@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
def test_the_published_formulas_candidate_by_candidate(schema, most_candidates):
    embedding, batch, vectors = embedded_as(schema, feeds=6, most_candidates=most_candidates)
    interest = Minet(MinetConfig(width=5, item_hidden=7, interest_hidden=6, rank=2), schema, embedding.inputs).double()
    scattered(interest)
    found = interest(vectors, batch)
    assert found.feed == {} and found.penalties == {}
    user = bool(vectors.feed)
    assert list(found.candidate) == [*(["interest.user"] if user else []), "interest.channels", "interest.products"]
    assert interest.widths.candidate == dict.fromkeys(found.candidate, 5)

    channels, products = vectors.histories["channels"], vectors.histories["products"]
    watched_RLD, target_ND = interest.target.entries(vectors), interest.target.candidates(vectors)
    clicked_RLD = products.entries_RLE @ interest.source_ED + interest.source_bias_D
    transfer_DD = interest.of_products.transfer_DK @ interest.of_products.transfer_KD
    first, score = interest.of_interests.hidden.first, interest.of_interests.score
    for candidate in range(batch.candidates):
        feed = int(batch.feed_of_candidate_N[candidate])
        q = target_ND[candidate]
        u = torch.cat([values[feed] for values in vectors.feed.values()]) @ interest.user_FD if user else None
        watched = real_entries(watched_RLD, channels.is_real_RL, feed)
        clicked = real_entries(clicked_RLD, products.is_real_RL, feed)
        lately = [
            item_level(interest.of_channels, watched, watched, q, u),
            item_level(interest.of_products, clicked, [entry @ transfer_DD for entry in clicked], q, u),
        ]
        interests = [*([] if u is None else [u]), *lately]
        for member, (name, vector) in enumerate(zip(found.candidate, interests, strict=True)):
            units = slice(6 * member, 6 * member + 6)
            hidden = torch.cat([q, *lately]) @ first.candidate[:, units] + first.bias[units]
            hidden = hidden if u is None else hidden + u @ first.feed[:, units]
            weight = (hidden.relu() @ score.weight_BIH[member, :, 0] + score.bias_B1H[member, 0, 0]).exp()
            assert_close(found.candidate[name][candidate], weight * vector, msg=lambda text, name=name: f"{name}: {text}")


def test_item_level_by_hand():
    """One number wide, score = relu(k M q): q = 1 and entries ln 3 and 0 weigh 3 : 1 with M = 1, 9 : 1 with M = 2."""
    entries_RLD = torch.tensor([[[math.log(3)], [0.0], [50.0]]])
    is_real_RL = torch.tensor([[True, True, False]])
    places = grid(torch.tensor([0]), 1)
    for rank, expected in ((None, 3 / 4), (2, 9 / 10)):
        attention = ItemAttention(1, 1, user=True, rank=rank)
        for name, parameter in attention.named_parameters():
            torch.nn.init.constant_(parameter, 0.0 if name in ("entry_DA", "target_DA", "user_DA") else 1.0)
        found_ND = attention(entries_RLD, is_real_RL, torch.tensor([[1.0]]), torch.tensor([[7.0]]), places)
        assert_close(found_ND, torch.tensor([[expected * math.log(3)]]))
        no_entry_ND = attention(entries_RLD[:, :0], is_real_RL[:, :0], torch.tensor([[1.0]]), torch.tensor([[7.0]]), places)
        assert no_entry_ND.tolist() == [[0.0]]


def test_interests_start_with_the_user_weighed_e_times_as_much():
    """Published initial biases 1, 0, 0; weights are exponentials that need not sum to 1."""
    _, batch, _ = embedded_as(tiny_schema(), feeds=3)
    attention = InterestAttention(4, 8, user=True).double()
    torch.nn.init.zeros_(attention.score.weight_BIH)
    some_ND, user_RD = torch.randn(batch.candidates, 4).double(), torch.randn(3, 4).double()
    weight_BN1 = attention(some_ND, user_RD, (some_ND, some_ND), batch)
    expected = torch.tensor([math.e, 1.0, 1.0]).double()[:, None, None].expand(3, batch.candidates, 1)
    assert_close(weight_BN1, expected, rtol=1e-6, atol=0)


def test_values_without_sense_are_refused():
    for name in ("width", "item_hidden", "interest_hidden", "rank"):
        with pytest.raises(ValueError, match=f"minet needs {name} >= 1, got 0"):
            MinetConfig(**{name: 0})


def test_domains_are_found_by_their_events():
    assert domains(tiny_schema(), "minet") == ("channels", "products")
    assert domains(with_histories(("clicked", "products"), ("watched", "channels")), "minet") == ("watched", "clicked")


@pytest.mark.parametrize(
    ("histories", "found"),
    [
        ([("channels", "channels")], "engagements: channels; product_clicks: none"),
        (
            [("channels", "channels"), ("again", "channels"), ("products", "products")],
            "engagements: channels, again; product_clicks: products",
        ),
    ],
    ids=["one domain", "two of one"],
)
def test_a_schema_of_other_domains_is_refused(histories, found):
    schema = with_histories(*histories)
    embedding, _, _ = embedded_as(schema, feeds=2)
    with pytest.raises(ConfigError, match=f"`minet` is defined between two domains.* The schema has {found}.*such as `eta`"):
        Minet(MinetConfig(), schema, embedding.inputs)


def test_histories_are_chosen_by_name_or_events_in_the_schemas_order():
    schema = with_histories(("early", "channels"), ("products", "products"), ("late", "channels"))
    assert chosen(schema, None) == ("early", "products", "late")
    assert chosen(schema, ("late", "products")) == ("products", "late")
    assert chosen(schema, ("engagements",)) == ("early", "late")
    with pytest.raises(ConfigError, match=r"`gifts`, .* Histories: early \(engagements\), products \(product_clicks\), late"):
        chosen(schema, ("early", "gifts"))
