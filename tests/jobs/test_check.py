"""The job that checks logs: its lines, its files, and what --strict does."""

import polars as pl
import pytest
import yaml

from jobs import check
from models.config import ConfigError
from tests.pipelines.test_check import clean_log, schema, write


def experiment(folder, tables):
    write(tables, folder / "logs")
    spelling = {
        "name": "mine",
        "output": str(folder / "runs"),
        "logs": {"kind": "canonical", "path": str(folder / "logs")},
        "schema": schema().to_dict(),
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(spelling))
    return ["--config", str(folder / "mine.yaml")]


def test_a_clean_log_passes_strictly(tmp_path, capsys):
    check.main([*experiment(tmp_path, clean_log()), "--strict"])
    told = capsys.readouterr().out
    assert "0 warnings (0 high, 0 medium, 0 low)" in told and "6 days from 2025-06-01 to 2025-06-06; 60 users" in told
    assert {file.name for file in (tmp_path / "runs/mine/check").iterdir()} == {"report.html", "check.json"}


def test_strict_refuses_high_warnings_and_no_others(tmp_path, capsys):
    log = clean_log()
    log["engagements"] = log["engagements"].filter(pl.col("action") != "order")
    log["impressions"] = log["impressions"].with_columns(pl.lit(0).alias("position"))
    arguments = experiment(tmp_path, log)
    check.main(arguments)
    assert "2 warnings (1 high, 1 medium, 0 low)" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"^the log has 1 warnings of severity `high`: action_never:order\. "):
        check.main([*arguments, "--strict"])
    check.main([*arguments, "--strict", "--set", "check.accepted=[action_never]"])
