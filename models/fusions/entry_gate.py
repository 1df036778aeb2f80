"""Targets before and after a user enters a room (Zhang et al. 2023, "Cross-domain disentangled learning for e-commerce
live streaming recommendation", eLiveRec, Sec. IV-B3 and IV-C, Eq. 12).

    # R feeds, N candidates, T targets, E experts, H output width, M members, D width of the room's state
    # G x S grid of candidates (rows of one feed), I members of the feed, W width of a member, F/C of all on a level

The inputs are members F_i and the room's real-time state e_d. A member is e_c, all vectors of the feed (and the user's
stage); e_v, all candidate fields that are not the room's state; or one vector of an interest. Two sets of targets read
them:

* roots of the target graph, what happens in the feed, have an MLP each over the members alone: a user who has not
  entered does not see what goes on inside. Set `state_before_entering` where a feed shows it (viewers, the product);
* targets with parents, what happens in the room, read [e_d, w_1 F_1, w_2 F_2, ...] through a mixture of experts with a
  gate each (`fusions.mmoe`), w_i = sigmoid(MLP_i(e_d)) one number a member and candidate.

Since a gate is one number for a whole member, (w_i F_i) W_i = w_i (F_i W_i): products of the feed's members are taken once
per feed, and one matrix product a feed, of its candidates' gates with them, adds them up for every candidate.

Where we differ: the paper has one root, the click, and three targets after it; here any graph. Sizes of the gates' and
of the experts' layers are left open there. An interest is free to read the room's state.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import ConfigError, config
from models.layers.dropout import Dropout
from models.layers.grid import Grid, grid
from models.layers.heads import at_least_float32
from models.layers.mixed import MixedBank
from models.layers.mixture import mixture
from models.layers.mlp import LinearBank, MlpBank, check_layers, he_uniform, plain_uniform
from models.schema import Schema
from models.slots import STAGE, Vectors, Widths


@config
class EntryGateConfig:
    """Towers before entering a room, gated experts after it.

    Attributes:
        entering: layers of the tower of each root.
        state_before_entering: let the roots read the room's state too.
        dynamic: candidate fields that are the room's state; None takes those whose column is (`Field.is_room_state`).
        gate_hidden: units of the hidden layer of a member's gate.
        experts: how many, after entering.
        hidden: layers of an expert.
        towers: layers of each target with parents after its mixture; may be empty.
        dropout: share of each hidden layer set to 0 in training, gates' apart.
    """

    kind: Literal["entry_gate"] = "entry_gate"
    entering: tuple[int, ...] = (256, 128, 64)
    state_before_entering: bool = False
    dynamic: tuple[str, ...] | None = None
    gate_hidden: int = 32
    experts: int = 8
    hidden: tuple[int, ...] = (128, 64)
    towers: tuple[int, ...] = (32,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("entry_gate's entering", self.dropout, hidden=self.entering)
        check_layers("entry_gate", self.dropout, hidden=self.hidden, towers=self.towers)
        if min(self.gate_hidden, self.experts) < 1:
            raise ValueError(f"entry_gate needs gate_hidden >= 1 and experts >= 1, got {self.gate_hidden} and {self.experts}.")


class EntryGate(nn.Module):
    """Towers for the targets before entering a room, and gated experts for those after it.

    Raises:
        ConfigError: `dynamic` names what is no candidate field, all vectors are the room's state, or there are targets after
            entering and no state of the room.
    """

    def __init__(self, config: EntryGateConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.roots = tuple(name for name in self.targets if not schema.parents(name))
        children = tuple(name for name in self.targets if schema.parents(name))
        roles = _roles(schema, widths, config.dynamic)
        self.hidden_before = () if config.state_before_entering else roles.state
        seen = {name: width for name, width in widths.candidate.items() if name not in self.hidden_before}
        if roles.state and not roles.feed and not roles.candidate:
            raise ConfigError(
                f"entry_gate has nothing to look at beside the real-time state of the room ({', '.join(roles.state)}). Give "
                "the schema fields of the user or of the room itself, or name fewer fields in `fusion.dynamic`."
            )
        self.entering = MixedBank(len(self.roots), Widths(feed=widths.feed, candidate=seen), config.entering, config.dropout)
        self.after = AfterEntering(config, children, roles, widths) if children else None
        self.widths = dict.fromkeys(self.targets, self.entering.width)
        if self.after is not None:
            self.widths.update(dict.fromkeys(children, self.after.towers.width))
        self.expert_names = dict.fromkeys(children, tuple(f"expert {number + 1}" for number in range(config.experts)))

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        seen = {name: values for name, values in vectors.candidate.items() if name not in self.hidden_before}
        found = dict(zip(self.roots, self.entering(replace(vectors, candidate=seen)).unbind(0), strict=True))
        if self.after is not None:
            found.update(self.after(vectors))
        return {name: found[name] for name in self.targets}

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        """Of the targets with parents; a root has none."""
        return {} if self.after is None else self.after.gates(vectors)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The names of the vectors that make up the room's state, and of those that make up each member."""

    state: tuple[str, ...]
    feed: tuple[tuple[str, ...], ...]
    candidate: tuple[tuple[str, ...], ...]


def _roles(schema: Schema, widths: Widths, dynamic: tuple[str, ...] | None) -> Roles:
    fields = schema.fields_of("candidate")
    unknown = sorted(set(dynamic or ()) - {field.name for field in fields})
    if unknown:
        raise ConfigError(
            f"`fusion.dynamic` names {', '.join(unknown)}, but candidate fields are: "
            f"{', '.join(field.name for field in fields)}."
        )
    state = [field.name for field in fields if (field.is_room_state if dynamic is None else field.name in dynamic)]
    at_entrance = [field.name for field in fields if field.name not in state]
    of_feed = [STAGE, *(field.name for field in schema.fields_of("feed"))]
    return Roles(
        state=tuple(state),
        feed=_members(widths.feed, of_feed),
        candidate=_members([name for name in widths.candidate if name not in state], at_entrance),
    )


def _members(names: Iterable[str], together: list[str]) -> tuple[tuple[str, ...], ...]:
    """Those of `names` that belong together as one member if there are any, and each of the others as one of its own."""
    names = list(names)
    one = tuple(name for name in names if name in together)
    return (*([one] if one else []), *((name,) for name in names if name not in together))


class AfterEntering(nn.Module):
    """Gated members and the room's state through a mixture of experts: `Vectors` -> [N, H] by target."""

    def __init__(self, config: EntryGateConfig, targets: tuple[str, ...], roles: Roles, widths: Widths) -> None:
        super().__init__()
        if not roles.state:
            raise ConfigError(
                f"entry_gate looks at {', '.join(targets)} through the real-time state of the room, but no candidate field "
                "is any. Give the schema fields of columns `state.*`, `product.*` or `room_entries.*`, name fields that are "
                "in `fusion.dynamic`, or use fusion `mmoe`."
            )
        self.targets = targets
        self.roles = roles
        self.drop = Dropout(config.dropout)
        self.experts = config.experts
        state = sum(widths.candidate[name] for name in roles.state)
        members = len(roles.feed) + len(roles.candidate)
        self.gate_hidden = MlpBank(members, state, (config.gate_hidden,), dropout=0.0)
        self.gate = LinearBank(members, config.gate_hidden, 1, before_relu=False)
        of_feed = [sum(widths.feed[name] for name in member) for member in roles.feed]
        of_candidate = state + sum(widths.candidate[name] for member in roles.candidate for name in member)
        self.first = GatedLinear(of_feed, of_candidate, config.experts * config.hidden[0], before_relu=True)
        self.rest = MlpBank(config.experts, config.hidden[0], config.hidden[1:], config.dropout)
        self.expert_scores = GatedLinear(of_feed, of_candidate, len(targets) * config.experts, before_relu=False)
        self.towers = MlpBank(len(targets), self.rest.width, config.towers, config.dropout)

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        gated = self._gated(vectors)
        first_NB = self.drop(self.first(gated).relu_(), vectors.rows_N)
        experts_ENH = self.rest(first_NB.unflatten(1, (self.experts, -1)).transpose(0, 1), vectors.rows_N)
        mixed_TNH = mixture(self._scores_NTE(gated), experts_ENH.transpose(0, 1))
        return dict(zip(self.targets, self.towers(mixed_TNH, vectors.rows_N).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        """Weights [N, E] of the experts by target."""
        return dict(zip(self.targets, self._scores_NTE(self._gated(vectors)).softmax(2).unbind(1), strict=True))

    def importance_NM(self, vectors: Vectors) -> Tensor:
        """Eq. 12, in (0, 1): members of the feed first, then the candidate's; at least float32."""
        state_ND = _side_by_side(vectors.candidate, self.roles.state)
        hidden_MNH = self.gate_hidden(state_ND.expand(self.gate.weight_BIH.shape[0], -1, -1))
        return at_least_float32(self.gate(hidden_MNH)).sigmoid().squeeze(2).T

    def _scores_NTE(self, gated: "Gated") -> Tensor:
        return self.expert_scores(gated).unflatten(1, (len(self.targets), -1))

    def _gated(self, vectors: Vectors) -> "Gated":
        gate_NM = self.importance_NM(vectors)
        places = None
        if self.roles.feed:
            feeds = len(vectors.feed[self.roles.feed[0][0]])
            places = grid(vectors.feed_of_candidate_N, feeds)
        own = [_side_by_side(vectors.candidate, member) for member in self.roles.candidate]
        gates = gate_NM[:, len(self.roles.feed) :].unbind(1)
        gated = [member_NW * gate_N.unsqueeze(1).to(member_NW.dtype) for member_NW, gate_N in zip(own, gates, strict=True)]
        return Gated(
            feed=[_side_by_side(vectors.feed, member) for member in self.roles.feed],
            gate_NI=gate_NM[:, : len(self.roles.feed)],
            candidate_NC=torch.cat([_side_by_side(vectors.candidate, self.roles.state), *gated], dim=1),
            places=places,
        )


@dataclass(frozen=True, kw_only=True)
class Gated:
    """[e_d, w_1 F_1, w_2 F_2, ...], the feed's members still apart from their gates.

    Attributes:
        feed: the feed's members [R, W].
        gate_NI: their gates.
        candidate_NC: e_d and the candidate's members times their gates, side by side.
        places: of the candidates; None without members of the feed.
    """

    feed: list[Tensor]
    gate_NI: Tensor
    candidate_NC: Tensor
    places: Grid | None


class GatedLinear(nn.Module):
    """`Gated` -> [N, H], linear in e_d and the gated members; see the head of this file.

    Args:
        feed: width of each member of the feed.
        candidate: width of all the rest.
        before_relu: which initial weights to draw, see `layers.mlp`.
    """

    def __init__(self, feed: list[int], candidate: int, outputs: int, *, before_relu: bool) -> None:
        super().__init__()
        draw, inputs = (he_uniform if before_relu else plain_uniform), sum(feed) + candidate
        self.members = feed
        self.feed = draw(sum(feed), outputs, inputs=inputs) if feed else None
        self.candidate = draw(candidate, outputs, inputs=inputs)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, gated: Gated) -> Tensor:
        output_NH = torch.addmm(self.bias, gated.candidate_NC, self.candidate)
        if self.feed is None or gated.places is None:
            return output_NH
        pairs = zip(gated.feed, self.feed.split(self.members), strict=True)
        product_RIH = torch.stack([member_RW @ weight_WH for member_RW, weight_WH in pairs], dim=1)
        product_GIH = gated.places.of_feed(product_RIH)
        gate_GSI = gated.places.lay(gated.gate_NI).to(product_GIH.dtype)
        return output_NH.add_(gated.places.pick(gate_GSI @ product_GIH))


def _side_by_side(vectors: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor:
    return torch.cat([vectors[name] for name in names], dim=1)
