"""Break it: what each run of the feed's page shows, and that it leaves nothing."""

from typing import Any

import pytest
import redis

from tests.conftest import wait_until
from webapp import keys
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.pub_sub import EXPERIMENTS

each_experiment = pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)


@pytest.fixture
def bench(redis_client: redis.Redis) -> Bench:
    engine: Any = None  # the feed has no rows
    return Bench(redis_client, engine, "rpl", 1042, keys.FEED_LAB)


def run(bench: Bench, experiment: Experiment) -> Outcome:
    return experiment.run(bench, **{c.name: c.value for c in experiment.controls})


@each_experiment
def test_the_broken_side_misses_messages_and_the_fixed_one_none(
    bench: Bench, experiment: Experiment
) -> None:
    outcome = run(bench, experiment)
    broken, fixed = outcome.rows
    assert int(broken.value) > 0
    assert (broken.tone, fixed.tone, fixed.value) == ("no", "ok", "0")
    assert outcome.tone == "no"


@each_experiment
def test_a_run_leaves_no_key(bench: Bench, experiment: Experiment) -> None:
    run(bench, experiment)
    assert bench.client.keys("*") == []


@each_experiment
def test_a_run_leaves_no_subscription(
    server_client: redis.Redis, experiment: Experiment
) -> None:
    engine: Any = None
    run(Bench(server_client, engine, "rpl", 1042, keys.FEED_LAB), experiment)
    wait_until(lambda: server_client.pubsub_channels("*:lab:*") == [])


@pytest.mark.parametrize("name", ["lost-connection", "bad-message"])
def test_one_loop_ends_in_silence_and_the_other_hears_the_rest(
    bench: Bench, name: str
) -> None:
    broken, fixed = run(bench, next(e for e in EXPERIMENTS if e.name == name)).lanes
    assert broken.steps[-1].reply == "nothing, for ever"
    assert fixed.steps[-1].reply == "message 2"
