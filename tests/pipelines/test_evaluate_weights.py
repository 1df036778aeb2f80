"""What an adaptive learner told of its weights and cosines, in the report."""

import base64
from dataclasses import replace

from pipelines.report.evaluation.entries import Entry, Epoch
from pipelines.report.evaluation.sections import weights
from pipelines.report.figures.courses import weights_and_cosines
from pipelines.report.figures.style import TARGET_COLOURS
from tests.pipelines.report_samples import page_of, result_with
from tests.samples import tiny_schema


def adaptive(*tellings):
    """A model whose epochs told this: (progress, weight of order, weight of stay, cosine of order, cosine of stay)."""
    names = ("progress", "weight.order", "weight.stay", "cosine.order", "cosine.stay")
    told = tuple(dict(zip(names, telling, strict=True)) for telling in tellings)
    losses = {name: 0.5 for name in tiny_schema().target_names}
    half = len(told) // 2
    records = tuple(Epoch(epoch=i, losses=losses, diagnostics=part) for i, part in enumerate((told[:half], told[half:])))
    return Entry(name="adaptive", role="model", result=result_with(), history=records)


def test_what_the_weights_came_to():
    entry = adaptive(
        (0.5, 0.5, 0.5, 0.4, 0.0), (1.0, 0.6, 0.4, 0.2, -0.2), (1.5, 0.7, 0.3, 0.3, -0.1), (2.0, 0.72, 0.2, 0.3, -0.1)
    )
    (group,) = weights([entry], tiny_schema())
    ((panel,),) = group.columns
    assert group.title == "adaptive"
    assert panel.text == (
        "At the end order weighs most (0.72), stay least (0.20). Over all of training the gradient of order agrees most with "
        "the primary target's (0.30), that of stay least (-0.10)."
    )


def test_the_one_target_without_a_weight_is_the_primary():
    told = ({"progress": 1.0, "weight.goods_bag": 0.4, "weight.order": 0.3, "weight.stay": 0.2},)
    entry = Entry(name="a", role="model", result=result_with(), history=(Epoch(epoch=0, diagnostics=told),))
    (group,) = weights([entry], tiny_schema())
    assert group.columns[0][0].text == (
        "At the end goods_bag weighs most (0.40), stay least (0.20); click, the primary target, always 1."
    )


def test_what_candidates_weighed():
    """Beside an adaptive learner's weights, where both were told."""
    told = ({"progress": 1.0, "gamma.click": 0.31, "effective.click": 0.826, "gamma.order": 0.0061, "effective.order": 0.08},)
    entry = Entry(name="a", role="model", result=result_with(), history=(Epoch(epoch=0, diagnostics=told),))
    (group,) = weights([entry], tiny_schema())
    ((panel,),) = group.columns
    assert panel.text == (
        "What a candidate weighs in a target's loss in the mean, and how many evenly weighed candidates would say as much, at "
        "the end: click 0.31 and 83%, order 0.0061 and 8%."
    )
    both = ({**told[0], "weight.order": 0.3},)
    (group,) = weights([replace(entry, history=(Epoch(epoch=0, diagnostics=both),))], tiny_schema())
    assert len(group.columns) == 2


def test_agreement_on_other_users_feeds_is_told():
    told = ({"progress": 1.0, "weight.order": 0.5, "cosine.order": 0.37, "ahead.order": 0.125},)
    entry = Entry(name="a", role="model", result=result_with(), history=(Epoch(epoch=0, diagnostics=told),))
    (group,) = weights([entry], tiny_schema())
    assert group.columns[0][0].text.endswith("(0.37). With that of other users' feeds agree: order (0.12).")


def test_nothing_told_is_nothing_shown():
    silent = Epoch.from_dict({"epoch": 0, "losses": {}, "diagnostics": []})
    assert weights([Entry(name="a", role="model", result=result_with(), history=(silent,))], tiny_schema()) == []


def drawn(told):
    text = weights_and_cosines(told, tiny_schema().target_names).removeprefix("data:image/svg+xml;base64,")
    return base64.b64decode(text).decode()


def test_targets_have_the_colours_of_their_learning_curves():
    told = [{"progress": 0.5, "weight.order": 0.5}, {"progress": 1.0, "weight.order": None, "cosine.stay": 0.1}]
    svg = drawn(told)
    assert TARGET_COLOURS[2] in svg and TARGET_COLOURS[3] in svg  # order and stay, the third and fourth target
    assert TARGET_COLOURS[0] not in svg and TARGET_COLOURS[1] not in svg
    assert svg == drawn(told)


def test_the_page_has_the_section_only_where_there_is_something_told(tmp_path):
    one = adaptive((0.5, 0.5, 0.5, 0.4, 0.0), (1.0, 0.6, 0.4, 0.2, -0.2))
    silent = Entry(name="silent", role="model", result=one.result)
    for entries, there in (([one, silent], True), ([silent], False)):
        text = page_of(tmp_path, entries, tiny_schema())
        assert ('<section id="weights">' in text) == there
    text = page_of(tmp_path, [one, silent], tiny_schema())
    assert text.index('id="curves"') < text.index('id="weights"')  # beside the learning curves
    assert text.count("loss weights and gradient cosines of") == 1
