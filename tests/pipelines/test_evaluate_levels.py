"""What a learner with weights of each level told, in the report."""

import base64

import pytest

from pipelines.report.evaluation.entries import Entry, Epoch
from pipelines.report.evaluation.sections import levels, weights
from pipelines.report.figures.courses import parts_of_levels
from pipelines.report.figures.style import INK, MODEL_COLOURS
from tests.pipelines.report_samples import page_of, result_with
from tests.samples import tiny_schema

NAMES = ("tail", "medium", "head")


def told(progress, norms, hardness=None, alpha=None):
    record = {"progress": progress, **{f"norm.{name}": norm for name, norm in zip(NAMES, norms, strict=True)}}
    if hardness is not None:
        record |= {"alpha": alpha, **{f"hardness.{name}": each for name, each in zip(NAMES, hardness, strict=True)}}
    return record


def entry_of(*tellings, name="cmlir"):
    losses = {target: 0.5 for target in tiny_schema().target_names}
    records = tuple(Epoch(epoch=i, losses=losses, diagnostics=(telling,)) for i, telling in enumerate(tellings))
    return Entry(name=name, role="model", result=result_with(), history=records)


CMLIR = (told(1.0, (0.5, 0.3, 0.2), (0.5, 0.3, 0.2), 0.5), told(2.0, (2.5, 0.7, 0.25), (0.7, 0.2, 0.1), 0.0))
FINETUNE = (told(1.0, (0.5, 0.3, 0.2)), told(2.0, (2.5, 0.7, 0.25)))


def test_what_levels_came_to():
    first, second = levels([entry_of(*CMLIR), entry_of(*FINETUNE, name="finetune")], tiny_schema())
    assert [group.title for group in (first, second)] == ["cmlir", "finetune"]
    ((panel,),) = first.columns
    far = "At the end the weights of tail are farthest from the common ones (2.50), those of head nearest (0.25)."
    assert panel.text == f"{far} Over all of training tail was the hardest, with 60% of all gradients' length."
    assert second.columns[0][0].text == far


def test_what_other_learners_tell_is_none_of_it():
    epoch = Epoch(epoch=0, diagnostics=({"progress": 1.0, "weight.order": 0.5},))
    adaptive = Entry(name="a", role="model", result=result_with(), history=(epoch,))
    assert levels([adaptive], tiny_schema()) == [] and weights([entry_of(*CMLIR)], tiny_schema()) == []
    assert levels([Entry(name="a", role="model", result=result_with(), history=(Epoch(epoch=0),))], tiny_schema()) == []


@pytest.mark.parametrize(("tellings", "panels"), [(CMLIR, 2), (FINETUNE, 1)])
def test_hardness_and_step_size_are_drawn_where_they_are_told(tellings, panels):
    svg = base64.b64decode(parts_of_levels(tellings, NAMES).removeprefix("data:image/svg+xml;base64,")).decode()
    assert svg.count('id="axes_') == panels and all(colour in svg for colour in MODEL_COLOURS[:3])
    assert (f"stroke: {INK}; stroke-width: 1.2" in svg.replace("stroke-dasharray: 4.8,2.4; stroke-dashoffset: 0; ", "")) == (
        panels == 2
    )


def test_the_page_has_the_section_only_where_there_is_something_told(tmp_path):
    silent = Entry(name="silent", role="model", result=result_with())
    for entries, there in (([entry_of(*CMLIR), silent], True), ([silent], False)):
        text = page_of(tmp_path, entries, tiny_schema())
        assert ('<section id="levels">' in text) == there
    text = page_of(tmp_path, [entry_of(*CMLIR), silent], tiny_schema())
    assert text.index('id="curves"') < text.index('id="levels"') and '<section id="weights">' not in text
