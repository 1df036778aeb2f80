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
    depth: dict[str, int] = {}
    while len(depth) < len(parents):
        depth.update(
            {
                name: 1 + max((depth[parent] for parent in above), default=-1)
                for name, above in parents.items()
                if name not in depth and all(parent in depth for parent in above)
            }
        )
    groups: dict[Hashable, list[str]] = {}
    for name in sorted(parents, key=depth.__getitem__):
        groups.setdefault((depth[name], len(parents[name]), kinds and kinds[name]), []).append(name)
    return tuple(map(tuple, groups.values()))
