"""Which histories are read, and how often a candidate's own attributes stand in them.

# N candidates, R feeds, L history length, M matched fields
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.batch import FeedBatch
from models.config import ConfigError
from models.schema import Schema

WIDTH_PER_FIELD = 2


def matches(batch: FeedBatch, schema: Schema, history: str, dtype: torch.dtype) -> Tensor:
    """[N, 2 M]: per matched field the share of real entries that hold the candidate's row, and log1p of their number.

    Row 0 (unknown or missing) matches nothing. Counting on ids is exact where attention has to learn equality.
    """
    rows, is_real_RL = batch.histories[history].rows, batch.histories[history].is_real_RL
    is_real_NL = is_real_RL[batch.feed_of_candidate_N]
    length_N = is_real_NL.sum(1).clamp(min=1)
    found: list[Tensor] = []
    for item, field in schema.matches(history):
        row_N1 = batch.candidate[field.name].unsqueeze(1)
        same_NL = (rows[item.name][batch.feed_of_candidate_N] == row_N1) & is_real_NL & (row_N1 > 0)
        count_N = same_NL.sum(1)
        found += [count_N / length_N, count_N.log1p()]
    return torch.stack(found, dim=1).to(dtype)


def width(schema: Schema, history: str) -> int:
    return WIDTH_PER_FIELD * len(schema.matches(history))


def chosen(schema: Schema, names: Sequence[str] | None) -> tuple[str, ...]:
    """The histories an interest reads: all of the schema, or those named by their own name or by their kind of events.

    Raises:
        ConfigError: a name that is neither a history nor the events of one.
    """
    known = {history.name: history.events for history in schema.histories}
    if names is None:
        return tuple(known)
    for name in names:
        if name not in known and name not in known.values():
            listed = ", ".join(f"{history} ({events})" for history, events in known.items()) or "none"
            raise ConfigError(f"interest reads history `{name}`, which the schema does not have. Histories: {listed}.")
    return tuple(history for history, events in known.items() if history in names or events in names)


def domains(schema: Schema, interest: str) -> tuple[str, str]:
    """Names of the one history of rooms and of the one history of products.

    Raises:
        ConfigError: the schema does not have one of each.
    """
    by_events = {
        events: [history.name for history in schema.histories if history.events == events]
        for events in ("engagements", "product_clicks")
    }
    if any(len(names) != 1 for names in by_events.values()):
        found = "; ".join(f"{events}: {', '.join(names) or 'none'}" for events, names in by_events.items())
        raise ConfigError(
            f"interest `{interest}` is defined between two domains, so it needs one history of engagements and one of "
            f"product_clicks. The schema has {found}. Take an interest that reads any histories, such as `eta`."
        )
    return by_events["engagements"][0], by_events["product_clicks"][0]
