"""A request to try an endpoint with: a user and rooms of the last prepared feeds."""

import pyarrow.parquet as pq

from models.catalogue import CONTEXT, ROOM, USER, find, logged
from models.config import ConfigError
from pipelines.prepared import Prepared
from pipelines.serve.given import spelled
from pipelines.serve.request import Body

_ROOMS = 20


def example_request(prepared: Prepared, *, k: int = 5) -> Body:
    """The last test (else validation, else training) feed's user, and the rooms shown last, for `POST /rank`.

    Features come from the store, so only what surrounds the request is given.

    Raises:
        ConfigError: no feed was prepared.
    """
    for split in ("test", "valid", "train"):
        files = prepared.features(split)
        if files:
            break
    else:
        raise ConfigError(f"{prepared.path} holds no feeds.")
    table = pq.read_table(files[-1], partitioning=None).sort_by("at")
    last = table.slice(table.num_rows - 1).to_pylist()[0]
    most = prepared.encoder.largest_feed if prepared.schema.list_context else _ROOMS
    rooms: dict[int, None] = dict.fromkeys(last["room_id"])
    for feed in reversed(table.column("room_id").slice(max(0, table.num_rows - _ROOMS)).to_pylist()):
        rooms.update(dict.fromkeys(feed))
    ids = prepared.encoder.ids
    context = {name: find(name) for name in logged(last, CONTEXT) if last[name] is not None}
    return {
        "user_id": spelled(last["user_id"], ids.get(USER.key)),
        "at": last["at"],
        "context": {known.member: last[name] for name, known in context.items() if known is not None},
        "candidates": [{"room_id": spelled(room, ids.get(ROOM.key))} for room in list(rooms)[: min(most, _ROOMS)]],
        "k": k,
    }


def as_table(answer: Body) -> str:
    """An answer of `POST /rank` as lines to read."""
    targets = list(answer["ranked"][0]["predictions"])
    widths = [max(9, len(name)) for name in targets]
    lines = [
        "  ".join([f"{'':>4} {'room':>20} {'score':>9}", *(f"{name:>{w}}" for name, w in zip(targets, widths, strict=True))])
    ]
    for place, room in enumerate(answer["ranked"], start=1):
        cells = [f"{room['predictions'][name]:>{w}.4f}" for name, w in zip(targets, widths, strict=True)]
        lines.append("  ".join([f"{place:>3}. {room['room_id']:>20} {room['score']:>9.4f}", *cells]))
    return "\n".join(lines)
