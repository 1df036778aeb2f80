"""The settings of the evaluate step."""

from typing import Literal

from models.config import config

Baseline = Literal["popularity", "booster", "truth"]


@config
class EvaluateConfig:
    """How predictions are judged.

    Attributes:
        split: whose feeds are scored.
        candidates: `logged` ranks what a feed showed. `live` does that, and ranks the room of each of a sample of entries
            among all rooms that were live at that second, as of then; the log must say when rooms began and ended.
        live_entries: feeds with an entry that are drawn for it.
        live_rooms: rooms of such a feed that are ranked at most; where more were live, others are drawn. Memory grows with
            their product.
        batch_feeds: feeds scored at a time; memory grows with it, results do not change.
        untaught: judge targets of weight 0 as well: what a model says of them follows from other targets alone (the DBMTL
            paper's Table 1). They are marked, in no mean, and the endpoint never answers them.
        baselines: what stands beside the models; `truth` only where the logs are simulated.
        baseline_rows: candidates of training days that a baseline learns from at most (8 bytes each and column); above it,
            feeds are sampled, and the report says so.
        baseline_columns: counters for the booster beside those that the schema's fields read.
        baseline_iterations: trees of the booster at most.
        seed: of the baselines' sampling and of the booster.
    """

    split: Literal["valid", "test"] = "test"
    candidates: Literal["logged", "live"] = "logged"
    live_entries: int = 2000
    live_rooms: int = 500
    batch_feeds: int = 1024
    untaught: bool = False
    baselines: tuple[Baseline, ...] = ("popularity", "booster", "truth")
    baseline_rows: int = 2_000_000
    baseline_columns: tuple[str, ...] = ()
    baseline_iterations: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_feeds", "live_entries", "live_rooms", "baseline_rows", "baseline_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluate.{name} must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"evaluate.seed must not be negative, got {self.seed}.")
