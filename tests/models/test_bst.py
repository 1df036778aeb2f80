import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.interests.bst import Bst, BstConfig
from models.layers.attention import FeedForward
from models.layers.embedding import Embedding
from models.layers.numbers import RawConfig
from models.slots import Training
from tests.models.helpers import replaced, with_no_entries, without_history
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

WIDTH, HEADS = 6, 2


def built(config: BstConfig, **kwargs):
    """The interest with all weights random, in float64; a batch; its embedding."""
    schema = tiny_schema()
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, seed=0, **kwargs)
    interest = Bst(config, schema, embedding.inputs).double()
    for parameter in interest.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return interest, batch, embedding


def pytorchs(query_DD, query_bias_D, both_D2D, attention, feed_forward: FeedForward, norms) -> nn.TransformerEncoderLayer:
    """A block by PyTorch."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, dtype=torch.float64)
    weights = {
        layer.self_attn.in_proj_weight: torch.cat([query_DD, both_D2D], dim=1).T,
        layer.self_attn.in_proj_bias: torch.cat([query_bias_D, torch.zeros(2 * WIDTH)]),
        layer.self_attn.out_proj.weight: attention.out_DD.T,
        layer.self_attn.out_proj.bias: attention.out_bias_D,
        layer.linear1.weight: feed_forward.in_DI.T,
        layer.linear1.bias: feed_forward.in_bias_I,
        layer.linear2.weight: feed_forward.out_ID.T,
        layer.linear2.bias: feed_forward.out_bias_D,
        layer.norm1.weight: norms[0].weight,
        layer.norm1.bias: norms[0].bias,
        layer.norm2.weight: norms[1].weight,
        layer.norm2.bias: norms[1].bias,
    }
    with torch.no_grad():
        for theirs, ours in weights.items():
            theirs.copy_(ours)
    return layer


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_bst_is_a_transformer_whose_entries_do_not_see_the_candidate(blocks, most_candidates):
    """Against PyTorch's Transformer on the entries, then on the encoded entries with the candidate behind them."""
    config = BstConfig(width=WIDTH, heads=HEADS, blocks=blocks)
    interest, batch, embedding = built(config, feeds=6, most_candidates=most_candidates)
    embedded = embedding(batch)
    found = interest(embedded, batch)
    assert {name: values.shape[1] for name, values in found.feed.items()} == interest.widths.feed
    assert {name: values.shape[1] for name, values in found.candidate.items()} == interest.widths.candidate
    for name, history in embedded.histories.items():
        domain, encoder, top = interest.domains[name], interest.encoders[name], interest.blocks[name]
        layers = []
        for block in encoder.blocks:
            query_DD, both_D2D = block.attention.all_D3D[:, :WIDTH], block.attention.all_D3D[:, WIDTH:]
            layers.append(pytorchs(query_DD, torch.zeros(WIDTH), both_D2D, block.attention, block.feed_forward, block.norms))
        of_top = (top.attention.query_DD, top.attention.query_bias_D, top.attention.both_D2D)
        top_layer = pytorchs(*of_top, top.attention, top.feed_forward, top.norms)
        for candidate, feed in enumerate(batch.feed_of_candidate_N.tolist()):
            length = int(history.is_real_RL[feed].sum())
            tokens_1LD = domain.entries(embedded)[feed, :length].unsqueeze(0)
            mean_D = torch.zeros(WIDTH, dtype=torch.float64)
            if length:
                tokens_1LD = tokens_1LD + encoder.places.weight[:length].flip(0)
                for layer in layers:
                    tokens_1LD = layer(tokens_1LD)
                mean_D = tokens_1LD.mean((0, 1))
            assert_close(found.feed[f"encoded.{name}"][feed], mean_D)
            with_candidate_1LD = torch.cat([tokens_1LD, domain.candidates(embedded)[candidate].view(1, 1, -1)], dim=1)
            assert_close(found.candidate[f"interest.{name}"][candidate], top_layer(with_candidate_1LD)[0, -1])


def test_the_order_of_entries_counts_by_their_places_alone():
    interest, batch, embedding = built(BstConfig(width=WIDTH, heads=HEADS), feeds=6)
    channels = batch.histories["channels"]
    feed = int(channels.is_real_RL.sum(1).argmax())
    length = int(channels.is_real_RL[feed].sum())
    turned = replaced(batch, histories={**batch.histories, "channels": copy.deepcopy(channels)})
    for rows_RL in turned.histories["channels"].rows.values():
        rows_RL[feed, :length] = rows_RL[feed, :length].flip(0)

    def difference_N():
        there, here = (interest(embedding(each), each).candidate["interest.channels"] for each in (batch, turned))
        return (there - here).abs().amax(1)

    assert torch.equal(difference_N() > 1e-6, batch.feed_of_candidate_N == feed)
    torch.nn.init.zeros_(interest.encoders["channels"].places.weight)
    assert difference_N().max() < 1e-12


def test_without_entries_the_candidate_has_itself():
    interest, batch, embedding = built(BstConfig(width=WIDTH, heads=HEADS), feeds=4)
    top = interest.blocks["channels"]
    for changed in (without_history(batch), with_no_entries(batch)):
        embedded = embedding(changed)
        found = interest(embedded, changed)
        assert not found.feed["encoded.channels"].any()
        candidates_ND = interest.domains["channels"].candidates(embedded)
        value_ND = candidates_ND @ top.attention.both_D2D[:, WIDTH:]
        first_ND = top.norms[0](candidates_ND + value_ND @ top.attention.out_DD + top.attention.out_bias_D)
        assert_close(found.candidate["interest.channels"], top.norms[1](first_ND + top.feed_forward(first_ND)))


@pytest.mark.parametrize("acts", ["encoders", "attention", "feed_forward"])
def test_dropout_acts_after_every_layer_in_training_only(acts):
    """With the outputs of all other layers at 0, which dropout leaves as they are."""
    interests = [built(BstConfig(width=WIDTH, heads=HEADS, dropout=dropout), feeds=6) for dropout in (0.5, 0.0)]
    for interest, _, _ in interests:
        interest.encoders.train(acts == "encoders")
        for block in interest.blocks.values():
            for layer in ("attention", "feed_forward"):
                if acts in ("attention", "feed_forward") and acts != layer:
                    for parameter in getattr(block, layer).parameters():
                        torch.nn.init.zeros_(parameter)
            block.train(acts != "encoders")
    (dropping, batch, embedding), (plain, _, _) = interests
    training = Training(progress=0.5, batch=batch, beliefs={})
    expected = plain(embedding(batch), batch, training).candidate
    for name, interest_ND in dropping(embedding(batch), batch, training).candidate.items():
        assert not torch.equal(interest_ND, expected[name])
    for name, interest_ND in dropping.eval()(embedding(batch), batch, training).candidate.items():
        assert torch.equal(interest_ND, expected[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 6, "heads": 4}, "bst needs a width that its heads divide, got width=6, heads=4"),
        ({"blocks": 0}, "bst needs blocks >= 1, got 0. For attention of the candidate alone, take interest `eta`"),
        ({"dropout": 1.0}, "bst needs 0 <= dropout < 1, got 1.0"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError) as error:
        BstConfig(**changes)
    assert message in str(error.value)
