"""What a program must say so that it does the same on every machine, at every place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [file for package in ("models", "pipelines", "jobs") for file in sorted((ROOT / package).rglob("*.py"))]


def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """Every call of the file with the name that is called, as written."""
    found = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in found]


def is_text(name: str, call: ast.Call) -> bool:
    """Does it open a file as text? Modes are given as literals."""
    if name.endswith((".read_text", ".write_text")):
        return True
    if name.startswith("subprocess."):
        return any(each.arg == "text" for each in call.keywords)
    if name != "open" and not name.endswith(".open"):
        return False
    modes = [each.value for each in ast.walk(call) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return any(mode in ("r", "w", "a", "x") for mode in modes)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_text_is_utf8_and_folders_name_no_columns(file):
    """The locale decides otherwise; and Arrow takes `dt=2025-01-01/` in an output's own path for a column."""
    for name, call in calls(file):
        said = {each.arg for each in call.keywords}
        if is_text(name, call):
            assert "encoding" in said, f"{name} in line {call.lineno} names no encoding"
        if name == "pq.read_table":
            assert "partitioning" in said, f"{name} in line {call.lineno} lets Arrow read columns from the path"
