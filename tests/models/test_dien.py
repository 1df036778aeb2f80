"""DIEN against numbers one can check, against the paper's equations candidate by candidate, and against a peer."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.interests.dien import Augru, Dien, DienConfig, negatives
from models.layers.embedding import Embedding
from models.layers.grid import grid
from models.layers.numbers import RawConfig
from models.slots import Training
from tests.models.helpers import replaced, take
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

WIDTH = 3


def some(config: DienConfig, *, feeds: int = 6, most_candidates: int = 3, seed: int = 0):
    """A DIEN with parameters far from their start, a batch and its vectors, in float64."""
    schema = tiny_schema()
    torch.manual_seed(seed)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, feeds=feeds, seed=seed, most_candidates=most_candidates)
    interest = Dien(config, schema, embedding.inputs).double()
    for parameter in interest.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return schema, interest, batch, embedding(batch)


def training(batch, progress: float = 0.0) -> Training:
    return Training(progress=progress, batch=batch, beliefs={})


def test_augru_by_hand():
    """Width 1: the reset gate is always 1/4 and the update gate 3/4; the new state is what tanh is made to give."""
    augru = Augru(1, 1).double()
    with torch.no_grad():
        augru.input_IT.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
        augru.state_DT.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
        augru.bias_T.copy_(torch.tensor([math.log(1 / 3), math.log(3), 0.0]))
    # s = 1/2 * 3/4 * .8 = .3, then .3 + 3/4 (.6 - .3) = .525, then nothing for a weight of 0
    first, second = math.atanh(0.8), math.atanh(0.6) - 0.3 / 4
    inputs_RLI = torch.tensor([[[first], [second], [9.0]]], dtype=torch.float64)
    weight_GSL = torch.tensor([[[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    state_GSD = augru(inputs_RLI, weight_GSL, grid(torch.tensor([0, 0]), 1))
    assert state_GSD.flatten().tolist() == [pytest.approx(0.525), 0.0]


def states_of(gru: torch.nn.GRU, entries: list[torch.Tensor]) -> list[torch.Tensor]:
    """The paper's GRU, with torch's names for the gates: its z keeps the old state, the paper's u is 1 - z."""
    state, states = torch.zeros(WIDTH, dtype=torch.float64), []
    for entry in entries:
        of_entry = (gru.weight_ih_l0 @ entry + gru.bias_ih_l0).split(WIDTH)
        of_state = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).split(WIDTH)
        reset, keep = torch.sigmoid(of_entry[0] + of_state[0]), torch.sigmoid(of_entry[1] + of_state[1])
        new = torch.tanh(of_entry[2] + reset * of_state[2])
        state = (1 - keep) * new + keep * state
        states.append(state)
    return states


def evolved(augru: Augru, states: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """The paper's AUGRU, gate by gate."""
    of_input, of_state, bias = (part.detach() for part in (augru.input_IT, augru.state_DT, augru.bias_T))
    r, u, n = slice(0, WIDTH), slice(WIDTH, 2 * WIDTH), slice(2 * WIDTH, 3 * WIDTH)
    state = torch.zeros(WIDTH, dtype=torch.float64)
    for interest, weight in zip(states, weights, strict=True):
        reset = torch.sigmoid(interest @ of_input[:, r] + state @ of_state[:, r] + bias[r])
        update = weight * torch.sigmoid(interest @ of_input[:, u] + state @ of_state[:, u] + bias[u])
        new = torch.tanh(interest @ of_input[:, n] + bias[n] + reset * (state @ of_state[:, n]))
        state = (1 - update) * state + update * new
    return state


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
def test_dien_is_the_papers_candidate_by_candidate(most_candidates):
    _, interest, batch, vectors = some(DienConfig(width=WIDTH), most_candidates=most_candidates)
    found = interest(vectors, batch)
    assert found.feed == {} and found.penalties == {}
    fields = ("room", "streamer", "category", "product", "rate_bin")
    matched = {"channels": ("room", "streamer", "category"), "products": ("product",)}
    lengths = set()
    for name, history in vectors.histories.items():
        evolution = interest.evolution[name]
        for candidate in range(batch.candidates):
            feed = int(batch.feed_of_candidate_N[candidate])
            length = int(history.is_real_RL[feed].sum())
            lengths.add(length)
            states = states_of(evolution.extractor, list(history.entries_RLE[feed, :length]))
            target = torch.cat([vectors.candidate[field][candidate] for field in fields])
            scores = [state @ (target @ evolution.candidate_CD) for state in states]
            weights = torch.stack(scores).softmax(0) if scores else torch.zeros(0)
            expected = evolved(evolution.augru, states, weights)
            assert_close(found.candidate[f"interest.{name}"][candidate], expected)
            shared = torch.cat([vectors.candidate[field][candidate] for field in matched[name]])
            mean = history.entries_RLE[feed, :length, : len(shared)].sum(0) / max(length, 1)
            assert_close(found.candidate[f"product.{name}"][candidate], shared * mean)
    assert 0 in lengths and max(lengths) > 5
    widths = {"interest.channels": WIDTH, "interest.products": WIDTH}
    assert interest.widths.candidate == {**widths, "product.channels": 12, "product.products": 4}
    _, without, _, _ = some(DienConfig(width=WIDTH, products=False), most_candidates=most_candidates)
    assert list(without(vectors, batch).candidate) == list(without.widths.candidate) == list(widths)


def test_auxiliary_loss_tells_the_next_entry_from_a_candidate():
    """Step by step; steps whose drawn candidate is the next entry are left out, which this batch has."""
    config = DienConfig(width=WIDTH, auxiliary=0.5, hidden=(5, 4))
    schema, interest, batch, vectors = some(config, feeds=40, most_candidates=2)
    rows = batch.histories["products"].rows["product"]
    again_N = torch.where(
        torch.arange(batch.candidates) % 2 > 0, rows[batch.feed_of_candidate_N, 1], batch.candidate["product"]
    )
    batch = replaced(batch, candidate={**batch.candidate, "product": again_N})
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    vectors = embedding(batch)
    found = interest(vectors, batch, training(batch, progress=1.5)).penalties
    assert tuple(found) == interest.penalties == ("dien.channels", "dien.products")
    left_out = 0
    for index, (name, history) in enumerate(vectors.histories.items()):
        pairs = schema.matches(name)
        width = 4 * len(pairs)
        evolution = interest.evolution[name]
        f = evolution.next_entry
        drawn = negatives(batch, history.is_real_RL.shape[1] - 1, 1.5, salt=-1 - index)
        total, count = 0.0, 0
        for feed in range(batch.feeds):
            entries = list(history.entries_RLE[feed, : int(history.is_real_RL[feed].sum())])
            states = states_of(evolution.extractor, entries)
            for step in range(len(entries) - 1):
                other = int(drawn[feed, step])
                assert batch.feed_of_candidate_N[other] == feed
                if all(
                    batch.histories[name].rows[item.name][feed, step + 1] == batch.candidate[field.name][other]
                    for item, field in pairs
                ):
                    left_out += 1
                    continue
                negative = torch.cat([vectors.candidate[field.name][other] for _, field in pairs])
                for entry, sign in ((entries[step + 1][:width], 1), (negative, -1)):
                    first = torch.cat([states[step], entry]) @ torch.cat([f.state_DA, f.entry_MA]) + f.bias_A
                    second = f.rest[1].weight @ torch.sigmoid(first) + f.rest[1].bias
                    score = f.rest[3].weight @ torch.sigmoid(second) + f.rest[3].bias
                    total -= math.log(torch.sigmoid(sign * score).item())
                count += 1
        assert found[f"dien.{name}"][0].item() == pytest.approx(0.5 * total)
        assert found[f"dien.{name}"][1].item() == count > 20
    assert left_out > 5


def test_auxiliary_loss_of_an_undecided_score_is_two_logs_of_two():
    _, interest, batch, vectors = some(DienConfig(width=WIDTH, histories=("engagements",)), feeds=9)
    with torch.no_grad():
        for parameter in interest.evolution["channels"].next_entry.rest[-1].parameters():
            parameter.zero_()
    total, count = interest(vectors, batch, training(batch)).penalties["dien.channels"]
    steps = (batch.histories["channels"].is_real_RL.sum(1) - 1).clamp(min=0).sum()
    assert count == steps > 0  # no room here is the next entry of a history
    assert total.item() == pytest.approx(2 * math.log(2) * count.item())


@pytest.mark.parametrize("entries", [0, 1])
def test_histories_without_a_step_have_no_auxiliary_loss(entries):
    schema, interest, batch, _ = some(DienConfig(width=WIDTH))
    histories = {
        name: type(history)(
            rows={item: rows[:, :entries] for item, rows in history.rows.items()}, is_real_RL=history.is_real_RL[:, :entries]
        )
        for name, history in batch.histories.items()
    }
    batch = replaced(batch, histories=histories)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    found = interest(embedding(batch), batch, training(batch))
    for total, count in found.penalties.values():
        assert (total.item(), count.item()) == (0, 0)
    assert found.candidate["interest.products"].any() == (entries == 1)


def test_negatives_are_candidates_of_the_own_feed_drawn_evenly():
    batch = random_batch(tiny_schema(), TABLE_SIZES, feeds=200, seed=0, most_candidates=4)
    drawn = negatives(batch, 50, 0.25, salt=-1)
    assert (batch.feed_of_candidate_N[drawn] == torch.arange(200).unsqueeze(1)).all()
    count_R = torch.bincount(batch.feed_of_candidate_N)
    four = (count_R == 4).nonzero().flatten()
    assert len(four) > 30
    place = drawn[four] - torch.searchsorted(batch.feed_of_candidate_N, four).unsqueeze(1)
    shares = torch.bincount(place.flatten(), minlength=4) / place.numel()
    assert (shares - 0.25).abs().max() < 4 * (0.25 * 0.75 / place.numel()) ** 0.5
    for other in (negatives(batch, 50, 0.5, salt=-1), negatives(batch, 50, 0.25, salt=-2)):
        assert 0.6 < (other[four] != drawn[four]).double().mean() < 0.9  # another one three times in four
    # a feed draws what it would alone, and longer histories of other feeds change nothing
    alone = take(batch, [int(four[0])])
    assert torch.equal(negatives(alone, 20, 0.25, salt=-1)[0], place[0, :20])


def test_without_the_auxiliary_loss_nothing_of_it_is_there():
    _, interest, batch, vectors = some(DienConfig(width=WIDTH, auxiliary=0.0))
    assert interest.penalties == () and interest(vectors, batch, training(batch)).penalties == {}
    assert not [name for name, _ in interest.named_parameters() if "next_entry" in name]
    _, same, _, _ = some(DienConfig(width=WIDTH, auxiliary=1.0))
    same.load_state_dict({**same.state_dict(), **interest.state_dict()})
    assert_close(same(vectors, batch, training(batch)).candidate, interest(vectors, batch).candidate)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"width": 0}, "width >= 1, got 0"), ({"auxiliary": -1.0}, "auxiliary >= 0, got -1.0"), ({"hidden": ()}, "hidden")],
)
def test_settings_that_make_no_sense(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        DienConfig(**settings)


def test_augru_is_deepctr_torchs():
    """Its cell has two biases, registered as one by mistake: gates read their sum, so ours is twice as large; that of the new
    state stands inside the reset gate too and is left at 0."""
    pytest.importorskip("deepctr_torch", reason="peers are an extra: pip install liverank[peers]")
    from deepctr_torch.layers.sequence import DynamicGRU
    from torch.nn.utils.rnn import pack_padded_sequence

    torch.manual_seed(0)
    peer, augru = DynamicGRU(4, WIDTH, gru_type="AUGRU").double(), Augru(4, WIDTH).double()
    cell = peer.rnn
    with torch.no_grad():
        cell.weight_ih.normal_()
        cell.weight_hh.normal_()
        cell.bias_ih[: 2 * WIDTH].normal_()
        assert cell.bias_ih is cell.bias_hh
        augru.input_IT.copy_(cell.weight_ih.t())
        augru.state_DT.copy_(cell.weight_hh.t())
        augru.bias_T.copy_(2 * cell.bias_ih)
        # three feeds of two candidates; the peer reads a sequence per candidate
        inputs_RLI = torch.randn(3, 6, 4, dtype=torch.float64)
        length_R = torch.tensor([6, 2, 4])
        is_real_RL = torch.arange(6) < length_R.unsqueeze(1)
        weight_GSL = torch.rand(3, 2, 6, dtype=torch.float64) * is_real_RL.unsqueeze(1)
        ours = augru(inputs_RLI, weight_GSL, grid(torch.tensor([0, 0, 1, 1, 2, 2]), 3)).flatten(0, 1)
        packed = lambda values: pack_padded_sequence(
            values, length_R.repeat_interleave(2), batch_first=True, enforce_sorted=False
        )
        outputs = peer(packed(inputs_RLI.repeat_interleave(2, 0)), packed(weight_GSL.flatten(0, 1)))
        theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        assert_close(ours, theirs[torch.arange(6), length_R.repeat_interleave(2) - 1])
        assert ours.std(0).min() > 0.01
