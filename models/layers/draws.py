"""Random numbers that belong to a row, not to a generator.

A draw is a hash of whose row it is and of how far training has come, so workers that share a batch draw what one worker
would, and a resumed training draws what the undisturbed one would.

Whoever draws at the same time takes another salt: couplings and weightings that of the target's place (0, 1, ...), `dien` and
the slots of `stage` those below 0, `disentangled` 4, `learners.rebatching` 1000, `layers.unknown` 2000 and on, and
`layers.dropout` 3000, `learners.adaptive` 4000, `learners.others` 5000 and 5001.

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
    return _uniform(hash_R(batch.user_R, progress, salt))


def uniform_N(batch: FeedBatch, progress: float, salt: int) -> Tensor:
    """As `uniform_R`, a number for every candidate, by its place in the feed."""
    return _uniform(hash_N(batch, progress, salt))


def uniform_RL(batch: FeedBatch, places: int, progress: float, salt: int) -> Tensor:
    """As `uniform_R`, a number for every place of a feed's history."""
    return _uniform(hash_RL(batch, places, progress, salt))


def hash_N(batch: FeedBatch, progress: float, salt: int) -> Tensor:
    """What `uniform_N` is made of: 64 well mixed bits for every candidate, int64."""
    feed_N = batch.feed_of_candidate_N
    place_N = torch.arange(len(feed_N), device=feed_N.device) - torch.searchsorted(feed_N, feed_N)
    return mixed_in_place(hash_R(batch.user_R, progress, salt)[feed_N] + place_N)


def hash_RL(batch: FeedBatch, places: int, progress: float, salt: int) -> Tensor:
    """What `uniform_RL` is made of: 64 well mixed bits for every place of a feed's history, int64."""
    place_L = torch.arange(places, device=batch.user_R.device)
    return mixed_in_place(hash_R(batch.user_R, progress, salt).unsqueeze(1) + place_L)


def mixed_in_place(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014; Stafford's variant 13) on int64, whose products wrap."""
    x += -0x61C8864680B583EB
    x ^= _shifted(x, 30)
    x *= -0x40A7B892E31B1A47
    x ^= _shifted(x, 27)
    x *= -0x6B2FB644ECCEEE15
    x ^= _shifted(x, 31)
    return x


def hash_R(user_R: Tensor, progress: float, salt: int) -> Tensor:
    """What `uniform_R` is made of: 64 well mixed bits for every user, int64."""
    return mixed_in_place(user_R + _seed(progress, salt))


def _seed(progress: float, salt: int) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", progress))
    return int(mixed_in_place(torch.tensor(bits) + salt))


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> by).bitwise_and_((1 << (64 - by)) - 1)


def _uniform(x: Tensor) -> Tensor:
    return _shifted(x, 11).to(torch.float64) / 2**53
