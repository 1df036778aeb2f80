import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.interests.din import Din, DinConfig
from models.interests.pooling import Pooling, PoolingConfig
from models.layers.embedding import Embedding
from models.layers.histories import matches
from models.layers.numbers import RawConfig
from tests.models.helpers import replaced
from tests.samples import TABLE_SIZES, random_batch, tiny_schema


def embedded(seed: int = 0, **kwargs):
    schema = tiny_schema()
    torch.manual_seed(seed)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig())
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, seed=seed, **kwargs)
    return schema, embedding, batch, embedding(batch)


def test_pooling_is_the_mean_of_real_entries_per_feed():
    schema, embedding, batch, vectors = embedded(feeds=6)
    interests = Pooling(PoolingConfig(), schema, embedding.inputs)(vectors, batch)
    assert interests.candidate == {}
    for name, history in batch.histories.items():
        for feed in range(batch.feeds):
            length = int(history.is_real_RL[feed].sum())
            entries = vectors.histories[name].entries_RLE[feed, :length]
            expected = entries.mean(0) if length else torch.zeros(entries.shape[1])
            assert_close(interests.feed[f"interest.{name}"][feed], expected)


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("kind", ["dice", "prelu", "relu", "sigmoid"])
def test_din_is_an_mlp_over_query_key_difference_and_product(kind, softmax, most_candidates):
    """Against the published form, pair by pair, with one weight for each of [q, k, q - k, q * k]."""
    schema, embedding, batch, vectors = embedded(feeds=6, most_candidates=most_candidates)
    config = DinConfig(hidden=(6, 5), activation=kind, softmax=softmax)
    interest = Din(config, schema, embedding.inputs)
    for parameter in interest.parameters():
        torch.nn.init.normal_(parameter)
    found = interest(vectors, batch)
    assert found.feed == {}
    for name, history in vectors.histories.items():
        attention, matched = interest.attention[name].scores, [field.name for _, field in schema.matches(name)]
        width = 4 * len(matched)
        difference = torch.randn(width, 6)  # any split of a sum in two gives the same function
        of_query, of_key = attention.query_MA - difference, attention.entry_EA.clone()
        of_key[:width] += difference
        for candidate in range(batch.candidates):
            feed = int(batch.feed_of_candidate_N[candidate])
            q = torch.cat([vectors.candidate[field][candidate] for field in matched])
            entries = history.entries_RLE[feed, : int(history.is_real_RL[feed].sum())]
            scores = []
            for entry in entries:
                k = entry[:width]
                hidden = q @ of_query + entry @ of_key + (q - k) @ difference + (q * k) @ attention.pair_MA
                hidden = attention.first_activation(hidden + attention.bias_A)
                scores.append(attention.rest(hidden))
            weight = torch.stack(scores) if scores else torch.zeros(0, 1)
            weight = weight.softmax(0) if softmax else weight
            expected = (weight * entries).sum(0)
            assert_close(found.candidate[f"interest.{name}"][candidate], expected, rtol=1e-4, atol=1e-4)
            assert_close(found.candidate[f"product.{name}"][candidate], expected[:width] * q, rtol=1e-4, atol=1e-4)
    without = Din(DinConfig(products=False), schema, embedding.inputs)
    names = ["interest.channels", "interest.products"]
    assert list(without(vectors, batch).candidate) == list(without.widths.candidate) == names


def test_matches_count_entries_with_the_candidates_rows():
    schema, embedding, batch, _ = embedded(feeds=3, most_candidates=1)
    rows = torch.tensor([[5, 5, 6, 5], [0, 6, 0, 0], [0, 0, 0, 0]])
    real = torch.tensor([[True, True, True, False], [True, True, False, False], [False] * 4])
    products = batch.histories["products"]
    batch = replaced(
        batch,
        candidate={**batch.candidate, "product": torch.tensor([5, 0, 0])},
        histories={**batch.histories, "products": type(products)(rows={"product": rows}, is_real_RL=real)},
    )
    # two of three entries; row 0, unknown, matches nothing; no entry
    expected = torch.tensor([[2 / 3, torch.log(torch.tensor(3.0))], [0, 0], [0, 0]])
    assert_close(matches(batch, schema, "products", torch.float32), expected)
    interest = Pooling(PoolingConfig(matches=True), schema, embedding.inputs)
    found = interest(embedding(batch), batch)
    assert_close(found.candidate["matches.products"], expected)
    assert interest.widths.candidate == {"matches.channels": 6, "matches.products": 2}


def test_an_interest_reads_the_named_histories_only():
    schema, embedding, batch, vectors = embedded(feeds=3)
    interest = Din(DinConfig(histories=("products",)), schema, embedding.inputs)
    assert list(interest(vectors, batch).candidate) == ["interest.products", "product.products"]
    by_events = Pooling(PoolingConfig(histories=("engagements",)), schema, embedding.inputs)
    assert list(by_events(vectors, batch).feed) == ["interest.channels"]
    known = (
        r"history `chanels`, which the schema does not have\. Histories: channels \(engagements\), products \(product_clicks\)"
    )
    with pytest.raises(ConfigError, match=known):
        Pooling(PoolingConfig(histories=("chanels",)), schema, embedding.inputs)
