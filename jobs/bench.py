"""Benchmarks of the project, each beside its alternative in one session, with ratio and spread.

    python -m jobs.bench prepare   the preparation against one polars process
    python -m jobs.bench step      training steps against deepctr-torch and torch-rechub, and across vocabulary sizes
    python -m jobs.bench interests every interest grouped by feed against flat; din, bst and dien against their peers
    python -m jobs.bench systems   training steps of every system of the zoo against shared_bottom
    python -m jobs.bench levels    learners with weights of each level against joint training: time and memory
    python -m jobs.bench serve     the endpoint beside its application under uvicorn alone, under overload, with slow clients
    python -m jobs.bench sources   conversion and preparation of look-alikes of public data sets, at several sizes
    python -m jobs.bench clock     logs cut off early against the whole, rows that arrive late, labels that are not final
    python -m jobs.bench endure    what the endpoint loses while it is exchanged, and while its processes are killed

Each has options of its own: python -m jobs.bench NAME --help
"""

import importlib
import sys
from collections.abc import Sequence

from jobs import screen
from models.config import ConfigError

BENCHES = {
    name: f"jobs.benches.{name}"
    for name in ("prepare", "step", "interests", "systems", "levels", "serve", "sources", "clock", "endure")
}


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return
    if words[0] not in BENCHES:
        raise ConfigError(f"no benchmark {words[0]!r}. There are: {', '.join(BENCHES)}.")
    importlib.import_module(BENCHES[words[0]]).main(words[1:])


if __name__ == "__main__":
    screen.run(main)
