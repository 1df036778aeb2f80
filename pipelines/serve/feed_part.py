"""What all candidates of a request share: columns of the user and of the context, and the user's histories."""

from collections.abc import Mapping

import pyarrow as pa

from models.catalogue import CONTEXT, CONTEXT_FAMILY, ENTRIES, USER, Hours, Id
from pipelines.encode.arrays import flat
from pipelines.encode.columns import column
from pipelines.serve.given import TYPES, array_of, hours_before, one_list, plain
from pipelines.serve.request import Place, RankRequest, RequestError, Value
from pipelines.serve.wanted import Wanted


def feed_columns(
    request: RankRequest, wanted: Wanted, stored: pa.RecordBatch | None, at: int, ignored: dict[str, None]
) -> dict[str, pa.Array]:
    """Columns of the user and of the context, one value each.

    Args:
        stored: the user's row; None for a user that the store does not know.
        ignored: takes the names of what is given but not read.

    Raises:
        RequestError: a value of the wrong type, or a column that does not exist.
    """
    given: dict[str, tuple[Place, Value]] = {}
    for name, value in request.user.items():
        known = column(name, wanted.schema)
        if known is None or known.of != USER or known.is_derived or isinstance(known.how, Id):
            raise RequestError(("user", name), f"`{name}` is no column of a user. This model reads: {wanted.of_users}.")
        given[name] = (("user", name), value)
    for name, value in request.context.items():
        given[f"{CONTEXT_FAMILY}.{name}"] = (("context", name), value)
    found: dict[str, pa.Array] = {}
    for name, known in wanted.feed.items():
        if name in given:
            place, value = given.pop(name)
            found[name] = array_of([value], wanted.kinds[name], [place])
        elif stored is None or known.of == CONTEXT or known.stored not in stored.schema.names:
            found[name] = pa.array([0 if known.is_count else None], TYPES[wanted.kinds[name]])
        elif isinstance(known.how, Hours):
            hours, is_known = hours_before(*plain(stored[known.stored]), at)
            found[name] = pa.array(hours, mask=~is_known)
        else:
            found[name] = stored[known.stored]
    ignored.update(dict.fromkeys(given))
    return found


def history_columns(
    request: RankRequest, wanted: Wanted, name: str, stored: pa.RecordBatch | None, at: int, ignored: dict[str, None]
) -> dict[str, pa.Array]:
    """A history's columns, one list each: the last entries that were known before the request.

    Raises:
        RequestError: as `feed_columns`, or an entry that is not in the past.
    """
    history = wanted.schema.history(name)
    inner = wanted.histories[name]
    if name in request.histories:
        entries = request.histories[name]
        kept = range(max(0, len(entries) - history.length), len(entries))
        for place, entry in enumerate(entries):
            _check_moment(entry, at, ("histories", name, place))
            for key in entry:
                if key not in inner:
                    known = ENTRIES[history.events].find(key)
                    if known is None or known.is_derived:
                        raise RequestError(
                            ("histories", name, place, key),
                            f"entries of {history.events} have no `{key}`; {name} reads {', '.join(inner)}.",
                        )
                    ignored[f"{name}.{key}"] = None
        columns = {}
        for item in inner:
            values = [entries[place].get(item) for place in kept]
            places: list[Place] = [("histories", name, place, item) for place in kept]
            full = f"{name}.{item}"
            columns[full] = one_list(array_of(values, wanted.kinds[full], places, wanted.ids_of(full)))
        return columns
    if stored is None:
        return {f"{name}.{item}": one_list(pa.array([], TYPES[wanted.kinds[f"{name}.{item}"]])) for item in inner}
    past = flat(stored[f"{name}.at"]).to_numpy() < at
    if past.all():
        return {f"{name}.{item}": stored[f"{name}.{item}"] for item in inner}
    return {f"{name}.{item}": one_list(flat(stored[f"{name}.{item}"]).filter(pa.array(past))) for item in inner}


def _check_moment(entry: Mapping[str, Value], at: int, place: Place) -> None:
    moment = entry.get("at")
    if isinstance(moment, bool) or not isinstance(moment, int):
        raise RequestError((*place, "at"), "every entry needs `at`, ms since 1970 as an integer.")
    if moment >= at:
        raise RequestError((*place, "at"), f"is {moment}, not before the request's own time {at}.")
