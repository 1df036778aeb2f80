"""Many small files: few tasks, footers read once, the same tables."""

from pipelines.logs import canonical
from pipelines.prepare.clean import EVENTS, OPENING, chunks_of
from pipelines.steps import logs_of
from tests.pipelines.on_stores import experiment
from tests.pipelines.small_files import crumbled, prepared_of


def test_crumbs_make_few_tasks_and_the_same_tables(tmp_path, monkeypatch):
    logs = logs_of(experiment(tmp_path / "few"))
    small = crumbled(logs, tmp_path / "crumbs", 20)
    files = {table: len(small.files(table)) for table in EVENTS}
    assert sum(files.values()) > 300
    assert [(chunk.name, len(chunk.pieces)) for chunk in chunks_of(small, 500_000)] == [
        (f"{table}-00000", files[table]) for table in EVENTS
    ]
    looked: list[str] = []
    read = canonical.read_footer

    def read_footer(file):
        looked.append(str(file))
        return read(file)

    monkeypatch.setattr(canonical, "read_footer", read_footer)
    few, crumbs = prepared_of(tmp_path / "one", logs), prepared_of(tmp_path / "two", small)
    assert crumbs.notes == few.notes
    counted = [sum(file == str(each) for file in looked) for each in small.files("impressions")]
    assert set(counted) == {2}  # when the logs are taken, and when they are prepared


def test_tasks_end_by_rows_and_by_bytes_whatever_the_files_are(tmp_path, monkeypatch):
    small = crumbled(logs_of(experiment(tmp_path / "few")), tmp_path / "crumbs", 20)
    rows = small.rows("engagements")
    chunks = chunks_of(small, 100, ("engagements",))
    assert len(chunks) == -(-rows // 100) and {len(chunk.pieces) for chunk in chunks[:-1]} == {5}
    assert [piece.file.path for chunk in chunks for piece in chunk.pieces] == small.files("engagements")
    monkeypatch.setattr("pipelines.prepare.clean.CHUNK_BYTES", 3 * OPENING)
    assert max(len(chunk.pieces) for chunk in chunks_of(small, 500_000, ("engagements",))) == 3
