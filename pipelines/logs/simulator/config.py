"""What a simulated world is made of: its size, and premises of papers, each with a strength.

A premise is what a paper says of its platform, put into the simulated one. At strength 0 it changes nothing that happens:
the world is the plain one (a test holds it to the byte). What its draws need comes from a stream of their own.
"""

from pathlib import Path
from typing import Literal

from models.config import config

LEVELS = ("tail", "medium", "head")
STAGES = ("new", "wander", "stick", "loyal")
PLAIN_SHARES = (0.2, 0.3, 0.5)  # of the platform's draws
PLAIN_STREAMERS = (0.8, 0.16, 0.04)
SESSION = 3.1  # feeds of a session in the plain world, over all stages
FEED_SIZE = 7.8  # rooms a feed wants on average, before those that are not to be had
LIVE_SHARE = (0.047, 0.1, 0.37)  # of a day that a streamer of each level is live on average

Three = tuple[float, float, float]


@config
class Levels:
    """The premise of CMLIR (Yu et al. 2023): shows are unevenly divided among levels of streamers, and users like other things
    at each level.

    The log's streamers get their true level as the column `level`: 0 tail, 1 medium, 2 head.

    Attributes:
        shares: how shows are divided among tail, medium and head; None leaves it to who is live and how many fans they have,
            as in the plain world.
        streamers: how streamers are divided, as proportions of any sum; None as in the plain world (80, 16 and 4 in a hundred).
            With `shares`, no level has fewer than 19 of them, the paper's fewest.
        strength: how much tastes turn from level to level. A user's taste at the tail and at the head is that at the medium
            level turned by `strength` quarter turns, each in planes of its own; so it is the same at 0, half of its variance is
            shared at .5, and at 1 nothing of it is. What users and streamers are stays the same everywhere.
    """

    shares: Three | None = None
    streamers: Three | None = None
    strength: float = 0.0

    def __post_init__(self) -> None:
        _check_strength("levels", self.strength)
        if self.shares is not None and (min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6):
            raise ValueError(f"levels.shares is {list(self.shares)}; it needs positive shares that sum to 1.")
        if self.streamers is not None and min(self.streamers) <= 0:
            raise ValueError(f"levels.streamers is {list(self.streamers)}; it needs positive proportions.")


@config
class Intentions:
    """The premise of eLiveRec (Zhang et al. 2023, Fig. 2): a user has several intentions, some of them in both domains and some
    in one; every product and every streamer is of one.

    The log's products and streamers get the intention they are of as the column `intention`.

    Attributes:
        kinds: how many intentions there are.
        both: of a user, those that hold for rooms and products alike (Fig. 2: sportswear and snacks).
        live: those for rooms alone (adorable pets).
        goods: those for products alone (fast food).
        shop: visits to the shop, times as many as in the plain world; products are to be the longer domain.
        contrary: how much of what draws a user into a room keeps them from its goods bag, as weight in the log-odds of
            opening it once inside; beyond about 1 the goods bag contradicts the click.
        strength: the share of a user's interest that goes by intentions; the rest is the plain world's taste.
    """

    kinds: int = 32
    both: int = 2
    live: int = 1
    goods: int = 1
    shop: float = 1.0
    contrary: float = 0.0
    strength: float = 0.0

    def __post_init__(self) -> None:
        _check_strength("intentions", self.strength)
        if min(self.both, self.live, self.goods) < 0 or self.both + min(self.live, self.goods) < 1:
            raise ValueError(
                f"intentions of a user are {self.both} in both domains, {self.live} live and {self.goods} goods; "
                "each domain needs at least one."
            )
        if self.kinds <= self.each:
            raise ValueError(f"intentions.kinds is {self.kinds}; a user has {self.each}, and there must be more.")
        if self.shop <= 0 or self.contrary < 0:
            raise ValueError(f"intentions needs shop > 0 and contrary >= 0, got {self.shop:g} and {self.contrary:g}.")

    @property
    def each(self) -> int:
        """Intentions of a user."""
        return self.both + self.live + self.goods


@config
class Stages:
    """The premise of STAN (Li et al. 2023, Sec. 1 and 2.1): which targets a user cares for changes with the stage of their life
    cycle, and what they do of the others is sparse and random.

    New users click little, wandering ones stay short, sticking ones buy little; loyal ones do all.

    Attributes:
        strength: how far stages go from the plain world's to the paper's. At 1 an act that a stage does not care for no
            longer depends on what is shown.
    """

    strength: float = 0.0

    def __post_init__(self) -> None:
        _check_strength("stages", self.strength)


@config
class Chain:
    """The premise of DBMTL (Wang et al. 2019) and PIMM (Weng et al. 2023): targets depend on each other in sequence, and are
    sparser at every step.

    Attributes:
        strength: how much of what made a step probable makes the next one probable as well, given that the first happened.
        rarity: what every step after the click lacks in log-odds beside the plain world's.
    """

    strength: float = 0.0
    rarity: float = 0.0

    def __post_init__(self) -> None:
        _check_strength("chain", self.strength)
        if not 0 <= self.rarity <= 5:
            raise ValueError(f"chain.rarity is {self.rarity:g}; it must lie between 0 and 5.")


@config
class Delays:
    """When the platform knows of what happened: the column `arrived_at`, which a world without delays does not write.

    How late something is does not depend on anything else: the delay is exponential, with these mean seconds. A file of the log
    holds what arrived on its day, so what is late lies in a later day's file; what arrives after the last day is not in the log
    yet.

    Attributes:
        impression: from being shown on.
        enter: from the end of the stay on.
        goods_bag, product_click, order, follow, comment, like: from the act on.
        shop: from a product click outside of rooms on.
    """

    impression: float = 2.0
    enter: float = 2.0
    goods_bag: float = 2.0
    product_click: float = 2.0
    order: float = 21_600.0
    follow: float = 2.0
    comment: float = 2.0
    like: float = 2.0
    shop: float = 2.0

    def __post_init__(self) -> None:
        for name, seconds in vars(self).items():
            if not 0 <= seconds <= 30 * 86_400:
                raise ValueError(f"delays.{name} is {seconds:g} seconds; it must lie between 0 and 30 days.")


@config
class SimulateConfig:
    """A simulated world.

    Attributes:
        users: the size of the world; about 35 impressions per user and day, where nothing says otherwise.
        days: days in the log, from 2025-06-02 on (UTC). Where it is raised later, the world goes on from where it was.
        seed: another seed, another world.
        activity: sessions of a user and visits to the shop, times as many as in the plain world.
        session: feeds of a session on average; None for the plain world's, about three. Where users come less, there are fewer
            streamers and products for as many users, so that each is seen as often.
        levels: levels of streamers differ (CMLIR); None for the plain world's, which the log does not tell.
        intentions: users have several intentions (eLiveRec); None for the plain world's one taste.
        stages: stages of users differ (STAN); None for the plain world's.
        chain: targets depend on each other (DBMTL, PIMM); None for the plain world's.
        delays: what happened is known later; None for at once.
    """

    kind: Literal["simulate"] = "simulate"
    users: int = 2000
    days: int = 8
    seed: int = 0
    activity: float = 1.0
    session: float | None = None
    levels: Levels | None = None
    intentions: Intentions | None = None
    stages: Stages | None = None
    chain: Chain | None = None
    delays: Delays | None = None

    def __post_init__(self) -> None:
        for name, least in (("users", 20), ("days", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; a simulated world needs at least {least}.")
        if not 0.001 <= self.activity <= 10:
            raise ValueError(f"activity is {self.activity:g}; it must lie between 0.001 and 10.")
        if self.session is not None and not 1 <= self.session <= 20:
            raise ValueError(f"session is {self.session:g}; it must lie between 1 and 20 feeds.")
        self._check_levels()

    def inputs(self) -> list[Path]:
        """No files: a world is made of its config alone."""
        return []

    @property
    def pace(self) -> float:
        """How many feeds users open, times as many as in the plain world."""
        return self.activity * (1.0 if self.session is None else self.session / SESSION)

    @property
    def streamers(self) -> int:
        return max(200, int(self.users * self.pace) // 8)

    @property
    def products(self) -> int:
        return max(300, int(self.users * self.pace) // 2)

    def streamers_by_level(self) -> tuple[int, int, int]:
        """How many streamers there are of every level; those of the tail are the others."""
        proportions = self.levels.streamers if self.levels is not None and self.levels.streamers else PLAIN_STREAMERS
        medium, head = (round(share / sum(proportions) * self.streamers) for share in proportions[1:])
        least_medium, least_head = (19, 19) if self.levels is not None and self.levels.shares else (8, 3)
        medium, head = max(least_medium, medium), max(least_head, head)
        return self.streamers - medium - head, medium, head

    def _check_levels(self) -> None:
        """Shares that who is live cannot fill are refused before anything is simulated."""
        if self.levels is None or self.levels.shares is None:
            return
        counts = self.streamers_by_level()
        if counts[0] < 19:
            raise ValueError(
                f"levels.streamers is {list(self.levels.streamers or PLAIN_STREAMERS)}; of {self.streamers} streamers, that "
                f"leaves {counts[0]} for the tail, and it needs 19. Give it a larger part, or raise users."
            )
        for name, count, live, share in zip(LEVELS, counts, LIVE_SHARE, self.levels.shares, strict=True):
            wanted, there = share * FEED_SIZE, live * count
            if there < 1.5 * wanted:
                raise ValueError(
                    f"levels.shares asks for {wanted:.1f} rooms of {name} in a feed, and of its {count} streamers about "
                    f"{there:.1f} are live at a time. Raise their part in levels.streamers, or users, or lower their share."
                )


def _check_strength(premise: str, strength: float) -> None:
    if not 0 <= strength <= 1:
        raise ValueError(f"{premise}.strength is {strength:g}; it must lie between 0 (the plain world) and 1.")
