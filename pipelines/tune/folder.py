"""What all searches do alike with the folder they are left in, and where they may be watched."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.config import ConfigError
from pipelines.bundle import amend_provenance
from pipelines.ray_private import dashboard_url
from pipelines.runs import RunFolder, read_json
from pipelines.tune.config import TuneConfig

WAY_OUT = (
    "Search into another folder (give the experiment another `name`), or throw the old one away (--restart, resume=False)."
)
SETTINGS, GRAPH = "search", "structure"  # keys under which a bundle's provenance says which search it won


def note(bundle: Path, key: str, search: Mapping[str, Any]) -> None:
    """Adds to a bundle's provenance which search it won."""
    amend_provenance(bundle, key, search)


def say_where_to_watch(what: str, curves: Path, config: TuneConfig, say: Callable[[str], None]) -> None:
    """Says what is going to be searched and where its curves are.

    Raises:
        ConfigError: Ray is not up, or too small for a trial.
    """
    import ray

    if not ray.is_initialized():
        raise ConfigError("a search needs Ray: call it inside `pipelines.cluster.connected(...)`, as jobs.tune does.")
    cpus = ray.cluster_resources().get("CPU", 0)
    if config.cpus_per_trial > cpus:
        raise ConfigError(f"tune.cpus_per_trial is {config.cpus_per_trial:g}, but the cluster has {cpus:g} CPUs.")
    url = dashboard_url()
    dashboard = f" · Ray dashboard: http://{url}" if url else ""
    say(f"{what} Watch: tensorboard --logdir {curves}{dashboard}")


def left_over(run: RunFolder) -> str:
    """What an earlier search left in the folder, in words; empty without any."""
    output = run.path
    if run.identity is None:
        return ""
    if run.is_finished:
        return f"{output} holds a finished search."
    histories = [
        read_json(file, of=list, way_out="Delete it and start again.") for file in output.glob("trials/*/history.json")
    ]
    epochs = sum(len(history) for history in histories)
    over = sum(1 for _ in output.glob("trials/*/bundle"))
    return (
        f"{output} holds a search that was stopped: {over} trainings are done and {len(histories) - over} begun, {epochs} "
        "epochs in all."
    )
