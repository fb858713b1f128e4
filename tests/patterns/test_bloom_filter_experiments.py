"""Break it: what each run of the Bloom filter shows."""

import pytest
import redis
from sqlalchemy import Engine

from webapp.experiments import Bench, Outcome
from webapp.experiments.bloom_filter import EXPERIMENTS

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


@pytest.fixture
def bench(redis_client: redis.Redis, engine: Engine) -> Bench:
    return Bench(redis_client, engine, "rpl", 1042)


def run_small(bench: Bench, name: str) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def values(outcome: Outcome) -> list[str]:
    return [row.value for row in outcome.rows]


def test_every_unknown_id_is_a_query_and_a_key_without_a_filter(bench: Bench) -> None:
    outcome = run_small(bench, "random-ids")
    bare, filtered, kept, passed = map(int, values(outcome))
    assert (bare, kept) == (20, 20)
    assert filtered == passed <= 3  # 0.2 are planned
    assert outcome.tone == "no"


def test_a_lost_filter_denies_all_where_only_bits_are_believed(bench: Bench) -> None:
    outcome = run_small(bench, "lost-filter")
    assert values(outcome) == ["10", "0"]
    assert outcome.tone == "no"


def test_a_filter_lets_pass_what_was_planned_and_far_more_when_it_is_overfull(
    bench: Bench,
) -> None:
    planned, within, beyond, _ = values(run_small(bench, "overfull"))
    assert planned == "1.0\u00a0%"
    assert float(within.rstrip(" \u00a0%")) < 3
    assert float(beyond.rstrip(" \u00a0%")) > 8
