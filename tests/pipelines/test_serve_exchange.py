"""One endpoint for another: beside what answers, one at a time, and nothing is closed under anybody's hands."""

import gc
import threading
import time
import weakref

import pytest

from models.config import ConfigError
from pipelines.serve.exchange import Exchange, Target

A, B, C = Target("/bundles/a", "/stores/1", "1"), Target("/bundles/b", "/stores/1", "1"), Target("/bundles/c")


class Opened:
    """Stands for an endpoint."""

    def __init__(self, target: Target) -> None:
        self.target = target


class Loads:
    """Loads what it is asked for when it may, and notes the order."""

    def __init__(self) -> None:
        self.asked: list[tuple[Target, bool]] = []
        self.gates: dict[Target, threading.Event] = {}
        self.broken: set[Target] = set()

    def __call__(self, target: Target, answered_before: bool) -> Opened:
        self.asked.append((target, answered_before))
        if target in self.gates:
            assert self.gates[target].wait(30)
        if target in self.broken:
            raise ConfigError(f"{target.bundle} is damaged.")
        return Opened(target)


def until(holds) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def settled(exchange: Exchange) -> None:
    until(lambda: exchange.report.is_settled and exchange._worker is None)


@pytest.fixture
def loads():
    return Loads()


@pytest.fixture
def noted():
    return []


@pytest.fixture
def exchange(loads, noted):
    made = Exchange(loads, remember=lambda good: noted.append([target.bundle[-1] for target in good]))
    made.start(A)
    return made


def test_the_next_one_is_loaded_beside_the_one_that_answers(exchange, loads, noted):
    loads.gates[B] = threading.Event()
    exchange.aim(B)  # and returns at once
    assert exchange.current.target == A and exchange.report.target == B and not exchange.report.is_settled
    loads.gates[B].set()
    settled(exchange)
    assert exchange.current.target == B
    assert (exchange.report.serving, exchange.report.loading, exchange.report.refused) == (B, None, None)
    assert loads.asked == [(A, False), (B, False)]
    exchange.aim(A)
    settled(exchange)
    assert exchange.current.target == A and loads.asked[-1] == (A, True)  # known to have answered: its hash is not read again
    assert noted == [["a"], ["b", "a"], ["a", "b"]]


def test_what_does_not_fit_is_refused_and_the_one_before_goes_on(exchange, loads, noted):
    loads.broken.add(B)
    exchange.aim(B)
    settled(exchange)
    assert exchange.current.target == A and exchange.report.serving == A
    assert (exchange.report.refused.target, exchange.report.refused.why) == (B, "/bundles/b is damaged.")
    exchange.aim(A)  # who deployed takes it back; what was refused, and why, can still be read
    settled(exchange)
    assert loads.asked == [(A, False), (B, False)] and exchange.report.refused.target == B
    loads.broken.clear()
    exchange.aim(B)  # the disk is back
    settled(exchange)
    assert exchange.current.target == B and exchange.report.refused is None
    assert noted == [["a"], ["b", "a"]]


def test_asked_for_something_else_meanwhile_only_the_last_counts(exchange, loads):
    for target in (B, C):
        loads.gates[target] = threading.Event()
    exchange.aim(B)
    until(lambda: loads.asked[-1][0] == B)
    exchange.aim(C)
    exchange.aim(A)  # which is what answers
    loads.gates[B].set()
    settled(exchange)
    assert exchange.current.target == A and [target for target, _ in loads.asked] == [A, B]
    loads.gates[B].clear()
    exchange.aim(B)
    until(lambda: exchange.report.loading == B)
    exchange.aim(C)
    loads.gates[B].set()
    loads.gates[C].set()
    settled(exchange)
    assert exchange.current.target == C and exchange.report.refused is None


def test_what_is_no_target_is_told(exchange):
    with pytest.raises(ConfigError, match=r"is a `bundle`, a `store` and a `version`, all of them texts; got .*'bundle': 3"):
        Target.of({"bundle": 3})
    exchange.refuse({"bundle": 3}, "it is no text.")
    assert exchange.report.is_settled and exchange.report.refused.why == "it is no text." and exchange.current.target == A


@pytest.mark.parametrize("good", [[B, C], [C, B]])
def test_a_start_falls_back_to_what_answered_last(loads, good):
    loads.broken |= {A, C}
    exchange = Exchange(loads)
    exchange.start(A, good)
    assert exchange.current.target == B and exchange.report.serving == B
    assert exchange.report.refused.why == "/bundles/a is damaged." and exchange.report.is_settled
    loads.broken.add(B)
    with pytest.raises(ConfigError, match="/bundles/a is damaged"):
        Exchange(loads).start(A, good)


def test_a_note_that_cannot_be_taken_stops_nothing(loads):
    def fails(good):
        raise OSError("no head")

    exchange = Exchange(loads, remember=fails)
    exchange.start(A)
    exchange.aim(B)
    settled(exchange)
    assert exchange.current.target == B


def test_the_old_one_goes_when_nobody_is_at_work_with_it(exchange):
    used = exchange.current  # by a request that has begun
    gone = weakref.ref(used)
    exchange.aim(B)
    settled(exchange)
    gc.collect()
    assert gone() is used
    del used
    assert gone() is None  # at once, not when somebody looks
