"""What a word in YAML is, and that nothing stands twice."""

import math

import pytest

from models.config import ConfigError
from pipelines.experiment import load_experiment, load_spelling
from pipelines.yaml_text import read_file, read_value
from tests.jobs.test_screen import QUICKSTART


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("2026-11-29", "2026-11-29"),
        ("2026-11-29 10:00:00", "2026-11-29 10:00:00"),
        ("12:30", "12:30"),
        ("20261129", 20261129),
        ("007", "007"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0", 0),
        ("-3", -3),
        ("1e-3", 0.001),
        ("5E4", 50000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'5'", "5"),
        ("~", None),
        ("", None),
        ("null", None),
        ("~/logs", "~/logs"),
        ("=", "="),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("{1: a, '1': b}", {1: "a", "1": "b"}),
    ],
)
def test_a_value_is_what_is_written(text, value):
    assert read_value(text, "it") == value and type(read_value(text, "it")) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: {}\nmodel: {}\ntrain: {epochs: 7}\n", "`train` stands twice in one section, in lines 1 and 3."),
        ("train:\n  epochs: 1\n  seed: 0\n  epochs: 2\n", "`epochs` stands twice in one section, in lines 2 and 4."),
        ("a: [{b: 1, b: 1}]", "`b` stands twice in one section, in lines 1 and 1."),
        ("a: {b: 1, 'b': 1}", "`b` stands twice"),
        ("\ttrain: 1", "it is not YAML"),
        ("a: [1, 2", "it is not YAML"),
        ("a: !!python/object:os.system x", "it is not YAML"),
        ("&a [*a]", None),
        ("[" * 3000, "nested too deeply"),
        ("9" * 5000, "holds a value that cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, told):
    if told is None:
        assert isinstance(read_value(text, "it"), list)
        return
    with pytest.raises(ConfigError) as error:
        read_value(text, "it")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_file_is_utf_8_with_or_without_a_mark(tmp_path):
    file = tmp_path / "a.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_bytes("name: 直播\r\nmodel: {}\r\n".encode(encoding))
        assert read_file(file) == {"name": "直播", "model": {}}
    file.write_bytes("name: 直播".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"a.yaml is not UTF-8 text \(byte 8: .*Save it in the encoding UTF-8"):
        read_file(file)


@pytest.mark.parametrize("name", ["2026-11-29", "20261129", "007", "no", "on", "a b"])
def test_a_run_may_be_called_by_its_day(name):
    assert load_experiment(QUICKSTART, [f"name={name}"]).name == name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("name=1.50", "`name` is 1.5 to YAML, not text. Put it in quotes as you spelled it"),
        ("name=true", "`name` is true to YAML, not text. Put it in quotes as you spelled it"),
        ("name=null", "`name` is None"),
        ("name=..", "it begins with a dot"),
        ("name=[", "`--set name=[` is not YAML"),
        ("train={epochs: 1, epochs: 2}", "`epochs` stands twice"),
        ("schema.targets=", "targets"),
        ("output=ftp://host/runs", "(ftp), where this is not read"),
        ("logs={kind: canonical, path: 'ftp://host/logs'}", "(ftp), where this is not read"),
        ("logs={kind: ebnerd, path: 5}", "path"),
        ("compare={systems: {1: {system: mmoe}}}", "1"),
        ("{}=1", "{}"),
    ],
)
def test_wrong_words_are_told_in_lines(change, told):
    with pytest.raises(ConfigError) as error:
        load_experiment(QUICKSTART, [change])
    assert told in str(error.value)


def test_numbers_dates_and_booleans_are_still_made_of_text():
    changes = ["prepare.latest=2026-11-29", "train.epochs=007", "ray.dashboard=no", "train.optimiser.dense.rate=1e-3"]
    experiment = load_experiment(QUICKSTART, changes)
    assert (experiment.prepare.latest.isoformat(), experiment.train.epochs, experiment.ray.dashboard) == (
        "2026-11-29",
        7,
        False,
    )
    assert experiment.train.optimiser.dense.rate == 0.001


def test_paths_of_a_file_are_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "below.yaml").write_text(QUICKSTART.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "runs").mkdir()
    above = tmp_path / "above.yaml"
    above.write_text("extends: ~/below.yaml\nlogs: {kind: canonical, path: ~/logs}\noutput: file://localhost/data/runs\n")
    experiment = load_experiment("~/above.yaml")
    assert experiment.logs.path == tmp_path / "logs" and str(experiment.folder) == "/data/runs/quickstart"
    assert load_spelling(f"file://{above}")["name"] == "quickstart"
