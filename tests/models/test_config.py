"""Configuration: strict spelling, messages with the path and the way out."""

from dataclasses import field
from typing import Annotated, Literal

import pytest
from pydantic import Discriminator

from models.config import ConfigError, config, from_dict, replaced, to_dict


@config
class Left:
    kind: Literal["left"] = "left"
    size: int = 1


@config
class Right:
    kind: Literal["right"] = "right"
    ratio: float = 0.5

    def __post_init__(self):
        if self.ratio > 1:
            raise ValueError(f"ratio must not be above 1, got {self.ratio}.")


@config
class Whole:
    side: Annotated[Left | Right, Discriminator("kind")]
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    fair: bool = True


def test_plain_spelling_both_ways():
    whole = from_dict(Whole, {"side": {"kind": "right", "ratio": 0.25}, "names": ["a"]})
    assert whole == Whole(side=Right(ratio=0.25), names=("a",))
    assert from_dict(Whole, to_dict(whole)) == whole


@pytest.mark.parametrize(
    ("spelling", "told"),
    [
        ({"side": {"kind": "left", "sise": 3}}, "`side.left.sise` is not a known key. Known here: kind, size."),
        ({"side": {"kind": "left", "size": "big"}}, "`side.left.size` is 'big'"),
        ({"side": {"kind": "up"}}, "'left', 'right'"),
        ({"side": {"kind": "right", "ratio": 2}}, "side.right: ratio must not be above 1, got 2.0."),
        ({"side": {"kind": "left", "size": True}}, "`side.size` is True: input should be a number."),
        ({"side": {"kind": "right", "ratio": False}}, "`side.ratio` is False: input should be a number."),
        ({"side": {"kind": "left"}, "sizes": [1, 2**63]}, f"`sizes.1` is {2**63}: no number here may be beyond 2**63."),
        ({"side": {"kind": "left"}, "sizes": [1, True]}, "`sizes.1` is True: input should be a number."),
        ({"side": {"kind": "left"}, "shares": {"a": True}}, "`shares.a` is True: input should be a number."),
        ({"side": {"kind": "right", "ratio": float("nan")}}, "`side.right.ratio` is nan: input should be a finite number."),
        ({}, "`side` is missing."),
    ],
)
def test_what_is_wrong_is_said_with_its_path(spelling, told):
    with pytest.raises(ConfigError) as error:
        from_dict(Whole, spelling)
    assert told in str(error.value)


def test_replaced_makes_what_is_missing_and_leaves_the_original():
    before = {"a": {"b": 1}, "c": 2}
    assert replaced(before, "a.d.e", 3) == {"a": {"b": 1, "d": {"e": 3}}, "c": 2}
    assert before == {"a": {"b": 1}, "c": 2}
    with pytest.raises(ConfigError, match="`c` is 2, not a section"):
        replaced(before, "c.d", 1)
