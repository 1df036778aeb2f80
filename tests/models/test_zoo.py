import pytest

from models.config import ConfigError, from_dict, to_dict
from models.couplings.independent import IndependentConfig
from models.fusions.mmoe import MmoeConfig
from models.fusions.single import SingleConfig
from models.interests.din import DinConfig
from models.system import SystemConfig
from models.zoo import ZOO, resolve


def test_every_system_of_the_spine_is_there():
    assert set(ZOO) >= {"wdl", "din", "single", "shared_bottom", "mmoe", "ple", "esmm"}


@pytest.mark.parametrize("name", ZOO)
def test_a_name_alone_is_its_row_and_survives_json(name):
    assert resolve({"system": name}) == ZOO[name]
    assert from_dict(SystemConfig, to_dict(ZOO[name])) == ZOO[name]


def test_a_spelling_overlays_the_row():
    found = resolve({"system": "mmoe", "embedding_width": 32, "fusion": {"experts": 4}})
    assert found.fusion == MmoeConfig(experts=4, hidden=(128, 64), towers=(32,))
    assert (found.embedding_width, found.coupling) == (32, IndependentConfig())


def test_another_kind_replaces_the_slot():
    found = resolve({"system": "mmoe", "interest": {"kind": "din", "hidden": [8]}, "fusion": {"kind": "single"}})
    assert (found.interest, found.fusion) == (DinConfig(hidden=(8,)), SingleConfig())


def test_without_a_system_the_defaults_are_overlaid():
    assert resolve({}) == SystemConfig()


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"system": "mmoo"}, "`model.system` is 'mmoo', which is not in the zoo. Systems: wdl, din"),
        ({"system": "mmoe", "fusion": {"exprts": 4}}, "exprts` is not a known key. Known here: kind, experts"),
        ({"fusions": {}}, "`model.fusions` is not a known key. Known here: embedding_width"),
        ({"fusion": {"kind": "nope"}}, "'single', 'shared_bottom', 'mmoe', 'ple'"),
        ({"embedding_width": 0}, "embedding_width >= 1, got 0"),
    ],
)
def test_mistakes_are_named(spelling, message):
    with pytest.raises(ConfigError, match=message):
        resolve(spelling)
