"""Before any work: whether all nodes of a cluster see the same places and run the same code, and can hold the work.

What differs between nodes shows late otherwise: a folder that is private on every node loses tables, another version of a
library makes other numbers, a task that no node can hold waits for ever.
"""

import os
import platform
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

from models.config import ConfigError
from pipelines.faults import told
from pipelines.places import Remote, remove

LIBRARIES = ("torch", "ray", "pyarrow", "numpy", "polars", "pandas", "safetensors")
SECONDS = 60.0  # in which every node must have answered
LEAST_MEMORY = 512 << 20  # bytes that a task takes at least: its libraries, and a bucket


@dataclass(frozen=True)
class Needs:
    """What the work is going to ask of a cluster.

    Attributes:
        reads: folders that every node has to see, beside the output.
        cpus: what one task reserves, by the key of the configuration that says so.
    """

    reads: tuple[Path, ...] = ()
    cpus: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself.

    Attributes:
        name: as messages call it.
        versions: of Python, libraries and the code of this program, by name.
        problem: why it cannot write or read in the output; empty where it can.
        unseen: of the folders to be read, those that it does not see.
        free: bytes of memory.
        cpus: of the node, in Ray's count.
    """

    name: str
    versions: Mapping[str, str]
    problem: str = ""
    unseen: Sequence[str] = ()
    free: int | None = None
    cpus: float = 0.0


def preflight(output: Path, needs: Needs, *, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    """Asks every node of the Ray that is joined; a Ray of one node that runs on this machine has nothing to differ in.

    Args:
        output: where nodes write; what this leaves there is removed.

    Raises:
        ConfigError: a node differs, in one sentence that says in what and what to do.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if len(nodes) < 2:
        return
    nonce = secrets.token_hex(8)
    folder = output / f".preflight-{nonce}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "driver").write_bytes(nonce.encode())
        found = _asked(nodes, folder, nonce, needs)
        mine = NodeFacts("this machine", versions())
        if problem := first_problem(mine, found, output, needs, _seen_here(folder, nonce, found)):
            raise ConfigError(problem)
        say(f"Preflight: {len(found)} nodes write and read in {output}, and run the same code.")
    finally:
        _clean(folder)


def first_problem(
    mine: NodeFacts, nodes: Sequence[NodeFacts], output: Path, needs: Needs, unseen_here: Sequence[str] = ()
) -> str | None:
    """The first thing that is wrong, in a sentence with its way out.

    Args:
        unseen_here: nodes whose files do not show here.
    """
    where = "Name a folder that all nodes reach, or a place in a store (s3://bucket/folder)."
    for node in nodes:
        if node.problem:
            return f"{node.name} cannot work in `output` ({output}): {node.problem}. {where}"
        if node.name in unseen_here:
            return f"what {node.name} writes into `output` ({output}) does not show on this machine: each has its own. {where}"
        if node.unseen:
            return f"{node.name} does not see {node.unseen[0]}, which the work reads. {where}"
        for name, here in mine.versions.items():
            if (there := node.versions.get(name, "nothing")) != here:
                what = "other code of LiveRank than" if name == "code" else f"{name} {there}, not {here} as"
                return f"{node.name} runs {what} this machine. Give all nodes the same environment and the same code."
        tasks = max(1, int(node.cpus / min((cpus for cpus in needs.cpus.values() if cpus), default=node.cpus or 1)))
        if node.free is not None and node.free < tasks * LEAST_MEMORY:
            return (
                f"{node.name} has {node.free / 2**20:,.0f} MiB of memory left; {tasks} tasks at once take at least "
                f"{tasks * LEAST_MEMORY / 2**20:,.0f}. End what runs there, or give a task more of the node's CPUs."
            )
    most = max((node.cpus for node in nodes), default=0.0)
    for key, cpus in needs.cpus.items():
        if cpus > most:
            return f"{key} is {cpus:g}, but no node has more than {most:g} CPUs: its tasks would wait for ever. Lower it."
    return None


def versions() -> dict[str, str]:
    """Of what decides the results, on this machine."""
    found = {"Python": platform.python_version(), "code": _code()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _code() -> str:
    """A digest of the source of `models` and `pipelines`."""
    digest = xxhash.xxh3_64()
    root = Path(__file__).parents[1]
    for file in sorted(file for package in ("models", "pipelines") for file in (root / package).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _asked(nodes: Sequence[Mapping[str, Any]], folder: Path, nonce: str, needs: Needs) -> list[NodeFacts]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(_answer)
    waiting = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            _named(node), folder, nonce, needs.reads, node["Resources"]["CPU"]
        )
        for node in nodes
    ]
    _, late = ray.wait(waiting, num_returns=len(waiting), timeout=SECONDS)
    if late:
        node = nodes[waiting.index(late[0])]
        raise ConfigError(f"{_named(node)} has not answered for {SECONDS:.0f} s. Look after it, or take it out of the cluster.")
    try:
        return ray.get(waiting)
    except ray.exceptions.RayError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ConfigError(
            f"a node cannot run this program: {reason.strip()}. Give all nodes the same environment and the same code."
        ) from None


def _named(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _answer(name: str, folder: Path, nonce: str, reads: tuple[Path, ...], cpus: float) -> NodeFacts:
    """Runs on the node."""
    problem = ""
    try:
        if not (folder / "driver").exists() or (folder / "driver").read_bytes() != nonce.encode():
            problem = "what this machine writes there does not show"
        else:
            (folder / _file_of(name)).write_bytes(nonce.encode())
    except Exception as error:
        problem = (told(error) or repr(error)).rstrip(".")
    unseen = [str(path) for path in reads if not path.exists()]
    return NodeFacts(name, versions(), problem, unseen, _free_memory(), cpus)


def _file_of(name: str) -> str:
    return name.replace("/", "-")


def _seen_here(folder: Path, nonce: str, found: Sequence[NodeFacts]) -> list[str]:
    """Nodes whose files do not show."""

    def shows(node: NodeFacts) -> bool:
        file = folder / _file_of(node.name)
        return file.exists() and file.read_bytes() == nonce.encode()

    return [node.name for node in found if not node.problem and not shows(node)]


def _free_memory() -> int | None:
    """Bytes that this machine, or the container, has left; None where the system does not say."""
    with suppress(OSError, ValueError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
            lines = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").splitlines()
            cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))  # given back when asked
            return int(limit) - used + cached
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    return None


def _clean(folder: Path) -> None:
    if isinstance(folder, Remote):
        remove(folder.objects())
        return
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink()
        os.rmdir(folder)
