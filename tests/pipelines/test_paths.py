"""Paths and names of folders as people spell them."""

from pathlib import Path

import pytest

from models.config import ConfigError
from pipelines.paths import folder_name, local, without_paths


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("/data/logs", "/data/logs"),
        ("/data/logs/", "/data/logs"),
        ("../logs", "../logs"),
        ("file:///data/logs", "/data/logs"),
        ("FILE:///data/logs", "/data/logs"),
        ("file://localhost/data/live%20logs", "/data/live logs"),
        ("file:/data/logs", "/data/logs"),
        ("~/logs", "/home/ann/logs"),
        ("~", "/home/ann"),
        ("/data/~/100%", "/data/~/100%"),
        ("/data/$HOME", "/data/$HOME"),
        ("$", "$"),
        ("a:b/c", "a:b/c"),
        ("C:/logs", "C:/logs"),
    ],
)
def test_a_path_is_what_its_writer_meant(spelled, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert local(spelled) == Path(meant)


@pytest.mark.parametrize(
    ("spelled", "told"),
    [
        ("s3://bucket/logs", "`s3://bucket/logs` lies in storage of its own (s3)"),
        ("s3:/bucket/logs", "(s3)"),  # as pathlib writes it
        ("hdfs:///logs", "(hdfs)"),
        ("abfss://box@account.dfs.core.windows.net/logs", "(abfss)"),
        ("https://host/logs", "(https)"),
        ("file://host/data", "names the machine `host`"),
        ("file:relative", None),
        ("~nobody_of_this_name/logs", "its home folder is not known"),
        ("logs\0", "a null character"),
        (" s3://bucket/logs", "(s3)"),
        ("", "a path is empty"),
        ("$HOME/logs", "`$HOME`, and variables are not filled in"),
        ("${RUNS}/logs", "`${RUNS}`, and variables are not filled in"),
        ("logs\udce9", "a path that is not UTF-8"),
    ],
)
def test_what_is_no_folder_here_is_refused_as_such(spelled, told):
    if told is None:
        assert local(spelled) == Path(spelled)
        return
    with pytest.raises(ConfigError) as error:
        local(spelled)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "name", ["run", "2026-11-29", "20261129", "no", "1e3", "a b", "~", "-x", "a..b", "run.1", "直播", "a" * 150]
)
def test_one_word_of_a_path_is_a_name(name):
    assert folder_name(name) == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "it is empty"),
        (".", "begins with a dot"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ("../up", "holds a `/`"),
        ("a\\b", "holds a `/`, a `\\`"),
        ("a\nb", "cannot be seen"),
        ("a\0", "cannot be seen"),
        (" run", "a space"),
        ("run ", "a space"),
        ("直" * 51, "more than 150 bytes"),
    ],
)
def test_anything_else_is_refused_with_its_reason(name, told):
    with pytest.raises(ConfigError) as error:
        folder_name(name)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/data/bundles/mmoe is damaged.", "mmoe is damaged."),
        ("there is no bundle at '/data/my bundles/mm oe'", "there is no bundle at 'mm oe'"),
        ("`~ann/x/1/` and ~/y and ../z/q, or ./w", "`1` and y and q, or w"),
        ("logs.path=/data/logs --seed 1", "logs.path=logs --seed 1"),
        ("[Errno 2] No such file: PosixPath('/a/b'), \"/c/d e\"", "[Errno 2] No such file: PosixPath('b'), \"d e\""),
        ("file:///data/a file://localhost/data/b (/data/c): /data/d", "a b (c): d"),
        ("/data//x/ /", "x /"),
        ("//data/x and ///data/y", "x and y"),
        ("clicks/hour, 1/2, and/or, https://ray.io/serve, s3://bucket/x", None),
    ],
)
def test_of_a_path_its_last_name_is_told(text, told):
    assert without_paths(text) == (text if told is None else told)
