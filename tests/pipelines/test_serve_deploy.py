"""Who an application is of, when others are at it at the same time: with a Serve that answers from a script."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from models.config import ConfigError
from pipelines.serve import ServeConfig

pytest.importorskip("ray")

from ray.serve.schema import ApplicationStatus

from pipelines.ray_private import Asked
from pipelines.runs import this_process
from pipelines.serve import deploy as module
from pipelines.serve.deploy import Overtaken, Served, exchange, url_of
from pipelines.serve.exchange import Target

A, B, C = (Target(f"/bundles/{name}", None, "1") for name in "abc")
CONFIG = ServeConfig(start_seconds=2.0, replicas=1)


class Fake:
    """A Serve with one application and one replica, which take what they are told after a few looks at them.

    Attributes:
        then: is called at each look, before it.
    """

    def __init__(self, monkeypatch) -> None:
        self.asked = self.told = self.reported = self.note = None
        self.status, self.message, self.deleted, self.broken = ApplicationStatus.RUNNING, "", [], set()
        self.then = lambda: None
        monkeypatch.setattr(module, "PAUSE", 0.001)
        monkeypatch.setattr(module, "running_serve", lambda: True)
        monkeypatch.setattr(module, "asked_of", self._asked_of)
        monkeypatch.setattr(module, "reports", self._reports)
        monkeypatch.setattr(module, "remembered", lambda name: self.note or [])
        monkeypatch.setattr(module, "remember", lambda name, good: setattr(self, "note", good))
        monkeypatch.setattr(module, "_code", dict)
        monkeypatch.setattr(module, "end_serve", lambda seconds: self.deleted.append("Serve"))
        monkeypatch.setattr(module.serve, "status", lambda: SimpleNamespace(applications=self.applications))
        monkeypatch.setattr(
            module.serve, "run_many", lambda runs, **_: self.apply(runs[0].target._bound_deployment.user_config)
        )
        monkeypatch.setattr(module.serve, "delete", self.delete)

    def apply(self, user_config) -> None:
        self.looks, self.told = 0, Asked(({"start_seconds": 2.0, "replicas": 1},), user_config)

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        self.asked = self.told = None

    def ask_for(self, target: Target, by: str) -> None:
        """As another process does."""
        self.apply({**vars(target), "deployed": {**asdict(this_process()), "token": by, "owner": by}})

    @property
    def applications(self) -> dict:
        states = {module.DEPLOYMENT: SimpleNamespace(replica_states={"RUNNING": 1}, message=self.message)}
        there = SimpleNamespace(status=self.status, message=self.message, deployments=states)
        return {"liverank": there} if self.told else {}

    def _asked_of(self, name: str, deployment: str) -> Asked | None:
        self.then()
        before, self.asked = self.asked, self.told  # its controller takes a moment
        return before if self.told else None

    def _reports(self, name: str) -> list[dict]:
        before, self.reported = self.reported, self.asked
        self.looks += 1
        if before is None or self.looks < 4:  # being told of something new, a replica is away
            return []
        target = asdict(Target.of(before.user_config))
        refused = {"target": target, "why": "it is damaged."} if target["bundle"] in self.broken else None
        deployed = before.user_config["deployed"]
        return [{"deployed": deployed, "target": target, "serving": None if refused else target, "refused": refused}]


@pytest.fixture
def fake(monkeypatch):
    made = Fake(monkeypatch)
    made.ask_for(A, "first")
    made.asked = made.reported = made.told
    made.note = [A]
    monkeypatch.setattr(module, "target_of", lambda bundle, store: bundle)
    return made


def serving(fake: Fake) -> Target:
    return Target.of(fake.told.user_config)


def test_an_exchange_keeps_the_owner_and_a_refused_one_is_taken_back(fake):
    exchange("liverank", B, None)
    assert serving(fake) == B and fake.told.user_config["deployed"]["owner"] == "first"
    fake.note, fake.broken = [B, A], {"/bundles/c"}
    with pytest.raises(ConfigError, match="keeps its old bundle: it is damaged"):
        exchange("liverank", C, None)
    assert serving(fake) == B and fake.told.user_config["deployed"]["owner"] == "first" and fake.note == [B, A]


def test_of_two_exchanges_at_once_the_later_goes_on_and_the_earlier_is_told(fake):
    looks = iter(range(100))
    fake.then = lambda: fake.ask_for(C, "other") if next(looks) == 3 else None
    with pytest.raises(Overtaken, match=r"`liverank` was meanwhile asked to serve something else, deployed by process \d+"):
        exchange("liverank", B, None)
    assert serving(fake) == C  # and is not taken back by who came too late


def test_an_application_that_is_taken_away_meanwhile_stays_away(fake):
    looks = iter(range(100))
    fake.then = lambda: fake.delete("liverank") if next(looks) == 4 else None
    with pytest.raises(Overtaken, match="`liverank` was taken away meanwhile"):
        exchange("liverank", B, None)
    assert fake.told is None


def test_what_a_dead_replica_said_before_does_not_stop_who_mends_it(fake):
    fake.message = "Retrying 2 more times. models.config.ConfigError: there is no store at `/gone`."
    exchange("liverank", B, None)
    fake.status = ApplicationStatus.DEPLOY_FAILED
    with pytest.raises(ConfigError, match="could not start: there is no store at"):
        exchange("liverank", C, None)


def test_an_owner_takes_away_what_is_its_own(fake, capsys):
    mine = Served("http://x", CONFIG, True, "first")
    exchange("liverank", B, None)  # by whomever
    fake.ask_for(C, "another")  # has been stopped, and deployed anew by somebody
    fake.asked = fake.told
    mine.end()
    said = capsys.readouterr().out
    assert fake.deleted == [] and "liverank stays: it is another one by now, deployed by" in said and "Serve stays" in said
    fake.ask_for(C, "first")
    fake.asked = fake.told
    mine.end()
    assert fake.deleted == ["liverank", "Serve"]
    mine.end()
    assert "liverank has been taken away already" in capsys.readouterr().out


def test_addresses_are_spelled_as_urls_have_them():
    assert url_of(ServeConfig(host="::1", port=81)) == "http://[::1]:81"
    assert url_of(ServeConfig(host="0.0.0.0", open=True, route_prefix="/a")) == "http://127.0.0.1:8000/a"
