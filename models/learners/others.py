"""Entries of other users' histories, for losses that tell a user's own next entry from one of somebody else.

Every feed gives the newest entry of its history to a pool, all workers together, and draws one of another user from it. The
pool is sorted and drawn from by hashes (`layers.draws`), so that workers which share a batch draw what one worker would.

    # R feeds of this worker, P feeds of all workers that have an entry, F fields of an entry
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.batch import FeedBatch, HistoryBatch, Others
from models.layers.draws import hash_R, uniform_R
from models.learners.workers import WorkerGroup
from models.schema import Schema

SALT = 5000  # of the pool's order, and one more of the draws from it


def with_others(
    batch: FeedBatch | None,
    names: Sequence[str],
    schema: Schema,
    progress: float,
    group: WorkerGroup,
    device: torch.device,
) -> FeedBatch | None:
    """The batch with an entry of another user beside each of the named histories; every worker takes part.

    Args:
        batch: this worker's share; None if it has run out of data, which gives None.
        device: of the batch.
    """
    found: dict[str, HistoryBatch] = {}
    for name in names:
        fields = [field.name for field in schema.history(name).fields]
        nobody = torch.zeros(0, dtype=torch.int64, device=device)
        own_P, own_PF = nobody, nobody.new_zeros(0, len(fields))
        if batch is not None:
            has_entry_R, newest_RF = _newest(batch.histories[name], fields)
            own_P, own_PF = batch.user_R[has_entry_R], newest_RF[has_entry_R]
        users_P, rows_PF = group.gather_rows(own_P, own_PF)
        if batch is not None:
            drawn = _drawn(batch, newest_RF, users_P, rows_PF, progress)
            found[name] = replace(batch.histories[name], others=_named(drawn, has_entry_R, fields))
    return None if batch is None else replace(batch, histories={**batch.histories, **found})


def _newest(history: HistoryBatch, fields: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Which feeds have an entry, bool [R], and the rows of the newest one [R, F]; row 0 where there is none."""
    length_R = history.is_real_RL.sum(1)
    if not history.is_real_RL.shape[1]:
        return length_R > 0, length_R.new_zeros(len(length_R), len(fields))
    place_R1 = (length_R - 1).clamp(min=0).unsqueeze(1)
    newest_RF = torch.cat([history.rows[name].gather(1, place_R1) for name in fields], dim=1)
    return length_R > 0, newest_RF * (length_R > 0).unsqueeze(1)


def _drawn(batch: FeedBatch, newest_RF: Tensor, users_P: Tensor, rows_PF: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """Rows of a drawn entry [R, F], and whether it is another user's and differs from the own newest one, bool [R]."""
    everyone = len(users_P)
    key_P = hash_R(users_P, progress, SALT)
    order_P = torch.arange(everyone, device=users_P.device)
    for column_P in (*rows_PF.unbind(1), key_P):  # by user, one's entries among each other by their rows
        order_P = order_P[column_P[order_P].argsort(stable=True)]
    key_P, rows_PF = key_P[order_P], rows_PF[order_P]
    own_R = hash_R(batch.user_R, progress, SALT)
    first_R, behind_R = (torch.searchsorted(key_P, own_R, right=right) for right in (False, True))
    others_R = everyone - (behind_R - first_R)
    place_R = (uniform_R(batch, progress, SALT + 1) * others_R).to(torch.int64)
    place_R = place_R + (place_R >= first_R) * (behind_R - first_R)  # past the own ones
    if not everyone:
        return torch.zeros_like(newest_RF), torch.zeros_like(own_R, dtype=torch.bool)
    drawn_RF = rows_PF[place_R.clamp(max=everyone - 1)]
    return drawn_RF, (others_R > 0) & (drawn_RF != newest_RF).any(1)


def _named(drawn: tuple[Tensor, Tensor], has_entry_R: Tensor, fields: Sequence[str]) -> Others:
    drawn_RF, differs_R = drawn
    rows: Mapping[str, Tensor] = dict(zip(fields, drawn_RF.unbind(1), strict=True))
    return Others(rows=dict(rows), is_asked_R=has_entry_R & differs_R)
