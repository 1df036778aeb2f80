"""Random damage to a log and to what is made of it is told in a line, or without effect (`tests.pipelines.corruptions`)."""

import os

import pytest

from tests.pipelines.corruptions import Damages

COUNT = int(os.environ.get("LIVERANK_CORRUPTIONS", "40"))
A_TEST = 10


@pytest.fixture(scope="module")
def damages(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Damages(tmp_path_factory.mktemp("damages"), patch.setattr)


@pytest.mark.parametrize("first", range(0, COUNT, A_TEST))
def test_damage_is_told_in_a_line_or_without_effect(damages, first):
    found = [damages.run(number) for number in range(first, min(first + A_TEST, COUNT))]
    assert not [(each.number, each.damage, each.fault) for each in found if each.fault]
    kinds = {each.damage.split(":")[0] for each in found}
    assert len(kinds) >= 3 and sum(each.end != "well" for each in found) >= 2  # they are not merely where nobody looks
