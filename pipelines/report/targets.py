"""Which targets pages show first."""

from models.layers.graph import depths
from models.schema import Schema


def last_target(schema: Schema) -> str:
    """The binary target with the longest way from a root; of several, the first. A schema of values only: its first target."""
    depth = depths({target.name: target.parents for target in schema.targets})
    binary = (target.name for target in schema.targets if target.is_binary)
    return max(binary, key=depth.__getitem__, default=schema.target_names[0])


def root_targets(schema: Schema) -> list[str]:
    """The binary targets without parents, in the schema's order."""
    return [target.name for target in schema.targets if target.is_binary and not target.parents]


def schema_edges(schema: Schema) -> list[tuple[str, str]]:
    """(parent, child) of all targets."""
    return [(parent, target.name) for target in schema.targets for parent in target.parents]
