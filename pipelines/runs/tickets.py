"""Claims where nothing is linked or locked: a folder in a store of objects.

Stores make no file only if none is there, or not all of them do, and pyarrow does not say so for any. What all of them keep is
order: who has put an object sees it in every listing from then on, and so does everybody else. That is enough. Who wants a
folder puts a ticket beside it, `.FOLDER.claim/TOKEN`, and then lists the tickets:

* Others are there: the ticket is withdrawn, and tried again a moment later. Only where nobody holds the folder yet, the one
  with the least token among those that want it leaves its ticket, and lists again.
* None is: the folder is claimed. Two can never both come to that: the ticket of each has been there since before it listed for
  the last time, so the one that did so later saw the other's.

A holder renews its ticket every few seconds. One that was not renewed for long, by the store's own clock, is removed by who
wants the folder; its token is nobody else's, so no younger claim goes by mistake. A holder that was halted for so long and
wakes finds its ticket gone, or another that is held, and ends its work. What it may have begun to write before is an object
that is whole, made from the same things by the same rules, under the same name.
"""

from pipelines.places import Remote, put


class Ticket:
    """One process's ticket for a folder."""

    def __init__(self, folder: Remote, token: str) -> None:
        self.shelf = folder.with_name(f".{folder.name}.claim")
        self.mine = self.shelf / token
        self.buried: set[str] = set()

    def put(self, text: str) -> None:
        put(text.encode(), self.mine)

    def is_there(self) -> bool:
        return self.mine.is_file()

    def others(self) -> list[tuple[str, bytes, float]]:
        """Token and text of everybody else's ticket, and its age in seconds by the store's clock when this one was put."""
        times = {path: at for path in self.shelf.glob("*") if (at := _put_at(path)) is not None}
        now = times.get(self.mine, max(times.values(), default=0.0))
        found: list[tuple[str, bytes, float]] = []
        for path, put_at in times.items():
            if path == self.mine:
                continue
            if path.name in self.buried:  # of a holder that was halted between looking and putting
                path.unlink(missing_ok=True)
                continue
            try:
                found.append((path.name, path.read_bytes(), now - put_at))
            except FileNotFoundError:
                continue
        return found

    def bury(self, token: str) -> None:
        self.buried.add(token)
        (self.shelf / token).unlink(missing_ok=True)

    def withdraw(self) -> None:
        self.mine.unlink(missing_ok=True)


def _put_at(path: Remote) -> float | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime if path.is_file() else None
