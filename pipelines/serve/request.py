"""What `POST /rank` takes and gives."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
)

_EARLIEST, _LATEST = 946_684_800_000, 4_102_444_800_000  # years 2000 and 2100 in ms: seconds and microseconds lie outside

Int64 = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Finite = Annotated[StrictFloat, Field(allow_inf_nan=False)]

Text = Annotated[StrictStr, Field(min_length=0)]  # a length makes pydantic look inside: half a character is refused
Id = Int64 | Annotated[StrictStr, Field(min_length=1)]  # an empty text names nothing
Body = dict[str, Any]  # JSON as it is sent: a `RankRequest`, or a `RankResponse`
Value = StrictBool | Int64 | Finite | Text | None


def _in_ms(moment: int) -> int:
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError(f"{moment} is no time in ms since 1970-01-01 UTC (seconds or microseconds?).")
    return moment


Moment = Annotated[Int64, AfterValidator(_in_ms)]


class _Strict(BaseModel):
    """A part of a request: keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CandidateRequest(_Strict):
    """A room to rank."""

    room_id: Id
    state: dict[str, Value] = Field(
        default={}, description="The room as it is now, without the prefix: `viewers`, `product_id`."
    )
    features: dict[str, Value] = Field(
        default={},
        description="Raw candidate columns by full name, instead of the stored ones: `streamer_id`, `room_entries.1h`.",
    )


class RankRequest(_Strict):
    """One user at one moment and the rooms to choose from. Either a known `user_id`, or features inline, or both."""

    user_id: Id | None = Field(default=None, description="Whom to rank for; a stored user's features and histories are used.")
    at: Moment | None = Field(default=None, description="When, ms since 1970-01-01 UTC; now by default.")
    user: dict[str, Value] = Field(
        default={}, description="Raw user columns by full name, instead of the stored ones: `user.age`, `user_entries`."
    )
    context: dict[str, Value] = Field(default={}, description="What surrounds the request, without the prefix: `device`.")
    histories: dict[str, list[dict[str, Value]]] = Field(
        default={},
        description="Past events by history, instead of the stored ones, in the order in which they became known (an entered "
        "room when the stay was over). Each has `at` (ms) and what the history reads, as `room_id` or `room.category`.",
    )
    candidates: list[CandidateRequest] = Field(min_length=1)
    k: int | None = Field(default=None, ge=1, strict=True, description="Give only the k best; all by default.")
    fusion_weights: dict[str, StrictInt | Finite] | None = Field(
        default=None, description="Weight of every target in the score, instead of the schema's; targets not named count 0."
    )

    @field_validator("candidates")
    @classmethod
    def _no_room_twice(cls, candidates: list[CandidateRequest]) -> list[CandidateRequest]:
        seen: set[int | str] = set()
        for item in candidates:
            if item.room_id in seen:
                raise ValueError(f"room {item.room_id!r} is among the candidates twice.")
            seen.add(item.room_id)
        return candidates


class RankedRoom(BaseModel):
    """One candidate of the answer."""

    room_id: int | str = Field(description="As given in the request.")
    score: float = Field(description="What the rooms are ordered by.")
    predictions: dict[str, float] = Field(
        description="Every target that the model learnt: a probability, or a value in its own unit."
    )
    room_known: bool = Field(description="False: neither stored nor given inline, so defaults stand for its features.")


class Timing(BaseModel):
    """How long the parts of an answer took."""

    assemble_ms: float = Field(description="Reading the store and building the raw feed.")
    encode_ms: float
    model_ms: float
    total_ms: float = Field(description="In the endpoint; network and queues not included.")


class RankResponse(BaseModel):
    """The candidates in order, best first."""

    ranked: list[RankedRoom] = Field(description="Best first; equal scores in the request's order.")
    user_known: bool = Field(description="False: neither stored nor given inline, so defaults stand for the user's features.")
    ignored: list[str] = Field(description="Columns that were given but that this model does not read.")
    model: str
    timing: Timing


class RequestError(ValueError):
    """A request that is well formed but cannot be answered; `where` leads to the field, from `body` on."""

    def __init__(self, where: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.where = ("body", *where)
