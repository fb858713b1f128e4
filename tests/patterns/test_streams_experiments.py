"""Break it: what each run of the pipeline shows."""

from pathlib import Path
from typing import Any

import pytest
import redis

from webapp import keys
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.streams import EXPERIMENTS
from webapp.shop.database import open_database


@pytest.fixture
def bench(redis_client: redis.Redis, tmp_path: Path) -> Bench:
    engine = open_database(f"sqlite:///{tmp_path / 'shop.db'}")
    return Bench(redis_client, engine, "rpl", 1042, keys.STREAMS_LAB)


def run(bench: Bench, name: str, **controls: int) -> Outcome:
    found = next(e for e in EXPERIMENTS if e.name == name)
    return found.run(bench, **controls)


def values(outcome: Outcome) -> list[str]:
    return [row.value for row in outcome.rows]


def test_an_order_acknowledged_early_is_lost_and_in_one_script_it_is_not(
    bench: Bench,
) -> None:
    outcome = run(bench, "early-ack")
    assert values(outcome) == ["0", "1"]
    assert (outcome.tone, outcome.verdict) == ("no", "order lost")


@pytest.mark.parametrize("orders", [1, 10])
def test_swallowed_errors_leave_a_worker_that_does_nothing(
    bench: Bench, orders: int
) -> None:
    assert values(run(bench, "swallowed", orders=orders)) == ["0", str(orders)]


@pytest.mark.parametrize("orders", [1, 10])
def test_without_a_reclaim_the_orders_of_a_dead_worker_hang(
    bench: Bench, orders: int
) -> None:
    assert values(run(bench, "no-reclaim", orders=orders)) == [str(orders), "0"]


@pytest.mark.parametrize("tries", [6, 20])
def test_poison_blocks_the_queue_unless_it_is_counted(bench: Bench, tries: int) -> None:
    assert values(run(bench, "poison", tries=tries)) == [str(tries), "5", "0", "1"]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_run_shows_the_same_each_time(bench: Bench, experiment: Experiment) -> None:
    controls: dict[str, Any] = {c.name: c.value for c in experiment.controls}
    shown = []
    for _ in range(3):
        shown.append(values(experiment.run(bench, **controls)))
    assert shown[0] == shown[1] == shown[2]
