"""Worker processes on a real server: killed, stopped, restarted; nothing is lost."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import ROOT, RedisProcess, wait_until
from webapp.connection.urls import probe_client
from webapp.patterns.streams.bounded_stream import BoundedStream
from webapp.patterns.streams.consumer_group import ConsumerGroup
from webapp.shop import orders as shop
from webapp.shop import pace
from webapp.shop.orders import ANALYTICS, BILLING, Item, Order, Orders
from webapp.shop.pace import Pace
from webapp.workers.fleet import Fleet
from webapp.workers.supervisor import Supervisor

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

ORDER = Order((Item(product_id=7, quantity=2, price_cents=150),))
QUICK = Pace(orders_per_min=0, work_ms=0, fail_percent=0, reclaim_ms=500)
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(autouse=True)
def no_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producers of these tests are faster than any shop's."""
    monkeypatch.setattr(shop, "STREAM", BoundedStream(cap=10**9))


@dataclass
class Crew:
    """A pipeline with workers as real processes."""

    instance: Path
    redis_url: str
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = probe_client(self.redis_url)
        self.orders = Orders(self.client, "rpl")

    @property
    def environ(self) -> dict[str, str]:
        own = {"INSTANCE_PATH": str(self.instance), "DEMO": "1"}
        return os.environ | own | {"REDIS_URL": self.redis_url}

    @property
    def log(self) -> Path:
        return self.instance / "workers.log"

    def start(self, *names: str, group: str = BILLING) -> None:
        for name in names:
            command = [sys.executable, "-m", "webapp", "worker"]
            self.started_at[name] = time.monotonic()
            with self.log.open("ab") as log:
                self.workers[name] = subprocess.Popen(
                    [*command, "--group", group, "--name", name],
                    cwd=ROOT,
                    env=self.environ,
                    stderr=log,
                )

    def kill(self, name: str) -> None:
        self.workers[name].kill()
        self.workers[name].wait()

    def stop(self, name: str) -> float:
        """Told to end, it ends well; after so many seconds."""
        began = time.monotonic()
        self.workers[name].terminate()
        assert self.workers[name].wait(20) == 0
        return time.monotonic() - began

    def place(self, count: int) -> list[str]:
        return [
            self.orders.place(ORDER, once=secrets.token_hex(8)).id for _ in range(count)
        ]

    def billed(self, group: str = BILLING) -> int:
        return int(self.client.hget(self.orders.totals(group), "orders") or 0)

    def pending(self, group: str = BILLING) -> list[Any]:
        found: Any = self.client.xpending_range(
            self.orders.stream, group, "-", "+", 10_000
        )
        return found

    def pending_of(self, name: str) -> Callable[[], bool]:
        return lambda: any(h["consumer"] == name.encode() for h in self._held())

    def has_joined(self, name: str) -> bool:
        """Whether the process has read, and not only one before it of that name."""
        age_ms = (time.monotonic() - self.started_at[name]) * 1000
        try:
            found = self.client.xinfo_consumers(self.orders.stream, BILLING)
        except redis.ResponseError:
            return False
        return any(c["name"] == name.encode() and c["idle"] < age_ms for c in found)

    def _held(self, group: str = BILLING) -> list[Any]:
        try:
            return self.pending(group)
        except redis.ResponseError:  # nobody has made the group yet
            return []

    def is_done(self, count: int, group: str = BILLING) -> bool:
        return self.billed(group) >= count and not self._held(group)

    def assert_each_once(self, ids: Sequence[str], *, within_s: float = 30) -> None:
        """Each order is billed, none twice, and nothing is left."""
        wait_until(lambda: self.is_done(len(ids)), within_s=within_s)
        assert self.billed() == len(ids)
        for at in range(0, len(ids), 1000):
            part = [self.orders.outcome(BILLING, id) for id in ids[at : at + 1000]]
            assert None not in self.client.mget(part)
        cents = int(self.client.hget(self.orders.totals(BILLING), "cents") or 0)
        assert cents == 300 * len(ids)

    def end(self) -> None:
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
        self.client.close()


@contextmanager
def crew(instance: Path, redis_url: str, now: Pace = QUICK) -> Iterator[Crew]:
    instance.mkdir(exist_ok=True)
    pace.write(instance, now)
    own = Crew(instance, redis_url)
    try:
        yield own
    finally:
        own.end()


@pytest.fixture
def team(tmp_path: Path, redis_url: str) -> Iterator[Crew]:
    with crew(tmp_path / "instance", redis_url) as own:
        yield own


def test_a_worker_bills_what_comes_and_leaves_no_name(team: Crew) -> None:
    ids = team.place(20)
    team.start("w1")
    team.assert_each_once(ids)
    team.stop("w1")
    assert team.client.xinfo_consumers(team.orders.stream, BILLING) == []


def test_a_worker_without_a_name_is_called_by_its_host_and_process(team: Crew) -> None:
    command = [sys.executable, "-m", "webapp", "worker"]
    team.workers["own"] = subprocess.Popen(command, cwd=ROOT, env=team.environ)
    team.assert_each_once(team.place(1))
    [consumer] = team.client.xinfo_consumers(team.orders.stream, BILLING)
    assert consumer["name"].endswith(b"-%d" % team.workers["own"].pid)
    team.stop("own")


@pytest.mark.parametrize("wrong", [["--name", "a b"], ["--name", ""], ["--group", "x"]])
def test_a_worker_that_cannot_be_says_so_in_a_line(
    team: Crew, wrong: list[str]
) -> None:
    command = [sys.executable, "-m", "webapp", "worker", *wrong]
    ended = subprocess.run(command, cwd=ROOT, env=team.environ, capture_output=True)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_second_group_reads_the_same_stream_at_its_own_pace(team: Crew) -> None:
    ids = team.place(60)
    team.start("w1")
    team.assert_each_once(ids)
    assert team.billed(ANALYTICS) == 0
    team.start("t1", group=ANALYTICS)
    wait_until(lambda: team.is_done(60, ANALYTICS), within_s=30)
    sold = team.client.hget(team.orders.totals(ANALYTICS), "product:7")
    assert sold == b"120"


# C1: kills


def kill_them_all_the_time(
    team: Crew, orders: int, *, every_s: float, workers: int = 4
) -> int:
    """Again and again one of the workers is killed and started; how many kills."""
    names = [f"w{n}" for n in range(1, workers + 1)]
    team.start(*names)
    kills, unlucky = 0, cycle(names)
    with ThreadPoolExecutor(1) as pool:
        placing = pool.submit(team.place, orders)
        while not (placing.done() and team.is_done(orders)):
            time.sleep(every_s)
            name = next(unlucky)
            team.kill(name)
            team.start(name)
            kills += 1
        ids = placing.result()
    team.assert_each_once(ids)
    return kills


def test_killed_workers_lose_and_double_nothing(team: Crew) -> None:
    """C1 with 1,500 orders, two workers and a kill every half second."""
    assert kill_them_all_the_time(team, 1_500, every_s=0.5, workers=2)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_hundred_thousand_orders_survive_a_kill_every_two_seconds(
    team: Crew,
) -> None:
    """C1."""
    began = time.monotonic()
    kills = kill_them_all_the_time(team, 100_000, every_s=2.0)
    took_s = time.monotonic() - began
    print(f"100,000 orders, {kills} kills, {took_s:.0f} s: 0 lost, 0 doubled")


def test_what_a_killed_worker_had_is_claimed_by_another(team: Crew) -> None:
    """C1: killed in the middle of an order, for sure."""
    pace.write(team.instance, Pace(work_ms=4_000, fail_percent=0, reclaim_ms=500))
    ids = team.place(1)
    team.start("w1")
    wait_until(team.pending_of("w1"), within_s=20)
    team.kill("w1")
    pace.write(team.instance, QUICK)
    team.start("w2")
    team.assert_each_once(ids)
    [(_, claim)] = team.client.xrange(team.orders.claims)
    assert (claim[b"from"], claim[b"by"]) == (b"w1", b"w2")


# C2: stopped past the time to reclaim


def stop_them_in_the_middle(team: Crew, rounds: int) -> None:
    pace.write(team.instance, Pace(work_ms=300, fail_percent=0, reclaim_ms=60_000))
    team.start("w1")
    others = ConsumerGroup(idle_ms=0)
    ids = []
    for _ in range(rounds):
        ids += team.place(1)
        wait_until(team.pending_of("w1"), within_s=20)
        team.workers["w1"].send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, team.workers["w1"].pid, os.WSTOPPED)
        names = {"group": BILLING, "consumer": "w2"}
        taken = others.claim(team.client, team.orders.stream, **names)
        for order in taken.deliveries:
            assert others.finish(
                team.client,
                team.orders.stream,
                order,
                group=BILLING,
                outcome=team.orders.outcome(BILLING, order.origin),
                totals=team.orders.totals(BILLING),
                text="w2 0 2",
                add={"orders": 1, "cents": 300},
            )
        team.workers["w1"].send_signal(signal.SIGCONT)
    ids += team.place(1)  # its own: so it has finished all before, too late
    team.assert_each_once(ids)


def test_a_stopped_worker_finishes_too_late_and_changes_nothing(team: Crew) -> None:
    """C2 with 3 rounds; with 200 in `make test-all`."""
    stop_them_in_the_middle(team, 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_stopped_workers_change_nothing(team: Crew) -> None:
    """C2."""
    stop_them_in_the_middle(team, 200)


# C3: poison

POISON = [b"", b"\xff\xfe", b"{", b'{"items": 7}', b"null", b"[" * 5_000]


def poison_some(
    team: Crew,
    orders: int,
    *,
    every: int,
    workers: int = 4,
    per_s: int = 10_000,
) -> list[str]:
    """One of so many is poison, and one of those is huge; the ids of the others."""
    join(team, workers)
    good, bad, began = [], 0, time.monotonic()
    for n in range(1, orders + 1):
        while time.monotonic() < began + n / per_s:
            time.sleep(0.001)
        if every and n % every == 0:
            payload = POISON[bad % len(POISON)] if bad else b"x" * 10_000_000
            team.client.xadd(team.orders.stream, {"payload": payload})
            bad += 1
        else:
            good += team.place(1)
    wait_until(lambda: team.client.xlen(team.orders.dead) == bad, within_s=300)
    team.assert_each_once(good, within_s=300)
    letters = team.orders.letters(10_000)
    assert len(letters) == bad
    assert all(letter.reason and letter.deliveries == 5 for letter in letters)
    return good


def join(team: Crew, workers: int) -> None:
    """Returns once all of them read."""
    pace.write(team.instance, Pace(work_ms=0, fail_percent=0, reclaim_ms=50))
    names = [f"w{n}" for n in range(1, workers + 1)]
    team.start(*names)
    wait_until(lambda: all(map(team.has_joined, names)), within_s=30)


def latencies(team: Crew, ids: Sequence[str]) -> list[int]:
    """The ms from an order's arrival until it was billed, sorted."""
    took = []
    for at in range(0, len(ids), 1000):
        part = ids[at : at + 1000]
        found: Any = team.client.mget([team.orders.outcome(BILLING, i) for i in part])
        ends = [int(text.split()[-1]) for text in found]
        took += [e - int(i.partition("-")[0]) for i, e in zip(part, ends, strict=True)]
    return sorted(took)


def test_poison_goes_to_the_dead_letters_and_the_others_flow(team: Crew) -> None:
    """C3 with 5 of 250 orders; with 1,000 of 100,000 in `make test-all`."""
    poison_some(team, 250, every=50, workers=2)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_thousand_poison_orders_among_a_hundred_thousand(
    team: Crew, tmp_path: Path, durable_process: RedisProcess
) -> None:
    """C3; beside it runs a pipeline without poison, with the same orders a second."""
    with (
        crew(tmp_path / "clean", durable_process.url) as clean,
        ThreadPoolExecutor(1) as pool,
    ):
        beside = pool.submit(poison_some, clean, 99_000, every=0, per_s=396)
        among_ms = p99(
            latencies(team, poison_some(team, 100_000, every=100, per_s=400))
        )
        clean_ms = p99(latencies(clean, beside.result()))
    print(
        f"99,000 good orders: p99 {among_ms} ms beside 1,000 poison, "
        f"{clean_ms} ms without"
    )
    assert among_ms <= 2 * clean_ms


def p99(took: Sequence[int]) -> int:
    return took[int(len(took) * 0.99)]


# C6, C7: idle, and told to stop


def test_an_idle_worker_complains_of_nothing(team: Crew) -> None:
    """C6 for 2 s; for 60 s in `make test-all`."""
    idle(team, 2)


@pytest.mark.slow
def test_a_worker_that_is_idle_for_a_minute_complains_of_nothing(team: Crew) -> None:
    """C6."""
    idle(team, 60)


def idle(team: Crew, seconds: float) -> None:
    team.start("w1")
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, within_s=seconds + 5)
    team.assert_each_once(team.place(1))
    team.stop("w1")
    assert team.log.read_text() == ""


def restart_in_load(team: Crew, restarts: int) -> float:
    """The longest that one took to end, in seconds."""
    names = ["w1", "w2"]
    team.start(*names)
    ids, longest_s, turn = [], 0.0, cycle(names)
    for _ in range(restarts):
        name = next(turn)
        ids += team.place(50)
        wait_until(lambda name=name: team.has_joined(name), within_s=20)
        longest_s = max(longest_s, team.stop(name))
        team.start(name)
    team.assert_each_once(ids)
    return longest_s


def test_workers_that_are_started_again_in_load_lose_nothing(team: Crew) -> None:
    """C7 with 2 restarts; with 50 in `make test-all`."""
    restart_in_load(team, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_restarts_in_load_lose_nothing(team: Crew) -> None:
    """C7."""
    longest_s = restart_in_load(team, 50)
    print(f"50 restarts in load: the slowest end took {longest_s:.2f} s")
    assert longest_s <= 5


def test_a_worker_in_the_middle_of_an_order_ends_and_leaves_it(team: Crew) -> None:
    """C7."""
    pace.write(team.instance, Pace(work_ms=4_000, fail_percent=0))
    team.place(1)
    team.start("w1")
    wait_until(team.pending_of("w1"), within_s=20)
    team.stop("w1")
    assert [held["consumer"] for held in team.pending()] == [b"w1"]
    pace.write(team.instance, QUICK)
    team.start("w1")
    wait_until(lambda: team.is_done(1), within_s=30)


# A2, A8, A13: the server


@pytest.mark.one_server("it is killed; of sets, test_failover has it")
def test_workers_wait_for_a_server_that_is_away(
    team: Crew, redis_process: RedisProcess
) -> None:
    team.start("w1")
    wait_until(lambda: team.has_joined("w1"), within_s=20)
    redis_process.kill()
    wait_until(lambda: "waits for Redis" in team.log.read_text(), within_s=20)
    redis_process.start()
    team.assert_each_once(team.place(5))


def test_a_group_that_was_flushed_is_made_again(team: Crew) -> None:
    team.start("w1")
    team.assert_each_once(team.place(5))
    team.client.flushall()
    team.assert_each_once(team.place(5))


def crash(server: RedisProcess, team: Crew, orders: int, kills: int) -> None:
    """The producer writes down only what was acknowledged, and then tries again."""
    team.start("w1", "w2")
    ledger: dict[str, str] = {}

    def produce() -> None:
        for n in range(orders):
            while f"k{n}" not in ledger:
                try:
                    ledger[f"k{n}"] = team.orders.place(ORDER, once=f"k{n}").id
                except redis.RedisError:
                    time.sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(produce)
        for kill in range(1, kills + 1):
            due = orders * kill // (kills + 1)
            wait_until(lambda due=due: len(ledger) >= due, within_s=600)
            server.kill()
            server.start()
        producing.result()
    assert len(set(ledger.values())) == orders
    team.assert_each_once(list(ledger.values()), within_s=600)


@pytest.fixture
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A server that writes each command to disk before it answers."""
    server = RedisProcess(tmp_path_factory.mktemp("lasting"), options=ALWAYS)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def lasting_team(tmp_path: Path, lasting: RedisProcess) -> Iterator[Crew]:
    with crew(tmp_path / "instance", lasting.url) as own:
        yield own


@pytest.mark.one_server("it is killed, and started with what it has on disk")
def test_what_was_acknowledged_outlives_the_server(
    lasting: RedisProcess, lasting_team: Crew
) -> None:
    """A2 with 400 orders and 2 kills."""
    crash(lasting, lasting_team, 400, 2)


@pytest.mark.one_server("it is killed, and started with what it has on disk")
@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_a_hundred_thousand_orders_outlive_twenty_crashes(
    lasting: RedisProcess, lasting_team: Crew
) -> None:
    """A2."""
    began = time.monotonic()
    crash(lasting, lasting_team, 100_000, 20)
    took_s = time.monotonic() - began
    print(f"100,000 orders, 20 crashes, {took_s:.0f} s: 0 lost, 0 doubled")


@pytest.mark.one_server("it is killed, and started with what it has on disk")
@pytest.mark.slow
def test_a_server_that_syncs_every_second_loses_two_seconds_at_most(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A2 with everysec: what was acknowledged and is not there is counted."""
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    server = RedisProcess(tmp_path_factory.mktemp("everysec"), options=options)
    server.start()
    lost = []
    with crew(tmp_path / "instance", server.url) as own:
        for _ in range(5):
            ledger, until = {}, time.monotonic() + 3
            while time.monotonic() < until:
                ledger[own.orders.place(ORDER, once=secrets.token_hex(8)).id] = (
                    time.monotonic()
                )
            server.kill()
            killed_at = time.monotonic()
            server.start()
            wait_until(lambda: _answers(own), within_s=20)
            kept = {id.decode() for id, _ in own.client.xrange(own.orders.stream)}
            lost += [killed_at - at for id, at in ledger.items() if id not in kept]
    server.kill()
    print(f"everysec, 5 crashes: {len(lost)} acknowledged orders lost")
    assert all(age_s <= 2 for age_s in lost)


def _answers(team: Crew) -> bool:
    try:
        return bool(team.client.ping())
    except redis.RedisError:
        return False


def test_workers_survive_a_server_that_forgets_its_scripts(team: Crew) -> None:
    """A8."""
    team.start("w1")
    wait_until(lambda: team.has_joined("w1"), within_s=20)
    ids = []
    for _ in range(10):
        team.client.script_flush()
        ids += team.place(5)
    team.assert_each_once(ids)
    assert team.log.read_text() == ""


# The supervisor


@pytest.fixture
def supervised(team: Crew) -> Iterator[tuple[Fleet, Supervisor]]:
    fleet = Fleet(team.instance)
    fleet.add()
    supervisor = Supervisor(fleet, team.environ)
    yield fleet, supervisor
    for child in supervisor.processes:
        child.kill()
        child.wait()


def looking(supervisor: Supervisor, holds: Callable[[], Any]) -> Any:
    """As the launcher does, until it holds."""

    def look() -> Any:
        supervisor.look_after()
        return holds()

    return wait_until(look, within_s=20)


def running(supervisor: Supervisor) -> list[int]:
    return [child.pid for child in supervisor.processes if child.poll() is None]


def test_a_killed_worker_is_started_again_and_works(
    team: Crew, supervised: tuple[Fleet, Supervisor]
) -> None:
    _, supervisor = supervised
    [first] = looking(supervisor, lambda: running(supervisor))
    os.kill(first, signal.SIGKILL)
    looking(supervisor, lambda: running(supervisor) not in ([], [first]))
    ids = team.place(3)
    looking(supervisor, lambda: team.is_done(3))
    team.assert_each_once(ids)


def test_a_worker_that_a_page_has_killed_stays_down_until_it_is_restarted(
    supervised: tuple[Fleet, Supervisor],
) -> None:
    fleet, supervisor = supervised
    looking(supervisor, lambda: running(supervisor))
    assert fleet.kill("worker-1")
    looking(supervisor, lambda: not running(supervisor))
    for _ in range(3):
        supervisor.look_after()
    assert running(supervisor) == []
    assert fleet.restart("worker-1")
    looking(supervisor, lambda: running(supervisor))


def test_workers_join_and_leave(supervised: tuple[Fleet, Supervisor]) -> None:
    fleet, supervisor = supervised
    assert fleet.add() == "worker-2"
    looking(supervisor, lambda: len(running(supervisor)) == 2)
    assert fleet.remove() == "worker-2"
    looking(supervisor, lambda: len(running(supervisor)) == 1)
