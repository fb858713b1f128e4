"""Stampede protection: many miss the same value at once, and few of them load it.

Problem: a popular value ends, and everyone who wants it in the next moment misses and
asks the database the same slow question. Five ways to answer them, with one call:

    Unprotected           everyone loads
    SingleFlight          one loads in each process, the others there wait for it
    LockedFlight          one loads among all processes, the others wait for the store
    StaleWhileRevalidate  a value past its soft TTL is served while one loads beside it
    EarlyExpiry           a reader may load before the end, likelier the nearer it is

Keys
    value   string, the encoded row. TTL `ttl_ms` plus up to a tenth; `null`, a row that
            does not exist, 30 s. The soft TTL is over when `stale_ms` are left of it.
            EarlyExpiry writes the ms that the load took before the row: `64 {...}`.
    lock    the three keys of a distributed lock: who loads. In one slot with the value.

Commands (each a round trip)
    hit       GET; LockedFlight EVALSHA fetch; the last two GET with PTTL; all O(1)
    load      GET, SET PX; SingleFlight GET, GET, SET PX; LockedFlight EVALSHA fetch,
              EVALSHA store; a refresher acquire, GET with PTTL, EVALSHA store
    wait      LockedFlight EVALSHA fetch; then BLPOP, EVALSHA fetch by one in each
              process: a store wakes one of them, who wakes the next; SingleFlight none

Guarantees: a value and its TTL are set in one step. Nobody waits for longer than
`wait_ms`; who did loads, and keeps that to itself. LockedFlight: the lock is extended
while its holder works; if the holder is killed, it runs out and a waiter takes it. A
store counts only under the loader's own lock, and a write deletes value and lock: what
was loaded before it is not stored after it. A value that cannot be decoded, or a key of
another type, is removed and loaded anew.

Limits: a load that takes longer than `wait_ms` is still a stampede, only a later one.
Unprotected, SingleFlight and EarlyExpiry store whatever they loaded, also what a write
has replaced meanwhile. Who joins a flight may get what was read before they asked. A
stale value is served once more after its row has changed, unless the writer deletes
it. EarlyExpiry protects a value that is read again and again; at the end itself, and
where many read at the same instant, several load. Redis down: fails open, everyone
loads, and nothing is kept.

Source: https://redis.io/docs/latest/develop/use-cases/ and Vattani, Chierichetti and
Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
"""

import contextvars
import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeVar

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.patterns.distributed_lock import (
    DistributedLock,
    Lease,
    LockKeys,
    LockNotOwned,
)
from webapp.scripts import load as load_script

T = TypeVar("T")
Outcome = Literal["hit", "miss", "stale", "bypass"]
Load = Callable[[], bytes]

MISSING = b"null"  # the payload of a row that does not exist

_MISSING_TTL_MS = 30_000
_JITTER = 0.10  # TTLs are longer by up to this share, so they end apart
_BEAT_S = 0.05  # how often a lock is looked after
_LISTEN_MS = 250  # for one BLPOP; a wake-up that was lost costs no more

# It ends by itself while there is time for another to load, before who waits gives up.
_BRIEF = DistributedLock(ttl_ms=500, keep_ms=60_000)

_fetch = load_script("stampede/fetch")
_store = load_script("stampede/store")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """The keys of one cached value, in one slot."""

    value: str  # "rpl:catalog:product:{1042}"
    lock: LockKeys


@dataclass(frozen=True)
class Read:
    payload: bytes
    outcome: Outcome  # miss: it was not there, and was loaded by somebody
    stored: bool = False  # whether this reader left it behind


class Method(Protocol):
    """What all five are."""

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer the cached payload, or have it loaded. Errors of `load` propagate."""


@dataclass(frozen=True)
class Unprotected:
    """Plain cache-aside, without a lease: what the others are measured against."""

    ttl_ms: int = 3_600_000

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or load and store it, however many others do just that."""
        payload = _get(client, entry)
        if payload is not None:
            return Read(payload, "hit")
        payload = load()
        return Read(payload, "miss", _keep(client, entry, payload, self.ttl_ms))


class _Flights:
    """What threads of this process do for each other: one does it, the others wait."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._under_way: dict[Hashable, Future[Any]] = {}

    def share(
        self, name: Hashable, do: Callable[[], T], *, wait_s: float
    ) -> tuple[T | None, bool]:
        """What `do` answers, and whether we did it; None: who does it is not done yet.

        Errors of `do` reach all who wait.
        """
        with self._mutex:
            flight = self._under_way.get(name)
            if leads := flight is None:
                flight = self._under_way[name] = Future()
        if not leads:
            with suppress(TimeoutError):
                return flight.result(wait_s), False
            return None, False
        try:
            flight.set_result(found := do())
            return found, True
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._mutex:
                del self._under_way[name]


@dataclass(frozen=True)
class SingleFlight:
    """One load in this process: share one object among its threads."""

    ttl_ms: int = 3_600_000
    wait_ms: int = 1_000
    _flights: _Flights = field(
        default_factory=_Flights, init=False, repr=False, compare=False
    )

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or join the flight that loads it, or be that flight."""
        payload = _get(client, entry)
        if payload is not None:
            return Read(payload, "hit")
        flown, own = self._flights.share(
            entry.value,
            lambda: self._fly(client, entry, load),
            wait_s=self.wait_ms / 1000,
        )
        if flown is None:
            return Read(load(), "miss")
        return flown if own else Read(flown.payload, "miss")

    def _fly(self, client: redis.Redis, entry: Entry, load: Load) -> Read:
        # The flight before this one may have landed after we looked.
        payload = _get(client, entry)
        if payload is not None:
            return Read(payload, "hit")
        payload = load()
        return Read(payload, "miss", _keep(client, entry, payload, self.ttl_ms))


@dataclass(frozen=True)
class _Taken:
    """Another loads: what there is instead of a value or a lease."""

    fence: int  # the number of its lease
    left_ms: int  # until it ends; -1: never


@dataclass(frozen=True)
class LockedFlight:
    """One load among all processes; in each, one waits for it and tells the others."""

    ttl_ms: int = 3_600_000
    wait_ms: int = 1_000
    lock: DistributedLock = _BRIEF
    _flights: _Flights = field(
        default_factory=_Flights, init=False, repr=False, compare=False
    )

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or load it under the lock, or wait for who does."""
        until = time.monotonic() + self.wait_ms / 1000
        found = self._look(client, entry)
        while isinstance(found, _Taken):
            if time.monotonic() >= until:
                return Read(load(), "miss")
            found = self._wait(client, entry, found, until)
        if isinstance(found, Lease):
            return self.load_locked(client, entry, found, load)
        return Read(found, "hit")

    def _wait(
        self, client: redis.Redis, entry: Entry, taken: _Taken, until: float
    ) -> bytes | Lease | _Taken:
        """What there is after this lease, or when the time is up.

        Only those wait together who saw the same lease: a write takes it away, so that
        nobody is told what was read before a write that they asked after.
        """
        found, own = self._flights.share(
            (entry.value, taken.fence),
            lambda: self._listen(client, entry, taken, until),
            wait_s=max(0, until - time.monotonic()),
        )
        if found is not None and (own or isinstance(found, bytes)):
            return found
        return self._look(client, entry)  # a lease is for one

    def _listen(
        self, client: redis.Redis, entry: Entry, taken: _Taken, until: float
    ) -> bytes | Lease | _Taken:
        found: bytes | Lease | _Taken = taken
        while isinstance(found, _Taken) and found.fence == taken.fence:
            left_ms = (until - time.monotonic()) * 1000
            if left_ms <= 0:
                break
            # A lock that another left without a TTL is looked at now and then.
            listen_ms = max(
                1, min(left_ms, _LISTEN_MS, found.left_ms + 1 or _LISTEN_MS)
            )
            woken = bool(client.blpop([entry.lock.wake], timeout=listen_ms / 1000))
            found = self._look(client, entry, woken=woken)
        return found

    def load_locked(
        self, client: redis.Redis, entry: Entry, lease: Lease, load: Load
    ) -> Read:
        """Load under a lock that is held, store, and give it back (one script)."""
        try:
            with _keeper.keeping(
                lambda: self._extend(client, entry, lease),
                every_s=self.lock.ttl_ms / 3000,
            ):
                payload = load()
        except BaseException:
            with suppress(RedisError):
                self.lock.release(client, entry.lock, lease)
            raise
        return Read(payload, "miss", self._store(client, entry, lease, payload))

    def _look(
        self, client: redis.Redis, entry: Entry, *, woken: bool = False
    ) -> bytes | Lease | _Taken:
        """The value, or our lease to load it, or who else has one (one script)."""
        token, own = secrets.token_hex(16), entry.lock
        reply = _fetch(
            client,
            [entry.value, own.lock, own.fence, own.wake],
            [token, self.lock.ttl_ms, self.lock.keep_ms, int(woken)],
        )
        if isinstance(reply, bytes):
            return reply
        is_ours, fence, ms = (int(part) for part in reply)
        return Lease(token, fence, taken_ms=ms) if is_ours else _Taken(fence, ms)

    def _store(
        self, client: redis.Redis, entry: Entry, lease: Lease, payload: bytes
    ) -> bool:
        ttls_ms = _spread(payload, self.ttl_ms), self.lock.ttl_ms
        keys = [entry.value, entry.lock.lock, entry.lock.wake]
        with suppress(RedisError):  # the reader has its payload, and does not care
            return bool(_store(client, keys, [lease.token, payload, *ttls_ms]))
        return False

    def _extend(self, client: redis.Redis, entry: Entry, lease: Lease) -> None:
        with suppress(RedisError, LockNotOwned):  # there is time for another try
            self.lock.extend(client, entry.lock, lease)


class _Keeper:
    """Does something for each load that takes long: in one thread for all of them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._kept: dict[object, tuple[float, float, Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, extend: Callable[[], None], *, every_s: float) -> Iterator[None]:
        """Call `extend` again and again while the block runs, on the caller's tape."""
        run, own = contextvars.copy_context().run, object()
        with self._mutex:
            due = time.monotonic() + every_s
            self._kept[own] = due, every_s, lambda: run(extend)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._mutex:
                del self._kept[own]

    def _run(self) -> None:
        while True:
            time.sleep(_BEAT_S)
            for extend in self._due():
                extend()
            with self._mutex:
                if not self._kept:
                    self._thread = None
                    return

    def _due(self) -> list[Callable[[], None]]:
        now = time.monotonic()
        with self._mutex:
            due = [own for own, (at, _, _) in self._kept.items() if at <= now]
            for own in due:
                _, every_s, extend = self._kept[own]
                self._kept[own] = now + every_s, every_s, extend
            return [self._kept[own][2] for own in due]


_keeper = _Keeper()


@dataclass(frozen=True)
class StaleWhileRevalidate:
    """Fresh for `fresh_ms`, then for `stale_ms` served while somebody loads it anew."""

    fresh_ms: int = 3_600_000
    stale_ms: int = 600_000
    lock: DistributedLock = _BRIEF
    start: Callable[[Callable[[], None]], object] = field(
        default_factory=lambda: _in_a_thread
    )  # how to do something beside the reader

    @cached_property
    def flight(self) -> LockedFlight:
        """How it is loaded: beside the readers, or where there is nothing to serve."""
        return LockedFlight(ttl_ms=self.fresh_ms + self.stale_ms, lock=self.lock)

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer what is there, however old; the first to see that it is starts."""
        payload, left_ms = _look(client, entry)
        if payload is None:
            return self.flight.read(client, entry, load=load)
        if left_ms > self.stale_ms:
            return Read(payload, "hit")
        if lease := self.lock.acquire(client, entry.lock):
            self.start(lambda: self._refresh(client, entry, lease, load))
        return Read(payload, "stale")

    def _refresh(
        self, client: redis.Redis, entry: Entry, lease: Lease, load: Load
    ) -> None:
        """Nobody waits for this, so nobody else can be told of an error."""
        try:
            # The refresher before this one may have stored after we looked.
            if _look(client, entry)[1] > self.stale_ms:
                self.lock.release(client, entry.lock, lease)
            else:
                self.flight.load_locked(client, entry, lease, load)
        except Exception:
            log.exception("%s stays as old as it is", entry.value)


@dataclass(frozen=True)
class EarlyExpiry:
    """Each reader decides alone, by chance, whether the end is near enough to load.

    With `beta` above 1 they load earlier.
    """

    ttl_ms: int = 3_600_000
    beta: float = 1.0
    chance: Callable[[], float] = random.random  # from 0, below 1

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or load it, now and then while it is still there."""
        found, left_ms = _look(client, entry)
        took, _, payload = (found or b"").partition(b" ")
        if took.isdigit() and not self.is_due(left_ms, took_ms=int(took[:9])):
            return Read(payload, "hit")
        began = time.perf_counter()
        payload = load()
        took_ms = math.ceil((time.perf_counter() - began) * 1000)
        stored = _keep(client, entry, payload, self.ttl_ms, before=b"%d " % took_ms)
        return Read(payload, "miss", stored)

    def is_due(self, left_ms: int, *, took_ms: int) -> bool:
        """Whether to load now: with probability exp(-left_ms / (beta * took_ms)).

        37 % with as much time left as the last load took, 0.7 % with five times that.
        """
        return -self.beta * took_ms * math.log(1 - self.chance()) >= left_ms


@dataclass(frozen=True)
class Answer(Generic[T]):
    value: T | None  # None: there is no such row
    outcome: Outcome  # bypass: Redis did not answer


def read(
    method: Method,
    client: redis.Redis,
    entry: Entry,
    *,
    load: Callable[[], T | None],
    encode: Callable[[T], bytes],
    decode: Callable[[bytes], T],
) -> Answer[T]:
    """Answer a row by any of the methods, whatever Redis holds or does.

    `decode` raises ValueError for bytes that `encode` did not make. What is not
    usable is removed, and read once more. Errors of `load` propagate.
    """

    def loaded() -> bytes:
        row = load()
        return MISSING if row is None else encode(row)

    for _ in range(2):
        try:
            found = _read(method, client, entry, loaded)
            if found.payload == MISSING:
                return Answer(None, found.outcome)
            with suppress(ValueError):
                return Answer(decode(found.payload), found.outcome)
            invalidate(client, entry)
        except RedisError:
            break
    return Answer(load(), "bypass")


def invalidate(client: redis.Redis, entry: Entry) -> int:
    """Delete value and lock (one command): who loads now will not store.

    Returns how many keys there were.
    """
    return int(client.delete(entry.value, entry.lock.lock))


def _read(method: Method, client: redis.Redis, entry: Entry, load: Load) -> Read:
    """Keys that hold another type are removed first (two round trips more)."""
    try:
        return method.read(client, entry, load=load)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
    own = entry.lock
    client.delete(entry.value, own.lock, own.fence, own.wake)
    return method.read(client, entry, load=load)


def _look(client: redis.Redis, entry: Entry) -> tuple[bytes | None, int]:
    """The payload, and the ms that are left of it (one pipeline).

    A value that is stored in between has more time left than the one that was read:
    that one is served once more, which does no harm.
    """
    with client.pipeline(transaction=False) as pipeline:
        pipeline.get(entry.value)
        pipeline.pttl(entry.value)
        payload, left_ms = pipeline.execute()
    return payload, int(left_ms)


def _get(client: redis.Redis, entry: Entry) -> bytes | None:
    payload = client.get(entry.value)
    return payload if isinstance(payload, bytes) else None


def _keep(
    client: redis.Redis, entry: Entry, payload: bytes, ttl_ms: int, before: bytes = b""
) -> bool:
    """Store after a load. The reader has its payload, so an outage is no error here."""
    px = _spread(payload, ttl_ms)
    with suppress(RedisError):
        return bool(client.set(entry.value, before + payload, px=px))
    return False


def _spread(payload: bytes, ttl_ms: int) -> int:
    """The TTL plus up to its jitter, so that values end apart."""
    if payload == MISSING:
        ttl_ms = min(ttl_ms, _MISSING_TTL_MS)
    return round(ttl_ms * random.uniform(1, 1 + _JITTER))


def _in_a_thread(work: Callable[[], None]) -> None:
    """Do it beside the caller, and on the same tape."""
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(work,), daemon=True).start()
