"""Who works in a folder now: one process at a time, on however many machines."""

import getpass
import json
import os
import random
import re
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from models.config import ConfigError
from pipelines.places import Remote, place
from pipelines.runs import processes
from pipelines.runs.files import draft_of, full_disk_told, sweep
from pipelines.runs.tickets import Ticket

RENEWED_EVERY = 5.0  # seconds between two signs of life
DEAD_AFTER = 60.0  # seconds without one after which a holder on another machine counts as dead
LONGEST = 120  # characters of a command in a message


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that has claimed a folder.

    Attributes:
        token: of this one claim.
        machine, began: as `processes` gives them.
        since: when it claimed the folder, UTC.
    """

    token: str
    host: str
    machine: str
    pid: int
    began: str
    user: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host} (`{self.command}`)"

    def is_dead(self, seconds_since_sign: float) -> bool:
        """On this machine, whether the process is gone or another one has its number; else by the signs of life."""
        if self.machine == processes.machine():
            began = processes.began(self.pid)
            if began is None or (began and self.began):
                return began != self.began
        return seconds_since_sign > DEAD_AFTER


_UNKNOWN = Holder(host="?", user="?", command="?", pid=0, token="", machine="", began="", since="")


@contextmanager
def claim(
    folder: Path, *, patience: float = 0.0, say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> Iterator[None]:
    """Inside, no other process that claims the folder works in it; what dead writers left half written is removed.

    The claim of a dead holder is taken over, which is said. On the holder's own machine it is dead if its process is gone;
    seen from any other, if it has given no sign of life for `DEAD_AFTER` seconds, and until then or the next one is waited.

    Args:
        folder: need not be there.
        patience: seconds to wait for a holder that lives.

    Raises:
        ConfigError: another process works in the folder, or has taken over because this one was halted for long.
    """
    folder = place(folder).resolve()
    if isinstance(folder, Remote):
        with _claimed_in_store(folder, patience, say):
            yield
        return
    file = folder.with_name(f".{folder.name}.claim")
    file.parent.mkdir(parents=True, exist_ok=True)
    mine, began, seen, waits = this_process(), time.monotonic(), None, False
    while (now := _take(file, mine)) is not None:
        found = _read(file)
        if found is None:  # it has just ended
            continue
        holder, last_sign = found
        if holder.is_dead(now - last_sign):
            if _bury(file, holder, now):
                say(f"{folder}: {holder} died at its work, begun {_since(holder)}. Taking over.")
            continue
        line = f"{folder} is in use by {holder} since {_since(holder)}."
        if seen is None or seen[0] != holder:
            seen = found
        lives = holder.machine == processes.machine() or seen != found
        if lives and time.monotonic() - began >= patience:
            raise ConfigError(f"{line} {_IN_USE}")
        if not waits:
            age = f"{now - last_sign:.0f} s old, at {DEAD_AFTER:.0f} s it counts as dead"
            why = f"Waiting for at most {patience:.0f} s." if lives else f"Its last sign of life is {age}; waiting for one."
            say(f"{line} {why}")
            waits = True
        time.sleep(0.2)
    try:
        with _signs_given(folder, lambda: _give_sign(file, mine)):
            for name in (folder.name, file.name):
                sweep(folder.parent, name)
            yield
    finally:
        if (found := _read(file)) is not None and found[0].token == mine.token:
            file.unlink(missing_ok=True)


@contextmanager
def _signs_given(folder: Path, give: Callable[[], bool]) -> Iterator[None]:
    """Inside, a thread gives a sign of life every few seconds; where it says that the claim is lost, the work is ended as
    Ctrl-C ends it. A job in the background of a script, or of cron, ignores Ctrl-C, and must be ended all the same.

    Args:
        give: gives one; False says that the claim is another's.

    Raises:
        ConfigError: the claim is lost.
    """
    ended, lost = threading.Event(), threading.Event()

    def signs() -> None:
        while not ended.wait(RENEWED_EVERY):
            if not give():
                lost.set()
                os.kill(os.getpid(), signal.SIGINT)
                return

    def end_if_lost(number: int, frame: FrameType | None) -> None:
        if lost.is_set():
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    is_deaf = is_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if is_deaf:
        signal.signal(signal.SIGINT, end_if_lost)
    thread = threading.Thread(target=signs, name=f"claim of {folder}", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
        raise ConfigError(
            f"{folder}: the claim of this process is gone, by hand or because it gave no sign of life for {DEAD_AFTER:.0f} s "
            "and another took over. Stopped."
        ) from None
    finally:
        ended.set()
        thread.join()
        if is_deaf:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


_IN_USE = "Wait for its end, stop it, or give the experiment another `name`."


# -- in a store of objects (see `pipelines.runs.tickets`) ---------------------------------------------------------------


_active: set[str] = set()  # tokens of this process's tickets; others of its own could not be withdrawn


@contextmanager
def _claimed_in_store(folder: Remote, patience: float, say: Callable[[str], None]) -> Iterator[None]:
    mine = this_process()
    ticket = Ticket(folder, mine.token)
    _active.add(mine.token)
    try:
        _take_ticket(ticket, mine, folder, patience, say)
        with _signs_given(folder, lambda: _renew(ticket, mine)):
            yield
    finally:
        _withdraw(ticket)


def _withdraw(ticket: Ticket) -> None:
    _active.discard(ticket.mine.name)
    with suppress(ConfigError):  # the store may be away; then it is found to be dead
        ticket.withdraw()


def _take_ticket(ticket: Ticket, mine: Holder, folder: Remote, patience: float, say: Callable[[str], None]) -> None:
    began, waits = time.monotonic(), False
    first_put: dict[str, float] = {}  # when a ticket had been put that was there at first, by this machine's clock
    while True:
        ticket.put(_spelled(mine, held=False))
        held: Holder | None = None
        free, first, lives = True, True, False
        for token, text, age in ticket.others():
            holder, is_held = _ticket_of(text)
            is_left = (holder.machine, holder.pid, holder.began) == (
                mine.machine,
                mine.pid,
                mine.began,
            ) and token not in _active
            if is_left or holder.is_dead(age) or age > DEAD_AFTER:  # tickets are renewed, whatever else a process does
                ticket.bury(token)
                if is_held and not is_left:
                    say(f"{folder}: {holder} died at its work, begun {_since(holder)}. Taking over.")
                continue
            free, first = False, first and not is_held and mine.token < token
            if is_held:
                held = holder
                put_at = time.monotonic() - age
                lives |= holder.machine == mine.machine or put_at - first_put.setdefault(token, put_at) > RENEWED_EVERY / 2
        if free:
            ticket.put(_spelled(mine, held=True))
            return
        if not first:
            ticket.withdraw()
        if held is not None:
            line = f"{folder} is in use by {held} since {_since(held)}."
            if lives and time.monotonic() - began >= patience:
                raise ConfigError(f"{line} {_IN_USE}")
            if not waits:
                say(f"{line} " + (f"Waiting for at most {patience:.0f} s." if lives else "Waiting for a sign of life of it."))
                waits = True
        time.sleep(random.uniform(0.2, 1.0))


def _renew(ticket: Ticket, mine: Holder) -> bool:
    """Renews it, and tells whether it is still there and the only one that holds the folder."""
    with suppress(ConfigError):  # a store may be away for a while
        there = ticket.is_there()
        if there:
            ticket.put(_spelled(mine, held=True))
        return there and not any(_ticket_of(text)[1] for _, text, _ in ticket.others())
    return True


def _spelled(mine: Holder, *, held: bool) -> str:
    return json.dumps({**asdict(mine), "held": int(held)})  # of one length, for who reads it while it is written anew


def _ticket_of(text: bytes) -> tuple[Holder, bool]:
    """Who wrote a ticket, and whether it holds the folder; a damaged one is somebody's on another machine."""
    try:
        spelled = json.loads(text)
        held = spelled.pop("held")
        return Holder(**spelled), bool(held)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _UNKNOWN, True


# -- on a disk ------------------------------------------------------------------------------------------------------------


def _take(file: Path, mine: Holder) -> float | None:
    """Claims if nobody has: None if that went well, else the time by the clock that dates files in this folder."""
    draft = draft_of(file)
    try:
        with full_disk_told(file):
            draft.write_text(json.dumps(asdict(mine)), encoding="utf-8")
        now = draft.stat().st_mtime
        try:
            os.link(draft, file)  # whole at once, and refused where one is there
            return None
        except FileExistsError:
            return None if draft.stat().st_nlink == 2 else now  # NFS may ask twice, and be refused after it was granted
        except OSError:  # no hard links here
            pass
        try:
            with file.open("x", encoding="utf-8") as target:
                target.write(json.dumps(asdict(mine)))
            return None
        except FileExistsError:
            return now
    finally:
        draft.unlink(missing_ok=True)


def _read(file: Path) -> tuple[Holder, float] | None:
    """Who holds a claim, and the time of the last sign of life; None if nobody does."""
    try:
        with file.open("rb") as opened:  # opening asks the file server anew, where there is one
            text, last_sign = opened.read(), os.fstat(opened.fileno()).st_mtime
    except FileNotFoundError:
        return None
    try:
        holder = Holder(**json.loads(text))
        datetime.fromisoformat(holder.since).astimezone(UTC)
        if not isinstance(holder.pid, int) or not re.fullmatch(r"\w+", holder.token):
            raise ValueError
        return holder, last_sign
    except (ValueError, TypeError):  # not whole yet, or damaged
        return _UNKNOWN, last_sign


def _bury(file: Path, dead: Holder, now: float) -> bool:
    """Removes the claim of a dead holder. Of several processes that find it at once one does, and no younger claim goes."""
    grave = file.with_name(f"{file.name}-{dead.token}")
    try:
        grave.touch(exist_ok=False)
    except FileExistsError:  # another is about it, or has died over it
        with suppress(FileNotFoundError):
            if now - grave.stat().st_mtime > DEAD_AFTER:
                grave.unlink()
        time.sleep(0.05)
        return False
    try:
        found = _read(file)
        if found is None or found[0] != dead:
            return False
        file.unlink()
        return True
    finally:
        grave.unlink(missing_ok=True)


def _give_sign(file: Path, mine: Holder) -> bool:
    """Dates the claim anew, and tells whether it is still this process's."""
    with suppress(OSError):  # a file server may be away for a moment
        found = _read(file)
        if found is None or found[0].token != mine.token:
            return False
        os.utime(file)
    return True


def _since(holder: Holder) -> str:
    if not holder.since:
        return "an unknown time"
    began = datetime.fromisoformat(holder.since).astimezone(UTC)
    seconds = (datetime.now(UTC) - began).total_seconds()
    ago = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
    return f"{began:%Y-%m-%d %H:%M:%S} UTC ({ago} ago)"


def this_process() -> Holder:
    """Who this process is, with a token that no other call gives."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    program, *words = sys.orig_argv or ["python"]
    command = " ".join(shlex.join([Path(program).name, *words]).split())
    return Holder(
        token=secrets.token_hex(8),
        host=processes.host(),
        machine=processes.machine(),
        pid=os.getpid(),
        began=processes.began(os.getpid()) or "",
        user=user,
        command=command if len(command) <= LONGEST else command[: LONGEST - 3] + "...",
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
