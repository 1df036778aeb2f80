"""Any word is a name: of a target, a field, a history, in every system of the zoo."""

import pytest
import torch
from torch import nn

from models.config import from_dict, to_dict
from models.layers.named import Named
from models.learners.schedule import Schedule
from models.learners.workers import SingleWorker
from models.optim import OptimiserConfig
from models.schema import NAME, TAKEN, Schema, Target
from models.system import SystemConfig, build_learner, build_ranker
from models.zoo import ZOO
from tests.samples import TABLE_SIZES, full_schema, random_batch, smaller

# all that torch's containers refuse, and what parts of the project call their own things
WORDS = [
    *sorted({name for kind in (nn.ModuleDict, nn.ParameterDict) for name in dir(kind({})) if NAME.fullmatch(name)}),
    *("class", "None", "weight", "bias", "interest", "sparse", "orthogonal", "mapping", "correlation", "alignment", "rest"),
    *("loss", "rows", "candidate", "feed", "label", "name", "kind", "index", "preference"),
]


def renamed(value, names: dict[str, str]):
    """The same spelling with strings that are names replaced."""
    if isinstance(value, dict):
        return {key: renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def hostile(first: int) -> tuple[Schema, dict[str, str]]:
    """`full_schema` with the words from `first` on for its names, and which name of targets and histories became which."""
    spelling = full_schema().to_dict()
    words = iter([*WORDS[first % len(WORDS) :], *WORDS[: first % len(WORDS)]])
    names = {each["name"]: next(words) for each in (*spelling["targets"], *spelling["histories"])}
    targets = {target["name"]: names[target["name"]] for target in spelling["targets"]}
    spelling["stages"] = renamed(spelling["stages"], targets)
    for target in spelling["targets"]:
        target |= {"name": names[target["name"]], "parents": renamed(target["parents"], targets)}
    for history in spelling["histories"]:
        history["name"] = names[history["name"]]
        for field in history["fields"]:
            field["name"] = next(words)
    for field in spelling["fields"]:
        field["name"] = next(words)
    return Schema.from_dict(spelling), names


@pytest.mark.parametrize("place", range(len(ZOO)), ids=ZOO)
def test_a_system_learns_whatever_things_are_called(place):
    config = smaller(list(ZOO.values())[place])
    plain, (schema, names) = full_schema(), hostile(7 * place)
    torch.manual_seed(0)
    expected = build_ranker(plain, config, TABLE_SIZES).state_dict()
    config = from_dict(SystemConfig, renamed(to_dict(config), names))
    torch.manual_seed(0)
    ranker = build_ranker(schema, config, TABLE_SIZES)
    assert list(map(torch.Tensor.tolist, ranker.state_dict().values())) == list(map(torch.Tensor.tolist, expected.values()))
    ranker.load_state_dict(ranker.state_dict())
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    schedule = Schedule(epochs=1, steps=2, candidates_of_level=(9, 9, 9))
    learner = build_learner(ranker, schema, config.learner, OptimiserConfig(), SingleWorker(), schedule)
    losses = learner.step(batch, 0.0)
    assert {target.name for target in schema.targets if target.name in ranker.trained} <= losses.keys()
    assert ranker.predict(batch).keys() == set(ranker.trained)
    others = {*ranker.penalties, *(ranker.together.names if ranker.together else ())}
    assert all("." in name for name in others), "a target may have such a name"


def test_named_modules_are_found_by_their_names_alone():
    modules = {"forward": nn.Linear(2, 1), "items": nn.Linear(3, 1)}
    named = Named(modules)
    assert list(named) == list(named.keys()) == ["forward", "items"] and len(named) == 2
    assert dict(named.items()) == modules and list(named.values()) == list(modules.values())
    assert named["items"] is modules["items"]
    assert "forward" in named and "of_forward" not in named
    assert list(named.state_dict()) == ["of_forward.weight", "of_forward.bias", "of_items.weight", "of_items.bias"]
    with pytest.raises(KeyError, match="follow"):
        named["follow"]


@pytest.mark.parametrize("name", TAKEN)
def test_names_of_what_stands_beside_predictions_and_metrics_are_refused(name):
    with pytest.raises(ValueError, match=f"no target may be named `{name}`"):
        Target(name=name, action="enter")
