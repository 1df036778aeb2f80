"""What of a schema decides the prepared tables: whoever asks whether tables fit a schema asks here."""

from typing import Any

from models.schema import Schema

_LABEL = ("name", "action", "kind", "at_least", "attribution_seconds")
_NAMED = {"fields": "field", "histories": "history", "targets": "target"}


def decisive_part(schema: Schema) -> dict[str, Any]:
    """The schema's spelling without what may change and needs no new preparation.

    What may change are weights, parents, heads of targets, and widths of embeddings.
    """
    spelling = schema.to_dict()
    for item in (*spelling["fields"], *(field for history in spelling["histories"] for field in history["fields"])):
        del item["width"]
    spelling["targets"] = [{name: target[name] for name in _LABEL} for target in spelling["targets"]]
    return spelling


def differences(there: Schema, here: Schema) -> list[str]:
    """In which parts the tables of two schemas differ: "field `hour`", "target `click`", "levels", "the order of fields"."""
    before, now = decisive_part(there), decisive_part(here)
    found = []
    for section, kind in _NAMED.items():
        old, new = ({item["name"]: item for item in spelling.pop(section)} for spelling in (before, now))
        differing = [f"{kind} `{name}`" for name in {**old, **new} if old.get(name) != new.get(name)]
        found += differing or ([f"the order of {section}"] if list(old) != list(new) else [])
    return found + [name for name in now if before[name] != now[name]]


def obstacles(there: Schema, here: Schema) -> list[str]:
    """Of `differences`, those that keep `here` from reading the tables of `there`; fewer targets, or no stages, do not."""
    asked = {f"target `{name}`" for name in here.target_names} | ({"stages"} if here.stages else set())
    free = {f"target `{name}`" for name in there.target_names} | {"stages", "the order of targets"}
    return [part for part in differences(there, here) if part in asked or part not in free]
