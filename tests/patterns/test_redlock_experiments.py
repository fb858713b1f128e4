"""Break it: what each run of Redlock shows, on scratch servers of its own."""

import redis
from sqlalchemy import create_engine

from webapp import keys
from webapp.experiments import Bench
from webapp.experiments.redlock import EXPERIMENTS


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
