"""Redlock while its five servers are killed, stopped, slow, and come back empty."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest
import redis

from tests.conftest import wait_until
from tests.patterns.test_redlock import NAMES
from webapp.connection.recorder import Recording, recording
from webapp.connection.roles import breaker_of
from webapp.connection.urls import client_for
from webapp.experiments.redlock import Node, nodes
from webapp.patterns.redlock import Attempt, Redlock
from webapp.scripts import preload

LOCK = Redlock(ttl_ms=1_000)
LEASE_S = LOCK.ttl_ms / 1000
VALID_MS = LOCK.ttl_ms * (1 - LOCK.drift) - 2  # if asking took no time
SLOW_MS = 300
TIMEOUT_S = 0.4  # one that is slow answers in time, one that is stopped does not
CONTENDERS = 3


def plain(node: Node) -> redis.Redis:
    """A client that no breaker guards."""
    return redis.Redis(unix_socket_path=str(node.server.socket))


def teach(node: Node) -> None:
    """All scripts, so that none has to be sent twice."""
    with plain(node) as client:
        preload(client)


class Faults:
    """Changes what is wrong with the servers; three of five are up at any time."""

    def __init__(self, five: Sequence[Node], random: Random) -> None:
        self.up, self._random = list(five), random
        self._stopped: list[Node] = []
        self._resting: list[tuple[float, Node]] = []  # until when, and who

    def change(self) -> None:
        self._let_back(lambda: self._random.random() < 0.5)
        away = len(self._stopped) + len(self._resting)
        for _ in range(self._random.randint(0, 2 - away)):
            node = self.up.pop(self._random.randrange(len(self.up)))
            self._random.choice([self._stop, self._kill, self._kill])(node)
        if self._random.random() < 0.3:
            with plain(self._random.choice(self.up)) as client:
                client.client_pause(SLOW_MS)

    def all_are_back(self) -> bool:
        self._let_back(lambda: True)
        return len(self.up) == 5

    def _stop(self, node: Node) -> None:
        node.stop()
        self._stopped.append(node)

    def _kill(self, node: Node) -> None:
        node.kill()
        self._resting.append((time.monotonic() + LEASE_S, node))

    def _let_back(self, goes_on: Callable[[], bool]) -> None:
        """One that was killed is empty, and stays out until what it granted ended."""
        for node in [node for node in self._stopped if goes_on()]:
            node.go_on()
            self._stopped.remove(node)
            self.up.append(node)
        for rested_at, node in list(self._resting):
            if rested_at <= time.monotonic():
                node.start()
                teach(node)
                self._resting.remove((rested_at, node))
                self.up.append(node)


@dataclass
class Claim:
    """What a holder believes, by the monotonic clock."""

    token: str
    start: float
    end: float


class Trial:
    """Contenders for one lock, each time with clients that know of no fault yet."""

    def __init__(self, five: Sequence[Node]) -> None:
        self.five = five
        self.claims: list[Claim] = []
        self.refused = 0

    def contend(self, count: int) -> list[Claim]:
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(lambda _: self._try(), range(count)))
        held = [claim for claim in found if claim]
        self.claims += held
        self.refused += count - len(held)
        return held

    def release(self, claim: Claim) -> None:
        claim.end = min(claim.end, time.monotonic())
        with self._clients() as clients:
            LOCK.release(clients, NAMES, token=claim.token)

    def _try(self) -> Claim | None:
        with self._clients() as clients, recording(Recording("try")) as own:
            began = time.monotonic()
            attempt = LOCK.acquire(clients, NAMES)
            ended = time.monotonic()
        if attempt.held:
            _check_validity(attempt, ended - began)
            return Claim(attempt.token, ended, began + VALID_MS / 1000)
        self._check_undone(attempt, own)
        return None

    def _check_undone(self, attempt: Attempt, own: Recording) -> None:
        """On all servers that answered, the try and what undid it."""
        silent = {t.node for t in own.trips if any(c.error for c in t.commands)}
        for n, grant in enumerate(attempt.grants):
            if not grant.error and f"node {n}" not in silent:
                with plain(self.five[n]) as client:
                    assert client.get(NAMES.lock) != attempt.token.encode()

    @contextmanager
    def _clients(self) -> Iterator[list[redis.Redis]]:
        made = [
            client_for(
                f"unix://{node.server.socket}",
                role=f"node {n}",
                max_connections=2,
                timeout_s=TIMEOUT_S,
            )
            for n, node in enumerate(self.five)
        ]
        try:
            yield made
        finally:
            for client in made:
                breaker_of(client).end()
                client.connection_pool.disconnect()


def _check_validity(attempt: Attempt, took_s: float) -> None:
    """It is what the lease has left after asking, whatever the wall clock does."""
    assert attempt.granted >= 3
    slowest_ms = max(grant.us for grant in attempt.grants) / 1000
    assert VALID_MS - took_s * 1000 - 1 <= attempt.validity_ms <= VALID_MS - slowest_ms


@pytest.fixture
def wall_clock_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By up to an hour, each time somebody looks."""
    real, random = time.time, Random(5)
    monkeypatch.setattr(time, "time", lambda: real() + random.uniform(-3600, 3600))


@pytest.mark.usefixtures("wall_clock_jumps")
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("rounds", [5, pytest.param(1_000, marks=pytest.mark.slow)])
def test_whatever_two_of_five_servers_do_one_holds_the_lock(
    rounds: int, record_property: Callable[[str, object], None]
) -> None:
    """FAULTS E5, with 5 rounds; with 1,000 when slow.

    In each, three contend for the lock, and others try while it is held and the
    faults change. Now and then a holder never gives it back.
    """
    random = Random(rounds)
    with nodes(5) as five:
        for node in five:
            teach(node)
        faults, trial = Faults(five, random), Trial(five)
        for _ in range(rounds):
            faults.change()
            held = trial.contend(CONTENDERS)
            for _ in range(random.randint(0, 3)):
                faults.change()
                held += trial.contend(1)
            for claim in held:
                if random.random() < 0.98:
                    trial.release(claim)
        wait_until(faults.all_are_back)
        wait_until(lambda: trial.contend(1))
    by_start = sorted(trial.claims, key=lambda claim: claim.start)
    assert all(one.end <= other.start for one, other in pairwise(by_start))
    record_property("held", len(trial.claims))
    record_property("refused", trial.refused)
    print(f"held {len(trial.claims)}, refused {trial.refused}")
