"""Break it: what each run shows."""

from typing import Any

import pytest
import redis

from webapp import keys
from webapp.experiments import Bench, Outcome
from webapp.experiments.session_store import EXPERIMENTS

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


@pytest.fixture
def bench(redis_client: redis.Redis) -> Bench:
    nothing: Any = None  # no experiment here asks the database
    return Bench(redis_client, nothing, "rpl", 1042, keys.SESSIONS_LAB)


def run(bench: Bench, name: str) -> Outcome:
    experiment = BY_NAME[name]
    return experiment.run(bench, **{c.name: c.min for c in experiment.controls})


def last_replies(outcome: Outcome) -> list[str]:
    return [lane.steps[-1].reply for lane in outcome.lanes]


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
