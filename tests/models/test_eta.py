from fractions import Fraction

import pytest
import torch
from torch.testing import assert_close

from models.fusions.single import SingleConfig
from models.interests.eta import Eta, EtaConfig, Retrieval
from models.layers.embedding import Embedding
from models.layers.grid import grid
from models.layers.numbers import RawConfig
from models.ranker import Ranker
from models.system import SystemConfig
from tests.models.helpers import flat, take, with_pads
from tests.samples import TABLE_SIZES, full_schema, random_batch, tiny_schema

SMALL = EtaConfig(width=6, heads=2, bits=32, keep=3)
FEEDS = {"short feeds": 3, "long feeds": 20}


def built(config: EtaConfig, **kwargs):
    """The interest, a batch and its vectors, in float64."""
    schema = tiny_schema()
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, seed=0, **kwargs)
    interest = Eta(config, schema, embedding.inputs).double()
    for parameter in interest.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return interest, batch, embedding(batch)


def retrieved(retrieval: Retrieval, entries_RLM, is_real_RL, query_NM, feed_N) -> list[list[int]]:
    """Places of the entries that each candidate keeps."""
    places = grid(feed_N, len(entries_RLM))
    kept_NL = places.pick(retrieval(entries_RLM, is_real_RL, query_NM, places))
    return [torch.nonzero(kept_L).flatten().tolist() for kept_L in kept_NL]


def test_the_nearest_hashes_are_kept_and_of_equal_ones_the_more_recent():
    """Planes along the axes, so a hash is the signs of a vector; candidate (1, 1, 1)."""
    retrieval = Retrieval(3, bits=3, keep=2)
    retrieval.planes_MB = torch.eye(3)
    entries = [[5.0, -1, -1], [9, 9, -9], [1, 2, 3], [-3, 1, 2], [1, 1, 1]]  # distances 2, 1, 0, 1, 0
    entries_RLM, query_NM = torch.tensor([entries]), torch.ones(1, 3)
    keeps = {(1, 1, 1, 1, 1): [2, 4], (1, 1, 1, 1, 0): [2, 3], (1, 1, 0, 0, 0): [0, 1], (1, 0, 0, 0, 0): [0]}
    for is_real, expected in {**keeps, (0, 0, 0, 0, 0): []}.items():
        found = retrieved(retrieval, entries_RLM, torch.tensor([is_real]).bool(), query_NM, torch.tensor([0]))
        assert found == [expected]
    retrieval.keep = 5
    assert retrieval(entries_RLM, torch.ones(1, 5).bool(), query_NM, grid(torch.tensor([0]), 1)) is None


def test_a_vector_without_a_side_is_hashed_as_one_on_the_far_side():
    retrieval = Retrieval(3, bits=8, keep=2)
    assert retrieval.hashes(torch.zeros(2, 3)).tolist() == [[-1.0] * 8] * 2


def test_all_processes_draw_the_same_planes_and_nothing_else():
    torch.manual_seed(1)
    first, after_first = Retrieval(4, 8, 2).planes_MB, torch.rand(1)
    torch.manual_seed(1)
    after_nothing = torch.rand(1)
    assert torch.equal(first, Retrieval(4, 8, 2).planes_MB)
    assert torch.equal(after_first, after_nothing)
    assert abs(first.mean()) < 0.6 and 0.5 < first.std() < 1.5
    interest, _, _ = built(SMALL, feeds=2)
    assert [name for name in interest.state_dict() if "planes" in name] == [
        "retrieval.of_channels.planes_MB",
        "retrieval.of_products.planes_MB",
    ]


@pytest.mark.parametrize("most_candidates", FEEDS.values(), ids=FEEDS)
def test_retrieval_is_a_sort_by_hamming_distance(most_candidates):
    _, batch, vectors = built(SMALL, feeds=8, most_candidates=most_candidates)
    retrieval = Retrieval(12, bits=8, keep=3)  # few bits: many ties
    history = vectors.histories["channels"]
    entries_RLM, query_NM = history.entries_RLE[:, :, :12], torch.randn(batch.candidates, 12, dtype=torch.float64)
    found = retrieved(retrieval, entries_RLM, history.is_real_RL, query_NM, batch.feed_of_candidate_N)
    planes_MB = retrieval.planes_MB.double()
    for candidate, feed in enumerate(batch.feed_of_candidate_N.tolist()):
        mine = query_NM[candidate] @ planes_MB > 0
        by_distance = []
        for place in range(int(history.is_real_RL[feed].sum())):
            distance = int(((entries_RLM[feed, place] @ planes_MB > 0) != mine).sum())
            by_distance.append((distance, -place))
        assert found[candidate] == sorted(-place for _, place in sorted(by_distance)[:3])


def test_many_bits_find_the_entries_at_the_smallest_angles():
    """The share p of bits that differ, the angle over pi, has the deviation sqrt(p (1 - p) / B), at most 1/128 for 4096
    bits. Where the angles of the last kept and the first dropped entry are 6 of these apart, there is no doubt."""
    bits, keep, candidates, length = 4096, 4, 240, 20
    retrieval = Retrieval(6, bits, keep)
    torch.manual_seed(0)
    entries_RLM, query_NM = torch.randn(6, length, 6), torch.randn(candidates, 6)
    feed_N = torch.arange(6).repeat_interleave(40)
    found = retrieved(retrieval, entries_RLM, torch.ones(6, length).bool(), query_NM, feed_N)
    certain, margin = 0, 6 / 128
    for candidate, feed in enumerate(feed_N.tolist()):
        cosines_L = torch.cosine_similarity(query_NM[candidate].unsqueeze(0), entries_RLM[feed], dim=1)
        share_L, order_L = torch.sort(torch.arccos(cosines_L) / torch.pi)
        if share_L[keep] - share_L[keep - 1] > margin:
            certain += 1
            assert found[candidate] == sorted(order_L[:keep].tolist())
        surely = [int(place) for share, place in zip(share_L, order_L, strict=True) if share < share_L[keep] - margin]
        assert set(surely) <= set(found[candidate])
    assert certain >= 15


@pytest.mark.parametrize("most_candidates", FEEDS.values(), ids=FEEDS)
def test_eta_attends_to_the_retrieved_entries_alone(most_candidates):
    """Against attention over a history of nothing else, candidate by candidate."""
    interest, batch, vectors = built(SMALL, feeds=8, most_candidates=most_candidates)
    found = interest(vectors, batch)
    assert found.feed == {}
    assert {name: values.shape[1] for name, values in found.candidate.items()} == interest.widths.candidate
    shortened = 0
    for name, matched in (("channels", ("room", "streamer", "category")), ("products", ("product",))):
        history, domain = vectors.histories[name], interest.domains[name]
        query_NM = torch.cat([vectors.candidate[field] for field in matched], dim=1)
        entries_RLM = history.entries_RLE[:, :, : query_NM.shape[1]]
        kept = retrieved(interest.retrieval[name], entries_RLM, history.is_real_RL, query_NM, batch.feed_of_candidate_N)
        for candidate, feed in enumerate(batch.feed_of_candidate_N.tolist()):
            length = int(history.is_real_RL[feed].sum())
            assert len(kept[candidate]) == min(length, 3)
            shortened += length > 3
            entries_1LD = domain.entries(vectors)[feed, kept[candidate]].unsqueeze(0)
            alone = grid(torch.tensor([0]), 1)
            query_1D = domain.candidates(vectors)[candidate].unsqueeze(0)
            everything = torch.ones(1, len(kept[candidate]), dtype=torch.bool)
            expected_1D = interest.attention[name](query_1D, entries_1LD, everything, alone)
            assert_close(found.candidate[f"interest.{name}"][candidate], expected_1D[0])
    assert shortened > 5


def test_keeping_the_whole_history_is_plain_target_attention():
    whole, batch, vectors = built(EtaConfig(width=6, heads=2, keep=10), feeds=8)
    plain, _, _ = built(EtaConfig(width=6, heads=2, keep=None), feeds=8)
    plain.load_state_dict({name: values for name, values in whole.state_dict().items() if "planes" not in name})
    expected = plain(vectors, batch).candidate
    for name, interest_ND in whole(vectors, batch).candidate.items():
        assert torch.equal(interest_ND, expected[name])
    some, _, _ = built(SMALL, feeds=8)
    some.load_state_dict({name: values for name, values in whole.state_dict().items() if "planes" not in name}, strict=False)
    assert not torch.allclose(some(vectors, batch).candidate["interest.channels"], expected["interest.channels"])


def small_ranker() -> Ranker:
    """Float32, a keep below the lengths of its histories."""
    torch.manual_seed(0)
    config = SystemConfig(embedding_width=8, interest=SMALL, fusion=SingleConfig(hidden=(16,)))
    ranker = Ranker(full_schema(), config, TABLE_SIZES)
    for tables in ranker.table_sets().values():
        torch.nn.init.normal_(tables.weight)
    return ranker


def test_what_is_retrieved_does_not_depend_on_the_batch_or_on_padding():
    ranker = small_ranker()
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=40, seed=1, most_candidates=9)
    outputs = ranker(batch)
    feeds = list(range(39, -1, -3))
    chosen_N = torch.cat([torch.nonzero(batch.feed_of_candidate_N == feed).flatten() for feed in feeds])
    for name, output in outputs.items():
        assert_close(ranker(flat(batch))[name], output, rtol=1e-4, atol=1e-5)
        assert_close(ranker(with_pads(batch, 7, row=3))[name], output, rtol=1e-4, atol=1e-5)
        assert_close(ranker(take(batch, feeds))[name], output[chosen_N], rtol=1e-4, atol=1e-5)


def test_a_hash_does_not_depend_on_what_is_hashed_beside_it():
    """Vectors in a plane up to float32's rounding: summed in float32, their side would depend on the order."""
    retrieval = Retrieval(96, bits=64, keep=3)
    torch.manual_seed(0)
    in_plane_BM, normal_BM = torch.randn(64, 96), retrieval.planes_MB.T
    in_plane_BM -= (in_plane_BM * normal_BM).sum(1, keepdim=True) / normal_BM.square().sum(1, keepdim=True) * normal_BM
    together_BB = retrieval.hashes(in_plane_BM)
    assert torch.equal(together_BB, torch.stack([retrieval.hashes(x_M) for x_M in in_plane_BM]))
    turned_BB = retrieval.hashes(in_plane_BM.flip(0).expand(3, -1, -1))
    assert torch.equal(together_BB.flip(0).expand(3, -1, -1), turned_BB)
    exact_B = [
        sum(map(Fraction, (x_M.double() * h_M.double()).tolist())) > 0 for x_M, h_M in zip(in_plane_BM, normal_BM, strict=True)
    ]
    assert (together_BB.diagonal() > 0).tolist() == exact_B


def test_distances_are_exact_under_autocast():
    """Vectors so alike that most of 1000 bits agree, at numbers of which bfloat16 holds every fourth."""
    wide = Retrieval(8, bits=1000, keep=3)
    torch.manual_seed(0)
    middle_8, is_real_RL = torch.randn(8), torch.ones(1, 20, dtype=torch.bool)
    entries_RLM, query_NM = middle_8 + 0.2 * torch.randn(1, 20, 8), middle_8 + 0.2 * torch.randn(50, 8)
    places = grid(torch.zeros(50, dtype=torch.int64), 1)
    exact = wide(entries_RLM, is_real_RL, query_NM, places)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(wide(entries_RLM, is_real_RL, query_NM, places), exact)


def test_entries_that_nobody_keeps_get_no_gradient():
    interest, batch, vectors = built(SMALL, feeds=8)
    history = vectors.histories["products"]
    history.entries_RLE.retain_grad()
    query_NM = vectors.candidate["product"]
    kept = retrieved(
        interest.retrieval["products"], history.entries_RLE, history.is_real_RL, query_NM, batch.feed_of_candidate_N
    )
    interest(vectors, batch).candidate["interest.products"].square().sum().backward()
    for feed in range(batch.feeds):
        mine = torch.nonzero(batch.feed_of_candidate_N == feed).flatten().tolist()
        wanted = {place for candidate in mine for place in kept[candidate]}
        reached = torch.nonzero(history.entries_RLE.grad[feed].any(1)).flatten().tolist()
        assert sorted(wanted) == reached


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 6, "heads": 4}, "eta needs a width that its heads divide, got width=6, heads=4"),
        ({"bits": 0}, "eta needs bits >= 1, got 0. To attend to all entries, set keep to null"),
        ({"keep": 0}, "eta needs keep >= 1, got 0. To attend to all entries, set keep to null"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError) as error:
        EtaConfig(**changes)
    assert message in str(error.value)
