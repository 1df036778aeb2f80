"""Pooling that padding never reaches.

# R feeds, L history length, D width
"""

from torch import Tensor


def masked_mean(values_RLD: Tensor, is_real_RL: Tensor) -> Tensor:
    """[R, D]: mean over the real entries; zeros where there is none."""
    real_RL = is_real_RL.to(values_RLD.dtype)
    share_RL = real_RL / real_RL.sum(1, keepdim=True).clamp(min=1)
    return (share_RL.unsqueeze(1) @ values_RLD).squeeze(1)
