"""Requests and what the store knows, as raw feeds in exactly the columns that offline feeds have.

Precedence, column by column: what the request says, else what the store holds, else the default of a user, room or
streamer that nothing has happened to: counts 0, everything else missing. Counts and preferences of the store are those
at the end of the log it was built from; hours are counted up to the request's own moment.

# R feeds, N candidates
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.encode.plan import RawFeeds
from pipelines.serve.candidate_part import CandidatePart
from pipelines.serve.feed_part import FeedPart
from pipelines.serve.records import User
from pipelines.serve.store import Store
from pipelines.serve.told import Told
from pipelines.serve.wanted import Wanted


@dataclass(frozen=True)
class Assembled:
    """Raw feeds, and what is to be said about them.

    Attributes:
        feeds: one a request.
        user_known_R: whether anything was read of the user, stored or told.
        room_known_N: whether each room's features are stored or were told.
    """

    feeds: RawFeeds
    user_known_R: list[bool]
    room_known_N: np.ndarray


class Assembler:
    """Makes raw feeds of a schema's requests with what a store knows; without a store all must come with the request."""

    def __init__(self, wanted: Wanted, store: Store | None) -> None:
        self._wanted, self._store = wanted, store
        self._feed, self._candidate = FeedPart(wanted, store), CandidatePart(wanted, store)

    def __call__(self, requests: Sequence[Told]) -> Assembled:
        lengths_R = np.array([len(request.room_N) for request in requests])
        starts = [0, *np.cumsum(lengths_R).tolist()]
        at_R = np.array([request.at for request in requests])
        users = [self._user(request.user_id) for request in requests]
        of_candidates, found_N = self._candidate.columns(requests, users, np.repeat(at_R, lengths_R), starts)
        feeds = RawFeeds(
            at_R=at_R,
            lengths_R=lengths_R,
            feed=self._feed.columns(requests, users, at_R),
            candidate=of_candidates,
            histories={name: self._feed.history(name, requests, users) for name in self._wanted.histories},
        )
        return Assembled(
            feeds=feeds,
            user_known_R=[
                request.of_user or (user is not None and self._wanted.reads_users)
                for request, user in zip(requests, users, strict=True)
            ],
            room_known_N=found_N | np.concatenate([request.has_features_N for request in requests]),
        )

    def _user(self, user_id: int | None) -> User | None:
        return None if self._store is None or user_id is None else self._store.user(user_id)
