"""Worlds with premises of papers: at strength 0 they are the plain one, and at more each does what its paper says."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from models.config import ConfigError, from_dict
from models.metrics.expected import expected_auc
from pipelines.encode.arrays import flat
from pipelines.evaluate.truth import Truth, truth_of
from pipelines.experiment import load_experiment
from pipelines.logs import CanonicalLogs, SimulateConfig, materialise
from pipelines.logs.simulator import Chain, Intentions, Levels, Stages
from pipelines.logs.simulator.config import LEVELS, STAGES
from pipelines.logs.simulator.people import OWN, SHARED, make_world, turned
from pipelines.logs.simulator.shows import Shares
from pipelines.logs.simulator.visits import next_stages
from pipelines.prepare import prepare
from tests.pipelines.test_logs_simulate import contents

WORLDS = Path(__file__).parents[2] / "jobs" / "configs" / "worlds"
PAPER = {"shares": (0.049, 0.877, 0.074), "streamers": (2334, 5219, 19)}


def truth(logs: CanonicalLogs) -> pl.DataFrame:
    """The truth about every impression, with the streamer and their level."""
    rooms = pl.read_parquet(logs.files("rooms")).select("room_id", "streamer_id")
    levels = pl.read_parquet(logs.truth / "streamers.parquet")
    return pl.read_parquet(logs.truth / "impressions").join(rooms, on="room_id").join(levels, on="streamer_id")


def world_of(name: str, **changes) -> SimulateConfig:
    return replace(load_experiment(WORLDS / f"{name}.yaml").logs, **changes)


def test_at_strength_0_every_world_is_the_plain_one(tmp_path):
    """Byte for byte; the log's attributes alone tell levels and intentions, which nothing goes by."""
    plain = SimulateConfig(users=80, days=2, seed=3)
    carried = replace(plain, levels=Levels(), intentions=Intentions(), stages=Stages(), chain=Chain())
    ours, theirs = (contents(materialise(each, tmp_path / name).path) for each, name in ((plain, "a"), (carried, "b")))
    assert [name for name in ours if ours[name] != theirs[name]] == ["products.parquet", "streamers.parquet"]
    for table, more in (("products", ["intention"]), ("streamers", ["level", "intention"])):
        before, now = (pl.read_parquet(tmp_path / name / "logs" / f"{table}.parquet") for name in "ab")
        assert now.drop(more).equals(before) and now.columns == [*before.columns, *more]
    assert pl.read_parquet(tmp_path / "a" / "truth" / "impressions").equals(
        pl.read_parquet(tmp_path / "b" / "truth" / "impressions")
    )


# -- levels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [300, 1200, 4000])
@pytest.mark.parametrize("levels", [Levels(**PAPER, strength=1.0), Levels(shares=(0.05, 0.2, 0.75), streamers=(5, 3, 2))])
def test_shows_are_divided_among_levels_as_asked(tmp_path, users, levels):
    logs = materialise(SimulateConfig(users=users, days=1, seed=users, levels=levels), tmp_path / "world")
    shown = dict(truth(logs).group_by("level").len().iter_rows())
    for name, share in zip(LEVELS, levels.shares, strict=True):
        assert shown[name] / sum(shown.values()) == pytest.approx(share, abs=0.01)
    told = pl.read_parquet(logs.files("streamers")).select("streamer_id", "level")
    true = pl.read_parquet(logs.truth / "streamers.parquet")
    assert [LEVELS[level] for level in told["level"]] == true["level"].to_list()


def test_levels_get_what_they_lacked_but_never_more_than_is_there():
    shares = Shares((0.25, 0.75))
    wanted_F = np.full(100, 8)
    nothing_FL = np.column_stack([np.zeros(100, int), np.full(100, 20)])  # none of the first level is live
    places_FL = shares.places(wanted_F, nothing_FL)
    assert places_FL.sum(axis=0).tolist() == [0, 600]
    shares.note(np.ones(600, int))
    both_FL = np.full((100, 2), 5)
    places_FL = shares.places(wanted_F, both_FL)
    # 1,400 in all are to be divided 350 to 1,050: 350 and 450 are owed, 3.5 and 4.5 a feed
    assert places_FL.sum(axis=0).tolist() == [350, 450]
    assert places_FL.max() <= 5


def test_shares_that_nobody_can_fill_are_refused():
    with pytest.raises(
        ConfigError, match=r"asks for 5\.8 rooms of head in a feed, and of its 19 streamers about 7\.0 are live"
    ):
        from_dict(SimulateConfig, {"users": 300, "levels": {"shares": [0.05, 0.2, 0.75]}})
    with pytest.raises(ConfigError, match=r"levels\.strength is 1\.5; it must lie between 0"):
        from_dict(SimulateConfig, {"levels": {"strength": 1.5}})


@pytest.mark.parametrize("width", [SHARED, OWN])
def test_a_taste_turned_by_a_quarter_is_orthogonal_to_itself_and_as_long(width):
    from pipelines.logs.simulator.people import _PLANES

    taste = np.random.default_rng(0).standard_normal((1000, width)).astype(np.float32)
    tail, head = (turned(taste, _PLANES[level][width]) for level in (0, 2))
    for other in (tail, head):
        np.testing.assert_allclose((taste * other).sum(axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(np.square(other).sum(axis=1), np.square(taste).sum(axis=1), rtol=1e-5)
    alike = (tail * head).sum(axis=1) / np.square(taste).sum(axis=1)
    assert abs(alike.mean()) < 0.1  # of one user they may agree; over users they do not


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_tastes_of_two_levels_share_what_their_strength_leaves(strength):
    """What suits at the medium level and at the tail: correlated by the cosine of so many quarter turns."""
    world = make_world(SimulateConfig(users=3000, levels=Levels(strength=strength)))
    rng = np.random.default_rng(0)
    user, streamer = rng.integers(0, 3000, 20_000), rng.integers(0, 375, 20_000)
    at = lambda level: replace(
        world, streamers=replace(world.streamers, level_S=np.full(len(world.streamers), level, np.int8))
    ).suits(user, streamer)
    tail, medium, head = at(0), at(1), at(2)
    plain = replace(world, config=SimulateConfig(users=3000)).suits(user, streamer)
    assert np.array_equal(medium, plain)
    for other in (tail, head):
        assert np.corrcoef(medium, other)[0, 1] == pytest.approx(np.cos(strength * np.pi / 2), abs=0.12)
        assert other.std() == pytest.approx(medium.std(), rel=0.15)


def test_the_levels_of_the_shipped_world_are_those_of_its_schema(tmp_path):
    """Prepared candidates carry the true level of their streamer, and the truth knows every one of them."""
    experiment = load_experiment(WORLDS / "levels.yaml", ["logs.users=150", "logs.days=3", "prepare.parallel=none"])
    logs = materialise(experiment.logs, tmp_path / "source")
    prepared = prepare(logs, experiment.schema, experiment.prepare, tmp_path / "prepared")
    true = {row["streamer_id"]: LEVELS.index(row["level"]) for row in truth(logs).select("streamer_id", "level").to_dicts()}
    rooms = dict(pl.read_parquet(logs.files("rooms")).select("room_id", "streamer_id").iter_rows())
    checked = 0
    for split in ("train", "valid", "test"):
        for file in prepared.files(split):
            table = pq.read_table(file, columns=["room_id", "level"], partitioning=None)
            room_N, level_N = (flat(table[name]).to_numpy() for name in ("room_id", "level"))
            assert level_N.tolist() == [true[rooms[room]] for room in room_N.tolist()]
            checked += len(level_N)
    assert checked == pl.scan_parquet(logs.files("impressions")).select(pl.len()).collect().item()
    known = truth_of(prepared, "test", logs.truth)
    assert isinstance(known, Truth) and list(known.known.moments) == ["stay_seconds"]
    assert list(known.known.chances) == ["click", "goods_bag", "product_click", "order", "follow"]


# -- intentions ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def intentions(tmp_path_factory):
    config = world_of("intentions", users=1000, days=2)
    return make_world(config), materialise(config, tmp_path_factory.mktemp("intentions"))


def test_users_have_intentions_in_both_domains_and_in_one(intentions):
    world, _ = intentions
    purposes = world.purposes
    for live, goods in zip(purposes.live_UI[:50].tolist(), purposes.goods_UI[:50].tolist(), strict=True):
        assert len(set(live) & set(goods)) == 2 and len(set(live) - set(goods)) == 1 == len(set(goods) - set(live))
    assert set(purposes.of_product_P) == set(range(32))
    user, streamer = np.repeat(np.arange(1000), 3), np.random.default_rng(0).integers(0, 200, 3000)
    has = (purposes.live_UI[user] == purposes.of_streamer_S[streamer][:, None]).any(axis=1)
    suits = world.suits(user, streamer)
    assert set(suits[has].tolist()) == {2.0} and set(suits[~has].tolist()) == {-0.5}  # at strength 1 nothing else counts


def test_products_are_the_longer_domain(intentions):
    _, logs = intentions
    clicks = pl.read_parquet(logs.files("product_clicks")).group_by("user_id").len()["len"].mean()
    stays = pl.read_parquet(logs.files("engagements")).filter((pl.col("action") == "enter") & (pl.col("value") >= 10))
    assert clicks > 1.4 * stays.group_by("user_id").len()["len"].mean()


def test_a_contrary_goods_bag_is_opened_less_where_the_room_suits(intentions, tmp_path):
    world, logs = intentions
    config = replace(world.config, intentions=replace(world.config.intentions, contrary=2.0))
    contrary = materialise(config, tmp_path / "contrary")

    def given_entry(of: CanonicalLogs) -> tuple[float, float]:
        known = truth(of).with_columns(suits=suited(world, pl.col("user_id"), pl.col("streamer_id")))
        rates = known.group_by("suits").agg(rate=pl.col("goods_bag").sum() / pl.col("click").sum())
        by = dict(rates.iter_rows())
        return by[True], by[False]

    def suited(world, user, streamer):
        lists = {int(i): set(row) for i, row in zip(world.users.id_U, world.purposes.live_UI.tolist(), strict=True)}
        kinds = dict(zip(world.streamers.id_S.tolist(), world.purposes.of_streamer_S.tolist(), strict=True))
        return pl.struct(user, streamer).map_elements(
            lambda row: kinds[row["streamer_id"]] in lists[row["user_id"]], return_dtype=pl.Boolean
        )

    plain_with, plain_without = given_entry(logs)
    contrary_with, contrary_without = given_entry(contrary)
    assert plain_with > plain_without
    assert contrary_with < 0.5 * contrary_without


# -- stages --------------------------------------------------------------------------------------------------------


def test_what_a_stage_does_not_care_for_is_rare_and_random(tmp_path):
    config = world_of("stages", users=30_000, days=2)
    logs = materialise(config, tmp_path / "stages")
    stages = pl.concat(pl.read_parquet(file) for file in sorted((logs.truth / "stages").iterdir()))
    day = (pl.col("shown_at") - pl.col("shown_at").min()) // 86_400_000
    known = truth(logs).with_columns(day=day).join(stages, on=["user_id", "day"])
    seen = known.group_by("user_id").len()["len"]
    assert 7 < seen.mean() < 10  # the paper's users have 8.1 impressions
    click, order = known["click"].to_numpy(), (known["order"] / known["click"]).to_numpy()
    of = known["stage"].to_numpy().astype(str)
    rate = {stage: (click[of == stage].mean(), order[of == stage].mean()) for stage in STAGES}
    assert rate["new"][0] < 0.6 * min(rate[stage][0] for stage in STAGES[1:])
    assert rate["stick"][1] < 0.5 * min(rate[stage][1] for stage in ("wander", "loyal"))
    # how much of a target one can know at most: of new users' clicks and sticking users' orders least
    ceiling = {stage: expected_auc(click[of == stage], click[of == stage]) for stage in STAGES}
    assert ceiling["new"] < min(ceiling[stage] for stage in STAGES[1:]) - 0.05
    ceiling = {stage: expected_auc(order[of == stage], order[of == stage]) for stage in STAGES}
    assert ceiling["stick"] < min(ceiling[stage] for stage in STAGES if stage != "stick") - 0.1


def test_stages_slip_as_seldom_as_users_come():
    stage, none = np.full(20_000, 3), np.zeros(20_000, dtype=np.int64)
    slipped = [(next_stages(np.random.default_rng(0), stage, none, none, pace) == 2).mean() for pace in (1.0, 0.25)]
    assert slipped == [pytest.approx(0.16, abs=0.01), pytest.approx(0.04, abs=0.01)]


# -- chain ---------------------------------------------------------------------------------------------------------


def test_in_a_chain_what_makes_a_step_probable_makes_the_next_one_probable(tmp_path):
    config = world_of("chain", users=600, days=2)
    chained = truth(materialise(config, tmp_path / "chain"))
    plain = truth(materialise(replace(config, chain=None), tmp_path / "plain"))

    def dependence(known: pl.DataFrame, child: str, parent: str) -> float:
        given = (known[child] / known[parent]).log()
        return float(np.corrcoef(known[parent].log(), given)[0, 1])

    for child, parent in (("goods_bag", "click"), ("product_click", "goods_bag"), ("order", "product_click")):
        assert dependence(chained, child, parent) > dependence(plain, child, parent) + 0.1
    rates = [chained[name].mean() for name in ("click", "goods_bag", "product_click", "order")]
    assert all(later < 0.5 * earlier for earlier, later in pairwise(rates))
    assert 0.0003 < rates[-1] < 0.003
