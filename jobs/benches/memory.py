"""Memory of a process and all that it started, while it runs."""

import threading
from pathlib import Path


class Memory:
    """Samples the memory of a process and all its descendants until it is told to stop.

    Attributes:
        peak: largest proportional set size of all together, bytes.
        peak_of_one: largest of a single one of them, bytes.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self.peak_of_one = pid, 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            sizes = [_proportional(pid) for pid in _family(self.pid)]
            self.peak = max(self.peak, sum(sizes))
            self.peak_of_one = max(self.peak_of_one, *sizes, 0)


def _family(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            except OSError:
                continue  # gone in the meantime
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0  # gone in the meantime
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
