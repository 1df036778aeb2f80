"""Jobs as their users meet them: options, one-line errors, exit codes, shipped experiments."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs import bench, screen
from models.config import ConfigError, to_dict
from pipelines.cluster import RayConfig, connected, output_folder
from pipelines.experiment import load_experiment, load_spelling, spelled_as_before
from pipelines.tune.config import check_space
from pipelines.tune.structure.graphs import EMPTY
from pipelines.tune.structure.problem import Problem, refusal

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "jobs" / "configs").rglob("*.yaml"))
SEARCHES = [file for file in CONFIGS if {"space", "structure"} & load_spelling(file).get("tune", {}).keys()]
QUICKSTART = ROOT / "jobs" / "configs" / "quickstart.yaml"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_shipped_experiments_are_valid(file):
    experiment = load_experiment(file)
    folder = file.parent.name.removesuffix("s")
    assert experiment.name == (file.stem if folder == "config" else f"{folder}_{file.stem}")
    assert experiment.schema.targets and experiment.system


def test_what_means_something_else_now_is_told(tmp_path, capsys):
    spelling = load_spelling(QUICKSTART)
    assert all(spelled_as_before(load_spelling(file)) == [] for file in CONFIGS)
    stay = spelling["schema"]["targets"][-1]
    assert stay.pop("head") == "log1p"
    stay["transform"] = "log1p"
    file = tmp_path / "before.yaml"
    for weight, lines in ((0.05, 1), (0.0, 0)):
        stay["fusion_weight"] = weight
        file.write_text(yaml.safe_dump(spelling), encoding="utf-8")
        experiment = screen.experiment_of(screen.parser(None).parse_args(["--config", str(file)]))
        assert experiment.schema.targets[-1].head == "log1p"
        said = capsys.readouterr().out.splitlines()
        assert len(said) == lines and all("`stay_seconds` says `transform`, which is `head` now" in line for line in said)


@pytest.mark.parametrize("file", SEARCHES, ids=lambda file: file.stem)
def test_shipped_searches_build_rankers(file):
    experiment = load_experiment(file)
    tune = experiment.tune
    if tune.structure is None:
        assert check_space(to_dict(experiment), tune, experiment.schema) > 0
        return
    names = tuple(target.name for target in experiment.schema.targets if target.loss_weight > 0)
    problem = Problem(
        spelling=to_dict(experiment),
        prepared=Path(),
        fingerprint="",
        folder=Path(),
        schema=experiment.schema,
        names=names,
        config=tune,
    )
    assert len(names) == 4 and refusal(problem, EMPTY) is None


def test_set_changes_one_value_read_as_yaml():
    experiment = load_experiment(QUICKSTART, ["logs.users=77", "model={system: ple}", "train.optimiser.dense.rate=1e-2"])
    assert experiment.logs.users == 77
    assert experiment.system.fusion.kind == "ple"
    assert experiment.train.optimiser.dense.rate == 0.01


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["logs.userz=3"], "userz` is not a known key. Known here: kind, users, days, seed"),
        (["trian.epochs=3"], "`trian` is not a known key"),
        (["train.epochs=many"], "`train.epochs` is 'many'"),
        (["train.epochs=0"], "train.epochs must be at least 1, got 0"),
        (["model.system=mmoee"], "`model.system` is 'mmoee', which is not in the zoo. Systems: wdl, din"),
        (["model.fusion.expertz=3"], "expertz` is not a known key"),
        (["name=a/b"], "name is 'a/b'"),
        (["train"], "write it as --set section.key=value"),
        (["name.first=x"], "not a section"),
    ],
)
def test_wrong_values_are_told_with_their_path(changes, told):
    with pytest.raises(ConfigError) as error:
        load_experiment(QUICKSTART, changes)
    assert told in str(error.value)


def test_missing_file_lists_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"There are: .*quickstart\.yaml"):
        load_spelling(QUICKSTART.parent / "quikstart.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1, 2")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_spelling(broken)
    broken.write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds no sections"):
        load_spelling(broken)


def test_a_failing_job_says_one_line_and_exits_2():
    done = subprocess.run(
        [sys.executable, "-m", "jobs.train", "--set", "train.epochs=0"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: train: train.epochs must be at least 1, got 0.\n"


def test_the_reason_is_found_behind_other_errors(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["job"])

    class FromAWorker(Exception):
        cause = ConfigError("the column is missing")

    def main(argv):
        raise RuntimeError("task failed") from FromAWorker()

    with pytest.raises(SystemExit) as ended:
        screen.run(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the column is missing\n"


def test_our_own_faults_keep_their_trace(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["job"])

    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        screen.run(main)


def test_a_submitted_job_needs_an_absolute_output(monkeypatch, tmp_path):
    assert output_folder("runs", "x") == (Path("runs") / "x").resolve()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="`output` is 'runs': in a submitted job it must be an absolute path"):
        output_folder("runs", "x")
    assert output_folder(str(tmp_path), "x") == tmp_path / "x"


def test_one_logical_cpu_is_refused():
    with pytest.raises(ValueError, match="num_cpus >= 2"):
        RayConfig(num_cpus=1)


def test_an_address_at_which_nobody_listens_is_refused_at_once():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, so that nobody else listens there
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"`ray.address` is '{address}', but no Ray answers there"):
            connected(RayConfig(address=address)).__enter__()


def test_less_shared_memory_than_ray_takes_is_refused():
    with pytest.raises(ValueError, match="object_store_mb >= 75, got 74"):
        RayConfig(object_store_mb=74)


def test_bench_lists_its_benchmarks(capsys):
    bench.main([])
    assert "step" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no benchmark 'speed'"):
        bench.main(["speed"])


def test_a_file_may_extend_another(tmp_path):
    below = {"name": "below", "train": {"epochs": 3, "seed": 1}, "compare": {"seeds": [0, 1, 2]}}
    (tmp_path / "below.yaml").write_text(yaml.safe_dump(below))
    above = {"extends": "below.yaml", "name": "above", "train": {"epochs": 5}, "compare": {"seeds": [7]}}
    (tmp_path / "above.yaml").write_text(yaml.safe_dump(above))
    expected = {"name": "changed", "train": {"epochs": 5, "seed": 1}, "compare": {"seeds": [7]}}
    assert load_spelling(tmp_path / "above.yaml", ["name=changed"]) == expected


def test_null_takes_away_what_the_extended_file_says(tmp_path):
    (tmp_path / "below.yaml").write_text(yaml.safe_dump({"tune": {"space": {"a": {"low": 1}, "b": {"low": 2}}}, "x": None}))
    (tmp_path / "above.yaml").write_text("extends: below.yaml\ntune: {space: {a: null, c: {low: 3}}}\ny: null")
    expected = {"tune": {"space": {"b": {"low": 2}, "c": {"low": 3}}}, "x": None, "y": None}
    assert load_spelling(tmp_path / "above.yaml") == expected


def test_a_file_cannot_extend_itself(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    with pytest.raises(ConfigError, match=r"a.yaml extends itself, by way of .*a.yaml, .*b.yaml"):
        load_spelling(tmp_path / "a.yaml")
