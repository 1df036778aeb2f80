"""Pooling that padding never reaches.

# R feeds, L history length, D width
"""

import torch
from torch import Tensor


def masked_mean(values_RLD: Tensor, is_real_RL: Tensor) -> Tensor:
    """[R, D]: mean over the real entries; zeros where there is none."""
    real_RL = is_real_RL.to(values_RLD.dtype)
    share_RL = real_RL / real_RL.sum(1, keepdim=True).clamp(min=1)
    return (share_RL.unsqueeze(1) @ values_RLD).squeeze(1)


def masked_max(values_RLD: Tensor, is_real_RL: Tensor) -> Tensor:
    """[R, D]: the largest of the real entries, in each place of the width; zeros where there is none."""
    if not values_RLD.shape[1]:
        return values_RLD.sum(1)
    lowest = torch.finfo(values_RLD.dtype).min
    largest_RD = values_RLD.masked_fill(~is_real_RL.unsqueeze(2), lowest).amax(1)
    return largest_RD.masked_fill(~is_real_RL.any(1, keepdim=True), 0)


def masked_softmax(scores: Tensor, is_real: Tensor) -> Tensor:
    """Softmax over the real entries of the last dimension; zeros for padding, also where nothing is real.

    Args:
        is_real: bool, broadcast to the shape of `scores`.
    """
    # the lowest number rather than -inf: all padding gives equal weights, zeroed below, and not nan
    weights = scores.masked_fill(~is_real, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~is_real, 0)
