"""Ali-CCP as canonical logs, and what becomes of a log without times."""

from dataclasses import replace

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import ConfigError, from_dict, to_dict
from models.schema import Field, History, HistoryField, Levels, Number, Schema, Stages, Target, Vocabulary
from pipelines.logs import AliCcpConfig, CanonicalLogs, Work, as_ids, check, materialise
from pipelines.logs.sources.ali_ccp import _OTHER_SPLIT, read_lists
from pipelines.prepare import PrepareConfig, prepare
from tests.pipelines.public_logs import ALI_CCP, write_sample

FIRST, SECOND = as_ids(pl.Series(["bacff91692951881", "2ba5ff5de4dc0c5b"]).to_arrow()).to_pylist()
CONFIG = PrepareConfig(parallel="none")


def converted(tmp_path, limit=0.01, **changed):
    folder = write_sample("ali_ccp", tmp_path / "in", **changed)
    return materialise(AliCcpConfig(path=folder, valid_share=0.4), tmp_path / "out", Work(limit=limit))


def test_a_page_view_is_a_feed_and_the_given_split_is_kept(tmp_path, capsys):
    logs = converted(tmp_path)
    impressions = pl.read_parquet(logs.files("impressions"))
    names = ["request_id", "user_id", "room_id", "split", "context.f121", "context.f129", "state.f206", "state.f508"]
    rows = impressions.sort("split", "request_id", "room_id").select(names).rows()
    valid, train = (
        (FIRST, SECOND) if impressions.filter(pl.col("split") == "valid")["request_id"][0] == FIRST else (SECOND, FIRST)
    )
    by_hand = {
        FIRST: [(FIRST, 31, 4535, 3, None, 77, 9), (FIRST, 31, 4536, 3, None, None, None)],
        SECOND: [(SECOND, 32, 4535, None, 4, None, None)],
    }
    test = FIRST ^ _OTHER_SPLIT
    expected = [(test, 31, 4535, "test", 3, None, None, None)]
    expected += [(*row[:3], split, *row[3:]) for split, index in (("train", train), ("valid", valid)) for row in by_hand[index]]
    assert rows == expected
    split = {train: "train", valid: "valid"}
    assert sorted(pl.read_parquet(logs.files("engagements")).rows()) == sorted(
        [
            (FIRST, 31, 4536, split[FIRST], "enter"),
            (FIRST, 31, 4536, split[FIRST], "order"),
            (SECOND, 32, 4535, split[SECOND], "enter"),
            (test, 31, 4535, "test", "enter"),
        ]
    )
    assert "pages left out (no sample has its index: 1)" in capsys.readouterr().out


def test_samples_that_contradict_themselves_are_told_apart(tmp_path):
    good = ALI_CCP["sample_skeleton_train.csv"]
    lines = good + "4,0,1,bacff91692951881,1,205\x024535\x031.0\n5,0,0,bacff91692951881,1,206\x0277\x031.0\n"
    lines += (
        "6,0,0,bacff91692951881,2,205\x024535\x031.0\n7,0,0,bacff91692951881,1,205\x024x\x031.0\n8,0,0,beef,1,205\x021\x031.0\n"
    )
    logs = converted(tmp_path, limit=0.9, sample_skeleton_train=lines)
    bad = pl.concat(map(pl.read_parquet, (tmp_path / "out" / "quarantine").glob("*.parquet"))).sort("row", nulls_last=True)
    assert bad.select("row", "reason").rows() == [
        (3, "bought and not clicked"),
        (4, "no item (field 205)"),
        (5, "the list of features is damaged"),
        (6, "the list of features is damaged"),
        (None, "its page view is not there"),
    ]
    assert bad["text"][4] == "sample 8"
    assert len(pl.read_parquet(logs.files("impressions"))) == 4


def test_swapped_columns_of_labels_are_refused(tmp_path):
    rows = [line.split(",") for line in ALI_CCP["sample_skeleton_train.csv"].splitlines()]
    swapped = "".join(",".join([row[0], row[2], row[1], *row[3:]]) + "\n" for row in rows)
    with pytest.raises(ConfigError, match=r"1 of 3 rows of sample_skeleton_train\.csv make no sense .*bought and not"):
        converted(tmp_path, sample_skeleton_train=swapped)


LIST = st.lists(
    st.tuples(st.sampled_from(["101", "205", "206", "109_14", "20"]), st.integers(0, 10**12), st.just("1.0")), max_size=6
)


@given(st.lists(st.one_of(LIST, st.text("\x01\x02\x03205,.x", max_size=12)), min_size=1, max_size=8))
def test_lists_are_read_as_python_would(lists):
    """Against splitting, list by list; what splitting cannot read is damaged."""
    texts = [each if isinstance(each, str) else "\x01".join(f"{f}\x02{v}\x03{w}" for f, v, w in each) for each in lists]
    lengths = [len(text.split("\x01")) if text else 0 for text in texts]
    found, broken = read_lists(pl.Series(texts, dtype=pl.String), pl.Series(lengths), (205, 206))
    for row, text in enumerate(texts):
        try:
            parts = [part.split("\x02") for part in text.split("\x01")] if text else []
            split = [(field, *rest.split("\x03")) for field, rest in parts]
            assert all(len(part) == 3 and part[0] and part[1] and "\x03" not in part[0] for part in split)
            values = {name: next((part[1] for part in split if part[0] == name), "-1") for name in ("205", "206")}
            assert all(part[1].isascii() and part[1].isdigit() for part in split if part[0] in ("205", "206"))
        except (ValueError, AssertionError):
            assert broken[row], text
            continue
        assert not broken[row], text
        assert [found[205][row], found[206][row]] == [int(values["205"]), int(values["206"])]


def timeless(folder, **changed):
    """Four feeds of a log without times: two to train on, one of each other split."""
    impressions = pl.DataFrame(
        {
            "request_id": [1, 1, 2, 3, 4],
            "user_id": [7, 7, 8, 7, 9],
            "room_id": [70, 71, 70, 71, 70],
            "split": ["train", "train", "train", "valid", "test"],
            "context.device": ["ios", "ios", "web", "ios", "web"],
        }
    )
    acts = {"request_id": [1, 3, 4], "user_id": [7, 7, 9], "room_id": [71, 71, 70], "action": ["enter"] * 3}
    acts["split"] = ["train", "valid", "test"]
    for name, table in {"impressions": impressions, "engagements": pl.DataFrame(acts), **changed}.items():
        folder.mkdir(parents=True, exist_ok=True)
        table.write_parquet(folder / f"{name}.parquet")
    return CanonicalLogs(folder)


def schema(**more):
    word = Vocabulary(min_count=1)
    fields = [
        Field(name="room", of="candidate", column="room_id", encoding=word),
        Field(name="device", of="feed", column="context.device", encoding=word),
    ]
    fields += more.pop("fields", [])
    targets = (Target(name="click", action="enter"), Target(name="stay", action="enter", kind="value"))
    return Schema(fields=tuple(fields), targets=targets, **{"levels": Levels(of="room"), **more})


def test_a_log_without_times_keeps_its_split(tmp_path, capsys):
    logs = timeless(tmp_path / "logs")
    assert not logs.has_times and check(logs) == []
    prepared = prepare(logs, schema(), CONFIG, tmp_path / "out")
    labels = {}
    for split in ("train", "valid", "test"):
        feeds = pq.read_table(prepared.files(split))
        labels[split] = sorted(zip(feeds["user_id"].to_pylist(), feeds["label.click"].to_pylist(), strict=True))
    assert labels == {"train": [(7, [0.0, 1.0]), (8, [0.0])], "valid": [(7, [1.0])], "test": [(9, [1.0])]}
    told = "the log has no times: its own split is kept (2001-01-01 for train, 2001-01-02 for valid, 2001-01-03 for test)"
    assert told in capsys.readouterr().out
    assert prepared.manifest.remarks[0].startswith(told)
    assert prepared.manifest.counts.unattributed_engagements == 0


def test_rows_of_a_log_without_times_that_belong_to_no_request_or_split_are_kept_apart(tmp_path):
    """All of a split is of one moment, so without a request they would be one feed of a user, and repeat each other."""
    more = pl.DataFrame(
        {
            "request_id": [None, None, 5, 6],
            "user_id": [7, 7, 7, 7],
            "room_id": [70, 70, 70, 70],
            "split": ["train", "train", "dev", None],
            "context.device": ["web"] * 4,
        }
    )
    first = pl.read_parquet(timeless(tmp_path / "plain").files("impressions"))
    acts = pl.DataFrame({"request_id": [1, None], "user_id": [7, 8], "room_id": [71, 70], "action": ["enter"] * 2})
    acts = acts.with_columns(pl.lit("train").alias("split"))
    logs = timeless(tmp_path / "logs", impressions=pl.concat([first, more]), engagements=acts)
    prepared = prepare(logs, schema(), replace(CONFIG, quarantine_limit=0.9), tmp_path / "out")
    account = prepared.manifest.counts.account
    assert account["impressions"].quarantined == {"missing id, time or action": 4} and account["impressions"].kept == 5
    assert account["engagements"].quarantined == {"missing id, time or action": 1} and account["engagements"].kept == 1
    labels = pq.read_table(prepared.files("train"))
    assert sorted(zip(labels["user_id"].to_pylist(), labels["label.click"].to_pylist(), strict=True)) == [
        (7, [0.0, 1.0]),
        (8, [0.0]),
    ]


WORD = Vocabulary(min_count=1)
PAST = History(
    name="past", events="engagements", fields=(HistoryField(name="room", column="room_id", table="room", encoding=WORD),)
)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fields": [Field(name="hour", of="feed", encoding=WORD)]}, r"field `hour` reads `hour`, but the log has no times"),
        (
            {"fields": [Field(name="rate", of="candidate", column="room_entry_rate.1h", encoding=Number())]},
            r"field `rate` reads `room_entries\.1h`, but the log has no times: .* Take it out of the schema",
        ),
        (
            {"fields": [Field(name="pref", of="feed", column="preference.click", encoding=Number())]},
            r"field `pref` reads `preference\.click`, but the log has no times",
        ),
        ({"histories": (PAST,)}, r"history `past` asks what a user did before, but the log has no times"),
        (
            {"stages": Stages(click="click", stay="stay", order="click")},
            r"`schema\.stages` sorts users by what they did before",
        ),
        (
            {"levels": Levels(column="room_impressions.life")},
            r"`room_impressions\.life` is asked for, but the log has no times",
        ),
    ],
)
def test_what_asks_for_a_time_is_refused_by_name(tmp_path, more, message):
    with pytest.raises(ConfigError, match=message):
        prepare(timeless(tmp_path / "logs"), schema(**more), CONFIG, tmp_path / "out")


def test_a_split_is_for_logs_without_times_alone(tmp_path):
    row = {"request_id": [1], "user_id": [7], "room_id": [70], "split": ["train"]}
    both = pl.DataFrame({**row, "shown_at": [1_700_000_000_000]})
    with pytest.raises(ConfigError, match=r"has a column `shown_at`, but impressions say their `split`, which only a log"):
        check(timeless(tmp_path / "a", impressions=both))
    acts = pl.DataFrame({**row, "action": ["enter"]})
    for column in ("request_id", "split"):
        with pytest.raises(ConfigError, match=rf"engagements\.parquet: column `{column}` .* is missing"):
            check(timeless(tmp_path / column, engagements=acts.drop(column)))
    logs = timeless(tmp_path / "c")
    with pytest.raises(ConfigError, match=r"the log has no times: .*, so prepare\.valid_days is 1, and prepare\.test_days 1"):
        prepare(logs, schema(), from_dict(PrepareConfig, {**to_dict(CONFIG), "test_days": 2}), tmp_path / "out")


def test_a_word_that_names_no_split_is_a_malformed_row(tmp_path):
    rows = pl.read_parquet(timeless(tmp_path / "a").files("impressions"))
    more = pl.concat([rows, rows.head(1).with_columns(request_id=pl.lit(5, pl.Int64), split=pl.lit("dev"))])
    config = from_dict(PrepareConfig, {**to_dict(CONFIG), "quarantine_limit": 0.5})
    prepared = prepare(timeless(tmp_path / "b", impressions=more), schema(), config, tmp_path / "out")
    account = prepared.manifest.counts.account["impressions"]
    assert (account.quarantined, account.kept) == ({"missing id, time or action": 1}, 5)
