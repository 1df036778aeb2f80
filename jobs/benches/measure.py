"""Contestants that take turns, and a table of what they took.

A busy machine slows all of them alike, so a ratio is taken within a turn; shown are median (smallest - largest).
"""

import time
from collections.abc import Callable
from statistics import median

Step = Callable[[int], object]


def turns(contestants: dict, *, repeats: int, steps: int, warm_up: int = 4) -> dict:
    """CPU seconds a step, by contestant; in every repeat each has its turn of `steps` steps, in changing order."""
    for step in contestants.values():
        for index in range(warm_up):
            step(index)
    taken: dict = {name: [] for name in contestants}
    names = list(contestants)
    for repeat in range(repeats):
        for name in names if repeat % 2 else names[::-1]:
            begun = time.process_time()
            for index in range(steps):
                contestants[name](warm_up + repeat * steps + index)
            taken[name].append((time.process_time() - begun) / steps)
    return taken


def speed(seconds: list[float], candidates: int) -> str:
    """Candidates a second."""
    return f"{candidates / median(seconds):,.0f} ({candidates / max(seconds):,.0f} - {candidates / min(seconds):,.0f})"


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Turn by turn; where one has had fewer turns, of those that both have had."""
    return [one / other for one, other in zip(above, below, strict=False)]


def ratio(above: list[float], below: list[float]) -> str:
    found = ratios(above, below)
    return f"{median(found):.2f} ({min(found):.2f} - {max(found):.2f})"


def title(text: str) -> None:
    print(f"\n### {text}\n")


def row(*cells: str) -> None:
    """A line of a Markdown table; one that begins with `system` is its head."""
    print("| " + " | ".join(cells) + " |", flush=True)
    if cells[0] == "system":
        print("|" + " --- |" * " | ".join(cells).count("|") + " --- |")
