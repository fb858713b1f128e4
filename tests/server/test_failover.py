"""B1: a set changes a primary, while writers, a page and workers go on."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.conftest import allow_silence, local_set, served, wait_until
from tests.server.test_feed import STREAM, Reader, Site
from tests.server.test_workers import ORDER, Crew, crew
from webapp.connection.sets import REPLICAS, SERVICE, SETS, LocalSet, Member
from webapp.connection.urls import home, probe_client
from webapp.http import takeover
from webapp.live.feed import PATTERN, Event, encode
from webapp.live.setfile import SetFile
from webapp.patterns.pub_sub import place
from webapp.shop.orders import BILLING, Orders

pytestmark = pytest.mark.server

_SILENCE_MS = 1_000  # of a killed primary, until it is replaced
_PATIENCE_MS = 30_000  # with one that lives
_COPIED_MS = 50  # a primary that has just taken over may have no replica yet
_WRITES = 20_000
_RESUMES_S = 3.0

Way = Callable[[LocalSet, Member], None]


@pytest.fixture(params=SETS)
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSet]:
    with local_set(request.param, tmp_path_factory.mktemp("failover")) as servers:
        yield servers


class Ledger(threading.Thread):
    """Acts again and again on one connection to the primary that has the key.

    It has when it was told that this was done, and the names of what copies were made
    of: on one connection WAIT is about what was written just before, or raises.
    """

    def __init__(
        self,
        servers: LocalSet,
        act: Callable[[redis.Redis, int], str],
        *,
        key: str,
        copies: int = 1,
        rest_s: float = 0.002,
    ) -> None:
        super().__init__()
        self.done: list[float] = []
        self.names: list[str] = []
        self._url, self._act, self._key = servers.url, act, key
        self._copies, self._rest_s = copies, rest_s
        self._numbers = count()
        self._ended = threading.Event()

    def since(self, at: float) -> float | None:
        """The time of the first act after this."""
        return next((when for when in self.done if when > at), None)

    def run(self) -> None:
        with closing(probe_client(self._url)) as pool:
            while not self._ended.wait(self._rest_s):
                with suppress(RedisError):
                    pool.ping()  # asks a Cluster anew who has the key
                    with closing(home(pool, self._key).client()) as client:
                        self._go_on(client)

    def _go_on(self, client: redis.Redis) -> None:
        while not self._ended.wait(self._rest_s):
            name = self._act(client, next(self._numbers))
            self.done.append(time.monotonic())
            copies = client.execute_command("WAIT", self._copies, _COPIED_MS)
            if copies >= self._copies:
                self.names.append(name)

    def end(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def going(*ledgers: Ledger) -> Iterator[None]:
    for one in ledgers:
        one.start()
    try:
        yield
    finally:
        for one in ledgers:
            one.end()


def hand_over(servers: LocalSet, primary: Member) -> None:
    """As the page does it."""
    pids = {m.address: m.child.pid for m in servers.members if m.child is not None}
    takeover.hand_over(SetFile(url=servers.url, pids=pids), primary.address)


def kill(servers: LocalSet, primary: Member) -> None:
    allow_silence(servers, ms=_SILENCE_MS)
    primary.kill()


WAYS: Sequence[Way] = (kill, hand_over)


def fail_over(
    servers: LocalSet, way: Way, key: str, ledgers: Sequence[Ledger]
) -> float:
    """Another server gets the key; the seconds from then until all go on."""
    before = wait_until(lambda: settled(servers, key), within_s=60)
    others = primaries(servers)
    way(servers, before)
    wait_until(lambda: primaries(servers) - others)
    promoted_at = time.monotonic()
    wait_until(lambda: primary_of(servers, key) not in (None, before))
    agreed_at = time.monotonic()
    allow_silence(servers, ms=_PATIENCE_MS)
    wait_until(lambda: all(one.since(agreed_at) for one in ledgers))
    return max((one.since(agreed_at) or 0.0) - promoted_at for one in ledgers)


def primaries(servers: LocalSet) -> set[int]:
    """The ports of those that take themselves for one."""
    data = [member for member in servers.members if not member.is_sentinel]
    return {member.port for member in data if role_of(member)[:1] == [b"master"]}


def primary_of(servers: LocalSet, key: str) -> Member | None:
    """None while there is none, or two."""
    data = [m for m in servers.members if not m.is_sentinel and m.is_running]
    if is_cluster(servers):
        ports = {owner_in_the_eyes_of(member, key) for member in data}
    else:
        ports = primaries(servers)
    found = [member for member in data if member.port in ports]
    return found[0] if len(ports) == len(found) == 1 else None


def is_cluster(servers: LocalSet) -> bool:
    return "cluster" in servers.url


def owner_in_the_eyes_of(member: Member, key: str) -> int | None:
    """The port of the primary; None while the member does not answer."""
    slot = key_slot(key.encode())
    try:
        shards: Any = member.ask("CLUSTER", "SLOTS")
    except RedisError:
        return None
    return next((s[2][1] for s in shards if s[0] <= slot <= s[1]), None)


def role_of(member: Member) -> list[Any]:
    """Empty while it does not answer."""
    try:
        return list(member.ask("ROLE"))
    except RedisError:
        return []


def settled(servers: LocalSet, key: str) -> Member | None:
    """The primary of a key; its replicas follow, and all are content with it."""
    servers.await_formed()
    primary = primary_of(servers, key)
    if primary is None or is_cluster(servers):
        return primary
    if len(role_of(primary)[-1]) < REPLICAS:
        return None
    for sentinel in servers.members:
        if sentinel.is_sentinel:
            with sentinel.client() as client:
                facts = client.sentinel_master(SERVICE)
            if (facts["port"], facts["flags"]) != (primary.port, "master"):
                return None
    return primary


def answers(client: redis.Redis) -> bool:
    """A client that is new may ask a sentinel that has not heard yet."""
    try:
        return bool(client.ping())
    except RedisError:
        return False


def mend(servers: LocalSet) -> None:
    for member in servers.members:
        if not member.is_running:
            member.start()


def write(name: str, client: redis.Redis, n: int) -> str:
    key = f"{{{name}}}:{n}"
    client.set(key, "1", px=3_600_000)
    return key


def writer(servers: LocalSet, name: str, *, copies: int = 1) -> Ledger:
    """Of keys in the slot of its name."""
    return Ledger(servers, partial(write, name), key=name, copies=copies)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_ten_failovers_lose_nothing_that_a_replica_has(servers: LocalSet) -> None:
    """B1: every second one by kill -9; what was not waited for may be lost."""
    writers = [writer(servers, name) for name in "abcd"]
    hopeful = writer(servers, "e", copies=0)
    resumed_s = []
    with going(*writers, hopeful):
        for name, way in product("abcde", WAYS):
            mend(servers)
            resumed_s.append(fail_over(servers, way, name, writers))
        wait_until(lambda: sum(len(w.names) for w in writers) >= _WRITES)
    written = [name for writer in writers for name in writer.names]
    with closing(probe_client(servers.url)) as client:
        wait_until(lambda: answers(client))
        lost, lost_in_hope = (
            [name for name in names if client.get(name) is None]
            for names in (written, hopeful.names)
        )
    print(f"{len(written)} writes with WAIT 1: {len(lost)} lost")
    print(f"{len(hopeful.names)} writes without: {len(lost_in_hope)} lost")
    print("resumed after", [f"{seconds:.2f} s" for seconds in resumed_s])
    assert lost == []
    assert max(resumed_s) <= _RESUMES_S


ORDERS = Orders(redis.Redis(), "rpl").stream


def publish(client: redis.Redis, _: int) -> str:
    payload = encode(Event("test", "hello"))
    return PATTERN.publish(client, STREAM, payload=payload).id


def order(client: redis.Redis, _: int) -> str:
    return Orders(client, "rpl").place(ORDER, once=secrets.token_hex(8)).id


@pytest.mark.timeout(1_200)
@pytest.mark.slow
def test_a_page_and_workers_go_on_over_ten_failovers(
    servers: LocalSet, instance: Path, tmp_path: Path
) -> None:
    """B1: what a replica has is heard, and billed once.

    The page's socket stays open; its server joins the feed again behind it.
    """
    told = Ledger(servers, publish, key=STREAM, rest_s=0.02)
    placed = Ledger(servers, order, key=ORDERS, rest_s=0.02)
    with (
        served(instance, servers.url) as app,
        crew(tmp_path / "crew", servers.url) as team,
        closing(Site(app, probe_client(servers.url))) as site,
    ):
        page = Reader(site)
        team.start("w1", "w2")
        with going(told, placed):
            for key, way in islice(cycle(product((STREAM, ORDERS), WAYS)), 10):
                mend(servers)
                fail_over(servers, way, key, (told, placed))
                page.read_to(told.names[-1])
        page.read_to(told.names[-1])
        assert_billed_once(team, placed.names)
    print(f"{len(told.names)} told, {len(placed.names)} orders")
    assert page.ids == sorted(set(page.ids), key=place)
    assert set(told.names) <= set(page.ids)


def assert_billed_once(team: Crew, ids: Sequence[str]) -> None:
    """All of these, and of others that were not acknowledged none twice."""
    wait_until(lambda: answers(team.client))
    outcomes = [team.orders.outcome(BILLING, id) for id in ids]
    wait_until(lambda: None not in team.client.mget(outcomes), within_s=60)
    wait_until(lambda: not team.pending())
    any_outcome = team.orders.outcome(BILLING, "0").removesuffix("0") + "*"
    assert team.billed() == len(list(team.client.scan_iter(any_outcome, count=1_000)))


def replace_without_waiting(servers: LocalSet, _: Member) -> None:
    sentinel = next(member for member in servers.members if member.is_sentinel)
    sentinel.ask("SENTINEL", "FAILOVER", SERVICE)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", ["sentinel"], indirect=True)
def test_a_primary_that_lives_on_loses_nothing_that_both_replicas_have(
    servers: LocalSet,
) -> None:
    """B1 where the primary does not wait for its heir, as with Redis, 5 times.

    For a second it goes on with the other replica, so WAIT 1 proves nothing then.
    """
    ledgers = [writer(servers, f"{copies}", copies=copies) for copies in range(3)]
    with going(*ledgers):
        for _ in range(5):
            mend(servers)
            fail_over(servers, replace_without_waiting, "0", ledgers)
    with closing(probe_client(servers.url)) as client:
        wait_until(lambda: answers(client))
        lost = [
            sum(client.get(name) is None for name in ledger.names) for ledger in ledgers
        ]
    for copies, ledger in enumerate(ledgers):
        print(f"WAIT {copies}: {lost[copies]} of {len(ledger.names)} lost")
    assert lost[2] == 0
