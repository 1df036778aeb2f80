"""Orders and stretches of rows, by integers alone."""

import numpy as np


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Positions at which any of the columns differs from the row before; the first row is one."""
    new = np.ones(len(columns[0]), bool)
    if len(new):
        np.not_equal(columns[0][1:], columns[0][:-1], out=new[1:])
        for column in columns[1:]:
            new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


def stable_order(code: np.ndarray) -> np.ndarray:
    """The order that sorts small non-negative integers and keeps equal ones as they stand."""
    if not len(code):
        return np.zeros(0, np.int64)
    starts = run_starts(code)
    if len(starts) < len(code) // 2:  # logs come request by request: sort the runs
        order = stable_order(code[starts])
        return spread(starts[order], np.diff(starts, append=len(code))[order])[0]
    bits = (len(code) - 1).bit_length()
    if int(code.max()).bit_length() + bits > 63:
        return np.argsort(code, kind="stable")
    return np.sort((code.astype(np.int64) << bits) | np.arange(len(code))) & ((1 << bits) - 1)


def spread(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions `start .. start + length` of all ranges behind each other, and the offsets of the ranges among them."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets
