"""The catalogue of raw columns: each is declared here once, and everyone else asks.

A declaration says of whom the column speaks, how it comes about (which events are counted over which window, say), and
under which name snapshot and store keep it. From that follow whether it belongs to the feed or to a candidate, what
stands for it where nothing is known, what it derives from and whether it is the room's real-time state. Preparation,
store, endpoint, derivation and schema read the same declarations, so a column is prepared, stored, defaulted, overridden
and served alike.

A new counter is a new line of `COLUMNS`; its events are impressions, feeds, or any action of the log's engagements:

    *windowed("streamer_likes", STREAMER, "like", "likes in the streamer's rooms"),
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

WINDOWS: Mapping[str, int | None] = MappingProxyType({"10m": 600_000, "1h": 3_600_000, "life": None})
"""Windows of counters in ms before the moment asked about; None reaches back to the beginning of the log."""

IMPRESSIONS = "impressions"
FEEDS = "feeds"
ENTER = "enter"
ORDER = "order"

PREFERENCE = "preference"
EARLIER = "preference_count"
CONTEXT_FAMILY = "context"
STATE_FAMILY = "state"
RANK = "feed_rank"

Level = Literal["feed", "candidate"]


# -- of whom a column speaks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """Of whom or of what a column speaks.

    Attributes:
        level: all candidates of a feed share it, or each has its own.
        key: the column of its id, by which the store keeps it; where the id is missing, even counts are.
    """

    name: str
    level: Level
    key: str = ""


FEED = Subject("feed", "feed")
USER = Subject("user", "feed", key="user_id")
CONTEXT = Subject("context of the request", "feed")
CANDIDATE = Subject("candidate in its feed", "candidate")
ROOM = Subject("room", "candidate", key="room_id")
STREAMER = Subject("streamer", "candidate", key="streamer_id")
PRODUCT = Subject("product on screen", "candidate", key="state.product_id")
USER_STREAMER = Subject("user and streamer", "candidate", key="streamer_id")
USER_ROOM = Subject("user and room", "candidate", key="room_id")
ENTRY = Subject("entry of a history", "feed")

PAIRS: Mapping[str, Subject] = MappingProxyType({"streamer": USER_STREAMER, "room": USER_ROOM})
"""Pairs of a user with another, by the other's name; a user's pairs of one kind are stored as parallel lists."""


# -- how a column comes about ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Id:
    """Says who it is."""


@dataclass(frozen=True)
class Logged:
    """Written in the log beside the impression or the event, and carried along.

    Attributes:
        in_requests: whether it is known when a feed is still to be ranked.
    """

    in_requests: bool = True


@dataclass(frozen=True)
class Attribute:
    """A column of one of the log's attribute tables, looked up by the table's key."""

    table: str
    key: str


@dataclass(frozen=True)
class Count:
    """How many events there were in a window before the moment.

    Attributes:
        events: `IMPRESSIONS`, `FEEDS`, or an action of the engagements.
        window: one of `WINDOWS`.
    """

    events: str
    window: str = "life"

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise ValueError(f"a counter has one of the windows {', '.join(WINDOWS)}, got `{self.window}`.")

    @property
    def window_ms(self) -> int | None:
        return WINDOWS[self.window]


@dataclass(frozen=True)
class Hours:
    """Hours since the first or the last of some events; the store keeps the moment, and the hours are told when asked.

    The first impression of rooms and streamers (or the room's start, where the log knows it); the last event of users and
    of pairs.
    """

    since: Literal["first", "last"]
    events: str


@dataclass(frozen=True)
class Preference:
    """Over the last days, as many as the schema says: a mean of labels an impression, or the impressions it is a mean over."""

    over: Literal["labels", "impressions"]


@dataclass(frozen=True)
class Derived:
    """Computed from other columns of the same row just before encoding.

    Attributes:
        by: which computation, see `pipelines.encode.derive`.
        inputs: what it reads.
    """

    by: Literal["hour", "weekday", "feed_size", "rate", "rank", "hours_ago"]
    inputs: tuple[str, ...]


How = Id | Logged | Attribute | Count | Hours | Preference | Derived


# -- declarations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One raw column.

    Attributes:
        meaning: for the page of columns.
        stored: its name in snapshot and store; the name itself by default.
        family: what stands before the first dot of its name, for a member of a family.
    """

    name: str
    of: Subject
    how: How
    meaning: str
    stored: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", self.stored or self.name)
        if isinstance(self.how, Count | Hours) and self.of not in (USER, ROOM, STREAMER, *PAIRS.values()):
            raise ValueError(f"`{self.name}` counts events of a {self.of.name}, which nobody does.")
        if isinstance(self.how, Count | Hours) and self.how.events == FEEDS and self.of != USER:
            raise ValueError(f"`{self.name}` counts feeds, which only a user has; count impressions.")
        if isinstance(self.how, Hours):
            first = Hours("first", IMPRESSIONS)
            if not (self.how == first if self.of in (ROOM, STREAMER) else self.how.since == "last"):
                raise ValueError(f"`{self.name}` is {self.how}; see `Hours` for what is told of a {self.of.name}.")
            if self.stored == self.name:
                raise ValueError(f"`{self.name}` needs the name under which its moment is stored.")

    @property
    def level(self) -> Level:
        return self.of.level

    @property
    def member(self) -> str:
        """Its name within the family."""
        return self.name[len(self.family) + 1 :] if self.family else self.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it derives from; none for a base column, which preparation writes and the store holds."""
        return self.how.inputs if isinstance(self.how, Derived) else ()

    @property
    def is_derived(self) -> bool:
        return isinstance(self.how, Derived)

    @property
    def events(self) -> str:
        """Which events a counter counts, or hours are counted from; empty for other columns."""
        return self.how.events if isinstance(self.how, Count | Hours) else ""

    @property
    def is_count(self) -> bool:
        """Where nothing is known a count is 0 (if its subject is known at all), everything else is missing."""
        return isinstance(self.how, Count) or self.how == Preference("impressions")

    @property
    def can_be_ranked(self) -> bool:
        """May candidates be compared with each other by it? Ids have no order, and the logged order is what is sought."""
        by_rank = isinstance(self.how, Derived) and self.how.by == "rank"
        return self.level == "candidate" and not isinstance(self.how, Id) and self.in_requests and not by_rank

    @property
    def in_requests(self) -> bool:
        """Whether it is known when a feed is still to be ranked."""
        return self.how.in_requests if isinstance(self.how, Logged) else True

    @property
    def needs_times(self) -> bool:
        """Does it speak of when things happened, or of what had happened before? What it derives from may too."""
        by_clock = isinstance(self.how, Derived) and self.how.by in ("hour", "weekday", "hours_ago")
        return by_clock or isinstance(self.how, Count | Hours | Preference)

    @property
    def compares(self) -> bool:
        """Does it compare a candidate with the rest of its feed?"""
        return isinstance(self.how, Derived) and self.how.by in ("rank", "feed_size")


@dataclass(frozen=True)
class Family:
    """Columns `name.*` that only the log or the schema can name; each is as its family."""

    name: str
    of: Subject
    how: How
    meaning: str

    def column(self, member: str) -> Column:
        return Column(f"{self.name}.{member}", self.of, self.how, self.meaning, family=self.name)


def windowed(name: str, of: Subject, events: str, meaning: str) -> tuple[Column, ...]:
    """A counter over each of `WINDOWS`: `name.10m`, `name.1h`, `name.life`."""
    return tuple(Column(f"{name}.{window}", of, Count(events, window), meaning) for window in WINDOWS)


def windowed_rate(name: str, of: Subject, entries: str, impressions: str, meaning: str) -> tuple[Column, ...]:
    """The smoothed rate of two windowed counters over each of `WINDOWS`."""
    return tuple(
        Column(f"{name}.{window}", of, Derived("rate", (f"{entries}.{window}", f"{impressions}.{window}")), meaning)
        for window in WINDOWS
    )


def of_pair(other: str, what: str, how: How, meaning: str, stored: str = "") -> Column:
    """`pair_OTHER_WHAT`; the store keeps all of a user's pairs of one kind as parallel lists `pair.OTHER_*`."""
    return Column(f"pair_{other}_{what}", PAIRS[other], how, meaning, stored=f"pair.{other}_{stored or what}")


def rate_of_pair(other: str) -> Column:
    inputs = (f"pair_{other}_entries", f"pair_{other}_impressions")
    meaning = f"smoothed entries an impression of this user and this {other}"
    return Column(f"pair_{other}_entry_rate", PAIRS[other], Derived("rate", inputs), meaning)


RATE = "smoothed entries an impression"
START = "since the room's start, or its first impression where the log knows no start"

COLUMNS: tuple[Column, ...] = (
    # the user
    Column("user_id", USER, Id(), "who the feed is shown to"),
    Column("user_feeds", USER, Count(FEEDS), "feeds shown to the user"),
    Column("user_impressions", USER, Count(IMPRESSIONS), "impressions of the user"),
    Column("user_entries", USER, Count(ENTER), "entries of the user into rooms"),
    Column("user_orders", USER, Count(ORDER), "orders of the user"),
    Column("user_last_seen_hours", USER, Hours("last", IMPRESSIONS), "since the user's last impression", stored="user_last_at"),
    Column("user_entry_rate", USER, Derived("rate", ("user_entries", "user_impressions")), f"{RATE} of the user"),
    Column(EARLIER, USER, Preference("impressions"), "impressions within the schema's first `preference_days`"),
    # the candidate's room, and who streams in it
    Column("room_id", ROOM, Id(), "the candidate's room"),
    Column("streamer_id", ROOM, Id(), "who streams in the room"),
    *windowed("room_impressions", ROOM, IMPRESSIONS, "impressions of the room"),
    *windowed("room_entries", ROOM, ENTER, "entries into the room"),
    *windowed("room_orders", ROOM, ORDER, "orders in the room"),
    *windowed_rate("room_entry_rate", ROOM, "room_entries", "room_impressions", f"{RATE} of the room"),
    Column("room_age_hours", ROOM, Hours("first", IMPRESSIONS), START, stored="room_first_at"),
    *windowed("streamer_impressions", STREAMER, IMPRESSIONS, "impressions of the streamer's rooms"),
    *windowed("streamer_entries", STREAMER, ENTER, "entries into the streamer's rooms"),
    *windowed("streamer_orders", STREAMER, ORDER, "orders in the streamer's rooms"),
    *windowed_rate("streamer_entry_rate", STREAMER, "streamer_entries", "streamer_impressions", f"{RATE} of the streamer"),
    Column(
        "streamer_age_hours", STREAMER, Hours("first", IMPRESSIONS), "since the first impression", stored="streamer_first_at"
    ),
    # this user with the candidate's streamer and room
    of_pair("streamer", "impressions", Count(IMPRESSIONS), "impressions of the streamer's rooms on this user"),
    of_pair("streamer", "entries", Count(ENTER), "entries of this user into the streamer's rooms"),
    of_pair("streamer", "orders", Count(ORDER), "orders of this user in the streamer's rooms"),
    of_pair("streamer", "hours", Hours("last", ENTER), "since this user last entered one of them", stored="last_entry_at"),
    rate_of_pair("streamer"),
    of_pair("room", "impressions", Count(IMPRESSIONS), "impressions of the room on this user"),
    of_pair("room", "entries", Count(ENTER), "entries of this user into the room"),
    of_pair("room", "orders", Count(ORDER), "orders of this user in the room"),
    of_pair("room", "hours", Hours("last", IMPRESSIONS), "since the room was last shown to this user", stored="last_shown_at"),
    rate_of_pair("room"),
    # the feed
    Column("hour", FEED, Derived("hour", ("at",)), "local hour of the day, 0 to 23"),
    Column("weekday", FEED, Derived("weekday", ("at",)), "local day of the week, 0 = Monday"),
    Column("feed_size", FEED, Derived("feed_size", ("room_id",)), "candidates of the feed; needs `list_context`"),
    Column("position", CANDIDATE, Logged(in_requests=False), "place in the logged feed, for the report; no field may read it"),
)

USERS = Attribute("users", "user_id")
ROOMS = Attribute("rooms", "room_id")
STREAMERS = Attribute("streamers", "streamer_id")
PRODUCTS = Attribute("products", "product_id")

FAMILIES: tuple[Family, ...] = (
    Family("user", USER, USERS, "an attribute of the user"),
    Family("room", ROOM, ROOMS, "an attribute of the room"),
    Family("streamer", STREAMER, STREAMERS, "an attribute of the streamer"),
    Family("product", PRODUCT, PRODUCTS, "an attribute of the product on screen"),
    Family(CONTEXT_FAMILY, CONTEXT, Logged(), "what surrounds the request: device, scene, ..."),
    Family(STATE_FAMILY, ROOM, Logged(), "the room as it is now: viewers, product on screen, ..."),
    Family(PREFERENCE, USER, Preference("labels"), "mean label of a target an impression, within `preference_days`"),
    Family(EARLIER, USER, Preference("impressions"), "impressions within another of the `preference_days`"),
)


RANKED = "rank of the candidate in its feed by another column, 0 the largest, 1 the smallest; needs `list_context`"


@dataclass(frozen=True)
class Catalogue:
    """Declarations, to be asked by name.

    Raises:
        ValueError: a name is declared twice, or a rate is not one of two counts of the same feed or candidate.
    """

    columns: tuple[Column, ...]
    families: tuple[Family, ...]

    def __post_init__(self) -> None:
        for kind in ("name", "stored"):
            names = [getattr(column, kind) for column in self.columns]
            if len(set(names)) < len(names):
                raise ValueError(f"declared twice: {', '.join(sorted({name for name in names if names.count(name) > 1}))}.")
        for column in self.columns:
            if isinstance(column.how, Derived) and column.how.by == "rate":
                counts = [known for name in column.inputs if (known := self.find(name)) and known.is_count]
                if len(counts) != 2 or len(column.inputs) != 2 or {known.level for known in counts} != {column.level}:
                    raise ValueError(
                        f"`{column.name}` is the rate of {column.inputs}; it takes two counters of a {column.level}: events, "
                        "and impressions."
                    )

    def find(self, name: str) -> Column | None:
        """The column of that name, of a family or a rank too; None where there is none."""
        if name in self._by_name:
            return self._by_name[name]
        head, _, member = name.partition(".")
        if head == RANK:
            ranked = self.find(member)
            if ranked is None or not ranked.can_be_ranked:
                return None
            return Column(name, CANDIDATE, Derived("rank", (member,)), RANKED, family=RANK)
        return self._by_family[head].column(member) if head in self._by_family and member else None

    def find_stored(self, name: str) -> Column | None:
        """The base column that snapshot and store keep under that name."""
        return self._by_stored.get(name) or self.find(name)

    def is_room_state(self, name: str) -> bool:
        """Does the column speak of what changes while a room is live (the product is the one on screen), not of what it is?"""
        column = self.find(name)
        if column is None:
            return False
        if column.is_derived:
            return all(map(self.is_room_state, column.inputs))
        return column.of == PRODUCT or (column.of == ROOM and not isinstance(column.how, Id | Attribute))

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @cached_property
    def _by_stored(self) -> dict[str, Column]:
        return {column.stored: column for column in self.columns if not column.is_derived}

    @cached_property
    def _by_family(self) -> dict[str, Family]:
        return {family.name: family for family in self.families}


CATALOGUE = Catalogue(COLUMNS, FAMILIES)  # replaced by a test that declares more, so ask it where it is needed

HOURS_AGO = Column("hours_ago", ENTRY, Derived("hours_ago", ("at",)), "hours from the entry to the feed")
ENTRIES: Mapping[str, Catalogue] = MappingProxyType(
    {
        "engagements": Catalogue(
            columns=(
                Column("room_id", ENTRY, Id(), "the room entered"),
                Column("streamer_id", ENTRY, Id(), "who streamed in it"),
                Column("stay_seconds", ENTRY, Logged(), "how long the stay was"),
                HOURS_AGO,
            ),
            families=(
                Family("room", ENTRY, ROOMS, "an attribute of the room entered"),
                Family("streamer", ENTRY, STREAMERS, "an attribute of who streamed in it"),
            ),
        ),
        "product_clicks": Catalogue(
            columns=(Column("product_id", ENTRY, Id(), "the product clicked"), HOURS_AGO),
            families=(Family("product", ENTRY, PRODUCTS, "an attribute of the product clicked"),),
        ),
    }
)
"""What an entry of a history has beside `at`, by the log table it comes from; names are without the history's."""


def find(name: str) -> Column | None:
    """The raw column of that name; None where there is none."""
    return CATALOGUE.find(name)


def stored_ids(other: str) -> str:
    """The list beside those of a kind of pairs that says with whom a user is paired."""
    return f"pair.{other}_id"


def find_stored(name: str) -> Column | None:
    """The base column that snapshot and store keep under that name."""
    return CATALOGUE.find_stored(name)


def counters(names: Collection[str], *of: Subject) -> list[Column]:
    """Of these columns the counters and hours of some subjects, in order of declaration."""
    return [
        column
        for column in CATALOGUE.columns
        if column.name in names and column.of in of and isinstance(column.how, Count | Hours)
    ]


def logged(names: Iterable[str], *of: Subject) -> list[str]:
    """Of these columns those of some subjects that the log carries beside its impressions."""
    known = {name: find(name) for name in names}
    return [name for name, column in known.items() if column and column.of in of and isinstance(column.how, Logged)]


def is_room_state(name: str) -> bool:
    """See `Catalogue.is_room_state`."""
    return CATALOGUE.is_room_state(name)


@dataclass(frozen=True)
class Line:
    """A column, or a family of columns, as the documentation lists it.

    Attributes:
        default: what stands for it where nothing is known; empty for a derived column, which follows from its inputs.
        derived_from: columns that it is computed from; none for a base column.
    """

    name: str
    of: str
    meaning: str
    default: str
    derived_from: tuple[str, ...]


def listing() -> tuple[Line, ...]:
    """All columns and families in order of declaration, `feed_rank.*` and the columns of histories' entries last."""
    found = [*CATALOGUE.columns, *(family.column("*") for family in CATALOGUE.families)]
    found.append(Column(f"{RANK}.*", CANDIDATE, Derived("rank", ("*",)), RANKED, family=RANK))
    lines = [_line(column, column.name) for column in found]
    for events, entries in ENTRIES.items():
        members = [*entries.columns, *(family.column("*") for family in entries.families)]
        lines += [_line(column, f"HISTORY.{column.name} ({events})") for column in members]
    return tuple(lines)


def _line(column: Column, name: str) -> Line:
    default = "0" if column.is_count else "missing"
    if column.is_count and column.of.key == STREAMER.key:
        default = "0; missing where the streamer is not known"
    return Line(
        name=name,
        of=column.of.name,
        meaning=f"hours {column.meaning}" if isinstance(column.how, Hours) else column.meaning,
        default="" if column.is_derived else default,
        derived_from=column.inputs,
    )
