"""The tape tells the truth: what it prints is what the server saw, in order."""

import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import redis

from tests.conftest import RedisProcess, Served, new_instance, served, wait_until
from webapp.connection.addresses import is_set
from webapp.connection.cluster import ClusterClient
from webapp.connection.urls import probe_client
from webapp.shop.scores import season_of

pytestmark = pytest.mark.server

_LINE = re.compile(rb'[\d.]+ \[\d+ (?P<from>[^\]]+)\] (?P<args>".*")')
_ARG = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_MARK = "rpl-test-mark"


class Monitor:
    """MONITOR on a connection of its own, read only when it is asked."""

    def __init__(self, server: redis.Redis) -> None:
        self.server = server
        found = (c for c in server.client_list() if c["name"].startswith("sentinel-"))
        self.sentinels = {client["addr"].encode() for client in found}
        self.lines = server.monitor().__enter__().connection

    def seen_until_mark(self) -> list[list[str]]:
        """All commands of clients since the last mark, without those inside Lua."""
        self.server.echo(_MARK)
        seen = []
        while True:
            found = _LINE.fullmatch(self.lines.read_response())
            assert found
            args = [_unescaped(arg) for arg in _ARG.findall(found["args"])]
            if args[-1] == _MARK:
                return seen
            if found["from"] not in {b"lua", *self.sentinels}:
                seen.append(args)


def _unescaped(raw: bytes) -> str:
    plain = raw.decode("unicode_escape").encode("latin-1")
    return plain.decode("utf-8", errors="replace")


def _words(line: str) -> list[str]:
    """A line of the tape as redis-cli takes it."""
    return [w[2] or _unescaped(w[1].encode()) for w in _WORD.finditer(line)]


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
    receipts: list[list[list[str]]]  # of each, its commands
    round_trips: int


@dataclass
class Bench:
    app: Served
    client: redis.Redis
    monitors: list[Monitor]  # one a primary
    counts_reads: bool  # servers of a set read what they tell each other, too
    session: str = ""  # the cookie of who signed in

    def reads(self) -> int:
        return int(self.client.info("stats")["total_reads_processed"])

    def seen(self) -> list[list[list[str]]]:
        """Of each primary, the commands since this was asked last."""
        seen = [monitor.seen_until_mark() for monitor in self.monitors]
        return [[c for c in own if c[0].upper() != "INFO"] for own in seen]

    def act(
        self, method: str, path: str, form: dict[str, str] | None = None, **cookies: str
    ) -> tuple[Tape, list[list[list[str]]], int]:
        """One click: what the tape says, what MONITOR saw, how many reads it took.

        On a set, as many as the tape says.
        """
        self.seen()
        before = self.reads()
        body = urllib.parse.urlencode(form or {}).encode() if method == "POST" else None
        headers = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}
        sent = [f"{n}={v}" for n, v in cookies.items()]
        if self.session:
            sent.append(self.session)
        if sent:
            headers["Cookie"] = "; ".join(sent)
        asked = urllib.request.Request(
            self.app.url + path, body, headers, method=method
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            html = answer.read().decode()
            given = answer.headers["Set-Cookie"] or ""
        if given.startswith("sid="):
            self.session = given.partition(";")[0]
        grown = self.reads() - before - 1  # the second INFO is a read too
        seen = self.seen()
        receipts = _Receipts()
        receipts.feed(html)
        told = [[_words(line) for line in cli.splitlines()] for cli in receipts.cli]
        tape = Tape(told, sum(receipts.trips))
        return tape, seen, grown if self.counts_reads else tape.round_trips


each_count = pytest.mark.parametrize(
    "workers",
    [pytest.param(1, marks=pytest.mark.slow), 2],
    ids=["one worker", "two workers"],
    scope="module",
)


@contextmanager
def benched(instance: Path, redis_url: str, workers: int) -> Iterator[Bench]:
    with (
        served(instance, redis_url, workers=workers) as app,
        probe_client(redis_url, timeout_s=20) as client,
    ):
        is_cluster = isinstance(client, ClusterClient)
        primaries = client.topology.primaries if is_cluster else [client]
        counts_reads = not is_set(redis_url)
        bench = Bench(app, client, [*map(Monitor, primaries)], counts_reads)
        for _ in range(8 * workers):  # every worker has its connections open
            bench.act("GET", "/catalog/1")
            bench.act("GET", "/catalog/keys?ids=1&tag=kitchen")
        yield bench


@pytest.fixture(scope="module")
def kept(
    workers: int,
    tmp_path_factory: pytest.TempPathFactory,
    seeded: Path,
    kept_redis_url: str,
) -> Iterator[Bench]:
    instance = new_instance(tmp_path_factory.mktemp("tape") / "instance", seeded)
    with benched(instance, kept_redis_url, workers) as bench:
        yield bench


@pytest.fixture
def bench(kept: Bench) -> Bench:
    """With nobody signed in and nothing in Redis."""
    kept.client.flushall()
    kept.session = ""
    return kept


def _same(tape: Tape, seen: list[list[list[str]]]) -> bool:
    """Each receipt has its commands in order; what is done beside has its own.

    Of several primaries nobody knows the order.
    """
    if len(seen) == 1:
        return _in_order(tape, seen[0])
    commands = [_upper(command) for own in seen for command in own]
    told = [command for receipt in tape.receipts for command in receipt]
    for command in sorted(told, key=_is_vague):
        found = next((sent for sent in commands if _tells(command, sent)), None)
        if found is None:
            return False
        commands.remove(found)
    return not commands


def _in_order(tape: Tape, seen: list[list[str]]) -> bool:
    begun = {(0,) * len(tape.receipts)}  # how much of each receipt may have been sent
    for command in seen:
        sent = _upper(command)
        begun = {
            (*at[:i], at[i] + 1, *at[i + 1 :])
            for at in begun
            for i, told in enumerate(tape.receipts)
            if at[i] < len(told) and _tells(told[at[i]], sent)
        }
    return tuple(map(len, tape.receipts)) in begun


def _upper(command: list[str]) -> list[str]:
    return [command[0].upper(), *command[1:]]


def _is_vague(told: list[str]) -> bool:
    return any(part == "<hidden>" or "…" in part for part in told)


def _tells(told: list[str], sent: list[str]) -> bool:
    return len(told) == len(sent) and all(map(_shows, told, sent))


def _shows(shown: str, sent: str) -> bool:
    """Secrets are hidden, and digests in keys are cut."""
    head, cut, _ = shown.partition("…")
    return shown in (sent, "<hidden>") or bool(cut and sent.startswith(head))


EDIT = {"price": "47.50", "stock": "9"}
_SEASON = f"/leaderboard?board={season_of(datetime.now(UTC).date())}"
_POINTS = {"player": "ada", "points": "50", "operation_id": "truth"}
_FEW = {"players": "20000"}

ACTIONS = [
    ("a miss", "GET", "/catalog/1042", {}),
    ("a hit", "GET", "/catalog/1042", {}),
    ("no such product", "GET", "/catalog/1042?category=kitchen", {}),
    ("a guest", "POST", "/sessions/guest", {}),
    ("an edit", "POST", "/catalog/1042", EDIT),
    ("a miss after it", "GET", "/catalog/1042", {}),
    ("the keys", "GET", "/catalog/keys?ids=1042,1043", {}),
    ("no cache", "POST", "/catalog/experiments/no-cache", {}),
    ("no TTL", "POST", "/catalog/experiments/no-ttl", {}),
    ("a forgotten edit", "POST", "/catalog/experiments/forgotten-edit", {}),
    ("the stale set", "POST", "/catalog/experiments/stale-set", {}),
    ("an empty value", "POST", "/catalog/experiments/empty-value", {}),
    ("a miss with a tag", "GET", "/catalog/1044?variant=tag-invalidation", {}),
    ("a hit with a tag", "GET", "/catalog/1044?variant=tag-invalidation", {}),
    ("the keys and the tag", "GET", "/catalog/keys?ids=1044&tag=kitchen", {}),
    ("an edit through", "POST", "/catalog/1044?variant=write-through", EDIT),
    ("an invalidation", "POST", "/catalog/1044/invalidate", {}),
    ("two writers", "POST", "/catalog/experiments/two-writers", {}),
    ("a crash", "POST", "/catalog/experiments/crash", {}),
    ("lost members", "POST", "/catalog/experiments/lost-members", {}),
    ("an early end", "POST", "/catalog/experiments/early-end", {}),
    ("a limited request", "POST", "/rate-limits/requests", {}),
    ("a crash", "POST", "/rate-limits/experiments/crash", {}),
    ("wrong clocks", "POST", "/rate-limits/experiments/client-clock", {}),
    ("samples", "POST", "/leaderboard/samples", {}),
    ("a board", "GET", "/leaderboard?player=Wim", {}),
    ("a season", "GET", _SEASON, {}),
    ("points", "POST", "/leaderboard/scores", _POINTS),
    ("points again", "POST", "/leaderboard/scores", _POINTS),
    ("a board's keys", "GET", "/leaderboard/keys", {}),
    ("a crowd", "POST", "/leaderboard/crowd", {}),
    ("lost points", "POST", "/leaderboard/experiments/lost-points", {}),
    ("a counted rank", "POST", "/leaderboard/experiments/counted-rank", _FEW),
    ("visitors", "GET", "/visitors", {}),
    ("another visitor", "POST", "/visitors/another", {}),
    ("visitors' keys", "GET", "/visitors/keys?run=r1", {}),
    ("a simulation", "POST", "/visitors/simulation", {"run": "r1"}),
    ("added replies", "POST", "/visitors/experiments/added-replies", {}),
    ("a growing set", "POST", "/visitors/experiments/growing-set", {}),
    ("activity", "GET", "/activity", {}),
    ("twenty products", "POST", "/activity/look", {}),
    ("activity's key", "GET", "/activity/keys", {}),
    ("pages by offset", "POST", "/activity/experiments/by-offset", {}),
    ("bodies", "POST", "/activity/experiments/bodies", {}),
    ("a lost reply", "POST", "/activity/experiments/lost-reply", {}),
    ("locks", "GET", "/locks", {}),
    ("a lease", "POST", "/locks/report", {"do": "A:take"}),
    ("a lease refused", "POST", "/locks/report", {"do": "B:take"}),
    ("the lock's keys", "GET", "/locks/keys", {}),
    ("another's release", "POST", "/locks/experiments/release", {}),
    ("a pipeline", "GET", "/streams", {}),
    ("fifty orders", "POST", "/streams/orders", {"count": "50"}),
    ("the pipeline's keys", "GET", "/streams/keys", {}),
    ("no dead letter", "POST", "/streams/letters", {}),
    ("an early XACK", "POST", "/streams/experiments/early-ack", {}),
    ("poison", "POST", "/streams/experiments/poison", {}),
    ("an id planted", "POST", "/sessions/experiments/fixation", {}),
    ("a lost update", "POST", "/sessions/experiments/lost-update", {}),
    ("an undone sign-out", "POST", "/sessions/experiments/undone-sign-out", {}),
    ("sessions without TTL", "POST", "/sessions/experiments/no-ttl", {}),
    ("a code", "POST", "/sessions/code", {}),
    ("a name", "POST", "/sessions/device", {"name": "Laptop"}),
    ("sign out", "POST", "/sessions/out-everywhere", {}),
    ("reset", "POST", "/reset", {}),
]


@each_count
def test_tape_equals_monitor_and_trips_equal_reads(bench: Bench) -> None:
    for name, method, path, form in ACTIONS:
        tape, seen, grown = bench.act(method, path, form)
        assert any(tape.receipts), name
        assert _same(tape, seen), f"{name}: {tape.receipts} against {seen}"
        assert tape.round_trips == grown, f"{name}: {tape.round_trips} against {grown}"


@each_count
def test_seeing_inside_lua_keeps_the_tape_true(bench: Bench) -> None:
    for name, method, path, form in ACTIONS[:5]:
        tape, seen, grown = bench.act(method, path, form, inside="1")
        assert _same(tape, seen), name
        assert tape.round_trips == grown, name


@each_count
def test_a_hit_takes_one_round_trip_and_a_miss_two(bench: Bench) -> None:
    miss, _, miss_reads = bench.act("GET", "/catalog/2000")
    hit, _, hit_reads = bench.act("GET", "/catalog/2000")
    assert (miss.round_trips, miss_reads) == (2, 2)
    assert (hit.round_trips, hit_reads) == (1, 1)


@each_count
def test_a_tagged_miss_takes_three_and_an_edit_through_takes_two(bench: Bench) -> None:
    tagged, through = "variant=tag-invalidation", "variant=write-through"
    miss, _, miss_reads = bench.act("GET", f"/catalog/2001?{tagged}")
    bench.act("POST", "/sessions/guest")
    edit, _, edit_reads = bench.act("POST", f"/catalog/2001?{through}", EDIT)
    bench.session = ""
    hit, _, hit_reads = bench.act("GET", f"/catalog/2001?{through}")
    assert (miss.round_trips, miss_reads) == (3, 3)
    # One voids the lists, one edits; the others say who does, tell the feed of it,
    # and note it.
    assert (edit.round_trips, edit_reads) == (5, 5)
    assert (hit.round_trips, hit_reads) == (1, 1)


@pytest.mark.one_server("it is killed")
def test_a_command_that_could_not_be_sent_is_on_the_tape(
    instance: Path, redis_process: RedisProcess
) -> None:
    with served(instance, redis_process.url) as app:
        redis_process.kill()

        def named() -> bool:
            asked = urllib.request.Request(f"{app.url}/catalog/1042")
            with urllib.request.urlopen(asked, timeout=30) as answer:
                html = answer.read().decode()
            return "EVALSHA" in html and "not sent" in html

        assert wait_until(named)
