"""The Bloom filter keeps its promises, on fakeredis and on a real server."""

import random

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.patterns.conftest import Recording
from webapp import keys
from webapp.patterns.bloom_filter import BloomFilter

KEY = keys.key("rpl", keys.FILTER, "products")
IDS = [str(n) for n in range(1, 1001)]
BLOOM = BloomFilter.sized(len(IDS), error_rate=0.01)


def test_what_was_added_is_never_denied(redis_client: redis.Redis) -> None:
    BLOOM.build(redis_client, KEY, ids=IDS)
    assert all(BLOOM.has_each(redis_client, KEY, IDS))
    assert BLOOM.has(redis_client, KEY, "1") is True


def test_about_as_many_pass_as_planned(redis_client: redis.Redis) -> None:
    BLOOM.build(redis_client, KEY, ids=IDS)
    unknown = [f"no-{n}" for n in range(3000)]
    passed = sum(map(bool, BLOOM.has_each(redis_client, KEY, unknown)))
    assert 10 <= passed <= 60  # 30 are planned; the same ids each time


def test_a_lost_filter_denies_nothing(redis_client: redis.Redis) -> None:
    assert BLOOM.has(redis_client, KEY, "1") is None
    BLOOM.build(redis_client, KEY, ids=())
    assert BLOOM.has(redis_client, KEY, "1") is False


def test_an_id_added_later_passes(redis_client: redis.Redis) -> None:
    BLOOM.build(redis_client, KEY, ids=IDS)
    assert BLOOM.has(redis_client, KEY, "late") is False
    assert BLOOM.add(redis_client, KEY, "late")
    assert BLOOM.has(redis_client, KEY, "late") is True
    assert 0 < redis_client.pttl(KEY) <= BLOOM.ttl_ms


def test_nothing_is_added_to_a_filter_that_is_not_there(
    redis_client: redis.Redis,
) -> None:
    assert not BLOOM.add(redis_client, KEY, "late")
    assert redis_client.exists(KEY) == 0


def test_each_step_is_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    before = len(recorded.trips)
    BLOOM.build(redis_client, KEY, ids=IDS)
    BLOOM.has(redis_client, KEY, "1")
    BLOOM.has_each(redis_client, KEY, IDS)
    BLOOM.add(redis_client, KEY, "1001")
    assert len(recorded.trips) - before == 4


def test_it_has_a_ttl_and_the_size_it_says(redis_client: redis.Redis) -> None:
    size = BLOOM.build(redis_client, KEY, ids=IDS)
    assert size == redis_client.strlen(KEY) == BLOOM.bits // 8 + 1
    assert BLOOM.ttl_ms - 5000 < redis_client.pttl(KEY) <= BLOOM.ttl_ms


def test_without_redis_it_raises(redis_down: redis.Redis) -> None:
    with pytest.raises(redis.RedisError):
        BLOOM.has(redis_down, KEY, "1")


@pytest.mark.parametrize(
    ("error_rate", "bits_each", "hashes"), [(0.01, 9.6, 7), (0.001, 14.4, 10)]
)
def test_it_is_as_large_as_the_formula_says(
    error_rate: float, bits_each: float, hashes: int
) -> None:
    bloom = BloomFilter.sized(10_000, error_rate=error_rate)
    assert bloom.bits / 10_000 == pytest.approx(bits_each, abs=0.05)
    assert bloom.hashes == hashes
    assert bloom.error_rate(10_000) == pytest.approx(error_rate, rel=0.05)


@pytest.mark.parametrize("error_rate", [0, 1, -0.1, 2])
def test_no_filter_has_such_an_error_rate(error_rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        BloomFilter.sized(10, error_rate=error_rate)


@given(st.text(max_size=40), st.integers(1, 5000))
def test_the_places_of_an_id_are_bits_of_the_filter(id: str, count: int) -> None:
    bloom = BloomFilter.sized(
        count, error_rate=random.Random(count).uniform(0.001, 0.5)
    )
    places = bloom.places(id)
    assert len(places) == bloom.hashes
    assert all(0 <= place < bloom.bits for place in places)
    assert places == bloom.places(id)
