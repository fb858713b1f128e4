"""Break it: what each run of Redlock shows, on scratch servers of its own."""

from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine

from tests.patterns.conftest import keys_of
from webapp import keys
from webapp.connection.recorder import Command
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.redlock import EXPERIMENTS

each_experiment = pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)


@pytest.fixture
def bench(redis_down: redis.Redis) -> Bench:
    """The app's own server is not asked, so it may as well be away."""
    return Bench(redis_down, create_engine("sqlite://"), "rpl", 1042, keys.LOCKS_LAB)


def commands(outcome: Outcome) -> list[Command]:
    sent = [c for own in outcome.recordings for t in own.trips for c in t.commands]
    return [c for c in sent if c.args[0] not in ("HELLO", "CLIENT")]


@each_experiment
def test_the_flaw_is_seen_and_what_was_sent_is_on_the_tape(
    bench: Bench, experiment: Experiment
) -> None:
    outcome = experiment.run(bench)
    assert outcome.tone == "no"
    assert {row.tone for row in outcome.rows} == {"no", "ok"}
    sent = commands(outcome)
    named = {key for command in sent for key in keys_of(command)}
    assert {keys.family_of("rpl", key) for key in named} == {keys.LOCKS_LAB}
    files = {Path(c.source[0]).name for c in sent if c.source}
    assert files <= {"redlock.py", "distributed_lock.py"}


def test_five_servers_lose_two_and_go_on_and_refuse_without_three() -> None:
    [lose, _] = EXPERIMENTS
    client = redis.Redis()  # never asked
    engine = create_engine("sqlite://")
    outcome = lose.run(Bench(client, engine, "rpl", 1042, keys.LOCKS_LAB))
    replies = [step.reply for step in outcome.lanes[1].steps]
    assert replies[0].startswith("5 of 5")
    assert replies[2].startswith("3 of 5")
    assert replies[4].startswith("2 of 5, not held")


def test_a_server_that_restarts_empty_lets_a_second_holder_in() -> None:
    [_, restart] = EXPERIMENTS
    engine = create_engine("sqlite://")
    outcome = restart.run(Bench(redis.Redis(), engine, "rpl", 1042, keys.LOCKS_LAB))
    assert [row.value for row in outcome.rows] == ["2", "1"]
