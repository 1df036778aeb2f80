"""What is said of results is what their files hold: pages, statements, README, docs and the comments of configs."""

import json
import re
from pathlib import Path

import pytest

from jobs.paper import PAPERS
from pipelines.experiment import load_experiment
from pipelines.report.papers.result import PaperResult
from pipelines.report.papers.write import markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = sorted(RESULTS.glob("*.json"))

# how a statement or the README says what became of a claim: `pimm > aitm on order.expected_auc`: **does not show**
CLAIM = re.compile(r"`(\w+) (>|≥) (\w+) on ([\w.@-]+)`: \*\*([\w ]+)\*\*")
FIGURE = re.compile(r"(?<![\w.])[-+−]?\.\d{4}(?!\d)")
# words by which an outcome is told; configs say what is to be tested, and pages what came out
OUTCOMES = re.compile(r"\b(beats?|outperforms?|hurts?|reversed|as good as|better than|worse than|pays?)\b")


def kept(path: Path) -> PaperResult:
    return PaperResult.from_dict(json.loads(path.read_text(encoding="utf-8")))


def outcomes(result: PaperResult) -> dict[tuple[str, str, str], str]:
    return {(gain.better, gain.worse, gain.path): gain.verdict for gain in result.variants[0].gains}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_its_numbers_say(path):
    """The page is made anew from its JSON; the claims are those of the config, every one of them that is trained."""
    result, page = kept(path), path.with_suffix(".md").read_text(encoding="utf-8")
    experiment = load_experiment(PAPERS / f"{result.name}.yaml")
    pictures = [name for name in ("gains", "curve", "courses") if (RESULTS / f"{result.name}-{name}.svg").is_file()]
    assert markdown(result, experiment.schema, pictures) == page
    rows = set(experiment.paper.rows or experiment.compare.systems)
    claimed = {
        (claim.better, worse, metric)
        for claim in experiment.compare.claims
        for metric in claim.metrics or experiment.compare.metrics
        for worse in claim.than
        if {claim.better, worse} <= rows
    }
    assert set(outcomes(result)) == claimed
    main = result.variants[0]
    assert len(main.worlds) >= 3 and set(main.worlds) == set(experiment.paper.worlds)
    for row in main.rows:
        assert not row.failures
        for score in row.scores.values():
            assert row.role != "system" or all(len(values) >= 3 for values in score.by_world.values())
    assert all(gain.smallest is not None for gain in main.gains)  # power, by the pilot


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_statement_says_what_its_page_says(path):
    result = kept(path)
    said = (RESULTS / "statements" / f"{result.name}.md").read_text(encoding="utf-8").strip()
    assert said == result.statement, "the page is older than its statement: python -m jobs.paper NAME --table"
    check_claims(said, {result.name: outcomes(result)})
    page = path.with_suffix(".md").read_text(encoding="utf-8").replace(result.statement, "")
    figures = {figure.replace("−", "-") for figure in FIGURE.findall(page)}
    strange = [figure for figure in FIGURE.findall(said) if figure.replace("−", "-") not in figures]
    assert not strange, f"no table of the page has {strange}"
    # every premise and every claim's system is spoken of
    for better, worse, _ in outcomes(result):
        assert f"`{better}" in said and worse in said


def check_claims(text: str, known: dict[str, dict[tuple[str, str, str], str]]) -> None:
    for better, _, worse, path, verdict in CLAIM.findall(text):
        found = {paper: verdicts[better, worse, path] for paper, verdicts in known.items() if (better, worse, path) in verdicts}
        assert found and verdict in found.values(), f"`{better} > {worse} on {path}` is said to be {verdict}; found: {found}"


def test_readme_and_docs_claim_no_more_than_pages_hold():
    known = {path.stem: outcomes(kept(path)) for path in PAGES}
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    for path, text in texts.items():
        check_claims(text, known)
        if path.name != "results.md":  # whose tables stand below the commands that make them
            assert not FIGURE.findall(text), f"{path.name} has figures; they belong to docs/results"
    assert bool(CLAIM.search(texts[ROOT / "README.md"])) == bool(known)
    listed = texts[ROOT / "docs" / "results.md"]
    for paper in (path.stem for path in PAPERS.glob("*.yaml")):
        assert (f"(results/{paper}.md)" in listed) == (paper in known), f"docs/results.md and docs/results disagree on {paper}"
        assert (f"| `{paper}` | not run yet |" in listed) == (paper not in known)


def test_a_wrong_claim_is_found():
    verdicts = {"pimm": {("pimm", "aitm", "order.expected_auc"): "does not show"}}
    check_claims("`pimm > aitm on order.expected_auc`: **does not show**", verdicts)
    for text in ("`pimm > aitm on order.expected_auc`: **holds**", "`pimm > mncm on order.expected_auc`: **holds**"):
        with pytest.raises(AssertionError, match="is said to be holds"):
            check_claims(text, verdicts)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_comments_of_configs_tell_no_outcome(path):
    """Passages that a comment quotes from a paper stand in quotation marks."""
    comments = " ".join(re.findall(r"(?:^|\s)#(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    own = re.sub(r'"[^"]*"', "", comments)
    assert not OUTCOMES.findall(own) and not FIGURE.findall(own)
