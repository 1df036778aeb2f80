"""Two jobs on one folder at once: one works, the other says who does; what a killed one held is taken over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipelines.naive_prepare import random_log, wide_schema

ROOT = Path(__file__).parents[2]


@pytest.mark.cluster
def test_one_works_and_the_other_is_told_who_does(tmp_path):
    logs = random_log(1).write(tmp_path / "logs")
    spelling = {
        "name": "tiny",
        "output": str(tmp_path / "runs"),
        "logs": {"kind": "canonical", "path": str(logs.path)},
        "schema": wide_schema().to_dict(),
        "prepare": {"parallel": "none", "rows_per_bucket": 50, "quarantine_limit": 0.5},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spelling, sort_keys=False))
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.contested", str(tmp_path / "tiny.yaml"), "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is in use by process") == 20 and done.stdout.count("Taking over.") == 1
