"""The claims of cache-aside, on fakeredis and on a real server."""

import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError

from tests.conftest import wait_until
from tests.patterns.conftest import Line
from webapp import keys
from webapp.connection.recorder import Recording, recording
from webapp.patterns.cache_aside import CacheAside, Entry, Read

ENTRY = Entry(
    value=keys.key("rpl", keys.PRODUCT, 1042), lease=keys.key("rpl", keys.LEASE, 1042)
)
CACHE = CacheAside()
DEEP = b"[" * 100_000 + b"]" * 100_000


class Kettle(msgspec.Struct, frozen=True):
    price_cents: int


KETTLE = Kettle(4850)


class Database:
    """One row, or none, and how often it was asked for."""

    def __init__(self, row: Kettle | None = KETTLE) -> None:
        self.row = row
        self.loads = 0

    def load(self) -> Kettle | None:
        self.loads += 1
        return self.row


def decode(payload: bytes) -> Kettle:
    try:
        return msgspec.json.decode(payload, type=Kettle)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError from error


def read(
    client: redis.Redis,
    load: Callable[[], Kettle | None],
    *,
    cache: CacheAside = CACHE,
) -> Read[Kettle]:
    return cache.read(
        client, ENTRY, load=load, encode=msgspec.json.encode, decode=decode
    )


def lease_of(client: redis.Redis, cache: CacheAside = CACHE) -> bytes:
    lease = cache.fetch(client, ENTRY).lease
    assert lease is not None
    return lease


# Reads


def test_a_miss_loads_and_leaves_a_copy(redis_client: redis.Redis) -> None:
    database = Database()
    assert read(redis_client, database.load) == Read(KETTLE, "miss", stored=True)
    assert redis_client.get(ENTRY.value) == b'{"price_cents":4850}'


def test_a_hit_does_not_load(redis_client: redis.Redis) -> None:
    database = Database()
    read(redis_client, database.load)
    assert read(redis_client, database.load) == Read(KETTLE, "hit")
    assert database.loads == 1


def test_a_miss_costs_two_round_trips(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    read(redis_client, Database().load)
    assert [len(trip.commands) for trip in recorded.trips] == [1, 1]


def test_a_hit_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    read(redis_client, Database().load)
    recorded.trips.clear()
    read(redis_client, Database().load)
    assert [len(trip.commands) for trip in recorded.trips] == [1]


def test_a_stored_value_uses_up_its_lease(redis_client: redis.Redis) -> None:
    read(redis_client, Database().load)
    assert not redis_client.exists(ENTRY.lease)


def test_a_lease_has_its_ttl(redis_client: redis.Redis) -> None:
    CACHE.fetch(redis_client, ENTRY)
    assert 9_000 < redis_client.pttl(ENTRY.lease) <= 10_000


def test_an_error_of_the_loader_reaches_the_reader(redis_client: redis.Redis) -> None:
    def fails() -> Kettle | None:
        raise LookupError("no such table")

    with pytest.raises(LookupError):
        read(redis_client, fails)


# TTLs


def test_a_value_and_its_ttl_are_set_at_once(redis_client: redis.Redis) -> None:
    with recording(Recording("watched", see_inside=True)) as watched:
        read(redis_client, Database().load)
    inside = watched.trips[-1].commands[-1].calls or []
    writes = [call.args for call in inside if call.args[0] == b"SET"]
    assert [args[3] for args in writes] == [b"PX"]


def test_ttls_are_spread_between_the_ttl_and_a_tenth_more(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    cache = CacheAside(ttl_ms=60_000)
    for _ in range(30):
        cache.invalidate(redis_client, ENTRY)
        read(redis_client, Database().load, cache=cache)
    stores = [
        t.commands[0].args for t in recorded.trips if len(t.commands[0].args) == 8
    ]
    ttls_ms = [int(args[-1]) for args in stores]
    assert len(ttls_ms) == 30
    assert 60_000 <= min(ttls_ms) < max(ttls_ms) <= 66_000
    assert 59_000 < redis_client.pttl(ENTRY.value) <= ttls_ms[-1]


def test_without_jitter_the_ttl_is_exact(redis_client: redis.Redis) -> None:
    read(redis_client, Database().load, cache=CacheAside(ttl_ms=50_000, jitter=0.0))
    assert 49_000 < redis_client.pttl(ENTRY.value) <= 50_000


def test_a_missing_row_is_cached_shortly(redis_client: redis.Redis) -> None:
    assert read(redis_client, Database(None).load) == Read(None, "miss", stored=True)
    assert 29_000 < redis_client.pttl(ENTRY.value) <= 30_000


def test_a_cached_missing_row_is_a_hit(redis_client: redis.Redis) -> None:
    database = Database(None)
    read(redis_client, database.load)
    assert read(redis_client, database.load) == Read(None, "hit")
    assert database.loads == 1


# Poison


@pytest.mark.parametrize(
    "poison",
    [b"", b"{", b"[]", b'{"price_cents":"much"}', b"\xff\xfe", DEEP],
    ids=["empty", "cut off", "a list", "wrong schema", "no text", "deep"],
)
def test_a_poisoned_value_is_a_miss_and_replaced(
    redis_client: redis.Redis, poison: bytes
) -> None:
    redis_client.set(ENTRY.value, poison, px=60_000)
    database = Database()
    assert read(redis_client, database.load) == Read(KETTLE, "miss", stored=True)
    assert read(redis_client, database.load).outcome == "hit"
    assert database.loads == 1


@pytest.mark.parametrize("key", [ENTRY.value, ENTRY.lease], ids=["value", "lease"])
def test_a_key_of_another_type_is_a_miss_and_replaced(
    redis_client: redis.Redis, key: str
) -> None:
    redis_client.hset(key, "price_cents", "4850")
    assert read(redis_client, Database().load) == Read(
        Kettle(4850), "miss", stored=True
    )
    assert redis_client.type(ENTRY.value) == b"string"


def test_an_error_that_is_no_poison_deletes_nothing(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    with pytest.raises(redis.ResponseError, match="expire"):
        CacheAside(lease_ms=0).fetch(redis_client, ENTRY)
    assert [trip.commands[0].args[0] for trip in recorded.trips] == ["EVALSHA"]


# Writes and leases


def test_invalidation_deletes_value_and_lease_in_one_command(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    read(redis_client, Database().load)
    redis_client.set(ENTRY.lease, b"token", px=10_000)
    recorded.trips.clear()
    assert CACHE.invalidate(redis_client, ENTRY) == 2
    assert not redis_client.exists(ENTRY.value, ENTRY.lease)
    sent = [command.args for trip in recorded.trips for command in trip.commands]
    assert sent[0] == ("DEL", ENTRY.value, ENTRY.lease)


def test_a_store_after_a_write_is_refused(redis_client: redis.Redis) -> None:
    lease = lease_of(redis_client)
    CACHE.invalidate(redis_client, ENTRY)
    assert not CACHE.store(redis_client, ENTRY, lease=lease, payload=b"old")
    assert not redis_client.exists(ENTRY.value)


def test_a_store_after_a_write_and_a_new_miss_is_refused(
    redis_client: redis.Redis,
) -> None:
    old = lease_of(redis_client)
    CACHE.invalidate(redis_client, ENTRY)
    new = lease_of(redis_client)
    assert not CACHE.store(redis_client, ENTRY, lease=old, payload=b"old")
    assert CACHE.store(redis_client, ENTRY, lease=new, payload=b"new")
    assert redis_client.get(ENTRY.value) == b"new"


def test_a_read_that_a_write_overtook_keeps_its_row_to_itself(
    redis_client: redis.Redis,
) -> None:
    def load() -> Kettle:
        CACHE.invalidate(redis_client, ENTRY)
        return KETTLE

    assert read(redis_client, load) == Read(KETTLE, "miss", stored=False)
    assert not redis_client.exists(ENTRY.value)


def test_a_lost_lease_means_no_store(redis_client: redis.Redis) -> None:
    lease = lease_of(redis_client)
    redis_client.delete(ENTRY.lease)
    assert not CACHE.store(redis_client, ENTRY, lease=lease, payload=b"row")


def test_an_expired_lease_means_no_store(redis_client: redis.Redis) -> None:
    lease = lease_of(redis_client, CacheAside(lease_ms=20))
    wait_until(lambda: not redis_client.exists(ENTRY.lease))
    assert not CACHE.store(redis_client, ENTRY, lease=lease, payload=b"row")


def test_two_who_miss_share_a_lease_and_one_stores(redis_client: redis.Redis) -> None:
    first, second = lease_of(redis_client), lease_of(redis_client)
    assert first == second
    assert CACHE.store(redis_client, ENTRY, lease=first, payload=b"row")
    assert not CACHE.store(redis_client, ENTRY, lease=second, payload=b"row")


def test_a_lease_after_a_write_is_another_one(redis_client: redis.Redis) -> None:
    before = lease_of(redis_client)
    CACHE.invalidate(redis_client, ENTRY)
    assert lease_of(redis_client) != before


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
                assert int(fetched.payload) >= self.acknowledged
                yield
                continue
            yield
            row = b"%d" % self.version
            yield
            CACHE.store(self.client, ENTRY, lease=fetched.lease or b"", payload=row)
            yield

    def writer(self) -> Iterator[None]:
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
@given(schedule=st.lists(st.integers(0, 6), max_size=40))
def test_no_interleaving_serves_what_was_read_before_an_acknowledged_write(
    redis_client: redis.Redis, schedule: list[int]
) -> None:
    shop = Shop(redis_client)
    actors = [
        *(shop.reader() for _ in range(3)),
        *(shop.writer() for _ in range(2)),
        shop.evictor(ENTRY.value),
        shop.evictor(ENTRY.lease),
    ]
    for turn in schedule:
        next(actors[turn])
    if shop.acknowledged < shop.version:  # let the last write settle
        CACHE.invalidate(redis_client, ENTRY)
        shop.acknowledged = shop.version
    for reader in actors[:3] * 3:  # and the reads that are under way
        next(reader)
    assert redis_client.get(ENTRY.value) in (None, b"%d" % shop.version)


def test_eight_readers_and_two_writers_never_see_an_acknowledged_write_undone(
    server_client: redis.Redis,
) -> None:
    shop, lock = Shop(server_client), threading.Lock()
    stale: list[tuple[int, int]] = []
    reads: list[str] = []
    over = threading.Event()

    def keep_reading() -> None:
        while not over.is_set():
            least = shop.acknowledged
            seen = CACHE.read(
                server_client,
                ENTRY,
                load=lambda: shop.version,
                encode=lambda version: b"%d" % version,
                decode=int,
            )
            reads.append(seen.outcome)
            if (seen.value or 0) < least:
                stale.append((seen.value or 0, least))

    def write(times: int) -> None:
        for _ in range(times):
            with lock:
                shop.version += 1
                mine = shop.version
            CACHE.invalidate(server_client, ENTRY)
            with lock:
                shop.acknowledged = max(shop.acknowledged, mine)

    readers = [threading.Thread(target=keep_reading) for _ in range(8)]
    writers = [threading.Thread(target=write, args=(200,)) for _ in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert stale == []
    assert {"hit", "miss"} == set(reads)
    assert server_client.get(ENTRY.value) in (None, b"400")


# Redis is away


def test_without_redis_a_read_loads_once_and_says_bypass(
    redis_down: redis.Redis,
) -> None:
    database = Database()
    assert read(redis_down, database.load) == Read(KETTLE, "bypass")
    assert database.loads == 1


def test_a_store_that_fails_costs_the_reader_nothing(line: Line) -> None:
    database = Database()

    def load() -> Kettle | None:
        line.cut()
        return database.load()

    assert read(line.client, load) == Read(KETTLE, "miss", stored=False)
    assert database.loads == 1


def test_without_redis_a_writer_is_told(redis_down: redis.Redis) -> None:
    with pytest.raises(RedisError):
        CACHE.invalidate(redis_down, ENTRY)
