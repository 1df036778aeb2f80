"""The loss of the source domain: what is drawn, what is asked, and each system's answer, product by product."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from models.batch import FeedBatch, HistoryBatch, Others
from models.interests.conet import Conet, ConetConfig
from models.interests.dasl import Dasl, DaslConfig
from models.interests.ddtcdr import Ddtcdr, DdtcdrConfig
from models.interests.dtcdr import OPERATORS, Dtcdr, DtcdrConfig
from models.interests.minet import Minet, MinetConfig
from models.layers.embedding import EmbeddedHistory
from models.layers.source import asked
from models.learners.others import with_others
from models.learners.workers import SingleWorker
from models.schema import Schema
from models.slots import Training
from tests.models.helpers import Threads, replaced, take
from tests.models.sides import attended, drawn, in_space
from tests.models.test_dasl import gru_states
from tests.models.test_minet import embedded_as, without_feed_fields
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

CPU = torch.device("cpu")


def with_drawn(batch: FeedBatch, progress: float = 0.0, group=None) -> FeedBatch:
    return with_others(batch, ["products"], tiny_schema(), progress, group or SingleWorker(), CPU)


def clicks(*histories: list[int], users: list[int]) -> FeedBatch:
    """Feeds of `tiny_schema` with these products, oldest first."""
    batch = random_batch(tiny_schema(), TABLE_SIZES, feeds=len(histories), seed=0)
    longest = max(map(len, histories))
    rows = torch.tensor([[*each, *[0] * (longest - len(each))] for each in histories])
    is_real = torch.tensor([[place < len(each) for place in range(longest)] for each in histories])
    products = HistoryBatch(rows={"product": rows}, is_real_RL=is_real)
    return replaced(batch, histories={**batch.histories, "products": products}, user_R=torch.tensor(users))


# -- what is drawn -------------------------------------------------------------------------------------------------


def test_a_feed_is_asked_of_another_users_newest_entry():
    """Users 1, 1, 2, 3 and 4 clicked last 7, 8, 9, nothing and 9: user 2 may be asked of 7 and 8, but not of its own 9."""
    batch = clicks([5, 7], [8], [6, 9], [], [9], users=[1, 1, 2, 3, 4])
    found: dict[int, set[int]] = {feed: set() for feed in range(5)}
    for step in range(60):
        others = with_drawn(batch, step / 60).histories["products"].others
        for feed in range(5):
            if others.is_asked_R[feed]:
                found[feed].add(int(others.rows["product"][feed]))
    assert found == {0: {9}, 1: {9}, 2: {7, 8}, 3: set(), 4: {7, 8}}


def test_others_are_drawn_alike():
    """Of 9 others each in a ninth of all draws; 6 deviations of a binomial number at most."""
    batch = clicks(*([row] for row in range(1, 11)), users=list(range(10)))
    counts = torch.zeros(11)
    for step in range(2000):
        counts[int(with_drawn(batch, step / 2000).histories["products"].others.rows["product"][0])] += 1
    assert counts[0] == counts[1] == 0
    assert (counts[2:] / 2000 - 1 / 9).abs().max() < 6 * math.sqrt(8 / 81 / 2000)


def test_nobody_is_asked_where_there_is_no_other_user():
    alone = clicks([5], [6], users=[1, 1])
    nothing = clicks([1], users=[1])
    nothing = replaced(
        nothing,
        histories={
            **nothing.histories,
            "products": HistoryBatch(
                rows={"product": torch.zeros(1, 0, dtype=torch.int64)}, is_real_RL=torch.zeros(1, 0, dtype=torch.bool)
            ),
        },
    )
    for batch in (alone, nothing):
        assert not with_drawn(batch).histories["products"].others.is_asked_R.any()
    assert with_others(None, ["products"], tiny_schema(), 0.0, SingleWorker(), CPU) is None


def test_workers_draw_what_one_would():
    """Feeds of one user lie with both; the third worker has none."""
    batch = random_batch(tiny_schema(), TABLE_SIZES, feeds=40, seed=3)
    batch = replaced(batch, user_R=batch.user_R % 12)
    alone = with_drawn(batch, 0.25).histories["products"].others
    places = [[*range(0, 40, 2)], [*range(1, 40, 2)], []]
    shares = [take(batch, mine) if mine else None for mine in places]
    found = Threads(3).run(lambda group: with_others(shares[group.rank], ["products"], tiny_schema(), 0.25, group, CPU))
    assert found[2] is None and alone.is_asked_R.sum() > 20
    for mine, share in zip(places[:2], found[:2], strict=True):
        others = share.histories["products"].others
        assert torch.equal(others.is_asked_R, alone.is_asked_R[mine])
        assert torch.equal(others.rows["product"], alone.rows["product"][mine])


def test_what_was_drawn_goes_where_its_feed_goes():
    batch = with_drawn(clicks([5], [6, 7], [8], users=[1, 2, 3]))
    drawn_R = batch.histories["products"].others.rows["product"]
    kept = batch.of_feeds(torch.tensor([True, False, True]))
    assert torch.equal(kept.histories["products"].others.rows["product"], drawn_R[[0, 2]])
    assert torch.equal(batch.to("cpu").histories["products"].others.rows["product"], drawn_R)


# -- what is asked -------------------------------------------------------------------------------------------------


def test_the_newest_entry_and_another_are_asked_of_what_came_before():
    batch = clicks([5, 7], [8], [], users=[1, 2, 3])
    history = EmbeddedHistory(
        entries_RLE=torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]], [[9.0], [9.0]]]),
        is_real_RL=batch.histories["products"].is_real_RL,
        other_RE=torch.tensor([[4.0], [5.0], [6.0]]),
    )
    others = Others(rows={"product": torch.tensor([8, 7, 7])}, is_asked_R=torch.tensor([True, True, False]))
    assert asked(history, batch, "products") is None  # none were drawn for this batch
    products = dataclasses.replace(batch.histories["products"], others=others)
    question = asked(history, replaced(batch, histories={**batch.histories, "products": products}), "products")
    assert question.items_QE[:4].tolist() == [[2.0], [4.0], [3.0], [5.0]]
    assert question.earlier_RL.tolist() == [[True, False], [False, False], [False, False]]
    assert question.feed_of_item_Q.tolist() == [0, 0, 1, 1, 2, 2]
    # chances 3/4 of the newest and 1/4 of another; 1/2 of both; the third feed does not count
    scores = torch.tensor([math.log(3), -math.log(3), 0.0, 0.0, 50.0, 50.0])
    total, count = question.loss(scores, 0.5)
    assert total.item() == pytest.approx(0.5 * 2 * (math.log(4 / 3) + math.log(2))) and count == 4


# -- what each system answers --------------------------------------------------------------------------------------


def training(batch: FeedBatch) -> Training:
    return Training(progress=0.0, batch=batch, beliefs={})


def prepared(schema: Schema, feeds: int = 8):
    embedding, batch, _ = embedded_as(schema, feeds=feeds)
    batch = with_drawn(batch)
    return embedding, batch, embedding(batch)


def expected_loss(vectors, batch: FeedBatch, weight: float, score) -> tuple[float, int]:
    """From `score(feed, item, earlier entries)`, feed by feed."""
    history, others = vectors.histories["products"], batch.histories["products"].others
    assert 3 < others.is_asked_R.sum() < batch.feeds
    total, count = 0.0, 0
    for feed in others.is_asked_R.nonzero()[:, 0].tolist():
        *earlier, newest = history.entries_RLE[feed, : int(history.is_real_RL[feed].sum())]
        own, other = (score(feed, item, earlier).item() for item in (newest, history.other_RE[feed]))
        total += weight * (math.log(1 + math.exp(-own)) + math.log(1 + math.exp(other)))
        count += 2
    return total, count


def assert_loss(interest, name, vectors, batch, score, weight: float = 0.5) -> None:
    assert name in interest.penalties and interest.contrasted == ("products",)
    total, count = interest(vectors, batch, training(batch)).penalties[name]
    assert (total.item(), count.item()) == (
        pytest.approx(expected_loss(vectors, batch, weight, score)[0]),
        expected_loss(vectors, batch, weight, score)[1],
    )
    assert interest(vectors, batch).penalties == {}  # predicting


def mlp(bank, member: int, read):
    for layer in bank.layers:
        read = (read @ layer.weight_BIH[member] + layer.bias_B1H[member, 0]).relu()
    return read


def fields_of(vectors, feed):
    return [values[feed] for values in vectors.feed.values()]


@pytest.mark.parametrize("schema", [tiny_schema(), without_feed_fields()], ids=["user", "no user"])
def test_minet_reads_the_product_and_the_user(schema):
    embedding, batch, vectors = prepared(schema)
    config = MinetConfig(width=4, item_hidden=3, interest_hidden=3, rank=2, source=0.5, source_hidden=(6, 5))
    interest = drawn(Minet(config, schema, embedding.inputs))

    def score(feed, item, earlier):
        read = [item @ interest.source_ED + interest.source_bias_D]
        if interest.user_FD is not None:
            read.append(torch.cat(fields_of(vectors, feed)) @ interest.user_FD)
        return interest.source_head.linear(mlp(interest.of_source, 0, torch.cat(read)))

    assert_loss(interest, "minet.source", vectors, batch, score)


@pytest.mark.parametrize("schema", [tiny_schema(), without_feed_fields()], ids=["user", "no user"])
def test_dasl_goes_the_other_way_round(schema):
    """Its channels brought back by W', and the attention of that direction."""
    embedding, batch, vectors = prepared(schema)
    interest = drawn(Dasl(DaslConfig(width=4, attention=3, source=0.5), schema, embedding.inputs))
    source, attention = interest.source, interest.source.attention

    def score(feed, item, earlier):
        user = [torch.zeros(0).double()] * 2
        if vectors.feed:
            user = (torch.cat(fields_of(vectors, feed)) @ interest.user_F2D).chunk(2)
        channels = vectors.histories["channels"]
        watched = interest.domain.entries(vectors)[feed, : int(channels.is_real_RL[feed].sum())]
        back = [
            interest.map_DD @ state
            for state in gru_states(interest.of_channels.gru, [torch.cat([entry, user[0]]) for entry in watched])
        ]
        own = gru_states(interest.of_products.gru, [torch.cat([entry, user[1]]) for entry in earlier])
        q = item @ source.item_ED + source.item_bias_D
        weights = [
            (
                torch.tanh(state @ attention.state_DA + q @ attention.target_DA + attention.bias_A) @ attention.score_A1[:, 0]
            ).exp()
            for state in [*own, *back]
        ]
        sums = [torch.zeros(4).double(), torch.zeros(4).double()]
        for place, (weight, state) in enumerate(zip(weights, [*own, *back], strict=True)):
            sums[place >= len(own)] += weight / sum(weights) * state
        return source.head.linear(mlp(source.network, 0, torch.cat([*sums, q, user[1]])))

    assert_loss(interest, "dasl.source", vectors, batch, score)


def test_conet_reads_the_product_where_there_is_no_room():
    schema = tiny_schema()
    embedding, batch, vectors = prepared(schema)
    interest = drawn(Conet(ConetConfig(width=6, heads=2, hidden=(5, 4), source=0.5), schema, embedding.inputs))

    def score(feed, item, earlier):
        content = interest.contents["products"]
        q = in_space(content.domain, item)
        found = attended(content.attention, q, [in_space(content.domain, entry) for entry in earlier])
        rooms, products = torch.zeros(12).double(), torch.cat([found, q])
        user = torch.cat(fields_of(vectors, feed))
        for unit in interest.units:
            size = unit.cross_IO.shape[1]
            of_user = torch.zeros(2 * size).double() if unit.fields_FP is None else user @ unit.fields_FP
            next_rooms = rooms @ unit.target_IO + products @ unit.cross_IO + of_user[:size] + unit.bias_P[:size]
            next_products = products @ unit.source_IO + rooms @ unit.cross_IO + of_user[size:] + unit.bias_P[size:]
            rooms, products = next_rooms.relu(), next_products.relu()
        return interest.source_head.linear(products)

    assert_loss(interest, "conet.source", vectors, batch, score)


@pytest.mark.parametrize("combine", OPERATORS)
def test_dtcdr_combines_both_users_for_a_product_too(combine):
    schema = tiny_schema()
    embedding, batch, vectors = prepared(schema)
    interest = drawn(Dtcdr(DtcdrConfig(width=6, heads=3, hidden=(5, 4), combine=combine, source=0.5), schema, embedding.inputs))

    def score(feed, item, earlier):
        content = interest.sides["products"].content
        q = in_space(content.domain, item)
        found = attended(content.attention, q, [in_space(content.domain, entry) for entry in earlier])
        user = torch.cat(fields_of(vectors, feed))
        among_rooms, among_products = (user @ interest.sides[name].profile_FD for name in ("channels", "products"))
        combined = OPERATORS[combine](among_rooms.unsqueeze(0), (among_products + found).unsqueeze(0))[0]
        return interest.source_head.linear(mlp(interest.networks, 1, torch.cat([combined, q])))

    assert_loss(interest, "dtcdr.source", vectors, batch, score)


def test_ddtcdr_asks_both_networks_of_the_products_user():
    schema = tiny_schema()
    embedding, batch, vectors = prepared(schema)
    interest = drawn(Ddtcdr(DdtcdrConfig(width=6, heads=3, hidden=(5, 4), alpha=0.3, source=0.5), schema, embedding.inputs))
    lower, upper = interest.first, interest.rest.layers[0]

    def network(member, user, item):
        hidden = torch.cat([user, item]) @ lower.weight_BIH[member] + lower.bias_B1H[member, 0]
        return (hidden.relu() @ upper.weight_BIH[member] + upper.bias_B1H[member, 0]).relu()

    def score(feed, item, earlier):
        side = interest.sides["products"]
        q = in_space(side.content.domain, item)
        found = attended(side.content.attention, q, [in_space(side.content.domain, entry) for entry in earlier])
        user = torch.cat(fields_of(vectors, feed)) @ side.profile_FD + found
        back = interest.mapping_DD.T.mv(user)
        return interest.source_head.linear(0.7 * network(1, user, q) + 0.3 * network(0, back, q))

    assert_loss(interest, "ddtcdr.source", vectors, batch, score)


FIVE = {
    "minet": (Minet, MinetConfig),
    "dasl": (Dasl, DaslConfig),
    "conet": (Conet, ConetConfig),
    "dtcdr": (Dtcdr, DtcdrConfig),
    "ddtcdr": (Ddtcdr, DdtcdrConfig),
}


@pytest.mark.parametrize(("filling", "config"), FIVE.values(), ids=FIVE)
def test_without_it_nothing_is_drawn_and_nothing_waits_to_be_learnt(filling, config):
    schema = tiny_schema()
    embedding, batch, vectors = prepared(schema)
    without = filling(config(source=0.0), schema, embedding.inputs).double()
    assert without.contrasted == () and not any(name.endswith("source") for name in without.penalties)
    assert not any("source_head" in name or name.startswith(("of_source", "source.")) for name, _ in without.named_parameters())
    assert "source" not in " ".join(without(vectors, batch, training(batch)).penalties)
    with pytest.raises(ValueError, match=r"needs source >= 0 \(0 is without\), got -1\.0"):
        config(source=-1.0)


@pytest.mark.parametrize(("filling", "config"), FIVE.values(), ids=FIVE)
def test_predictions_know_nothing_of_it(filling, config):
    """An entry of another user beside a history changes no interest."""
    schema = tiny_schema()
    embedding, batch, vectors = prepared(schema)
    interest = drawn(filling(config(), schema, embedding.inputs))
    plain = replaced(batch, histories={name: dataclasses.replace(each, others=None) for name, each in batch.histories.items()})
    with_it, without = interest(vectors, batch, training(batch)), interest(embedding(plain), plain)
    for name, values in without.candidate.items():
        assert_close(with_it.candidate[name], values, rtol=0, atol=0)
