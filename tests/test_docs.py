"""The pages tell the truth: what they name exists, what they show can be typed, what is generated is current."""

import argparse
import importlib
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import polars as pl
import pytest
import yaml

from docs import generate
from models.config import ConfigError, config
from models.zoo import ZOO
from pipelines.experiment import Experiment, load_experiment
from pipelines.logs import DATA_SETS, SOURCES, materialise
from pipelines.logs.canonical import TABLES
from pipelines.steps import prepare_step, register_step, train_step
from pipelines.train.config import EXECUTION
from tests.pages import PAGES, ROOT, anchors, blocks, commands, inline, links, rows, section
from tests.test_layering import ROOMS

QUICKSTART = ROOT / "jobs" / "configs" / "quickstart.yaml"
PLACEHOLDER = re.compile(r"\bNAME\b|\.\.\.|a\.b=c")  # what stands on a page for a reader's own words
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
each_page = pytest.mark.parametrize("name", TEXTS)
# those whose commands are not run; test_docs_extend.py follows the other one
each_typed_page = pytest.mark.parametrize("name", [name for name in TEXTS if name != "docs/extend.md"])


# -- generated -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", generate.PAGES)
def test_written_pages_are_current(name):
    assert TEXTS[f"docs/{name}"] == generate.PAGES[name](), f"run `make docs` and commit docs/{name}"


def test_the_page_of_keys_speaks_to_who_reads_it():
    """Not of the file that a docstring stands in, nor of the class where the page has a key."""
    assert "this file" not in TEXTS["docs/config.md"]
    assert not [code for code in inline(TEXTS["docs/config.md"]) if re.match(r"\w+Config\.", code)]


def test_a_key_without_a_meaning_is_told():
    @config
    class Silent:
        """Says nothing of its key."""

        width: int = 3

    @config
    class Nameless:
        """Attributes:
        width: of it.
        """

        width: int = 3

    with pytest.raises(ValueError, match="Silent has no meaning for `width`"):
        generate.section_of_page(generate.Section("model.silent", "", Silent))
    with pytest.raises(ValueError, match="Nameless says nothing of itself"):
        generate.section_of_page(generate.Section("model.nameless", "", Nameless))


def test_meanings_of_a_docstring():
    @config
    class Told:
        """A sentence.

        Attributes:
            low, high: the ends,
                both included.
            note: None for none.

        Raises:
            ValueError: low above high.
        """

        low: float
        high: float = 2.0
        note: str | None = None

    assert generate.meanings(Told) == {
        "low": "the ends, both included.",
        "high": "the ends, both included.",
        "note": "None for none.",
    }
    assert generate.said(Told) == "A sentence."
    page = generate.section_of_page(generate.Section("told", "", Told))
    assert "| `low` | number | required | the ends, both included. |" in page
    assert "| `high` | number | `2` | the ends, both included. |" in page
    assert "| `note` | text or null | `null` | `null` for none. |" in page


# -- names ---------------------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 140


@each_page
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in links(TEXTS[name]):
        if link.startswith(("http://", "https://")):
            continue
        target, _, fragment = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name} links to {link}"
        if fragment:
            assert fragment in anchors(file.read_text(encoding="utf-8")), f"{name} links to {link}"


@each_page
def test_files_that_are_named_exist(name):
    for code in inline(TEXTS[name]):
        if re.fullmatch(r"(models|pipelines|jobs|tests|docs)/[\w./]+(\.py|\.yaml|\.md|/)", code):
            assert (ROOT / code).exists(), f"{name} names {code}"
        if re.fullmatch(r"\w+\.yaml", code) and code != "cluster.yaml":
            assert (QUICKSTART.parent / code).exists(), f"{name} names {code}"


def test_the_page_of_systems_is_the_zoo():
    listed = {cells[0].strip("`"): cells[2:] for cells in rows(TEXTS["docs/systems.md"])}
    slots = ("interest", "fusion", "coupling", "weighting", "learner")
    assert listed == {name: [getattr(row, slot).kind for slot in slots] for name, row in ZOO.items()}


def test_systems_in_the_readme_are_in_the_zoo():
    table = [cells for cells in rows(section(TEXTS["README.md"], "Systems"))]
    assert len(table) == 5  # papers
    named = {code for cells in table for cell in cells[1:3] for code in inline(cell)}
    assert len(named) > 20 and named <= ZOO.keys()


def test_the_page_of_data_lists_the_canonical_columns():
    listed: dict[str, dict[str, bool]] = {}
    table = ""
    for cells in rows(section(TEXTS["docs/data.md"], "Tables")):
        table = cells[0].strip("`") or table  # an empty cell goes on with the table above
        listed.setdefault(table, {})[cells[1].strip("?").strip("`")] = not cells[1].endswith("?")
    assert listed == {name: {column: one.required for column, one in columns.items()} for name, columns in TABLES.items()}
    kinds = {cells[0].strip("`") for cells in rows(section(TEXTS["docs/data.md"], "Sources"))}
    assert kinds == {"canonical", *SOURCES, *DATA_SETS}


# -- commands and snippets -----------------------------------------------------------------------------------------


class Parsed(Exception):
    """Carries what a job was told."""


def parse(module: str, words: list[str], monkeypatch) -> argparse.Namespace:
    """What a job's own parser makes of the words; the job does nothing."""
    real = argparse.ArgumentParser.parse_args

    def parsed(self, args=None, namespace=None):
        raise Parsed(real(self, args, namespace))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        with pytest.raises(Parsed) as told:
            importlib.import_module(module).main(words)
    return told.value.args[0]


@each_typed_page
def test_commands_can_be_typed(name, monkeypatch):
    """Jobs exist and know the flags; configs exist and load with the changes; make knows its targets."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands(TEXTS[name]):
        words = shlex.split(command)
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), command
        if words[0].endswith("python") and words[1:2] == ["-m"] and words[2].split(".")[0] in ("jobs", "docs"):
            if PLACEHOLDER.search(" ".join(words[2:4])):
                continue
            args = parse(words[2], words[3:], monkeypatch)
            file = getattr(args, "config", None)
            if file not in (None, "FILE"):
                load_experiment(ROOT / file, [change for change in args.set if not PLACEHOLDER.search(change)])


def test_the_table_of_jobs_names_all_their_flags(capsys):
    listed = {}
    for job, *_, flags in rows(section(TEXTS["docs/operate.md"], "Jobs")):
        if job.startswith("`python -m jobs.") and "bench" not in job:
            listed[job.strip("`").split()[2]] = set(re.findall(r"--[\w-]+", flags))
    assert listed.keys() == {f"jobs.{file.stem}" for file in (ROOT / "jobs").glob("[a-z]*.py")} - {"jobs.bench", "jobs.screen"}
    for module, flags in listed.items():
        with pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        known = set(re.findall(r"^  (?:-h, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
        assert flags == known - {"--help", "--config", "--set", "--debug"}, module


def test_what_may_change_between_two_starts_does_not_change_a_result():
    (told,) = [
        part for part in section(TEXTS["docs/operate.md"], "Started again").split("\n\n") if part.startswith("What changes")
    ]
    named = {code.removeprefix("train.") for code in inline(told) if code.startswith("train.")}
    assert len(named) == 4 and named <= EXECUTION


def loads(snippet: dict, tmp_path: Path) -> bool:
    """Whether the snippet can be laid over the quickstart, as a whole, as part of `model`, or of every target or field."""
    whole = snippet if snippet.keys() <= {each.name for each in fields(Experiment)} else {"model": snippet}
    file = tmp_path / "snippet.yaml"
    file.write_text(yaml.safe_dump({"extends": str(QUICKSTART), **whole}))
    try:
        load_experiment(file)
    except ConfigError:
        return False
    return True


@each_typed_page
def test_config_snippets_load(name, tmp_path):
    snippets = [yaml.safe_load(block.text) for block in blocks(TEXTS[name]) if block.language == "yaml"]
    for code in inline(TEXTS[name]):
        if re.match(
            r"(logs|schema|prepare|model|train|tune|evaluate|compare|serve|ray|interest|fusion|coupling|learner): \S", code
        ):
            snippets.append(yaml.safe_load(code.replace("NAME", "mmoe")))
    for snippet in snippets:
        assert loads(snippet, tmp_path), f"{name}: {snippet}"


def test_the_example_request_is_of_the_quickstart_world(tmp_path):
    """User and rooms exist, and the rooms are live at the moment that is asked for."""
    (shell,) = [block.text for block in blocks(TEXTS["README.md"]) if "curl" in block.text]
    request = json.loads(shell[shell.index("-d '") + 4 : shell.rindex("'")])
    logs = materialise(load_experiment(QUICKSTART).logs, tmp_path)
    impressions = pl.concat([pl.read_parquet(file) for file in logs.files("impressions")])
    assert request["at"] >= impressions["shown_at"].max()  # the store is as of the log's end
    assert request["user_id"] in impressions["user_id"]
    rooms = pl.concat([pl.read_parquet(file) for file in logs.files("rooms")])
    live = rooms.filter((pl.col("start_at") <= request["at"]) & (pl.col("end_at") > request["at"]))["room_id"]
    assert {item["room_id"] for item in request["candidates"]} <= set(live)


def test_the_five_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """On a small run in the place of the quickstart's."""
    small = ["logs.users=60", "logs.days=4", "prepare.parallel=none", "train.epochs=1", f"output={tmp_path / 'runs'}"]
    experiment = load_experiment(QUICKSTART, small)
    prepared = prepare_step(experiment)
    register_step(experiment, train_step(experiment).bundle_path)
    (code,) = [block.text for block in blocks(TEXTS["README.md"]) if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    candidates = prepared.manifest.splits["test"].candidates
    assert f"[{candidates} rows x 4 columns]" in capsys.readouterr().out


def test_a_wrong_snippet_does_not_load(tmp_path):
    assert not loads({"logs": {"kind": "canonical", "folder": "/data"}}, tmp_path)
    assert not loads({"interest": {"kind": "etta"}}, tmp_path)


def test_a_wrong_flag_is_seen(monkeypatch, capsys):
    assert parse("jobs.tune", ["--dry-run", "--set", "train.epochs=2"], monkeypatch).set == ["train.epochs=2"]
    with pytest.raises(SystemExit):
        parse("jobs.tune", ["--dry-runs"], monkeypatch)
    assert "--dry-runs" in capsys.readouterr().err


def test_the_map_of_rooms_is_the_order_that_is_tested():
    drawn = [tuple(inline(cells[0])) for cells in rows(section(TEXTS["docs/architecture.md"], "Rooms"))]
    assert drawn == list(ROOMS)
