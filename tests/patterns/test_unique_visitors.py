"""The claims of unique visitors, on fakeredis and on a real server."""

import time

import pytest
import redis
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection.recorder import Recording
from webapp.patterns.unique_visitors import Bytes, Count, Day, UniqueVisitors, Visit

UNIQUE = UniqueVisitors()
DAY_MS = 86_400_000
WEEK = tuple(keys.key("rpl", f, "visits") for f in (keys.WEEK_HLL, keys.WEEK_SET))


def day(name: str) -> Day:
    hll, exact = (
        keys.key("rpl", family, "visits", name)
        for family in (keys.DAY_HLL, keys.DAY_SET)
    )
    return Day(hll, exact, expires_ms=round(time.time() * 1000) + DAY_MS)


MONDAY, TUESDAY = day("2026-11-16"), day("2026-11-17")


def come(client: redis.Redis, on: Day, *visitors: str) -> None:
    for visitor in visitors:
        UNIQUE.visit(client, on, visitor=visitor)


def test_a_visitor_is_new_once_a_day(redis_client: redis.Redis) -> None:
    first, again = (UNIQUE.visit(redis_client, MONDAY, visitor="ada") for _ in range(2))
    assert first == Visit(is_new=True, moved=True)
    assert again == Visit(is_new=False, moved=False)


def test_a_visit_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    come(redis_client, MONDAY, "ada")
    assert len(recorded.trips) == 1


def test_both_counters_expire_together(redis_client: redis.Redis) -> None:
    monday = day("2026-11-16")
    come(redis_client, monday, "ada")
    left = {redis_client.pttl(key) for key in (monday.hll, monday.exact)}
    assert all(DAY_MS - 60_000 < ms <= DAY_MS for ms in left)


def test_days_are_counted_apart_and_merged_into_a_week(
    redis_client: redis.Redis,
) -> None:
    come(redis_client, MONDAY, "ada", "bo")
    come(redis_client, TUESDAY, "bo", "cleo", "dag")
    counts = UNIQUE.counts(redis_client, *WEEK, days=[MONDAY, TUESDAY])
    assert counts.days == (Count(2, 2), Count(3, 3))
    assert counts.week == Count(4, 4)


def test_counts_cost_one_round_trip_and_the_week_expires(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    come(redis_client, MONDAY, "ada")
    recorded.trips.clear()
    UNIQUE.counts(redis_client, *WEEK, days=[MONDAY, TUESDAY])
    assert len(recorded.trips) == 1
    assert all(0 < redis_client.pttl(key) <= 60_000 for key in WEEK)


def test_days_without_visitors_count_nobody(redis_client: redis.Redis) -> None:
    counts = UNIQUE.counts(redis_client, *WEEK, days=[MONDAY, TUESDAY])
    assert counts.week == Count(0, 0)
    assert counts.week.error_percent == 0.0


@pytest.mark.parametrize(
    ("exact", "estimate", "percent"), [(1000, 1004, 0.4), (1000, 990, -1.0), (0, 0, 0)]
)
def test_the_error_is_a_percentage_with_its_sign(
    exact: int, estimate: int, percent: float
) -> None:
    assert Count(exact, estimate).error_percent == percent


def test_bytes_are_those_of_both_keys(server_client: redis.Redis) -> None:
    come(server_client, MONDAY, "ada")
    pairs = [(MONDAY.hll, MONDAY.exact), (TUESDAY.hll, TUESDAY.exact)]
    known, missing = UNIQUE.bytes(server_client, pairs=pairs)
    assert known == Bytes(
        exact=server_client.memory_usage(MONDAY.exact),
        estimate=server_client.memory_usage(MONDAY.hll),
    )
    assert missing == Bytes(None, None)


def test_where_bytes_are_unknown_none_are_told() -> None:
    from webapp.connection.urls import client_for

    client = client_for("fake://bytes", role="durable", max_connections=2)
    come(client, MONDAY, "ada")
    assert UNIQUE.bytes(client, pairs=[(MONDAY.hll, MONDAY.exact)]) == (
        Bytes(None, None),
    )
    client.connection_pool.disconnect()


def test_the_estimate_is_near_and_stays_small(server_client: redis.Redis) -> None:
    for first in range(0, 50_000, 5_000):
        names = [f"visitor-{n}" for n in range(first, first + 5_000)]
        server_client.pfadd(MONDAY.hll, *names)
    server_client.pexpire(MONDAY.hll, 1000)
    estimate = server_client.pfcount(MONDAY.hll)
    assert abs(Count(50_000, estimate).error_percent) < 3 * 0.81
    assert server_client.strlen(MONDAY.hll) == 12_304


def test_without_redis_nothing_is_counted(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        UNIQUE.visit(redis_down, MONDAY, visitor="ada")
    with pytest.raises(RedisError):
        UNIQUE.counts(redis_down, *WEEK, days=[MONDAY])
