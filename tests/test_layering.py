"""The order of the rooms: imports run downward, in no circle, and importing a module does nothing.

`ROOMS` is the one place where the order is written down. Imports below `TYPE_CHECKING` and inside functions count.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From top to bottom. A module may import from its own room and from those below; rooms on one line know nothing of each other.
ROOMS = (
    ("jobs",),
    ("pipelines.papers",),
    ("pipelines.steps",),
    ("pipelines.experiment",),
    ("pipelines.compare", "pipelines.tune", "pipelines.live"),
    ("pipelines.check", "pipelines.prepare", "pipelines.train", "pipelines.evaluate", "pipelines.serve"),
    ("pipelines.report",),
    ("pipelines.prepared", "pipelines.bundle"),
    ("pipelines.encode",),
    ("pipelines.logs",),
    ("pipelines.runs",),
    ("pipelines.cluster", "pipelines.preflight"),
    ("pipelines.places",),
    ("pipelines.ray_private", "pipelines.paths", "pipelines.yaml_text", "pipelines.faults"),
    ("models.zoo",),
    ("models.system",),
    ("models.learners",),
    ("models.score",),
    ("models.leveled",),
    ("models.ranker",),
    ("models.interests", "models.fusions", "models.couplings", "models.weightings"),
    ("models.losses", "models.metrics", "models.optim"),
    ("models.layers",),
    ("models.slots",),
    ("models.batch",),
    ("models.schema",),
    ("models.hashing",),
    ("models.catalogue",),
    ("models.config",),
)
OUTSIDE = {
    "models": {"ray", "os", "pathlib", "io", "shutil", "tempfile", "pyarrow", "polars", "torch.distributed"},
}
SLOTS = ("interests", "fusions", "couplings", "weightings", "learners")


def modules(root: Path) -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    files = [file for package in ("models", "pipelines", "jobs") for file in sorted((root / package).rglob("*.py"))]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(file: Path) -> set[str]:
    """Dotted names that the file imports anywhere, modules and the names taken from them alike."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def import_graph(root: Path) -> dict[str, set[str]]:
    """Which modules of ours each module imports: the module itself where a name is taken from it, not the packages around."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for module, file in known.items():
        found = {name for name in imported(file) if name in known}
        # `from a.b import c` names both `a.b` and `a.b.c`; where `c` is a module, `a.b` is only the way to it
        ways = {name.rpartition(".")[0] for name in found}
        taken = _names_taken(root, file)
        graph[module] = {name for name in found if name not in ways or taken.get(name, True)} - {module}
    return graph


def _names_taken(root: Path, file: Path) -> dict[str, bool]:
    """By imported module: whether something else than a module is taken from it."""
    found: dict[str, bool] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            folder = root / node.module.replace(".", "/")
            plain = any(
                not (folder / alias.name).is_dir() and not (folder / f"{alias.name}.py").exists() for alias in node.names
            )
            found[node.module] = found.get(node.module, False) or plain
    return found


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def room_of(module: str) -> tuple[int, str] | None:
    """Level, counted from the top, and name of the room; None for the bare packages `models` and `pipelines`."""
    for level, rooms in enumerate(ROOMS):
        for room in rooms:
            if module == room or module.startswith(room + "."):
                return level, room
    return None


def upward(graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Imports that point to a higher room, or to another one on the same level."""
    wrong = set()
    for module, others in graph.items():
        for other in others:
            here, there = room_of(module), room_of(other)
            if here and there and here[1] != there[1] and there[0] <= here[0]:
                wrong.add(f"{module} imports {other}")
    return wrong


GRAPH = import_graph(ROOT)


def test_every_module_has_a_room():
    assert [module for module in GRAPH if room_of(module) is None] == ["models", "pipelines"]
    nobody = [room for rooms in ROOMS for room in rooms if not any(m == room or m.startswith(room + ".") for m in GRAPH)]
    assert not nobody


def test_no_circle():
    assert circles(GRAPH) == []


def test_no_arrow_upward():
    assert not upward(GRAPH)


def test_a_planted_circle_is_found(tmp_path):
    for name, text in {
        "models/config.py": "",
        "models/ranker.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from models.leveled import Leveled\n",
        "models/leveled.py": "from models.ranker import Ranker\nfrom models import config\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = import_graph(tmp_path)
    assert graph["models.leveled"] == {"models.ranker", "models.config"}
    assert circles(graph) == [["models.leveled", "models.ranker"]]
    assert upward(graph) == {"models.ranker imports models.leveled"}


def test_rooms_on_one_level_are_strangers():
    assert upward({"pipelines.serve.app": ["pipelines.prepare.build"]})
    assert not upward({"pipelines.serve.app": ["pipelines.serve.store", "pipelines.encode.derive", "models.schema"]})


@pytest.mark.parametrize("package", OUTSIDE)
def test_libraries_a_package_does_without(package):
    wrong = {
        f"{module} imports {name}"
        for module, file in modules(ROOT).items()
        for name in imported(file)
        if module.startswith(package) and any(name == banned or name.startswith(banned + ".") for banned in OUTSIDE[package])
    }
    assert not wrong


@pytest.mark.parametrize("slot", SLOTS)
def test_fillings_of_a_slot_never_import_each_other(slot):
    package = f"models.{slot}"
    fillings = {other for other in GRAPH[package] if other.startswith(package + ".")}  # what the registry lists
    kinds = {module for module in fillings if "kind: Literal" in modules(ROOT)[module].read_text(encoding="utf-8")}
    assert len(kinds) > 1
    wrong = {f"{module} imports {other}" for module in kinds for other in GRAPH[module] if other in kinds}
    assert not wrong


def test_importing_models_leaves_ray_alone_and_writes_nothing(tmp_path):
    names = [module for module in GRAPH if module.startswith("models")]
    program = "import importlib, sys\n"
    program += f"for name in {names!r}: importlib.import_module(name)\n"
    program += "assert 'ray' not in sys.modules, 'models imported ray'\n"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert done.stdout == ""


def test_data_steps_run_without_pytorch():
    program = "import sys, pipelines.prepare, pipelines.logs; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
