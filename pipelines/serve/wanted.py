"""The base columns that a schema reads, as the endpoint has to fill them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from models.catalogue import CONTEXT, HOURS_AGO, PAIRS, STATE_FAMILY, USER, Column, Subject
from models.config import ConfigError
from models.schema import Bins, Encoding, Number, Schema
from pipelines.encode.columns import base_columns, column, history_column, level_column
from pipelines.encode.stages import stage_columns
from pipelines.logs.ids import IdKind
from pipelines.serve.given import Kind
from pipelines.serve.store import Store


@dataclass(frozen=True)
class Wanted:
    """The base columns that a schema reads.

    Attributes:
        feed, candidate: by name, as the catalogue declares them.
        histories: names without the history's, by history; `at` first.
        kinds: by full name, `id` where some field needs the exact value, `number` otherwise.
        ids: what the log's ids were, by key (`EncoderState.ids`).
    """

    schema: Schema
    feed: Mapping[str, Column]
    candidate: Mapping[str, Column]
    histories: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, Kind]
    ids: Mapping[str, IdKind]

    @classmethod
    def by(cls, schema: Schema, ids: Mapping[str, IdKind] | None = None) -> "Wanted":
        """All that encoding feeds of the schema takes; `ids` as below, none by default."""
        histories: dict[str, tuple[str, ...]] = {history.name: ("at",) for history in schema.histories}
        columns: dict[str, Column] = {}
        for name in sorted(base_columns(schema)):
            of_history = history_column(name, schema)
            if of_history is None:
                known = column(name, schema)
                assert known is not None  # base columns exist
                columns[name] = known
            elif of_history[1] != "at":
                histories[of_history[0]] += (of_history[1],)
        return cls(
            schema=schema,
            feed={name: known for name, known in columns.items() if known.level == "feed"},
            candidate={name: known for name, known in columns.items() if known.level == "candidate"},
            histories=histories,
            kinds=_kinds(schema),
            ids=ids or {},
        )

    def ids_of(self, name: str) -> IdKind | None:
        """What the log's ids were that a column holds, by its full name; None where it holds none, attributes say."""
        head, _, key = name.rpartition(".")
        return self.ids.get(key) if head in ("", STATE_FAMILY) or head in self.histories else None

    def of(self, *subjects: Subject) -> tuple[Column, ...]:
        """Columns that speak of one of the subjects."""
        return tuple(known for known in (*self.feed.values(), *self.candidate.values()) if known.of in subjects)

    @cached_property
    def of_rooms(self) -> tuple[Column, ...]:
        """Candidate columns that the store keeps by room: all but those of pairs."""
        return tuple(known for known in self.candidate.values() if known.of not in PAIRS.values())

    @cached_property
    def of_pairs(self) -> Mapping[str, tuple[Column, ...]]:
        """Columns of pairs that are read, by whom the user is paired with; none of a kind that nothing reads."""
        return {other: found for other, subject in PAIRS.items() if (found := self.of(subject))}

    @cached_property
    def reads_users(self) -> bool:
        """Whether anything of what the store knows of a user is read."""
        return bool(self.of(USER) or self.histories or self.of_pairs)

    @cached_property
    def counts(self) -> tuple[Column, ...]:
        """Candidate columns that are 0 where nothing is known of a known room or streamer."""
        return tuple(known for known in self.candidate.values() if known.is_count)

    def check(self, store: Store) -> None:
        """Makes sure that a store holds all that the schema reads of users and rooms.

        Raises:
            ConfigError: the store lacks columns; it was built for another schema.
        """
        of_user = [(known.name, known.stored) for known in self.feed.values() if known.of != CONTEXT]
        of_user += [(f"{history}.{name}",) * 2 for history, names in self.histories.items() for name in names]
        of_user += [(known.name, known.stored) for found in self.of_pairs.values() for known in found]
        missing = [name for name, stored in of_user if stored not in store.users.names]
        missing += [known.name for known in self.of_rooms if known.stored not in store.rooms["rooms"].place]
        if missing:
            raise ConfigError(
                f"the store at `{store.path}` lacks {', '.join(missing)}, which the bundle's schema reads. "
                "Build it from a prepared folder of that schema."
            )

    @property
    def of_users(self) -> str:
        """Names of the columns that a request may give of its user, for messages."""
        return ", ".join(known.name for known in self.of(USER)) or "none"


def _kinds(schema: Schema) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}

    def use(name: str, kind: Kind) -> None:
        known = column(name, schema)
        inputs = known.inputs if known else ()
        for source in inputs:
            use(source, "number")
        if not inputs and kinds.get(name) != "id":
            kinds[name] = kind

    for field in schema.fields:
        use(field.column, _kind(field.encoding))
    if schema.stages is not None:
        for name in stage_columns(schema.stages).values():
            use(name, "number")
    use(level_column(schema), "number" if schema.levels.column else "id")
    for history in schema.histories:
        kinds[f"{history.name}.at"] = "id"
        for item in history.fields:
            if item.column != HOURS_AGO.name:
                name = f"{history.name}.{item.column}"
                kinds[name] = "id" if kinds.get(name) == "id" else _kind(item.encoding)
    for name in base_columns(schema):
        kinds.setdefault(name, "id")
    return kinds


def _kind(encoding: Encoding) -> Kind:
    return "number" if isinstance(encoding, Bins | Number) else "id"
