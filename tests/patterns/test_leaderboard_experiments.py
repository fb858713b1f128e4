"""Break it: what each run of the leaderboard shows."""

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.leaderboard import EXPERIMENTS
from webapp.shop.database import open_database

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


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
