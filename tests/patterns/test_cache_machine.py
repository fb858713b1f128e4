"""Any order of reads, writes, ends and faults: nobody is told anything but the row.

The model is one variable: what the database holds. A write that Redis did not hear of
is made good before Redis is used again, as the outbox does it.
"""

from collections.abc import Callable

import fakeredis
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.patterns.test_stampede import ENTRY, METHODS, POISON
from webapp import keys
from webapp.patterns import stampede
from webapp.patterns.cache_aside import CacheAside
from webapp.patterns.cache_aside import Entry as Copy
from webapp.patterns.response_cache import Names, ResponseCache
from webapp.patterns.stampede.early_expiry import EarlyExpiry
from webapp.patterns.stampede.single_flight import SingleFlight
from webapp.patterns.stampede.unprotected import Unprotected

COPY = Copy(ENTRY.value, ENTRY.lock.lock)
NAMES = Names(
    generation=keys.key("rpl", keys.GENERATION, "products"),
    answer=keys.key("rpl", keys.RESPONSE, "products", "a"),
    lease=keys.key("rpl", keys.RESPONSE_LEASE, "products", "a"),
)
OF_STAMPEDE = (ENTRY.value, ENTRY.lock.lock, ENTRY.lock.fence, ENTRY.lock.wake)
OF_ANSWERS = (NAMES.answer, NAMES.lease, NAMES.generation)


class Cache:
    """One way to read through, to be told of writes, and the keys it has."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client = client
        # The value first.
        self.keys = OF_ANSWERS if name == "response cache" else OF_STAMPEDE
        self.read: Callable[[Callable[[], int | None]], int | None]
        self.read, self.forget = {
            "cache-aside": (self._aside, self._forget_copy),
            "response cache": (self._answer, self._void),
        }.get(name, (self._protected, self._forget_copy))
        self.method = METHODS.get(name, Unprotected)()

    def _aside(self, load: Callable[[], int | None]) -> int | None:
        return (
            CacheAside()
            .read(self.client, COPY, load=load, encode=_encode, decode=int)
            .value
        )

    def _protected(self, load: Callable[[], int | None]) -> int | None:
        return stampede.read(
            self.method, self.client, ENTRY, load=load, encode=_encode, decode=int
        ).value

    def _answer(self, load: Callable[[], int | None]) -> int | None:
        def compute() -> bytes:
            row = load()
            return b"none" if row is None else _encode(row)

        def check(body: bytes) -> None:
            if body != b"none":
                int(body)

        body = (
            ResponseCache().read(self.client, NAMES, compute=compute, check=check).body
        )
        return None if body == b"none" else int(body)

    def _forget_copy(self) -> None:
        CacheAside().invalidate(self.client, COPY)

    def _void(self) -> None:
        ResponseCache().void(self.client, NAMES.generation)


def _encode(row: int) -> bytes:
    return b"%d" % row


class Shop(RuleBasedStateMachine):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.server = fakeredis.FakeServer(version=(7, 4))
        self.client = fakeredis.FakeRedis(server=self.server)
        self.cache = Cache(self.client, name)
        self.row: int | None = 0
        self.owes = False  # a write that Redis has not heard of
        self.now = 0

    @rule()
    def get(self) -> None:
        assert self.cache.read(lambda: self.row) == self.row

    @rule(removed=st.booleans())
    def set(self, removed: bool) -> None:
        self.now += 1
        self.row = None if removed else self.now
        self._tell()

    @rule()
    def invalidate(self) -> None:
        self._tell()

    @rule()
    def write_during_a_load(self) -> None:
        """The reader gets either row; the next one gets the new."""
        before = self.row

        def overtaken() -> int | None:
            self.set(removed=False)
            return before

        assert self.cache.read(overtaken) in (before, self.row)
        if type(self.cache.method) in UNGUARDED:
            self._tell()

    @precondition(lambda self: self.server.connected)
    @rule(which=st.integers(0, 3))
    def expire(self, which: int) -> None:
        self.client.delete(self.cache.keys[which % len(self.cache.keys)])

    @precondition(lambda self: self.server.connected)
    @rule()
    def age(self) -> None:
        """Past the soft TTL, and so near the end that early readers load."""
        self.client.pexpire(self.cache.keys[0], 400_000)

    @precondition(lambda self: self.server.connected)
    @rule(poison=st.sampled_from([p for n, p in POISON.items() if n != "deep"]))
    def poison(self, poison: bytes) -> None:
        self.client.set(self.cache.keys[0], b"x" + poison, px=60_000)

    @precondition(lambda self: self.server.connected)
    @rule(which=st.integers(0, 3))
    def put_another_type(self, which: int) -> None:
        key = self.cache.keys[which % len(self.cache.keys)]
        self.client.delete(key)
        self.client.hset(key, "a", "b")
        if key == ENTRY.lock.lock:  # nobody waits for a lock that is none
            self.client.delete(key)

    @rule()
    def lose_redis(self) -> None:
        self.server.connected = False

    @rule()
    def find_redis(self) -> None:
        self.server.connected = True
        if self.owes:
            self._tell()

    @invariant()
    def values_end(self) -> None:
        if self.server.connected:
            for key in self.client.keys("*"):
                assert self.client.type(key) == b"hash" or self.client.pttl(key) > 0

    def _tell(self) -> None:
        try:
            self.cache.forget()
            self.owes = False
        except redis.RedisError:
            self.owes = True


# They store what a write has replaced meanwhile, as their card says.
UNGUARDED = (Unprotected, SingleFlight, EarlyExpiry)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["cache-aside", "response cache", *METHODS])
@pytest.mark.parametrize(
    ("examples", "steps"), [(12, 25), pytest.param(500, 50, marks=pytest.mark.slow)]
)
def test_nobody_is_told_anything_but_the_row(
    name: str, examples: int, steps: int
) -> None:
    """FAULTS D7, with 12 times 25 steps each; with 500 times 50 when slow."""
    run_state_machine_as_test(
        lambda: Shop(name),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None
        ),
    )
