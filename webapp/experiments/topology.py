"""Break the connection pool, and watch a failover as a client that writes sees it."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import redis
from redis.exceptions import RedisError

from webapp.connection import budget
from webapp.connection.roles import breaker_of, pools_of
from webapp.connection.urls import client_for, home, server_of
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    compare,
    duration,
    running,
)

_HOLDERS = 4  # callers that keep their connection
_HELD_S = 5.0  # at most; they are told when the others are done
_TTL_MS = 60_000


# A connection for each request


def connect_and_get(client: redis.Redis, key: str) -> None:
    # Flaw: each request connects, says who it is, and hangs up.
    client.get(key)
    client.connection_pool.disconnect()


def get_from_pool(client: redis.Redis, key: str) -> None:
    client.get(key)


def run_handshakes(bench: Bench, *, requests: int) -> Outcome:
    with running(bench, "handshake") as run, _pool_of(1, bench) as own_client:
        key = run.key("value")
        client = home(own_client, key)
        connect_and_get(client, key)
        with run.recording(f"{requests} requests, a connection each") as each:
            slow_us = _timed(requests, lambda: connect_and_get(client, key))
        get_from_pool(client, key)
        with run.recording(f"{requests} requests from the pool") as pooled:
            fast_us = _timed(requests, lambda: get_from_pool(client, key))
    trips = len(each.trips), len(pooled.trips)
    for own, count in ((each, trips[0]), (pooled, trips[1])):
        own.verdict = ("no" if count > requests else "ok"), f"{count} round trips"
    sides = "a connection each", "from the pool"
    return Outcome(
        rows=[
            *compare("Round trips", sides, trips),
            *compare("Median request", sides, (slow_us, fast_us), shown=duration),
        ],
        summary=f"{requests} requests took {trips[0]} round trips and as many "
        f"connections as requests; from the pool {trips[1]}.",
        tone="no" if trips[0] > trips[1] else "ok",
        verdict=f"{trips[0]} round trips",
        recordings=run.recordings,
    )


def _timed(count: int, ask: Callable[[], None]) -> int:
    """The median of so many, in us."""
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return round(median(took) * 1e6)


# A pool that is smaller than the load


@dataclass
class Served:
    refused: int = 0
    longest_us: int = 0


def get_beside_holders(
    client: redis.Redis, key: str, *, holders: int, callers: int
) -> Served:
    """So many keep a connection, as a blocking read does, while others want one."""
    # Flaw: with no more connections than holders, nobody else gets one in time.
    entered, done = threading.Barrier(holders + 1), threading.Event()

    def hold() -> None:
        pool = client.connection_pool
        connection = pool.get_connection()
        try:
            entered.wait(_HELD_S)
            done.wait(_HELD_S)
        finally:
            pool.release(connection)

    served = Served()

    def call() -> None:
        began = time.perf_counter()
        try:
            client.get(key)
        except redis.ConnectionError:
            served.refused += 1
        us = round((time.perf_counter() - began) * 1e6)
        served.longest_us = max(served.longest_us, us)

    keeping = _started(hold, holders)
    try:
        entered.wait(_HELD_S)
        for thread in _started(call, callers):
            thread.join()
    finally:
        done.set()
        for thread in keeping:
            thread.join()
    return served


def run_starved_pool(bench: Bench, *, callers: int) -> Outcome:
    sizes = _HOLDERS, _HOLDERS + callers
    with running(bench, "starved") as run:
        key = run.key("value")
        found: list[Served] = []
        for size in sizes:
            with (
                run.recording(f"A pool of {size}, {_HOLDERS} held") as own,
                _pool_of(size, bench) as client,
            ):
                served = get_beside_holders(
                    home(client, key), key, holders=_HOLDERS, callers=callers
                )
            found.append(served)
            own.verdict = _verdict(found[-1].refused)
    small, large = found
    sides = f"pool of {sizes[0]}", f"pool of {sizes[1]}"
    refused = small.refused, large.refused
    waits = small.longest_us, large.longest_us
    return Outcome(
        rows=[
            *compare("Refused", sides, refused, most=callers),
            *compare("Longest wait", sides, waits, shown=duration),
        ],
        summary=f"{_HOLDERS} callers kept their connections. Of {callers} others, "
        f"{refused[0]} were refused, and {refused[1]} with a pool for all.",
        tone="no" if refused[0] else "ok",
        verdict="starved" if refused[0] else "served",
        recordings=run.recordings,
    )


@contextmanager
def _pool_of(size: int, bench: Bench) -> Iterator[redis.Redis]:
    client = client_for(bench.redis_url, role="durable", max_connections=size)
    try:
        yield client
    finally:
        breaker_of(client).end()
        for pool in pools_of(client):
            pool.disconnect()


def _verdict(refused: int) -> tuple[str, str]:
    return ("no" if refused else "ok"), f"{refused} refused"


def _started(do: Callable[[], None], count: int) -> list[threading.Thread]:
    """Threads with this context each, so that their commands are on the receipt."""
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(do,))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads


# A failover


_STEP_S = 0.025
_BEFORE_S = 0.5  # of writes before the primary goes
_CALM = 20  # writes in a row that the new primary takes
_LONGEST_S = 9.0
_CALL_S = 0.3


@dataclass(frozen=True)
class Write:
    at_ms: int  # since the first
    took: bool  # False: it was refused, or nobody answered
    server: str  # who had the key, as far as the client knew


@dataclass(frozen=True)
class Failover:
    writes: list[Write]
    triggered_ms: int
    healed_ms: int | None  # from there to the first write that went on; None: none did
    lost: int  # writes that were acknowledged and are gone
    before: str  # the server that had the key
    after: str

    @property
    def refused(self) -> int:
        return sum(not write.took for write in self.writes)


def fail_over(bench: Bench, *, trigger: Callable[[str], None]) -> Failover:
    """Write every 25 ms while `trigger` makes the server with this address go."""
    with running(bench, "failover") as run:
        key = run.key("value")
        watch = _Watch(bench.client, key)
        watch.write_until(lambda now: now.at_ms >= _BEFORE_S * 1000)
        before, triggered_ms = watch.server, watch.now_ms
        trigger(before)
        watch.calm = 0
        watch.write_until(lambda now: watch.calm >= _CALM and now.server != before)
        healed_ms = watch.healed_ms(triggered_ms)
        lost = watch.lost() if healed_ms is not None else 0
    return Failover(watch.writes, triggered_ms, healed_ms, lost, before, watch.server)


class _Watch:
    def __init__(self, client: redis.Redis, key: str) -> None:
        self.writes: list[Write] = []
        self.server = server_of(client, key)
        self.calm = 0  # writes in a row that went well
        self._client, self._key = client, key
        self._began = time.monotonic()

    @property
    def now_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)

    def write_until(self, ended: Callable[[Write], bool]) -> None:
        while self.now_ms < _LONGEST_S * 1000:
            now = self._write()
            self.writes.append(now)
            if ended(now):
                return
            time.sleep(_STEP_S)

    def _write(self) -> Write:
        at_ms = self.now_ms
        try:
            with budget.limited_to(_CALL_S):
                with self._client.pipeline(transaction=True) as multi:
                    multi.rpush(self._key, len(self.writes))
                    multi.pexpire(self._key, _TTL_MS)
                    multi.execute()
                self.server = server_of(self._client, self._key)
        except RedisError:
            self.calm = 0
            return Write(at_ms, took=False, server=self.server)
        self.calm += 1
        return Write(at_ms, took=True, server=self.server)

    def lost(self) -> int:
        """Replication is asynchronous: who was told OK may find nothing later."""
        kept = set(map(int, self._client.lrange(self._key, 0, -1)))
        return sum(w.took and n not in kept for n, w in enumerate(self.writes))

    def healed_ms(self, triggered_ms: int) -> int | None:
        """0 where nothing was refused."""
        later = [write for write in self.writes if write.at_ms >= triggered_ms]
        refused = [n for n, write in enumerate(later) if not write.took]
        if not refused:
            return 0
        after = later[refused[-1] + 1 :]
        return after[0].at_ms - triggered_ms if after else None


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="handshake",
        title="Connect for each request",
        hypothesis="A request without a pool pays for a connection and its handshake.",
        controls=(
            Control(
                "requests", "Requests", "range", min=20, max=200, step=20, value=60
            ),
        ),
        run=run_handshakes,
    ),
    Experiment(
        name="starved-pool",
        title="Starve the pool",
        hypothesis="Who keeps a connection keeps it from everybody else.",
        controls=(
            Control(
                "callers", "Other callers", "range", min=2, max=16, step=2, value=8
            ),
        ),
        run=run_starved_pool,
    ),
)
