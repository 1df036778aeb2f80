"""Attention, domains and masked pooling against numbers one can check, loops, and PyTorch's own Transformer."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models.layers.attention import Block, Encoder, FeedForward, SelfAttention, TargetAttention, check_heads
from models.layers.domain import Domain
from models.layers.embedding import Embedding
from models.layers.grid import grid
from models.layers.masked import masked_max, masked_softmax
from models.layers.numbers import RawConfig
from models.schema import Schema
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

WIDTH, HEADS = 6, 2
LENGTHS = (3, 0, 5, 1)  # real entries of each feed
IS_REAL_RL = torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)
FEEDS = {"similar feeds": (2, 3, 2, 3), "one long feed": (1, 1, 9, 1)}  # candidates of each feed


def shaken(module: nn.Module) -> nn.Module:
    """All parameters random, biases and norms too."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


def attended(query_D: Tensor, entries: Tensor, both_D2D: Tensor) -> Tensor:
    """Softmax attention of one query over entries, head by head."""
    size, found = WIDTH // HEADS, []
    for head in range(HEADS):
        of_head = slice(head * size, head * size + size)
        key, value = both_D2D[:, :WIDTH][:, of_head], both_D2D[:, WIDTH:][:, of_head]
        scores = [(query_D[of_head] @ (entry @ key) / size**0.5).exp() for entry in entries]
        found_K = torch.zeros(size, dtype=torch.float64)
        for score, entry in zip(scores, entries, strict=True):
            found_K = found_K + score / sum(scores) * (entry @ value)
        found.append(found_K)
    return torch.cat(found)


def test_self_attention_is_a_softmax_over_the_real_entries():
    layer = shaken(SelfAttention(WIDTH, HEADS))
    values_RLD = torch.randn(4, 5, WIDTH, dtype=torch.float64)
    outputs_RLD = layer(values_RLD, IS_REAL_RL)
    for feed, length in enumerate(LENGTHS):
        entries = values_RLD[feed, :length]
        for place in range(length):
            query_D = entries[place] @ layer.all_D3D[:, :WIDTH]
            found_D = attended(query_D, entries, layer.all_D3D[:, WIDTH:]) @ layer.out_DD + layer.out_bias_D
            assert_close(outputs_RLD[feed, place], found_D)


@pytest.mark.parametrize("kept", [False, True], ids=["all", "kept"])
@pytest.mark.parametrize("itself", [False, True], ids=["entries", "and itself"])
@pytest.mark.parametrize("candidates", FEEDS.values(), ids=FEEDS)
def test_a_candidate_attends_to_real_entries_of_its_own_feed(candidates, itself, kept):
    layer = shaken(TargetAttention(WIDTH, HEADS, itself))
    feed_N = torch.repeat_interleave(torch.arange(4), torch.tensor(candidates))
    values_RLD = torch.randn(4, 5, WIDTH, dtype=torch.float64)
    query_ND = torch.randn(len(feed_N), WIDTH, dtype=torch.float64)
    places = grid(feed_N, 4)
    kept_NL = torch.rand(len(feed_N), 5) < 0.6 if kept else torch.ones(len(feed_N), 5, dtype=torch.bool)
    kept_GSL = places.lay(kept_NL.double()) > 0 if kept else None
    outputs_ND = layer(query_ND, values_RLD, IS_REAL_RL, places, kept_GSL)
    for candidate, feed in enumerate(feed_N.tolist()):
        entries = values_RLD[feed][IS_REAL_RL[feed] & kept_NL[candidate]]
        if itself:
            entries = torch.cat([entries, query_ND[candidate : candidate + 1]])
        query_D = query_ND[candidate] @ layer.query_DD + layer.query_bias_D
        expected_D = attended(query_D, entries, layer.both_D2D) @ layer.out_DD + layer.out_bias_D
        assert_close(outputs_ND[candidate], expected_D)


def test_without_entries_attention_gives_its_bias_or_the_candidate_itself():
    feed_N = torch.tensor([0, 0, 1])
    places, query_ND = grid(feed_N, 2), torch.randn(3, WIDTH, dtype=torch.float64)
    for length in (0, 4):
        values_RLD, nothing_RL = torch.randn(2, length, WIDTH).double(), torch.zeros(2, length, dtype=torch.bool)
        layer = shaken(TargetAttention(WIDTH, HEADS))
        assert_close(layer(query_ND, values_RLD, nothing_RL, places), layer.out_bias_D.expand(3, -1))
        layer = shaken(TargetAttention(WIDTH, HEADS, itself=True))
        of_itself_ND = query_ND @ layer.both_D2D[:, WIDTH:] @ layer.out_DD + layer.out_bias_D
        assert_close(layer(query_ND, values_RLD, nothing_RL, places), of_itself_ND)
        encoded_RLD = shaken(Encoder(WIDTH, HEADS, blocks=2, longest=3, dropout=0.0))(values_RLD, nothing_RL)
        assert_close(encoded_RLD, torch.zeros(2, length, WIDTH, dtype=torch.float64))


def test_feed_forward_by_hand():
    layer = FeedForward(1, 2)
    with torch.no_grad():
        layer.in_DI.copy_(torch.tensor([[1.0, -1.0]]))
        layer.in_bias_I.copy_(torch.tensor([0.0, 1.0]))
        layer.out_ID.copy_(torch.tensor([[2.0], [10.0]]))
        layer.out_bias_D.fill_(0.5)
    assert layer(torch.tensor([[3.0], [-2.0]])).tolist() == [[6.5], [30.5]]  # 2 relu(x) + 10 relu(1 - x) + 0.5


def pytorchs(block: Block) -> nn.TransformerEncoderLayer:
    """The same function by PyTorch: norms after the residuals, ReLU, no bias on keys, none on queries and values here."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, dtype=torch.float64)
    attention, feed_forward = block.attention, block.feed_forward
    weights = {
        layer.self_attn.in_proj_weight: attention.all_D3D.T,
        layer.self_attn.in_proj_bias: torch.zeros(3 * WIDTH),
        layer.self_attn.out_proj.weight: attention.out_DD.T,
        layer.self_attn.out_proj.bias: attention.out_bias_D,
        layer.linear1.weight: feed_forward.in_DI.T,
        layer.linear1.bias: feed_forward.in_bias_I,
        layer.linear2.weight: feed_forward.out_ID.T,
        layer.linear2.bias: feed_forward.out_bias_D,
        layer.norm1.weight: block.norms[0].weight,
        layer.norm1.bias: block.norms[0].bias,
        layer.norm2.weight: block.norms[1].weight,
        layer.norm2.bias: block.norms[1].bias,
    }
    with torch.no_grad():
        for theirs, ours in weights.items():
            theirs.copy_(ours)
    return layer


def test_the_encoder_is_a_transformer_with_places_from_the_newest_entry_back():
    longest = 4  # the feed of 5 entries has one that is older
    encoder = shaken(Encoder(WIDTH, HEADS, blocks=2, longest=longest, dropout=0.0))
    values_RLD = torch.randn(4, 5, WIDTH, dtype=torch.float64)
    encoded_RLD = encoder(values_RLD, IS_REAL_RL)
    for feed, length in enumerate(LENGTHS):
        assert not encoded_RLD[feed, length:].any()
        if length:
            ago = [min(length - 1 - place, longest - 1) for place in range(length)]
            tokens_1LD = (values_RLD[feed, :length] + encoder.places.weight[ago]).unsqueeze(0)
            for block in encoder.blocks:
                tokens_1LD = pytorchs(block)(tokens_1LD)
            assert_close(encoded_RLD[feed, :length], tokens_1LD[0])


def test_an_encoder_without_blocks_gives_the_entries():
    values_RLD = torch.randn(4, 5, WIDTH)
    encoder = Encoder(WIDTH, HEADS, blocks=0, longest=5, dropout=0.0)
    assert list(encoder.parameters()) == []
    assert torch.equal(encoder(values_RLD, IS_REAL_RL), values_RLD * IS_REAL_RL.unsqueeze(2))


def test_the_encoder_drops_in_training_only():
    encoder = Encoder(WIDTH, HEADS, blocks=1, longest=5, dropout=0.5)
    plain = Encoder(WIDTH, HEADS, blocks=1, longest=5, dropout=0.0)
    plain.load_state_dict(encoder.state_dict())
    values_RLD, rows_RL = torch.randn(4, 5, WIDTH), torch.arange(20).view(4, 5)
    expected_RLD = plain(values_RLD, IS_REAL_RL)
    assert not torch.equal(encoder(values_RLD, IS_REAL_RL, rows_RL), expected_RLD)
    assert torch.equal(encoder(values_RLD, IS_REAL_RL), expected_RLD)
    assert torch.equal(encoder.eval()(values_RLD, IS_REAL_RL, rows_RL), expected_RLD)


@pytest.mark.parametrize(("width", "heads"), [(6, 4), (0, 1), (6, 0)])
def test_heads_must_divide_the_width(width, heads):
    with pytest.raises(ValueError, match=rf"^bst needs a width that its heads divide, got width={width}, heads={heads}\.$"):
        check_heads("bst", width, heads)


def schema_of(widths: dict[str, int], entry_only: bool = True, candidate_only: bool = True) -> Schema:
    """`tiny_schema` with declared table widths, and with or without attributes that one side alone has."""
    spelling = tiny_schema().to_dict()
    channels = next(history for history in spelling["histories"] if history["name"] == "channels")
    if not entry_only:
        channels["fields"] = [item for item in channels["fields"] if item["name"] != "stay"]
    if not candidate_only:
        spelling["fields"] = [item for item in spelling["fields"] if item["name"] not in ("product", "rate_bin")]
        spelling["histories"] = [channels]
    for item in [*spelling["fields"], *(item for history in spelling["histories"] for item in history["fields"])]:
        if item["name"] in widths:
            item["width"] = widths[item["name"]]
    return Schema.from_dict(spelling)


@pytest.mark.parametrize("entry_only", [False, True])
@pytest.mark.parametrize("candidate_only", [False, True])
def test_a_domain_projects_what_entry_and_candidate_share_by_the_same_weights(entry_only, candidate_only):
    schema = schema_of({"category": 2, "stay": 3}, entry_only, candidate_only)
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig())
    for tables in embedding.sets.values():
        nn.init.normal_(tables.weight)
    batch = random_batch(schema, TABLE_SIZES, feeds=4, seed=0)
    embedded = embedding(batch)
    domain = Domain(schema, "channels", embedding.inputs, WIDTH)
    nn.init.normal_(domain.entry_bias_D)
    nn.init.normal_(domain.candidate_bias_D)
    assert (domain.entry_ED is not None, domain.candidate_CD is not None) == (entry_only, candidate_only)

    shared = domain.matched_MD.split([4, 4, 2])  # room, streamer, category
    rows_of = {table: tables.table(table) for tables in embedding.sets.values() for table in tables.sizes}
    channels = batch.histories["channels"]
    entries_RLD, candidates_ND = domain.entries(embedded), domain.candidates(embedded)
    for feed in range(batch.feeds):
        for place in range(int(channels.is_real_RL[feed].sum())):
            expected_D = domain.entry_bias_D
            for name, weight in zip(("room", "streamer", "category"), shared, strict=True):
                expected_D = expected_D + rows_of[name][channels.rows[name][feed, place]] @ weight
            if entry_only:
                expected_D = expected_D + rows_of["stay_bin"][channels.rows["stay"][feed, place]] @ domain.entry_ED
            assert_close(entries_RLD[feed, place], expected_D)
    for candidate in range(batch.candidates):
        expected_D = domain.candidate_bias_D
        for name, weight in zip(("room", "streamer", "category"), shared, strict=True):
            expected_D = expected_D + rows_of[name][batch.candidate[name][candidate]] @ weight
        if candidate_only:
            for name, weight in zip(("product", "rate_bin"), domain.candidate_CD.split([4, 4]), strict=True):
                expected_D = expected_D + rows_of[name][batch.candidate[name][candidate]] @ weight
        assert_close(candidates_ND[candidate], expected_D)


def test_softmax_is_over_what_is_real():
    scores = torch.log(torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0], [100.0, 100.0, 100.0]]))
    is_real = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert_close(masked_softmax(scores, is_real), torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert masked_softmax(scores[:, :0], is_real[:, :0]).shape == (3, 0)


def test_softmax_of_no_entry_has_gradients_of_zero():
    scores = torch.randn(2, 3, requires_grad=True)
    masked_softmax(scores, torch.zeros(2, 3, dtype=torch.bool)).square().sum().backward()
    assert scores.grad.tolist() == [[0.0] * 3] * 2


def test_the_maximum_is_over_real_entries():
    values_RLD = torch.tensor([[[1.0, -4.0], [-3.0, -2.0], [9.0, 9.0]], [[9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]])
    is_real_RL = torch.tensor([[True, True, False], [False, False, False]])
    values_RLD.requires_grad_()
    largest_RD = masked_max(values_RLD, is_real_RL)
    assert largest_RD.tolist() == [[1.0, -2.0], [0.0, 0.0]]
    largest_RD.sum().backward()
    assert values_RLD.grad.tolist() == [[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0]] * 3]
    assert masked_max(values_RLD[:, :0], is_real_RL[:, :0]).tolist() == [[0.0, 0.0], [0.0, 0.0]]
