"""Opening prepared folders: whole ones, and every way in which one is not."""

import gc
import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from models.schema import Schema
from pipelines.encode.clock import Clock
from pipelines.encode.encode import encode
from pipelines.encode.fit import finish, fit_partial
from pipelines.prepared import SPLITS, Prepared
from pipelines.runs.sealed import SealedWriter, read_sealed
from tests.pipelines.fabricate import note_tables, write_manifest
from tests.pipelines.test_encode import random_feeds

TABLES = (
    "schema.json",
    "encoder/encoder.json",
    "encoder/encoder.safetensors",
    "feeds/valid/bucket-00001.parquet",
    "features/test/bucket-00000.parquet",
    "snapshot/users/bucket-00000.parquet",
)


@pytest.fixture
def folder(tiny_schema, tmp_path):
    how = {"entry_rate": 0.1, "clock": Clock()}
    features = random_feeds(tiny_schema, 6, seed=0)
    state = finish(fit_partial(features, tiny_schema, **how), tiny_schema, **how)
    for split in SPLITS:
        for kind, table in (("features", features), ("feeds", encode(features, tiny_schema, state))):
            (tmp_path / kind / split).mkdir(parents=True)
            for number in (1, 0):
                with SealedWriter(tmp_path / kind / split / f"bucket-0000{number}.parquet", table.schema) as writer:
                    writer.write(table.slice(3 * number, 3), 2)
    for number in (1, 0):
        (tmp_path / "snapshot" / "users").mkdir(parents=True, exist_ok=True)
        pq.write_table(features.slice(3 * number, 3), tmp_path / "snapshot" / "users" / f"bucket-0000{number}.parquet")
    state.save(tmp_path / "encoder")
    (tmp_path / "schema.json").write_text(json.dumps(tiny_schema.to_dict()))
    splits = {split: {"files": 2, "feeds": 6} for split in SPLITS}
    write_manifest(tmp_path, "abc", splits)
    return tmp_path


def test_a_finished_folder_opens_with_all_its_parts(folder, tiny_schema):
    prepared = Prepared.open(str(folder), schema=tiny_schema)
    assert prepared.schema == tiny_schema and prepared.fingerprint == "abc" and prepared.manifest.splits["test"].feeds == 6
    assert [file.name for file in prepared.files("valid")] == ["bucket-00000.parquet", "bucket-00001.parquet"]
    assert [file.parent.parent.name for file in prepared.features("valid")] == ["features", "features"]
    assert prepared.encoder.table_sizes["user"] == 50
    with pytest.raises(ConfigError, match="no split `tests`; there are: train, valid, test"):
        prepared.files("tests")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("manifest.json", r"was not finished; .*manifest.json is missing"),
        ("files.json", r"is damaged; .*files.json is missing"),
        *((name, rf"{name} is not there. Delete the prepared folder and prepare again.$") for name in TABLES),
    ],
)
def test_what_is_missing_is_named(folder, gone, message):
    (folder / gone).unlink()
    with pytest.raises(ConfigError, match=message):
        Prepared.open(folder)


def test_no_folder(folder):
    with pytest.raises(ConfigError, match=r"no prepared folder at `.*nowhere`"):
        Prepared.open(folder / "nowhere")


@pytest.mark.parametrize("keep", [0, 7, -3])
@pytest.mark.parametrize("name", ["manifest.json", "files.json", *TABLES])
def test_what_is_cut_short_is_named(folder, name, keep):
    file = folder / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=rf"{file} (is damaged|has [\d,]+ bytes, not [\d,]+).* prepare again\.$"):
        Prepared.open(folder)


@pytest.mark.parametrize("name", TABLES)
def test_what_holds_another_byte_is_named_by_who_opens_or_reads_it(folder, name):
    file = folder / name
    for place in (0, file.stat().st_size // 2, file.stat().st_size - 9):
        sound = file.read_bytes()
        file.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(ConfigError, match=rf"{file} .*does not hold what was written to it.* prepare again\.$"):
            prepared = Prepared.open(folder)
            read_sealed(prepared.files("valid")[1])
            prepared.features("test")
            prepared.snapshot("users")
        file.write_bytes(sound)


def test_features_and_snapshot_may_be_deleted_as_a_whole(folder):
    for kind in ("features/train", "snapshot/users"):
        shutil.rmtree(folder / kind)
    prepared = Prepared.open(folder)
    assert prepared.features("train") == prepared.snapshot("users") == [] and len(prepared.features("valid")) == 2
    (folder / "feeds" / "train" / "bucket-00002.parquet").write_text("of no one")
    assert [file.name for file in Prepared.open(folder).files("train")] == ["bucket-00000.parquet", "bucket-00001.parquet"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: [line for line in lines if "feeds/test/bucket-00001" not in line],
            "names 1 files of test feeds with 3 rows",
        ),
        (lambda lines: [line for line in lines if "features/test/bucket-00001" not in line], "names 2 files of test feeds"),
        (lambda lines: [line for line in lines if "schema" not in line], r"does not name schema.json"),
        (lambda lines: [line.replace(', "', ', ["', 1) for line in lines], "is damaged"),
        (lambda lines: [], "it names no files"),
    ],
)
def test_a_list_of_files_that_lacks_one_is_told(folder, change, message):
    first, *lines, last = (folder / "files.json").read_text().splitlines()
    lines = [line.rstrip(",") for line in change(lines)]
    (folder / "files.json").write_text("\n".join([first, ",\n".join(lines), last]) if lines else "{}")
    with pytest.raises(ConfigError, match=message):
        Prepared.open(folder)


@pytest.mark.parametrize(
    ("name", "holds", "message"),
    [
        ("manifest.json", "[]", r"manifest.json is damaged \(it holds \[\], not an object\)"),
        ("schema.json", "5", r"schema.json is damaged \(it holds 5, not an object\)"),
        ("schema.json", "{}", r"by another version of this program \(`schema.fields` is missing.\)"),
        ("encoder/encoder.json", "[]", r"encoder is damaged \("),
        ("encoder/encoder.json", '{"version": 4}', r"encoder is damaged \(KeyError\('tables'\)\)"),
    ],
)
def test_what_holds_something_else_is_named(folder, name, holds, message):
    (folder / name).write_text(holds)
    note_tables(folder)  # as if it had been written so
    with pytest.raises(ConfigError, match=message):
        Prepared.open(folder)


def test_another_schema_is_refused_with_what_differs(folder, tiny_schema):
    spelling = tiny_schema.to_dict()
    spelling["fields"][6]["column"] = "state.other_id"
    with pytest.raises(ConfigError, match=r"prepared for another schema: they differ in field `product`\."):
        Prepared.open(folder, schema=Schema.from_dict(spelling))
    spelling = tiny_schema.to_dict()
    spelling["targets"][2]["attribution_seconds"] = 60
    with pytest.raises(ConfigError, match=r"prepared for another schema: they differ in target `order`\."):
        Prepared.open(folder, schema=Schema.from_dict(spelling))


def test_what_is_no_part_of_the_tables_is_that_of_the_schema_it_is_used_with(folder, tiny_schema):
    spelling = tiny_schema.to_dict()
    spelling["targets"][0]["fusion_weight"] = 9.0
    spelling["targets"][2]["loss_weight"] = 0.0
    spelling["targets"][3] |= {"head": "bins", "bins": 4, "parents": ["order"]}
    weighted = Schema.from_dict(spelling)
    assert Prepared.open(folder, schema=weighted).schema == weighted
    assert Prepared.open(folder).schema == tiny_schema
    fewer = Schema.from_dict({**spelling, "targets": tiny_schema.to_dict()["targets"][:1]})
    assert Prepared.open(folder, schema=fewer).schema == fewer


def test_tables_and_manifests_of_another_version_are_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "inputs": {}}))  # as they once were
    with pytest.raises(ConfigError, match=r"by another version of this program \(`manifest.json.inputs` is not a known key"):
        Prepared.open(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "tables": 1}))
    with pytest.raises(ConfigError, match=r"holds tables of version 1, this program reads 4. Delete the folder and prepare"):
        Prepared.open(folder)
    del manifest["tables"]  # as the first version left it
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"holds tables of version 1"):
        Prepared.open(folder)


def test_a_table_that_breaks_off_says_nothing_of_its_own(tmp_path, monkeypatch):
    """A writer that was never closed would try when it is collected, and a trace would follow the line that tells why."""
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    table = pa.table({"at": [1, 2, 3]})

    def broken_off() -> None:
        with SealedWriter(tmp_path / "feeds.parquet", table.schema) as writer:
            writer.write(table, 2)
            raise ConfigError("a value that makes no sense")

    with pytest.raises(ConfigError, match="a value that makes no sense"):
        broken_off()
    gc.collect()
    assert said == []
