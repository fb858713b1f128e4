"""The claims of Redlock, on five fakeredis servers and on five real ones."""

from collections.abc import Iterator

import pytest
import redis

from tests.conftest import wait_until
from webapp import keys
from webapp.connection import urls
from webapp.connection.recorder import Recording
from webapp.connection.roles import breaker_of
from webapp.connection.urls import client_for
from webapp.experiments import redlock as experiments
from webapp.patterns.distributed_lock import LockKeys
from webapp.patterns.redlock import Redlock

LOCK = Redlock(ttl_ms=10_000)
NAMES = LockKeys(
    *(keys.key("rpl", f, "report") for f in (keys.LOCK, keys.FENCE, keys.WAKE))
)
URLS = [f"fake://redlock/{n}" for n in range(5)]


@pytest.fixture
def fakes() -> Iterator[list[redis.Redis]]:
    clients = [client_for(url, role="node", max_connections=4) for url in URLS]
    for client in clients:
        client.flushall()
    yield clients
    for url, client in zip(URLS, clients, strict=True):
        urls.fake_server(url).connected = True
        breaker_of(client).end()
        client.connection_pool.disconnect()


@pytest.fixture
def servers() -> Iterator[list[experiments.Node]]:
    with experiments.nodes(5) as five:
        yield five


def lose(*numbers: int) -> None:
    for n in numbers:
        urls.fake_server(URLS[n]).connected = False


def held_on(clients: list[redis.Redis]) -> int:
    return sum(client.exists(NAMES.lock) for client in clients)


def test_all_servers_hold_the_same_token(fakes: list[redis.Redis]) -> None:
    attempt = LOCK.acquire(fakes, NAMES)
    assert attempt.granted == 5
    assert {client.get(NAMES.lock) for client in fakes} == {attempt.token.encode()}


def test_a_second_holder_is_refused_and_leaves_the_first_alone(
    fakes: list[redis.Redis],
) -> None:
    first = LOCK.acquire(fakes, NAMES)
    assert not LOCK.acquire(fakes, NAMES).held
    assert {client.get(NAMES.lock) for client in fakes} == {first.token.encode()}


def test_a_release_frees_all_servers(fakes: list[redis.Redis]) -> None:
    attempt = LOCK.acquire(fakes, NAMES)
    assert LOCK.release(fakes, NAMES, token=attempt.token) == 5
    assert held_on(fakes) == 0


def test_what_is_left_of_the_lease_is_less_drift_and_asking(
    fakes: list[redis.Redis],
) -> None:
    assert 8_000 < LOCK.acquire(fakes, NAMES).validity_ms <= 9_898


def test_asking_that_took_the_lease_grants_nothing(fakes: list[redis.Redis]) -> None:
    attempt = Redlock(ttl_ms=2).acquire(fakes, NAMES)
    assert not attempt.held


def test_without_a_minority_it_is_held(fakes: list[redis.Redis]) -> None:
    lose(3, 4)
    attempt = LOCK.acquire(fakes, NAMES)
    assert (attempt.held, attempt.granted) == (True, 3)
    assert [bool(grant.error) for grant in attempt.grants] == [False] * 3 + [True] * 2


def test_without_a_majority_it_is_refused_and_undone(fakes: list[redis.Redis]) -> None:
    lose(2, 3, 4)
    attempt = LOCK.acquire(fakes, NAMES)
    assert (attempt.held, attempt.granted) == (False, 2)
    assert held_on(fakes[:2]) == 0


def test_without_any_server_nobody_holds_it(fakes: list[redis.Redis]) -> None:
    lose(0, 1, 2, 3, 4)
    assert not LOCK.wait(fakes, NAMES, for_ms=100).held


def test_who_waits_gets_it_after_the_release(fakes: list[redis.Redis]) -> None:
    for client in fakes[:3]:
        client.set(NAMES.lock, "another", px=500)
    assert LOCK.wait(fakes, NAMES, for_ms=20_000).held


def test_each_server_is_asked_once_a_step(
    fakes: list[redis.Redis], recorded: Recording
) -> None:
    LOCK.acquire(fakes, NAMES)
    recorded.trips.clear()
    LOCK.acquire(fakes, NAMES)
    sent = [str(c.args[0]) for trip in recorded.trips for c in trip.commands]
    names = [name for name in sent if name in ("SET", "EVALSHA")]
    assert names == ["SET"] * 5 + ["EVALSHA"] * 5  # asked, and undone


def test_a_server_that_is_stopped_costs_its_timeout_and_not_the_lease(
    servers: list[experiments.Node],
) -> None:
    servers[0].stop()
    attempt = LOCK.acquire([node.client for node in servers], NAMES)
    assert attempt.granted == 4
    assert attempt.validity_ms > 8_000


def test_a_server_that_was_killed_and_came_back_grants_again(
    servers: list[experiments.Node],
) -> None:
    clients = [node.client for node in servers]
    servers[4].kill()
    token = LOCK.acquire(clients, NAMES).token
    LOCK.release(clients, NAMES, token=token)
    servers[4].start()
    wait_until(lambda: LOCK.acquire([clients[4]], NAMES).granted)
