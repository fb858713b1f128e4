"""Break it: what each run of the activity feed shows."""

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.experiments import Bench, Outcome
from webapp.experiments.activity_feed import EXPERIMENTS
from webapp.shop import models
from webapp.shop.database import open_database

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}")
    models.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def bench(redis_client: redis.Redis, engine: Engine) -> Bench:
    return Bench(redis_client, engine, "rpl", 1042, keys.ACTIVITY_LAB)


def run(bench: Bench, name: str, **controls: int) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(
        bench, **({c.name: c.min for c in experiment.controls} | controls)
    )


def values(outcome: Outcome) -> list[str]:
    return [row.value.replace("\u00a0", " ") for row in outcome.rows]


@pytest.mark.parametrize("pushed", [1, 2, 4])
def test_offset_pages_repeat_and_miss_and_pages_by_entry_do_not(
    bench: Bench, pushed: int
) -> None:
    outcome = run(bench, "by-offset", pushed=pushed)
    twice = never = str(2 * pushed)
    assert values(outcome) == [twice, "0", never, "0"]


@pytest.mark.parametrize("deaths", [5, 20])
def test_each_death_before_ltrim_is_one_entry_over_the_cap(
    bench: Bench, deaths: int
) -> None:
    assert values(run(bench, "crash", deaths=deaths)) == [str(10 + deaths), "10"]


def test_a_body_keeps_the_old_price_and_an_id_shows_the_new_one(bench: Bench) -> None:
    database, body, by_id, *sizes = values(run(bench, "bodies"))
    assert (database, body, by_id) == ("€ 19.99", "€ 24.99", "€ 19.99")
    assert int(sizes[0]) > 2 * int(sizes[1])


def test_a_push_that_is_repeated_is_there_twice_and_an_add_once(bench: Bench) -> None:
    outcome = run(bench, "lost-reply")
    assert [lane.steps[-1].reply for lane in outcome.lanes] == [
        "view:1042:1, view:1042:1",
        "view:1042:1",
    ]
