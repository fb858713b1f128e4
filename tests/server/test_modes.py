"""The app on a Sentinel set and on a Cluster: the same answers, also in a failover."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.conftest import ROOT, allow_silence, local_set, wait_until
from tests.routes import safe
from tests.server.test_failover import STREAM, hand_over, publish
from webapp import create_app
from webapp.connection import budget
from webapp.connection.cluster import ClusterClient
from webapp.connection.recorder import Recording, recording
from webapp.connection.roles import breaker_of, warm
from webapp.connection.sets import SETS, LocalSet, Member
from webapp.connection.urls import client_for, probe_client
from webapp.keys import SESSION, key
from webapp.live.feed import PATTERN, decode
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
from webapp.patterns.pub_sub import Joined, Message
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog
from webapp.patterns.session_store import digest
from webapp.settings import Settings, from_environ

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

_PATIENT_S = 10.0  # for a call on a busy machine
_CALL_S = 1.0  # as a request has
_SILENCE_MS = 1_000  # of a primary, until it is replaced
_HEALS_S = 5.0
_CALM = 30  # writes in a row that the new primary takes
_COPIED_MS = 50  # a primary that has just taken over may have no replica yet
_REPLACED_S = 100.0


@pytest.fixture(scope="module", params=SETS)
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSet]:
    """A set of this module's own, that its tests may harm and then mend."""
    with local_set(request.param, tmp_path_factory.mktemp(request.param)) as servers:
        yield servers


of_a_cluster = pytest.mark.parametrize("servers", ["cluster"], indirect=True)


@pytest.fixture
def client(servers: LocalSet) -> Iterator[redis.Redis]:
    with client_of(servers) as client, budget.limited_to(600):
        yield client


@contextmanager
def client_of(
    servers: LocalSet, *, timeout_s: float = _PATIENT_S
) -> Iterator[redis.Redis]:
    client = client_for(
        servers.url, role="durable", max_connections=16, timeout_s=timeout_s
    )
    try:
        yield client
    finally:
        breaker_of(client).end()
        client.close()


@pytest.fixture
def app(servers: LocalSet, instance: Path) -> Iterator[Flask]:
    environ = {"INSTANCE_PATH": str(instance), "REDIS_URL": servers.url, "DEMO": "1"}
    app = create_app(from_environ(environ))
    yield app
    app.extensions["clients"].close()
    app.extensions["catalog"].engine.dispose()


def test_every_address_answers_as_on_one_server(app: Flask, settings: Settings) -> None:
    imitated = create_app(settings)
    expected = statuses(imitated)
    wait_until(lambda: statuses(app) == expected, within_s=30)
    imitated.extensions["clients"].close()
    imitated.extensions["catalog"].engine.dispose()


def statuses(app: Flask) -> dict[str, int]:
    client = app.test_client()
    found = {}
    for route in safe(app):
        with client.get(route.path) as answer:
            found[route.path] = answer.status_code
    return found


def test_a_visitor_does_everything_once(app: Flask) -> None:
    """Signs in, edits, is limited, adds a score, is counted: one of each pattern."""
    client = signed_in_guest(app)
    edited = client.patch("/api/products/1042", json={"price_cents": 4242})
    assert edited.status_code == 200
    read = [client.get("/api/products/1042") for _ in range(2)]
    assert [answer.json["price_cents"] for answer in read] == [4242, 4242]
    assert read[1].headers["X-Cache"] == "hit"
    assert client.post("/api/categories/kitchen/invalidate", json={}).status_code == 200
    for algorithm in ("fixed-window", "sliding-window-log"):
        address, key = f"/api/throttled/{algorithm}", {"X-API-Key": algorithm}
        asked = [client.get(address, headers=key) for _ in range(101)]
        assert [a.status_code for a in asked].count(429) == 1
    score = {"player": "ada", "points": 5, "operation_id": "once"}
    board = f"/api/leaderboard/{app.extensions['scores'].week}/scores"
    added = [client.post(board, json=score) for _ in range(2)]
    assert {answer.json["score"] for answer in added} == {5}
    assert client.get("/visitors").status_code == 200
    assert client.get("/api/visitors").json["week"]["exact"] >= 1
    assert client.post("/reset").status_code == 303


def test_the_tape_names_the_node_of_each_trip(client: redis.Redis) -> None:
    with recording(Recording("test")) as own:
        client.set("rpl:node", 1)
    nodes = {trip.node for trip in own.trips if trip.commands[0].args[0] == "SET"}
    assert len(nodes) == 1
    assert nodes.pop().startswith("durable 127.0.0.1:")


def test_time_that_nodes_take_at_once_is_charged_once(
    servers: LocalSet, client: redis.Redis
) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for n in range(60):
            pipeline.get(f"scan:{n}")
        pipeline.execute()  # all connections are open
        for member in servers.members:
            if member.is_running and not member.is_sentinel:
                member.ask("CLIENT", "PAUSE", 200)
        with budget.limited_to(600) as left:
            began = time.perf_counter()
            for n in range(60):
                pipeline.get(f"scan:{n}")
            pipeline.execute()
            took_s = time.perf_counter() - began
    assert 0 < 600 - left.left_s <= took_s


def test_connections_are_opened_ahead_at_every_primary(servers: LocalSet) -> None:
    with client_of(servers) as client:
        warm(client, connections=2)
        is_cluster = isinstance(client, ClusterClient)
        nodes = client.topology.primaries if is_cluster else [client]
        assert [node.connection_pool.idle for node in nodes] == [2] * len(nodes)


def test_a_scan_beside_other_commands_finds_every_key_once(
    client: redis.Redis,
) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for n in range(60):
            pipeline.set(f"scan:{n}", n, px=60_000)
        pipeline.execute()
    found: list[bytes] = []
    cursor = 0
    for _ in range(1_000):
        with client.pipeline(transaction=False) as pipeline:
            pipeline.get("scan:59")  # of the last node, or of the first
            pipeline.get("scan:3")
            pipeline.scan(cursor, match="scan:*", count=5)
            last, first, (cursor, page) = pipeline.execute()
        assert (last, first) == (b"59", b"3")
        found += page
        if cursor == 0:
            break
    assert cursor == 0
    assert {b"scan:%d" % n for n in range(60)} == set(found)


def test_a_step_of_a_scan_is_as_long_on_a_set_as_on_one_server(
    client: redis.Redis,
) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for n in range(600):
            pipeline.set(f"step:{n}", n, px=60_000)
        pipeline.execute()
    _, page = client.scan(count=90)
    assert 0 < len(page) < 180


def test_scripts_that_are_flushed_all_the_time_are_loaded_again(
    servers: LocalSet, client: redis.Redis
) -> None:
    """A8 at 600 calls; the full count is in a slow test."""
    assert flushed_under_load(servers, client, calls=600) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_20_000_calls_outlive_script_flush(
    servers: LocalSet, client: redis.Redis
) -> None:
    assert flushed_under_load(servers, client, calls=20_000) == []


def flushed_under_load(
    servers: LocalSet, client: redis.Redis, *, calls: int
) -> list[str]:
    """The errors of limiter and lock calls while SCRIPT FLUSH runs on every node."""
    done = threading.Event()

    def flush() -> None:
        with client_of(servers) as other:
            while not done.wait(0.05):
                other.script_flush()

    flushing = threading.Thread(target=flush)
    flushing.start()
    errors: list[str] = []
    log, lock = SlidingWindowLog(limit=10, window_ms=1000), DistributedLock()
    try:
        for n in range(calls // 2):
            names = LockKeys(f"a:{{{n % 50}}}", f"b:{{{n % 50}}}", f"c:{{{n % 50}}}")
            try:
                log.decide(client, f"log:{{{n % 50}}}")
                if lease := lock.acquire(client, names):
                    lock.release(client, names, lease)
            except RedisError as error:
                errors.append(str(error))
    finally:
        done.set()
        flushing.join()
    return errors


def test_a_killed_primary_is_replaced(servers: LocalSet, client: redis.Redis) -> None:
    """B1 and B5 once: nothing that was acknowledged with WAIT 1 is lost."""
    assert kill_and_write(servers, client).lost == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_primaries_are_killed_and_each_is_replaced_in_5_s(
    servers: LocalSet, client: redis.Redis
) -> None:
    outages = []
    for _ in range(10):
        outages.append(kill_and_write(servers, client, call_s=_CALL_S))
        mend(servers)
    print([f"{outage.seconds:.2f}" for outage in outages], outages[-1].written)
    assert [outage.lost for outage in outages] == [[]] * 10
    assert [outage.elsewhere for outage in outages] == [[]] * 10
    assert max(outage.seconds for outage in outages) <= _HEALS_S


@of_a_cluster
def test_a_listener_misses_nothing_that_nodes_did_not_pass_on(
    servers: LocalSet, client: ClusterClient
) -> None:
    """H9: it stays at a node that no longer has the stream, and that was stopped."""
    mend(servers)
    node = primary_of(servers, client, STREAM)
    with (
        closing(probe_client(servers.url)) as own,
        closing(PATTERN.listen(own, STREAM, decode=decode)) as listener,
    ):
        wait_until(lambda: isinstance(next(listener), Joined))
        hand_over(servers, node)
        wait_until(lambda: not leads(node))
        told = [publish(client, 0)]
        ids = [wait_until(lambda: next(listener)).id]
        allow_silence(servers, ms=_SILENCE_MS)
        with stopped(node):
            until = time.monotonic() + 3 * _SILENCE_MS / 1000
            while time.monotonic() < until:  # the others give its connections up
                told.append(publish(client, 0))
                time.sleep(0.005)
        mend(servers)
        told.append(publish(client, 0))
        while ids[-1] != told[-1]:
            heard = wait_until(lambda: next(listener))
            ids += [heard.id] if isinstance(heard, Message) else []
    assert ids == told


@contextmanager
def stopped(member: Member) -> Iterator[None]:
    assert member.child is not None
    member.child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        member.child.send_signal(signal.SIGCONT)


def leads(member: Member) -> bool:
    return bool(member.ask("ROLE")[0] == b"master")


@of_a_cluster
def test_a_shard_without_a_server_fails_its_own_keys_alone(
    servers: LocalSet, client: redis.Redis, app: Flask
) -> None:
    """B5: whose session lies there is told 503; it heals when the server is back."""
    mend(servers)
    guests = [signed_in_guest(app) for _ in range(12)]
    found = {digest(guest.get_cookie("sid").value): guest for guest in guests}
    keys_of = {key("rpl", SESSION, member): guest for member, guest in found.items()}
    owner = _owners(client)
    assert {asked.get("/api/session").status_code for asked in guests} == {200}
    victim = primary_of(servers, client, next(iter(keys_of)))
    gone = {name for name in keys_of if owner(name) == victim.port}
    for member in servers.members:
        if member is victim or victim.port in following(member):
            member.kill()
    wait_until(
        lambda: {name for name, asked in keys_of.items() if is_refused(asked)} == gone
    )
    mend(servers)
    wait_until(lambda: not any(map(is_refused, guests)))


def signed_in_guest(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    assert client.post("/api/session/guest").status_code == 200
    return client


def is_refused(asked: FlaskClient) -> bool:
    status = asked.get("/api/session").status_code
    assert status in (200, 503)
    return status == 503


def following(member: Member) -> list[int]:
    """The port of its primary, or none."""
    role = member.ask("ROLE")
    return [role[2]] if role[0] == b"slave" else []


@dataclass
class Outage:
    """What a client saw that wrote one key after the other while a primary died."""

    seconds: float = 0.0  # from the kill to the last refusal
    written: int = 0  # acknowledged by a replica too
    lost: list[str] = field(default_factory=list)  # of these
    elsewhere: list[str] = field(default_factory=list)  # errors of other primaries


def kill_and_write(
    servers: LocalSet, client: redis.Redis, *, call_s: float = _PATIENT_S
) -> Outage:
    """Kill a primary with -9 between two writes, and go on until it is replaced."""
    outage, ledger, numbers = Outage(), list[str](), count()
    for _ in range(200):
        ledger += _written(client, f"w:{next(numbers)}", [], call_s)
    victim, owners = primary_of(servers, client, "w:0"), _owners(client)
    allow_silence(servers, ms=_SILENCE_MS)
    killing = threading.Timer(0.1, victim.kill)
    killing.start()
    began, calm = time.monotonic(), 0
    while calm < _CALM:
        assert time.monotonic() - began < _REPLACED_S, "no replica took over"
        name, errors = f"w:{next(numbers)}", list[str]()
        ledger += _written(client, name, errors, call_s)
        is_victims = owners is None or owners(name) == victim.port
        if errors and is_victims:
            outage.seconds, calm = time.monotonic() - began, 0
            time.sleep(0.01)
        elif errors:
            outage.elsewhere += errors
        elif is_victims and not victim.is_running:
            calm += 1
    killing.join()
    outage.written = len(ledger)
    outage.lost = [name for name in ledger if client.get(name) is None]
    return outage


def _written(
    client: redis.Redis, name: str, errors: list[str], call_s: float
) -> list[str]:
    """The name, if a replica has it too: WAIT says so on the same connection."""
    try:
        with budget.limited_to(call_s), client.pipeline(transaction=False) as pipeline:
            pipeline.set(name, "1", px=600_000)
            pipeline.execute_command("WAIT", 1, _COPIED_MS)
            _, copies = pipeline.execute()
    except RedisError as error:
        errors.append(str(error))
        return []
    return [name] if copies else []


def _owners(client: redis.Redis) -> Any:
    """Which port had a key, before anything was killed; None: one has all."""
    if not isinstance(client, ClusterClient):
        return None
    owners = list(client.topology.layout.owners)
    return lambda name: owners[key_slot(name.encode())][1]


def primary_of(servers: LocalSet, client: redis.Redis, key: str) -> Member:
    owners = _owners(client)
    if owners is None:
        info: Any = client.info("server")
        port = info["tcp_port"]
    else:
        port = owners(key)
    return next(member for member in servers.members if member.port == port)


def mend(servers: LocalSet) -> None:
    for member in servers.members:
        if not member.is_running:
            member.start()
    servers.await_formed()
    allow_silence(servers, ms=_SILENCE_MS)


# Their tests have sets of their own, or need no server.
_WITHOUT_THE_SET = ("modes", "failover", "launcher", "live", "packaging")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", SETS)
def test_the_tests_of_pages_and_servers_pass_on_a_set(kind: str) -> None:
    """B6: pages, the API, processes and workers, with a set for the imitations."""
    asked = ["tests/pages", "tests/server", "-q", "-m", "not slow", "-n", "auto"]
    asked += [f"--ignore=tests/server/test_{name}.py" for name in _WITHOUT_THE_SET]
    command = [sys.executable, "-m", "pytest", *asked, "--redis-set", kind]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


@of_a_cluster
def test_slots_that_move_under_load_are_followed(
    servers: LocalSet, client: redis.Redis
) -> None:
    """B4 at 20 slots; 1,000 of them in a slow test."""
    assert reshard_under_load(servers, client, slots=20).errors == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@of_a_cluster
def test_a_thousand_slots_move_under_load(
    servers: LocalSet, client: redis.Redis
) -> None:
    moved = reshard_under_load(
        servers, client, slots=1_000, least=50_000, call_s=_CALL_S
    )
    slow = sum(seconds > 0.25 for seconds in moved.took)
    print(len(moved.took), "calls,", slow, "slower than 250 ms", max(moved.took))
    assert moved.errors == []
    assert slow <= len(moved.took) / 1000


@dataclass
class Moved:
    took: list[float] = field(default_factory=list)  # seconds of each call
    errors: list[str] = field(default_factory=list)


def reshard_under_load(
    servers: LocalSet,
    client: ClusterClient,
    *,
    slots: int,
    least: int = 0,
    call_s: float = _PATIENT_S,
) -> Moved:
    """Move slots with keys in them from one primary to another and back."""
    moved, done = Moved(), threading.Event()
    source, target = client.topology.layout.primaries[:2]
    owners = client.topology.layout.owners
    numbers = [n for n, owner in enumerate(owners) if owner == source][:slots]
    names = _names_in(set(numbers))
    loads = [
        threading.Thread(
            target=_call, args=(client, names, moved, done, least // 2, call_s)
        )
        for _ in range(2)
    ]
    for load in loads:
        load.start()
    try:
        for slot in numbers:
            _move(servers, slot, source, target)
        for slot in numbers:
            _move(servers, slot, target, source)
    finally:
        done.set()
        for load in loads:
            load.join()
    return moved


def _names_in(slots: set[int]) -> list[str]:
    """Two groups in each slot."""
    found: dict[int, list[str]] = {slot: [] for slot in slots}
    for n in count():
        slot = key_slot(str(n).encode())
        if slot in found and len(found[slot]) < 2:
            found[slot].append(str(n))
            if n % 64 == 0 and all(len(names) == 2 for names in found.values()):
                break
        if n > 3_000_000:
            break
    return [name for names in found.values() for name in names]


def _call(
    client: ClusterClient,
    names: list[str],
    moved: Moved,
    done: threading.Event,
    least: int,
    call_s: float,
) -> None:
    """Scripts, MULTI, pipelines over slots, and plain commands, until the move ends."""
    log, made = SlidingWindowLog(limit=5, window_ms=100), 0
    while not done.is_set() or made < least:
        name = names[made % len(names)]
        other = names[(made * 7) % len(names)]
        began = time.monotonic()
        try:
            with budget.limited_to(call_s):
                kind = made % 4
                if kind == 0:
                    log.decide(client, f"log:{{{name}}}")
                elif kind == 1:
                    with client.pipeline(transaction=True) as multi:
                        multi.incr(f"a:{{{name}}}")
                        multi.incr(f"b:{{{name}}}")
                        multi.execute()
                elif kind == 2:
                    with client.pipeline(transaction=False) as pipeline:
                        pipeline.get(f"a:{{{name}}}")
                        pipeline.get(f"a:{{{other}}}")
                        pipeline.execute()
                else:
                    client.set(f"c:{{{name}}}", made)
        except RedisError as error:
            moved.errors.append(str(error))
        moved.took.append(time.monotonic() - began)
        made += 1


def _move(servers: LocalSet, slot: int, source: Any, target: Any) -> None:
    """As redis-cli --cluster reshard does it, key by key."""
    by_port = {member.port: member for member in servers.members}
    with by_port[source[1]].client() as old, by_port[target[1]].client() as new:
        ids = [
            str(_text(node.execute_command("CLUSTER", "MYID"))) for node in (old, new)
        ]
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            old.execute_command(
                "MIGRATE", target[0], target[1], "", 0, 1000, "KEYS", *keys
            )
        for node in (new, old):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
