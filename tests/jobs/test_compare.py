"""`jobs.compare` as its users meet it: what it prints, what it refuses, its exit code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs import compare
from models.config import ConfigError
from pipelines.experiment import load_experiment
from tests.pipelines.fabricate import fabricate
from tests.samples import tiny_schema

ROOT = Path(__file__).parents[2]
SMALL = {"embedding_width": 4, "fusion": {"hidden": [8], "towers": [4]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("job") / "data").path


@pytest.fixture
def spelling(data, tmp_path):
    shutil.copytree(data, tmp_path / "runs" / "tiny" / "prepared")
    return {
        "name": "tiny",
        "output": str(tmp_path / "runs"),
        "logs": {"kind": "canonical", "path": "nowhere"},
        "schema": tiny_schema().to_dict(),
        "train": {"epochs": 1, "batch_feeds": 64},
        "evaluate": {"split": "valid", "baselines": []},
        "compare": {
            "systems": {"bottom": {"system": "shared_bottom", **SMALL}, "mmoe": {"system": "mmoe", **SMALL}},
            "seeds": [0, 1],
            "claims": [{"better": "mmoe", "than": ["bottom"], "metrics": ["click.auc"]}],
            "fewest_positives": 1,
        },
    }


def write(spelling, folder: Path) -> str:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(spelling, sort_keys=False))
    return str(file)


def test_a_dry_run_lists_and_runs_nothing(spelling, tmp_path, capsys):
    compare.main(["--config", write(spelling, tmp_path), "--dry-run"])
    said = capsys.readouterr().out
    assert "Comparing: 4 cells (2 systems x 2 seeds); 0 of 4 done." in said
    assert f"Table: {tmp_path / 'runs' / 'tiny' / 'compare' / 'compare.html'}" in said
    assert "as in train.optimiser  0 of 2" in said
    assert said.rstrip().endswith("to run  bottom seed 0\nto run  mmoe seed 0\nto run  bottom seed 1\nto run  mmoe seed 1")
    assert not (tmp_path / "runs" / "tiny" / "compare").exists()


def test_the_table_of_what_is_there(spelling, tmp_path, capsys):
    compare.main(["--config", write(spelling, tmp_path), "--table"])
    assert "not all of the 2 seeds are there yet: bottom 0, mmoe 0" in capsys.readouterr().out
    assert "| bottom | – |" in (tmp_path / "runs" / "tiny" / "compare" / "compare.md").read_text()


def test_wrong_sections_are_told_when_the_file_is_read(spelling, tmp_path):
    config = write(spelling, tmp_path)
    with pytest.raises(ConfigError, match=r"compare\.base: `x` is not among the systems: bottom, mmoe"):
        load_experiment(config, ["compare.base=x"])
    with pytest.raises(ConfigError, match=r"compare\.metrics: no metric `buy\.auc`"):
        load_experiment(config, ["compare.metrics=[buy.auc]"])
    with pytest.raises(
        ConfigError, match=r"the experiment has no section `compare`\. Add one, for example: compare: \{systems"
    ):
        compare.main(["--config", config, "--set", "compare=null"])
    done = subprocess.run(
        [sys.executable, "-m", "jobs.compare", "--config", config, "--set", "compare.systems.mmoe.system=mmo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: compare.systems.mmoe: `model.system` is 'mmo'")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_failed_cell_is_exit_code_1_and_the_rest_is_there(local_ray, spelling, tmp_path, capsys):
    """mmoe first learns with a rate it cannot survive, then with its own; bottom is not run a second time."""
    config = write(spelling, tmp_path)
    wild = ["--set", "compare.rates=[1e30]"]
    with pytest.raises(SystemExit) as ended:
        compare.main(["--config", config, "--only", "mmoe", *wild])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "failed · FloatingPointError: the loss is not finite" in said and "0 of 4 done" in said

    compare.main(["--config", config])
    said = capsys.readouterr().out
    assert "mmoe > bottom on click.auc: " in said and "(2 seeds)" in said
    assert "4/4  " in said and "mmoe seed 1: click AUC" in said  # cells run side by side; either may be the last
    assert "| mmoe |" in (tmp_path / "runs" / "tiny" / "compare" / "compare.md").read_text()

    compare.main(["--config", config])
    said = capsys.readouterr().out
    assert "4 of 4 done" in said and "4/4" not in said

    compare.main(["--config", config, "--table", "--set", "compare.fewest_positives=1000"])
    said = capsys.readouterr().out
    assert re.search(r"1 claim is not tested: \d+ positives are behind it, fewer than compare.fewest_positives \(1000\)", said)
    with pytest.raises(ConfigError, match=r"have other settings(.|\n)*--replace"):
        compare.main(["--config", config, "--set", "train.epochs=2"])
    compare.main(["--config", config, "--set", "train.epochs=2", "--replace", "--only", "bottom"])
    said = capsys.readouterr().out
    assert "2/4  bottom seed" in said and "2 results of other settings are left out" in said
