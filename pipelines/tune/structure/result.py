"""What a finished structure search leaves, in memory and on disk."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from statistics import stdev
from typing import Any

import yaml

from models.config import to_dict
from models.schema import Schema, Target
from pipelines.report.search.graphs import TABLE, Finalist, StructureResult
from pipelines.runs import write_text
from pipelines.tune.structure.graphs import StructureConfig, StructureSearch, parents_of, spelled
from pipelines.tune.structure.problem import Problem, key_of
from pipelines.tune.structure.trainings import Trainings, score_text

TARGETS = "targets.yaml"


def write_table(problem: Problem, search: StructureSearch, trainings: Trainings, result: StructureResult | None = None) -> None:
    """`structure.csv` and `.md`: every graph tried so far; at the end also what was found."""
    structure = problem.structure
    heads = ["graph", "round", "change", "taken", "score", "spread", "gain", "edges"]
    heads += [f"seed {seed}" for seed in structure.seeds]
    heads += ["parents", "seconds", "folder", "reason"]
    by_number = {each.number: each for each in search.tried.values()}
    taken = {step.number for step in search.steps if step.taken}
    rows = []
    for each in search.tried.values():
        stood = by_number[search.steps[each.round - 1].number] if each.round else None
        gain = each.score - stood.score if stood is not None and each.scores else None
        seconds = sum(problem.seconds(each.graph, seed) for seed in structure.seeds)
        rows.append(
            [
                each.number,
                each.round,
                each.change,
                "yes" if each.number in taken else "",
                f"{each.score:.6f}" if each.scores else "",
                f"{stdev(each.scores):.6f}" if len(each.scores) > 1 else "",
                "" if gain is None else f"{gain:+.6f}",
                len(each.graph),
                *(f"{score:.6f}" for score in each.scores or ()),
                *([""] * (len(structure.seeds) - len(each.scores))),
                spelled(each.graph),
                f"{seconds:.1f}",
                f"trials/{key_of(each.graph)}-*",
                trainings.failures.get(each.graph, ""),
            ]
        )
    table = io.StringIO()
    csv.writer(table).writerows([heads, *rows])
    write_text(problem.folder / TABLE, table.getvalue())
    line = lambda cells: "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
    text = [f"Score: {problem.metric}, on the validation split.", ""]
    text += map(line, [heads, ["---"] * len(heads), *rows])
    if result is not None:
        text += [
            "",
            *(f"{each}  " for each in summary(result, with_yaml=False)),
            "",
            "```yaml",
            targets_yaml(result.schema),
            "```",
        ]
    write_text(problem.folder / "structure.md", "\n".join(text) + "\n")


def summary(result: StructureResult, *, with_yaml: bool = True) -> list[str]:
    """What was found and how it compares, in lines."""
    found = result.found
    ended = "the budget is used up" if result.over_budget else f"nothing is better by more than {result.tolerance:.4f}"
    lines = [f"Found after {len(result.tried)} graphs ({ended}): {spelled(found.graph)} · {score_text(found.scores)}"]
    seeds = ", ".join(map(str, result.final_seeds))
    for each in result.final:
        line = f"With seeds {seeds}, {' and '.join(each.roles)} ({spelled(each.graph)}): {score_text(each.scores)}"
        if "found" not in each.roles:
            error = "" if result.final_error is None else f" ± {result.final_error:.4f} (standard error)"
            line += f" · found - {each.roles[-1]} = {each.difference:+.4f}{error}: {_verdict(each, result)}"
        lines.append(line)
    if with_yaml:
        lines.append(f"For schema.targets (also in {result.folder / TARGETS}):")
        lines += targets_yaml(result.schema).splitlines()
    return lines


def _verdict(each: Finalist, result: StructureResult) -> str:
    tolerance = result.final_tolerance
    if abs(each.difference) <= tolerance:
        return f"equal within {tolerance:.4f}"
    return f"{'better' if each.difference > 0 else 'worse'} by more than {tolerance:.4f}"


def targets_yaml(schema: Schema) -> str:
    """`schema.targets` as YAML, a line a target, without what is default."""
    lines = ["targets:"]
    defaults = to_dict(Target(name="x", action="x"))
    for target in schema.targets:
        spelling = {
            name: value for name, value in to_dict(target).items() if name in ("name", "action") or value != defaults[name]
        }
        flow = yaml.safe_dump(spelling, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
        lines.append(f"  - {flow.strip()}")
    return "\n".join(lines) + "\n"


def spelled_result(result: StructureResult, structure: StructureConfig, names: Sequence[str]) -> dict[str, Any]:
    parents = lambda graph: {name: list(above) for name, above in parents_of(graph, names).items()}
    return {
        "search": to_dict(structure),
        "metric": result.metric,
        "found": result.found.number,
        "parents": parents(result.found.graph),
        "tolerance": result.tolerance,
        "over_budget": result.over_budget,
        "tried": [
            {"number": each.number, "round": each.round, "change": each.change, "scores": list(each.scores)}
            | {"parents": parents(each.graph)}
            for each in result.tried
        ],
        "rounds": [asdict(step) for step in result.steps],
        "final": [
            {"roles": list(each.roles), "parents": parents(each.graph), "scores": list(each.scores)}
            | {"difference": each.difference}
            for each in result.final
        ],
        "final_seeds": list(result.final_seeds),
        "final_error": result.final_error,
        "summary": summary(result, with_yaml=False),
    }
