"""The benchmark of the zoo's systems: what is compared with what, and its table."""

import re

import pytest

from jobs.benches import measure, systems
from models.zoo import ZOO


def test_contestants_take_turns_in_changing_order(monkeypatch):
    """Each call of `a` takes 1 s and of `b` 3 s of this clock."""
    clock, calls = [0.0], []

    def contestant(name, seconds):
        def step(index):
            clock[0] += seconds
            calls.append((name, index))

        return step

    monkeypatch.setattr(measure.time, "process_time", lambda: clock[0])
    taken = measure.turns({"a": contestant("a", 1.0), "b": contestant("b", 3.0)}, repeats=2, steps=2, warm_up=1)
    assert taken == {"a": [1.0, 1.0], "b": [3.0, 3.0]}
    assert calls == [("a", 0), ("b", 0), *[("b", 1), ("b", 2), ("a", 1), ("a", 2)], *[("a", 3), ("a", 4), ("b", 3), ("b", 4)]]


def test_a_ratio_is_taken_within_a_turn():
    assert measure.ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == "2.00 (1.00 - 3.00)"
    assert measure.speed([0.5, 0.25, 1.0], 100) == "200 (100 - 400)"


def test_all_rows_have_tables_of_one_width_and_lose_what_couples_and_weighs():
    schema = systems.quickstart()
    cases = {name: systems.case(name, schema) for name in (*ZOO, systems.BINNED)}
    assert {each.config.embedding_width for each in cases.values()} == {16}
    assert cases["pimm"].has == ("coupling pimm",) and cases["pimm"].without == cases["pimm_shared_bottom"].config
    assert cases["stan"].has == ("weighting stage",) and cases["stan"].without == cases["ple"].config
    assert cases["ple_stage"].has == ("stage",) and cases["ple_stage"].without == cases["ple"].config
    assert cases["star"].has == () and cases["star"].without == cases["star"].config
    assert [target.bins for target in cases[systems.BINNED].schema.targets] == [None] * 7 + [10]


def test_products_are_those_of_the_layers():
    """Of DBMTL's layer alone: 32 x 32 for the root and 64 x 32 for each of 7 children; the backward pass takes twice that."""
    schema = systems.quickstart()
    one = systems.case("dbmtl", schema)
    batches = [systems.random_feeds(schema, 0)]
    coupled, alone = (systems.Contestant(schema, config, batches) for config in (one.config, one.without))
    layer = 32 * 32 + 7 * 64 * 32
    assert coupled.products - alone.products == 3 * layer
    assert coupled.dense - alone.dense == layer + 8 * 32  # and the biases


def test_products_taken_in_place_are_counted():
    """A step of shared_bottom, all fields at 16 or 1: each layer three times (forward, both gradients), at its level."""
    schema = systems.quickstart()
    made = systems.Contestant(schema, systems.case("shared_bottom", schema).config, [systems.random_feeds(schema, 0)])
    sizes = {of: sum(1 if field.is_number else 16 for field in schema.fields_of(of)) for of in ("feed", "candidate")}
    feed = sizes["feed"] + 16 * sum(len(history.fields) for history in schema.histories)
    first = feed * 256 / systems.CANDIDATES + sizes["candidate"] * 256
    towers = 8 * (64 * 64 + 64 * 32 + 32)
    layers = first + 256 * 128 + 128 * 64 + towers
    assert made.products == pytest.approx(3 * layers, rel=0.02)  # the pooling of histories is a product, too, a small one


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(systems, "FEEDS", 4)
    monkeypatch.setattr(systems, "MUCH", 0.0)
    systems.main(["--systems", "pimm", systems.BINNED, "--repeats", "1"])
    said = capsys.readouterr().out
    assert "4 feeds of 8: 30 fields, 2 histories of 50, 8 targets, tables of width 16" in said
    pimm, bins = (line.split(" | ") for line in said.splitlines() if line.startswith(("| pimm", "| stay")))
    assert len(pimm) == len(bins) == 7 and pimm[-1].startswith("coupling pimm: ") and bins[-1] == "- |"
    assert re.search(r"- coupling pimm of pimm: .*\), with 1\.\d times the products of the same without", said)
    with pytest.raises(SystemExit):
        systems.main(["--repeats", "0"])
    assert "--repeats must be at least 1, got 0" in capsys.readouterr().err
