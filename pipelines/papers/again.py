"""Makes one cell of a paper's page anew, from nothing, and holds it against what the page's JSON says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.config import ConfigError
from pipelines.compare.execute import InProcess
from pipelines.compare.execute import carry_out as carry_out_cells
from pipelines.papers.study import Study
from pipelines.report.words import MISSING
from pipelines.runs import discard, read_json
from pipelines.steps import claimed_comparison, prepare_step


def again(study: Study, cell: str, folder: Path, output: Path, say: Callable[[str], None]) -> bool:
    """Simulates the cell's world, prepares it and trains the one row with the one seed, in this process.

    Args:
        cell: `VARIANT/WORLD/ROW/SEED`, such as `main/1/mmoe/0`.
        folder: of the page.
        output: a folder that is thrown away before and made anew.

    Returns:
        whether every metric has the digits that the page's JSON has.

    Raises:
        ConfigError: no such cell, or no page that holds it.
    """
    variant, world, label, seed = _parts(study, cell)
    kept = read_json(folder / f"{study.name}.json", of=dict, way_out=f"Make it: {study.command()}.")
    row = _row(kept, variant, label, cell)
    discard(output)
    experiment = study.world(variant, world, {label: row["rate"]}, only=label, seeds=(seed,), output=output, baselines=())
    prepare_step(experiment)
    with claimed_comparison(experiment) as comparison:
        carry_out_cells(comparison, InProcess(), say)
        if comparison.failures:
            raise ConfigError(f"{cell} failed: {next(iter(comparison.failures.values()))}")
        result = comparison.results_of(comparison.systems[0])[seed]
    same = True
    for path, score in row["scores"].items():
        before = score["by_world"].get(str(world), {}).get(str(seed))
        now = None if before is None else result.find(path)
        equal = before == now
        same &= equal
        shown = MISSING if before is None else f"{before!r}, again {now!r}: {'the same' if equal else 'not the same'}"
        say(f"{path}: {shown}")
    say(f"{cell}: {'all the same' if same else 'not the same'}")
    return same


def _parts(study: Study, cell: str) -> tuple[str, int, str, int]:
    parts = cell.split("/")
    if len(parts) != 4 or not (parts[1].isdigit() and parts[3].isdigit()):
        raise ConfigError(f"--again {cell}: write VARIANT/WORLD/ROW/SEED, such as {study.command(again='main/1/ROW/0')}.")
    variant, world, label, seed = parts[0], int(parts[1]), parts[2], int(parts[3])
    for name, value, known in (
        ("variant", variant, study.variants),
        ("world", world, study.paper.worlds),
        ("row", label, study.rows),
        ("seed", seed, study.compare.seeds),
    ):
        if value not in known:
            raise ConfigError(f"--again {cell}: {name} `{value}` is not one of: {', '.join(map(str, known))}.")
    return variant, world, label, seed


def _row(kept: dict[str, Any], variant: str, label: str, cell: str) -> dict[str, Any]:
    rows = (row for each in kept["variants"] if each["name"] == variant for row in each["rows"])
    found = next((row for row in rows if row["label"] == label), None)
    if found is None:
        raise ConfigError(f"--again {cell}: the page holds no such row yet.")
    return found
