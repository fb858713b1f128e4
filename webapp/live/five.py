"""Redlock on five scratch servers: two workers, and what each server says."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection.roles import breaker_of
from webapp.connection.scratch import NUMBERS, State, Wishes
from webapp.connection.urls import client_for
from webapp.patterns.distributed_lock import LockKeys
from webapp.patterns.redlock import Attempt, Redlock

WORKERS = ("A", "B")
LOCK = Redlock(ttl_ms=20_000)
TIMEOUT_S = 0.1  # for a server that does not answer
_RESOURCE = "five-servers"


@dataclass(frozen=True)
class Node:
    n: int
    wished: State
    answers: bool
    token: str | None  # of who holds the lock there

    @property
    def is_settled(self) -> bool:
        """Whether the launcher did what was wished; it acts four times a second."""
        return self.answers == (self.wished == "up")


@dataclass(frozen=True)
class Hold:
    """What a worker believes to have."""

    token: str
    until_ms: int  # since 1970

    @property
    def left_ms(self) -> int:
        return max(self.until_ms - _now_ms(), 0)


class Five:
    def __init__(self, wishes: Wishes, namespace: str, *, demo: bool) -> None:
        self.wishes = wishes
        self._demo = demo
        families = keys.LOCK, keys.FENCE, keys.WAKE
        self.names = LockKeys(*(keys.key(namespace, f, _RESOURCE) for f in families))

    @property
    def is_there(self) -> bool:
        """Only in demo mode, and where a launcher starts the servers."""
        return self._demo and self.wishes.are_heard

    @contextmanager
    def clients(self) -> Iterator[list[redis.Redis]]:
        """A client of each server, for one request."""
        with ExitStack() as ends:
            yield [self._client(n, ends) for n in NUMBERS]

    def _client(self, n: int, ends: ExitStack) -> redis.Redis:
        client = client_for(
            f"unix://{self.wishes.socket(n)}",
            role=f"node {n}",
            max_connections=2,
            timeout_s=TIMEOUT_S,
        )
        ends.callback(client.connection_pool.disconnect)
        ends.callback(breaker_of(client).end)
        return client

    def look(self, clients: Sequence[redis.Redis]) -> list[Node]:
        """What each says; one that is paused would take its time, and is not asked."""
        found = []
        for n, client in zip(NUMBERS, clients, strict=True):
            wished, answers, token = self.wishes.state(n), False, None
            if wished != "paused":
                try:
                    token = client.get(self.names.lock)
                    answers = True
                except RedisError:
                    pass
            text = token.decode(errors="replace") if isinstance(token, bytes) else None
            found.append(Node(n, wished, answers, text))
        return found

    def take(self, clients: Sequence[redis.Redis]) -> tuple[Attempt, Hold | None]:
        attempt = LOCK.acquire(clients, self.names)
        if not attempt.held:
            return attempt, None
        return attempt, Hold(attempt.token, _now_ms() + attempt.validity_ms)

    def release(self, clients: Sequence[redis.Redis], hold: Hold) -> int:
        """How many servers had it and said so."""
        return LOCK.release(clients, self.names, token=hold.token)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
