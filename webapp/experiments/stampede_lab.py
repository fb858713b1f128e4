"""The lab of stampedes: many readers want one value at once, by each method in turn.

The readers are threads, spread over four flights as over the workers of a site. A load
is a real query; it holds one of the database's few connections for as long as a report
over all orders would.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import redis

from webapp import keys
from webapp.connection import recorder
from webapp.connection.budget import limited_to
from webapp.connection.recorder import Recording
from webapp.connection.roles import close, warm
from webapp.connection.urls import client_for
from webapp.experiments import Bench, Run, running
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
from webapp.patterns.stampede import Entry, Method, Outcome
from webapp.patterns.stampede.early_expiry import EarlyExpiry
from webapp.patterns.stampede.locked_flight import LockedFlight
from webapp.patterns.stampede.single_flight import SingleFlight
from webapp.patterns.stampede.stale_while_revalidate import StaleWhileRevalidate
from webapp.patterns.stampede.unprotected import Unprotected
from webapp.shop import queries

Name = Literal["none", "flight", "lock", "stale", "early"]

TITLES: dict[Name, str] = {
    "none": "No protection",
    "flight": "Single flight",
    "lock": "Lock",
    "stale": "Stale while revalidate",
    "early": "Early expiry",
}
READERS = range(10, 201, 10)
PROCESSES = 4  # with flights of their own
LOAD_MS = 150
CONNECTIONS = 16  # to the database
LEFT_MS = 5 * LOAD_MS  # of the value, when the readers of early expiry begin to come

_COME_MS = LEFT_MS + LOAD_MS  # the time in which they do
_TTL_MS = 50_000
_STALE_MS = 20_000
_PATIENCE_MS = 8_000  # more than any load takes, however busy the machine is
_DEADLINE_S = 20.0  # of a reader's calls to Redis


class LabBusy(Exception):
    """Somebody else's readers are under way in this process."""


@dataclass(frozen=True)
class Reader:
    came_us: int  # after the first
    answered_us: int
    outcome: Outcome
    loads: Sequence[tuple[int, int]]  # when each that it started began, and ended

    @property
    def waited_us(self) -> int:
        return self.answered_us - self.came_us


@dataclass(frozen=True)
class Ran:
    """One method's readers, in the order in which they came and were answered."""

    name: Name
    readers: list[Reader]
    commands: int  # of all readers together
    recordings: list[Recording]  # of one who loaded, and of one who did not

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def loads(self) -> int:
        return sum(len(reader.loads) for reader in self.readers)

    @property
    def old(self) -> int:
        """How many got a value past its soft TTL."""
        return sum(reader.outcome == "stale" for reader in self.readers)

    @property
    def ended_us(self) -> int:
        ends = [end for reader in self.readers for _, end in reader.loads]
        return max([*ends, *(reader.answered_us for reader in self.readers)])

    def waited_us(self, share: float) -> int:
        """What that share of the readers waited at most: 0.99 is the p99."""
        waits = sorted(reader.waited_us for reader in self.readers)
        return waits[max(0, -(-round(share * 100) * len(waits) // 100) - 1)]


_busy = threading.Lock()


def run(bench: Bench, names: Sequence[Name], *, readers: int) -> list[Ran]:
    """All readers by each of the methods, one after the other. Raises LabBusy."""
    if not _busy.acquire(blocking=False):
        raise LabBusy("other readers are under way")
    try:
        with running(bench, "crowd") as run, crowd_client(bench, readers) as client:
            return [_Crowd(bench, run, client, name, readers).go() for name in names]
    finally:
        _busy.release()


def entry(run: Run, name: str) -> Entry:
    """Scratch keys of one value and its lock."""
    return Entry(
        value=run.key(f"{name}-value"),
        lock=LockKeys(
            lock=run.key(f"{name}-lock"),
            fence=run.key(f"{name}-fence"),
            wake=run.key(f"{name}-wake", keys.LAB_WAKE),
        ),
    )


@contextmanager
def crowd_client(bench: Bench, readers: int) -> Iterator[redis.Redis]:
    """With a connection for each reader: who waits for a lock holds one."""
    if not bench.redis_url:
        yield bench.client
        return
    client = client_for(bench.redis_url, role="cache", max_connections=2 * readers)
    try:
        with recorder.unrecorded():
            warm(client, connections=readers)
        yield client
    finally:
        close(client)


@dataclass
class _Crowd:
    bench: Bench
    run: Run
    client: redis.Redis
    name: Name
    count: int
    started: float = 0.0
    beside: list[Future[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entry = entry(self.run, self.name)
        self.methods = self._methods()
        self.connections = threading.Semaphore(CONNECTIONS)
        self.doors = threading.Barrier(self.count, action=self._open)
        self.pool = ThreadPoolExecutor(2 * self.count)

    def go(self) -> Ran:
        self._prepare()
        with self.pool:
            found = list(self.pool.map(self._read, range(self.count)))
            wait(self.beside)
        found.sort(key=lambda pair: (pair[0].came_us, pair[0].answered_us))
        owns = [own for _, own in found]
        commands = sum(len(trip.commands) for own in owns for trip in own.trips)
        readers = [reader for reader, _ in found]
        return Ran(self.name, readers, commands, self._shown(found))

    def _methods(self) -> list[Method]:
        """One for each process."""
        lock = DistributedLock(ttl_ms=_PATIENCE_MS, keep_ms=_TTL_MS)
        made: dict[Name, Callable[[], Method]] = {
            "none": lambda: Unprotected(_TTL_MS),
            "flight": lambda: SingleFlight(_TTL_MS, _PATIENCE_MS),
            "lock": lambda: LockedFlight(_TTL_MS, _PATIENCE_MS, lock),
            "stale": lambda: StaleWhileRevalidate(
                _TTL_MS - _STALE_MS, _STALE_MS, lock, start=self._start
            ),
            "early": lambda: EarlyExpiry(_TTL_MS),
        }
        return [made[self.name]() for _ in range(PROCESSES)]

    def _prepare(self) -> None:
        """The last two begin with an old value: a cold key is not what they are for."""
        with recorder.unrecorded():
            old = msgspec.json.encode(self._rating())
            if self.name == "stale":
                self.client.set(self.entry.value, old, px=_STALE_MS)
            if self.name == "early":
                self.client.set(self.entry.value, b"%d %b" % (LOAD_MS, old), px=LEFT_MS)

    def _read(self, n: int) -> tuple[Reader, Recording]:
        """One reader, in a thread of its own."""
        own = Recording(f"{TITLES[self.name]}: reader {n + 1}")
        loads: list[tuple[int, int]] = []
        method = self.methods[n % PROCESSES]
        with recorder.recording(own), limited_to(_DEADLINE_S):
            self.doors.wait(_DEADLINE_S)
            if self.name == "early":
                time.sleep(n * _COME_MS / self.count / 1000)
            came_us = self._now_us()
            read = method.read(self.client, self.entry, load=lambda: self._load(loads))
            return Reader(came_us, self._now_us(), read.outcome, loads), own

    def _load(self, loads: list[tuple[int, int]]) -> bytes:
        with self.connections:
            began_us = self._now_us()
            time.sleep(LOAD_MS / 1000)
            payload = msgspec.json.encode(self._rating())
            loads.append((began_us, self._now_us()))
        return payload

    def _rating(self) -> queries.Rating:
        return queries.rating(self.bench.engine, self.bench.product_id)

    def _start(self, work: Callable[[], None]) -> None:
        """Beside the reader, but within the run."""
        run = contextvars.copy_context().run
        self.beside.append(self.pool.submit(run, work))

    def _open(self) -> None:
        self.started = time.perf_counter()

    def _now_us(self) -> int:
        return round((time.perf_counter() - self.started) * 1e6)

    def _shown(self, found: Sequence[tuple[Reader, Recording]]) -> list[Recording]:
        """The first who loaded, and the last who did not."""
        loaded = [own for reader, own in found if reader.loads][:1]
        others = [own for reader, own in found if not reader.loads][-1:]
        for own in loaded:
            own.verdict = "wait", "loads"
        for own in others:
            own.verdict = "ok", "does not load"
        return loaded + others
