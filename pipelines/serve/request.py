"""What `POST /rank` takes and gives, and how a body becomes a request: in one step, and with all that is wrong if it cannot."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

_EARLIEST, _LATEST = 946_684_800_000, 4_102_444_800_000  # years 2000 and 2100 in ms: seconds and microseconds lie outside
MOST_TOLD = 20  # of the things that are wrong with a request
MOST_TEXT = 1000  # characters
MOST_NAMES = 500  # columns of one subject
MOST_ENTRIES = 1000  # of a history
_MOST_SHOWN = 100  # characters of a name that is repeated in an answer
_MOST_SAID = 1000  # characters of what is said of one thing that is wrong
_LARGE = 100_000  # bytes from which on candidates are counted before any is read
_MOST_LOOKED = 20_000  # values that are looked at to say what is wrong: all this happens while other requests wait

Place = tuple[str | int, ...]  # of a value in the body of a request
_Way = tuple[Any, str | int] | None  # to a place: the way to what it is in, and the last step
Body = dict[str, Any]  # JSON as it is sent: a `RankRequest`, or a `RankResponse`

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
Id = Int64 | Annotated[str, Meta(min_length=1, max_length=MOST_TEXT)]  # an empty text names nothing
Value = bool | Int64 | float | Text | None
Name = Annotated[str, Meta(max_length=MOST_TEXT)]


def _columns(description: str) -> Meta:
    return Meta(max_length=MOST_NAMES, description=description)


class CandidateRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A room to rank."""

    room_id: Annotated[Id, Meta(description="Which room, as the log names it; large integers may be written as text.")]
    state: Annotated[dict[Name, Value], _columns("The room as it is now, without the prefix: `viewers`, `product_id`.")] = {}
    features: Annotated[
        dict[Name, Value],
        _columns("Raw candidate columns by full name, instead of the stored ones: `streamer_id`, `room_entries.1h`."),
    ] = {}


class RankRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user at one moment and the rooms to choose from. Either a known `user_id`, or features inline, or both."""

    user_id: Annotated[Id | None, Meta(description="Whom to rank for; a stored user's features and histories are used.")] = None
    at: Annotated[Int64 | None, Meta(description="When, ms since 1970-01-01 UTC; now by default.")] = None
    user: Annotated[
        dict[Name, Value],
        _columns("Raw user columns by full name, instead of the stored ones: `user.age`, `user_entries`."),
    ] = {}
    context: Annotated[dict[Name, Value], _columns("What surrounds the request, without the prefix: `device`.")] = {}
    histories: Annotated[
        dict[Name, Annotated[list[Annotated[dict[Name, Value], Meta(max_length=MOST_NAMES)]], Meta(max_length=MOST_ENTRIES)]],
        _columns(
            "Past events by history, instead of the stored ones, in the order in which they became known (an entered room "
            "when the stay was over). Each has `at` (ms) and what the history reads, as `room_id` or `room.category`."
        ),
    ] = {}
    candidates: Annotated[list[CandidateRequest], Meta(min_length=1)]
    k: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="Give only the k best; all by default.")] = None
    fusion_weights: Annotated[
        Annotated[dict[Name, int | float], Meta(max_length=MOST_NAMES)] | None,
        Meta(description="Weight of every target in the score, instead of the schema's; targets not named count 0."),
    ] = None
    format: Annotated[
        Literal["rows", "columns"],
        Meta(description="`rows` gives `ranked`, a room a row; `columns` gives `columns`, a list of all rooms for each value."),
    ] = "rows"


class RankedRoom(Struct, frozen=True):
    """One candidate of the answer."""

    room_id: Annotated[int | str, Meta(description="As given in the request.")]
    score: Annotated[float, Meta(description="What the rooms are ordered by.")]
    predictions: Annotated[
        dict[str, float], Meta(description="Every target that the model learnt: a probability, or a value in its own unit.")
    ]
    room_known: Annotated[bool, Meta(description="False: neither stored nor given inline, so defaults stand for its features.")]


class RankedColumns(Struct, frozen=True):
    """The same as `RankedRoom`, value by value: each list holds that of every room, best first."""

    room_id: list[int | str]
    score: list[float]
    predictions: dict[str, list[float]]
    room_known: list[bool]


class Timing(Struct, frozen=True):
    """How long the parts of an answer took, those of a batch for all its requests together."""

    assemble_ms: Annotated[float, Meta(description="Reading the store and building the raw feed.")]
    encode_ms: float
    model_ms: float
    total_ms: Annotated[float, Meta(description="In the endpoint; network and queues not included.")]
    batch: Annotated[int, Meta(description="Requests that were scored together.")]


class RankResponse(Struct, frozen=True, kw_only=True):
    """The candidates in order, best first; of `ranked` and `columns` the one that was asked for."""

    ranked: Annotated[list[RankedRoom] | UnsetType, Meta(description="Best first; equal scores in the request's order.")] = (
        UNSET
    )
    columns: RankedColumns | UnsetType = UNSET
    user_known: Annotated[
        bool, Meta(description="False: nothing was read of the user, stored or given, so defaults stand for all features.")
    ]
    ignored: Annotated[list[str], Meta(description="Columns that were given but that this model does not read.")]
    model: str
    as_of: Annotated[int | None, Meta(description="End of the log that the store was built from, in ms; null without a store.")]
    age_seconds: Annotated[float | None, Meta(description="From `as_of` to the request's own time.")]
    stale: Annotated[bool, Meta(description="Whether the store is older than `serve.max_age_hours`.")]
    timing: Timing


class Problem(Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        type: for programs.
        loc: the way to the field, from `body` on.
        msg: for people.
    """

    type: str
    loc: Sequence[str | int]
    msg: str


class Refusal(Struct, frozen=True):
    """What every answer other than 200 holds."""

    detail: Sequence[Problem]


class RequestError(ValueError):
    """A request that cannot be answered; `where` leads to the (first) field, from `body` on."""

    def __init__(self, where: Place, message: str, *, kind: str = "invalid", more: Sequence[Problem] = ()) -> None:
        message = message if len(message) <= _MOST_SAID else f"{message[:_MOST_SAID]}..."
        super().__init__(message)
        self.where = ("body", *where)
        self.problems = (Problem(kind, self.where, message), *more)


class NotJson(RequestError):
    """A body that is no JSON."""

    def __init__(self, message: str, where: Place = ()) -> None:
        super().__init__(where, message, kind="json_invalid")


class _Shell(Struct):
    candidates: list[msgspec.Raw] = []


_read = msgspec.json.Decoder(RankRequest).decode
_read_shell = msgspec.json.Decoder(_Shell).decode
_read_anything = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


def read_request(body: bytes, *, most_candidates: int = 1000) -> RankRequest:
    """The request that a body spells.

    Raises:
        NotJson: it spells nothing.
        RequestError: fields are missing, unknown, or of another type or size; at most `MOST_TOLD` of them are told.
    """
    try:
        if len(body) > _LARGE:
            _check_count(len(_read_shell(body).candidates), most_candidates)
        request = _read(body)
    except RecursionError:
        raise NotJson("is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise _explained(body, error) from None
    _check_count(len(request.candidates), most_candidates)
    if request.at is not None and not _EARLIEST <= request.at < _LATEST:
        raise RequestError(("at",), f"{request.at} is no time in ms since 1970-01-01 UTC (seconds or microseconds?).")
    return request


def as_json(content: Struct | Body) -> bytes:
    """Floats are written so that they are read back exactly; who calls it makes sure that none is NaN or infinite."""
    return _write(content)


def from_json(text: bytes) -> Body:
    """An object that was written as JSON."""
    return msgspec.json.decode(text, type=dict)


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise RequestError(("candidates",), f"holds {count} rooms; this endpoint takes at most {most}.")


def _explained(body: bytes, error: msgspec.DecodeError) -> RequestError:
    """What is wrong with a body, and where: the decoder tells the first error, and not in which key of an object.

    Of a large body that first error alone is looked for, and of any body so many values are looked at and no more: who sends
    nonsense must not keep others waiting.
    """
    message, where = _told(error)
    try:
        whole = _read_anything(body)
    except (msgspec.DecodeError, RecursionError) as malformed:
        return _malformed(body, malformed if type(malformed) is msgspec.DecodeError else error)
    found = [] if len(body) > _LARGE else _first(MOST_TOLD, whole, RankRequest, ())
    if not found:
        try:
            found = _first(1, *_inside(whole, RankRequest, where), where)
        except LookupError:  # a key that is there twice: the decoder has read both, and this is the other one
            found = []
    if found:
        return RequestError(tuple(found[0].loc)[1:], found[0].msg, more=found[1:])
    return RequestError(where, message)


def _first(most: int, value: Any, kind: Any, place: Place) -> list[Problem]:
    return list(islice(filter(None, islice(_problems(value, kind, place), _MOST_LOOKED)), most))


def _inside(value: Any, kind: Any, place: Place) -> tuple[Any, Any]:
    """What is at the end of a decoder's path of fields and items, and of which kind it is to be."""
    for step in place:
        bare, _ = _bare(kind)
        fields = {} if isinstance(step, int) else {field.name: field.type for field in msgspec.structs.fields(bare)}
        value, kind = value[step], get_args(bare)[0] if isinstance(step, int) else fields[step]
    return value, kind


def _problems(value: Any, kind: Any, place: Place) -> Iterator[Problem | None]:
    """None for each value that is as it should be."""
    bare, metas = _bare(kind)
    if get_origin(bare) in (Union, UnionType):
        # of several kinds, the one that is a container like the value
        fitting = [each for each in get_args(bare) if isinstance(value, dict) and get_origin(_bare(each)[0]) is dict]
        bare, metas = _bare(fitting[0]) if fitting else (bare, metas)
    if isinstance(bare, type) and issubclass(bare, Struct) and isinstance(value, dict):
        fields = {field.name: field for field in msgspec.structs.fields(bare)}
        for name in value:
            if name not in fields:
                yield _problem((*place, name[:_MOST_SHOWN]), f"is no field here; known are: {', '.join(fields)}.")
        for name, field in fields.items():
            if name in value:
                yield from _problems(value[name], field.type, (*place, name))
            elif field.required:
                yield _problem((*place, name), "is missing.")
    elif get_origin(bare) is list and isinstance(value, list):
        yield from _lengths(value, list, metas, place)
        for number, each in enumerate(value):
            yield from _problems(each, get_args(bare)[0], (*place, number))
    elif get_origin(bare) is dict and isinstance(value, dict):
        yield from _lengths(value, dict, metas, place)
        of_name, of_value = get_args(bare)
        for name, each in value.items():
            here = (*place, name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}...")
            yield from _problems(name, of_name, here)
            yield from _problems(each, of_value, here)
    else:
        try:
            msgspec.convert(value, kind)
            yield None
        except msgspec.ValidationError as error:
            yield _problem(place, _told(error)[0])


def _lengths(value: Any, kind: type, metas: tuple[Meta, ...], place: Place) -> Iterator[Problem]:
    for meta in metas:
        try:
            msgspec.convert(value, Annotated[kind, meta])
        except msgspec.ValidationError as error:
            yield _problem(place, _told(error)[0])


def _bare(kind: Any) -> tuple[Any, tuple[Meta, ...]]:
    return (get_args(kind)[0], kind.__metadata__) if get_origin(kind) is Annotated else (kind, ())


def _problem(place: Place, message: str) -> Problem:
    return Problem("invalid", ("body", *place), message)


def _told(error: msgspec.DecodeError) -> tuple[str, Place]:
    """A decoder's message without its path, and the path as far as it names fields."""
    message, _, path = str(error).partition(" - at `$")
    # behind `[...]` it is in some key of an object
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", path.partition("[...]")[0])
    message = message.removeprefix("JSON is malformed: ")
    return f"{message[:1].lower()}{message[1:]}.", tuple(int(number) if number else name for name, number in steps)


def _malformed(body: bytes, error: msgspec.DecodeError) -> RequestError:
    """What is no JSON; of numbers and texts that only look like it, the place is told where the body is not large."""
    if not body.strip():
        return NotJson("is empty; it has to be a JSON object with `candidates`.")
    if len(body) <= _LARGE:
        try:
            for way, value in islice(_leaves(json.loads(body, parse_int=float)), _MOST_LOOKED):
                if isinstance(value, float) and not math.isfinite(value):
                    return NotJson("is NaN, infinite or beyond float64.", _place(way))
                if isinstance(value, str) and not _is_text(value):
                    return NotJson("holds half a character (a lone surrogate), which is no text.", _place(way))
        except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
            pass
    message, where = _told(error)
    return NotJson(message, where) if where else NotJson(f"is no JSON: {message}")


def _leaves(whole: Any) -> Iterator[tuple[_Way, Any]]:
    """Texts and numbers in their order; without recursion, whose every step would cost as much as the place is deep."""
    waiting: list[tuple[_Way, Any]] = [(None, whole)]
    while waiting:
        way, value = waiting.pop()
        if isinstance(value, dict):
            yield from ((way, name) for name in value if not _is_text(name))
            waiting += [((way, name), each) for name, each in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((way, number), value[number]) for number in range(len(value) - 1, -1, -1)]
        elif isinstance(value, str | float):
            yield way, value


def _place(way: _Way) -> Place:
    steps: list[str | int] = []
    while way is not None:
        way, step = way
        steps.append(step)
    return tuple(reversed(steps))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
