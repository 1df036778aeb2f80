"""Histories: what a user had done and was known before a moment.

An entry counts from the moment it is known: an entered room when the stay is over, a clicked product at once.
Entries stand in the order in which they became known, so what a feed may see is always one range of them.

    # E entries of a domain, Q questions, U users
"""

import numpy as np

from models.schema import History
from pipelines.prepare.timeline import Moments


class Entries:
    """One history's entries of all users of a bucket.

    Attributes:
        order_E: the entries by user and moment known, as positions in what was given.
    """

    def __init__(self, history: History, moments: Moments, user_E: np.ndarray, known_at_E: np.ndarray) -> None:
        key_E = moments.pack(user_E, known_at_E)
        self.order_E = np.argsort(key_E, kind="stable")
        self.key_E = key_E[self.order_E]
        self.first_U = np.searchsorted(self.key_E, moments.borders())
        self.moments = moments
        self.length = history.length

    def before(self, user_Q: np.ndarray, at_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and length of the range of `order_E` that a user at a moment may see: the last ones known before it."""
        end_Q = np.searchsorted(self.key_E, self.moments.pack(user_Q, at_Q))
        start_Q = np.maximum(self.first_U[user_Q], end_Q - self.length)
        return start_Q, end_Q - start_Q
