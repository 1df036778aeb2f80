"""Ids: what passes through, what is hashed, and that the hash never changes."""

from decimal import Decimal

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
    # 0xD24EC4F1A98C6E5B is xxHash64 of "a" with seed 0, as its reference implementation prints it
    assert as_ids(pa.array(["a"])).to_pylist() == [0xD24EC4F1A98C6E5B - 2**63]
    words = ["room-1", "ø", "room-1", None]
    expected = [None if word is None else xxhash.xxh64(word.encode()).intdigest() % 2**63 for word in words]
    assert as_ids(pa.array(words)).to_pylist() == expected
    assert min(value for value in expected if value is not None) >= 0


def test_an_empty_text_names_nothing():
    assert as_ids(pa.array(["", "a"])).is_valid().to_pylist() == [False, True]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b", "a"], pa.large_string()),
        pa.array(["a", None, "b", "a"], pa.string_view()),
        pa.array([b"a", None, b"b", b"a"], pa.binary()),
        pa.array([b"a", None, b"b", b"a"]).dictionary_encode(),
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


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 2), pa.decimal256(50, 1)])
def test_numbers_with_a_point_are_ids_where_all_are_whole(kind):
    """As pandas writes integers with gaps, and warehouses all integers."""
    numbers = pa.array([3, None, 5], pa.int8()).cast(kind)
    assert as_ids(numbers).to_pylist() == [3, None, 5]
    assert as_ids(pa.array([3.0, float("nan")])).to_pylist() == [3, None]


@pytest.mark.parametrize(("number", "said"), [(1.5, "1.5"), (2.0**53, "9007199254740992"), (float("inf"), "inf")])
def test_floats_that_are_not_whole_or_may_have_lost_digits_are_refused(number, said):
    with pytest.raises(ValueError, match=rf"ids are whole numbers, but this column of type double holds {said};"):
        as_ids(pa.array([1.0, number]))
    with pytest.raises(ValueError, match="holds fractions"):
        as_ids(pa.array([Decimal("1.5")]))


def test_integers_beyond_int64_go_by_their_digits():
    large = as_ids(pa.array([2**63, 7], pa.uint64())).to_pylist()
    assert large == [*as_ids(pa.array([str(2**63)])).to_pylist(), 7]
    assert as_ids(pa.array([Decimal(2**63)], pa.decimal128(20, 0))).to_pylist() == large[:1]


def test_both_spellings_of_an_id_are_that_of_the_log():
    """A log of integers takes the text that JavaScript has to send; a log of texts takes the integer that JSON may hold."""
    number = 7_300_000_000_000_000_001  # beyond 2**53
    assert as_ids(pa.array([str(number)]), "integer").to_pylist() == [number]
    assert as_ids(pa.array([number]), "text").to_pylist() == as_ids(pa.array([str(number)])).to_pylist()
    assert (
        as_ids(pa.array([str(2**63)]), "integer").to_pylist() == as_ids(pa.array([2**63], pa.uint64()), "integer").to_pylist()
    )
    strange = ["07", "+7", "7.0", "a"]  # nobody writes an integer like that: these are other ids
    assert as_ids(pa.array(strange), "integer").to_pylist() == as_ids(pa.array(strange)).to_pylist()


def test_what_names_nothing_is_refused():
    with pytest.raises(ValueError, match="ids are integers or strings, got a column of type bool"):
        as_ids(pa.array([True]))
