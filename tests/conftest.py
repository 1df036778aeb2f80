"""Shared fixtures: a small schema, random feeds for it, and one Ray per test session."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before anything imports ray: tests stay on loopback
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")  # idle workers stay warm between stages
os.environ.setdefault("RAY_num_workers_soft_limit", "6")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # test processes run side by side; threads of all of them would get in each other's way

import pytest

from tests.samples import TABLE_SIZES, random_batch
from tests.samples import tiny_schema as make_tiny_schema


@pytest.fixture(scope="session")
def tiny_schema():
    return make_tiny_schema()


@pytest.fixture
def tiny_batch(tiny_schema):
    return random_batch(tiny_schema, TABLE_SIZES, feeds=6, seed=0)


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory):
    """One small Ray for all tests marked `ray`."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=300 * 2**20, log_to_driver=False)
    yield ray
    ray.shutdown()
