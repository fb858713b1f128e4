"""The tape tells the truth: what it prints is what the server saw, in order."""

import re
import shlex
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import redis

from tests.conftest import RedisProcess, Served, served, wait_until

pytestmark = pytest.mark.server

_LINE = re.compile(rb'\+[\d.]+ \[(?P<from>[^\]]+)\] (?P<args>".*")\r\n')
_ARG = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_MARK = "rpl-test-mark"


class Monitor:
    """MONITOR on a connection of its own, read only when it is asked."""

    def __init__(self, server: RedisProcess) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(server.socket))
        self.socket.settimeout(5)
        self.lines = self.socket.makefile("rb")
        self.socket.sendall(b"MONITOR\r\n")
        assert self.lines.readline() == b"+OK\r\n"

    def seen_until_mark(self, client: redis.Redis) -> list[list[str]]:
        """All commands of clients since the last mark, without those inside Lua."""
        client.echo(_MARK)
        seen = []
        while True:
            found = _LINE.fullmatch(self.lines.readline())
            assert found
            args = [_unescaped(arg) for arg in _ARG.findall(found["args"])]
            if args[-1] == _MARK:
                return seen
            if not found["from"].endswith(b" lua"):
                seen.append(args)

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def _unescaped(raw: bytes) -> str:
    plain = raw.decode("unicode_escape").encode("latin-1")
    return plain.decode("utf-8", errors="replace")


class _Receipts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cli: list[str] = []
        self.trips: list[int] = []
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "data-cli" in found:
            self.cli.append(found["data-cli"] or "")

    def handle_data(self, data: str) -> None:
        self._text.append(data.strip())
        if data.strip().startswith("round trip"):
            self.trips.append(int(self._text[-2].replace(",", "")))


@dataclass
class Tape:
    commands: list[list[str]]
    round_trips: int


@dataclass
class Bench:
    app: Served
    server: RedisProcess
    monitor: Monitor
    client: redis.Redis

    def reads(self) -> int:
        return int(self.client.info("stats")["total_reads_processed"])

    def act(
        self, method: str, path: str, form: dict[str, str] | None = None, **cookies: str
    ) -> tuple[Tape, list[list[str]], int]:
        """One click: what the tape says, what MONITOR saw, how many reads it took."""
        self.monitor.seen_until_mark(self.client)
        before = self.reads()
        body = urllib.parse.urlencode(form or {}).encode() if method == "POST" else None
        headers = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}
        headers["X-Shopper"] = "1"  # whose visits are no news: no other thread speaks
        if cookies:
            headers["Cookie"] = "; ".join(f"{n}={v}" for n, v in cookies.items())
        asked = urllib.request.Request(
            self.app.url + path, body, headers, method=method
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            html = answer.read().decode()
        grown = self.reads() - before - 1  # the second INFO is a read too
        seen = self.monitor.seen_until_mark(self.client)
        seen = [c for c in seen if c[0].upper() != "INFO"]
        receipts = _Receipts()
        receipts.feed(html)
        lines = [line for cli in receipts.cli for line in cli.splitlines()]
        tape = Tape([shlex.split(line) for line in lines], sum(receipts.trips))
        return tape, seen, grown


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def bench(
    request: pytest.FixtureRequest, instance: Path, redis_process: RedisProcess
) -> Iterator[Bench]:
    with served(instance, redis_process.url, workers=request.param) as app:
        client, monitor = redis_process.client(), Monitor(redis_process)
        bench = Bench(app, redis_process, monitor, client)
        for _ in range(8 * request.param):  # every worker has its connections open
            bench.act("GET", "/catalog/1")
        yield bench
        monitor.close()
        client.close()


def _same(tape: Tape, seen: list[list[str]]) -> bool:
    folded = [[c[0].upper(), *c[1:]] for c in seen]
    return tape.commands == folded


ACTIONS = [
    ("a miss", "GET", "/catalog/1042", {}),
    ("a hit", "GET", "/catalog/1042", {}),
    ("no such product", "GET", "/catalog/1042?category=kitchen", {}),
    ("an edit", "POST", "/catalog/1042", {"price": "47.50", "stock": "9"}),
    ("a miss after it", "GET", "/catalog/1042", {}),
    ("the keys", "GET", "/catalog/keys?ids=1042,1043", {}),
    ("no cache", "POST", "/catalog/experiments/no-cache", {}),
    ("no TTL", "POST", "/catalog/experiments/no-ttl", {}),
    ("a forgotten edit", "POST", "/catalog/experiments/forgotten-edit", {}),
    ("the stale set", "POST", "/catalog/experiments/stale-set", {}),
    ("an empty value", "POST", "/catalog/experiments/empty-value", {}),
    ("reset", "POST", "/reset", {}),
]


def test_tape_equals_monitor_and_trips_equal_reads(bench: Bench) -> None:
    for name, method, path, form in ACTIONS:
        tape, seen, grown = bench.act(method, path, form)
        assert tape.commands, name
        assert _same(tape, seen), f"{name}: {tape.commands} against {seen}"
        assert tape.round_trips == grown, f"{name}: {tape.round_trips} against {grown}"


def test_seeing_inside_lua_keeps_the_tape_true(bench: Bench) -> None:
    for name, method, path, form in ACTIONS[:4]:
        tape, seen, grown = bench.act(method, path, form, inside="1")
        assert _same(tape, seen), name
        assert tape.round_trips == grown, name


def test_a_hit_takes_one_round_trip_and_a_miss_two(bench: Bench) -> None:
    miss, _, miss_reads = bench.act("GET", "/catalog/2000")
    hit, _, hit_reads = bench.act("GET", "/catalog/2000")
    assert (miss.round_trips, miss_reads) == (2, 2)
    assert (hit.round_trips, hit_reads) == (1, 1)


def test_a_command_that_could_not_be_sent_is_on_the_tape(
    bench: Bench,
) -> None:
    bench.server.kill()

    def named() -> bool:
        asked = urllib.request.Request(f"{bench.app.url}/catalog/1042")
        with urllib.request.urlopen(asked, timeout=5) as answer:
            html = answer.read().decode()
        return "EVALSHA" in html and "not sent" in html

    assert wait_until(named)
    bench.server.start()
