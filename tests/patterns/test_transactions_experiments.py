"""Each broken transfer shows its flaw at every run, and the right one does not."""

import pytest
import redis
from sqlalchemy import create_engine

from webapp import keys
from webapp.experiments import Bench, Outcome, contention
from webapp.experiments.transactions import EXPERIMENTS

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


def bench(client: redis.Redis) -> Bench:
    return Bench(client, create_engine("sqlite://"), "rpl", 1, keys.ATOMICITY_LAB)


def run(client: redis.Redis, name: str) -> Outcome:
    return BY_NAME[name].run(bench(client))


@pytest.mark.parametrize(
    ("name", "broken", "right"),
    [
        ("read-then-write", "€ 180 of € 100", "€ 100 of € 100"),
        ("no-look", "\u2212€ 60", "€ 20"),
        ("no-retry", "€ 30 of € 60", "€ 60 of € 60"),
        ("no-rollback", "€ 70 of € 100", "€ 100 of € 100"),
    ],
)
@pytest.mark.parametrize("time", range(2))
def test_the_flaw_is_seen_beside_what_is_right(
    redis_client: redis.Redis, name: str, broken: str, right: str, time: int
) -> None:
    outcome = run(redis_client, name)
    shown = [(row.value.replace("\u00a0", " "), row.tone) for row in outcome.rows]
    assert shown == [(broken, "no"), (right, "ok")]
    assert outcome.tone == "no"
    assert [lane.tone for lane in outcome.lanes] == ["no", "ok"]


@pytest.mark.parametrize("name", BY_NAME)
def test_every_step_is_on_the_tape(redis_client: redis.Redis, name: str) -> None:
    outcome = run(redis_client, name)
    steps = [step for lane in outcome.lanes for step in lane.steps]
    assert all(step.recording in outcome.recordings for step in steps)
    assert all(step.recording.trips for step in steps)


# The race


@pytest.mark.parametrize("clients", [2, 8])
def test_the_race_shows_what_each_way_is_worth(
    server_client: redis.Redis, clients: int
) -> None:
    race = contention.run(bench(server_client), clients=clients)
    plain, multi, watch, script = race.ways
    asked = clients * contention.EACH
    assert plain.made > 0
    assert (multi.made, multi.left) == (0, -asked // 2)
    for right in (watch, script):
        assert right.is_right
        assert (right.left, right.arrived) == (0, asked // 2)
    assert watch.tries >= watch.asked
    assert multi.round_trips == script.round_trips == asked
    assert watch.round_trips > 2 * asked
    assert server_client.keys() == []


def test_the_first_transfer_of_each_way_is_on_the_tape(
    server_client: redis.Redis,
) -> None:
    race = contention.run(bench(server_client), clients=2)
    assert len(race.recordings) == 4
    assert all(own.trips for own in race.recordings)
