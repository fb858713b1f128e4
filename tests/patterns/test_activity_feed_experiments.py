"""Break it: what each run of the activity feed shows, and that it leaves nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import RedisError
from sqlalchemy import Engine

from tests.patterns.conftest import keys_of
from webapp import keys
from webapp.connection.recorder import Command
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.activity_feed import EXPERIMENTS
from webapp.shop import models
from webapp.shop.database import open_database

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
each_experiment = pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)


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


def commands(outcome: Outcome) -> list[Command]:
    """All but those of a new connection."""
    sent = [c for own in outcome.recordings for t in own.trips for c in t.commands]
    return [c for c in sent if c.args[0] not in ("HELLO", "CLIENT")]


def values(outcome: Outcome) -> list[str]:
    return [row.value.replace("\u00a0", " ") for row in outcome.rows]


@each_experiment
def test_a_run_leaves_no_key_and_no_row(
    bench: Bench, engine: Engine, experiment: Experiment
) -> None:
    run(bench, experiment.name)
    assert bench.client.keys("*") == []
    with engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM scratch").scalar()
    assert left == 0


@each_experiment
def test_a_run_uses_only_scratch_keys_of_one_group(
    bench: Bench, experiment: Experiment
) -> None:
    sent = commands(run(bench, experiment.name))
    named = {key for command in sent for key in keys_of(command)}
    assert {keys.family_of("rpl", key) for key in named} == {keys.ACTIVITY_LAB}
    assert len({key_slot(key.encode()) for key in named}) == 1


@each_experiment
def test_every_command_names_the_line_that_sent_it(
    bench: Bench, experiment: Experiment
) -> None:
    sent = commands(run(bench, experiment.name))
    files = {Path(c.source[0]).name for c in sent if c.source}
    assert files == {"activity_feed.py"}
    assert all(c.source for c in sent)


@each_experiment
def test_the_flaw_is_seen_and_the_card_says_so(
    bench: Bench, experiment: Experiment
) -> None:
    outcome = run(bench, experiment.name)
    assert outcome.tone == "no"
    assert {row.tone for row in outcome.rows} == {"no", "ok"}


@each_experiment
def test_without_redis_a_run_fails(
    redis_down: redis.Redis, engine: Engine, experiment: Experiment
) -> None:
    with pytest.raises(RedisError):
        run(Bench(redis_down, engine, "rpl", 1042, keys.ACTIVITY_LAB), experiment.name)


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
