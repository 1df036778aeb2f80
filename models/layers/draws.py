"""Random numbers that belong to a row, not to a generator.

A draw is a hash of whose row it is and of how far training has come, so workers that share a batch draw what one worker
would, and a resumed training draws what the undisturbed one would.

    # R feeds, N candidates, L places of a history
"""

import struct

import torch
from torch import Tensor

from models.batch import FeedBatch


def uniform_R(batch: FeedBatch, progress: float, salt: int) -> Tensor:
    """A number in [0, 1) for every feed, float64; feeds of one user share it within a step.

    Args:
        progress: of training; another one draws anew.
        salt: tells apart what is drawn at the same time.
    """
    return _uniform(_mixed(batch.user_R + _seed(progress, salt)))


def uniform_N(batch: FeedBatch, progress: float, salt: int) -> Tensor:
    """As `uniform_R`, a number for every candidate, by its place in the feed."""
    feed_N = batch.feed_of_candidate_N
    place_N = torch.arange(len(feed_N), device=feed_N.device) - torch.searchsorted(feed_N, feed_N)
    return _uniform(_mixed(_mixed(batch.user_R + _seed(progress, salt))[feed_N] + place_N))


def uniform_RL(batch: FeedBatch, places: int, progress: float, salt: int) -> Tensor:
    """As `uniform_R`, a number for every place of a feed's history."""
    place_L = torch.arange(places, device=batch.user_R.device)
    return _uniform(_mixed(_mixed(batch.user_R + _seed(progress, salt)).unsqueeze(1) + place_L))


def _seed(progress: float, salt: int) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", progress))
    return int(_mixed(torch.tensor(bits) + salt))


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014; Stafford's variant 13) on int64, whose products wrap."""
    x = x + -0x61C8864680B583EB
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _uniform(x: Tensor) -> Tensor:
    return _shifted(x, 11).to(torch.float64) / 2**53
