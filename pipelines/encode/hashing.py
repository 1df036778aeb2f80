"""A hash of ids that is the same on all machines."""

import numpy as np


def splitmix64(values: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit hash of integers (Steele, Lea & Flood 2014), uint64, equal on all machines."""
    mixed = values.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
