"""A comparison that others can be held against: every system under the same conditions, and these written down.

What makes it honest is what no row may have of its own: all are searched for with the same budget (the learning rates of
`compare.rates`, each with the same seeds), stopped by the same rule, trained for the same targets, and stand beside a floor
that learns nothing of users (popularity) and one that any engineer has in an hour (boosted counters).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.config import ConfigError
from models.schema import Schema
from models.zoo import ZOO
from pipelines.compare.comparison import Comparison
from pipelines.compare.config import BESIDE_MODEL, CompareConfig, parameters_of, system_of
from pipelines.compare.notes import about_of, words_of
from pipelines.evaluate.config import Baseline

FLOOR: tuple[Baseline, ...] = ("popularity", "booster")
RATES = (0.0003, 0.001, 0.003)  # where the experiment names none
SEEDS = (0, 1, 2)


def board(
    given: CompareConfig | None, schema: Schema, table_sizes: Mapping[str, int], systems: Sequence[str] = ()
) -> tuple[CompareConfig, dict[str, str]]:
    """The comparison of a leaderboard, and the systems that cannot work on the schema with the reason, by name.

    Args:
        given: the experiment's; its rows where it has any, and what it says of seeds, rates and metrics, stand.
        systems: of the zoo, instead of the rows.

    Raises:
        ConfigError: no such system; a row has conditions of its own; none of the systems can work on the schema.
    """
    if unknown := [name for name in systems if name not in ZOO]:
        raise ConfigError(f"--systems: `{unknown[0]}` is not in the zoo. Systems: {', '.join(ZOO)}.")
    rows = {name: {"system": name} for name in systems or ZOO}
    if given is None:
        config = CompareConfig(systems=rows, seeds=SEEDS, rates=RATES)
    elif systems:
        config = replace(given, systems=rows, base="", claims=(), curves=())
    else:
        config = replace(given, claims=(), curves=())
    for label, spelling in config.systems.items():
        if own := [key for key in BESIDE_MODEL if key in spelling]:
            raise ConfigError(
                f"compare.systems.{label} has {' and '.join(f'`{key}`' for key in own)} of its own, but on a leaderboard all "
                f"systems have the same conditions. Take it out, or make a table with jobs.compare."
            )
    left_out: dict[str, str] = {}
    for label in config.systems:
        try:
            parameters_of(system_of(config, schema, label), table_sizes)
        except ConfigError as error:
            left_out[label] = str(error).removeprefix(f"compare.systems.{label}: ")
    kept = {label: spelling for label, spelling in config.systems.items() if label not in left_out}
    if not kept:
        label, reason = next(iter(left_out.items()))
        raise ConfigError(f"none of the systems can work on this schema; {label}: {reason}")
    return replace(config, systems=kept, base=config.base if config.base in kept else ""), left_out


def protocol_of(comparison: Comparison, source: str) -> dict[str, Any]:
    """Everything that a number of the table depends on, as plain values; two boards with the same one may be compared.

    Args:
        source: the kind of the logs.
    """
    manifest, config = comparison.prepared.manifest, comparison.config
    words = words_of(comparison, [])
    results = comparison.results.values()
    versions = {name: version for result in results for name, version in (result.made.get("versions") or {}).items()}
    trials = len(config.rates) * len(config.seeds_of_rates) if len(config.rates) > 1 else 0
    return {
        "source": source,
        "fingerprint": comparison.shared.fingerprint,
        "splits": {
            name: {"days": list(manifest.days[name]), "feeds": split.feeds, "candidates": split.candidates}
            for name, split in manifest.splits.items()
        },
        "scored on": comparison.shared.evaluate.split,
        "account": manifest.counts.account_lines(),
        "search": {"rates": list(config.rates), "seeds": list(config.seeds_of_rates), "trainings a system": trials},
        "seeds": list(config.seeds),
        "stopping": words["Early stopping"],
        "optimiser": words["Optimiser"],
        **({"alike in all": words["Alike in all"]} if "Alike in all" in words else {}),
        "floor": [baseline.name for baseline in comparison.baselines if baseline.name != "truth"],
        "code": about_of(comparison, source)["Code"],
        "versions": dict(sorted(versions.items())),
    }
