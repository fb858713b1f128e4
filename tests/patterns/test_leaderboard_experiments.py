"""Break it: what each run of the leaderboard shows, and that it leaves nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, inspect

from tests.patterns.conftest import keys_of
from webapp import keys
from webapp.connection.recorder import Command
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.leaderboard import EXPERIMENTS
from webapp.shop.database import open_database

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
each_experiment = pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def bench(redis_client: redis.Redis, engine: Engine) -> Bench:
    return Bench(redis_client, engine, "rpl", 1042, keys.BOARD_LAB)


def run_small(bench: Bench, experiment: Experiment) -> Outcome:
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def shown(outcome: Outcome) -> dict[str, str]:
    return {row.label: row.value for row in outcome.rows}


def commands(outcome: Outcome) -> list[Command]:
    return [c for own in outcome.recordings for t in own.trips for c in t.commands]


@each_experiment
def test_a_run_leaves_no_key_and_no_table(bench: Bench, experiment: Experiment) -> None:
    run_small(bench, experiment)
    assert bench.client.keys("*") == []
    assert inspect(bench.engine).get_table_names() == []
    with bench.engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT name FROM sqlite_temp_master")
        assert left.all() == []


@each_experiment
def test_a_run_writes_only_scratch_keys(bench: Bench, experiment: Experiment) -> None:
    named = {
        key
        for command in commands(run_small(bench, experiment))
        if command.args[0] not in ("MULTI", "EXEC")
        for key in keys_of(command)
    }
    assert {keys.family_of("rpl", key) for key in named} == {keys.BOARD_LAB}


@each_experiment
def test_every_command_names_the_line_that_sent_it(
    bench: Bench, experiment: Experiment
) -> None:
    sent = commands(run_small(bench, experiment))
    assert {Path(c.source[0]).name for c in sent if c.source} == {"leaderboard.py"}
    assert all(c.source for c in sent)


@each_experiment
def test_without_redis_a_run_fails(
    redis_down: redis.Redis, engine: Engine, experiment: Experiment
) -> None:
    bench = Bench(redis_down, engine, "rpl", 1042, keys.BOARD_LAB)
    with pytest.raises(RedisError):
        run_small(bench, experiment)


def test_writing_back_loses_the_first_clients_points(bench: Bench) -> None:
    outcome = run_small(bench, BY_NAME["lost-points"])
    assert outcome.tone == "no"
    assert shown(outcome) == {
        "Points that were sent": "180",
        "Score, ZSCORE and ZADD": "150",
        "Score, ZINCRBY": "180",
    }


def test_each_race_is_a_lane_that_ends_in_its_score(bench: Bench) -> None:
    lost, exact = run_small(bench, BY_NAME["lost-points"]).lanes
    assert (lost.tone, lost.steps[-1].reply) == ("no", "150 of 180")
    assert (exact.tone, exact.steps[-1].reply) == ("ok", "180 of 180")


def test_sql_and_sorted_set_give_the_same_page_and_rank(bench: Bench) -> None:
    assert "the same answers" in run_small(bench, BY_NAME["counted-rank"]).summary


@pytest.mark.server
def test_a_rank_by_sql_takes_longer_than_one_by_sorted_set(
    server_client: redis.Redis, engine: Engine
) -> None:
    bench = Bench(server_client, engine, "rpl", 1042, keys.BOARD_LAB)
    outcome = BY_NAME["counted-rank"].run(bench, players=60_000)
    rank_by_sql, rank_by_redis = outcome.rows[2:]
    assert (rank_by_sql.tone, rank_by_redis.tone) == ("no", "ok")
    assert (rank_by_redis.share or 1) < 0.5
