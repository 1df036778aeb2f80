"""The simulated world: its bytes, its truth, its order of events, and that each of its features is there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.logs import SimulateConfig, check, files, materialise
from pipelines.logs.simulator import ACTIONS
from pipelines.logs.simulator.chances import (
    LONGEST_STAY,
    STAY_CAP,
    STAY_MEAN,
    TARGETS,
    Chances,
    chances,
    moments_of_log_stay,
)
from pipelines.logs.simulator.clock import EPOCH_MS
from pipelines.logs.simulator.life import begin
from pipelines.logs.simulator.people import make_world
from pipelines.logs.simulator.rooms import LONGEST_ROOM, rooms_of_day
from pipelines.logs.simulator.shows import FAVOURITES, Familiarity, choose, live_rooms
from pipelines.logs.simulator.visits import feeds_of_day, next_stages

HOUR = 3_600_000


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return materialise(SimulateConfig(users=1000, days=5, seed=1), tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def tables(logs):
    names = ("impressions", "engagements", "product_clicks", "users", "rooms", "streamers", "products")
    return {name: pl.read_parquet(logs.files(name)) for name in names}


@pytest.fixture(scope="module")
def judged(logs, tables):
    """Every impression with its truth, what happened (`did_*`, stay), position, streamer and level."""
    truth = pl.read_parquet(logs.truth / "impressions")
    keys = ["request_id", "room_id"]
    for target, action in ACTIONS.items():
        events = tables["engagements"].filter(pl.col("action") == action).select(*keys, pl.lit(True).alias(f"did_{target}"))
        truth = truth.join(events, on=keys, how="left").with_columns(pl.col(f"did_{target}").fill_null(False))
    stays = tables["engagements"].filter(pl.col("action") == "enter").select(*keys, stay="value")
    truth = truth.join(stays, on=keys, how="left").with_columns(pl.col("stay").fill_null(0.0))
    truth = truth.join(tables["impressions"].select(*keys, "position"), on=keys)
    truth = truth.join(tables["rooms"].select("room_id", "streamer_id", "category"), on="room_id")
    return truth.join(pl.read_parquet(logs.truth / "streamers.parquet"), on="streamer_id")


# -- bytes -----------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


def test_the_same_config_writes_the_same_bytes(tmp_path):
    small = SimulateConfig(users=60, days=2, seed=5)
    for name in ("a", "b"):
        materialise(small, tmp_path / name)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert len(first) == 3 + 3 + 2 * 3 + 3 + 2  # things, rooms, events of two days, truth, stages
    materialise(replace(small, seed=6), tmp_path / "c")
    assert contents(tmp_path / "c")["logs/impressions/2025-06-02-00.parquet"] != first["logs/impressions/2025-06-02-00.parquet"]


def test_a_longer_run_begins_like_a_shorter_one(tmp_path):
    short = materialise(SimulateConfig(users=60, days=2), tmp_path / "short").path
    long = materialise(SimulateConfig(users=60, days=3), tmp_path / "long").path
    begun = contents(long)
    assert all(begun[name] == content for name, content in contents(short).items())
    assert len(begun) == len(contents(short)) + 4  # rooms, impressions, engagements and product clicks of one more day


def test_size_of_files_changes_no_rows(tmp_path, monkeypatch):
    small = SimulateConfig(users=60, days=1)
    whole = materialise(small, tmp_path / "whole")
    monkeypatch.setattr(files, "ROWS_A_FILE", 300)
    monkeypatch.setattr(files, "ROWS_A_GROUP", 100)
    cut = materialise(small, tmp_path / "cut")
    assert len(cut.files("impressions")) > len(whole.files("impressions")) == 1
    for table in ("impressions", "engagements", "product_clicks"):
        assert pl.read_parquet(cut.files(table)).equals(pl.read_parquet(whole.files(table)))
    assert pl.read_parquet(cut.truth / "impressions").equals(pl.read_parquet(whole.truth / "impressions"))


def test_the_size_follows_from_the_number_of_users():
    small, large = make_world(SimulateConfig(users=100)), make_world(SimulateConfig(users=8000))
    assert (len(small.users), len(small.streamers), len(small.products)) == (100, 200, 300)
    assert (len(large.users), len(large.streamers), len(large.products)) == (8000, 1000, 4000)
    assert np.bincount(large.streamers.level_S).tolist() == [800, 160, 40]


# -- what is in the log and what is not ------------------------------------------------------------------------------


def test_the_logs_are_canonical_and_hold_no_truth(logs):
    assert check(logs) == []
    assert {entry.name for entry in logs.path.iterdir()} == {
        "impressions", "engagements", "product_clicks", "rooms", "users.parquet", "streamers.parquet", "products.parquet"
    }  # fmt: skip
    columns = {name for file in logs.path.rglob("*.parquet") for name in pq.read_schema(file).names}
    assert columns.isdisjoint({*TARGETS, "stay_seconds", "stage", "level"})
    assert logs.path not in logs.truth.parents


def test_a_feed_is_one_user_at_one_moment_with_each_room_once(tables):
    impressions = tables["impressions"]
    feeds = impressions.group_by("request_id", maintain_order=True).agg(
        pl.col("user_id", "shown_at", "context.device", "context.scene").n_unique(),
        rooms=pl.col("room_id").n_unique(),
        size=pl.len(),
        positions=pl.col("position").sort(),
    )
    assert (feeds.select("user_id", "shown_at", "context.device", "context.scene") == 1).to_numpy().all()
    assert (feeds["rooms"] == feeds["size"]).all()
    assert all(places == list(range(len(places))) for places in feeds["positions"].to_list())
    assert 7.2 < feeds["size"].mean() < 8.0
    assert not impressions.select("user_id", "shown_at", "room_id").is_duplicated().any()
    assert set(impressions["context.scene"].unique()) == {"feed", "following", "mall"}


def test_rooms_are_shown_while_they_live_and_a_streamer_has_one_at_a_time(tables):
    shown = tables["impressions"].join(tables["rooms"], on="room_id", how="left")
    assert shown["start_at"].null_count() == 0
    assert (shown["shown_at"] >= shown["start_at"]).all()
    assert (shown["shown_at"] < shown["end_at"]).all()
    rooms = tables["rooms"].sort("streamer_id", "start_at")
    follows = rooms["streamer_id"] == rooms["streamer_id"].shift(1)
    assert (rooms["start_at"] > rooms["end_at"].shift(1)).filter(follows).all()
    hours = (rooms["end_at"] - rooms["start_at"]) / HOUR
    assert 1 < hours.median() < 4
    assert hours.max() < LONGEST_ROOM / 6 + 0.5


def test_rooms_change_their_product_and_their_state(tables):
    of_room = tables["impressions"].group_by("room_id").agg(
        pl.col("state.product_id", "state.viewers", "state.revenue_1h").n_unique(), shown=pl.len()
    )  # fmt: skip
    watched = of_room.filter(pl.col("shown") > 200)
    assert watched.height > 20
    assert (watched["state.product_id"] >= 3).mean() > 0.9
    assert (watched["state.viewers"] >= 5).mean() > 0.9
    assert tables["impressions"]["state.product_id"].is_in(tables["products"]["product_id"].implode()).all()


def test_events_come_in_causal_order_and_some_cross_feeds(tables):
    keys = ["request_id", "user_id", "room_id"]
    wide = tables["impressions"].select(*keys, "shown_at")
    assert not tables["engagements"].select(*keys, "action").is_duplicated().any()
    for action in ACTIONS.values():
        events = tables["engagements"].filter(pl.col("action") == action)
        assert events.height > 0
        assert events.join(wide, on=keys, how="anti").height == 0
        wide = wide.join(
            events.select(*keys, pl.col("at").alias(action), pl.col("value").alias(f"{action}_value")), on=keys, how="left"
        )
    after = [
        ("enter", "shown_at"), ("goods_bag", "enter"), ("product_click", "goods_bag"), ("order", "product_click"),
        ("follow", "enter"), ("comment", "enter"), ("like", "enter"),
    ]  # fmt: skip
    for later, earlier in after:
        happened = wide.drop_nulls(later)
        assert happened[earlier].null_count() == 0
        assert (happened[later] > happened[earlier]).all()
        over = happened["enter"] + happened["enter_value"] * 1000 + 4
        assert (happened[later] <= over).all()
    assert (wide["enter"] - wide["shown_at"]).drop_nulls().max() < 120_000
    assert wide["enter_value"].drop_nulls().is_between(0, LONGEST_STAY).all()
    assert wide.drop_nulls("order")["order_value"].min() > 0

    feeds = tables["impressions"].select("user_id", "request_id", "shown_at").unique().sort("user_id", "shown_at")
    feeds = feeds.with_columns(next_at=pl.col("shown_at").shift(-1).over("user_id")).select("request_id", "next_at")
    crossed = (
        tables["engagements"]
        .join(feeds, on="request_id")
        .select((pl.col("at") > pl.col("next_at")).fill_null(False).mean())
        .item()
    )
    assert 0.02 < crossed < 0.5


def test_clicks_on_products_happen_in_rooms_and_in_the_shop(tables):
    impressions = tables["impressions"].select("request_id", "room_id", product_id="state.product_id")
    in_rooms = tables["engagements"].filter(pl.col("action") == "product_click").join(impressions, on=["request_id", "room_id"])
    clicks = tables["product_clicks"]
    assert in_rooms.join(clicks, on=["user_id", "product_id", "at"], how="anti").height == 0
    assert clicks.height > 1.5 * in_rooms.height


# -- truth -----------------------------------------------------------------------------------------------------------


def test_there_is_a_truth_for_every_impression(logs, tables):
    truth = pl.read_parquet(logs.truth / "impressions")
    keys = ["request_id", "user_id", "room_id", "shown_at"]
    binary = ["click", "goods_bag", "product_click", "order", "follow", "comment", "like"]
    assert truth.columns == [*keys, *binary, "stay_seconds", STAY_MEAN, STAY_CAP]
    assert truth.select(keys).equals(tables["impressions"].select(keys))
    chances = truth.select(TARGETS).to_numpy()
    assert ((chances > 0) & (chances < 1)).all()
    for child, parent in (
        ("goods_bag", "click"),
        ("product_click", "goods_bag"),
        ("order", "product_click"),
        ("like", "click"),
    ):
        assert (truth[child] < truth[parent]).all()


def assert_as_often_as_told(happened: np.ndarray, chance: np.ndarray) -> None:
    chance = chance.astype(np.float64)
    assert abs(happened.sum() - chance.sum()) < 4.5 * np.sqrt((chance * (1 - chance)).sum())


@pytest.mark.parametrize("target", TARGETS)
def test_things_happen_as_often_as_the_truth_says(judged, target):
    """In all, in each tenth of the probabilities, at each position and in each level, within 4.5 binomial deviations."""
    happened, chance = judged[f"did_{target}"].to_numpy(), judged[target].to_numpy()
    tenth = np.digitize(chance, np.quantile(chance, np.linspace(0.1, 0.9, 9)))
    for part in (np.zeros(len(chance)), tenth, judged["position"].to_numpy(), judged["level"].to_physical().to_numpy()):
        for value in np.unique(part):
            assert_as_often_as_told(happened[part == value], chance[part == value])


def test_stays_last_as_long_as_the_truth_says(judged):
    """In all and in each tenth of the expectation, within 4.5 standard errors."""
    expected, stay = judged["stay_seconds"].to_numpy().astype(np.float64), judged["stay"].to_numpy()
    tenth = np.digitize(expected, np.quantile(expected, np.linspace(0.1, 0.9, 9)))
    for value in range(10):
        error = (stay - expected)[tenth == value]
        assert abs(error.mean()) < 4.5 * error.std() / np.sqrt(len(error))


def test_logarithms_of_stays_have_the_moments_that_the_truth_says(judged):
    """Mean and mean square in each tenth of the expectation, those who do not enter included, within 4.5 standard errors."""
    of = {name: judged[name].to_numpy().astype(np.float64) for name in ("click", STAY_MEAN, STAY_CAP)}
    moments = moments_of_log_stay(of[STAY_MEAN], of[STAY_CAP])
    log_stay = np.log1p(judged["stay"].to_numpy())
    tenth = np.digitize(moments[0] * of["click"], np.quantile(moments[0] * of["click"], np.linspace(0.1, 0.9, 9)))
    for power, moment in zip((1, 2), moments, strict=True):
        for value in range(10):
            error = (log_stay**power - of["click"] * moment)[tenth == value]
            assert abs(error.mean()) < 4.5 * error.std() / np.sqrt(len(error))


def test_moments_of_a_stay_that_is_mostly_capped():
    """One that is all cap has those of the cap; one that is hardly capped those of draws."""
    first, second = moments_of_log_stay(np.array([12.0, 3.0]), np.array([60.0, 7200.0]))
    assert (first[0], second[0]) == (pytest.approx(np.log(61), rel=1e-6), pytest.approx(np.log(61) ** 2, rel=1e-6))
    drawn = np.log1p(np.minimum(np.exp(3 + 1.15 * np.random.default_rng(0).standard_normal(400_000)), 7200))
    assert first[1] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 632)
    assert second[1] == pytest.approx(np.square(drawn).mean(), rel=0.01)


def test_expected_stay_of_a_hand_made_case():
    """The mean of capped log-normal draws, and half of it where half enter."""
    ones = np.ones(2)
    given = {name: ones for name in TARGETS} | {"click": np.array([1.0, 0.5])}
    chance = Chances(given_N=given, stay_mean_N=np.log([30.0, 30.0]), stay_cap_N=np.array([60.0, 60.0]))
    drawn = np.minimum(30 * np.exp(1.15 * np.random.default_rng(0).standard_normal(400_000)), 60)
    expected = chance.truth()["stay_seconds"]
    assert abs(expected[0] - drawn.mean()) < 4 * drawn.std() / np.sqrt(len(drawn))
    assert expected[1] == pytest.approx(expected[0] / 2)


def test_base_rates_and_ceilings_are_those_of_a_real_platform(judged):
    rate = {target: judged[f"did_{target}"].mean() for target in TARGETS}
    ceiling = {target: roc_auc_score(judged[f"did_{target}"], judged[target]) for target in TARGETS}
    print("\n" + "\n".join(f"{target:14} rate {rate[target]:.4f}  truth's AUC {ceiling[target]:.3f}" for target in TARGETS))
    assert 0.08 < rate["click"] < 0.15
    assert 0.002 < rate["order"] < 0.01
    assert rate["click"] > rate["goods_bag"] > rate["product_click"] > rate["order"]
    assert 0.75 < ceiling["click"] < 0.85
    assert all(0.78 < ceiling[target] < 0.97 for target in TARGETS)


# -- the world's features --------------------------------------------------------------------------------------------


def test_a_handful_of_streamers_has_most_of_the_exposure(judged, tables):
    levels = judged.group_by("level").agg(shown=pl.len(), streamers=pl.col("streamer_id").n_unique())
    each = {row["level"]: row["shown"] / row["streamers"] for row in levels.to_dicts()}
    assert each["head"] > 2.5 * each["medium"] > 6 * each["tail"]
    by_streamer = judged.group_by("streamer_id").len().sort("len", descending=True)["len"]
    assert by_streamer.head(len(by_streamer) // 5).sum() / judged.height > 0.5  # a fifth of them has the larger half
    fans = judged.select("streamer_id", "level").unique().join(tables["streamers"], on="streamer_id")
    median = {level: part["fans"].median() for (level,), part in fans.group_by("level")}
    assert median["head"] > 5 * median["medium"] > 25 * median["tail"]
    within = {level: roc_auc_score(part["did_click"], part["click"]) for (level,), part in judged.group_by("level")}
    assert min(within.values()) > 0.74


def test_life_cycle_stages_drift_and_matter(logs, judged):
    stages = pl.concat(pl.read_parquet(file) for file in sorted((logs.truth / "stages").iterdir()))
    assert set(stages["stage"]) == {"new", "wander", "stick", "loyal"}
    changed = stages.sort("user_id", "day").with_columns(before=pl.col("stage").shift(1).over("user_id")).drop_nulls("before")
    assert 0.05 < (changed["stage"] != changed["before"]).mean() < 0.3
    order = {"new": 0, "wander": 1, "stick": 2, "loyal": 3}
    steps = changed["stage"].replace_strict(order) - changed["before"].replace_strict(order)
    assert set(steps) == {-1, 0, 1}
    day = (pl.col("shown_at") - EPOCH_MS) // (24 * HOUR)
    acted = judged.with_columns(day=day).join(stages, on=["user_id", "day"])
    assert acted.height == judged.height
    rate = {stage: part["did_order"].sum() / part["did_click"].sum() for (stage,), part in acted.group_by("stage")}
    assert rate["loyal"] > 2 * rate["wander"] > 2 * rate["new"]
    follows = {stage: part["did_follow"].sum() / part["did_click"].sum() for (stage,), part in acted.group_by("stage")}
    assert follows["new"] > 1.5 * follows["loyal"]


def test_what_users_look_at_in_the_shop_tells_what_they_watch(judged, tables):
    """The shared part of interests: entry rates in rooms of the category a user looked at most in the shop."""
    in_rooms = tables["engagements"].filter(pl.col("action") == "product_click").select("user_id", "at")
    shop = tables["product_clicks"].join(in_rooms, on=["user_id", "at"], how="anti").join(tables["products"], on="product_id")
    most = shop.group_by("user_id", "category").len().sort("len", "category", descending=True).unique("user_id", keep="first")
    liked = judged.join(most.select("user_id", liked="category"), on="user_id")
    same = liked["category"] == liked["liked"]
    assert liked.filter(same)["did_click"].mean() > 1.25 * liked.filter(~same)["did_click"].mean()


def test_user_attributes_tell_a_part_of_the_interest():
    users = make_world(SimulateConfig(users=5000)).users
    total = users.shared_UK.var(axis=0).sum()
    within = sum(users.shared_UK[users.age_U == age].var(axis=0).sum() * (users.age_U == age).mean() for age in range(6))
    assert 0.03 < 1 - within / total < 0.4


def test_users_come_back_to_streamers_they_liked(judged):
    """Entry rates of pairs that met before: stayed a minute or more, left within five seconds, never entered."""
    pairs = judged.sort("shown_at").with_columns(
        liked=(pl.col("stay") >= 60).cum_sum().shift(1).over("user_id", "streamer_id").fill_null(0) > 0,
        seen=pl.int_range(pl.len()).over("user_id", "streamer_id") > 0,
    )
    liked, seen = (pairs.filter(condition) for condition in (pl.col("liked"), pl.col("seen") & ~pl.col("liked")))
    assert liked.height > 0.05 * judged.height
    assert liked["did_click"].mean() > 1.8 * seen["did_click"].mean()


@pytest.fixture(scope="module")
def moment():
    """A world at noon of its first day, and some feeds: (world, rooms, impressions)."""
    rng = np.random.default_rng(0)
    world = make_world(SimulateConfig(users=300))
    life = begin(world)
    today, _ = rooms_of_day(rng, world, 0, life.next_room, life.free_from_S)
    rooms = life.rooms.and_(today)
    feeds = feeds_of_day(rng, world, 0, life.stage_U)
    first, end = np.searchsorted(feeds.at_F, [EPOCH_MS + 12 * HOUR, EPOCH_MS + 15 * HOUR])
    live_TS = live_rooms(rooms, len(world.streamers), 72, 90)
    shown = choose(rng, world, rooms, live_TS, 72, feeds[first:end], life.favourites_UC, life.familiarity)
    return world, rooms, shown


def test_a_lower_position_is_entered_less_by_a_known_factor(moment):
    world, rooms, shown = moment

    def odds(position):
        at = np.full(len(shown), position, dtype=np.int32)
        click = chances(world, rooms, replace(shown, position_N=at)).given_N["click"].astype(np.float64)
        return click / (1 - click)

    np.testing.assert_allclose(odds(0) / odds(6), 7**0.45, rtol=1e-3)


def test_familiarity_raises_entering_and_lowers_following(moment):
    world, rooms, shown = moment
    known = replace(shown, familiar_N=np.full(len(shown), 2.0, dtype=np.float32))
    stranger, friend = (chances(world, rooms, some).given_N for some in (shown, known))
    assert (friend["click"] > stranger["click"]).all()
    assert (friend["follow"] < stranger["follow"]).all()


def test_favourites_are_shown_when_they_are_live(moment):
    world, rooms, _ = moment
    live_TS = live_rooms(rooms, len(world.streamers), 72, 90)
    live = np.flatnonzero(live_TS[0] >= 0)
    rarest = live[np.argmin(world.streamers.weight_S[live])]
    feeds = feeds_of_day(np.random.default_rng(1), world, 0, world.users.first_stage_U)
    feeds = replace(feeds, at_F=np.full(len(feeds), EPOCH_MS + 12 * HOUR))

    def share(favourites_UC):
        shown = choose(
            np.random.default_rng(2), world, rooms, live_TS, 72, feeds, favourites_UC, Familiarity(len(world.streamers))
        )
        return (rooms.streamer_R[shown.room_N] == rarest).sum() / len(feeds)

    favourites = np.full((len(world.users), FAVOURITES), -1)
    before = share(favourites)
    favourites[:, 0] = rarest
    assert share(favourites) > before + 0.15


def test_nothing_is_shown_when_nothing_is_live(moment):
    world, rooms, _ = moment
    feeds = feeds_of_day(np.random.default_rng(1), world, 0, world.users.first_stage_U)[:5]
    nothing_TS = np.full((18, len(world.streamers)), -1)
    favourites = np.zeros((len(world.users), FAVOURITES), dtype=np.int64)
    early = replace(feeds, at_F=np.full(5, EPOCH_MS + 12 * HOUR))
    shown = choose(
        np.random.default_rng(2), world, rooms, nothing_TS, 72, early, favourites, Familiarity(len(world.streamers))
    )  # fmt: skip
    assert len(shown) == 0


def test_familiarity_by_hand():
    known = Familiarity(streamers=10)
    assert known.of(np.array([1]), np.array([2])).tolist() == [0]
    known.add(np.array([1, 1, 3]), np.array([2, 2, 9]), np.array([0.5, 0.25, -4.0], dtype=np.float32))
    known.add(np.array([2]), np.array([0]), np.array([8.0], dtype=np.float32))
    users, streamers = np.array([1, 3, 2, 1, 9]), np.array([2, 9, 0, 9, 9])
    assert known.of(users, streamers).tolist() == [0.75, -1, 3, 0, 0]
    known.fade(0.0625)  # 0.75 becomes 0.046875, which is forgotten
    assert known.of(users, streamers).tolist() == [0, -0.25, 0.5, 0, 0]


def test_stages_never_leave_their_range():
    stage = np.repeat(np.arange(4), 1000)
    busy, none = np.full(4000, 6), np.zeros(4000, dtype=np.int64)
    up = next_stages(np.random.default_rng(0), stage, busy, none)
    down = next_stages(np.random.default_rng(0), stage, none, none)
    assert (up.min(), up.max()) == (0, 3)
    assert (up[stage == 0] == 1).mean() == pytest.approx(0.5, abs=0.06)
    assert (down[stage == 3] == 2).mean() == pytest.approx(0.16, abs=0.05)
    assert (down[stage == 0] == 0).all()
