"""The benchmark of learners with weights of each level: what it counts, and its table."""

import pytest
import torch
from torch import nn

from jobs.benches import levels

DENSE = 19  # with three levels: copies of a dense parameter, of which 3 are there in joint training; gradients come on top


@pytest.fixture
def small(monkeypatch):
    """Batches of 8 feeds; candidates and activations hardly count beside the tables."""
    plain = levels.random_feeds
    monkeypatch.setattr(levels, "random_feeds", lambda schema, seed, sizes: plain(schema, seed, feeds=8, sizes=sizes))


def test_tensors_count_once_with_their_gradients():
    before = levels.tensor_bytes()
    parameter = nn.Parameter(torch.zeros(1000))
    view = parameter.detach()[:10]
    assert levels.tensor_bytes() - before == 4000 and len(view) == 10
    parameter.grad = torch.zeros(1000)
    assert levels.tensor_bytes() - before == 8000


def test_large_tables_have_the_rows_asked_for():
    sizes = levels.sizes_of(levels.quickstart_of_levels(), 77_000)
    assert [name for name, size in sizes.items() if size == 77_000] == ["user", "streamer", "product"]
    assert max(size for size in sizes.values() if size != 77_000) < 1000


def test_tables_of_one_copy_cost_what_joint_training_does(small):
    """60,000 rows of 3 tables of width 16: joint training holds them 3 times and 4 bytes a row; `dense` no more of them, and
    `all` 16 times and their rows that are a level's own.
    """
    table = 3 * 60_000 * 16 * 4
    held = {system: levels.memory_here(system, 60_000, 15)["tensors"] for system in levels.SYSTEMS}
    dense = held["mmoe"] / 3 - table  # less than a third of what is not in the large tables
    assert held["mmoe"] == pytest.approx(3 * table, rel=0.4)
    assert held["mmoe_cmlir_dense"] < 3 * table + DENSE * 1.5 * dense
    assert 16 * table < held["mmoe_cmlir"] < 19 * table + DENSE * 1.5 * dense


def test_the_table(small, monkeypatch, capsys):
    held = {"mmoe": {"tensors": 3 * 2**20, "resident": 2**21}, "mmoe_cmlir": {"tensors": 12 * 2**20, "resident": 2**20}}
    monkeypatch.setattr(levels, "memory_apart", lambda system, rows, steps: held[system])
    levels.main(["--rows", "500", "--systems", "mmoe", "mmoe_cmlir", "--batches", "5", "--repeats", "1"])
    said = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| mmoe")]
    assert [each[1] for each in said] == ["500", "500"] and said[0][3] == "1.00 (1.00 - 1.00)"
    assert said[0][4:] == ["3 MB", "1.00", "2 MB", "1.00 |"] and said[1][4:] == ["12 MB", "4.00", "1 MB", "0.50 |"]
    with pytest.raises(SystemExit):
        levels.main(["--rows", "0"])
    assert "--rows, --batches and --repeats must be at least 1, got 0, 200 and 5" in capsys.readouterr().err
