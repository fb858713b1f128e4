"""The claims of the session store, on fakeredis and on a real server.

FAULTS G1, G2 and G5 run here with 20 rounds, and with all 1,000 in `make test-all`.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis
import time_machine
from redis.exceptions import RedisError

from tests.conftest import wait_until
from webapp import keys
from webapp.connection.recorder import Recording
from webapp.patterns.session_store import (
    KeyTaken,
    Loaded,
    OneTimeCode,
    ReservedField,
    SessionStore,
    digest,
    new_id,
)

STORE = SessionStore()
CODE = OneTimeCode()
INDEX = keys.key("rpl", keys.USER_SESSIONS, "17")
HOUR_MS = 3_600_000
few_and_all = pytest.mark.parametrize(
    "times", [20, pytest.param(1000, marks=pytest.mark.slow)]
)


def key_of(member: str) -> str:
    return keys.key("rpl", keys.SESSION, member)


def started(client: redis.Redis, store: SessionStore = STORE, **fields: str) -> str:
    """The key of a new session."""
    key = key_of(digest(new_id()))
    store.start(client, key, fields=fields or {"user": "alice"})
    return key


def signed_in(client: redis.Redis, store: SessionStore = STORE) -> str:
    """The member of a new session in the index."""
    member = digest(new_id())
    over = store.enlist(client, INDEX, member=member)
    store.start(client, key_of(member), fields={"user": "alice"})
    store.end(client, INDEX, ended={m: key_of(m) for m in over})
    return member


def fields_of(loaded: Loaded | None) -> dict[str, bytes] | None:
    return None if loaded is None else loaded.fields


# Ids


def test_an_id_is_256_random_bits() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(session_id) for session_id in ids} == {43}


def test_a_session_is_named_by_the_sha_256_of_its_id() -> None:
    assert digest("abc") == hashlib.sha256(b"abc").hexdigest()


@few_and_all
def test_a_planted_id_is_never_adopted(redis_client: redis.Redis, times: int) -> None:
    """G1."""
    for n in range(times):
        assert STORE.load(redis_client, key_of(digest(f"planted-{n}"))) is None
    assert redis_client.dbsize() == 0


def test_a_key_that_exists_is_not_taken_over(redis_client: redis.Redis) -> None:
    key = started(redis_client, user="alice")
    with pytest.raises(KeyTaken):
        STORE.start(redis_client, key, fields={"user": "mallory"})
    assert fields_of(STORE.load(redis_client, key)) == {"user": b"alice"}


def test_a_hash_that_the_store_did_not_start_is_no_session(
    redis_client: redis.Redis,
) -> None:
    key = key_of(digest("planted"))
    redis_client.hset(key, mapping={"user": "mallory"})
    redis_client.expire(key, 10)
    assert STORE.load(redis_client, key) is None


# Load and touch


def test_fields_come_back_as_they_were_written(redis_client: redis.Redis) -> None:
    key = started(redis_client, user="alice", device='"é\u2028 {}"')
    assert fields_of(STORE.load(redis_client, key)) == {
        "user": b"alice",
        "device": '"é\u2028 {}"'.encode(),
    }


def test_load_and_touch_are_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    key = started(redis_client)
    redis_client.pexpire(key, HOUR_MS)
    recorded.trips.clear()
    STORE.load(redis_client, key)
    assert [len(trip.commands) for trip in recorded.trips] == [1]
    assert redis_client.pttl(key) > 23 * HOUR_MS


def test_a_load_soon_after_another_writes_nothing(redis_client: redis.Redis) -> None:
    key = started(redis_client)
    redis_client.pexpire(key, STORE.idle_ms - STORE.refresh_ms // 2)
    STORE.load(redis_client, key)
    assert redis_client.pttl(key) <= STORE.idle_ms - STORE.refresh_ms // 2


def test_a_touch_never_moves_the_end_past_the_absolute_one(
    redis_client: redis.Redis,
) -> None:
    store = replace(STORE, absolute_ms=2 * HOUR_MS)
    key = started(redis_client, store)
    redis_client.pexpire(key, HOUR_MS)
    store.load(redis_client, key)
    assert HOUR_MS < redis_client.pttl(key) <= 2 * HOUR_MS


def test_an_idle_session_ends(redis_client: redis.Redis) -> None:
    store = replace(STORE, idle_ms=60, refresh_ms=0)
    key = started(redis_client, store)
    wait_until(lambda: not redis_client.exists(key))
    assert store.load(redis_client, key) is None


def test_a_busy_session_ends_at_its_absolute_end(redis_client: redis.Redis) -> None:
    store = replace(STORE, idle_ms=2_000, absolute_ms=3_000, refresh_ms=0)
    key = started(redis_client, store)
    loads = []
    wait_until(lambda: loads.append(store.load(redis_client, key)) or not loads[-1])
    assert len(loads) > 3


@pytest.mark.parametrize(
    ("hours", "lives"), [((23, 46, 69), True), ((23, 48), False), ((25,), False)]
)
def test_the_idle_end_slides_by_the_servers_clock(
    hours: tuple[int, ...], lives: bool
) -> None:
    with clock() as (client, to_hour):
        key = started(client)
        for hour in hours:
            to_hour(hour)
            found = STORE.load(client, key)
        assert bool(found) is lives


@few_and_all
def test_no_session_lives_past_seven_days(times: int) -> None:
    """G5 on a virtual clock; each session is used every 12 hours."""
    with clock() as (client, to_hour):
        made = [started(client) for _ in range(times)]
        for hour in range(12, 7 * 24, 12):
            to_hour(hour)
            assert all(STORE.load(client, key) for key in made)
        to_hour(7 * 24 + 1)
        assert not any(STORE.load(client, key) for key in made)


# Write


def test_only_the_changed_fields_are_written(redis_client: redis.Redis) -> None:
    key = started(redis_client, user="alice", cart="0", theme="light")
    assert STORE.write(redis_client, key, changes={"cart": "1", "theme": None})
    assert fields_of(STORE.load(redis_client, key)) == {"user": b"alice", "cart": b"1"}


def test_a_write_leaves_the_ttl_alone(redis_client: redis.Redis) -> None:
    key = started(redis_client)
    redis_client.pexpire(key, HOUR_MS)
    STORE.write(redis_client, key, changes={"cart": "1"})
    assert 0 < redis_client.pttl(key) <= HOUR_MS


def test_a_write_costs_one_round_trip(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    key = started(redis_client)
    recorded.trips.clear()
    STORE.write(redis_client, key, changes={"cart": "1", "theme": None})
    assert [len(trip.commands) for trip in recorded.trips] == [1]


@few_and_all
def test_a_write_after_the_sign_out_revives_nothing(
    redis_client: redis.Redis, times: int
) -> None:
    """G2: a slow request loads, its user signs out, the request writes."""
    for _ in range(times):
        member = signed_in(redis_client)
        assert STORE.load(redis_client, key_of(member))
        STORE.end(redis_client, INDEX, ended={member: key_of(member)})
        assert not STORE.write(redis_client, key_of(member), changes={"cart": "1"})
        assert not redis_client.exists(key_of(member))


def test_a_write_after_the_expiry_revives_nothing(redis_client: redis.Redis) -> None:
    store = replace(STORE, idle_ms=40)
    key = started(redis_client, store)
    wait_until(lambda: not redis_client.exists(key))
    assert not store.write(redis_client, key, changes={"cart": "1"})
    assert not redis_client.exists(key)


@pytest.mark.parametrize("writers", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_no_parallel_write_is_lost(server_client: redis.Redis, writers: int) -> None:
    """G3 with 40 writes of 8 threads; all 200 in `make test-all`."""
    key = started(server_client)
    start = threading.Barrier(8)

    def write(first: int) -> None:
        start.wait()
        for n in range(first, writers, 8):
            assert STORE.load(server_client, key)
            STORE.write(server_client, key, changes={f"field-{n}": str(n)})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fields = fields_of(STORE.load(server_client, key)) or {}
    assert {int(v) for f, v in fields.items() if f != "user"} == set(range(writers))


def test_sign_outs_hold_against_requests_that_write_meanwhile(
    server_client: redis.Redis,
) -> None:
    """G2 with threads: who writes all the time never gets a session back."""
    made = [signed_in(server_client, replace(STORE, most=50)) for _ in range(50)]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for member in made:
                STORE.write(server_client, key_of(member), changes={"cart": "1"})

    writer = threading.Thread(target=write)
    writer.start()
    for member in made:
        STORE.end(server_client, INDEX, ended={member: key_of(member)})
    stop.set()
    writer.join()
    assert [m for m in made if server_client.exists(key_of(m))] == []


def test_the_stores_own_field_is_refused(redis_client: redis.Redis) -> None:
    key = started(redis_client)
    with pytest.raises(ReservedField):
        STORE.write(redis_client, key, changes={"ends_ms": "9999999999999"})


# A user's sessions


def test_devices_are_listed_newest_first(redis_client: redis.Redis) -> None:
    members = [signed_in(redis_client) for _ in range(3)]
    first_ms = int(redis_client.zscore(INDEX, members[0]) or 0)
    redis_client.zadd(INDEX, {member: first_ms + n for n, member in enumerate(members)})
    found = STORE.devices(redis_client, INDEX, key_of=key_of)
    assert [device.member for device in found] == members[::-1]
    assert all(0 < device.ttl_ms <= STORE.idle_ms for device in found)


def test_a_list_costs_two_round_trips(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    for _ in range(3):
        signed_in(redis_client)
    recorded.trips.clear()
    STORE.devices(redis_client, INDEX, key_of=key_of)
    # In a Cluster a pipeline is a batch to each node, all sent at once.
    assert sum(not trip.beside for trip in recorded.trips) == 2


def test_a_session_that_idled_out_leaves_the_list(redis_client: redis.Redis) -> None:
    member, dead = signed_in(redis_client), signed_in(redis_client)
    redis_client.delete(key_of(dead))
    found = STORE.devices(redis_client, INDEX, key_of=key_of)
    assert [device.member for device in found] == [member]
    assert redis_client.zrange(INDEX, 0, -1) == [member.encode()]


def test_a_session_past_its_absolute_end_leaves_the_index_at_the_next_sign_in(
    redis_client: redis.Redis,
) -> None:
    redis_client.zadd(INDEX, {"long-gone": 1})
    member = signed_in(redis_client)
    assert redis_client.zrange(INDEX, 0, -1) == [member.encode()]


def test_the_oldest_session_makes_room_for_a_sixth(redis_client: redis.Redis) -> None:
    members = []
    for n in range(6):
        members.append(signed_in(redis_client))
        older_ms = int(redis_client.zscore(INDEX, members[-1]) or 0) - HOUR_MS
        redis_client.zadd(INDEX, {members[-1]: older_ms + n})
    assert not redis_client.exists(key_of(members[0]))
    assert all(redis_client.exists(key_of(member)) for member in members[1:])
    assert redis_client.zcard(INDEX) == 5


def test_one_device_or_all_are_ended(redis_client: redis.Redis) -> None:
    members = [signed_in(redis_client) for _ in range(3)]
    ended = {members[0]: key_of(members[0])}
    assert STORE.end(redis_client, INDEX, ended=ended) == 1
    assert STORE.load(redis_client, key_of(members[0])) is None
    assert STORE.load(redis_client, key_of(members[1]))
    rest = {m: key_of(m) for m in members}
    assert STORE.end(redis_client, INDEX, ended=rest) == 2
    assert redis_client.dbsize() == 0


# One-time codes


def code_key(code: str) -> str:
    return keys.key("rpl", keys.CODE, OneTimeCode.digest(code, pepper="secret"))


def test_a_code_is_eight_characters_that_look_like_no_others() -> None:
    codes = [CODE.new() for _ in range(200)]
    assert {len(code) for code in codes} == {8}
    assert not set("".join(codes)) & set("0O1IL2Z5S8BUV") - {"V"}
    assert len(set(codes)) == 200


def test_a_code_works_once(redis_client: redis.Redis) -> None:
    assert CODE.issue(redis_client, code_key("A"), payload="session")
    assert CODE.redeem(redis_client, code_key("A")) == "session"
    assert CODE.redeem(redis_client, code_key("A")) is None


def test_a_code_expires_after_five_minutes(redis_client: redis.Redis) -> None:
    CODE.issue(redis_client, code_key("A"), payload="session")
    assert 299_000 < redis_client.pttl(code_key("A")) <= 300_000


def test_of_many_who_redeem_a_code_one_gets_in(server_client: redis.Redis) -> None:
    CODE.issue(server_client, code_key("A"), payload="session")
    got: list[str | None] = []
    start = threading.Barrier(8)

    def redeem() -> None:
        start.wait()
        got.append(CODE.redeem(server_client, code_key("A")))

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, got)) == ["None"] * 7 + ["session"]


def test_the_key_of_a_code_needs_the_pepper() -> None:
    plain = hashlib.sha256(b"ABCDEFGH").hexdigest()
    one, other = (OneTimeCode.digest("ABCDEFGH", pepper=p) for p in ("a", "b"))
    assert len({plain, one, other}) == 3


# Redis down


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: STORE.load(client, key_of(digest("x"))),
        lambda client: STORE.start(client, key_of(digest("x")), fields={}),
        lambda client: STORE.write(client, key_of(digest("x")), changes={"a": "1"}),
        lambda client: STORE.devices(client, INDEX, key_of=key_of),
        lambda client: CODE.redeem(client, code_key("A")),
    ],
)
def test_without_redis_every_verb_fails(
    redis_down: redis.Redis, ask: Callable[[redis.Redis], object]
) -> None:
    with pytest.raises(RedisError):
        ask(redis_down)


def clock() -> "Clock":
    return Clock()


class Clock:
    """fakeredis on a clock that the test moves, in hours from its start."""

    def __enter__(self) -> tuple[redis.Redis, Callable[[int], None]]:
        import fakeredis

        start_s = 1_793_448_000
        self._travel = time_machine.travel(start_s, tick=False)
        traveller = self._travel.__enter__()

        def to_hour(hour: int) -> None:
            traveller.move_to(start_s + hour * 3600)

        return fakeredis.FakeRedis(version=(7, 4)), to_hour

    def __exit__(self, *error: object) -> None:
        self._travel.__exit__(None, None, None)
