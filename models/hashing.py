"""Hashes that are equal on all machines and in all versions."""

import numpy as np
from numpy.typing import NDArray


def splitmix64(values_N: NDArray) -> NDArray:
    """A well-mixed 64-bit hash of every integer (SplitMix64, Steele, Lea and Flood 2014), uint64; its products wrap."""
    mixed_N = values_N.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))
