"""One endpoint for another while requests are answered; nothing here knows HTTP or Ray.

What is told to be served (a `Target`) is loaded beside what answers, in a thread, until it has answered a request for
practice; then one reference is exchanged. What does not fit is refused and leaves everything as it was. Who is at work on a
request keeps the endpoint that it began with: the last of them lets go of its model and its store, so nothing is closed
under anybody's hands.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from models.config import ConfigError
from pipelines.places import place

E = TypeVar("E")

REMEMBERED = 5  # targets that answered, the newest first

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What is to be served.

    Attributes:
        bundle, store: folders.
        version: another text where files were replaced in their old place.
    """

    bundle: str
    store: str | None = None
    version: str = ""

    @classmethod
    def of(cls, spelling: Mapping[str, Any]) -> "Target":
        """From plain values; keys of others are left alone.

        Raises:
            ConfigError: no bundle is named, or something is no text.
        """
        found = {name: spelling.get(name) for name in ("bundle", "store", "version")}
        if not found["bundle"] or not all(value is None or isinstance(value, str) for value in found.values()):
            raise ConfigError(f"what is to be served is a `bundle`, a `store` and a `version`, all of them texts; got {found}.")
        return cls(found["bundle"], found["store"], found["version"] or "")  # type: ignore[arg-type]  # looked at above

    @property
    def names(self) -> dict[str, str | None]:
        """Without the folders around, which are nobody's business outside."""
        return {"bundle": place(self.bundle).name, "store": None if self.store is None else place(self.store).name}


@dataclass(frozen=True)
class Refused:
    """What was to be served and is not.

    Attributes:
        at: when, seconds since 1970.
    """

    target: Target
    why: str
    at: float


@dataclass(frozen=True)
class Report:
    """How far an exchange has come.

    Attributes:
        target: what was asked for last.
        serving: what answers.
        loading: what is being loaded beside it.
        refused: what could not be served, until something new is.
    """

    target: Target | None
    serving: Target | None
    loading: Target | None
    refused: Refused | None

    @property
    def is_settled(self) -> bool:
        """Whether what was asked for answers, or was refused."""
        return self.loading is None and (self.serving == self.target or self._is_refused)

    @property
    def _is_refused(self) -> bool:
        return self.refused is not None and self.refused.target == self.target

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Exchange(Generic[E]):
    """The endpoint that answers now, and the way to the next one.

    Args:
        load: opens what a target names, makes sure that it answers, and returns it. Is told whether it answered before.
        remember: is given what has answered, the newest first, whenever that changes.
        told: what a user is told of an error.
    """

    def __init__(
        self,
        load: Callable[[Target, bool], E],
        *,
        remember: Callable[[Sequence[Target]], None] = lambda good: None,
        told: Callable[[Exception], str] = str,
    ) -> None:
        self._load, self._remember, self._told = load, remember, told
        self._lock = threading.Lock()
        self._endpoint: E | None = None
        self._report = Report(None, None, None, None)
        self._good: tuple[Target, ...] = ()
        self._worker: threading.Thread | None = None

    @property
    def current(self) -> E | None:
        """Who holds it may use it as long as it likes."""
        return self._endpoint

    @property
    def report(self) -> Report:
        return self._report

    def start(self, target: Target, good: Sequence[Target] = ()) -> None:
        """Loads the first endpoint, and waits for it: the target, else what answered last, which is told as a refusal.

        Args:
            good: what has answered before, perhaps in another process; the newest first.

        Raises:
            Exception: as `load` does for the target, where none of them can be loaded.
        """
        first: Exception | None = None
        for candidate in dict.fromkeys((target, *good)):
            try:
                endpoint = self._load(candidate, candidate in good)
            except Exception as error:
                first = first or error
                logger.warning("%s cannot be served: %s", candidate.bundle, error)
                continue
            refused = None if first is None else Refused(target, self._told(first), time.time())
            with self._lock:
                self._endpoint, self._good = endpoint, tuple(good)
                self._report = Report(target, candidate, None, refused)
            self._note(candidate)
            return
        assert first is not None
        raise first

    def aim(self, target: Target) -> None:
        """Has the target loaded beside what answers, and returns at once; a later target takes the place of this one.

        One that was refused before is tried again: a disk may be back.
        """
        with self._lock:
            refused = self._report.refused
            tried = refused is not None and refused.target == target
            self._report = replace(self._report, target=target, refused=None if tried else refused)
            if self._worker is None and not self._report.is_settled:
                self._worker = threading.Thread(target=self._work, name="load an endpoint", daemon=True)
                self._worker.start()

    def refuse(self, spelling: Mapping[str, Any], why: str) -> None:
        """Notes that what was asked for is no target at all."""
        target = Target(*(str(spelling.get(name)) for name in ("bundle", "store", "version")))
        with self._lock:
            self._report = replace(self._report, target=target, refused=Refused(target, why, time.time()))

    def _work(self) -> None:
        while True:
            with self._lock:
                report = self._report
                if report.is_settled or report.target is None:
                    self._worker = None
                    return
                target = report.target
                self._report = replace(report, loading=target)
            endpoint, refused = None, None
            try:
                endpoint = self._load(target, target in self._good)
            except Exception as error:
                logger.warning("%s is refused; what answered before goes on.", target.bundle, exc_info=error)
                refused = Refused(target, self._told(error), time.time())
            with self._lock:
                if self._report.target != target:  # something else was asked for meanwhile
                    self._report = replace(self._report, loading=None)
                    continue
                if endpoint is None:
                    self._report = replace(self._report, loading=None, refused=refused)
                    continue
                self._endpoint = endpoint
                self._report = Report(target, target, None, None)
            self._note(target)

    def _note(self, target: Target) -> None:
        self._good = tuple(dict.fromkeys((target, *self._good)))[:REMEMBERED]
        try:
            self._remember(self._good)
        except Exception:  # what answers is worth more than the note of it
            logger.exception("What answers could not be noted; a replica that starts anew may not find it.")
