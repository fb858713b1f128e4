"""The claims of the distributed lock, on fakeredis and on a real server."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.exceptions import RedisError

from tests.conftest import wait_until
from webapp import keys
from webapp.connection.recorder import Recording, unrecorded
from webapp.patterns.distributed_lock import (
    DistributedLock,
    Lease,
    LockBusy,
    LockKeys,
    LockNotOwned,
)

LOCK = DistributedLock(ttl_ms=10_000, longest_ms=15_000)
NAMES = LockKeys(
    *(
        keys.key("rpl", family, "report")
        for family in (keys.LOCK, keys.FENCE, keys.WAKE)
    )
)


def take(client: redis.Redis) -> Lease:
    lease = LOCK.acquire(client, NAMES)
    assert lease is not None
    return lease


def end_lease(client: redis.Redis) -> None:
    """Its time is over, as if that had passed."""
    client.pexpire(NAMES.lock, 0)


# Taking and giving back


def test_a_lock_that_is_held_is_not_given_to_another(redis_client: redis.Redis) -> None:
    take(redis_client)
    assert LOCK.acquire(redis_client, NAMES) is None


def test_a_lock_that_was_released_can_be_taken(redis_client: redis.Redis) -> None:
    assert LOCK.release(redis_client, NAMES, take(redis_client))
    take(redis_client)


def test_a_lease_ends_by_itself(redis_client: redis.Redis) -> None:
    short = DistributedLock(ttl_ms=30)
    assert short.acquire(redis_client, NAMES)
    wait_until(lambda: short.acquire(redis_client, NAMES))


def test_the_lock_holds_the_token_with_the_ttl_of_the_lease(
    redis_client: redis.Redis,
) -> None:
    lease = take(redis_client)
    assert redis_client.get(NAMES.lock) == lease.token.encode()
    assert 9_000 < redis_client.pttl(NAMES.lock) <= 10_000


def test_acquire_and_release_are_two_round_trips(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    take(redis_client)  # and with it the connection
    end_lease(redis_client)
    recorded.trips.clear()
    LOCK.release(redis_client, NAMES, take(redis_client))
    assert [len(trip.commands) for trip in recorded.trips] == [1, 1]


def test_a_release_after_the_lease_leaves_the_next_holder_alone(
    redis_client: redis.Redis,
) -> None:
    late = take(redis_client)
    end_lease(redis_client)
    other = take(redis_client)
    assert not LOCK.release(redis_client, NAMES, late)
    assert redis_client.get(NAMES.lock) == other.token.encode()


def test_of_many_at_once_one_holds_it_at_a_time(server_client: redis.Redis) -> None:
    holders, most = 0, 0

    def work() -> None:
        nonlocal holders, most
        for _ in range(20):
            with unrecorded(), LOCK.holding(server_client, NAMES, wait_ms=20_000):
                holders += 1
                most = max(most, holders)
                holders -= 1

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result(30)
    assert most == 1
    assert server_client.llen(NAMES.wake) <= 1


# Numbers


def test_each_holder_has_a_higher_number(redis_client: redis.Redis) -> None:
    numbers = []
    for _ in range(50):
        lease = take(redis_client)
        numbers.append(lease.fence)
        LOCK.release(redis_client, NAMES, lease)
    assert numbers == sorted(set(numbers))


def test_a_refused_try_mints_no_number(redis_client: redis.Redis) -> None:
    lease = take(redis_client)
    LOCK.acquire(redis_client, NAMES)
    assert int(redis_client.get(NAMES.fence)) == lease.fence


def test_numbers_do_not_go_back_when_the_counter_is_lost(
    redis_client: redis.Redis,
) -> None:
    old = take(redis_client)
    redis_client.delete(NAMES.lock, NAMES.fence)
    assert take(redis_client).fence > old.fence


def test_numbers_do_not_go_back_when_the_clock_does(redis_client: redis.Redis) -> None:
    take(redis_client)
    end_lease(redis_client)
    ahead = 2**52  # what a clock far ahead would have left behind
    redis_client.set(NAMES.fence, ahead, px=60_000)
    assert take(redis_client).fence == ahead + 1
    assert redis_client.get(NAMES.fence) == str(ahead + 1).encode()


# Extending


def test_an_extension_begins_the_lease_anew(redis_client: redis.Redis) -> None:
    lease = take(redis_client)
    redis_client.pexpire(NAMES.lock, 500)
    assert LOCK.extend(redis_client, NAMES, lease) == 10_000
    assert 9_000 < redis_client.pttl(NAMES.lock) <= 10_000


def test_extensions_end_at_the_longest_that_one_may_hold_it(
    redis_client: redis.Redis,
) -> None:
    now = take(redis_client)
    long_ago = Lease(now.token, now.fence, now.taken_ms - 14_000)
    redis_client.pexpire(NAMES.lock, 500)
    assert LOCK.extend(redis_client, NAMES, long_ago) <= 1_000
    assert redis_client.pttl(NAMES.lock) <= 1_000


def test_an_extension_never_shortens_a_lease(redis_client: redis.Redis) -> None:
    now = take(redis_client)
    long_ago = Lease(now.token, now.fence, now.taken_ms - 60_000)
    assert LOCK.extend(redis_client, NAMES, long_ago) > 9_000


def test_anothers_lease_is_not_extended(redis_client: redis.Redis) -> None:
    late = take(redis_client)
    end_lease(redis_client)
    take(redis_client)
    redis_client.pexpire(NAMES.lock, 500)
    with pytest.raises(LockNotOwned):
        LOCK.extend(redis_client, NAMES, late)
    assert redis_client.pttl(NAMES.lock) <= 500


# Waiting


def test_a_wait_ends_at_its_deadline(redis_client: redis.Redis) -> None:
    take(redis_client)
    began = time.monotonic()
    assert LOCK.wait(redis_client, NAMES, for_ms=120) is None
    assert 0.1 < time.monotonic() - began < 9  # the lease would last 10 s


def test_one_who_waits_does_not_ask_again_and_again(
    redis_client: redis.Redis, recorded: Recording
) -> None:
    take(redis_client)
    recorded.trips.clear()
    LOCK.wait(redis_client, NAMES, for_ms=300)
    sent = [c.args[0] for trip in recorded.trips for c in trip.commands]
    assert len([name for name in sent if name != "HELLO"]) <= 4


def test_a_release_wakes_one_who_waits_at_once(server_client: redis.Redis) -> None:
    """It could last 9 s; the target of 1 ms is measured on a quiet machine."""
    assert min(_hand_off_ms(server_client) for _ in range(5)) < 1_000


def _hand_off_ms(client: redis.Redis) -> float:
    taken = []

    def wait() -> None:
        with unrecorded():
            lease = LOCK.wait(client, NAMES, for_ms=9_000)
            taken.append(time.perf_counter())
            assert lease is not None
            LOCK.release(client, NAMES, lease)

    lease = take(client)
    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
    released = time.perf_counter()
    LOCK.release(client, NAMES, lease)
    waiter.join(9)
    return (taken[0] - released) * 1000


def test_one_who_waits_takes_a_lock_whose_holder_died(
    redis_client: redis.Redis,
) -> None:
    assert DistributedLock(ttl_ms=80).acquire(redis_client, NAMES)
    assert LOCK.wait(redis_client, NAMES, for_ms=20_000)


def test_an_old_wake_up_wakes_nobody_later(redis_client: redis.Redis) -> None:
    LOCK.release(redis_client, NAMES, take(redis_client))
    assert redis_client.llen(NAMES.wake) == 1
    take(redis_client)
    assert redis_client.llen(NAMES.wake) == 0


# A block


def test_a_block_releases_at_its_end(redis_client: redis.Redis) -> None:
    with LOCK.holding(redis_client, NAMES, wait_ms=0):
        assert redis_client.exists(NAMES.lock)
    assert not redis_client.exists(NAMES.lock)


def test_a_block_that_fails_releases_too(redis_client: redis.Redis) -> None:
    with pytest.raises(ZeroDivisionError), LOCK.holding(redis_client, NAMES, wait_ms=0):
        raise ZeroDivisionError
    assert not redis_client.exists(NAMES.lock)


def test_a_block_is_not_entered_while_another_holds_it(
    redis_client: redis.Redis,
) -> None:
    take(redis_client)
    with pytest.raises(LockBusy), LOCK.holding(redis_client, NAMES, wait_ms=0):
        pytest.fail("entered")


def test_a_block_that_outlived_its_lease_says_so(redis_client: redis.Redis) -> None:
    with pytest.raises(LockNotOwned), LOCK.holding(redis_client, NAMES, wait_ms=0):
        end_lease(redis_client)


def test_without_redis_nobody_gets_the_lock(redis_down: redis.Redis) -> None:
    lease = Lease("token", 1, 1)
    with pytest.raises(RedisError):
        LOCK.acquire(redis_down, NAMES)
    with pytest.raises(RedisError):
        LOCK.wait(redis_down, NAMES, for_ms=5_000)
    with pytest.raises(RedisError):
        LOCK.extend(redis_down, NAMES, lease)
    with pytest.raises(RedisError):
        LOCK.release(redis_down, NAMES, lease)
