"""Scores bundles, fits baselines, writes the report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from models.config import ConfigError, to_dict
from pipelines.bundle import Bundle
from pipelines.evaluate.baselines import Predicted, booster, popularity
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.exposure import new_rooms_of, split_exposure
from pipelines.evaluate.insight import curriculum_of, insight_of, sampled_feeds
from pipelines.evaluate.life_cycle import life_cycle_of
from pipelines.evaluate.live import floors, ranked_by, sample_of
from pipelines.evaluate.score import evaluate_table, score
from pipelines.evaluate.truth import Truth, as_predicted, truth_of
from pipelines.prepared import Prepared
from pipelines.report.evaluation.entries import Entry, Epoch, EvaluationReport, SearchShown
from pipelines.report.evaluation.insight import ModelInsight
from pipelines.report.evaluation.live import LiveRanking, LiveRanks
from pipelines.report.evaluation.write import write_report
from pipelines.runs import read_json

HISTORY = "history.json"  # a training run leaves it beside its bundle, a registry inside of it


def evaluate(
    prepared: Prepared,
    bundles: Sequence[Bundle],
    config: EvaluateConfig,
    output: Path,
    truth: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    run: str = "Evaluation",
    search: SearchShown | None = None,
    live: Path | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> Path:
    """Evaluates bundles and the configured baselines on one split.

    Args:
        output: the report folder.
        truth: folder with a simulator's truth (`impressions/`); None for real logs.
        names: of the bundles in the report; by default those of their folders.
        run: title of the report.
        search: that the bundles come from; None for none.
        live: what `pipelines.live` left of this split; None ranks logged candidates alone.

    Returns:
        path of `report.html`; `metrics.json` lies beside it.

    Raises:
        ConfigError: a bundle belongs to other prepared data, or the split has no feeds.
    """
    split = config.split
    if not prepared.files(split):
        raise ConfigError(
            f"evaluate.split is `{split}`, but `{prepared.path}` has no {split} feeds; set prepare.{split}_days to 1 or more."
        )
    for bundle in bundles:
        if bundle.encoder.fingerprint != prepared.encoder.fingerprint:
            raise ConfigError(
                f"bundle {bundle.path} was trained on other prepared data than {prepared.path} (encoder "
                f"{bundle.encoder.fingerprint}, here {prepared.encoder.fingerprint}): its rows mean other things."
            )
    entries: list[Entry] = []
    new_rooms = new_rooms_of(prepared, split)
    at: pa.ChunkedArray | None = None
    sample = sampled_feeds(prepared.files(split)) if bundles else None
    found = None if truth is None else truth_of(prepared, split, truth)
    known = found.known if isinstance(found, Truth) else None
    ranks: dict[str, dict[str, LiveRanks]] = {}
    for name, bundle in zip(names or bundle_names(bundles), bundles, strict=True):
        began = time.monotonic()
        files = prepared.files(split)
        table = score(bundle.ranker, bundle.schema, files, config.batch_feeds, untaught=config.untaught)
        seconds = time.monotonic() - began
        at = table["at"]
        history = _history(bundle)
        entries.append(
            Entry(
                name=name,
                role="model",
                result=evaluate_table(table, bundle.schema, new_rooms, known, taught=bundle.ranker.trained),
                note=_origin(bundle),
                history=history,
                insight=_insight(bundle, sample, history, config),
                settings={"model": to_dict(bundle.system), "provenance": dict(bundle.provenance)},
            )
        )
        say(f"{name}: {table.num_rows:,} candidates, {table.num_rows / seconds:,.0f}/s · {_headline(entries[-1])}")
        if live is not None:
            ranks[name] = ranked_by(bundle.ranker, bundle.schema, live)
            say(f"{name}, among what was live: {_live_headline(ranks[name])}")
    left_out: dict[str, str] = {}
    for name, predicted in _baselines(prepared, config, found):
        if isinstance(predicted, str):
            left_out[name] = predicted
            say(f"{name} {predicted}")
            continue
        at = predicted.table["at"] if at is None else at
        result = evaluate_table(predicted.table, prepared.schema, new_rooms, known)
        entries.append(Entry(name=name, role="truth" if name == "truth" else "baseline", result=result, note=predicted.note))
        say(f"{name}: {_headline(entries[-1])}")
    if live is not None:
        for name, order in floors(prepared.schema, live).items():
            ranks[name] = {name: order}
            say(f"{name}, among what was live: {_live_headline(ranks[name])}")
    if at is None:
        raise ConfigError("nothing to report: no bundle was given, and no baseline could be had.")
    about = {
        "Run": run,
        "Split": f"{split}, {_days(at, prepared.encoder.clock.utc_offset_hours)}",
        "Prepared data": f"{prepared.path.name}, fingerprint {prepared.fingerprint}",
        "Seed": ", ".join(dict.fromkeys(str(bundle.provenance.get("seed", config.seed)) for bundle in bundles))
        or str(config.seed),
        "Made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    schema = bundles[0].schema if bundles else prepared.schema
    report = EvaluationReport(
        entries=tuple(entries),
        about=about,
        left_out=left_out,
        settings={"evaluate": to_dict(config)},
        life_cycle=life_cycle_of(prepared, split, truth),
        exposure=split_exposure(prepared, split, new_rooms),
        live=None if live is None else LiveRanking(sample=sample_of(live), ranks=ranks),
        search=None if search is None else search.summary,
        remarks=prepared.manifest.remarks,
        account=(*prepared.manifest.counts.account_lines(), *prepared.manifest.clock_lines()),
    )
    path = write_report(output, report, schema, search)
    say(f"Report: {path}")
    return path


def bundle_names(bundles: Sequence[Bundle]) -> list[str]:
    """Names of the bundles' folders (of the run's folder, where a bundle is just called `bundle`), made different: equal ones
    get the folder above in front, and what is equal even then a number."""
    folders = [bundle.path.parent if bundle.name == "bundle" else bundle.path for bundle in bundles]
    short = [folder.name for folder in folders]
    names: list[str] = []
    for folder in folders:
        name = folder.name if short.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}"
        same = [other for other in names if other == name or other.startswith(f"{name} (")]
        names.append(f"{name} ({len(same) + 1})" if same else name)
    return names


def _baselines(prepared: Prepared, config: EvaluateConfig, truth: Truth | str | None) -> Iterator[tuple[str, Predicted | str]]:
    """(name, predictions or the reason why there are none), one after the other: each may take a while.

    Args:
        truth: or why there is none; None for real logs.
    """
    makers: Mapping[str, Callable[[], Predicted | str]] = {
        "popularity": lambda: popularity(prepared, config.split, rows=config.baseline_rows, seed=config.seed),
        "booster": lambda: booster(
            prepared,
            config.split,
            columns=config.baseline_columns,
            rows=config.baseline_rows,
            iterations=config.baseline_iterations,
            seed=config.seed,
        ),
    }
    for name in config.baselines:
        if name == "truth":
            if truth is not None:
                yield name, as_predicted(truth) if isinstance(truth, Truth) else truth
        else:
            yield name, makers[name]()


def _insight(bundle: Bundle, sample: pa.Table, history: Sequence[Epoch], config: EvaluateConfig) -> ModelInsight:
    shown = insight_of(bundle.ranker, bundle.schema, sample, config.batch_feeds)
    return replace(shown, curriculum=curriculum_of(bundle.ranker, bundle.schema, history))


def _history(bundle: Bundle) -> tuple[Epoch, ...]:
    for folder in (bundle.path, bundle.path.parent):
        if (folder / HISTORY).is_file():
            way_out = "Delete it; the report is then without it."
            found = read_json(folder / HISTORY, of=list, way_out=way_out)
            try:
                return tuple(map(Epoch.from_dict, found))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ConfigError(f"{folder / HISTORY} is damaged ({error!r}). {way_out}") from None
    return ()


def _origin(bundle: Bundle) -> str:
    known = bundle.provenance
    if "best_epoch" not in known:
        return ""
    return f"best epoch {known['best_epoch']} of {known.get('epochs', '?')} ({known.get('stopped', '')})"


def _headline(entry: Entry) -> str:
    shown = []
    for name, metrics in entry.result.targets.items():
        metric, called = ("auc", "AUC") if metrics.is_binary else ("mse_transformed", "MSE")
        value = metrics.values[metric]
        if value is not None:
            shown.append(f"{name} {called} {value:.4f}{' (untaught)' if metrics.untaught else ''}")
    feed = entry.result.find("mean.gauc_feed")
    return " · ".join(shown + ([f"mean gAUC feed {feed:.4f}"] if feed is not None else []))


def _live_headline(orders: Mapping[str, LiveRanks]) -> str:
    shown = []
    for name, ranks in orders.items():
        values = [(metric, ranks.values[metric]) for metric in ("recall@10", "ndcg@10", "mrr")]
        shown.append(f"by {name} " + ", ".join(f"{metric} {value:.4f}" for metric, value in values if value is not None))
    return " · ".join(shown)


def _days(at: pa.ChunkedArray, utc_offset_hours: float) -> str:
    bounds = [pc.min(at).as_py(), pc.max(at).as_py()]
    first, last = (datetime.fromtimestamp(ms / 1000 + 3600 * utc_offset_hours, UTC).strftime("%Y-%m-%d") for ms in bounds)
    return first if first == last else f"{first} to {last}"
