"""What stands around the table: facts on top, how to read it, what a reader must not miss."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from models.system import is_leveled
from pipelines.compare.comparison import Comparison
from pipelines.compare.statistics import merit
from pipelines.report.comparison.compared import SIGNIFICANT, Row
from pipelines.report.words import EXPECTED, MISSING, UNTAUGHT, shown
from pipelines.train.monitor import Monitor


def about_of(comparison: Comparison, name: str) -> dict[str, str]:
    """Facts by term: data, days, candidates, seeds, code."""
    manifest, scored = comparison.prepared.manifest, comparison.shared.evaluate.split
    about = {"Data": name}
    for term, split in {"Trained on": "train", "Stopped by": "valid", "Scored on": scored}.items():
        counts = manifest.splits[split]
        if counts.feeds:
            days = manifest.days[split]
            span = dict.fromkeys([*days[:1], *days[-1:]])
            about[term] = ", ".join(part for part in (split, " to ".join(span), f"{counts.candidates:,} candidates") if part)
    if manifest.open_labels == "mask" and (not_final := manifest.splits[scored].open_labels):
        about["Not final"] = ", ".join(f"{name} {each.labels:,}" for name, each in not_final.items()) + " labels, left out"
    about["Seeds"] = ", ".join(map(str, comparison.config.seeds))
    about["Prepared data"] = f"fingerprint {comparison.shared.fingerprint}"
    about["Code"] = ", ".join(sorted(_commits(comparison))) or MISSING
    about["Made"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return about


def words_of(comparison: Comparison, rows: Sequence[Row]) -> dict[str, str]:
    """How the table is to be read, by term."""
    config, train = comparison.config, comparison.train
    words = {}
    if len(config.seeds) > 1:
        words["mean ± deviation"] = (
            f"over {len(config.seeds)} seeds; sample deviation (n − 1). A seed decides weights, data order and dropout"
        )
        words["bold, underlined"] = "the best and the second of the systems; baselines and truth stand beside the race"
        words["*"] = (
            f"better than the next system at p < {shown(SIGNIFICANT).rstrip('0')}: paired t-test over seeds, two-sided, not "
            "corrected for the number of comparisons"
        )
    else:
        words["bold, underlined"] = (
            "the best and the second of the systems. There is one seed: no deviation, no p value, and a small difference may "
            "be chance"
        )
    words["%"] = (
        f"RelaImpr against {config.base_label}: (v − .5) / (base − .5) − 1 for AUC and gAUC, v / base − 1 for NDCG and "
        "precision, 1 − v / base for errors, so that + is better; none for Gini"
    )
    if any(score.untaught for row in rows for score in row.scores.values()):
        words[UNTAUGHT] = "a target of weight 0: nothing taught the system this, so it follows from other targets alone"
    if any(path.split(".")[1].startswith(EXPECTED) for path in comparison.columns):
        words["E"] = "expected under the simulated world's true probabilities: no drawn label blurs it"
    counts = {path: score.positives for row in rows for path, score in row.scores.items() if score.positives is not None}
    if few := {path: positives for path, positives in counts.items() if positives < config.fewest_positives}:
        counted = ", ".join(f"{path} {positives}" for path, positives in few.items())
        words["Too few"] = f"not shown, for fewer than {config.fewest_positives} positives are behind it: {counted}"
    words["Learning rate"] = _rates(comparison, rows)
    words["Early stopping"] = _stopping(comparison)
    own = [
        f"; {system.label} {key} {value}" for system in comparison.systems for key, value in _leaves(system.optimiser).items()
    ]
    kinds = f"{train.optimiser.dense.kind} for dense parameters, {train.optimiser.tables.kind} for tables"
    words["Optimiser"] = kinds + "".join(own)
    if config.common:
        words["Alike in all"] = ", ".join(f"{key} {value}" for key, value in _leaves(config.common).items())
    return words | {row.label: row.note for row in rows if row.note}


def warnings_of(comparison: Comparison, rows: Sequence[Row], beside: Sequence[Row]) -> list[str]:
    """What failed or is not there, dead parts, baselines above systems, rates at the end of their list, code that changed.

    Args:
        beside: systems of curves that are no rows of the table.
    """
    found = []
    for row in (*rows, *beside):
        found += [f"{f'{row.label} {cell}'.strip()} failed: {error}" for cell, error in row.failures.items()]
    found += _alarms(comparison, [row.label for row in (*rows, *beside)])
    systems = [row for row in rows if row.role == "system"]
    short = [
        f"{row.label} {len(row.seeds)}"
        for row in (*systems, *beside)
        if len(row.seeds) + len(row.failures) < row.expected and not (row.failures and row.rate is None)
    ]
    if short:
        found.append(f"not all of the {len(comparison.config.seeds)} seeds are there yet: {', '.join(short)}")
    for path in comparison.columns:
        means = [mean for row in systems if (mean := row.scores[path].mean) is not None]
        best = max(means, key=lambda mean: merit(mean, path), default=None)
        for baseline in (row for row in rows if row.role == "baseline"):
            value = baseline.scores[path].mean
            if value is not None and best is not None and merit(value, path) > merit(best, path):
                found.append(f"{baseline.label} is better than every system on {path}: {shown(value)} against {shown(best)}")
    rates = comparison.config.rates
    ends = [row.label for row in (*systems, *beside) if row.rates and row.rate in (min(rates), max(rates))]
    if ends:
        found.append(f"the chosen learning rate lies at the end of the list for {', '.join(ends)}: a wider list may do better")
    if len(commits := _commits(comparison)) > 1:
        found.append(f"the cells were made by {len(commits)} states of the code; to run one again, delete its folder")
    if comparison.others:
        found.append(f"{len(comparison.others)} results of other settings are left out")
    return found


def _alarms(comparison: Comparison, labels: Sequence[str]) -> list[str]:
    """By row, what any of its rankers raised an alarm of, and how many did."""
    told: dict[tuple[str, str], int] = {}
    for result in comparison.results.values():
        if result.cell is None or result.label not in labels:
            continue
        for subject in {alarm.rsplit(" is ", 1)[0] for alarm in result.cell.training.alarms}:
            told[result.label, subject] = told.get((result.label, subject), 0) + 1
    return [
        f"{label}: {subject} is out of bounds in {count} training{'s' if count > 1 else ''}, so its scores say little about "
        "the system"
        for (label, subject), count in sorted(told.items(), key=lambda item: (labels.index(item[0][0]), item[0][1]))
    ]


def _rates(comparison: Comparison, rows: Sequence[Row]) -> str:
    rates = comparison.config.rates or (None,)
    own = [f"{system.label} {system.rate:g}" for system in comparison.systems if system.rate is not None]
    if len(own) == len(comparison.systems):
        return f"of dense parameters and tables, each row's own: {', '.join(own)}"
    others = f"; but {', '.join(own)}" if own else ""
    if rates == (None,):
        optimiser = comparison.train.optimiser
        return f"{optimiser.dense.rate:g} for dense parameters, {optimiser.tables.rate:g} for tables, alike for all{others}"
    if len(rates) == 1:
        return f"{rates[0]:g} for dense parameters and tables, alike for all{others}"
    seeds = comparison.config.seeds_of_rates
    chosen = [f"{row.label} {MISSING if row.rate is None else f'{row.rate:g}'}" for row in rows if row.role == "system"]
    return (
        f"of {', '.join(f'{rate:g}' for rate in rates)}, each system's best on the validation split "
        f"(seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}): {', '.join(chosen)}"
    )


def _stopping(comparison: Comparison) -> str:
    train = comparison.train
    if not comparison.prepared.files("valid"):
        return f"none, for there is no validation split: {train.epochs} epochs, {train.batch_feeds} feeds a step"
    longer: dict[int, list[str]] = {}
    for system in comparison.every:
        if system.epochs is not None:
            longer.setdefault(system.epochs, []).append(system.label)
    own = "".join(f" ({epochs} for {', '.join(labels)})" for epochs, labels in longer.items())
    has_planned = any(is_leveled(system.model.learner) for system in comparison.every)
    planned = ", but never for what plans its whole training" if has_planned else ""
    return (
        f"alike for all: after {train.patience} epoch{'s' if train.patience > 1 else ''} without a better "
        f"{Monitor(comparison.shared.schema, train.monitor).name} on the validation split{planned}, at most "
        f"{train.epochs}{own}; the best epoch's weights are scored; {train.batch_feeds} feeds a step"
    )


def _commits(comparison: Comparison) -> set[str]:
    found = {result.made.get("git_commit") or "unknown" for result in comparison.results.values()}
    return {commit[:8] + ("+" if commit.endswith("+") else "") for commit in found}


def _leaves(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        here = f"{path}.{key}" if path else key
        found |= _leaves(inner, here) if isinstance(inner, Mapping) else {here: inner}
    return found
