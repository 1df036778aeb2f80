"""Which raw columns a schema reads, of those that the catalogue declares (`models.catalogue`).

*Base* columns are what preparation writes and the endpoint's store holds: counts, ages, attributes, histories, running
preferences. *Derived* columns (hours, smoothed rates, ranks) follow from base columns of the same row alone, see
`pipelines.encode.derive`.
"""

import difflib
from collections.abc import Iterable
from functools import lru_cache

from models import catalogue
from models.catalogue import EARLIER, HOURS_AGO, PREFERENCE, PRODUCT, RANK, ROOM, STREAMER, Column, Level, Preference
from models.config import ConfigError
from models.schema import Schema
from pipelines.encode.feeds import META
from pipelines.encode.stages import stage_columns


def preference_columns(schema: Schema) -> dict[str, tuple[str, ...]]:
    """Columns of running preferences by target, and of the impressions they are means over by `EARLIER`; one for each window.

    Those of the schema's first window have the plain name, others say their days: `preference.click`,
    `preference.click.30d`.
    """
    others = [f".{int(days) if float(days).is_integer() else days!r}d" for days in schema.preference_days[1:]]
    named = {**{target: f"{PREFERENCE}.{target}" for target in schema.target_names}, EARLIER: EARLIER}
    return {of: (name, *(name + window for window in others)) for of, name in named.items()}


def level_column(schema: Schema) -> str:
    """What a candidate's level is told by: the declared attribute, else the id of whose exposure counts."""
    return schema.levels.column or {"room": ROOM, "streamer": STREAMER}[schema.levels.of].key


def column(name: str, schema: Schema) -> Column | None:
    """The raw column outside histories, as the catalogue declares it; None where there is none."""
    found = catalogue.find(name)
    if found is not None and isinstance(found.how, Preference) and name not in _preferences(schema):
        return None  # of another target, or over other days
    return found


def history_column(name: str, schema: Schema) -> tuple[str, str] | None:
    """History and column of an entry that `history.column` stands for; None for a column outside histories."""
    head, _, inner = name.partition(".")
    return (head, inner) if any(history.name == head for history in schema.histories) else None


def declared(name: str, schema: Schema) -> Column | None:
    """As `column`, for columns of histories (`history.column`) as well."""
    of_history = history_column(name, schema)
    if of_history is None:
        return column(name, schema)
    history, inner = of_history
    return catalogue.ENTRIES[schema.history(history).events].find(inner)


def base_columns(schema: Schema, extra_columns: Iterable[str] = ()) -> set[str]:
    """Base columns (beside `META`) that the schema's fields, histories, levels and stages need, and `extra_columns`.

    Derived columns are resolved to what they are derived from. A history's columns are named `history.column`;
    `history.at` is always among them.

    Raises:
        ConfigError: a column that does not exist, or a feed column read for a candidate or the other way round; a history
            with the name of a family of columns.
    """
    found: set[str] = set()

    def need(name: str, user: str, level: Level | None = None) -> None:
        known = column(name, schema)
        if known is None:
            raise ConfigError(f"{user} reads column `{name}`, which does not exist. {nearest(name, _known(schema))}")
        if level is not None and known.level != level:
            raise ConfigError(
                f"{user} is declared of `{level}`, but its column `{name}` belongs to the {known.level}: `of: {known.level}`."
            )
        for source in known.inputs:
            if source not in META.names:
                need(source, user)
        if not known.is_derived:
            found.add(name)
        if known.of == PRODUCT:  # looked up by what is on screen
            found.add(PRODUCT.key)

    for field in schema.fields:
        need(field.column, f"field `{field.name}`", field.of)
    need(level_column(schema), "levels", "candidate")
    if schema.stages is not None:
        found.update(stage_columns(schema.stages).values())
    for name in extra_columns:
        need(name, "extra_columns")
    for history in schema.histories:
        if catalogue.find(f"{history.name}.at") is not None:
            raise ConfigError(f"history `{history.name}` has the name of the columns `{history.name}.*`; give it another one.")
        found.add(f"{history.name}.at")
        entries = catalogue.ENTRIES[history.events]
        for item in history.fields:
            entry = entries.find(item.column)
            if entry is None:
                known = [*(each.name for each in entries.columns), *(f"{family.name}.*" for family in entries.families)]
                raise ConfigError(
                    f"history field `{history.name}.{item.name}` reads column `{item.column}`, which entries of "
                    f"{history.events} do not have. {nearest(item.column, known)}"
                )
            if not entry.is_derived:
                found.add(f"{history.name}.{item.column}")
    return found - set(META.names)


@lru_cache(maxsize=64)
def derived_columns(schema: Schema) -> tuple[str, ...]:
    """Derived columns that the schema's fields and histories read, those that others need first."""
    names: dict[str, None] = {}

    def need(name: str) -> None:
        known = column(name, schema)
        if known is not None and known.is_derived:
            for source in known.inputs:
                need(source)
            names[name] = None

    for field in schema.fields:
        need(field.column)
    for history in schema.histories:
        if any(item.column == HOURS_AGO.name for item in history.fields):
            names[f"{history.name}.{HOURS_AGO.name}"] = None
    return tuple(names)


def nearest(name: str, known: list[str]) -> str:
    """What of the known names a wrong one may have meant."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
    return f"{'Nearest' if len(close) <= 3 else 'Known'}: {', '.join(f'`{item}`' for item in close)}."


def _preferences(schema: Schema) -> set[str]:
    return {name for windows in preference_columns(schema).values() for name in windows}


def _known(schema: Schema) -> list[str]:
    named = [each.name for each in catalogue.CATALOGUE.columns if not isinstance(each.how, Preference)]
    families = [family.name for family in catalogue.CATALOGUE.families if not isinstance(family.how, Preference)]
    return [*named, *sorted(_preferences(schema)), *(f"{family}.*" for family in [RANK, *families])]
