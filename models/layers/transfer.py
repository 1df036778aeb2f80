"""Information passed along a graph of vectors by attention, as in AITM and its descendants.

    # B members of a bank, A vectors that one attends over, N candidates, H width

A node attends over its own vector and its parents' messages; a message is a linear map of what a parent has become
itself, and a ReLU.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from models.layers.graph import generations
from models.layers.mlp import LinearBank, plain_uniform

PassedOn = Callable[[str, Tensor, Tensor], Tensor]
"""(node, what it has become [N, H], its message [N, H]) -> the message as children get it."""


class TransferAttention(nn.Module):
    """B attentions over A vectors each (Xi et al. 2021, Eq. 3-4; Weng et al. 2023, Eq. 1-3),

        sum_a w_a V(a),   w_a = softmax_a(Q(a) . K(a) / sqrt(H)),

    with linear Q, K, V without bias. A vector scores itself: there is no query from another one. Being linear, V is
    applied once, to the weighted sum, and Q(a) . K(a) = a Q K' a' with the product Q K' made once per step; that halves the
    arithmetic and changes no number.
    """

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(width)
        self.query_BHH = plain_uniform(members, width, width, inputs=width)
        self.key_BHH = plain_uniform(members, width, width, inputs=width)
        self.value_BHH = plain_uniform(members, width, width, inputs=width)

    def forward(self, x_BANH: Tensor) -> tuple[Tensor, Tensor]:
        """The attended vector [B, N, H] and the weights [B, A, N]."""
        flat_BMH = x_BANH.flatten(1, 2)
        score_BM = (torch.bmm(flat_BMH, torch.bmm(self.query_BHH, self.key_BHH.transpose(1, 2))) * flat_BMH).sum(2)
        weight_BAN = (score_BM.unflatten(1, x_BANH.shape[1:3]) * self.scale).softmax(1)
        return torch.bmm((weight_BAN.unsqueeze(3) * x_BANH).sum(1), self.value_BHH), weight_BAN


class Transfer(nn.Module):
    """Walks an acyclic graph of nodes with a vector each, parents first.

    A node with parents becomes the attention over its own vector and the parents' messages, plus its own vector if
    `residual`; a node without becomes its own vector. Only nodes with children have a message.

    Args:
        parents: of every node.
        widths: of every node's vector. Vectors narrower than the widest are first mapped, linearly, to its width.

    Attributes:
        width: of what nodes become.
        senders: nodes with children.
    """

    def __init__(self, parents: Mapping[str, tuple[str, ...]], widths: Mapping[str, int], *, residual: bool) -> None:
        super().__init__()
        self.width = max(widths.values())
        self.senders = tuple(name for name in parents if any(name in above for above in parents.values()))
        self.narrow = tuple(name for name in parents if widths[name] < self.width)
        self.widened = nn.ModuleList([LinearBank(1, widths[name], self.width, before_relu=False) for name in self.narrow])
        self.generations = nn.ModuleList(
            [Generation(group, parents, self.senders, self.width, residual=residual) for group in generations(parents)]
        )

    def forward(
        self, vectors: Mapping[str, Tensor], passed_on: PassedOn | None = None
    ) -> tuple[dict[str, Tensor], dict[tuple[str, str], Tensor]]:
        """What every node becomes [N, H], and by (parent, child) the weight [N] of the parent's message in the child.

        Args:
            vectors: [N, width] of every node.
            passed_on: what a message goes through before children get it; None for nothing.
        """
        own = dict(vectors)
        for name, widen in zip(self.narrow, self.widened, strict=True):
            own[name] = widen(own[name].unsqueeze(0)).squeeze(0)
        become: dict[str, Tensor] = {}
        messages: dict[str, Tensor] = {}
        weights: dict[tuple[str, str], Tensor] = {}
        for generation in self.generations:
            new, new_messages, new_weights = generation(own, messages)
            if passed_on is not None:
                new_messages = {name: passed_on(name, new[name], message) for name, message in new_messages.items()}
            become.update(new)
            messages.update(new_messages)
            weights.update(new_weights)
        return become, weights


class Generation(nn.Module):
    """Nodes with equally many parents, computed together."""

    def __init__(
        self,
        group: tuple[str, ...],
        parents: Mapping[str, tuple[str, ...]],
        senders: tuple[str, ...],
        width: int,
        *,
        residual: bool,
    ) -> None:
        super().__init__()
        self.sending = sum(name in senders for name in group)
        self.names = tuple(sorted(group, key=lambda name: name not in senders))  # senders first: their vectors are a slice
        self.parents = {name: parents[name] for name in self.names}
        self.residual = residual
        self.attention = TransferAttention(len(group), width) if parents[group[0]] else None
        self.message = LinearBank(self.sending, width, width, before_relu=True) if self.sending else None

    def forward(
        self, own: Mapping[str, Tensor], messages: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[tuple[str, str], Tensor]]:
        """What the nodes become, messages of those with children, weights by (parent, child)."""
        weights: dict[tuple[str, str], Tensor] = {}
        if self.attention is None:
            become = {name: own[name] for name in self.names}
            become_BNH = None
        else:
            heard = [each for name in self.names for each in (own[name], *(messages[parent] for parent in self.parents[name]))]
            x_BANH = torch.stack(heard).unflatten(0, (len(self.names), -1))
            become_BNH, weight_BAN = self.attention(x_BANH)
            if self.residual:
                become_BNH = become_BNH + x_BANH[:, 0]
            become = dict(zip(self.names, become_BNH.unbind(0), strict=True))
            for name, weight_AN in zip(self.names, weight_BAN.unbind(0), strict=True):
                weights.update({(parent, name): weight_AN[1 + index] for index, parent in enumerate(self.parents[name])})
        if self.message is None:
            return become, {}, weights
        senders = self.names[: self.sending]
        if become_BNH is None:
            become_BNH = torch.stack([become[name] for name in senders])
        message_BNH = self.message(become_BNH[: self.sending]).relu_()
        return become, dict(zip(senders, message_BNH.unbind(0), strict=True)), weights
