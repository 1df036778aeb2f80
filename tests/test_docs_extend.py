"""docs/extend.md is followed: its blocks are applied to a copy of the project, and its commands are run there."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, Block, blocks, section

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
WALKS = [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")]
TESTS = "python -m pytest -q "
COPIED = ("models", "pipelines", "jobs", "docs", "tests", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def copied(to: Path) -> Path:
    """The project without what it has made."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to / name)
    return to


def patched(text: str, edits: str) -> str:
    """The text with hunks applied, which `@@` divides; the lines of a hunk that are not new must stand in it once, together."""
    for hunk in edits.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(before) == 1, f"found {text.count(before)} times:\n{before}"
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))
    return text


def write(block: Block, project: Path) -> None:
    """Makes the file that a block begins with, or edits it."""
    head, _, rest = block.text.partition("\n")
    if block.language == "diff":
        file = project / head.removeprefix("+++ ")
        file.write_text(patched(file.read_text(encoding="utf-8"), rest), encoding="utf-8")
        return
    assert head.startswith("# ") and "/" in head, f"line {block.line}: a block of {block.language} that names no file"
    file = project / head.removeprefix("# ")
    assert not file.exists(), f"{file} is there already"
    file.write_text(rest, encoding="utf-8")


def run(command: str, project: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "python", command
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, *words[1:]], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(600)
def test_the_page_can_be_followed(tmp_path):
    """All walks in one copy. Their own tests run in one go, since starting takes longer than they do."""
    project = copied(tmp_path)
    commands: dict[str, None] = {}
    for walk in WALKS:
        told = blocks(section(PAGE, walk))
        for block in told:
            if block.language != "sh":
                write(block, project)
        listed = [line for block in told if block.language == "sh" for line in block.text.splitlines()]
        assert any(line.startswith(TESTS) for line in listed), f"{walk}: no test of its own"
        commands |= dict.fromkeys(listed)
    together = [command for command in commands if command.startswith(TESTS) and len(command.split()) == 5]
    run(TESTS + " ".join(command.removeprefix(TESTS) for command in together), project)
    for command in commands:
        if command not in together:
            run(command, project)


def test_an_edit_that_does_not_fit_is_seen():
    assert patched("a\nb\nc\n", " a\n-b\n+x\n@@\n c\n+d\n") == "a\nx\nc\nd\n"
    with pytest.raises(AssertionError, match="found 0 times"):
        patched("a\nb\n", " a\n-c\n+x\n")
    with pytest.raises(AssertionError, match="found 2 times"):
        patched("a\na\n", "-a\n+x\n")
