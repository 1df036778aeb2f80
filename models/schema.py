"""The one contract of a ranking problem: what a feed holds, how it is encoded, which targets hang on which.

A `Schema` is written beside every feed table and inside every model bundle; data steps, models, trainer, report
and endpoint all read it. Everything is addressed by name.

Vocabulary of the names used here:

* a *column* is a raw feature as the data steps produce it (`user.age`, `room_entries.1h`);
* a *field* is what a model reads: a column together with the way it is encoded;
* fields that name the same *table* share encoder state and embedding rows.
"""

import re
from collections.abc import Iterator
from dataclasses import InitVar
from dataclasses import field as default
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Discriminator

from models.catalogue import find, is_room_state
from models.config import config, from_dict, to_dict

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TAKEN = ("at", "feed_id", "fused", "level", "mean", "room_id", "score", "stage", "user_id")
"""No target's names: predictions stand beside columns, and metrics beside means, of these names."""
LOG = "log."
"""Before a target's name: the expectation of the logarithm of a value, which is judged beside that of the value."""
STAGES = ("new", "wander", "stick", "loyal")
"""Rule-based stages of a user's life cycle (STAN, Sec. 2.1), see `Stages`."""


@config
class Vocabulary:
    """Values that are seen often enough on training days get a row each; all others share row 0.

    Attributes:
        min_count: a value must be seen this many times.
        max_size: at most so many values are kept, the most frequent first; None for no limit.
    """

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: int = 2
    max_size: int | None = None

    def __post_init__(self) -> None:
        if self.min_count < 1 or (self.max_size is not None and self.max_size < 1):
            raise ValueError(f"a vocabulary needs min_count >= 1 and max_size >= 1, got {self.min_count}, {self.max_size}.")


@config
class Hash:
    """Every value falls into one row by a 64-bit hash; nothing is fitted. A missing value is row 0.

    Attributes:
        buckets: rows that values fall into.
    """

    kind: Literal["hash"] = "hash"
    buckets: int

    def __post_init__(self) -> None:
        if self.buckets < 2:
            raise ValueError(f"hash needs at least 2 buckets, got {self.buckets}.")


@config
class Bins:
    """Equal-frequency bins fitted on training days; a row each. A missing value is row 0.

    Attributes:
        count: of bins.
    """

    kind: Literal["bins"] = "bins"
    count: int = 32

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"bins need a count of at least 2, got {self.count}.")


@config
class Number:
    """A float: transformed, then standardised with the training days' mean and deviation. Missing becomes 0 (the mean).

    Attributes:
        transform: what is applied first; `log1p` suits counts and other values with a long tail.
    """

    kind: Literal["number"] = "number"
    transform: Literal["none", "log1p"] = "none"


Encoding = Annotated[Vocabulary | Hash | Bins | Number, Discriminator("kind")]


@config
class Field:
    """One input of a model.

    Attributes:
        name: how models and feed tables address it.
        of: `feed` when all candidates of a feed share the value (user, context), `candidate` otherwise.
        column: the raw feature it reads; the name itself by default.
        encoding: how raw values become table rows (int64) or a float32.
        table: fields with the same table share rows; the name itself by default. Floats have none.
        width: embedding width; None leaves it to the model.
    """

    name: str
    of: Literal["feed", "candidate"]
    encoding: Encoding = default(default_factory=Vocabulary)
    column: str = ""
    table: str = ""
    width: int | None = None

    def __post_init__(self) -> None:
        _check_name("field", self.name)
        object.__setattr__(self, "column", self.column or self.name)
        if isinstance(self.encoding, Number):
            if self.table or self.width is not None:
                raise ValueError(f"field `{self.name}` is a number and has neither table nor width.")
        else:
            object.__setattr__(self, "table", self.table or self.name)

    @property
    def is_number(self) -> bool:
        return isinstance(self.encoding, Number)

    @property
    def is_room_state(self) -> bool:
        """Whether it reads the real-time state of the candidate's room, rather than what the room or the user is."""
        return self.of == "candidate" and is_room_state(self.column)


@config
class HistoryField:
    """One attribute of every entry of a history; always a table row.

    Attributes:
        name: how models and feed tables address it, behind the history's own name.
        encoding: how raw values become table rows; `number` is not allowed here.
        column: the raw feature it reads, without the history's prefix; the name itself by default.
        table: history fields and fields with the same table share rows; the name itself by default.
        width: embedding width; None leaves it to the model.
    """

    name: str
    encoding: Encoding = default(default_factory=Vocabulary)
    column: str = ""
    table: str = ""
    width: int | None = None

    def __post_init__(self) -> None:
        _check_name("history field", self.name)
        if isinstance(self.encoding, Number):
            raise ValueError(f"history field `{self.name}`: numbers inside histories are binned, use encoding `bins`.")
        object.__setattr__(self, "column", self.column or self.name)
        object.__setattr__(self, "table", self.table or self.name)


@config
class History:
    """The user's last `length` events of one domain, oldest first, known before the feed was shown.

    Attributes:
        name: how models and feed tables address it.
        events: `engagements` (rooms entered) or `product_clicks`.
        length: entries at most.
        min_stay_seconds: an engagement enters the history only if its stay lasted at least this long, and not before
            that stay was over.
        fields: attributes of an entry. Those that share a table with a candidate field are what target attention
            compares, so at least one must.
    """

    name: str
    events: Literal["engagements", "product_clicks"]
    fields: tuple[HistoryField, ...]
    length: int = 50
    min_stay_seconds: float = 0.0

    def __post_init__(self) -> None:
        _check_name("history", self.name)
        if self.length < 1:
            raise ValueError(f"history `{self.name}` needs a length of at least 1, got {self.length}.")
        if not self.fields:
            raise ValueError(f"history `{self.name}` has no fields.")
        _unique(f"history `{self.name}`", [field.name for field in self.fields])


@config
class Target:
    """One thing to predict for a candidate.

    A configuration may still say `transform: log1p` (or `none`) of a value, which is what `head` was called before: it is
    head `log1p` (or `linear`), and with `bins` head `bins`.

    Attributes:
        name: how models, reports and the endpoint address it.
        kind: `binary` (a probability) or `value` (a non-negative real, for example seconds).
        action: the engagement that sets the label.
        at_least: binary targets only; the action's value must reach it (30 for "read at least 30 s").
        attribution_seconds: how long after the impression what arrives of the action still counts, by request id or not.
        parents: targets that must have happened for this one to happen; the graph of all parents has no cycle.
        head: of a value, how it is learnt (`models.layers.values`); the prediction is an expectation in the label's own unit
            with each. `linear`: its squared error; `log1p`: that of its logarithm, corrected on validation; `bins`: as a
            class; `zero_inflated`: whether there is any, and a log-normal of how much. All but `linear` are judged in the
            logarithm as well. None takes `linear`.
        bins: of head `bins`: equal-frequency bins of the positive labels of training days, beside one class for 0; None
            takes 10.
        loss_weight: weight in the training loss. A target of weight 0 is not learnt, and so neither predicted nor judged; as
            a parent of others it still takes its place in the graph that couplings follow.
        fusion_weight: weight in the one score that orders a feed (see `models.score`).
    """

    name: str
    action: str
    kind: Literal["binary", "value"] = "binary"
    at_least: float | None = None
    attribution_seconds: float = 3600.0
    parents: tuple[str, ...] = ()
    head: Literal["linear", "log1p", "bins", "zero_inflated"] | None = None
    bins: int | None = None
    loss_weight: float = 1.0
    fusion_weight: float = 0.0
    transform: InitVar[Literal["none", "log1p"] | None] = None

    def __post_init__(self, transform: str | None) -> None:
        _check_name("target", self.name)
        if self.name in TAKEN:
            raise ValueError(
                f"no target may be named `{self.name}`, since tables of predictions and of metrics have something else of that "
                f"name; nor {', '.join(f'`{name}`' for name in TAKEN if name != self.name)}. Give it another name."
            )
        if self.kind == "value" and self.at_least is not None:
            raise ValueError(f"target `{self.name}` is a value; `at_least` is for binary targets.")
        if self.kind == "binary" and (self.head, self.bins, transform) not in ((None, None, None), (None, None, "none")):
            raise ValueError(f"target `{self.name}` is binary; `head` and `bins` are for values.")
        if self.kind == "value" and transform is not None:
            if self.head is not None:
                raise ValueError(f"target `{self.name}`: `transform` is what `head` was called before. Leave `head` alone.")
            head = "bins" if self.bins is not None else "log1p" if transform == "log1p" else "linear"
            object.__setattr__(self, "head", head)
        if self.kind == "value":
            object.__setattr__(self, "head", self.head or "linear")
            if self.head == "bins":
                object.__setattr__(self, "bins", 10 if self.bins is None else self.bins)
        if self.bins is not None and (self.head != "bins" or self.bins < 2):
            raise ValueError(
                f"target `{self.name}`: `bins` is for `head: bins` and at least 2, got {self.bins} for head {self.head}."
            )
        if self.loss_weight < 0:
            raise ValueError(f"target `{self.name}` needs loss_weight >= 0, got {self.loss_weight}.")
        if self.attribution_seconds <= 0:
            raise ValueError(f"target `{self.name}` needs attribution_seconds > 0, got {self.attribution_seconds}.")

    @property
    def is_binary(self) -> bool:
        return self.kind == "binary"

    @property
    def is_log(self) -> bool:
        """Whether it is a value that is judged, and handed on to other targets, as log(1 + value)."""
        return self.kind == "value" and self.head != "linear"

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for the target: a logit, a value, a logit a class, or three (`layers.values`)."""
        if self.head == "zero_inflated":
            return 3
        return 1 if self.bins is None else self.bins + 1


@config
class Stages:
    """Rule-based life-cycle stages of users (STAN, Sec. 2.1), by the medians of training days, in this order:

    new: a low rate of clicks, or no history; wander: short stays; stick: few orders; loyal: all the others.

    The rates are those of the user's running preferences: clicks an impression, seconds and orders a click.

    Attributes:
        click, stay, order: the targets they are counted on.
    """

    click: str = "click"
    stay: str = "stay_seconds"
    order: str = "order"


@config
class Levels:
    """Named levels of a candidate (say tail, medium, head), by the exposure or an attribute of its room or streamer.

    Attributes:
        names: from the smallest value of the measure to the largest.
        of: whose measure decides.
        column: a numeric attribute (`streamer.fans`); None counts impressions on training days.
        shares: how the training days' impressions are divided among the levels; sums to 1. An owner that was not
            there on training days belongs to the first level.
    """

    names: tuple[str, ...] = ("tail", "medium", "head")
    of: Literal["room", "streamer"] = "streamer"
    column: str | None = None
    shares: tuple[float, ...] = (0.2, 0.3, 0.5)

    def __post_init__(self) -> None:
        _unique("levels", list(self.names))
        if len(self.shares) != len(self.names) or abs(sum(self.shares) - 1) > 1e-6 or min(self.shares) <= 0:
            raise ValueError(
                "levels need one positive share a name, summing to 1; "
                f"got names {list(self.names)}, shares {list(self.shares)}."
            )


@config
class Schema:
    """Fields, histories, levels and targets of one ranking problem.

    Attributes:
        fields: what a model reads of a feed and of its candidates.
        histories: what a user did before a feed.
        targets: what is predicted.
        levels: how candidates are divided by the exposure or size of their room or streamer.
        list_context: allow columns that compare a candidate with the rest of its feed (`feed_size`, `feed_rank.*`).
            Honest only where the logged feed is the whole candidate set; the endpoint then refuses larger ones.
        preference_days: windows of a user's running preferences (means of the labels known before a feed). The first is
            what `preference.*` columns and stages read; a weighting may read any.
        stages: targets by which users are sorted into rule-based stages; None for none.

    Raises:
        ValueError: naming the contradiction: repeated names, a cycle among targets, a parent that is not a target,
            a history that shares no table with the candidate, one table with two encodings or widths.
    """

    fields: tuple[Field, ...]
    histories: tuple[History, ...] = ()
    targets: tuple[Target, ...]
    levels: Levels = default(default_factory=Levels)
    list_context: bool = False
    preference_days: tuple[float, ...] = (7.0,)
    stages: Stages | None = None

    def __post_init__(self) -> None:
        _unique("fields", [field.name for field in self.fields])
        _unique("histories", [history.name for history in self.histories])
        _unique("targets", [target.name for target in self.targets])
        if not self.targets:
            raise ValueError("a schema needs at least one target.")
        self._check_targets()
        self._check_tables()
        self._check_preferences()
        self._check_columns()
        for history in self.histories:
            if not self.matches(history.name):
                tables = sorted({field.table for field in self.fields if field.of == "candidate" and field.table})
                raise ValueError(
                    f"history `{history.name}` shares no table with a candidate field, so no candidate can be compared "
                    f"with it. Its tables: {sorted({field.table for field in history.fields})}; the candidate's: {tables}."
                )

    # -- fields ------------------------------------------------------------------------------------------------

    def fields_of(self, of: Literal["feed", "candidate"]) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.of == of)

    def history(self, name: str) -> History:
        return _find("history", self.histories, name)

    def matches(self, history: str) -> tuple[tuple[HistoryField, Field], ...]:
        """Pairs (history field, candidate field) that share a table, in the history's order."""
        by_table = {field.table: field for field in reversed(self.fields_of("candidate")) if not field.is_number}
        fields = self.history(history).fields
        return tuple((field, by_table[field.table]) for field in fields if field.table in by_table)

    @cached_property
    def tables(self) -> dict[str, tuple[Encoding, int | None]]:
        """Encoding and declared width of every table, in order of first mention."""
        return {table: (encoding, width) for _, table, encoding, width in self._uses()}

    # -- targets -----------------------------------------------------------------------------------------------

    def target(self, name: str) -> Target:
        return _find("target", self.targets, name)

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    def parents(self, name: str) -> tuple[str, ...]:
        return self.target(name).parents

    def ancestors(self, name: str) -> tuple[str, ...]:
        """All targets above `name`, each once, parents before their children."""
        above: set[str] = set()
        waiting = list(self.parents(name))
        while waiting:
            parent = waiting.pop()
            if parent not in above:
                above.add(parent)
                waiting.extend(self.parents(parent))
        return tuple(target.name for target in self.targets_parents_first if target.name in above)

    @cached_property
    def targets_parents_first(self) -> tuple[Target, ...]:
        """Targets in an order in which every parent stands before its children; declaration order otherwise."""
        done: dict[str, Target] = {}
        waiting = list(self.targets)
        while waiting:
            ready = [target for target in waiting if all(parent in done for parent in target.parents)]
            done.update({target.name: target for target in ready[:1]})
            waiting.remove(ready[0])
        return tuple(done.values())

    # -- spelling ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict:
        return to_dict(self)

    @classmethod
    def from_dict(cls, spelling: dict) -> "Schema":
        return from_dict(cls, spelling, where="schema")

    # -- checks ------------------------------------------------------------------------------------------------

    def _uses(self) -> Iterator[tuple[str, str, Encoding, int | None]]:
        for field in self.fields:
            if field.table:
                yield f"field `{field.name}`", field.table, field.encoding, field.width
        for history in self.histories:
            for item in history.fields:
                yield f"history field `{history.name}.{item.name}`", item.table, item.encoding, item.width

    def _check_tables(self) -> None:
        first: dict[str, tuple[str, Encoding, int | None]] = {}
        for user, table, encoding, width in self._uses():
            known_user, known_encoding, known_width = first.setdefault(table, (user, encoding, width))
            if (known_encoding, known_width) != (encoding, width):
                raise ValueError(
                    f"table `{table}` is declared twice: {known_user} with {known_encoding}, width {known_width}; "
                    f"{user} with {encoding}, width {width}. One table has one encoding and one width."
                )

    def _check_preferences(self) -> None:
        days = self.preference_days
        if not days or min(days) <= 0 or len(set(days)) < len(days):
            raise ValueError(f"preference_days must be different positive numbers of days, at least one; got {list(days)}.")
        if self.stages is None:
            return
        for role, kind in (("click", "binary"), ("stay", "value"), ("order", "binary")):
            name = getattr(self.stages, role)
            if name not in self.target_names or self.target(name).kind != kind:
                known = [target.name for target in self.targets if target.kind == kind]
                raise ValueError(
                    f"stages.{role} is `{name}`, which is no {kind} target. There are: {', '.join(known) or 'none'}. "
                    "Name one of them, or leave `stages` out."
                )

    def _check_columns(self) -> None:
        for field in self.fields:
            column = find(field.column)  # a column that does not exist is told where tables are at hand
            if column is not None and not column.in_requests:
                raise ValueError(f"field `{field.name}` reads `{column.name}`, which is not known when a feed is to be ranked.")
            if column is not None and column.compares and not self.list_context:
                raise ValueError(
                    f"field `{field.name}` reads `{column.name}`, which compares a candidate with its feed. "
                    "Declare `list_context: true` if logged feeds are whole candidate sets, or drop the field."
                )

    def _check_targets(self) -> None:
        names = self.target_names
        for target in self.targets:
            for parent in target.parents:
                if parent not in names:
                    raise ValueError(
                        f"target `{target.name}` has parent `{parent}`, which is not a target. Targets: {', '.join(names)}."
                    )
        done: set[str] = set()
        waiting = {target.name: set(target.parents) for target in self.targets}
        while waiting:
            ready = [name for name, parents in waiting.items() if parents <= done]
            if not ready:
                raise ValueError(f"the parents of these targets form a cycle: {', '.join(sorted(waiting))}.")
            done.update(ready)
            for name in ready:
                del waiting[name]


def _find(kind: str, items: tuple, name: str):
    for item in items:
        if item.name == name:
            return item
    raise KeyError(f"no {kind} `{name}`; there are: {', '.join(item.name for item in items)}")


def _check_name(kind: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{kind} name {name!r} must start with a letter from a to z (or A to Z) and hold only those, digits and `_`."
        )


def _unique(kind: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{kind}: named twice: {', '.join(repeated)}.")
