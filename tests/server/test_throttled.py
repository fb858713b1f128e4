"""Two workers, many clients at once: no 5xx, exact limits, and a report that agrees."""

import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from tests.conftest import ROOT, Served, served

pytestmark = pytest.mark.server

ALGORITHMS = ["fixed-window", "sliding-window-log"]
_SF = re.compile(rb'"[a-z-]+";[a-z]=\d+;[a-z]=\d+')


@pytest.fixture
def app(instance: Path, redis_url: str) -> Iterator[Served]:
    with served(instance, redis_url, workers=2) as app:
        yield app


@dataclass
class Load:
    """So many connections of one client, each asking again as soon as it is answered.

    Every request is waited for, so what is counted here is what the server answered.
    """

    app: Served
    path: str
    connections: int
    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    bad_headers: list[bytes] = field(default_factory=list)

    def run(self) -> None:
        """In a thread of its own: browser tests keep a loop running in the main one."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(self._all())).result()

    async def _all(self) -> None:
        ends = time.monotonic() + self.seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._one(ends))

    async def _one(self, ends: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.app.port)
        request = (
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: load\r\n\r\n"
        )
        try:
            while time.monotonic() < ends:
                writer.write(request.encode())
                self._count(await self._answer(reader))
        finally:
            writer.close()
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert length
        await reader.readexactly(int(length[1]))
        return head

    def _count(self, head: bytes) -> None:
        status = int(head.split(None, 2)[1])
        self.statuses[status] += 1
        told = dict(re.findall(rb"\r\n([\w-]+): ([^\r]*)", head))
        fields = told.get(b"RateLimit", b""), told.get(b"RateLimit-Policy", b"")
        if not all(map(_SF.fullmatch, fields)) or (
            status == 429 and int(told.get(b"Retry-After", 0)) < 1
        ):
            self.bad_headers.append(head)


def report(app: Served, algorithm: str) -> tuple[int, int]:
    url = f"{app.url}/api/throttled/{algorithm}/report?client=load"
    with urllib.request.urlopen(url, timeout=60) as answer:
        said = msgspec.json.decode(answer.read())
    return said["admitted"], said["rejected"]


def agrees(app: Served, algorithm: str, connections: int, seconds: float) -> Load:
    load = Load(app, f"/api/throttled/{algorithm}", connections, seconds)
    load.run()
    assert set(load.statuses) == {200, 429}
    assert load.bad_headers == []
    assert report(app, algorithm) == (load.statuses[200], load.statuses[429])
    return load


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_limit_is_exact_over_two_workers_and_the_report_agrees(
    app: Served, algorithm: str
) -> None:
    """100 connections for 2.5 s, where 300 for 30 s are asked: see the next test."""
    load = agrees(app, algorithm, connections=100, seconds=2.5)
    assert load.statuses[200] == 100
    assert load.statuses[429] > 300  # else this proves nothing


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_three_hundred_clients_for_thirty_seconds(app: Served, algorithm: str) -> None:
    load = agrees(app, algorithm, connections=300, seconds=30)
    assert load.statuses[200] == 100


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_report_agrees_over_more_than_a_window(app: Served, algorithm: str) -> None:
    load = agrees(app, algorithm, connections=50, seconds=66)
    assert load.statuses[200] == 200


DECIDE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from webapp.connection.urls import client_for
from webapp.patterns.rate_limiter.fixed_window import FixedWindow
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog
kind = {"fixed-window": FixedWindow, "sliding-window-log": SlidingWindowLog}
url, algorithm, threads, hits = *sys.argv[1:3], *map(int, sys.argv[3:])
client = client_for(url, role="durable", max_connections=threads)
limit = kind[algorithm](limit=100, window_ms=60_000)
with ThreadPoolExecutor(threads) as pool:
    said = pool.map(lambda _: limit.decide(client, "rpl:x:y:{z}").allowed, range(hits))
    print(sum(said))
"""


@pytest.mark.parametrize(
    ("threads", "hits"), [(10, 250), pytest.param(50, 1250, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_processes_together_admit_exactly_the_limit(
    redis_url: str, algorithm: str, threads: int, hits: int
) -> None:
    """F1: 4 processes with 40 threads and 1,000 requests in all.

    With all 200 threads and 5,000 requests in `make test-all`.
    """
    command = [sys.executable, "-c", DECIDE, redis_url, algorithm]
    processes = [
        subprocess.Popen([*command, str(threads), str(hits)], cwd=ROOT, stdout=-1)
        for _ in range(4)
    ]
    admitted = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(admitted) == 100
