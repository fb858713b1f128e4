"""The lock between real processes, and on a server that is killed while it is held."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple

import pytest
from redis.exceptions import RedisError
from sqlalchemy import Engine

from tests.conftest import ROOT, RedisProcess, wait_until
from tests.patterns.test_distributed_lock import NAMES
from webapp import keys
from webapp.connection.roles import breaker_of
from webapp.connection.urls import client_for
from webapp.patterns.distributed_lock import DistributedLock, Lease
from webapp.shop import reports

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
LONG = DistributedLock(ttl_ms=3_600_000)  # no lease ends before the test does
RIVALS = 4
SUM, HOLDERS = (keys.key("rpl", keys.LOCKS_LAB, "sum", n) for n in ("sum", "holders"))

# Takes or writes, as it is told.
_WORKER = """
import sys
from webapp.connection.urls import client_for
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
from webapp.shop import reports
from webapp.shop.database import open_database

redis_url, database_url, name, *names = sys.argv[1:]
client = client_for(redis_url, role="durable", max_connections=1, timeout_s=60)
engine, lock, fence = open_database(database_url), DistributedLock(ttl_ms=100), 0
for act in map(str.strip, sys.stdin):
    if act == "take":
        fence = lock.wait(client, LockKeys(*names), for_ms=60_000).fence
        print(fence, flush=True)
    else:
        taken = reports.write(engine, act, fence=fence, writer=name)
        print(int(taken), flush=True)
"""

# Read, sleep, write: without a lock nearly all of the additions would be lost.
_ADDER = """
import sys, time
from webapp.connection.urls import client_for
from webapp.patterns.distributed_lock import DistributedLock, LockKeys

url, times, sum, holders, *names = sys.argv[1:]
client = client_for(url, role="durable", max_connections=1, timeout_s=60)
lock, names, most = DistributedLock(ttl_ms=3_600_000), LockKeys(*names), 0
client.ping()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(times)):
    with lock.holding(client, names, wait_ms=3_600_000):
        most = max(most, client.incr(holders))
        read = int(client.get(sum) or 0)
        time.sleep(0.0002)
        client.set(sum, read + 1)
        client.decr(holders)
print(most)
"""


class Worker:
    """A process that takes the lock, and writes under its last number."""

    def __init__(self, name: str, *urls: str) -> None:
        self.name = name
        command = [sys.executable, "-c", _WORKER, *urls, name, *astuple(NAMES)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1)

    def tell(self, act: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{act}\n".encode())
        self._process.stdin.flush()

    def hear(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        """Returns when the kernel has stopped it."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def two(redis_process: RedisProcess, engine: Engine) -> Iterator[list[Worker]]:
    urls = redis_process.url, engine.url.render_as_string(hide_password=False)
    workers = [Worker(name, *urls) for name in "AB"]
    yield workers
    for worker in workers:
        worker.end()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_no_process_that_was_stopped_past_its_lease_writes(
    two: list[Worker], engine: Engine, rounds: int
) -> None:
    """FAULTS E1, with 3 rounds of two processes; with 200 when slow."""
    late, other = two
    refused = 0
    for _ in range(rounds):
        late.tell("take")
        late.hear()
        late.stop()
        other.tell("take")  # waits until the lease of the other has ended
        number = other.hear()
        other.tell("report")
        assert other.hear()
        late.tell("report")  # the first it hears when it goes on
        late.go_on()
        refused += not late.hear()
        report = reports.find(engine, "report")
        assert report
        assert (report.writer, report.fence) == (other.name, number)
        late, other = other, late
    assert refused == rounds


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("processes", "times"), [(3, 40), pytest.param(8, 5_000, marks=pytest.mark.slow)]
)
def test_processes_that_read_and_then_write_lose_no_addition(
    redis_process: RedisProcess, processes: int, times: int
) -> None:
    """FAULTS E3, with 3 processes of 40 additions each; with 8 of 5,000 when slow."""
    command = [sys.executable, "-c", _ADDER, redis_process.url, str(times)]
    command += [SUM, HOLDERS, *astuple(NAMES)]
    ready = threading.Barrier(processes)

    def add(_: int) -> int:
        """The most holders that this process has seen, itself among them."""
        with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            ready.wait(60)
            return int(process.communicate(b"go\n")[0])

    with ThreadPoolExecutor(processes) as pool:
        assert set(pool.map(add, range(processes))) == {1}
    assert int(redis_process.client().get(SUM)) == processes * times


class Rivals:
    """Threads that try to take the lock all the time, also while there is no server."""

    def __init__(self, url: str) -> None:
        self.won: list[Lease] = []
        self.refused = Counter[int]()
        self._url = url
        self._ended = threading.Event()

    @contextmanager
    def trying(self) -> Iterator[None]:
        with ThreadPoolExecutor(RIVALS) as pool:
            found = [pool.submit(self._try_on, n) for n in range(RIVALS)]
            try:
                yield
            finally:
                self._ended.set()
        for each in found:
            each.result()

    def wait_for_refusals(self) -> None:
        """One of each, from now on."""
        before = Counter(self.refused)
        wait_until(lambda: all(self.refused[n] > before[n] for n in range(RIVALS)))

    def _try_on(self, n: int) -> None:
        # Patient, because nobody would know of a lease whose reply it did not await.
        client = client_for(
            self._url, role=f"rival {n}", max_connections=1, timeout_s=60
        )
        while not self._ended.wait(0.002):
            try:
                lease = LONG.acquire(client, NAMES)
            except RedisError:
                continue
            if lease:
                self.won.append(lease)
            else:
                self.refused[n] += 1
        breaker_of(client).end()
        client.connection_pool.disconnect()


@pytest.fixture
def safe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A server that answers a write when it is on disk."""
    server = RedisProcess(tmp_path_factory.mktemp("safe"), options=ALWAYS)
    server.start()
    yield server
    server.kill()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_lock_outlives_its_server_and_no_number_goes_back(
    safe: RedisProcess, kills: int
) -> None:
    """FAULTS E4, with 2 kills of a server that keeps all; with 50 when slow."""
    rivals = Rivals(safe.url)
    with rivals.trying():
        for n in range(kills):
            wait_until(lambda n=n: len(rivals.won) > n)
            safe.kill()
            safe.start()
            rivals.wait_for_refusals()
            with safe.client() as client:
                assert client.get(NAMES.lock) == rivals.won[n].token.encode()
                assert len(rivals.won) == n + 1
                assert LONG.release(client, NAMES, rivals.won[n])
    numbers = [lease.fence for lease in rivals.won]
    assert numbers == sorted(set(numbers))
