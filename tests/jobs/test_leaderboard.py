"""`jobs.leaderboard` as its users meet it: who is on the board, under which conditions, and that a killed one repeats."""

import json
import shutil

import pytest
import yaml

from jobs import leaderboard
from models.config import ConfigError
from models.zoo import ZOO
from pipelines import steps
from pipelines.compare.execute import InProcess
from pipelines.compare.leaderboard import board
from pipelines.experiment import load_experiment
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema, tiny_schema

SMALL = {"embedding_width": 4, "fusion": {"hidden": [8], "towers": [4]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("board") / "data").path


@pytest.fixture
def config(data, tmp_path, monkeypatch):
    """A prepared log, two small systems, cells in this process instead of on Ray."""
    shutil.copytree(data, tmp_path / "runs" / "tiny" / "prepared")
    monkeypatch.setattr(leaderboard, "prepare_step", lambda experiment: None)
    monkeypatch.setattr(steps, "OnRay", lambda config: InProcess())
    spelling = {
        "name": "tiny",
        "output": str(tmp_path / "runs"),
        "logs": {"kind": "canonical", "path": "nowhere"},
        "schema": tiny_schema().to_dict(),
        "prepare": {"parallel": "none"},
        "train": {"epochs": 1, "batch_feeds": 64},
        "evaluate": {"split": "valid"},
        "compare": {
            "systems": {"bottom": {"system": "shared_bottom", **SMALL}, "mmoe": {"system": "mmoe", **SMALL}},
            "seeds": [0, 1],
            "rates": [0.001, 0.01],
            "metrics": ["click.auc", "stay.mse_transformed", "stay.calibration"],
            "claims": [{"better": "mmoe", "than": ["bottom"]}],
        },
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(spelling, sort_keys=False))
    return str(file)


def test_the_board_is_the_zoo_without_what_cannot_work_on_the_log():
    """The log knows no stages, which STAN's feature reads; a schema with them has it."""
    tables = dict.fromkeys(full_schema().tables, 20)
    config, left_out = board(None, tiny_schema(), tables)
    assert set(config.systems) | set(left_out) == set(ZOO) and not set(config.systems) & set(left_out)
    assert "the schema declares none; add `schema.stages`" in left_out["ple_stage"]
    assert "ple_stage" in board(None, full_schema(), tables)[0].systems
    assert len(config.rates) == len(config.seeds) == 3
    assert list(board(None, tiny_schema(), tables, ["ple", "mmoe"])[0].systems) == ["ple", "mmoe"]
    with pytest.raises(ConfigError, match=r"--systems: `plee` is not in the zoo\. Systems: "):
        board(None, tiny_schema(), tables, ["plee"])
    with pytest.raises(ConfigError, match=r"none of the systems can work on this schema; ple_stage: "):
        board(None, tiny_schema(), tables, ["ple_stage"])


def test_no_row_has_conditions_of_its_own(config):
    experiment = load_experiment(config, ["compare.systems.mmoe.rate=0.1"])
    with pytest.raises(ConfigError, match=r"compare\.systems\.mmoe has `rate` of its own, but on a leaderboard all"):
        board(experiment.compare, tiny_schema(), dict.fromkeys(tiny_schema().tables, 20))


def test_a_killed_leaderboard_goes_on_and_repeats(config, tmp_path, capsys, monkeypatch):
    """Stopped after three cells; what goes on writes the bytes of one that was never stopped."""

    class Stopped(InProcess):
        def next(self):
            if len(list((tmp_path / "runs" / "tiny" / "leaderboard" / "cells").rglob("result.json"))) >= 3:
                raise KeyboardInterrupt
            return super().next()

    monkeypatch.setattr(steps, "OnRay", lambda config: Stopped())
    with pytest.raises(KeyboardInterrupt):
        leaderboard.main([config])
    assert not (tmp_path / "runs" / "tiny" / "leaderboard" / "leaderboard.md").exists()
    monkeypatch.setattr(steps, "OnRay", lambda config: InProcess())
    capsys.readouterr()
    leaderboard.main([config])
    said = capsys.readouterr().out
    assert "Comparing: 4 cells (2 systems x 2 seeds)" in said and "Leaderboard: " in said and "0 of" not in said
    folder = tmp_path / "runs" / "tiny" / "leaderboard"
    pages = {name: (folder / name).read_bytes() for name in ("leaderboard.md", "leaderboard.json")}
    shutil.rmtree(folder)
    leaderboard.main([config])
    assert pages == {name: (folder / name).read_bytes() for name in pages}

    found = json.loads(pages["leaderboard.json"])
    assert found["protocol"]["search"] == {"rates": [0.001, 0.01], "seeds": [0], "trainings a system": 2}
    assert found["protocol"]["floor"] == ["popularity", "booster"]
    assert found["protocol"]["fingerprint"].startswith("fabricated") and "torch" in found["protocol"]["versions"]
    scores = [row["scores"]["click.auc"]["mean"] for row in found["rows"] if row["scores"]["click.auc"]["mean"] is not None]
    assert scores == sorted(scores, reverse=True) and {"bottom", "mmoe"} <= {row["label"] for row in found["rows"]}
    page = pages["leaderboard.md"].decode()
    assert page.index("## Protocol") < page.index("2 trainings a system: learning rates 0.001, 0.01") < page.index("## Table")
    assert "Made" not in page and "rows of the log" in page


def test_a_dry_run_prepares_nothing(config, monkeypatch, capsys):
    def prepared(experiment):
        raise AssertionError("a dry run prepares")

    monkeypatch.setattr(leaderboard, "prepare_step", prepared)
    leaderboard.main([config, "--dry-run"])
    assert "to run" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="a dry run prepares"):
        leaderboard.main([config])
