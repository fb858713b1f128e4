"""The claims of tag invalidation, on fakeredis and on a real server."""

import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.patterns.conftest import Line, keys_of
from webapp import keys
from webapp.connection.recorder import Recording
from webapp.patterns.cache_aside import CacheAside, Entry, Read
from webapp.patterns.tag_invalidation import Tag, TagInvalidation

CACHE = CacheAside()
TAGGED = TagInvalidation(CACHE)


def entry(member: str) -> Entry:
    return Entry(
        keys.key("rpl", keys.PRODUCT, member), keys.key("rpl", keys.LEASE, member)
    )


TAG = Tag(keys.key("rpl", keys.TAG, "kitchen"), entry)


def read(
    client: redis.Redis,
    member: str = "1042",
    *,
    load: Callable[[], bytes | None] = lambda: b"page",
    tags: redis.Redis | None = None,
) -> Read[bytes]:
    return TAGGED.read(
        client,
        tags or client,
        member,
        tag_of=lambda: TAG,
        entry=entry(member),
        load=load,
        encode=bytes,
        decode=bytes,
    )


def invalidate(client: redis.Redis) -> int:
    return TAGGED.invalidate(client, client, TAG)


# Reads


def test_a_miss_registers_loads_and_leaves_a_copy(redis_client: redis.Redis) -> None:
    assert read(redis_client) == Read(b"page", "miss", stored=True)
    assert redis_client.smembers(TAG.key) == {b"1042"}
    assert redis_client.get(entry("1042").value) == b"page"


def test_a_miss_costs_three_round_trips(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    read(redis_client)
    assert len(recorded.trips) == 3


def test_a_hit_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    read(redis_client)
    recorded.trips.clear()
    assert read(redis_client).outcome == "hit"
    assert len(recorded.trips) == 1


def test_a_key_is_registered_before_its_row_is_loaded(
    redis_client: redis.Redis,
) -> None:
    def load() -> bytes:
        assert redis_client.sismember(TAG.key, "1042")
        return b"page"

    read(redis_client, load=load)


def test_a_row_without_a_tag_is_cached_all_the_same(redis_client: redis.Redis) -> None:
    TAGGED.read(
        redis_client,
        redis_client,
        "9",
        tag_of=lambda: None,
        entry=entry("9"),
        load=lambda: None,
        encode=bytes,
        decode=bytes,
    )
    assert redis_client.get(entry("9").value) == b"null"
    assert not redis_client.exists(TAG.key)


def test_the_tag_outlives_each_value_it_names(redis_client: redis.Redis) -> None:
    read(redis_client, "1")
    redis_client.pexpire(TAG.key, 5_000)
    read(redis_client, "2")
    longest_ms = CACHE.ttl_ms * (1 + CACHE.jitter) + CACHE.lease_ms
    assert redis_client.pttl(TAG.key) > longest_ms


def test_the_registry_keeps_tags_where_nothing_is_evicted() -> None:
    assert keys.TAG.role == "durable"
    assert keys.TAG.ttl_ms == TAGGED.tag_ttl_ms


# Invalidation


def test_an_invalidation_deletes_values_and_leases_of_all_members(
    redis_client: redis.Redis,
) -> None:
    for member in ("1", "2", "3"):
        read(redis_client, member)
    redis_client.set(entry("3").lease, "token", px=10_000)
    assert invalidate(redis_client) == 4
    assert redis_client.keys("*") == []


def test_an_empty_tag_has_nothing_to_delete(redis_client: redis.Redis) -> None:
    assert invalidate(redis_client) == 0


def test_an_invalidation_asks_in_batches(
    server_client: redis.Redis, recorded: Recording
) -> None:
    members = [f"m{n}" for n in range(1_000)]
    server_client.sadd(TAG.key, *members)
    server_client.pexpire(TAG.key, 60_000)
    recorded.trips.clear()
    TagInvalidation(CACHE, batch=100).invalidate(server_client, server_client, TAG)
    assert not server_client.exists(TAG.key)
    assert max(len(trip.commands) for trip in recorded.trips) < 400


def test_every_command_stays_in_one_slot(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    for member in ("1", "2", "3"):
        read(redis_client, member)
    invalidate(redis_client)
    commands = [command for trip in recorded.trips for command in trip.commands]
    slots = [{key_slot(k.encode()) for k in keys_of(c)} for c in commands]
    assert len(set().union(*slots)) == 4  # three products and their tag
    assert all(len(own) <= 1 for own in slots)
    transactions = [t for t in recorded.trips if t.commands[0].args[0] == "MULTI"]
    assert all(
        {k for c in t.commands[1:-1] for k in keys_of(c)} == {TAG.key}
        for t in transactions
    )


def test_a_member_that_joins_during_an_invalidation_stays_in_the_tag(
    redis_client: redis.Redis,
) -> None:
    read(redis_client, "1")
    [found] = TAGGED.batches(redis_client, TAG)
    read(redis_client, "2")
    TAGGED.sweep(redis_client, redis_client, TAG, found)
    assert redis_client.smembers(TAG.key) == {b"2"}
    assert read(redis_client, "2").outcome == "hit"


def test_a_load_in_flight_leaves_nothing_behind(redis_client: redis.Redis) -> None:
    def load() -> bytes:
        invalidate(redis_client)
        return b"old"

    assert read(redis_client, load=load) == Read(b"old", "miss", stored=False)
    assert not redis_client.exists(entry("1042").value)


def test_a_copy_stored_between_deletion_and_removal_is_no_orphan(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(redis_client)
    remove = redis_client.srem

    def read_and_remove(*args: str) -> int:
        read(redis_client)
        return remove(*args)

    monkeypatch.setattr(redis_client, "srem", read_and_remove)
    invalidate(redis_client)
    assert not redis_client.exists(entry("1042").value)


def test_an_invalidation_that_dies_half_way_can_run_again(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(redis_client, "1")

    def die(*_: str) -> int:
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr(redis_client, "srem", die)
        with pytest.raises(LookupError):
            invalidate(redis_client)
    assert redis_client.smembers(TAG.key) == {b"1"}
    assert invalidate(redis_client) == 0
    assert not redis_client.exists(TAG.key)


class Shop:
    """A model: rows whose version rises with each change of the whole category.

    A copy belongs to the tag or is gone, and is not older than the last change that
    an invalidation has made good.
    """

    MEMBERS = ("1", "2")

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.version = self.acknowledged = 0
        self.between = 0  # invalidations before their last step
        client.flushall()

    def reader(self, member: str) -> Iterator[None]:
        while True:
            fetched = CACHE.fetch(self.client, entry(member))
            if fetched.payload is not None:
                assert int(fetched.payload) >= self.acknowledged
                yield
                continue
            yield
            TAGGED.register(self.client, TAG, member)
            yield
            row = b"%d" % self.version
            yield
            lease = fetched.lease or b""
            CACHE.store(self.client, entry(member), lease=lease, payload=row)
            yield

    def invalidation(self) -> Iterator[None]:
        while True:
            self.version += 1
            mine = self.version
            yield
            for members in TAGGED.batches(self.client, TAG):
                yield
                yield from self.sweep(members)
            if not self.between:  # what another is about to delete is passed by
                self.acknowledged = max(self.acknowledged, mine)
            yield

    def sweep(self, members: list[str]) -> Iterator[None]:
        """The steps of TAGGED.sweep, with room for others in between."""
        entries = [entry(member) for member in members]
        for step in (0, 1, 2):
            if step == 1:
                self.client.srem(TAG.key, *members)
                self.between += 1
            else:
                for own in entries:
                    CACHE.invalidate(self.client, own)
                self.between -= step == 2
            yield

    def evictor(self, member: str) -> Iterator[None]:
        while True:
            self.client.delete(entry(member).lease)
            yield
            self.client.delete(entry(member).value)
            yield


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(schedule=st.lists(st.integers(0, 7), max_size=60))
def test_no_interleaving_revives_a_copy(
    redis_client: redis.Redis, schedule: list[int]
) -> None:
    """FAULTS D4, at 200 schedules instead of 10,000.

    The set is on a server that evicts nothing, so what may be lost at random are the
    leases, which stand where a version of the tag would: a lost one is a new one.
    """
    shop = Shop(redis_client)
    first, second = Shop.MEMBERS
    actors = [
        shop.reader(first),
        shop.reader(first),
        shop.reader(second),
        shop.invalidation(),
        shop.invalidation(),
        shop.evictor(first),
        shop.evictor(second),
        shop.reader(second),
    ]
    for turn in schedule:
        next(actors[turn])
    for reader in (actors[0], actors[1], actors[2], actors[7]) * 4:
        next(reader)  # the reads that are under way come to their end
    for _ in range(100):
        if not shop.between:
            break
        for invalidation in actors[3:5]:
            next(invalidation)
    assert not shop.between
    shop.version += 1
    shop.acknowledged = shop.version
    invalidate(redis_client)
    for member in Shop.MEMBERS:
        assert not redis_client.exists(entry(member).value), "lost to its tag"


def test_readers_and_invalidations_at_once_revive_nothing(
    server_client: redis.Redis,
) -> None:
    shop, over = Shop(server_client), threading.Event()
    stale: list[tuple[int, int]] = []
    outcomes: set[str] = set()

    def keep_reading(member: str) -> None:
        while not over.is_set():
            least = shop.acknowledged
            seen = read(server_client, member, load=lambda: b"%d" % shop.version)
            outcomes.add(seen.outcome)
            if int(seen.value or 0) < least:
                stale.append((int(seen.value or 0), least))

    def change_and_invalidate() -> None:
        for _ in range(200):
            shop.version += 1
            mine = shop.version
            invalidate(server_client)
            shop.acknowledged = mine

    readers = [
        threading.Thread(target=keep_reading, args=(member,))
        for member in Shop.MEMBERS * 3
    ]
    writer = threading.Thread(target=change_and_invalidate)
    for thread in [*readers, writer]:
        thread.start()
    writer.join()
    over.set()
    for thread in readers:
        thread.join()
    assert stale == []
    assert outcomes == {"hit", "miss"}
    invalidate(server_client)
    assert not any(server_client.exists(entry(m).value) for m in Shop.MEMBERS)


# Redis is away


def test_without_redis_a_read_loads_once_and_says_bypass(
    redis_down: redis.Redis,
) -> None:
    loads: list[int] = []

    def load() -> bytes:
        loads.append(1)
        return b"page"

    assert read(redis_down, load=load) == Read(b"page", "bypass")
    assert len(loads) == 1


def test_without_the_tags_server_nothing_is_kept(
    server_client: redis.Redis, line: Line
) -> None:
    line.cut()
    assert read(server_client, tags=line.client) == Read(b"page", "bypass")
    assert not server_client.exists(entry("1042").value)


def test_without_redis_an_invalidation_is_told(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        invalidate(redis_down)
