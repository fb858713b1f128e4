"""Break it: what each run of a stampede shows every time."""

import pytest
import redis
from sqlalchemy import Engine

from webapp.experiments import Bench, Outcome, stampede_lab
from webapp.experiments.response_cache import EXPERIMENTS as OF_RESPONSE_CACHE
from webapp.experiments.stampede import EXPERIMENTS as OF_STAMPEDE
from webapp.experiments.stampede_lab import LabBusy

EXPERIMENTS = (*OF_STAMPEDE, *OF_RESPONSE_CACHE)
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


@pytest.fixture
def bench(redis_client: redis.Redis, engine: Engine) -> Bench:
    return Bench(redis_client, engine, "rpl", 1042)


def run_small(bench: Bench, name: str) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def values(outcome: Outcome) -> list[str]:
    return [row.value for row in outcome.rows]


@pytest.mark.parametrize(
    ("name", "loads"),
    [
        ("cold-key", ["10", "1"]),
        ("processes", ["2", "1"]),
        ("killed-loader", ["5", "1"]),
        ("missing-row", ["5", "1"]),
        ("unsorted", ["4", "1", "4", "1"]),
        ("personal", ["1", "0"]),
        ("left-to-the-ttl", ["4", "0"]),
    ],
)
def test_the_flaw_is_seen_every_time_and_the_fix_holds(
    bench: Bench, name: str, loads: list[str]
) -> None:
    assert values(run_small(bench, name))[: len(loads)] == loads


@pytest.mark.parametrize("name", stampede_lab.TITLES)
def test_readers_at_once_are_all_answered_and_few_load(
    bench: Bench, name: stampede_lab.Name
) -> None:
    """How few is left to when the machine lets them run; Break it leaves it to none."""
    [ran] = stampede_lab.run(bench, [name], readers=10)
    most = {"none": 10, "flight": stampede_lab.PROCESSES, "lock": 1, "stale": 1}
    assert len(ran.readers) == 10
    assert 1 <= ran.loads <= most.get(name, 10)
    assert ran.commands >= 10
    assert 0 <= ran.waited_us(0.5) <= ran.waited_us(0.99) <= ran.ended_us
    assert len(ran.recordings) in (1, 2)
    assert ran.old >= (1 if name == "stale" else 0)
    assert bench.client.keys("*") == []


def test_two_crowds_at_once_are_one_too_many(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stampede_lab._busy, pytest.raises(LabBusy):
        stampede_lab.run(bench, ["none"], readers=10)


def test_the_p99_is_the_longest_wait_of_a_hundred_but_one() -> None:
    readers = [stampede_lab.Reader(0, us, "hit", ()) for us in range(1, 101)]
    ran = stampede_lab.Ran("none", readers, 0, [])
    assert (ran.waited_us(0.5), ran.waited_us(0.99), ran.waited_us(1)) == (50, 99, 100)
    assert stampede_lab.Ran("none", readers[:1], 0, []).waited_us(0.99) == 1
