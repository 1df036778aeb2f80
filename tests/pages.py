"""Markdown pages as their readers meet them: code blocks, links, headings, tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.generate import anchor

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and what stands in it."""

    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 1))
    return found


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    lines = text.splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if re.fullmatch(r"#+ " + re.escape(title), line.strip()))
    level = len(lines[start]) - len(lines[start].lstrip("#"))
    fenced = False
    for end in range(start + 1, len(lines)):
        fenced ^= lines[end].startswith("```")
        if not fenced and re.match(rf"#{{1,{level}}} ", lines[end]):
            return "".join(lines[start + 1 : end])
    return "".join(lines[start + 1 :])


def anchors(text: str) -> set[str]:
    return {anchor(match[1]) for match in re.finditer(r"^#+ (.+)$", prose(text), re.MULTILINE)}


def links(text: str) -> Iterator[str]:
    for match in LINK.finditer(prose(text)):
        yield match[1]


def inline(text: str) -> Iterator[str]:
    """Code in running text."""
    for match in re.finditer(r"`([^`\n]+)`", prose(text)):
        yield match[1]


def commands(text: str) -> Iterator[str]:
    """Single commands of the shell blocks and of code in running text: lines joined at `\\`, cut at `&&` and after ` -- `."""
    shell = [block.text for block in blocks(text) if block.language == "sh"]
    lines = [line.partition(" # ")[0] for each in shell for line in each.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline(text)]:
        for part in re.split(r"&&| -- | > ", line):
            if part.strip():
                yield part.strip()


def rows(text: str) -> Iterator[list[str]]:
    """Cells of all table rows, heads and rules left out."""
    lines = prose(text).splitlines()
    for index, line in enumerate(lines):
        is_head = index + 1 < len(lines) and re.fullmatch(r"\|( ?-+ ?\|)+", lines[index + 1].strip())
        if line.startswith("|") and not is_head and not re.fullmatch(r"\|( ?-+ ?\|)+", line.strip()):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]
