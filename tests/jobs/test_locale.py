"""A job in the plainest of locales, with names that ASCII does not have."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from models.schema import Field
from tests.pipelines.naive_prepare import random_log, wide_schema

ROOT = Path(__file__).parents[2]


def test_names_of_any_language_in_schema_and_log(tmp_path):
    """Below a folder that looks like a day's: it is nobody's column."""
    output = tmp_path / "dt=2025-11-29" / "user_id=7"
    log = random_log(1)
    logs = replace(log, impressions=[row | {"context.device": "手机"} for row in log.impressions]).write(tmp_path / "logs")
    for file in logs.files("impressions"):
        table = pq.read_table(file)
        names = ["context.设备" if name == "context.device" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names).append_column("标记", pa.nulls(len(table))), file)
    schema = wide_schema()
    schema = replace(schema, fields=(*schema.fields, Field(name="device", of="feed", column="context.设备")))
    experiment = {
        "name": "locale",
        "output": str(output),
        "logs": {"kind": "canonical", "path": str(logs.path)},
        "schema": schema.to_dict(),
        "prepare": {"parallel": "none"},
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment, allow_unicode=True), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.prepare", "--config", str(tmp_path / "e.yaml")],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "impressions: column `标记` is not read" in done.stdout
    files = (output / "locale" / "prepared" / "features").rglob("*.parquet")
    assert {value for file in files for value in pq.read_table(file)["context.设备"].to_pylist()} == {"手机"}
