"""The claims of write-through, on fakeredis and on a real server."""

import threading
from collections.abc import Iterator

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection.recorder import Recording
from webapp.patterns.cache_aside import CacheAside, Entry
from webapp.patterns.write_through import WriteThrough, Written

ENTRY = Entry(
    value=keys.key("rpl", keys.PRODUCT, 1042), lease=keys.key("rpl", keys.LEASE, 1042)
)
CACHE = CacheAside()
THROUGH = WriteThrough(CACHE)


class Kettle(msgspec.Struct, frozen=True):
    version: int


def payload(version: int) -> bytes:
    return msgspec.json.encode(Kettle(version))


def write(client: redis.Redis, version: int) -> Written:
    return THROUGH.write(client, ENTRY, version=version, payload=payload(version))


def put(client: redis.Redis, version: int) -> None:
    """A copy as a reader leaves it."""
    lease = CACHE.fetch(client, ENTRY).lease
    assert lease is not None
    assert CACHE.store(client, ENTRY, lease=lease, payload=payload(version))


# One writer


def test_a_write_replaces_an_older_value(redis_client: redis.Redis) -> None:
    put(redis_client, 1)
    assert write(redis_client, 2) == "stored"
    assert redis_client.get(ENTRY.value) == payload(2)


def test_a_write_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    put(redis_client, 1)
    recorded.trips.clear()
    write(redis_client, 2)
    assert [len(trip.commands) for trip in recorded.trips] == [1]


def test_the_next_read_after_a_write_is_a_hit(redis_client: redis.Redis) -> None:
    put(redis_client, 1)
    write(redis_client, 2)
    assert CACHE.fetch(redis_client, ENTRY).payload == payload(2)


def test_a_written_value_has_the_ttl_of_a_read_one(redis_client: redis.Redis) -> None:
    put(redis_client, 1)
    write(redis_client, 2)
    assert 3_599_000 < redis_client.pttl(ENTRY.value) <= 3_960_000


# Order


@pytest.mark.parametrize("stored", [2, 3, 10, 2**53 - 1])
def test_an_older_write_changes_nothing(redis_client: redis.Redis, stored: int) -> None:
    put(redis_client, stored)
    assert write(redis_client, 2) == "newer"
    assert redis_client.get(ENTRY.value) == payload(stored)


def test_versions_are_compared_as_numbers(redis_client: redis.Redis) -> None:
    put(redis_client, 9)
    assert write(redis_client, 10) == "stored"


def test_without_a_value_an_older_write_cannot_win(redis_client: redis.Redis) -> None:
    put(redis_client, 1)
    write(redis_client, 3)
    redis_client.delete(ENTRY.value)  # evicted
    assert write(redis_client, 2) == "absent"
    assert not redis_client.exists(ENTRY.value)


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"12",
        b'{"version":"x"}',
        b'{"version":null}',
        b"\xff",
    ],
)
def test_a_value_without_a_version_is_removed(
    redis_client: redis.Redis, poison: bytes
) -> None:
    redis_client.set(ENTRY.value, poison, px=60_000)
    assert write(redis_client, 2) == "absent"
    assert not redis_client.exists(ENTRY.value)


# Readers


@pytest.mark.parametrize("cached", [True, False])
def test_a_reader_that_loaded_before_a_write_cannot_store_after_it(
    redis_client: redis.Redis, cached: bool
) -> None:
    lease = CACHE.fetch(redis_client, ENTRY).lease or b""
    if cached:  # another reader was quicker
        redis_client.set(ENTRY.value, payload(1), px=60_000)
    write(redis_client, 2)
    assert not CACHE.store(redis_client, ENTRY, lease=lease, payload=payload(1))
    assert redis_client.get(ENTRY.value) == (payload(2) if cached else None)


class Shop:
    """A model: one row with a version, and the newest version acknowledged."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.version = self.acknowledged = 0
        CACHE.invalidate(client, ENTRY)

    def reader(self) -> Iterator[None]:
        while True:
            fetched = CACHE.fetch(self.client, ENTRY)
            if fetched.payload is not None:
                seen = msgspec.json.decode(fetched.payload, type=Kettle).version
                assert seen >= self.acknowledged
                yield
                continue
            yield
            row = payload(self.version)
            yield
            CACHE.store(self.client, ENTRY, lease=fetched.lease or b"", payload=row)
            yield

    def writer(self) -> Iterator[None]:
        while True:
            self.version += 1
            mine = self.version
            yield
            loaded = self.version  # the page as it is now, not as this write left it
            yield
            write(self.client, loaded)
            self.acknowledged = max(self.acknowledged, mine)
            yield

    def deleter(self) -> Iterator[None]:
        """A write in the way of cache-aside."""
        while True:
            self.version += 1
            mine = self.version
            yield
            CACHE.invalidate(self.client, ENTRY)
            self.acknowledged = max(self.acknowledged, mine)
            yield

    def evictor(self, key: str) -> Iterator[None]:
        while True:
            self.client.delete(key)
            yield


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(schedule=st.lists(st.integers(0, 7), max_size=40))
def test_no_interleaving_serves_what_was_read_before_an_acknowledged_write(
    redis_client: redis.Redis, schedule: list[int]
) -> None:
    """FAULTS D2, at 150 schedules instead of 5,000."""
    shop = Shop(redis_client)
    actors = [
        shop.reader(),
        shop.reader(),
        shop.writer(),
        shop.writer(),
        shop.writer(),
        shop.deleter(),
        shop.evictor(ENTRY.value),
        shop.evictor(ENTRY.lease),
    ]
    for turn in schedule:
        next(actors[turn])
    for reader in actors[:2] * 3:  # and the reads that are under way
        next(reader)


def test_writers_of_both_kinds_never_leave_an_older_value(
    server_client: redis.Redis,
) -> None:
    shop, lock, over = Shop(server_client), threading.Lock(), threading.Event()
    stale: list[tuple[int, int]] = []
    written: list[Written] = []

    def keep_reading() -> None:
        while not over.is_set():
            least = shop.acknowledged
            seen = CACHE.read(
                server_client,
                ENTRY,
                load=lambda: Kettle(shop.version),
                encode=msgspec.json.encode,
                decode=lambda text: msgspec.json.decode(text, type=Kettle),
            )
            if seen.value is None or seen.value.version < least:
                stale.append((seen.value.version if seen.value else -1, least))

    def keep_writing(number: int) -> None:
        for _ in range(200):
            with lock:
                shop.version += 1
                mine = shop.version
            if number:
                written.append(write(server_client, mine))
            else:
                CACHE.invalidate(server_client, ENTRY)
            with lock:
                shop.acknowledged = max(shop.acknowledged, mine)

    readers = [threading.Thread(target=keep_reading) for _ in range(4)]
    writers = [threading.Thread(target=keep_writing, args=(n,)) for n in range(3)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert stale == []
    assert "stored" in written
    assert server_client.get(ENTRY.value) in (None, payload(600))


def test_without_redis_a_writer_is_told(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        write(redis_down, 2)
