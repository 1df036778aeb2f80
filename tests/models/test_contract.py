"""What every system of the zoo, and combinations beside it, owe."""

import dataclasses
import threading

import pytest
import torch
from torch.testing import assert_close

from models.config import from_dict, to_dict
from models.couplings.esmm import EsmmConfig
from models.fusions.mmoe import MmoeConfig
from models.fusions.ple import PleConfig
from models.interests.din import DinConfig
from models.interests.eta import EtaConfig
from models.interests.pooling import PoolingConfig
from models.layers.numbers import PeriodicConfig
from models.learners.others import with_others
from models.learners.workers import SingleWorker
from models.optim import AdagradConfig, AdamConfig, LazyAdamConfig, OptimiserConfig, RowwiseAdagradConfig
from models.ranker import Ranker
from models.schema import Field, Number, Schema
from models.system import SystemConfig, build_learner, is_leveled
from models.weightings.fixed import FixedConfig
from models.zoo import ZOO, resolve
from tests.models.helpers import Threads, double, flat, replaced, take, with_no_entries, with_pads, without_history
from tests.samples import TABLE_SIZES, full_schema, random_batch, smaller

SYSTEMS = {
    # learners that train a ranker a level train one that is here already: see test_leveled.py
    **{name: smaller(config) for name, config in ZOO.items() if not is_leveled(config.learner)},
    "din softmax, matches, ple of 3 levels, esmm, wide": SystemConfig(
        wide=True,
        interest=DinConfig(hidden=(8,), activation="prelu", softmax=True, matches=True),
        fusion=PleConfig(levels=3, specific=2, shared=1, hidden=(16, 8)),
        coupling=EsmmConfig(),
    ),
    "eta that retrieves": SystemConfig(interest=EtaConfig(width=32, heads=4, keep=3)),
    "one history, periodic numbers, no towers": SystemConfig(
        numbers=PeriodicConfig(),
        interest=PoolingConfig(histories=("products",), matches=True),
        fusion=MmoeConfig(experts=3, hidden=(16,), towers=()),
    ),
}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def mixed_width_schema() -> Schema:
    """`full_schema` with tables of two widths."""
    spelling = full_schema().to_dict()
    for field in spelling["fields"]:
        if field["name"] == "category":
            field["width"] = 4
    for field in spelling["histories"][0]["fields"]:
        if field["name"] in ("category", "stay"):
            field["width"] = 4
    return Schema.from_dict(spelling)


SCHEMAS = {"one width": full_schema(), "two widths": mixed_width_schema()}


@pytest.fixture(params=SYSTEMS)
def config(request):
    return SYSTEMS[request.param]


def build(config: SystemConfig, schema: Schema, seed: int = 0) -> Ranker:
    torch.manual_seed(seed)
    ranker = Ranker(schema, config, TABLE_SIZES)
    with torch.no_grad():  # rows far enough apart for every input to be seen in the outputs
        for tables in ranker.table_sets().values():
            tables.weight.normal_()
    return ranker


def assert_same(first, second, **tolerance) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert_close(first[name], second[name], **(tolerance or TOLERANCE), msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_parameter_gets_a_gradient(config, schema):
    ranker = build(config, schema)
    batch = random_batch(schema, TABLE_SIZES, feeds=30, seed=1)
    batch = with_others(batch, ranker.contrasted, schema, 0.0, SingleWorker(), torch.device("cpu"))
    outcome = ranker.outcome(batch)
    penalties = [total for total, _ in outcome.penalties.values()]
    sum([*(output.square().sum() for output in outcome.outputs.values()), *penalties]).backward()
    silent = [name for name, parameter in ranker.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert silent == []


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_gathered_rows_give_the_outputs_and_gradients_of_whole_tables(config, schema):
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    whole = ranker(batch)
    gathered = ranker.gather(batch)
    outputs = ranker(batch, gathered)
    assert_same(whole, outputs)
    sum(output.sum() for output in whole.values()).backward()
    sum(output.sum() for output in outputs.values()).backward()
    for tables, rows in gathered.items():
        expected = torch.zeros_like(tables.weight)
        expected[rows.ids_U] = rows.rows_UD.grad
        assert_close(tables.weight.grad, expected, rtol=1e-4, atol=1e-5)


WORDS = {  # of Python and torch, for what a log may call its actions, columns and events
    **{"click": "forward", "goods_bag": "items", "order": "update", "stay": "train", "follow": "type", "visit": "to"},
    **{"user": "compile", "hour": "half", "room": "apply", "streamer": "keys", "category": "buffers", "rate": "training"},
    **{"channels": "values"},
}


def test_names_change_nothing(config):
    def renamed(value, key=""):
        if isinstance(value, dict):
            return {inner: renamed(each, inner) for inner, each in value.items()}
        if isinstance(value, list):
            return [renamed(each, key) for each in value]
        others = ("of", "action", "column", "events", "kind", "pseudo_label")
        return value if not isinstance(value, str) or key in others else WORDS.get(value, value)

    schema = full_schema()
    other = Schema.from_dict(renamed(schema.to_dict()))
    sizes = {WORDS.get(name, name): size for name, size in TABLE_SIZES.items()}
    batch, same = random_batch(schema, TABLE_SIZES, feeds=6, seed=1), random_batch(other, sizes, feeds=6, seed=1)
    torch.manual_seed(3)
    expected = Ranker(schema, config, TABLE_SIZES).eval()(batch)
    torch.manual_seed(3)
    found = Ranker(other, from_dict(SystemConfig, renamed(to_dict(config))), sizes).eval()(same)
    assert_same({WORDS.get(name, name): output for name, output in expected.items()}, found, rtol=0, atol=0)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_permuting_feeds_permutes_outputs(config, schema):
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    order = [3, 0, 5, 1, 4, 2]
    outputs = ranker(batch)
    places = torch.cat([torch.nonzero(batch.feed_of_candidate_N == feed).flatten() for feed in order])
    assert_same({name: output[places] for name, output in outputs.items()}, ranker(take(batch, order)))


@pytest.mark.parametrize("training", [False, True], ids=["predicting", "training"])
def test_a_feed_does_not_see_the_others(config, training):
    schema = full_schema()
    ranker = build(config, schema).train(training)
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    outputs = ranker(batch)
    for feed in range(batch.feeds):
        mine = batch.feed_of_candidate_N == feed
        assert_same({name: output[mine] for name, output in outputs.items()}, ranker(take(batch, [feed])))


def test_a_candidate_does_not_see_the_others_of_its_feed(config):
    schema = full_schema()
    ranker = build(config, schema)
    batch, other = (random_batch(schema, TABLE_SIZES, feeds=1, seed=seed, most_candidates=1) for seed in (1, 2))
    batch = take(batch, [0, 0])  # two candidates, as two feeds
    batch = replaced(take(batch, [0, 1]), feed_of_candidate_N=torch.tensor([0, 0]))
    batch = replaced(
        batch,
        feed={name: values[:1] for name, values in batch.feed.items()},
        histories=other.histories,
        user_R=batch.user_R[:1],
        stage_R=batch.stage_R[:1],
    )
    changed = {name: torch.stack([values[0], other.candidate[name][0]]) for name, values in batch.candidate.items()}
    before, after = ranker(batch), ranker(replaced(batch, candidate=changed))
    assert_same({name: output[:1] for name, output in before.items()}, {name: output[:1] for name, output in after.items()})
    assert any((before[name][1] != after[name][1]).any() for name in before)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_grouped_by_feed_equals_flat(config, schema):
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=12, seed=1, most_candidates=9)
    assert_same(ranker(batch), ranker(flat(batch)))


def test_padding_changes_nothing(config):
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    assert_same(ranker(batch), ranker(with_pads(batch, 10, row=0)))
    assert_same(ranker(batch), ranker(with_pads(batch, 10, row=3)))


def test_no_history_at_all(config):
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    outputs = ranker(without_history(batch))
    assert all(output.isfinite().all() for output in outputs.values())
    assert_same(outputs, ranker(with_no_entries(batch)))
    sum(output.sum() for output in ranker.outcome(without_history(batch)).outputs.values()).backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in ranker.parameters())


def test_fields_may_all_be_numbers(config):
    schema = Schema(
        fields=(
            Field(name="user_entries", of="feed", encoding=Number()),
            Field(name="rate", of="candidate", column="room_entry_rate.life", encoding=Number()),
        ),
        targets=full_schema().targets,
        stages=full_schema().stages,
    )
    if getattr(config.interest, "histories", True):  # named ones, or always those of the two domains
        config = dataclasses.replace(config, interest=PoolingConfig())
    ranker, batch = build(config, schema).double(), random_batch(schema, {}, feeds=6, seed=1)
    outputs = ranker(batch)
    assert_same(outputs, ranker(flat(batch)))
    learner = build_learner(ranker, schema, config.learner, OptimiserConfig(), SingleWorker())
    learner.step(batch)
    assert all((ranker(batch)[name] != outputs[name]).any() for name in ranker.weighting.trained)


def test_batch_of_one(config):
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=1, seed=1, most_candidates=1)
    assert batch.candidates == 1
    assert all(output.isfinite().all() for output in ranker(batch).values())
    assert all(predicted.shape == (1,) and predicted.isfinite().all() for predicted in ranker.predict(batch).values())


def test_saved_and_loaded_equal(config, tmp_path):
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    torch.save(ranker.state_dict(), tmp_path / "weights.pt")
    other = build(config, schema, seed=1)
    other.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert_same(ranker.predict(batch), other.predict(batch), rtol=0, atol=0)


def test_predictions_are_probabilities_and_label_units(config):
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    outputs, predictions = ranker(batch), ranker.predict(batch)
    assert (
        predictions.keys()
        == set(ranker.trained)
        == {
            name for name in schema.target_names if config.weighting != FixedConfig(targets="roots") or not schema.parents(name)
        }
    )
    assert_close(predictions["click"], 1 / (1 + torch.exp(-outputs["click"])))
    judged = ranker.predict(batch, judged=True)
    logs = {f"log.{name}" for name in predictions if schema.target(name).is_log}
    assert judged.keys() == predictions.keys() | logs and all((judged[name] >= 0).all() for name in logs)
    if "stay" in predictions and config.children == "all":
        assert_close(predictions["stay"], torch.clamp(torch.exp(outputs["stay"]) - 1, min=0), **TOLERANCE)


def test_insight_fits_the_schema(config):
    """Gates are distributions over named experts; edges lie between targets; preferences are shares."""
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    insight = ranker.insight(batch)
    assert insight.gates.keys() == ranker.fusion.expert_names.keys()
    for name, weight_NE in insight.gates.items():
        assert weight_NE.shape == (batch.candidates, len(ranker.fusion.expert_names[name]))
        assert_close(weight_NE.sum(1), torch.ones(batch.candidates))
    for (parent, child), carried_N in insight.edges.items():
        assert parent in schema.target_names and child in schema.target_names
        assert carried_N.shape == (batch.candidates,) and carried_N.isfinite().all()
    for name, preference_R in insight.preferences.items():
        assert name in schema.target_names and preference_R.shape == (batch.feeds,)
        assert ((preference_R > 0) & (preference_R < 1)).all()


def compositions() -> dict[str, SystemConfig]:
    """The first system of every composition of kinds: its variants learn through the same parts."""
    found: dict[tuple, str] = {}
    for name, config in SYSTEMS.items():
        kinds = [getattr(config, slot).kind for slot in ("interest", "fusion", "coupling", "weighting", "learner")]
        found.setdefault((*kinds, config.wide, config.stage, config.numbers.kind), name)
    return {name: SYSTEMS[name] for name in found.values()}


@pytest.mark.parametrize("config", compositions().values(), ids=compositions())
def test_eight_rows_can_be_learnt_by_heart(config):
    schema = full_schema()
    torch.manual_seed(0)
    ranker = Ranker(schema, config, TABLE_SIZES)
    batch = random_batch(schema, TABLE_SIZES, feeds=8, seed=3, most_candidates=1)
    optimiser = OptimiserConfig(dense=AdamConfig(rate=0.01), tables=LazyAdamConfig(rate=0.01))
    learner = build_learner(ranker, schema, config.learner, optimiser, SingleWorker())
    untrained = set(schema.target_names) - set(ranker.weighting.trained)
    assert ranker.weighting.trained
    comparisons = set(ranker.together.names) if ranker.together else set()  # of rows with each other, which have no labels
    first = learner.step(batch)
    learnt = first.keys() - untrained - comparisons
    for _ in range(200):
        last = learner.step(batch)
        unknown = [name for name in learnt if not mean(last[name]) < 0.1 * mean(first[name]) + 1e-3]
        if not unknown:
            break
    assert not unknown


def mean(part: tuple) -> float:
    """Of a sum and a count."""
    return float(part[0] / part[1])


def test_works_under_bfloat16_autocast(config):
    schema = full_schema()
    ranker, batch = build(config, schema), random_batch(schema, TABLE_SIZES, feeds=6, seed=1)
    exact = ranker(batch)
    learner = build_learner(ranker, schema, config.learner, OptimiserConfig(), SingleWorker())
    with torch.autocast("cpu", torch.bfloat16):
        rough = ranker(batch)
        learner.step(batch)
    for name in exact:
        assert rough[name].dtype == torch.float32
        assert (rough[name] - exact[name]).abs().max() < 0.05 * (1 + exact[name].abs().max())


OPTIMISERS = {
    "lazy adam": OptimiserConfig(clip_norm=1.0),
    "row-wise adagrad": OptimiserConfig(dense=AdagradConfig(), tables=RowwiseAdagradConfig()),
}


DRAWING = {  # systems that hide ids and drop, of every part that drops
    name: smaller(resolve({**spelling, "system": system, "hidden_ids": 0.3}))
    for name, system, spelling in (
        ("mmoe", "mmoe", {"fusion": {"dropout": 0.2}}),
        ("ple, dbmtl", "ple", {"fusion": {"dropout": 0.2}, "coupling": {"kind": "dbmtl", "dropout": 0.2}}),
        ("mncm", "mncm", {"fusion": {"dropout": 0.2}}),
        ("star", "star", {"fusion": {"dropout": 0.2}}),
        ("bst, shared_bottom", "bst", {"interest": {"dropout": 0.2}, "fusion": {"kind": "shared_bottom", "dropout": 0.2}}),
        ("disentangled, entry_gate, adaptive", "eliverec", {"interest": {"dropout": 0.2}, "fusion": {"dropout": 0.2}}),
    )
}


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_two_workers_equal_one(config, optimiser):
    assert_two_workers_equal_one(config, optimiser)


@pytest.mark.parametrize("drawing", DRAWING.values(), ids=DRAWING)
def test_two_workers_hide_and_drop_what_one_does(drawing):
    assert_two_workers_equal_one(drawing, OPTIMISERS["lazy adam"])


def assert_two_workers_equal_one(config, optimiser):
    """Float64, 4 steps; the second worker has no batch at the third."""
    schema = full_schema()
    batches = [double(random_batch(schema, TABLE_SIZES, feeds=9, seed=seed)) for seed in range(4)]
    shares = [[take(batch, [0, 1, 2, 3, 4]), take(batch, [5, 6, 7, 8])] for batch in batches]
    batches[2], shares[2] = shares[2][0], [shares[2][0], None]
    lock = threading.Lock()

    def train(group, mine):
        with lock:  # the seed belongs to the process
            ranker = build(config, schema).double()
        learner = build_learner(ranker, schema, config.learner, optimiser, group)
        return ranker.state_dict(), [learner.step(batch, place / 4) for place, batch in enumerate(mine)]

    alone, losses = train(SingleWorker(), batches)
    (first, first_losses), (second, second_losses) = Threads(2).run(
        lambda group: train(group, [share[group.rank] for share in shares])
    )
    assert_same(first, second, rtol=0, atol=0)
    assert_same(alone, first, rtol=1e-9, atol=1e-9)
    assert first_losses == second_losses
    for whole, parts in zip(losses, first_losses, strict=True):
        for name in whole:
            assert parts[name] == pytest.approx(whole[name], rel=1e-10)
