"""Nodes that differ are told before any work, in one sentence."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from models.config import ConfigError
from pipelines import preflight
from pipelines.preflight import Needs, NodeFacts, first_problem, versions

MINE = NodeFacts("this machine", versions())
NODE = NodeFacts("node 10.0.0.7 (ab12)", versions(), free=8 << 30, cpus=4)
OUT = Path("/shared/runs")


@pytest.mark.parametrize(
    "changes, told",
    [
        ({}, None),
        (
            {"problem": "Permission denied"},
            r"cannot work in `output` \(/shared/runs\): Permission denied\. Name a folder that all",
        ),
        (
            {"unseen": ["/logs"]},
            r"does not see /logs, which the work reads\. Name a folder that all nodes reach, or a place in a st",
        ),
        (
            {"versions": {**versions(), "torch": "1.0"}},
            r"runs torch 1\.0, not \d+.* as this machine\. Give all nodes the same env",
        ),
        ({"versions": {**versions(), "code": "0"}}, r"runs other code of LiveRank than this machine"),
        ({"free": 1000 << 20}, r"has 1,000 MiB of memory left; 4 tasks at once take at least 2,048\."),
    ],
)
def test_what_differs_is_one_sentence(changes, told):
    found = first_problem(
        MINE, [NODE, replace(NODE, **changes)], OUT, Needs(cpus={"prepare.cpus_per_task": 1, "train.cpus_per_worker": 0})
    )
    assert found is None if told is None else re.match(r"node 10\.0\.0\.7 \(ab12\) " + told, found), found


def test_private_disks_and_tasks_too_large_are_told():
    assert first_problem(MINE, [NODE], OUT, Needs(), [NODE.name]) == (
        "what node 10.0.0.7 (ab12) writes into `output` (/shared/runs) does not show on this machine: each has its own. Name a "
        "folder that all nodes reach, or a place in a store (s3://bucket/folder)."
    )
    assert first_problem(MINE, [NODE], OUT, Needs(cpus={"prepare.cpus_per_task": 8})) == (
        "prepare.cpus_per_task is 8, but no node has more than 4 CPUs: its tasks would wait for ever. Lower it."
    )


@pytest.mark.cluster
def test_the_nodes_of_a_cluster_are_asked(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        said: list[str] = []
        preflight.preflight(tmp_path / "runs", Needs(reads=(tmp_path,)), say=said.append)
        assert said == [f"Preflight: 2 nodes write and read in {tmp_path / 'runs'}, and run the same code."]
        assert list((tmp_path / "runs").iterdir()) == []
        for needs, told in (
            (Needs(reads=(tmp_path / "nowhere",)), r"node .* does not see .*nowhere, which the work reads\."),
            (Needs(cpus={"prepare.cpus_per_task": 3}), r"prepare\.cpus_per_task is 3, but no node has more than 2 CPUs"),
        ):
            with pytest.raises(ConfigError, match=told):
                preflight.preflight(tmp_path / "runs", needs)
        monkeypatch.setattr(preflight, "versions", lambda: {**versions(), "torch": "1.0"})  # here, not on the nodes
        with pytest.raises(ConfigError, match=r"node .* runs torch .*, not 1\.0 as this machine"):
            preflight.preflight(tmp_path / "runs", Needs())
        assert list((tmp_path / "runs").iterdir()) == []
    finally:
        ray.shutdown()
        cluster.shutdown()
