"""Distributed lock: one holder at a time, for a bounded time, and provably so.

Problem: two workers must not do the same thing at once. A key that only one of them
can set is the lock. Four traps: a holder that dies keeps a lock without a TTL for
ever; a holder whose lease has ended deletes the lock of the next one; whoever waits
by asking again and again loads the server and still learns late; and no TTL is long
enough, because a process may stop for any time between its last look at the lock and
its write. A token closes the second, a list to block on the third. Only the resource
can close the fourth: each holder gets a number higher than all before, sends it with
every write, and the resource refuses a number below the highest it has seen.

Keys
    lock    string, the holder's random token. TTL: its lease.
    fence   string, the number minted last. TTL `keep_ms`.
    wake    list, at most one entry; those who wait block on it. TTL: a lease.

Commands
    acquire   1 round trip   EVALSHA acquire: SET NX PX, TIME, GET, SET, DEL, O(1);
                             taken by another: SET NX PX, PTTL
    release   1 round trip   EVALSHA release: GET, DEL, RPUSH, PEXPIRE, O(1)
    extend    1 round trip   EVALSHA extend: GET, TIME, PTTL, PEXPIRE, O(1)
    wait      acquire, then BLPOP and acquire again for each wake-up

Guarantees: on one server, no two leases overlap. Release and extend touch only the
caller's own lease. No lease outlives `longest_ms`, however often it is extended. A
release wakes one who waits, the one who has waited longest, at once. A number is the
server's time in microseconds, or one more than the last where that is higher. So it
goes back only if the counter is lost and the clock was set back, both: not by a
restart, a reset, a counter that ended, or however long an old holder sleeps.

Limits: the lease is a promise about the server's time, not about the holder's: a
holder that stops does not see it end. Without a resource that checks the number, its
late write counts. A replica that takes over may not know the lock (see Redlock; its
number is higher all the same). Waiting is not fair to the letter: a newcomer may take
the lock before the one who was woken. A wake-up that is lost with its receiver costs
the others half a second at most. `wait` holds a connection; its time belongs to the
caller's budget. If the reply to `acquire` is lost, nobody holds it until the lease
ends. Redis down: fails closed, RedisError reaches the caller, nobody gets the lock.

Source: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/ and
https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from webapp.scripts import load as load_script

_acquire = load_script("distributed_lock/acquire")
_release = load_script("distributed_lock/release")
_extend = load_script("distributed_lock/extend")

_LISTEN_MS = 500  # for one BLPOP: below every socket timeout


class LockBusy(Exception):
    """Another held the lock for as long as the caller could wait."""


class LockNotOwned(Exception):
    """The lease had ended: another may have held the lock meanwhile."""


@dataclass(frozen=True)
class LockKeys:
    """The three keys of one lock, in one slot."""

    lock: str  # "rpl:locks:lock:{report}"
    fence: str  # "rpl:locks:fence:{report}"
    wake: str  # "rpl:locks:wake:{report}"


@dataclass(frozen=True)
class Lease:
    token: str  # random, proves who holds the lock
    fence: int  # higher than that of all holders before; goes with every write
    taken_ms: int  # when it began, by the server's clock


@dataclass(frozen=True)
class DistributedLock:
    ttl_ms: int = 10_000  # of a lease, and of each extension
    longest_ms: int = 60_000  # that a holder may hold it, extensions included
    keep_ms: int = 24 * 3_600_000  # how long the last number is kept

    def acquire(self, client: redis.Redis, keys: LockKeys) -> Lease | None:
        """Take it if it is free (one script)."""
        return self._try(client, keys)[0]

    def wait(self, client: redis.Redis, keys: LockKeys, *, for_ms: int) -> Lease | None:
        """Take it, waiting for at most so long; None if others held it throughout."""
        deadline = time.monotonic() + for_ms / 1000
        while True:
            lease, others_ms = self._try(client, keys)
            left_ms = (deadline - time.monotonic()) * 1000
            if lease or left_ms <= 0:
                return lease
            # A lock that another left without a TTL is looked at now and then.
            sleep_ms = min(left_ms, _LISTEN_MS, others_ms + 1 or _LISTEN_MS)
            client.blpop([keys.wake], timeout=max(sleep_ms, 1) / 1000)

    def extend(self, client: redis.Redis, keys: LockKeys, lease: Lease) -> int:
        """Have `ttl_ms` again, within `longest_ms` (one script); the ms left.

        Raises LockNotOwned.
        """
        end_ms = lease.taken_ms + self.longest_ms
        left_ms = int(_extend(client, [keys.lock], [lease.token, self.ttl_ms, end_ms]))
        if left_ms < 0:
            raise LockNotOwned("the lease had ended before it was extended")
        return left_ms

    def release(self, client: redis.Redis, keys: LockKeys, lease: Lease) -> bool:
        """Give it back (one script); False if the lease had ended before."""
        names = [keys.lock, keys.wake]
        return bool(_release(client, names, [lease.token, self.ttl_ms]))

    @contextmanager
    def holding(
        self, client: redis.Redis, keys: LockKeys, *, wait_ms: int
    ) -> Iterator[Lease]:
        """Hold it for a block. Raises LockBusy before it, LockNotOwned after it."""
        lease = self.wait(client, keys, for_ms=wait_ms)
        if lease is None:
            raise LockBusy(f"taken by another for {wait_ms} ms")
        try:
            yield lease
        except BaseException:
            self.release(client, keys, lease)
            raise
        if not self.release(client, keys, lease):
            raise LockNotOwned("the lease ended before the work did")

    def _try(self, client: redis.Redis, keys: LockKeys) -> tuple[Lease | None, int]:
        """The lease, or the ms that the other's has left; -1: it has no end."""
        token = secrets.token_hex(16)
        names = [keys.lock, keys.fence, keys.wake]
        fence, ms = _acquire(client, names, [token, self.ttl_ms, self.keep_ms])
        if not fence:
            return None, int(ms)
        return Lease(token, int(fence), taken_ms=int(ms)), 0
