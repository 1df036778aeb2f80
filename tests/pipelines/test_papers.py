"""Tables of papers over several worlds: what may be configured, one made in small, and a cell of it made anew."""

import json
from pathlib import Path

import pytest

from models.config import ConfigError, from_dict
from pipelines.compare.execute import InProcess
from pipelines.compare.paper import PaperConfig
from pipelines.experiment import load_experiment
from pipelines.papers import Study, again, carry_out, overview, table_of
from pipelines.report.papers.result import Gain, OverWorlds

PAPERS = sorted((Path(__file__).parents[2] / "jobs" / "configs" / "papers").glob("*.yaml"))
TINY = [
    "logs.users=50",
    "logs.days=3",
    "prepare.parallel=none",
    "train.epochs=1",
    "train.batch_feeds=64",
    "compare.seeds=[0, 1]",
    "compare.rates=[0.001, 0.002, 0.004]",
    "compare.systems={towers: {system: single, fusion: {hidden: [8]}}, aitm: {system: aitm, fusion: {hidden: [8]}}}",
    "compare.claims=[{better: towers, than: [aitm], metrics: [product_click.expected_auc], premise: true},"
    " {better: aitm, than: [towers], metrics: [click.expected_auc, click.auc, order.auc]}]",
    "compare.metrics=[click.expected_auc, product_click.expected_auc, click.auc, order.auc]",
    "paper.worlds=[1, 2]",
    "paper.variants={}",
    "paper.curve=[]",
    "paper.rows=[]",
]


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.stem)
def test_shipped_papers_are_valid(file):
    """Every world of every variant is an experiment, and published figures are of rows and columns that are there."""
    study = Study(load_experiment(file))
    assert study.name == file.stem and len(study.paper.worlds) >= 3 and len(study.compare.seeds) >= 3
    for published in study.paper.published:
        assert set(published.rows) <= set(study.compare.systems)
        assert set(published.columns) <= set(study.compare.metrics)
    for variant in study.variants:
        world = study.world(variant, 9, {})
        assert world.logs.seed == 9 and world.paper is None and world.compare.rates == ()
    pilot = study.pilot(101, None)
    assert pilot.compare.rates == study.compare.rates and pilot.compare.seeds == study.paper.pilot_seeds
    assert "pilot worlds" in overview(study)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"worlds": [1]}, r"paper\.worlds must be at least 2 different numbers"),
        ({"pilot": [1, 7]}, r"paper\.pilot: world 1 is one of paper\.worlds as well"),
        ({"curve": ["half"]}, r"paper\.curve: `half` is no variant\. There are: main"),
        ({"variants": {"main": {}}}, r"paper\.variants: main, main must be different folders"),
        (
            {"published": [{"table": "1", "columns": {"click.auc": "CTR"}, "rows": {"a": [0.7, 0.8]}}]},
            r"1: `a` has 2 figures, but there are 1 columns: click\.auc",
        ),
    ],
)
def test_wrong_papers_cannot_be_configured(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(PaperConfig, {"title": "t", **spelling})


def test_a_paper_needs_worlds():
    quickstart = Path(__file__).parents[2] / "jobs" / "configs" / "quickstart.yaml"
    with pytest.raises(ConfigError, match=r"`quickstart` has no section `paper`"):
        Study(load_experiment(quickstart))


@pytest.mark.parametrize(
    ("p", "mean", "more", "verdict"),
    [
        (0.01, 0.1, {}, "holds"),
        (0.01, -0.1, {}, "reversed"),
        (0.2, 0.1, {}, "does not show"),
        (0.2, -0.1, {"or_equal": True}, "no difference shows"),
        (None, 0.1, {}, "not tested"),
        (0.01, 0.1, {"positives": 99}, "too few positives"),
    ],
)
def test_verdicts_go_by_the_corrected_p(p, mean, more, verdict):
    over = OverWorlds(by_world={1: mean}, mean=mean, p=0.001)
    assert Gain(better="a", worse="b", path="click.auc", over=over, corrected=p, **more).verdict == verdict


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A paper's page in small: (study, its folder, what was said)."""
    folder = tmp_path_factory.mktemp("paper")
    changes = (*TINY, f"output={folder / 'runs'}")
    study = Study(load_experiment(PAPERS[[file.stem for file in PAPERS].index("pimm")], changes), changes)
    said: list[str] = []
    assert carry_out(study, folder / "pages", said.append, executor=InProcess()) == 0
    return study, folder / "pages", said


def test_the_pilot_says_what_can_be_seen_before_any_world_is_run(made):
    study, _, said = made
    seen = next(
        i for i, line in enumerate(said) if line.startswith("aitm > towers on click.expected_auc: 2 worlds x 2 seeds see")
    )
    assert "the paper printed +.0004" in said[seen]
    assert seen < next(i for i, line in enumerate(said) if line == "-- main, world 1")
    kept = json.loads((study.folder / "pilot.json").read_text())
    assert set(kept["rates"]) == {"towers", "aitm"} and set(kept["rates"].values()) <= {0.001, 0.002, 0.004}


def test_a_page_holds_the_gains_over_worlds_of_its_cells(made):
    _, pages, _ = made
    kept = json.loads((pages / "pimm.json").read_text())
    (main,) = kept["variants"]
    assert main["worlds"] == [1, 2] and main["config"]["logs"]["seed"] == 1
    assert str(pages.parent) not in json.dumps(main)  # nothing of this machine goes into a page
    scores = {row["label"]: row["scores"]["click.expected_auc"]["by_world"] for row in main["rows"]}
    gain = next(gain for gain in main["gains"] if gain["path"] == "click.expected_auc")
    for world in ("1", "2"):
        ours, theirs = (sum(scores[label][world].values()) / 2 for label in ("aitm", "towers"))
        assert gain["over"]["by_world"][world] == pytest.approx(ours - theirs)
        assert scores["truth"][world]["0"] > max(ours, theirs)
    assert gain["published"] == pytest.approx(0.0004) and gain["smallest"] < gain["smallest_of_all"]
    few = next(gain for gain in main["gains"] if gain["path"] == "order.auc")
    assert few["verdict"] == "too few positives" and few["over"] is None

    text = (pages / "pimm.md").read_text()
    premise = next(gain for gain in main["gains"] if gain["is_premise"])
    assert "## What the claims stand on, in main" in text
    assert (premise["verdict"] == "holds") != any("a premise, without which" in line for line in kept["warnings"])
    assert "## Claims, in main" in text and "(.6068)" in text and "| positives |" in text
    assert "--set logs.users=50" in text and "--again main/1/towers/0" in text
    assert (pages / "pimm-gains.svg").read_text().startswith("<?xml") and "pimm-gains.svg" in text


def test_what_is_done_is_never_done_again_and_can_be_shown_alone(made):
    study, pages, _ = made
    before = json.loads((pages / "pimm.json").read_text())
    said: list[str] = []
    assert carry_out(study, pages, said.append, executor=InProcess()) == 0
    assert not any("seed" in line and "rate" in line and "/" in line for line in said if not line.startswith("--"))
    table_of(study, pages)
    after = json.loads((pages / "pimm.json").read_text())
    for known in (before, after):
        known["about"].pop("Made")
    assert after == before


def test_a_cell_made_anew_has_the_same_digits(made, tmp_path):
    study, pages, _ = made
    said: list[str] = []
    assert again(study, "main/2/aitm/1", pages, tmp_path / "again", said.append)
    assert said[-1] == "main/2/aitm/1: all the same" and any(": the same" in line for line in said)
    with pytest.raises(ConfigError, match=r"--again main/3/aitm/1: world `3` is not one of: 1, 2"):
        again(study, "main/3/aitm/1", pages, tmp_path / "again", said.append)
    with pytest.raises(ConfigError, match=r"--again aitm: write VARIANT/WORLD/ROW/SEED"):
        again(study, "aitm", pages, tmp_path / "again", said.append)
    kept = json.loads((pages / "pimm.json").read_text())
    row = next(row for row in kept["variants"][0]["rows"] if row["label"] == "aitm")
    row["scores"]["click.expected_auc"]["by_world"]["2"]["1"] += 1e-6
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "pimm.json").write_text(json.dumps(kept))
    assert not again(study, "main/2/aitm/1", tmp_path / "pages", tmp_path / "again", said.append)
