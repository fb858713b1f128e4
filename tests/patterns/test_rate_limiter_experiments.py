"""Break it for rate limits: what each run shows, and that it leaves nothing behind."""

from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import RedisError
from sqlalchemy import create_engine

from tests.patterns.conftest import keys_of
from webapp import keys
from webapp.connection.recorder import Command
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.rate_limiter import EXPERIMENTS

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
each_experiment = pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)


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


def commands(outcome: Outcome) -> list[Command]:
    return [c for own in outcome.recordings for t in own.trips for c in t.commands]


# All of them


@each_experiment
def test_a_run_leaves_no_key(bench: Bench, experiment: Experiment) -> None:
    run(bench, experiment.name)
    assert bench.client.keys("*") == []


@each_experiment
def test_a_run_writes_only_scratch_keys_of_one_group(
    bench: Bench, experiment: Experiment
) -> None:
    named = {k for c in commands(run(bench, experiment.name)) for k in keys_of(c)}
    families = {keys.family_of("rpl", key) for key in named}
    assert named
    assert families <= {keys.LIMITS_LAB, keys.LIMITS_LAB_LOG}
    assert len({key_slot(key.encode()) for key in named}) == 1


@each_experiment
def test_every_command_names_the_line_that_sent_it(
    bench: Bench, experiment: Experiment
) -> None:
    sent = commands(run(bench, experiment.name))
    files = {Path(c.source[0]).name for c in sent if c.source}
    assert files <= {"rate_limiter.py", "fixed_window.py", "sliding_window_log.py"}
    assert all(c.source for c in sent if c.args[0] not in ("HELLO", "PING", "ROLE"))


@each_experiment
def test_without_redis_a_run_fails(
    redis_down: redis.Redis, experiment: Experiment
) -> None:
    with pytest.raises(RedisError):
        run(bench_of(redis_down), experiment.name)


@each_experiment
def test_a_card_has_at_most_two_controls(experiment: Experiment) -> None:
    assert len(experiment.controls) <= 2


# One by one


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


def test_a_step_names_its_commands_in_the_order_they_were_sent(bench: Bench) -> None:
    healed = run(bench, "crash").lanes[1].steps[1]
    assert healed.recording.cause == ("Worker 2: MULTI, INCRBY, PEXPIRE, PTTL, EXEC")
