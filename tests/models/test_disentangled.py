"""Against loops over candidates and entries; padding, other feeds and workers are in the contract tests."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.interests.disentangled import Disentangled, DisentangledConfig, IntentLosses
from models.layers.embedding import Embedding
from models.layers.numbers import RawConfig
from models.layers.regularisers import (
    cosine_distance,
    distance_correlation,
    effective_rank,
    euclidean_distance,
    infonce,
)
from models.schema import Schema
from models.slots import Compared, Training
from tests.models.helpers import replaced, take, without_history
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

ENCODERS = ["transformer", "din", "hgn"]


def made(seed: int = 0, feeds: int = 6, dtype: torch.dtype = torch.float64, **choices):
    """Rows and parameters far enough from 0 for every part to matter."""
    schema = tiny_schema()
    torch.manual_seed(seed)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).to(dtype)
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, feeds=feeds, seed=seed)
    batch = replaced(batch, feed={**batch.feed, "user_entries": batch.feed["user_entries"].to(dtype)})
    interest = Disentangled(DisentangledConfig(**{"width": 8, "heads": 2, **choices}), schema, embedding.inputs).to(dtype)
    for parameter in interest.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return interest, batch, embedding(batch)


def training(batch, progress: float = 0.25) -> Training:
    return Training(progress=progress, batch=batch, beliefs={})


def normalised(norm, rows):
    """Each row less its mean, by its deviation, with a gain and a shift a place."""
    deviation = ((rows - rows.mean(1, keepdim=True)).square().mean(1, keepdim=True) + norm.eps).sqrt()
    return (rows - rows.mean(1, keepdim=True)) / deviation * norm.weight + norm.bias


def queries(intentions, vectors):
    query_ND = intentions.domain.candidates(vectors)
    return query_ND if intentions.norms is None else normalised(intentions.norms[1], query_ND)


def encoded(interest, name, vectors, batch, candidate):
    """The real entries of a candidate's feed before and after the encoder, [l, D] each."""
    feed = int(batch.feed_of_candidate_N[candidate])
    length = int(vectors.histories[name].is_real_RL[feed].sum())
    intentions = interest.intentions[name]
    encoder = intentions.encoder
    entries = intentions.domain.entries(vectors)[feed, :length]
    if intentions.norms is not None:
        entries = normalised(intentions.norms[0], entries)
    match type(encoder).__name__:
        case "Encoder":
            return entries, encoder(entries.unsqueeze(0), torch.ones(1, length, dtype=torch.bool))[0]
        case "PairScores":
            q = queries(intentions, vectors)[candidate]
            kinds = []
            for k in entries:
                first = q @ encoder.query_MA + k @ encoder.entry_EA + (q * k) @ encoder.pair_MA + encoder.bias_A
                kinds.append(k / (1 + torch.exp(-encoder.rest(encoder.first_activation(first)))))
            return entries, torch.stack(kinds) if length else entries
    user = torch.cat([vector[feed] for vector in vectors.feed.values()])
    gated = []
    for place, s in enumerate(entries):
        feature = s @ encoder.feature_DD + user @ encoder.feature_user_UD + encoder.feature_bias_D
        f = s / (1 + torch.exp(-feature))
        instance = f @ encoder.instance_D1[:, 0] + user @ encoder.instance_user_UP[:, length - 1 - place]
        gated.append(f / (1 + torch.exp(-instance)))
    return entries, torch.stack(gated) if length else entries


def retrieved(query, parts):
    """Eq. 6 and 7 over a list of vectors."""
    scores = [torch.exp(query @ part) for part in parts]
    zeros = torch.zeros_like(query)
    return sum((score / sum(scores) * part for score, part in zip(scores, parts, strict=True)), zeros)


@pytest.mark.parametrize("normalise", [True, False], ids=["", "as printed"])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("prototypes", ["pooling", "learnt"])
def test_intentions_are_those_of_equations_5_to_7(encoder, prototypes, normalise):
    interest, batch, vectors = made(encoder=encoder, prototypes=prototypes, normalise=normalise)
    found = interest(vectors, batch)
    assert found.feed == {} and found.compared is None
    for name in ("channels", "products"):
        query_ND = queries(interest.intentions[name], vectors)
        for candidate in range(batch.candidates):
            entries, hidden = encoded(interest, name, vectors, batch, candidate)
            consistent, specific = [], []
            for h in hidden:
                if prototypes == "learnt":
                    o_c, o_s = interest.intentions[name].prototypes_2D
                else:
                    o_c, o_s = sum(entries) / len(entries), torch.stack(list(entries)).max(0).values
                p = torch.exp(h * o_c) / (torch.exp(h * o_c) + torch.exp(h * o_s))
                consistent.append(p * h)
                specific.append((1 - p) * h)
            query = query_ND[candidate]
            assert_close(found.candidate[f"consistent.{name}"][candidate], retrieved(query, consistent))
            assert_close(found.candidate[f"specific.{name}"][candidate], retrieved(query, specific))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_without_disentangling_a_candidate_retrieves_from_the_whole_entries(encoder):
    interest, batch, vectors = made(encoder=encoder, disentangle=False)
    found = interest(vectors, batch, training(batch))
    assert interest.together is None and found.compared is None
    assert interest.widths.candidate == {"interest.channels": 8, "interest.products": 8}
    for name in ("channels", "products"):
        query_ND = queries(interest.intentions[name], vectors)
        for candidate in range(batch.candidates):
            _, hidden = encoded(interest, name, vectors, batch, candidate)
            assert_close(found.candidate[f"interest.{name}"][candidate], retrieved(query_ND[candidate], list(hidden)))


def untrained(feeds: int = 60, **choices):
    """A `Disentangled` of width 32 as it starts, behind tables as they start."""
    schema = tiny_schema()
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 16, RawConfig())
    batch = random_batch(schema, TABLE_SIZES, feeds=feeds, seed=0)
    interest = Disentangled(DisentangledConfig(**{"width": 32, "heads": 4, **choices}), schema, embedding.inputs)
    return interest, batch, embedding(batch)


def probed(interest, batch, vectors) -> dict[str, float]:
    with torch.no_grad():
        return {name: probe.value for name, probe in interest.probe(vectors, batch).items()}


@pytest.mark.parametrize("prototypes", ["pooling", "learnt"])
def test_intentions_live_from_the_first_step_on(prototypes):
    """And as printed they do not: p is 1/2, both intentions are one, and all entries are retrieved alike."""
    found = probed(*untrained(prototypes=prototypes))
    for name in ("channels", "products"):
        assert found[f"disentangled.spread.{name}"] > 0.2
        assert found[f"disentangled.cosine.{name}"] < 0.5
        assert found[f"disentangled.dcor.{name}"] < 0.8
        assert all(found[f"disentangled.entropy.{part}.{name}"] < 0.8 for part in ("consistent", "specific"))
        assert all(found[f"disentangled.rank.{part}.{name}"] > 5 for part in ("consistent", "specific"))
    printed = probed(*untrained(normalise=False))
    for name in ("channels", "products"):
        assert printed[f"disentangled.spread.{name}"] < 0.01
        assert printed[f"disentangled.cosine.{name}"] > 0.99
        assert printed[f"disentangled.dcor.{name}"] > 0.99
        assert printed[f"disentangled.entropy.consistent.{name}"] > 0.99


def test_learnt_prototypes_start_as_far_apart_as_pooled_ones():
    pooled, learnt = (probed(*untrained(prototypes=prototypes)) for prototypes in ("pooling", "learnt"))
    for name in ("channels", "products"):
        assert learnt[f"disentangled.spread.{name}"] == pytest.approx(pooled[f"disentangled.spread.{name}"], rel=0.3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_probes_are_what_they_say(encoder):
    """Against loops over real entries and over the compared candidates."""
    interest, batch, vectors = made(feeds=30, encoder=encoder)
    found = probed(interest, batch, vectors)
    rows_MW = interest(vectors, batch, training(batch, progress=0.0)).compared.rows_MW.detach()
    for place, name in enumerate(("channels", "products")):
        real_M = rows_MW[:, 32 + place] > 0.5
        consistent_MD, specific_MD = (rows_MW[real_M, start : start + 8] for start in (16 * place, 16 * place + 8))
        cosines = [float(c @ s / (c.norm() * s.norm())) for c, s in zip(consistent_MD, specific_MD, strict=True)]
        assert found[f"disentangled.cosine.{name}"] == pytest.approx(sum(cosines) / len(cosines))
        assert found[f"disentangled.dcor.{name}"] == pytest.approx(float(distance_correlation(consistent_MD, specific_MD)))
        assert found[f"disentangled.rank.consistent.{name}"] == pytest.approx(effective_rank(consistent_MD))
        assert found[f"disentangled.rank.specific.{name}"] == pytest.approx(effective_rank(specific_MD))
        shares: dict[int, list[float]] = {0: [], 1: []}
        p_of_feed = {}
        for candidate in range(batch.candidates):
            entries, hidden = encoded(interest, name, vectors, batch, candidate)
            if not len(entries):
                continue
            apart = entries.mean(0) - entries.max(0).values
            p = 1 / (1 + torch.exp(-hidden * apart))
            p_of_feed[candidate if encoder == "din" else int(batch.feed_of_candidate_N[candidate])] = p
            for part, parts in enumerate((p * hidden, (1 - p) * hidden)):
                if len(entries) > 1:
                    weight = (parts @ queries(interest.intentions[name], vectors)[candidate]).softmax(0)
                    shares[part].append(
                        -sum(each * math.log(each) for each in weight.tolist() if each) / math.log(len(entries))
                    )
        every = torch.cat([p.flatten() for p in p_of_feed.values()])
        assert found[f"disentangled.spread.{name}"] == pytest.approx(float(every.detach().std(correction=0)))
        for part, says in enumerate(("consistent", "specific")):
            mean = sum(shares[part]) / len(shares[part])
            assert found[f"disentangled.entropy.{says}.{name}"] == pytest.approx(mean, rel=1e-6)
    whole = probed(*made(feeds=30, encoder=encoder, disentangle=False))
    assert set(whole) == {
        f"disentangled.{what}.interest.{name}" for what in ("rank", "entropy") for name in ("channels", "products")
    }


def test_what_a_batch_is_too_small_for_is_not_probed():
    interest, batch, _ = made()
    embedding = Embedding(tiny_schema(), TABLE_SIZES, 4, RawConfig()).double()
    few, none = take(batch, [0, 1]), without_history(batch)  # one feed with a history, and none
    assert {name.split(".")[1] for name in probed(interest, few, embedding(few))} <= {"spread", "entropy"}
    assert probed(interest, none, embedding(none)) == {}


def alarms(interest, batch, vectors, start: dict[str, float]) -> list[str]:
    with torch.no_grad():
        told = {name: probe.alarm(start.get(name)) for name, probe in interest.probe(vectors, batch).items()}
    return [text for text in told.values() if text is not None]


def test_a_collapse_raises_an_alarm():
    """Of one kind each: all users' intentions in one direction; Eq. 5 without effect; retrieval without effect."""
    interest, batch, vectors = untrained()
    start = probed(interest, batch, vectors)
    assert alarms(interest, batch, vectors, start) == []
    channels = interest.intentions["channels"]
    before = {name: value.clone() for name, value in channels.state_dict().items()}
    last = channels.encoder.blocks[-1].norms[-1]
    with torch.no_grad():
        last.weight[1:] = 0  # entries differ in one place of the width
    (first, second) = [text for text in alarms(interest, batch, vectors, start) if "effective rank" in text]
    assert first.startswith("the effective rank of consistent intentions in channels is 1")
    assert "below 0.25 of the" in first and second.startswith("the effective rank of specific intentions in channels is 1")
    channels.load_state_dict(before)
    with torch.no_grad():
        channels.norms[0].weight.mul_(1e-3)
    assert any(
        text.startswith("the deviation of p (Eq. 5) over channels is ") for text in alarms(interest, batch, vectors, start)
    )
    channels.load_state_dict(before)
    with torch.no_grad():
        channels.norms[1].weight.mul_(1e-3)
    told = alarms(interest, batch, vectors, start)
    assert [text.split(",")[0] for text in told] == [
        f"the entropy of what is retrieved of {part} entries in channels" for part in ("consistent", "specific")
    ]


def test_compared_rows_are_a_candidate_of_each_feed():
    interest, batch, vectors = made(feeds=40)
    found = interest(vectors, batch, training(batch))
    names = ["consistent.channels", "specific.channels", "consistent.products", "specific.products"]
    all_NV = torch.cat([found.candidate[name] for name in names], dim=1)
    assert found.compared.rows_MW.shape == (40, interest.together.width) == (40, 34)
    assert_close(found.compared.users_M, batch.user_R)
    places = []
    for feed, row in enumerate(found.compared.rows_MW):
        mine = torch.nonzero(batch.feed_of_candidate_N == feed).flatten()
        at = [place for place, candidate in enumerate(mine) if torch.equal(all_NV[candidate], row[:32])]
        assert at  # several where the history is empty
        places.append((at[0] if len(at) == 1 else None, len(mine)))
        flags = [float(history.is_real_RL[feed].any()) for history in batch.histories.values()]
        assert row[32:].tolist() == flags
    drawn = [(place, candidates) for place, candidates in places if place is not None and candidates > 2]
    assert {0, 1, 2} <= {place for place, _ in drawn}
    other = interest(vectors, batch, training(batch, progress=0.5)).compared.rows_MW
    assert (other != found.compared.rows_MW).any()
    everyone = made(feeds=40, compare="all")[0](vectors, batch, training(batch)).compared
    assert_close(everyone.users_M, batch.user_R[batch.feed_of_candidate_N])
    assert_close(everyone.rows_MW[:, :32], all_NV)


def test_a_feed_is_compared_by_the_same_candidate_in_any_batch():
    interest, batch, vectors = made(feeds=12)
    whole = interest(vectors, batch, training(batch)).compared
    chosen = [7, 2, 9]
    part, schema = take(batch, chosen), tiny_schema()
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    torch.nn.init.normal_(embedding.sets["width_4"].weight)
    found = interest(embedding(part), part, training(part)).compared
    assert_close(found.rows_MW, whole.rows_MW[chosen])
    assert_close(found.users_M, whole.users_M[chosen])


def test_a_feed_without_candidates_is_not_compared():
    interest, batch, vectors = made()
    keep = batch.feed_of_candidate_N != 2
    less = replaced(
        batch,
        candidate={name: values[keep] for name, values in batch.candidate.items()},
        feed_of_candidate_N=batch.feed_of_candidate_N[keep],
    )
    vectors = type(vectors)(
        feed=vectors.feed,
        candidate={name: values[keep] for name, values in vectors.candidate.items()},
        histories=vectors.histories,
    )
    assert_close(interest(vectors, less, training(less)).compared.users_M, batch.user_R[[0, 1, 3, 4, 5]])


def rows_of(losses: IntentLosses, rows: int, seed: int = 0) -> Compared:
    generator = torch.Generator().manual_seed(seed)
    values_MW = torch.randn(rows, losses.width, generator=generator, dtype=torch.float64)
    values_MW[:, -losses.histories :] = 1
    return Compared(users_M=torch.arange(rows), rows_MW=values_MW)


def test_losses_are_equations_8_to_10_with_their_weights():
    config = DisentangledConfig(width=3, heads=1, correlation=0.3, alignment_weight=0.7, specific="alike")
    losses = IntentLosses(config, 2)
    compared = replaced_users(rows_of(losses, 7), [1, 2, 3, 1, 4, 5, 3])
    of = compared.rows_MW[:, :12].unflatten(1, (4, 3)).unbind(1)
    found = losses(compared)
    assert list(found) == list(losses.names) == ["disentangled.correlation", "disentangled.alignment", "disentangled.specific"]
    assert_close(
        found["disentangled.correlation"], 0.3 * (distance_correlation(of[0], of[1]) + distance_correlation(of[2], of[3]))
    )
    assert_close(found["disentangled.alignment"], 0.7 * infonce(of[0], of[2], compared.users_M, 0.5))
    assert_close(found["disentangled.specific"], 0.7 * infonce(of[1], of[3], compared.users_M, 0.5))
    for alignment, distance in (("cosine", cosine_distance), ("euclidean", euclidean_distance)):
        config = DisentangledConfig(width=3, heads=1, alignment=alignment, alignment_weight=0.7, specific="apart")
        found = IntentLosses(config, 2)(compared)
        assert_close(found["disentangled.alignment"], 0.7 * distance(of[0], of[2]))
        assert_close(found["disentangled.specific"], -0.7 * infonce(of[1], of[3], compared.users_M, 0.5))


def replaced_users(compared: Compared, users: list[int]) -> Compared:
    return Compared(users_M=torch.tensor(users), rows_MW=compared.rows_MW)


@pytest.mark.parametrize("alignment", ["infonce", "cosine", "euclidean"])
def test_rows_without_entries_are_left_out_of_their_history(alignment):
    """Whatever stands in them, and without a gradient; the other history of such a row still has its correlation."""
    losses = IntentLosses(DisentangledConfig(width=3, heads=1, alignment=alignment, specific="alike"), 2)
    compared = rows_of(losses, 9)
    rows_MW = compared.rows_MW
    rows_MW[[1, 4], 12] = 0  # no channels
    rows_MW[[4, 5], 13] = 0  # no products
    found = losses(Compared(users_M=compared.users_M, rows_MW=rows_MW.requires_grad_()))
    sum(found.values()).backward()
    assert not rows_MW.grad[[1, 4], :6].any() and not rows_MW.grad[[4, 5], 6:].any()
    assert rows_MW.grad[1, 6:12].any() and rows_MW.grad[5, :6].any()
    of = [rows_MW[[row for row in range(9) if rows_MW[row, 12 + each]], 6 * each : 6 * each + 6] for each in range(2)]
    both = rows_MW[[0, 2, 3, 6, 7, 8]]
    assert_close(
        found["disentangled.correlation"],
        losses.config.correlation * sum(distance_correlation(each[:, :3], each[:, 3:]) for each in of),
    )
    expected = IntentLosses(losses.config, 2)(Compared(users_M=compared.users_M[:6], rows_MW=both))
    assert_close(found["disentangled.alignment"], expected["disentangled.alignment"])
    assert_close(found["disentangled.specific"], expected["disentangled.specific"])
    nobody = Compared(users_M=compared.users_M, rows_MW=(rows_MW.detach() * 0))
    assert list(losses(nobody).values()) == [0, 0, 0]
    assert list(losses(Compared(users_M=compared.users_M[:0], rows_MW=rows_MW[:0])).values()) == [0, 0, 0]


def test_channels_alone_have_two_intentions_and_nothing_to_align():
    interest, batch, vectors = made(histories=("engagements",), specific="apart")
    assert interest.widths.candidate == {"consistent.channels": 8, "specific.channels": 8}
    assert interest.together.names == ("disentangled.correlation",) and interest.together.width == 17
    found = interest(vectors, batch, training(batch))
    assert list(found.candidate) == ["consistent.channels", "specific.channels"]
    assert found.compared.rows_MW.shape == (6, 17)


def test_rooms_ask_wherever_the_schema_has_them():
    """InfoNCE has two sides."""
    spelling = tiny_schema().to_dict()
    schema = Schema.from_dict({**spelling, "histories": spelling["histories"][::-1]})
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig())
    interest = Disentangled(DisentangledConfig(width=8), schema, embedding.inputs)
    assert interest.histories == ("channels", "products")


def test_what_is_not_wanted_is_not_computed():
    for choices, names in (
        ({"correlation": 0.0}, ("disentangled.alignment",)),
        ({"alignment": "none"}, ("disentangled.correlation",)),
        ({"alignment_weight": 0.0, "specific": "apart"}, ("disentangled.correlation",)),
    ):
        assert made(**choices)[0].together.names == names
    interest, batch, vectors = made(correlation=0.0, alignment="none")
    assert interest.together is None and interest(vectors, batch, training(batch)).compared is None
    interest, batch, vectors = made()
    assert interest(vectors, batch).compared is None  # predicting


@pytest.mark.parametrize("encoder", ENCODERS)
def test_users_without_any_history_have_zeros_and_finite_gradients(encoder):
    interest, batch, _ = made(encoder=encoder)
    schema = tiny_schema()
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    batch = without_history(batch)
    found = interest(embedding(batch), batch, training(batch))
    assert not any(vector_ND.any() for vector_ND in found.candidate.values())
    losses = interest.together(found.compared)
    assert all(loss == 0 for loss in losses.values())
    sum(vector_ND.sum() for vector_ND in found.candidate.values()).backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in interest.parameters())


def test_lower_precision_does_not_reach_the_losses():
    losses = IntentLosses(DisentangledConfig(width=16, heads=1, specific="alike"), 2)
    compared = rows_of(losses, 30)
    compared = Compared(users_M=compared.users_M, rows_MW=compared.rows_MW.float() + 10)
    exact = losses(compared)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses(compared) == exact
    interest, batch, vectors = made(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = interest(vectors, batch, training(batch))
    assert found.candidate["consistent.channels"].dtype == torch.bfloat16
    assert found.compared.rows_MW.dtype == torch.float32


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"width": 10, "heads": 4}, "disentangled needs a width that its heads divide, got width=10, heads=4"),
        ({"blocks": 0}, "disentangled needs blocks >= 1, got 0"),
        ({"dropout": 1.0}, "disentangled needs 0 <= dropout < 1, got 1.0"),
        ({"correlation": -0.1}, r"disentangled needs correlation >= 0 \(0 is without\), got -0.1"),
        ({"alignment_weight": math.nan}, r"disentangled needs alignment_weight >= 0 \(0 is without\), got nan"),
        ({"temperature": 0.0}, "disentangled needs temperature > 0, got 0.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        DisentangledConfig(**choices)


def test_heads_are_the_transformers_alone():
    assert DisentangledConfig(encoder="hgn", width=10, heads=4).width == 10


def test_gates_need_a_user():
    spelling = tiny_schema().to_dict()
    schema = Schema.from_dict({**spelling, "fields": [field for field in spelling["fields"] if field["of"] == "candidate"]})
    inputs = Embedding(schema, TABLE_SIZES, 4, RawConfig()).inputs
    with pytest.raises(ConfigError, match=r"the schema has no field of the feed\. Take encoder `transformer`"):
        Disentangled(DisentangledConfig(encoder="hgn"), schema, inputs)
