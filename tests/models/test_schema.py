"""The contract: spelled both ways, contradictions refused by name."""

import json

import pytest

from models.config import ConfigError, from_dict, to_dict
from models.schema import Field, Hash, History, HistoryField, Number, Schema, Target


def spelling(**changes):
    """A small valid schema as JSON would hold it."""
    return {
        "fields": [
            {"name": "user", "of": "feed", "column": "user_id", "encoding": {"kind": "hash", "buckets": 100}},
            {"name": "room", "of": "candidate", "column": "room_id"},
            {"name": "rate", "of": "candidate", "column": "room_entry_rate.1h", "encoding": {"kind": "number"}},
        ],
        "histories": [{"name": "channels", "events": "engagements", "fields": [{"name": "room", "column": "room_id"}]}],
        "targets": [
            {"name": "order", "action": "order", "parents": ["goods_bag"]},
            {"name": "goods_bag", "action": "goods_bag", "parents": ["click"]},
            {"name": "click", "action": "enter"},
        ],
        **changes,
    }


def test_json_both_ways(tiny_schema):
    for schema in (tiny_schema, Schema.from_dict(spelling())):
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_left_out_names_default_to_the_fields_own():
    schema = Schema.from_dict(spelling())
    assert schema.fields[0].table == "user" and schema.fields[0].encoding == Hash(buckets=100)
    assert Field(name="hour", of="feed").column == "hour"
    assert Field(name="rate", of="feed", encoding=Number()).table == ""


def test_parents_stand_before_their_children():
    schema = Schema.from_dict(spelling())
    assert [target.name for target in schema.targets_parents_first] == ["click", "goods_bag", "order"]
    assert schema.target_names == ("order", "goods_bag", "click")  # declaration order stays
    assert schema.parents("order") == ("goods_bag",)


def test_matches_pair_history_and_candidate_by_table(tiny_schema):
    pairs = [(item.name, field.name) for item, field in tiny_schema.matches("channels")]
    assert pairs == [("room", "room"), ("streamer", "streamer"), ("category", "category")]  # `stay` has no counterpart


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"targets": [{"name": "a", "action": "x", "parents": ["b"]}]}, "target `a` has parent `b`, which is not a target"),
        (
            {
                "targets": [
                    {"name": "a", "action": "x", "parents": ["b"]},
                    {"name": "b", "action": "x", "parents": ["a"]},
                    {"name": "c", "action": "x"},
                ]
            },
            "form a cycle: a, b",
        ),
        ({"targets": []}, "at least one target"),
        (
            {"histories": [{"name": "h", "events": "product_clicks", "fields": [{"name": "product"}]}]},
            "history `h` shares no table with a candidate field",
        ),
        ({"fields": [{"name": "room", "of": "candidate"}, {"name": "room", "of": "feed"}]}, "fields: named twice: room"),
        (
            {"histories": [{"name": "h", "events": "engagements", "fields": [{"name": "room", "width": 8}]}]},
            "table `room` is declared twice",
        ),
        (
            {"histories": [], "fields": [{"name": "r", "of": "candidate", "column": "feed_rank.room_impressions.1h"}]},
            "list_context: true",
        ),
        (
            {"histories": [], "fields": [{"name": "p", "of": "candidate", "column": "position"}]},
            "not known when a feed is to be ranked",
        ),
        ({"fields": [{"name": "a b", "of": "feed"}]}, "field name 'a b' must start with a letter from a to z"),
        ({"fields": [{"name": "a", "of": "feed", "encoding": {"kind": "hash", "buckets": 1}}]}, "at least 2 buckets, got 1"),
        ({"fields": [{"name": "a", "of": "feed", "encoding": {"kind": "number"}, "width": 3}]}, "neither table nor width"),
        ({"levels": {"names": ["a", "b"], "shares": [0.5, 0.6]}}, "summing to 1"),
        ({"targets": [{"name": "t", "action": "x", "kind": "value", "at_least": 3}]}, "`at_least` is for binary targets"),
        ({"targets": [{"name": "t", "action": "x", "head": "log1p"}]}, "`head` and `bins` are for values"),
        ({"targets": [{"name": "t", "action": "x", "kind": "value", "bins": 3}]}, "`bins` is for `head: bins` and at least 2"),
        ({"fieldz": []}, "`schema.fieldz` is not a known key. Known here: fields, histories, targets, levels, list_context"),
        ({"targets": [{"name": "t", "action": "x", "weight": 3}]}, "`schema.targets.0.weight` is not a known key"),
        ({"targets": [{"name": "t"}]}, "`schema.targets.0.action` is missing"),
    ],
)
def test_contradictions_are_refused_by_name(changes, told):
    with pytest.raises(ConfigError) as error:
        Schema.from_dict(spelling(**changes))
    assert told in str(error.value)


def test_list_context_is_allowed_where_declared():
    fields = [*spelling()["fields"], {"name": "size", "of": "feed", "column": "feed_size", "encoding": {"kind": "number"}}]
    assert Schema.from_dict(spelling(fields=fields, list_context=True)).list_context


@pytest.mark.parametrize(
    ("column", "is_state"),
    [
        ("state.viewers", True),
        ("product.price_band", True),
        ("room_impressions.1h", True),
        ("room_entries.10m", True),
        ("room_entry_rate.life", True),
        ("room_age_hours", True),
        ("feed_rank.room_entries.1h", True),
        ("feed_rank.state.viewers", True),
        ("feed_rank.room_age_hours", True),
        ("room_id", False),
        ("room.category", False),
        ("room_age", False),
        ("streamer_entries.1h", False),
        ("pair_room_impressions", False),
        ("feed_rank.pair_room_hours", False),
        ("statement", False),
    ],
)
def test_the_rooms_state_is_known_by_its_columns(column, is_state):
    assert Field(name="a", of="candidate", column=column).is_room_state == is_state
    assert not Field(name="a", of="feed", column=column).is_room_state


def test_asking_for_an_unknown_target_lists_the_known(tiny_schema):
    with pytest.raises(KeyError, match="no target `buy`; there are: click, goods_bag, order, stay"):
        tiny_schema.target("buy")


def test_history_numbers_are_refused():
    with pytest.raises(ValueError, match="use encoding `bins`"):
        HistoryField(name="stay", encoding=Number())
    with pytest.raises(ValueError, match="length of at least 1"):
        History(name="h", events="engagements", length=0, fields=(HistoryField(name="room"),))


def test_schema_is_frozen(tiny_schema):
    with pytest.raises(AttributeError):
        tiny_schema.list_context = True
    with pytest.raises(AttributeError):
        Target(name="t", action="x").loss_weight = 2.0


@pytest.mark.parametrize(
    ("spelling", "head"),
    [
        ({"transform": "log1p"}, {"head": "log1p"}),
        ({"transform": "none"}, {"head": "linear"}),
        ({"transform": "log1p", "bins": 4}, {"head": "bins", "bins": 4}),
    ],
)
def test_a_head_may_be_spelled_as_it_was_before(spelling, head):
    stay = {"name": "stay", "action": "enter", "kind": "value"}
    target = from_dict(Target, {**stay, **spelling})
    assert target == from_dict(Target, {**stay, **head}) and "transform" not in to_dict(target)
    with pytest.raises(ConfigError, match=r"`transform` is what `head` was called before\. Leave `head` alone"):
        from_dict(Target, {**stay, **spelling, "head": "linear"})
