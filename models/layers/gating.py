"""Gates over a history's entries, which the user's vector helps to open (Ma, Kang and Liu 2019, "Hierarchical gating
networks for sequential recommendation", Sec. 4.2 and 4.3).

    # R feeds, L history length, P places, D width of an entry, U width of the user's vector

With entry s_i and user u, first the features of an entry, then the entry as a whole:

    f_i = s_i * sigmoid(s_i Wg1 + u Wg2 + b),     h_i = f_i sigmoid(f_i . w + u Wg4[i]).

Where we differ: the entry at place i is the i-th from the newest on, since histories here end at different places; those
older than the last place share it. The user's vector may have another width than the entries.
"""

import torch
from torch import Tensor, nn

from models.layers.mlp import plain_uniform


class HierarchicalGating(nn.Module):
    """Gated entries, [R, L, D] -> [R, L, D]; work of R rows, whatever the candidates.

    Args:
        longest: entries of the longest history.
    """

    def __init__(self, width: int, user_width: int, longest: int) -> None:
        super().__init__()
        self.feature_DD = plain_uniform(width, width, inputs=width + user_width)
        self.feature_user_UD = plain_uniform(user_width, width, inputs=width + user_width)
        self.feature_bias_D = nn.Parameter(torch.zeros(width))
        self.instance_D1 = plain_uniform(width, 1, inputs=width + user_width)
        self.instance_user_UP = plain_uniform(user_width, longest, inputs=width + user_width)

    def forward(self, values_RLD: Tensor, user_RU: Tensor, is_real_RL: Tensor) -> Tensor:
        """Padding gives values that must be masked, of place 0."""
        from_user_RD = torch.addmm(self.feature_bias_D, user_RU, self.feature_user_UD)
        gated_RLD = values_RLD * (values_RLD @ self.feature_DD + from_user_RD.unsqueeze(1)).sigmoid()
        longest = self.instance_user_UP.shape[1]
        ago_RL = is_real_RL.sum(1, keepdim=True) - 1 - torch.arange(is_real_RL.shape[1], device=is_real_RL.device)
        of_place_RL = (user_RU @ self.instance_user_UP).gather(1, ago_RL.clamp(0, longest - 1))
        return gated_RLD * ((gated_RLD @ self.instance_D1).squeeze(2) + of_place_RL).sigmoid().unsqueeze(2)
