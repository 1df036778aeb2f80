"""What all candidates of a request share: columns of the user and of the context, and the user's histories.

# R feeds, C columns, E entries
"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.catalogue import CONTEXT, Hours
from pipelines.encode.plan import Flat, RawHistory
from pipelines.serve.given import DTYPES, hours_before
from pipelines.serve.records import Block, User
from pipelines.serve.store import Store
from pipelines.serve.told import Told
from pipelines.serve.wanted import Wanted


class FeedPart:
    """How columns of feeds come about: what is told, else what the store holds, else the default."""

    def __init__(self, wanted: Wanted, store: Store | None) -> None:
        self._wanted = wanted
        self._layout = None if store is None else store.users.plain
        places = () if self._layout is None else self._layout.place
        self._columns = [
            (known, DTYPES[wanted.kinds[name]], known.of != CONTEXT and known.stored in places)
            for name, known in wanted.feed.items()
        ]

    def columns(self, requests: Sequence[Told], users: Sequence[User | None], at_R: np.ndarray) -> dict[str, Flat]:
        """[R] by column.

        Args:
            users: as the store knows them.
        """
        feeds = len(requests)
        stored = self._stacked(users)
        is_unknown_R = np.array([user is None for user in users], np.bool_)
        found: dict[str, Flat] = {
            "user_id": Flat(
                np.array([request.user_id or 0 for request in requests], np.int64),
                np.array([request.user_id is not None for request in requests], np.bool_),
            )
        }
        for column, dtype, is_stored in self._columns:
            if is_stored and stored is not None:
                values_R, known_R = stored.column(column.stored)
                if isinstance(column.how, Hours):
                    values_R, known_R = hours_before(values_R, known_R, at_R)
                values_R = values_R.astype(dtype)
                known_R = known_R | is_unknown_R if column.is_count else known_R.copy()
            else:
                values_R, known_R = np.zeros(feeds, dtype), np.full(feeds, column.is_count)
            for feed, request in enumerate(requests):
                if (value := request.feed.get(column.name)) is not None:
                    values_R[feed], known_R[feed] = value.values[0], value.known[0]
            found[column.name] = Flat(values_R, known_R)
        return found

    def history(self, name: str, requests: Sequence[Told], users: Sequence[User | None]) -> RawHistory:
        """The last entries that were known before each request."""
        parts = [self._entries(name, request, user) for request, user in zip(requests, users, strict=True)]
        lengths_R = np.array([len(part["at"].values) for part in parts])
        if len(parts) == 1:
            return RawHistory(lengths_R, parts[0])
        together = lambda each: Flat(np.concatenate([one.values for one in each]), np.concatenate([one.known for one in each]))
        return RawHistory(lengths_R, {key: together([part[key] for part in parts]) for key in self._wanted.histories[name]})

    def _entries(self, name: str, request: Told, user: User | None) -> Mapping[str, Flat]:
        if name in request.histories:
            return request.histories[name]
        inner = self._wanted.histories[name]
        dtypes = {key: DTYPES[self._wanted.kinds[f"{name}.{key}"]] for key in inner}
        if user is None:
            return {key: Flat(np.zeros(0, dtypes[key]), np.zeros(0, np.bool_)) for key in inner}
        block = user.lists[name]
        past = block.column(f"{name}.at")[0] < request.at
        which = slice(None) if past.all() else past
        last = slice(-self._wanted.schema.history(name).length, None)
        found = {}
        for key in inner:
            values, known = block.column(f"{name}.{key}")
            found[key] = Flat(values[which][last].astype(dtypes[key], copy=False), known[which][last])
        return found

    def _stacked(self, users: Sequence[User | None]) -> Block | None:
        """Columns of all users, missing of those that the store does not know; None without a store."""
        if self._layout is None:
            return None
        nobody = self._layout.block([], 1)
        blocks = [nobody if user is None else user.plain for user in users]
        if len(blocks) == 1:
            return blocks[0]
        return Block(
            self._layout,
            np.concatenate([block.values_CN for block in blocks], axis=1),
            np.concatenate([block.known_CN for block in blocks], axis=1),
        )
