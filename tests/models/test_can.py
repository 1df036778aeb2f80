"""CAN against numbers one can check and against its definition, pair by pair."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.fusions.single import SingleConfig
from models.interests.can import Can, CanConfig
from models.layers.embedding import Embedding
from models.layers.numbers import RawConfig
from models.ranker import Ranker
from models.schema import Schema
from models.system import SystemConfig
from tests.samples import TABLE_SIZES, random_batch, tiny_schema


def some(config: CanConfig, schema: Schema, *, feeds: int = 6, most_candidates: int = 3):
    torch.manual_seed(0)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    batch = random_batch(schema, TABLE_SIZES, feeds=feeds, seed=0, most_candidates=most_candidates)
    interest = Can(config, schema, embedding.inputs).double()
    for parameter in [*interest.parameters(), *embedding.parameters()]:
        torch.nn.init.normal_(parameter)
    return interest, batch, embedding(batch)


def test_a_co_action_by_hand():
    """Products 1 and 2, and a candidate that is product 3: h_1 = tanh(2 x + 1/2), h_2 = -3 h_1 + 10."""
    interest, batch, vectors = some(CanConfig(histories=("products",), inputs=1, hidden=(1, 1)), tiny_schema(), feeds=2)
    part = interest.coaction["products"]
    with torch.no_grad():
        part.induction.table("product")[3] = torch.tensor([2.0, 0.5, -3.0, 10.0])
        part.feed.table("product")[1:3, 0] = torch.tensor([0.25, -1.0])
    batch.histories["products"].is_real_RL[:] = torch.arange(batch.histories["products"].is_real_RL.shape[1]) < 2
    batch.histories["products"].rows["product"][:, :2] = torch.tensor([1, 2])
    batch.candidate["product"][:] = 3
    found = interest(vectors, batch).candidate["coaction.products"]
    first = math.tanh(1.0) + math.tanh(-1.5)
    assert found.shape == (batch.candidates, 2)
    for row in found.tolist():
        assert row == pytest.approx([first, -3 * first + 2 * 10])


def twice_a_table() -> Schema:
    """`tiny_schema` with a second history field that reads the rooms' table."""
    spelling = tiny_schema().to_dict()
    spelling["histories"][0]["fields"].append({**spelling["histories"][0]["fields"][0], "name": "earlier", "table": "room"})
    return Schema.from_dict(spelling)


@pytest.mark.parametrize("most_candidates", [3, 20], ids=["short feeds", "long feeds"])
@pytest.mark.parametrize("hidden", [(3,), (3, 2), (3, 2, 4)])
@pytest.mark.parametrize("schema", [tiny_schema(), twice_a_table()], ids=["tiny", "twice a table"])
def test_co_actions_are_micro_mlps_summed_over_entries(schema, hidden, most_candidates):
    interest, batch, vectors = some(CanConfig(inputs=5, hidden=hidden), schema, most_candidates=most_candidates)
    found = interest(vectors, batch)
    for name, history in batch.histories.items():
        part, pairs = interest.coaction[name], schema.matches(name)
        assert interest.widths.candidate[f"coaction.{name}"] == len(pairs) * sum(hidden)
        for candidate in range(batch.candidates):
            feed = int(batch.feed_of_candidate_N[candidate])
            length = int(history.is_real_RL[feed].sum())
            expected = []
            for item, field in pairs:
                row = part.induction.table(field.table)[batch.candidate[field.name][candidate]]
                sums = [torch.zeros(units, dtype=torch.float64) for units in hidden]
                for entry in range(length):
                    x, start = part.feed.table(item.table)[history.rows[item.name][feed, entry]], 0
                    for layer, units in enumerate(hidden):
                        weight = row[start : start + units * len(x)].view(units, len(x))
                        start += weight.numel()
                        x = weight @ x + row[start : start + units]
                        start += units
                        x = x if layer == len(hidden) - 1 else torch.tanh(x)
                        sums[layer] += x
                    assert start == len(row)
                expected += sums
            assert_close(found.candidate[f"coaction.{name}"][candidate], torch.cat(expected))


def test_the_base_is_the_mean_of_the_entries():
    interest, batch, vectors = some(CanConfig(histories=("engagements",)), tiny_schema())
    found = interest(vectors, batch)
    assert list(found.feed) == ["interest.channels"] and list(found.candidate) == ["coaction.channels"]
    history = vectors.histories["channels"]
    for feed in range(batch.feeds):
        length = int(history.is_real_RL[feed].sum())
        expected = history.entries_RLE[feed, :length].mean(0) if length else torch.zeros(16, dtype=torch.float64)
        assert_close(found.feed["interest.channels"][feed], expected)


def test_tables_are_its_own_and_learn_through_gathered_rows():
    """Gradients reach the leaves of induction and feed tables, of the rows that were read, and nothing else."""
    schema = tiny_schema()
    torch.manual_seed(0)
    ranker = Ranker(schema, SystemConfig(interest=CanConfig(), fusion=SingleConfig(hidden=(8,))), TABLE_SIZES)
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=0)
    names = {"channels": ("room", "streamer", "category"), "products": ("product",)}
    own = {f"interest.coaction.of_{name}.{role}" for name in names for role in ("induction", "feed")}
    assert own == {name for name in ranker.table_sets() if name.startswith("interest")}
    gathered = ranker.gather(batch)
    sum(output.square().sum() for output in ranker(batch, gathered).values()).backward()
    for history, tables in names.items():
        part = ranker.interest.coaction[history]
        assert list(part.induction.sizes) == list(part.feed.sizes) == list(tables)
        assert part.induction.weight.shape[1] == 16 * 8 + 8 + 8 * 4 + 4 and part.feed.weight.shape[1] == 16
        assert part.induction.weight.grad is None and part.feed.weight.grad is None
        assert gathered[part.induction].rows_UD.grad.any() and gathered[part.feed].rows_UD.grad.any()
        read = torch.unique(torch.stack([batch.candidate[name] + part.induction.starts[name] for name in tables]))
        assert torch.equal(gathered[part.induction].ids_U, read)


def test_micro_mlps_start_as_layers_do():
    """Weights with the deviation of a uniform number in +-1 / sqrt(inputs), biases at 0; inputs as any embedding."""
    interest = some(CanConfig(inputs=12, hidden=(3, 4)), tiny_schema())[0]
    fresh = Can(
        CanConfig(inputs=12, hidden=(3, 4)), tiny_schema(), Embedding(tiny_schema(), TABLE_SIZES, 4, RawConfig()).inputs
    )
    assert fresh.state_dict().keys() == interest.state_dict().keys()
    first, first_bias, second, second_bias = fresh.coaction["channels"].induction.weight.split([36, 3, 12, 4], dim=1)
    assert first.std().item() == pytest.approx(1 / math.sqrt(3 * 12), rel=0.1)
    assert second.std().item() == pytest.approx(1 / math.sqrt(3 * 3), rel=0.1)
    assert not first_bias.any() and not second_bias.any()
    assert fresh.coaction["channels"].feed.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("settings", "complaint"), [({"inputs": 0}, "inputs >= 1, got 0"), ({"hidden": (4, 0)}, "hidden")])
def test_settings_that_make_no_sense(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        CanConfig(**settings)
