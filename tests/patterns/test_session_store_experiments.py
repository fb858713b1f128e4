"""Break it: what each run shows, and that it leaves nothing behind."""

from typing import Any

import pytest
import redis
from redis.crc import key_slot

from tests.patterns.conftest import keys_of
from webapp import keys
from webapp.connection.recorder import Command
from webapp.experiments import Bench, Experiment, Outcome
from webapp.experiments.session_store import EXPERIMENTS

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
each_experiment = pytest.mark.parametrize(
    "experiment", EXPERIMENTS, ids=lambda experiment: experiment.name
)


@pytest.fixture
def bench(redis_client: redis.Redis) -> Bench:
    nothing: Any = None  # no experiment here asks the database
    return Bench(redis_client, nothing, "rpl", 1042, keys.SESSIONS_LAB)


def run(bench: Bench, name: str) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def commands(outcome: Outcome) -> list[Command]:
    return [c for own in outcome.recordings for t in own.trips for c in t.commands]


def last_replies(outcome: Outcome) -> list[str]:
    return [lane.steps[-1].reply for lane in outcome.lanes]


@each_experiment
def test_a_run_leaves_no_key(bench: Bench, experiment: Experiment) -> None:
    run(bench, experiment.name)
    assert bench.client.keys("*") == []


@each_experiment
def test_a_run_writes_only_scratch_keys_of_one_group(
    bench: Bench, experiment: Experiment
) -> None:
    outcome = run(bench, experiment.name)
    named = {key for command in commands(outcome) for key in keys_of(command)}
    assert {keys.family_of("rpl", key) for key in named} == {keys.SESSIONS_LAB}
    assert len({key_slot(key.encode()) for key in named}) == 1


@each_experiment
def test_the_flaw_is_seen_and_the_card_says_so(
    bench: Bench, experiment: Experiment
) -> None:
    outcome = run(bench, experiment.name)
    assert outcome.tone == "no"
    assert {row.tone for row in outcome.rows} == {"no", "ok"}


def test_a_planted_id_is_the_victim_or_nobody(bench: Bench) -> None:
    outcome = run(bench, "fixation")
    assert last_replies(outcome) == ["signed in as alice", "no such session"]


def test_a_whole_value_loses_a_change_and_a_field_does_not(bench: Bench) -> None:
    outcome = run(bench, "lost-update")
    assert last_replies(outcome) == ["cart 0, theme dark", "cart 1, theme dark"]


def test_a_plain_write_brings_the_session_back_without_an_end(bench: Bench) -> None:
    outcome = run(bench, "undone-sign-out")
    assert last_replies(outcome) == ["signed in as alice", "no such session"]
    assert [lane.steps[-2].reply for lane in outcome.lanes] == [
        "no expiry",
        "no such key",
    ]


def test_sessions_without_a_ttl_stay_and_the_others_go(bench: Bench) -> None:
    rows = {row.label: row.value for row in run(bench, "no-ttl").rows}
    assert rows == {"Its end, HSET": "no expiry", "Left, HSET": "5", "Left, start": "0"}
