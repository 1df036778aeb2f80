"""Conversions happen once, whole or not at all."""

import typing

import pytest

from models.config import ConfigError, config, from_dict, to_dict
from pipelines.logs import DATA_SETS, SOURCES, CanonicalConfig, EbnerdConfig, LogsConfig, SimulateConfig, materialise
from pipelines.logs.simulator import life
from tests.pipelines.logs_samples import ebnerd_tables, write_ebnerd

SMALL = SimulateConfig(users=30, days=1, seed=3)


@config
class Holder:
    logs: LogsConfig


def test_sources_are_told_apart_by_kind():
    for spelling in ({"kind": "canonical", "path": "a"}, {"kind": "ebnerd", "path": "a"}, {"kind": "simulate", "users": 50}):
        holder = from_dict(Holder, {"logs": spelling})
        assert holder.logs.kind == spelling["kind"]
        assert from_dict(Holder, to_dict(holder)) == holder
    assert isinstance(from_dict(Holder, {"logs": {"kind": "ebnerd", "path": "a"}}).logs, EbnerdConfig)
    assert isinstance(from_dict(Holder, {"logs": {"kind": "canonical", "path": "a"}}).logs, CanonicalConfig)
    with pytest.raises(ConfigError, match=r"users is 3; a simulated world needs at least 20"):
        from_dict(Holder, {"logs": {"kind": "simulate", "users": 3}})


def test_every_source_but_the_canonical_one_has_a_converter():
    kinds = {each.kind for each in typing.get_args(typing.get_args(LogsConfig)[0])}
    assert kinds == {"canonical", *SOURCES, *DATA_SETS}


def test_finished_work_is_not_done_again(tmp_path, capsys, monkeypatch):
    output = tmp_path / "output"
    first = materialise(SMALL, output)
    assert first.path == output / "logs"
    assert first.truth == output / "truth"

    monkeypatch.setitem(SOURCES, "simulate", lambda *_: pytest.fail("converted again"))
    assert materialise(SMALL, output) == first
    assert "is finished (simulate); nothing to do" in capsys.readouterr().out


def test_another_config_replaces_what_was_converted(tmp_path, capsys):
    before = materialise(SMALL, tmp_path / "output").fingerprint()
    assert materialise(SimulateConfig(users=30, days=1, seed=4), tmp_path / "output").fingerprint() != before
    assert "was converted from something else (config.seed (3 -> 4)); replacing it" in capsys.readouterr().out


def test_a_killed_conversion_starts_afresh(tmp_path, monkeypatch):
    whole = materialise(SMALL, tmp_path / "whole").fingerprint()

    class Killed(BaseException):
        pass

    def killed(*args):
        original(*args)
        raise Killed

    original = life._live
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(life, "_live", killed)
        materialise(SMALL, tmp_path / "output")
    assert not (tmp_path / "output").exists()  # nothing that could be mistaken for a log
    assert materialise(SMALL, tmp_path / "output").fingerprint() == whole


def test_a_failed_conversion_keeps_what_was_there(tmp_path, monkeypatch):
    kept = materialise(SMALL, tmp_path / "output")
    fingerprint = kept.fingerprint()
    with pytest.raises(ConfigError, match=r"has no behaviors\.parquet"):
        materialise(EbnerdConfig(path=tmp_path), tmp_path / "output")
    with pytest.raises(ConfigError, match=r"column `user_id` is missing"):
        broken = write_ebnerd(tmp_path / "in", history=ebnerd_tables()["history"].drop("user_id"))
        materialise(EbnerdConfig(path=broken), tmp_path / "output")
    assert kept.fingerprint() == fingerprint
    assert {path.name for path in tmp_path.iterdir()} == {"output", "in"}


def test_changed_inputs_are_converted_again_and_moved_ones_are_not(tmp_path, capsys):
    first = materialise(EbnerdConfig(path=write_ebnerd(tmp_path / "a")), tmp_path / "output").fingerprint()
    (tmp_path / "a").rename(tmp_path / "b")
    assert materialise(EbnerdConfig(path=tmp_path / "b"), tmp_path / "output").fingerprint() == first
    assert "nothing to do" in capsys.readouterr().out
    write_ebnerd(tmp_path / "b", behaviors=ebnerd_tables()["behaviors"].head(3))
    assert materialise(EbnerdConfig(path=tmp_path / "b"), tmp_path / "output").fingerprint() != first


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "thesis.txt").write_text("my only copy")
    with pytest.raises(ConfigError, match=r"output holds files but no run\.json.*or delete this one"):
        materialise(SMALL, tmp_path / "output")
    assert (tmp_path / "output" / "thesis.txt").read_text() == "my only copy"
