"""The same outputs as deepctr-torch 0.3.0 with the same weights.

Its models read flat rows, so every candidate is a feed of its own there; here candidates share feeds. What it does
otherwise than the papers, and how the copy accounts for it:

* Every task ends in a linear map without bias and a separate bias: one linear map here. ESMM uses one such bias for both
  tasks.
* PLE counts its shared experts by the number of task experts, so only equal numbers can be built; and it computes a
  shared gate on the last level whose result nothing reads, which does not exist here.
* DIN compares all history features as one vector (one attention), as here within one history; its Dice normalises by
  batch statistics, which in prediction are constants: `Dice` here has the shift, its neighbours the slope. Its first
  attention layer has a weight each for q, k, q - k and q * k; here the first two have taken in the third.
* DIN hands on no products of interest and candidate, as its published code does.
* Gates have hidden layers by default and never a bias; here they are linear, and the bias is copied as 0.
"""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models.batch import FeedBatch, HistoryBatch
from models.couplings.esmm import EsmmConfig
from models.couplings.independent import IndependentConfig
from models.fusions.mmoe import MmoeConfig
from models.fusions.ple import PleConfig
from models.fusions.single import SingleConfig
from models.interests.din import DinConfig
from models.interests.pooling import PoolingConfig
from models.ranker import Ranker
from models.schema import Field, Hash, History, HistoryField, Number, Schema, Target
from models.system import SystemConfig

pytest.importorskip("deepctr_torch", reason="peers are an extra: pip install liverank[peers]")

from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN, ESMM, MMOE, PLE

ROWS, WIDTH, LENGTH = 11, 4, 6
SIZES = {"user": ROWS, "hour": ROWS, "room": ROWS, "streamer": ROWS}
FIELDS = (
    Field(name="user", of="feed", encoding=Hash(buckets=ROWS)),
    Field(name="hour", of="feed", encoding=Hash(buckets=ROWS)),
    Field(name="room", of="candidate", encoding=Hash(buckets=ROWS)),
    Field(name="streamer", of="candidate", encoding=Hash(buckets=ROWS)),
    Field(name="rate", of="candidate", encoding=Number()),
)
CLICK, ORDER = Target(name="ctr", action="enter"), Target(name="ctcvr", action="order", parents=("ctr",))
ROOMS = History(
    name="rooms",
    events="engagements",
    length=LENGTH,
    fields=tuple(HistoryField(name=name, encoding=Hash(buckets=ROWS)) for name in ("room", "streamer")),
)
COLUMNS = [*(SparseFeat(name, ROWS, WIDTH) for name in ("user", "hour", "room", "streamer")), DenseFeat("rate", 1)]
KEPT = {"l2_reg_embedding": 0, "init_std": 0.5, "task_names": ("ctr", "ctcvr")}


def feeds(schema: Schema) -> FeedBatch:
    """Five feeds of three candidates; the first has no history."""
    rng = np.random.default_rng(0)
    rows = lambda *shape: torch.from_numpy(rng.integers(1, ROWS, shape))
    is_real_RL = torch.arange(LENGTH)[None, :] < torch.tensor([0, 1, 3, 5, 6])[:, None]
    return FeedBatch(
        feed={"user": rows(5), "hour": rows(5)},
        candidate={"room": rows(15), "streamer": rows(15), "rate": torch.from_numpy(rng.normal(size=15).astype(np.float32))},
        histories={
            history.name: HistoryBatch(
                rows={field.name: rows(5, LENGTH) * is_real_RL for field in history.fields}, is_real_RL=is_real_RL
            )
            for history in schema.histories
        },
        feed_of_candidate_N=torch.arange(5).repeat_interleave(3),
        level_N=torch.zeros(15, dtype=torch.int64),
        user_R=torch.arange(5),
    )


def flat_rows(peer, batch: FeedBatch) -> torch.Tensor:
    """The matrix the peer reads: a row a candidate, feed columns and histories repeated."""
    of_feed = {**batch.feed}
    for history in batch.histories.values():
        of_feed |= {f"hist_{name}": rows for name, rows in history.rows.items()} | {"length": history.is_real_RL.sum(1)}
    columns = {name: values[batch.feed_of_candidate_N] for name, values in of_feed.items()} | dict(batch.candidate)
    return torch.cat([columns[name].reshape(15, -1).float() for name in peer.feature_index], dim=1)


def compare(peer, ranker: Ranker, schema: Schema) -> None:
    for table in SIZES:
        copy(ranker.embedding.sets[f"width_{WIDTH}"].table(table), peer.embedding_dict[table].weight)
    peer.eval()
    ranker.eval()
    batch = feeds(schema)
    with torch.no_grad():
        theirs, ours = peer(flat_rows(peer, batch)), ranker.predict(batch)
    found = torch.stack([ours[name] for name in schema.target_names], dim=1)
    assert theirs.std(0).min() > 1e-3  # outputs that differ, so that agreement means something
    assert_close(found, theirs.reshape(found.shape), rtol=1e-5, atol=1e-6)


# -- copying weights -----------------------------------------------------------------------------------------------


def copy(into: torch.Tensor, value: torch.Tensor) -> None:
    assert into.shape == value.shape
    with torch.no_grad():
        into.copy_(value)


def copy_mixed(mixed, linears: list[torch.nn.Linear], order: list[int] | None = None) -> None:
    """Linear maps over (user, hour | room, streamer, rate, ...) side by side; `order` sorts the peer's inputs so."""
    weight = torch.cat([linear.weight for linear in linears]).t()
    weight = weight if order is None else weight[order]
    copy(mixed.feed, weight[: 2 * WIDTH])
    copy(mixed.candidate, weight[2 * WIDTH :])
    biases = [torch.zeros(len(linear.weight)) if linear.bias is None else linear.bias for linear in linears]
    copy(mixed.bias, torch.cat(biases))


def copy_layer(layer, linears: list[torch.nn.Linear]) -> None:
    """A linear map for each member of a bank."""
    copy(layer.weight_BIH, torch.stack([linear.weight.t() for linear in linears]))
    biases = [torch.zeros(len(linear.weight)) if linear.bias is None else linear.bias for linear in linears]
    copy(layer.bias_B1H, torch.stack(biases).unsqueeze(1))


def copy_mlps(bank, dnns: list, start: int = 0) -> None:
    for depth, layer in enumerate(bank.layers):
        copy_layer(layer, [dnn.linears[depth + start] for dnn in dnns])


def copy_bank(bank, dnns: list, order: list[int] | None = None) -> None:
    copy_mixed(bank.first, [dnn.linears[0] for dnn in dnns], order)
    copy_mlps(bank.rest, dnns, start=1)


def copy_heads(ranker: Ranker, linears: list[torch.nn.Linear], biases: list[torch.Tensor]) -> None:
    for head, linear, bias in zip(ranker.coupling.heads.linear.values(), linears, biases, strict=True):
        copy(head.weight_BIH, linear.weight.t().unsqueeze(0))
        copy(head.bias_B1H, bias.reshape(1, 1, 1))


def shuffled(peer):
    """Biases other than 0, so that a forgotten one is seen."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.5)
    return peer


# -- the systems ---------------------------------------------------------------------------------------------------


def test_mmoe():
    peer = shuffled(
        MMOE(
            COLUMNS,
            num_experts=3,
            expert_dnn_hidden_units=(8, 6),
            gate_dnn_hidden_units=(),
            tower_dnn_hidden_units=(5,),
            **KEPT,
        )
    )
    schema = Schema(fields=FIELDS, targets=(CLICK, ORDER))
    config = SystemConfig(
        embedding_width=WIDTH, interest=PoolingConfig(), fusion=MmoeConfig(experts=3, hidden=(8, 6), towers=(5,))
    )
    ranker = Ranker(schema, config, SIZES)
    copy_bank(ranker.fusion.experts, peer.expert_dnn)
    copy_mixed(ranker.fusion.gate_scores, list(peer.gate_dnn_final_layer))
    copy_mlps(ranker.fusion.towers, peer.tower_dnn)
    copy_heads(ranker, peer.tower_dnn_final_layer, [out.bias for out in peer.out])
    compare(peer, ranker, schema)


def test_ple():
    count = 2
    peer = shuffled(
        PLE(
            COLUMNS,
            shared_expert_num=count,
            specific_expert_num=count,
            num_levels=3,
            expert_dnn_hidden_units=(8, 6),
            gate_dnn_hidden_units=(),
            tower_dnn_hidden_units=(5,),
            **KEPT,
        )
    )
    schema = Schema(fields=FIELDS, targets=(CLICK, ORDER))
    fusion = PleConfig(levels=3, specific=count, shared=count, hidden=(8, 6), towers=(5,))
    ranker = Ranker(schema, SystemConfig(embedding_width=WIDTH, fusion=fusion), SIZES)
    fusion = ranker.fusion
    for depth in range(3):
        own = [list(experts) for experts in peer.specific_experts[depth]]
        shared = list(peer.shared_experts[depth][0])
        own_gates, shared_gate = list(peer.specific_gate_dnn_final_layer[depth]), peer.shared_gate_dnn_final_layer[depth]
        if depth == 0:
            copy_bank(fusion.first.experts, [*own[0], *own[1], *shared])
            copy_mixed(fusion.first.gates, [*own_gates, shared_gate])
            continue
        level = fusion.later[depth - 1]
        copy_layer(level.own, [widened(experts) for experts in own])
        copy_layer(level.shared, [widened(shared)])
        copy_mlps(level.rest, [*own[0], *own[1], *shared], start=1)
        copy_layer(level.own_gates, own_gates)
        if level.shared_gate is not None:
            copy_layer(level.shared_gate, [shared_gate])
    copy_mlps(fusion.towers, peer.tower_dnn)
    copy_heads(ranker, peer.tower_dnn_final_layer, [out.bias for out in peer.out])
    compare(peer, ranker, schema)


def widened(dnns: list) -> torch.nn.Linear:
    """First layers of several MLPs over the same input as one linear map."""
    first = [dnn.linears[0] for dnn in dnns]
    one = torch.nn.Linear(first[0].in_features, sum(linear.out_features for linear in first))
    copy(one.weight, torch.cat([linear.weight for linear in first]))
    copy(one.bias, torch.cat([linear.bias for linear in first]))
    return one


def test_esmm():
    peer = shuffled(ESMM(COLUMNS, tower_dnn_hidden_units=(8, 6), **KEPT))
    schema = Schema(fields=FIELDS, targets=(CLICK, ORDER))
    config = SystemConfig(embedding_width=WIDTH, fusion=SingleConfig(hidden=(8, 6)), coupling=EsmmConfig())
    ranker = Ranker(schema, config, SIZES)
    copy_bank(ranker.fusion.bank, [peer.ctr_dnn, peer.cvr_dnn])
    copy_heads(ranker, [peer.ctr_dnn_final_layer, peer.cvr_dnn_final_layer], [peer.out.bias, peer.out.bias])
    compare(peer, ranker, schema)


def test_din():
    columns = [
        *COLUMNS,
        *(
            VarLenSparseFeat(SparseFeat(f"hist_{name}", ROWS, WIDTH, embedding_name=name), LENGTH, length_name="length")
            for name in ("room", "streamer")
        ),
    ]
    peer = shuffled(
        DIN(
            columns,
            ["room", "streamer"],
            dnn_hidden_units=(8, 6),
            att_hidden_size=(7, 5),
            l2_reg_embedding=0,
            init_std=0.5,
        )
    )
    unit = peer.attention.local_att
    with torch.no_grad():  # statistics as after a training
        for dice in unit.dnn.activation_layers:
            dice.bn.running_mean.normal_()
            dice.bn.running_var.uniform_(0.5, 2)
            dice.bn.weight.abs_()  # as it starts, 1, and as Dice means it: p grows with x
    schema = Schema(fields=FIELDS, histories=(ROOMS,), targets=(CLICK,))
    config = SystemConfig(
        embedding_width=WIDTH,
        interest=DinConfig(hidden=(7, 5), products=False),
        fusion=SingleConfig(hidden=(8, 6)),
        coupling=IndependentConfig(),
    )
    ranker = Ranker(schema, config, SIZES)
    attention = ranker.interest.attention["rooms"].scores
    query, key, difference, product = unit.dnn.linears[0].weight.t().split(2 * WIDTH)
    # its Dice sees slope * x + shift, ours x + shift: linear maps before are scaled by the slope, after by its inverse
    first, second = (dice.bn.weight / (dice.bn.running_var + dice.bn.eps).sqrt() for dice in unit.dnn.activation_layers)
    copy(attention.query_MA, (query + difference) * first)
    copy(attention.entry_EA, (key - difference) * first)
    copy(attention.pair_MA, product * first)
    copy(attention.bias_A, unit.dnn.linears[0].bias * first)
    copy(attention.rest[0].weight, unit.dnn.linears[1].weight * second.unsqueeze(1) / first)
    copy(attention.rest[0].bias, unit.dnn.linears[1].bias * second)
    copy(attention.rest[2].weight, unit.dense.weight / second)
    copy(attention.rest[2].bias, unit.dense.bias)
    dices = zip((attention.first_activation, attention.rest[1]), unit.dnn.activation_layers, (first, second), strict=True)
    for ours, theirs, slope in dices:
        copy(ours.shift, theirs.bn.bias - theirs.bn.running_mean * slope)
        copy(ours.alpha, theirs.alpha.squeeze(1))
    # the peer reads sparse fields, interest, numbers; here the interest comes last
    sparse, interest = 4 * WIDTH, 2 * WIDTH
    order = [*range(sparse), sparse + interest, *range(sparse, sparse + interest)]
    copy_bank(ranker.fusion.bank, [peer.dnn], order)
    copy_heads(ranker, [peer.dnn_linear], [peer.out.bias])
    compare(peer, ranker, schema)
