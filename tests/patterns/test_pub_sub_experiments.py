"""Break it: what each run of the feed's page shows."""

from typing import Any

import pytest
import redis

from tests.conftest import wait_until
from webapp import keys
from webapp.experiments import Bench, Experiment, Outcome, cut_line
from webapp.experiments.pub_sub import EXPERIMENTS

CUT = ("Stream", "line cut")

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


# A line that is cut


@pytest.mark.parametrize("away", [2, 8, 12])
def test_a_subscription_loses_what_came_meanwhile_and_a_stream_nothing(
    bench: Bench, away: int
) -> None:
    done = cut_line.run(bench, away=away)
    lost = {(lane.way, lane.who): lane.lost for lane in done.lanes}
    assert lost == {
        ("Pub/sub", "stays"): 0,
        ("Pub/sub", "line cut"): away,
        ("Pub/sub", "comes late"): cut_line.LATE_AFTER,
        ("Stream", "stays"): 0,
        ("Stream", "line cut"): 0,
        ("Stream", "comes late"): 0,
    }
    cut = next(lane for lane in done.lanes if (lane.way, lane.who) == CUT)
    first, last = cut.away
    assert cut.states[first - 1 : last] == ("later",) * away
    assert cut.states[: first - 1] == ("at once",) * (first - 1)
    assert cut.states[last:] == ("at once",) * (cut_line.MESSAGES - last)


def test_a_cut_line_leaves_no_key_and_every_message_is_on_the_tape(
    bench: Bench,
) -> None:
    done = cut_line.run(bench, away=8)
    assert [own.cause for own in done.recordings] == [
        "Join",
        *(f"Message {n}" for n in range(1, cut_line.MESSAGES + 1)),
    ]
    assert bench.client.keys() == []
