"""The store gives back what the snapshot holds, and only whole stores are opened."""

import dataclasses
import gc
import json
import os
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError
from pipelines import steps
from pipelines.logs.ids import as_ids
from pipelines.prepared import Prepared
from pipelines.serve.records import UserLayout
from pipelines.serve.store import LAYOUT, Store, build_store
from tests.pipelines.fabricate import noted_anew
from tests.pipelines.serve_samples import NOW, users, write_prepared


@pytest.fixture
def prepared(tiny_schema, tmp_path):
    return Prepared.open(write_prepared(tmp_path / "prepared", tiny_schema))


@pytest.fixture
def store(prepared, tmp_path):
    opened = Store(build_store(prepared, tmp_path / "store"))
    yield opened
    opened.close()


def column(records, name: str) -> list:
    values, known = records.column(name)
    return [value if is_known else None for value, is_known in zip(values.tolist(), known.tolist(), strict=True)]


def test_users_come_back_row_by_row_with_texts_as_ids(store):
    (c1,) = as_ids(pa.array(["c1"])).to_pylist()
    for user_id, expected in zip([1, 2], users().to_pylist(), strict=True):
        user = store.user(user_id)
        found = {name: column(user.plain, name)[0] for name in user.plain.layout.names}
        found |= {name: column(block, name) for block in user.lists.values() for name in block.layout.names}
        expected["channels.room.category"] = [c1 if each else None for each in expected["channels.room.category"]]
        assert found == expected and list(user.lists) == ["channels", "products", "pair.streamer", "pair.room"]
    assert store.user(3) is None and store.user(-1) is None


def test_lists_of_a_user_may_be_missing_but_not_of_different_length():
    lists = lambda *rows: pa.array(rows, pa.list_(pa.int64()))
    batch = lambda **more: pa.RecordBatch.from_pydict({"user_id": [1, 2], "h.at": lists([5, 6], []), **more})
    good = batch(**{"h.room_id": lists(None, None), "is_new": pa.array([True, None])})
    layout = UserLayout.of(good.schema)
    first, second = map(layout.read, layout.pack(good))
    assert column(first.lists["h"], "h.at") == [5, 6] and column(first.lists["h"], "h.room_id") == [None, None]
    assert column(first.plain, "is_new") == [1] and column(second.plain, "is_new") == [None]
    assert column(second.lists["h"], "h.at") == []
    bad = batch(**{"h.room_id": lists([7], [])})
    with pytest.raises(ValueError, match=r"lists of `h.room_id` differ in length from others of h.at, h.room_id"):
        UserLayout.of(bad.schema).pack(bad)


def test_rooms_come_back_as_columns_in_the_order_asked_with_texts_as_ids(store):
    records = store.records("rooms", [12, 99, 11, 13, 12])
    assert records.found_N.tolist() == [True, False, True, True, True]
    assert column(records, "streamer_id") == [102, None, 101, None, 102]
    assert column(records, "product.price") == [2.5, None, 1.5, None, 2.5]
    c1, c2 = as_ids(pa.array(["c1", "c2"])).to_pylist()
    assert column(records, "room.category") == [c2, None, c1, None, c2]
    assert column(records, "room_first_at") == [None, None, NOW - 8 * 3_600_000, NOW + 3_600_000, None]
    assert store.records("rooms", []).found_N.tolist() == []


def test_streamers_and_products_are_known_from_their_rooms(store):
    streamers = store.records("streamers", [102, 101, 103])
    assert streamers.found_N.tolist() == [True, True, False]
    assert column(streamers, "streamer.fans") == [None, 5000, None]
    assert column(streamers, "streamer_impressions.life") == [500, 400, None]
    assert not streamers.has("room_entries.life")
    assert column(store.records("products", [8, 7]), "product.price") == [2.5, 1.5]


def test_large_ids_and_negative_ones_are_kept_apart(prepared, tmp_path):
    ids = [2**53, 2**53 + 1, -1, 2**62]
    table = pa.table({"room_id": ids, "state.product_id": [2**53 + 1, 2**53, -5, 2**62 + 1]})
    pq.write_table(table, prepared.snapshot("rooms")[0])
    store = Store(build_store(noted_anew(prepared.path), tmp_path / "large"))
    assert column(store.records("rooms", ids), "state.product_id") == [2**53 + 1, 2**53, -5, 2**62 + 1]
    store.close()


def test_files_may_differ_in_columns_and_types(prepared, tmp_path):
    more = pa.table({"room_id": [21], "state.product_id": pa.array([3], pa.int32()), "streamer.fans": [1.5]})
    pq.write_table(more, prepared.snapshot("rooms")[0].with_name("part-1.parquet"))
    store = Store(build_store(noted_anew(prepared.path), tmp_path / "mixed"))
    records = store.records("rooms", [21, 11])
    assert column(records, "streamer.fans") == [1.5, 5000.0]
    assert column(records, "streamer_id") == [None, 101] and column(records, "state.product_id") == [3, 7]
    store.close()


def test_building_again_keeps_the_store_unless_the_data_changed(prepared, tmp_path):
    path = build_store(prepared, tmp_path / "store")
    before = (path / "data.mdb").stat()
    build_store(prepared, path)
    after = (path / "data.mdb").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    reader = Store(path)
    assert reader.is_current(path)
    build_store(dataclasses.replace(prepared, manifest=dataclasses.replace(prepared.manifest, fingerprint="other")), path)
    assert not reader.is_current(path)
    assert reader.user(1) is not None  # the replaced store stays readable for who has it open
    other = Store(path)
    assert other.fingerprint == "other" and reader.fingerprint == "abc"
    reader.close()
    other.close()


def test_what_is_no_store_is_not_replaced_by_one(prepared, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "thesis.txt").write_text("my only copy")
    with pytest.raises(ConfigError, match=r"store holds files that are of no store: thesis\.txt\. Move them, or delete"):
        build_store(prepared, folder)
    assert (folder / "thesis.txt").read_text() == "my only copy"
    (folder / "thesis.txt").rename(folder / "data.mdb")  # a store that was not copied whole
    Store(build_store(prepared, folder)).close()
    (folder / "store.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"store\.json is damaged .*Delete the folder; it is built again"):
        build_store(prepared, folder)


def test_a_limit_on_the_size_of_files_is_told(prepared, tmp_path):
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
    try:
        with pytest.raises(ConfigError, match=r"store could not be written .*ulimit -f"):
            build_store(prepared, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob("*store*"))


def test_a_finished_store_is_served_without_writing_beside_it(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "prepared_of", lambda experiment: prepared)
    experiment = SimpleNamespace(folder=tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / ".store.claim").mkdir()  # so that nobody can claim it, as on a disk that can only be read
    with pytest.raises(OSError):
        steps.store_of(experiment)
    build_store(prepared, tmp_path / "store" / "abc")
    assert steps.store_of(experiment) == tmp_path / "store" / "abc"


def test_each_preparation_has_a_store_of_its_own_and_three_are_kept_and_what_is_read(prepared, tmp_path, monkeypatch, capsys):
    experiment = SimpleNamespace(folder=tmp_path)

    def built(*names: str) -> list[str]:
        for name in names:
            manifest = dataclasses.replace(prepared.manifest, fingerprint=name)
            monkeypatch.setattr(steps, "prepared_of", lambda _, made=manifest: dataclasses.replace(prepared, manifest=made))
            number = ord(name[0])
            os.utime(steps.store_of(experiment) / "store.json", (number, number))
        return sorted(path.name for path in (tmp_path / "store").iterdir())

    before = Store(build_store(prepared, tmp_path / "store" / "abc"))
    os.utime(tmp_path / "store" / "abc" / "store.json", (0, 0))
    assert built("b", "c", "d") == ["abc", "b", "c", "d"]  # a replica that starts anew must find what is served
    assert before.user(1) is not None and not capsys.readouterr().out
    before.close()
    assert built("e") == ["c", "d", "e"]
    assert capsys.readouterr().out.count("Removed the store") == 2
    dropped = Store(tmp_path / "store" / "c")
    del dropped  # without a word
    gc.collect()
    assert built("f") == ["d", "e", "f"]


def test_a_store_built_anew_in_its_place_is_another_one(prepared, tmp_path):
    opened = Store(build_store(prepared, tmp_path / "store"))
    shutil.rmtree(tmp_path / "store")
    assert not opened.is_current(tmp_path / "store")
    anew = Store(build_store(prepared, tmp_path / "store"))  # while the other one is read on
    assert not opened.is_current(tmp_path / "store") and anew.is_current(tmp_path / "store")
    assert anew.user(1) is not None and opened.user(1) is not None
    anew.close()
    assert opened.user(1) is not None
    opened.close()


@pytest.mark.parametrize("text", ["{}", '{"layout": 4}', '{"layout": 4, "data": 3}', '{"layout": null}', "[]", "{", ""])
def test_a_damaged_note_of_a_store_is_one_line(prepared, tmp_path, text):
    meta = build_store(prepared, tmp_path / "store") / "store.json"
    meta.write_text(text)
    with pytest.raises(ConfigError, match=r"(is damaged|has layout None)"):
        Store(tmp_path / "store")
    whole = {"layout": LAYOUT, "fingerprint": "a", "as_of": 1, "rooms": {}, "data": {"bytes": 0, "xxh64": ""}}
    meta.write_text(json.dumps({**whole, "data": {"bytes": (tmp_path / "store" / "data.mdb").stat().st_size}}))
    with pytest.raises(ConfigError, match=r"is damaged: store.json does not hold what it has to\. Copy the store again"):
        Store(tmp_path / "store", verify=False)


def test_a_store_that_is_not_whole_is_one_line(prepared, tmp_path):
    """Before a page of it is mapped: past the end of a file that would kill the process, and in a damaged page it may."""
    data = build_store(prepared, tmp_path / "store") / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match=rf"is not whole: data.mdb has {len(whole) - 1:,} of {len(whole):,} bytes. Copy"):
        Store(data.parent)
    middle = len(whole) // 2
    data.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ConfigError, match=r"is damaged: data.mdb is not what was written \(its xxh64 differs\)"):
        Store(data.parent)
    data.unlink()
    with pytest.raises(ConfigError, match=r"is not whole: data.mdb is missing"):
        Store(data.parent)
    data.write_bytes(whole)
    opened = Store(data.parent)
    assert opened.user(1) is not None and opened.as_of == prepared.manifest.ending
    opened.close()


def test_a_build_that_failed_leaves_no_store(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.serve.store._rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_store(prepared, tmp_path / "store")
    assert not list(tmp_path.glob("*store*"))
    with pytest.raises(ConfigError, match="there is no store"):
        Store(tmp_path / "store")


def test_another_process_reads_the_same_store_at_the_same_time(store):
    code = "import sys, pathlib; from pipelines.serve.store import Store; "
    code += "print(Store(pathlib.Path(sys.argv[1])).user(1).plain.column('user_entries')[0][0])"
    answer = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "9" and column(store.user(1).plain, "user_entries") == [9]


def test_no_snapshot_is_told(prepared, tmp_path):
    prepared.snapshot("rooms")[0].unlink()
    with pytest.raises(ConfigError, match="has no snapshot of rooms"):
        build_store(prepared, tmp_path / "store")


def test_records_of_many_rooms_are_one_array(store):
    records = store.records("rooms", [11, 12] * 500)
    values, known = records.column("room_impressions.life")
    assert values.dtype == np.int64 and values.sum() == 500 * 90 and known.all()
