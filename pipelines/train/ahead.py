"""Items made in a thread before they are asked for."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The same items, made in a thread while at most `depth` of them wait. An error comes out where its item would have."""
    slots, made, stopped = (
        threading.Semaphore(depth),
        queue.SimpleQueue[tuple[str, T | BaseException | None]](),
        threading.Event(),
    )

    def work() -> None:
        iterator = iter(items)
        try:
            while slots.acquire() and not stopped.is_set():
                made.put(("item", next(iterator)))
        except StopIteration:
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))
        finally:
            getattr(iterator, "close", lambda: None)()

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = made.get()
            if kind == "end":
                return
            if isinstance(item, BaseException) and kind == "error":
                raise item
            slots.release()
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        slots.release()
        thread.join()
