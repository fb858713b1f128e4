"""Any order of acts, ends of leases and outages: nobody touches another's lease.

The model is two variables: whose lease it is, and when it ends. Each act of an owner
is one script, so an order of acts is an interleaving of the owners.
"""

import fakeredis
import pytest
import redis
import time_machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.patterns.test_distributed_lock import NAMES
from webapp.patterns.distributed_lock import DistributedLock, Lease, LockNotOwned

_START_MS = 1_800_000_000_000
_STEP_MS = 250  # as a part of a second it is exact in floats
_LOCK = DistributedLock(ttl_ms=10_125, longest_ms=15_125)  # ends between two steps


class Owners(RuleBasedStateMachine):
    """Whoever was given a lease may come back with it at any time."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.server = fakeredis.FakeServer(version=(7, 4))
        self.client = fakeredis.FakeRedis(server=self.server)
        self.now_ms = _START_MS
        self.travel = time_machine.travel(_START_MS / 1000, tick=False)
        self.clock = self.travel.start()
        self.holder: Lease | None = None
        self.end_ms = 0
        self.fence = 0

    def teardown(self) -> None:
        self.travel.stop()

    @rule(target=leases)
    def take(self) -> Lease | MultipleResults[Lease]:
        try:
            lease = _LOCK.acquire(self.client, NAMES)
        except redis.RedisError:
            return self._nobody_during_an_outage()
        assert (lease is None) == self._is_held()
        if lease is None:
            return multiple()
        assert lease.fence > self.fence
        self.holder, self.fence = lease, lease.fence
        self.end_ms = self.now_ms + _LOCK.ttl_ms
        return lease

    @rule(lease=leases)
    def extend(self, lease: Lease) -> None:
        is_own = self._is_held() and lease == self.holder
        try:
            left_ms = _LOCK.extend(self.client, NAMES, lease)
        except LockNotOwned:
            assert not is_own
            return
        except redis.RedisError:
            self._nobody_during_an_outage()
            return
        assert is_own
        last_ms = lease.taken_ms + _LOCK.longest_ms
        self.end_ms = max(self.end_ms, min(self.now_ms + _LOCK.ttl_ms, last_ms))
        assert left_ms == self.end_ms - self.now_ms

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        is_own = self._is_held() and lease == self.holder
        try:
            assert _LOCK.release(self.client, NAMES, lease) == is_own
        except redis.RedisError:
            self._nobody_during_an_outage()
            return
        if is_own:
            self.holder = None

    @rule(steps=st.sampled_from([1, 10, 25, 50]))
    def let_time_pass(self, steps: int) -> None:
        self.now_ms += steps * _STEP_MS
        self.clock.move_to(self.now_ms / 1000)

    @rule()
    def lose_redis(self) -> None:
        self.server.connected = False

    @precondition(lambda self: not self.server.connected)
    @rule()
    def find_redis(self) -> None:
        self.server.connected = True

    @invariant()
    def the_lock_is_its_holders_until_the_lease_ends(self) -> None:
        if not self.server.connected:
            return
        own = self.holder.token.encode() if self.holder and self._is_held() else None
        assert self.client.get(NAMES.lock) == own
        if own:
            assert self.client.pttl(NAMES.lock) == self.end_ms - self.now_ms

    def _is_held(self) -> bool:
        return self.holder is not None and self.now_ms <= self.end_ms

    def _nobody_during_an_outage(self) -> MultipleResults[Lease]:
        assert not self.server.connected
        return multiple()


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("orders", "acts"), [(150, 10), pytest.param(10_000, 20, marks=pytest.mark.slow)]
)
def test_no_order_of_acts_releases_or_extends_anothers_lease(
    orders: int, acts: int
) -> None:
    """FAULTS E2, with 150 orders of 10 acts; with 10,000 of 20 when slow."""
    run_state_machine_as_test(
        Owners,
        settings=settings(max_examples=orders, stateful_step_count=acts, deadline=None),
    )
