"""A history and the candidates that it is compared with, in one space.

    # R feeds, N candidates, L history length, E width of an entry, M width of its matched part, C of a candidate's fields,
    # D width of the space

An entry of a history and a candidate share attributes (`schema.matches`), which read the same tables. These go through
one projection on both sides, so that a dot product compares like with like from the first step on; what only one side has
is added by a projection of its own. The papers have one embedding of a channel, target or not; this is it, for schemas in
which entry and candidate know different things.
"""

import torch
from torch import Tensor, nn

from models.layers.embedding import Embedded, InterestInputs
from models.layers.mlp import plain_uniform
from models.schema import Schema


class Domain(nn.Module):
    """Entries [R, L, D] and candidates [N, D] of one history. Float fields of candidates are not read.

    Args:
        asks: whether candidates come in at all.
    """

    def __init__(self, schema: Schema, history: str, inputs: InterestInputs, width: int, *, asks: bool = True) -> None:
        super().__init__()
        self.history, self.width = history, width
        matched = [field.name for _, field in schema.matches(history)]
        rest = [field.name for field in schema.fields_of("candidate") if not field.is_number and field.name not in matched]
        self.fields = (*matched, *rest)
        widths = inputs.histories[history]
        other = sum(inputs.fields.candidate[name] for name in rest)
        self.matched_MD = plain_uniform(widths.matched, width, inputs=widths.entry)
        only_entry = widths.entry - widths.matched
        self.entry_ED = plain_uniform(only_entry, width, inputs=widths.entry) if only_entry else None
        self.candidate_CD = plain_uniform(other, width, inputs=widths.matched + other) if other and asks else None
        self.entry_bias_D = nn.Parameter(torch.zeros(width))
        self.candidate_bias_D = nn.Parameter(torch.zeros(width)) if asks else None

    def entries(self, embedded: Embedded) -> Tensor:
        """[R, L, D]; padding holds values that must be masked."""
        return self.in_space(embedded.histories[self.history].entries_RLE)

    def in_space(self, entries: Tensor) -> Tensor:
        """Entries of the history, or of others like it: [..., E] -> [..., D]."""
        weight_ED = self.matched_MD if self.entry_ED is None else torch.cat([self.matched_MD, self.entry_ED])
        return entries @ weight_ED + self.entry_bias_D

    def candidates(self, embedded: Embedded) -> Tensor:
        """[N, D]."""
        assert self.candidate_bias_D is not None
        fields_NC = torch.cat([embedded.candidate[name] for name in self.fields], dim=1)
        weight_CD = self.matched_MD if self.candidate_CD is None else torch.cat([self.matched_MD, self.candidate_CD])
        return torch.addmm(self.candidate_bias_D, fields_NC, weight_CD)
