"""A leaderboard on disk: `leaderboard.md` with the protocol above the table, and `leaderboard.json` with all numbers.

Neither says when it was made or how long a training took, so the same results give the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.metrics.names import direction
from models.schema import Schema
from pipelines.report.comparison.compared import Compared, Row
from pipelines.report.comparison.write import cell, escaped, grid_lines, parts_of, positives_shown
from pipelines.report.words import arrow, head
from pipelines.runs import write_text


def write_leaderboard(
    folder: Path, compared: Compared, protocol: Mapping[str, Any], left_out: Mapping[str, str], schema: Schema
) -> Path:
    """Writes both files into the folder; returns the path of `leaderboard.md`."""
    rows = [_plain(row) for row in ranked(compared)]
    found = {"name": compared.name, "protocol": protocol, "metrics": list(compared.columns), "rows": rows, "left_out": left_out}
    write_text(folder / "leaderboard.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_text(folder / "leaderboard.md", leaderboard(compared, protocol, left_out, schema))
    return folder / "leaderboard.md"


def ranked(compared: Compared) -> list[Row]:
    """All rows, the best by the first metric first; those without a value last."""
    path = compared.columns[0]

    def place(row: Row) -> tuple[bool, float]:
        mean = row.scores[path].mean
        if mean is None:
            return True, 0.0
        return False, {"max": -mean, "min": mean, "one": abs(mean - 1)}[direction(path)]

    return sorted(compared.rows, key=place)


def leaderboard(compared: Compared, protocol: Mapping[str, Any], left_out: Mapping[str, str], schema: Schema) -> str:
    """The page as Markdown."""
    search, splits = protocol["search"], protocol["splits"]
    rates = ", ".join(f"{rate:g}" for rate in search["rates"])
    tried = (
        f"{search['trainings a system']} trainings a system: learning rates {rates}, seeds "
        f"{', '.join(map(str, search['seeds']))}; the best on the validation split is taken"
        if search["trainings a system"]
        else "none: one learning rate for all"
    )
    spans = [
        f"{name} {' to '.join(dict.fromkeys([*split['days'][:1], *split['days'][-1:]]))} ({split['feeds']:,} feeds, "
        f"{split['candidates']:,} candidates)"
        for name, split in splits.items()
        if split["feeds"]
    ]
    told = {
        "Data": f"{protocol['source']}, prepared tables {protocol['fingerprint']}",
        "Split": f"by day: {'; '.join(spans)}. Scored on {protocol['scored on']}",
        "Search": tried,
        "Seeds": ", ".join(map(str, protocol["seeds"])),
        "Stopping": protocol["stopping"],
        "Optimiser": protocol["optimiser"],
        **({"Alike in all": protocol["alike in all"]} if "alike in all" in protocol else {}),
        "Floor": ", ".join(protocol["floor"]) or "none",
        "Code": f"{protocol['code']}; {', '.join(f'{name} {version}' for name, version in protocol['versions'].items())}",
    }
    lines = [f"# Leaderboard: {compared.name}", "", "## Protocol", ""]
    lines += [f"- **{term}:** {escaped(text)}" for term, text in told.items()]
    lines += ["", "```text", *protocol["account"], "```", "", "## Table", ""]
    lines += [line for warning in compared.warnings for line in (f"> **{escaped(warning)}**", ">")][:-1]
    lines += [""] if compared.warnings else []
    rows = ranked(compared)
    for part in parts_of(compared.columns):
        heads = [" ".join(head(path, schema)) + arrow(path) for path in part]
        counts = [positives_shown(compared, path) for path in part]
        counted = [["", "positives", *counts]] if any(counts) else []
        shown = [[str(place), _name(row), *(cell(row.scores[path]) for path in part)] for place, row in enumerate(rows, 1)]
        lines += grid_lines(["", "", *heads], counted + shown)
    costs = [[row.label, f"{row.cost.dense:,}", f"{row.cost.tables:,}"] for row in rows if row.cost is not None]
    lines += grid_lines(["system", "dense parameters", "in tables"], costs)
    if left_out:
        lines += ["Not on the board, for they cannot work on this log:", ""]
        lines += [f"- {name}: {escaped(reason)}" for name, reason in left_out.items()] + [""]
    lines += [f"- {escaped(term)}: {escaped(text)}" for term, text in compared.words.items()]
    return "\n".join(lines) + "\n"


def _name(row: Row) -> str:
    return row.label if row.role == "system" else f"*{row.label}* ({row.role})"


def _plain(row: Row) -> dict[str, Any]:
    """What of a row is the same again when it is made again."""
    scores = {
        path: {"mean": score.mean, "std": score.std, "by_seed": score.by_seed, "positives": score.positives}
        for path, score in row.scores.items()
    }
    cost = {} if row.cost is None else {"dense": row.cost.dense, "tables": row.cost.tables, "best_epoch": row.cost.best_epoch}
    return {
        "label": row.label,
        "role": row.role,
        "seeds": row.seeds,
        "rate": row.rate,
        "scores": scores,
        "parameters": cost,
        "failures": row.failures,
        "settings": row.settings,
    }
