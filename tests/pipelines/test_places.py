"""Places in a store of objects, against an S3 server over HTTP: names, whole objects, folders, claims, faults."""

import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.config import ConfigError
from pipelines import places
from pipelines.experiment import load_experiment
from pipelines.places import StoreFault, fetch, here, is_whole, place, put, put_folder
from pipelines.runs import RunFolder, claim, claims, discard, read_json, tickets, write_json, written
from pipelines.runs.exchange import ExchangeWriter, open_batches
from pipelines.runs.noted import DamagedFile, noted, there, whole
from pipelines.runs.sealed import SealedFile, SealedWriter
from tests.pipelines import on_stores
from tests.pipelines.s3 import FaultyProxy, make_bucket, reached, served


@pytest.fixture(scope="module")
def server():
    with served() as port:
        make_bucket(port)
        yield port


@pytest.fixture
def proxy(server):
    with FaultyProxy(server) as proxy, reached(proxy.port):
        yield proxy


@pytest.fixture
def folder(proxy, request):
    """An empty place."""
    return place(f"s3://shop/{request.node.name}")


# -- names -----------------------------------------------------------------------------------------------------------------


def test_a_place_is_spelled_as_a_uri_and_read_back():
    where = place("s3://shop/live%20logs/day=1?region=eu-central-1&endpoint_override=127.0.0.1:9000&scheme=http")
    assert where.name == "day=1" and where.parent.name == "live logs"
    assert str(where / "a") == ("s3://shop/live logs/day=1/a?endpoint_override=127.0.0.1:9000&region=eu-central-1&scheme=http")
    for same in (place(str(where)), pickle.loads(pickle.dumps(where)), (where / "x").parent, where.with_name("day=1")):
        assert same == where and type(same) is type(where) and str(same) == str(where)
    assert (where / "x/y").relative_to(where).as_posix() == "x/y"
    assert place("/data/logs") == Path("/data/logs") and type(place("/data/logs")) is type(Path())
    assert str(place("gcs://shop/a")) == "gs://shop/a" and str(place("s3://shop/50%25%3F")) == "s3://shop/50%25%3F"


@pytest.mark.parametrize(
    "where, told",
    [
        ("s3://key:secret@shop/logs", r"`s3://...@shop`: keys do not belong into a path"),
        ("s3:///logs", r"names no bucket. Write s3://BUCKET/FOLDER"),
        ("s3://shop/a/../b", r"names of objects have no `.` and `..`"),
        ("s3://shop/logs?acces_key=1", r"`acces_key` is no option of S3 here; there are: region, "),
        ("ftp://host/logs", r"lies in storage of its own \(ftp\)"),
    ],
)
def test_what_is_no_place_is_told_in_a_line(where, told):
    with pytest.raises(ConfigError, match=told) as caught:
        load_experiment(on_stores.CONFIG, [f"output={where}"])
    assert "secret" not in str(caught.value)


def test_what_is_meant_for_a_disk_never_finds_a_folder_called_s3(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = place("s3://shop/runs")
    for ask in (open, os.stat, os.listdir, lambda path: os.mkdir(path), lambda path: path.rename("x")):
        with pytest.raises(ConfigError, match="`s3://shop/runs` lies in a store of objects, and this needs a folder on a disk"):
            ask(where)
    lost = Path(where)  # it has lost what it is
    assert not lost.exists()
    with pytest.raises(ValueError, match="null"):
        lost.mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []


# -- objects and folders -----------------------------------------------------------------------------------------------------


def test_an_object_is_there_as_a_whole_or_not_at_all(folder):
    file = folder / "a b" / "note.json"
    assert not file.exists() and list(folder.iterdir()) == [] and not folder.is_dir()
    write_json(file, {"a": 1})
    assert file.is_file() and folder.is_dir() and file.stat().st_size == 12 and read_json(file, way_out="") == {"a": 1}
    with pytest.raises(KeyboardInterrupt), written(file) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert read_json(file, way_out="") == {"a": 1}
    put(b"", folder / "empty")
    assert (folder / "empty").read_bytes() == b""
    assert sorted(path.name for path in folder.iterdir()) == ["a b", "empty"]
    assert list(folder.glob("*/*.json")) == [file]
    with pytest.raises(FileNotFoundError):
        (folder / "none").read_bytes()


def test_a_folder_counts_once_all_of_it_is_there(folder, tmp_path, monkeypatch):
    run = RunFolder(folder, "bundle")
    for text in ("old", "new"):
        with written(folder / "bundle") as draft:
            (draft / "in").mkdir(parents=True)
            (draft / "in" / "part").write_text(text)
            (draft / f"only {text}").write_bytes(os.urandom(1 << 20))
        assert run.is_finished
    assert sorted(path.name for path in (folder / "bundle").objects()) == [".whole", "only new", "part"]
    send = places._send
    with monkeypatch.context() as patched:

        def until(content, path):
            if path.name == "second":
                raise StoreFault("gone")
            return send(content, path)

        patched.setattr(places, "_send", until)
        with pytest.raises(StoreFault), written(folder / "bundle") as draft:
            draft.mkdir()
            (draft / "first").write_text("1")
            (draft / "second").write_text("2")
    assert not run.is_finished and (folder / "bundle").is_dir()
    with written(folder / "bundle") as draft:
        draft.mkdir()
        (draft / "first").write_text("1")
    assert run.is_finished
    (folder / "bundle" / "first").write_text("2")  # by another hand
    with pytest.raises(ConfigError, match=r"bundle/first is not what was written"), here(folder / "bundle"):
        pass
    discard(folder / "bundle")
    assert not run.is_finished and list((folder / "bundle").iterdir()) == []


def test_files_are_known_again_by_their_notes(folder, tmp_path):
    content = np.random.default_rng(0).bytes(3 << 20)
    with written(folder / "table") as draft:
        draft.write_bytes(content)
    note = noted(folder / "table", folder)
    (tmp_path / "table").write_bytes(content)
    assert note == noted(tmp_path / "table", tmp_path)
    assert there(note, folder) == folder / "table"
    copy = whole(note, folder)
    assert copy.name == "table" and copy.read_bytes() == content and whole(note, folder) == copy
    (folder / "other").write_bytes(content[:-1])
    with pytest.raises(DamagedFile, match="has 3,145,727 bytes, not 3,145,728"):
        there(type(note)("other", 0, note.bytes, note.digest), folder)
    (folder / "other").write_bytes(b"x" + content[1:])
    with pytest.raises(DamagedFile, match="does not hold what was written to it"):
        whole(type(note)("other", 0, note.bytes, note.digest), folder)
    with pytest.raises(DamagedFile, match="is not there"):
        whole(type(note)("none", 0, 1, note.digest), folder)


def test_slices_and_row_groups_are_read_alone(folder, tmp_path, proxy):
    table = pa.table({"user_id": np.arange(200_000), "x": np.random.default_rng(0).random(200_000)})
    bucket = table["user_id"].to_numpy() % 50
    for where in (folder, tmp_path):
        with written(where / "sent") as draft, ExchangeWriter(draft, table.schema, 50) as writer:
            writer.write(table, bucket)
        with written(where / "feeds.parquet") as draft, SealedWriter(draft, table.schema) as sealed:
            sealed.write(table, 10_000)
        notes = [writer.note(where / "sent", where), sealed.note(where / "feeds.parquet", where)]
        if where == folder:
            kept = notes
    assert kept == notes
    requests = proxy.requests
    (batch,) = open_batches(notes[:1], folder, 7, 50)
    assert batch.equals(open_batches(notes[:1], tmp_path, 7, 50)[0]) and len(batch) == 4000
    assert proxy.requests - requests == 3  # how long it is; its index; the slice
    requests = proxy.requests
    with SealedFile(str(folder / "feeds.parquet")) as remote, SealedFile(tmp_path / "feeds.parquet") as local:
        assert remote.read_row_group(3, ["x"]).equals(local.read_row_group(3, ["x"]))
        assert proxy.requests - requests == 3  # how long it is, its end, the row group
        assert remote.read().equals(table) and remote.rows == local.rows
        assert [len(batch) for batch in remote.batches(70_000)] == [len(batch) for batch in local.batches(70_000)]
    damaged = bytearray((folder / "feeds.parquet").read_bytes())
    damaged[1000] ^= 1
    (folder / "feeds.parquet").write_bytes(damaged)
    with SealedFile(folder / "feeds.parquet") as file, pytest.raises(ConfigError, match="does not hold what was written"):
        file.read_row_group(0)


# -- claims ------------------------------------------------------------------------------------------------------------------


def test_one_process_at_a_time_works_in_a_folder(folder, monkeypatch):
    with claim(folder / "train"):
        with (
            pytest.raises(ConfigError, match=r"train is in use by process \d+ of .* Wait for its end, stop it, or"),
            claim(folder / "train"),
        ):
            pass
        with claim(folder / "report"):
            pass
    with claim(folder / "train"):
        pass
    inside, most, done = [0], [0], []

    def work() -> None:
        for _ in range(3):
            with claim(folder / "contested", patience=60):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                inside[0] -= 1
        done.append(True)

    monkeypatch.setattr(claims.random, "uniform", lambda low, high: claims.random.random() / 10)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and len(done) == 4


def test_who_died_is_followed_and_who_was_followed_is_told(folder, monkeypatch):
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.2)
    gone = {**claims.asdict(claims.this_process()), "pid": 2**22 + 1, "began": "1", "host": "there", "held": True}
    ticket = tickets.Ticket(folder / "train", gone["token"])
    ticket.put(claims.json.dumps(gone))
    said: list[str] = []
    with claim(folder / "train", say=said.append):
        assert [f"{folder / 'train'}: process {gone['pid']} of" in line for line in said] == [True]
        assert said[0].endswith("Taking over.")
    far = {**gone, "token": "b" * 16, "machine": "another"}  # whose process cannot be asked for
    ticket = tickets.Ticket(folder / "train", far["token"])
    ticket.put(claims.json.dumps(far))
    time.sleep(1.1)  # the server's times are of whole seconds
    monkeypatch.setattr(claims, "DEAD_AFTER", 0.5)
    with claim(folder / "train", say=said.append):
        assert "there" in said[-1] and said[-1].endswith("Taking over.")
    with pytest.raises(ConfigError, match=r"the claim of this process is gone, by hand or because"), claim(folder / "train"):
        for path in (folder / ".train.claim").objects():
            path.unlink()
        time.sleep(30)


# -- faults ------------------------------------------------------------------------------------------------------------------


def test_faults_of_the_network_are_waited_for(folder, proxy, tmp_path):
    proxy.share = 0.3
    for name in ("one", "two"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "tree" / name / f"{number}").write_bytes(np.random.default_rng(number).bytes(1 + number * 900_000))
    put_folder(tmp_path / "tree", folder)
    fetch(folder, tmp_path / "back")
    assert (
        on_stores.differing(
            *(
                {file.relative_to(at).as_posix(): file.read_bytes() for file in at.rglob("*") if file.is_file()}
                for at in (tmp_path / "tree", tmp_path / "back")
            )
        )
        == []
    )
    assert sum(proxy.met.values()) >= 5


def test_a_store_that_does_not_come_back_is_told_in_a_line(folder, proxy, monkeypatch):
    monkeypatch.setattr(places, "PATIENCE", 1.0)
    proxy.away = True
    with pytest.raises(StoreFault, match=r"the store has not answered for 1 s .*started again, the same command goes on"):
        folder.exists()
    proxy.away = False
    with pytest.raises(StoreFault, match=r"s3://nobody/x: the store refuses: .*NO_SUCH_BUCKET"):
        put(b"1", place("s3://nobody/x"))
    threading.Timer(1.0, lambda: setattr(proxy, "away", False)).start()
    monkeypatch.setattr(places, "PATIENCE", 60.0)
    proxy.away = True
    put(b"1", folder / "x")
    assert is_whole(folder / "x")


# -- the pipeline ------------------------------------------------------------------------------------------------------------


def test_everything_in_a_store_is_what_a_disk_has():
    """Logs, tables, weights, report, store; through faults, and a server that goes away for longer than is waited.

    LIVERANK_STORE_FAULTS=100 meets more of them.
    """
    met, runs, ended = on_stores.under_faults(int(os.environ.get("LIVERANK_STORE_FAULTS", "10")), 0.02, seed=1)
    assert met >= 10 and ended >= runs


def test_logs_in_a_store_are_read_where_they_lie(folder, tmp_path):
    on_stores.prepare_step(on_stores.experiment(tmp_path / "one"))
    logs = tmp_path / "one" / "quickstart" / "source" / "logs"
    for file in logs.rglob("*.parquet"):
        put(file, folder.joinpath(*file.relative_to(logs).parts))
    canonical = f"logs={{kind: canonical, path: '{folder}'}}"
    there = on_stores.prepare_step(on_stores.experiment(tmp_path / "two", canonical))
    here = on_stores.prepare_step(on_stores.experiment(tmp_path / "three", f"logs={{kind: canonical, path: '{logs}'}}"))
    assert there.fingerprint == here.fingerprint and there.notes == here.notes
