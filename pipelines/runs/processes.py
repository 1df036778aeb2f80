"""Processes and machines, told apart over restarts."""

import os
import socket
from contextlib import suppress
from pathlib import Path


def host() -> str:
    """Name of this machine, without its domain."""
    return socket.gethostname().partition(".")[0]


def machine() -> str:
    """Tells apart machines, their restarts, and containers, in all of which numbers of processes begin anew."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def began(pid: int) -> str | None:
    """When a process of this machine began; None if it is gone, empty where the system does not say.

    A process that has ended is gone, also while its parent has not asked for its exit status yet.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]  # ticks since the machine started
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it is there, and another user's
        pass
    return ""
