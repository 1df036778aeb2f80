"""Embedding tables and the named vectors made of them."""

import pytest
import torch
from torch.testing import assert_close

from models.batch import FeedBatch, HistoryBatch
from models.layers.embedding import Embedding
from models.layers.numbers import PeriodicConfig, RawConfig
from models.layers.tables import Reads, TableSet
from models.schema import Schema
from tests.models.helpers import replaced
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

READS = Reads(feed={"user": "user"}, candidate={"room": "room", "tag": "tag"}, histories={"seen": {"room": "room"}})
SIZES = {"user": 3, "room": 4, "tag": 2}


def small_set() -> TableSet:
    """Width 1; a row's value names its table and row: user 10-12, room 20-23, tag 30-31."""
    tables = TableSet(READS, SIZES, width=1)
    with torch.no_grad():
        tables.weight.copy_(torch.tensor([10.0, 11, 12, 20, 21, 22, 23, 30, 31]).unsqueeze(1))
    return tables


def small_batch(**changes) -> FeedBatch:
    batch = FeedBatch(
        feed={"user": torch.tensor([2, 1])},
        candidate={"room": torch.tensor([3, 0, 1]), "tag": torch.tensor([1, 1, 0])},
        histories={
            "seen": HistoryBatch(
                rows={"room": torch.tensor([[1, 0], [3, 3]])}, is_real_RL=torch.tensor([[True, False], [True, True]])
            )
        },
        feed_of_candidate_N=torch.tensor([0, 0, 1]),
        level_N=torch.zeros(3, dtype=torch.int64),
        user_R=torch.tensor([7, 8]),
    )
    return replaced(batch, **changes)


def test_every_field_reads_its_own_table():
    looked = small_set()(small_batch())
    assert looked.feed_RFD.tolist() == [[[12.0]], [[11.0]]]
    assert looked.candidate_NFD.tolist() == [[[23.0], [31.0]], [[20.0], [31.0]], [[21.0], [30.0]]]
    assert looked.histories["seen"].tolist() == [[[[21.0]], [[20.0]]], [[[23.0]], [[23.0]]]]


def test_a_leaf_holds_each_row_once_and_collects_its_gradient():
    tables = small_set()
    gathered = tables.gather(small_batch())
    assert gathered.ids_U.tolist() == [1, 2, 3, 4, 6, 7, 8]
    assert gathered.rows_UD.flatten().tolist() == [11.0, 12.0, 20.0, 21.0, 23.0, 30.0, 31.0]
    looked = tables(small_batch(), gathered)
    (looked.feed_RFD.sum() + looked.candidate_NFD.sum() + looked.histories["seen"].sum()).backward()
    assert gathered.rows_UD.grad.flatten().tolist() == [1, 1, 2, 2, 3, 1, 2]  # room 3: a candidate and two entries
    assert tables.weight.grad is None


def test_what_is_read_does_not_depend_on_padding():
    """Row 0 of the history's table, and of no other, is read whether or not anything is padded."""
    rows = {"room": torch.tensor([3, 1, 1])}
    full = HistoryBatch(rows={"room": torch.tensor([[1], [3]])}, is_real_RL=torch.ones(2, 1, dtype=torch.bool))
    padded = HistoryBatch(rows={"room": torch.tensor([[1, 0], [3, 0]])}, is_real_RL=torch.tensor([[True, False]] * 2))
    for history in (full, padded):
        batch = small_batch(candidate={**small_batch().candidate, **rows}, histories={"seen": history})
        assert small_set().gather(batch).ids_U.tolist() == [1, 2, 3, 4, 6, 7, 8]


def test_a_table_is_found_by_name():
    assert small_set().table("room").flatten().tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize("row", [4, -1])
def test_a_row_outside_its_table_is_refused(row):
    batch = small_batch(candidate={"room": torch.tensor([3, row, 1]), "tag": torch.tensor([1, 1, 0])})
    with pytest.raises(ValueError, match=r"candidate field `room` holds rows from .* table `room` has rows 0 to 3"):
        small_set()(batch)


def test_a_table_without_a_size_is_refused():
    with pytest.raises(ValueError, match="no size for the tables tag; sizes are given for: user, room"):
        TableSet(READS, {"user": 3, "room": 4}, width=1)


def test_named_vectors_are_the_rows_and_numbers_of_the_batch(tiny_schema):
    spelling = tiny_schema.to_dict()
    next(field for field in spelling["fields"] if field["name"] == "category")["width"] = 4
    next(field for field in spelling["histories"][0]["fields"] if field["name"] == "category")["width"] = 4
    schema = Schema.from_dict(spelling)
    embedding = Embedding(schema, TABLE_SIZES, 6, RawConfig())
    batch = random_batch(schema, TABLE_SIZES, feeds=5, seed=0)
    embedded = embedding(batch)
    table = lambda name: embedding.sets["width_4" if name == "category" else "width_6"].table(name)
    for of, vectors in (("feed", embedded.feed), ("candidate", embedded.candidate)):
        assert list(vectors) == [field.name for field in schema.fields_of(of)]
        for field in schema.fields_of(of):
            column = getattr(batch, of)[field.name]
            expected = column.unsqueeze(1) if field.is_number else table(field.table)[column]
            assert_close(vectors[field.name], expected)
            assert getattr(embedding.widths, of)[field.name] == expected.shape[1]
    rows = batch.histories["channels"].rows  # the unmatched `stay` comes last
    expected = torch.cat([table(name)[rows[name]] for name in ("room", "streamer", "category")], dim=2)
    expected = torch.cat([expected, table("stay_bin")[rows["stay"]]], dim=2)
    assert_close(embedded.histories["channels"].entries_RLE, expected)
    assert (embedding.inputs.histories["channels"].entry, embedding.inputs.histories["channels"].matched) == (22, 16)


def test_matched_attributes_of_an_entry_come_first(tiny_schema):
    spelling = tiny_schema.to_dict()
    spelling["histories"][0]["fields"].insert(0, spelling["histories"][0]["fields"].pop())  # `stay` declared first
    schema = Schema.from_dict(spelling)
    embedding = Embedding(schema, TABLE_SIZES, 6, RawConfig())
    batch = random_batch(schema, TABLE_SIZES, feeds=5, seed=0)
    rows = batch.histories["channels"].rows
    entries = embedding(batch).histories["channels"].entries_RLE
    assert_close(entries[..., :6], embedding.sets["width_6"].table("room")[rows["room"]])
    assert_close(entries[..., -6:], embedding.sets["width_6"].table("stay_bin")[rows["stay"]])


def test_tables_start_small():
    torch.manual_seed(0)
    embedding = Embedding(tiny_schema(), {**TABLE_SIZES, "user": 10_000}, 16, RawConfig())
    assert embedding.sets["width_16"].weight.std().item() == pytest.approx(0.01, rel=0.01)


def test_a_periodic_number_by_hand(tiny_schema):
    """One frequency c = 1/4, so 2 pi c x is a right angle at x = 1: sin 1, cos 0, x 1."""
    embedding = Embedding(tiny_schema, TABLE_SIZES, 4, PeriodicConfig(frequencies=1, width=2))
    part = embedding.numbers["candidate"]
    with torch.no_grad():
        part.frequency_FK.fill_(0.25)
        part.weight_FID.copy_(torch.tensor([[[2.0, -1.0], [100.0, 100.0], [3.0, 0.0]]]))
        part.bias_F1D.copy_(torch.tensor([[[0.5, 0.25]]]))
    batch = random_batch(tiny_schema, TABLE_SIZES, feeds=2, seed=0, most_candidates=1)
    batch = replaced(batch, candidate={**batch.candidate, "rate": torch.ones(2)})
    assert_close(embedding(batch).candidate["rate"], torch.tensor([[5.5, 0.0], [5.5, 0.0]]), atol=1e-4, rtol=0)
