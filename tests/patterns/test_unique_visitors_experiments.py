"""Break it: what each run of unique visitors shows."""

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.unique_visitors import EXPERIMENTS
from webapp.shop.database import open_database

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def bench(redis_client: redis.Redis, engine: Engine) -> Bench:
    return Bench(redis_client, engine, "rpl", 1042, keys.VISITORS_LAB)


def run_small(bench: Bench, experiment: Experiment) -> Outcome:
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def test_pfadds_ones_miss_many_visitors_and_pfcount_few(
    server_client: redis.Redis, engine: Engine
) -> None:
    bench = Bench(server_client, engine, "rpl", 1042, keys.VISITORS_LAB)
    outcome = BY_NAME["added-replies"].run(bench, visitors=20_000)
    _, ones, counted = (int(row.value.replace(",", "")) for row in outcome.rows)
    assert outcome.tone == "no"
    assert ones < 17_000
    assert abs(counted - 20_000) < 20_000 * 0.03


def test_a_set_grows_with_its_visitors_and_a_hyperloglog_does_not(
    server_client: redis.Redis, engine: Engine
) -> None:
    bench = Bench(server_client, engine, "rpl", 1042, keys.VISITORS_LAB)
    outcome = BY_NAME["growing-set"].run(bench, visitors=40_000)
    sizes = [int(row.value.split()[0].replace(",", "")) for row in outcome.rows]
    few_set, few_hll, many_set, many_hll = sizes
    assert many_set > 5 * few_set
    assert abs(many_hll - few_hll) <= 64  # the allocator rounds now and then
    assert max(few_hll, many_hll) < 13_000


def test_where_bytes_are_unknown_the_card_says_so(engine: Engine) -> None:
    from webapp.connection.urls import client_for

    client = client_for("fake://growth", role="cache", max_connections=2)
    bench = Bench(client, engine, "rpl", 1042, keys.VISITORS_LAB)
    outcome = run_small(bench, BY_NAME["growing-set"])
    assert outcome.verdict == "unknown"
    assert {row.value for row in outcome.rows} == {"not known here"}
    client.connection_pool.disconnect()
