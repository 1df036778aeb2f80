"""Imports run jobs -> pipelines -> models, and importing a module does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "models": {"ray", "pipelines", "jobs", "os", "pathlib", "io", "shutil", "tempfile", "pyarrow", "polars"},
    "pipelines": {"jobs"},
    "jobs": set(),
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in modules(package)
        for name in imported(file)
        if name.split(".")[0] in FORBIDDEN[package]
    }
    assert not wrong


def test_models_know_no_process_group():
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in modules("models")
        for name in imported(file)
        if name.startswith("torch.distributed")
    }
    assert not wrong


@pytest.mark.parametrize("slot", ["interests", "fusions", "couplings", "weightings", "learners"])
def test_fillings_of_a_slot_never_import_each_other(slot):
    folder = ROOT / "models" / slot
    beside = {"__init__", "world", "share", "span", "pools"}  # no fillings: what learners stand on
    fillings = {f"models.{slot}.{file.stem}": file for file in folder.glob("*.py") if file.stem not in beside}
    wrong = {
        f"{name} imports {other}"
        for name, file in fillings.items()
        for other in imported(file)
        if any(other == filling or other.startswith(filling + ".") for filling in fillings if filling != name)
    }
    assert not wrong


def test_importing_models_leaves_ray_alone_and_writes_nothing(tmp_path):
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in modules("models")]
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
