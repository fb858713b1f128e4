"""The claims of both limiters, on fakeredis and on a real server."""

import threading
import time
from collections.abc import Callable

import pytest
import redis
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError, ResponseError

from tests.conftest import wait_until
from webapp import keys
from webapp.connection.recorder import Recording
from webapp.patterns.rate_limiter import CostTooHigh, Decision, tally
from webapp.patterns.rate_limiter.fixed_window import FixedWindow
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog
from webapp.patterns.rate_limiter.tally import Tally

Algorithm = FixedWindow | SlidingWindowLog
Kind = type[FixedWindow] | type[SlidingWindowLog]

KEYS: dict[Kind, str] = {
    FixedWindow: keys.key("rpl", keys.FIXED_WINDOW, "alice"),
    SlidingWindowLog: keys.key("rpl", keys.SLIDING_WINDOW_LOG, "alice"),
}
TALLY = keys.key("rpl", keys.TALLY, "alice", "some")
both = pytest.mark.parametrize("kind", list(KEYS), ids=["fixed", "log"])


def ask(
    client: redis.Redis, algorithm: Algorithm, cost: int = 1, *, counted: bool = False
) -> Decision:
    tally_key = TALLY if counted else None
    key = KEYS[type(algorithm)]
    return algorithm.decide(client, key, cost, tally_key=tally_key)


def admitted(client: redis.Redis, algorithm: Algorithm, times: int) -> int:
    return sum(ask(client, algorithm).allowed for _ in range(times))


# One decision


@both
def test_requests_pass_up_to_the_limit(redis_client: redis.Redis, kind: Kind) -> None:
    answers = [ask(redis_client, kind(limit=3)) for _ in range(5)]
    assert [d.allowed for d in answers] == [True, True, True, False, False]
    assert [d.remaining for d in answers] == [2, 1, 0, 0, 0]
    assert {d.limit for d in answers} == {3}


@both
def test_a_decision_is_one_round_trip(
    redis_client: redis.Redis, recorded: Recording, kind: Kind
) -> None:
    ask(redis_client, kind(limit=1))
    ask(redis_client, kind(limit=1), counted=True)
    assert len(recorded.trips) == 2


def test_a_fixed_window_is_one_multi_of_three_commands(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    ask(redis_client, FixedWindow())
    sent = [command.args for command in recorded.trips[0].commands]
    key = KEYS[FixedWindow]
    assert sent == [
        ("MULTI",),
        ("INCRBY", key, 1),
        ("PEXPIRE", key, 60_000, "NX"),
        ("PTTL", key),
        ("EXEC",),
    ]


@both
def test_a_request_that_passed_need_not_retry(
    redis_client: redis.Redis, kind: Kind
) -> None:
    assert ask(redis_client, kind()).retry_after_ms == 0


@both
def test_the_reset_is_within_the_window(redis_client: redis.Redis, kind: Kind) -> None:
    decision = ask(redis_client, kind(window_ms=5_000))
    assert 4_900 < decision.reset_after_ms <= 5_000


@both
def test_clients_have_windows_of_their_own(
    redis_client: redis.Redis, kind: Kind
) -> None:
    limit = kind(limit=1)
    part = keys.FIXED_WINDOW if kind is FixedWindow else keys.SLIDING_WINDOW_LOG
    for name in ("alice", "bob"):
        assert limit.decide(redis_client, keys.key("rpl", part, name)).allowed


@both
def test_a_cost_uses_as_many_units(redis_client: redis.Redis, kind: Kind) -> None:
    limit = kind(limit=10)
    assert ask(redis_client, limit, 7).remaining == 3
    assert not ask(redis_client, limit, 4).allowed


def test_a_log_keeps_what_a_refused_cost_did_not_use(redis_client: redis.Redis) -> None:
    limit = SlidingWindowLog(limit=10)
    ask(redis_client, limit, 7)
    ask(redis_client, limit, 4)
    assert ask(redis_client, limit, 3).allowed


@both
@pytest.mark.parametrize("cost", [0, -1, 11])
def test_a_cost_that_could_never_pass_is_an_error(
    redis_client: redis.Redis, kind: Kind, cost: int
) -> None:
    with pytest.raises(CostTooHigh):
        ask(redis_client, kind(limit=10), cost)
    assert redis_client.keys() == []


@both
def test_the_key_ends_with_its_window(redis_client: redis.Redis, kind: Kind) -> None:
    ask(redis_client, kind(window_ms=5_000))
    assert 4_900 < redis_client.pttl(KEYS[kind]) <= 5_000


def test_the_window_of_steady_traffic_ends(redis_client: redis.Redis) -> None:
    ask(redis_client, FixedWindow(window_ms=5_000))
    time.sleep(0.02)  # what is claimed is that this time passes
    assert ask(redis_client, FixedWindow(window_ms=5_000)).reset_after_ms < 4_990


def test_a_burst_within_one_millisecond_is_logged_in_full(
    redis_client: redis.Redis,
) -> None:
    limit = SlidingWindowLog(limit=500)
    for _ in range(20):
        ask(redis_client, limit, 25)
    assert redis_client.zcard(KEYS[SlidingWindowLog]) == 500


def test_refused_requests_are_not_logged(redis_client: redis.Redis) -> None:
    admitted(redis_client, SlidingWindowLog(limit=3), 9)
    assert redis_client.zcard(KEYS[SlidingWindowLog]) == 3


# Time


@both
def test_asked_again_exactly_when_told_a_request_passes(
    redis_client: redis.Redis, kind: Kind
) -> None:
    limit = kind(limit=3, window_ms=2_000)
    admitted(redis_client, limit, 3)
    refused = ask(redis_client, limit)
    assert not refused.allowed
    time.sleep(refused.retry_after_ms / 1000)
    assert ask(redis_client, limit).allowed


@both
def test_asked_again_a_moment_too_soon_a_request_is_refused(kind: Kind) -> None:
    client, limit = _fake(), kind(limit=3, window_ms=2_000)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for _ in range(3):
            admitted(client, limit, 3)
            refused = ask(client, limit)
            clock.shift((refused.retry_after_ms - 2) / 1000)
            assert not ask(client, limit).allowed
            clock.shift(0.002)
            assert ask(client, limit).allowed


def test_a_retry_waits_for_as_many_units_as_the_request_costs() -> None:
    client, limit = _fake(), SlidingWindowLog(limit=4, window_ms=10_000)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for _ in range(4):
            ask(client, limit)
            clock.shift(1)
        assert ask(client, limit).retry_after_ms == 6_000
        three = ask(client, limit, 3)
        assert (three.retry_after_ms, three.reset_after_ms) == (8_000, 6_000)
        clock.shift(8)
        assert ask(client, limit, 3).allowed


def test_a_fixed_window_lets_twice_the_limit_through_around_its_end() -> None:
    client, limit = _fake(), FixedWindow(limit=20, window_ms=10_000)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        ask(client, limit)
        clock.shift(9.9)
        before = admitted(client, limit, 20)
        clock.shift(0.2)
        assert before + admitted(client, limit, 20) == 39


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(gaps_ms=st.lists(st.integers(0, 400), min_size=5, max_size=80))
def test_no_window_of_a_log_ever_holds_more_than_the_limit(gaps_ms: list[int]) -> None:
    client, limit = _fake(), SlidingWindowLog(limit=4, window_ms=1_000)
    passed: list[int] = []
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        now = 0
        for gap in gaps_ms:
            clock.shift(gap / 1000)
            now += gap
            expected = sum(at > now - 1_000 for at in passed) < 4
            assert ask(client, limit).allowed == expected
            if expected:
                passed.append(now)
    assert all(later - first >= 1_000 for first, later in zip(passed, passed[4:]))  # noqa: B905


def test_a_caller_with_a_wrong_clock_changes_nothing(
    server_client: redis.Redis,
) -> None:
    limit = SlidingWindowLog(limit=5)
    assert admitted(server_client, limit, 5) == 5
    with time_machine.travel(time.time() + 3600):
        assert admitted(server_client, limit, 5) == 0
    with time_machine.travel(time.time() - 3600):
        assert admitted(server_client, limit, 5) == 0


# Exactness


@both
def test_threads_together_are_admitted_exactly_to_the_limit(
    server_client: redis.Redis, kind: Kind
) -> None:
    """F1 with 8 threads and 800 requests; the full count is in tests/server."""
    passed: list[int] = []

    def work() -> None:
        passed.append(admitted(server_client, kind(limit=100), 100))

    _all_at_once(work, 8)
    assert sum(passed) == 100


@both
def test_the_tally_agrees_over_many_windows(
    server_client: redis.Redis, kind: Kind
) -> None:
    limit = kind(limit=20, window_ms=50)
    said: list[bool] = []
    ends = time.monotonic() + 30

    def work() -> None:
        while min(said.count(True), said.count(False)) <= 60:
            assert time.monotonic() < ends
            said.append(ask(server_client, limit, counted=True).allowed)

    _all_at_once(work, 4)
    assert tally.read(server_client, TALLY) == Tally(
        said.count(True), said.count(False)
    )


@both
def test_a_tally_begins_again_and_the_limit_does_not(
    redis_client: redis.Redis, kind: Kind
) -> None:
    for _ in range(3):
        ask(redis_client, kind(limit=2), counted=True)
    assert tally.read(redis_client, TALLY) == Tally(2, 1)
    tally.reset(redis_client, TALLY)
    assert tally.read(redis_client, TALLY) == Tally(0, 0)
    assert not ask(redis_client, kind(limit=2), counted=True).allowed
    assert tally.read(redis_client, TALLY) == Tally(0, 1)


@both
def test_a_tally_counts_requests_and_not_their_cost(
    redis_client: redis.Redis, kind: Kind
) -> None:
    ask(redis_client, kind(limit=10), 6, counted=True)
    ask(redis_client, kind(limit=10), 6, counted=True)
    assert tally.read(redis_client, TALLY) == Tally(1, 1)


@both
def test_a_tally_has_a_ttl(redis_client: redis.Redis, kind: Kind) -> None:
    ask(redis_client, kind(), counted=True)
    assert 3_590_000 < redis_client.pttl(TALLY) <= 3_600_000


# Faults


def test_a_counter_without_a_ttl_is_healed_by_the_next_request(
    redis_client: redis.Redis,
) -> None:
    """F2 for one planted key; many in the next test."""
    redis_client.set(KEYS[FixedWindow], 1_000)
    refused = ask(redis_client, FixedWindow(limit=3, window_ms=100))
    assert not refused.allowed
    assert 0 < refused.retry_after_ms <= 101
    wait_until(lambda: ask(redis_client, FixedWindow(3, 100)).allowed)


@both
@pytest.mark.timeout(180)
@pytest.mark.parametrize("clients", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_client_ever_gets_a_key_without_a_ttl(
    server_client: redis.Redis, kind: Kind, clients: int
) -> None:
    """F2 with 150 clients whose connections die; all 10,000 in `make test-all`."""
    pool = server_client.connection_pool
    family = keys.FIXED_WINDOW if kind is FixedWindow else keys.SLIDING_WINDOW_LOG
    for n in range(clients):
        key = keys.key("rpl", family, f"client-{n}")
        if n % 3 == 0 and kind is FixedWindow:
            server_client.set(key, 1)
        elif n % 3 == 0:
            server_client.zadd(key, {"planted": 1})
        if n % 10 == 0:
            pool.disconnect()
        kind().decide(server_client, key)
        assert server_client.pttl(key) > 0


@both
def test_scripts_that_the_server_forgot_are_sent_again(
    redis_client: redis.Redis, kind: Kind
) -> None:
    for _ in range(3):
        redis_client.script_flush()
        assert ask(redis_client, kind(), counted=True).allowed
    assert tally.read(redis_client, TALLY) == Tally(3, 0)


@both
def test_a_key_of_another_type_is_an_error_and_no_free_pass(
    redis_client: redis.Redis, kind: Kind
) -> None:
    redis_client.hset(KEYS[kind], "field", "value")
    redis_client.pexpire(KEYS[kind], 1_000)
    with pytest.raises(ResponseError):
        ask(redis_client, kind())


@both
def test_without_redis_the_caller_is_told(redis_down: redis.Redis, kind: Kind) -> None:
    with pytest.raises(RedisError):
        ask(redis_down, kind())


def _all_at_once(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _fake() -> redis.Redis:
    import fakeredis

    return fakeredis.FakeRedis(version=(7, 4))
