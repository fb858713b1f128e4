"""Break it for rate limits: what each run shows."""

import time

import pytest
import redis
from sqlalchemy import create_engine

from webapp import keys
from webapp.experiments import Bench, Outcome
from webapp.experiments.rate_limiter import EXPERIMENTS

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


def bench_of(client: redis.Redis) -> Bench:
    return Bench(client, create_engine("sqlite://"), "rpl", 1, keys.LIMITS_LAB)


@pytest.fixture
def bench(redis_client: redis.Redis) -> Bench:
    return bench_of(redis_client)


def run(bench: Bench, name: str, **form: str) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(bench, **experiment.parse(form))


def shown(outcome: Outcome) -> dict[str, str]:
    return {row.label: row.value for row in outcome.rows}


@pytest.mark.parametrize(("callers", "limit"), [("8", "10"), ("2", "5"), ("10", "20")])
def test_get_then_set_admits_more_than_the_limit_and_multi_exactly_it(
    server_client: redis.Redis, callers: str, limit: str
) -> None:
    outcome = run(bench_of(server_client), "get-then-set", callers=callers, limit=limit)
    rows = shown(outcome)
    assert int(rows["Admitted, GET then SET"]) > int(limit)
    assert rows["Admitted, MULTI"] == limit
    assert outcome.tone == "no"


def test_the_callers_clocks_admit_twice_the_limit(bench: Bench) -> None:
    rows = shown(run(bench, "client-clock", limit="10", ahead_s="30"))
    assert list(rows.values()) == ["20", "10"]


def test_callers_whose_clocks_agree_are_limited(bench: Bench) -> None:
    outcome = run(bench, "client-clock", limit="10", ahead_s="0")
    assert list(shown(outcome).values()) == ["10", "10"]
    assert outcome.tone == "ok"


def test_a_counter_without_a_ttl_blocks_until_the_pattern_heals_it(
    bench: Bench,
) -> None:
    outcome = run(bench, "crash")
    rows = shown(outcome)
    assert rows["Expiry, INCR then EXPIRE"] == "no expiry"
    assert rows["Expiry, MULTI"].endswith("ms")
    assert rows["After the window, INCR then EXPIRE"] == "rejected, 4"
    assert rows["After the window, MULTI"] == "admitted"
    assert [lane.tone for lane in outcome.lanes] == ["no", "ok"]


def test_a_request_passes_exactly_when_told_and_not_before(bench: Bench) -> None:
    outcome = run(bench, "retry")
    assert outcome.verdict == "exact"
    for lane in outcome.lanes:
        assert lane.steps[-2].reply.startswith("rejected, retry in")
        assert lane.steps[-1].reply == "admitted"


def test_who_was_late_to_ask_early_asks_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sleep, until 40 ms before it is time, takes 100 ms too long."""
    late, sleep = iter([0.1]), time.sleep
    monkeypatch.setattr(time, "sleep", lambda s: sleep(s + next(late, 0)))
    outcome = run(bench, "retry")
    assert outcome.verdict == "exact"
    assert len(outcome.recordings) > 2 * len(outcome.lanes[0].steps)


def test_a_step_names_its_commands_in_the_order_they_were_sent(bench: Bench) -> None:
    healed = run(bench, "crash").lanes[1].steps[1]
    assert healed.recording.cause == ("Worker 2: MULTI, INCRBY, PEXPIRE, PTTL, EXEC")
