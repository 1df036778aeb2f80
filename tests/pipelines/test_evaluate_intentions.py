"""What disentangled intentions told of themselves while they were trained, in the report; and what raised an alarm."""

from pipelines.report.evaluation.entries import Entry, Epoch
from pipelines.report.evaluation.sections import intentions, weights
from tests.pipelines.report_samples import page_of, result_with
from tests.samples import tiny_schema


def reading(progress: float, rank: float, spread: float) -> dict[str, float | None]:
    return {
        "progress": progress,
        "disentangled.spread.channels": spread,
        "disentangled.cosine.channels": 0.1,
        "disentangled.rank.consistent.channels": rank,
        "disentangled.rank.specific.channels": 9.0,
        "disentangled.entropy.consistent.channels": 0.4,
    }


LOSSES = {name: 0.5 for name in tiny_schema().target_names}
TOLD = (
    Epoch(epoch=0, losses=LOSSES, diagnostics=(reading(0.0, 12.0, 0.28), reading(1.0, 8.0, 0.25))),
    Epoch(
        epoch=1,
        losses=LOSSES,
        diagnostics=({"progress": 1.5, "weight.order": 0.6}, reading(2.0, 3.0, 0.2)),
        alarms=("it is dead.",),
    ),
)


def entry(best_epoch: int) -> Entry:
    settings = {"provenance": {"best_epoch": best_epoch}}
    return Entry(name="eliverec", role="model", result=result_with(), history=TOLD, settings=settings)


def test_what_intentions_came_to():
    (group,) = intentions([entry(1)])
    ((ranks, dependence),) = group.columns
    assert group.title == "eliverec"
    assert (
        ranks.text
        == "Of consistent channels intentions 3.0 of 12.0 directions are left. At the end p deviates by 0.20 or more."
    )
    assert ranks.figure != dependence.figure
    silent = Entry(name="mmoe", role="model", result=result_with(), history=(Epoch(epoch=0, losses=LOSSES),))
    assert intentions([silent]) == []


def test_probes_and_what_a_learner_tells_stand_beside_each_other():
    (group,) = weights([entry(1)], tiny_schema())
    assert group.columns[0][0].text == "At the end order weighs most (0.60)."


def test_an_alarm_of_the_best_epoch_stands_on_the_page(tmp_path):
    page = page_of(tmp_path, [entry(2)], tiny_schema())
    assert "<li>eliverec: it is dead.</li>" in page and 'id="intentions"' in page
    assert "it is dead" not in page_of(tmp_path, [entry(1)], tiny_schema()).split('id="overview"')[0]
    again = Entry.from_dict(entry(2).to_dict())
    assert again.alarms == ["it is dead."] and again.history == TOLD
