"""The target graph as a network walks it."""

from collections.abc import Hashable, Mapping


def generations(
    parents: Mapping[str, tuple[str, ...]], kinds: Mapping[str, Hashable] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Nodes of an acyclic graph in groups that can be computed together.

    All parents of a node are in earlier groups; the nodes of a group have equally many parents and the same kind.

    Args:
        parents: of every node.
        kinds: of every node; None for all the same.
    """
    depth = depths(parents)
    groups: dict[Hashable, list[str]] = {}
    for name in sorted(parents, key=depth.__getitem__):
        groups.setdefault((depth[name], len(parents[name]), kinds and kinds[name]), []).append(name)
    return tuple(map(tuple, groups.values()))


def depths(parents: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Edges on the longest way from a root to each node of an acyclic graph."""
    found: dict[str, int] = {}
    while len(found) < len(parents):
        for name, above in parents.items():
            if name not in found and all(parent in found for parent in above):
                found[name] = 1 + max((found[parent] for parent in above), default=-1)
    return found
