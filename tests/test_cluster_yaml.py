"""cluster.yaml against Ray's own schema, and against what the jobs ask for."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_ray_accepts_cluster_yaml_and_its_node_types_serve_the_jobs():
    from ray.autoscaler._private.util import prepare_config, validate_config

    raw = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(raw))  # raises on unknown keys, a wrong head type, worker counts that do not add up

    types = raw["available_node_types"]
    assert raw["head_node_type"] in types
    workers = {name: kind for name, kind in types.items() if name != raw["head_node_type"]}
    assert sum(kind["max_workers"] for kind in workers.values()) == raw["max_workers"]
    assert any(kind["resources"].get("GPU") for kind in workers.values())
    assert any("GPU" not in kind["resources"] for kind in workers.values())


def test_a_misspelt_key_would_be_caught():
    import pytest
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    raw = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    raw["max_wrokers"] = 3
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(prepare_config(raw))


def test_nodes_get_every_dependency_of_the_project():
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    commands = " ".join(yaml.safe_load((ROOT / "cluster.yaml").read_text())["setup_commands"])
    assert [each for each in wanted if f"'{each}'" not in commands] == []
