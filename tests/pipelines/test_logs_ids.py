"""Ids: what passes through, what is hashed, and that the hash never changes."""

import pyarrow as pa
import pytest
import xxhash

from pipelines.logs.ids import as_ids


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.int64(), pa.uint64()])
def test_integers_pass_through_and_null_stays_null(kind):
    ids = as_ids(pa.array([3, None, 5], kind))
    assert ids.type == pa.int64()
    assert ids.to_pylist() == [3, None, 5]


def test_large_integers_are_not_rounded():
    large = 2**53 + 1  # the first integer that a float64 loses
    assert as_ids(pa.array([large])).to_pylist() == [large]


def test_strings_hash_to_the_published_xxh64_without_its_sign_bit():
    # 0xEF46DB3751D8E999 is xxHash64 of nothing with seed 0, in the algorithm's own documentation
    assert as_ids(pa.array([""])).to_pylist() == [0xEF46DB3751D8E999 - 2**63]
    words = ["room-1", "ø", "room-1", None]
    expected = [None if word is None else xxhash.xxh64(word.encode()).intdigest() % 2**63 for word in words]
    assert as_ids(pa.array(words)).to_pylist() == expected
    assert min(value for value in expected if value is not None) >= 0


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b", "a"], pa.large_string()),
        pa.array(["a", None, "b", "a"]).dictionary_encode(),
        pa.chunked_array([["a", None], ["b", "a"]]),
        pa.chunked_array([pa.array(["a", None]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()]),
    ],
)
def test_every_layout_of_the_same_strings_gives_the_same_ids(column):
    assert as_ids(column).to_pylist() == as_ids(pa.array(["a", None, "b", "a"])).to_pylist()


def test_empty_and_all_null_columns():
    assert as_ids(pa.chunked_array([], pa.string())).to_pylist() == []
    assert as_ids(pa.nulls(2)).to_pylist() == [None, None]
    assert as_ids(pa.nulls(2)).type == pa.int64()


def test_floats_are_refused():
    with pytest.raises(ValueError, match=r"ids are integers or strings, got a column of type double"):
        as_ids(pa.array([1.0]))


def test_too_large_integers_are_refused():
    with pytest.raises(ValueError, match=r"larger than int64"):
        as_ids(pa.array([2**63], pa.uint64()))
