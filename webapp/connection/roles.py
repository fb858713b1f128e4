"""The two servers an app needs: one that may forget, and one that may not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import redis

from webapp.connection.breaker import Breaker
from webapp.connection.cluster import ClusterClient
from webapp.connection.urls import client_for

Role = Literal["cache", "durable"]


@dataclass(frozen=True)
class Clients:
    cache: redis.Redis  # what can be computed again
    durable: redis.Redis  # sessions, limits, locks, streams, boards, counters

    @property
    def breakers(self) -> dict[str, Breaker]:
        return {role: breaker_of(c) for role, c in self.items()}

    def items(self) -> tuple[tuple[Role, redis.Redis], ...]:
        return ("cache", self.cache), ("durable", self.durable)

    def close(self) -> None:
        for _, client in self.items():
            close(client)


def connect(
    urls: Mapping[Role, str],
    *,
    max_connections: int,
    on_trip: Callable[[str, float], None] | None = None,
) -> Clients:
    """Make the clients; nothing is sent before the first command.

    `on_trip` is told the role and the seconds of each round trip.
    """
    made: dict[str, redis.Redis] = {
        role: client_for(
            url,
            role=role,
            max_connections=max_connections,
            on_trip=partial(on_trip, role) if on_trip else None,
        )
        for role, url in urls.items()
    }
    return Clients(**made)


def warm(client: redis.Redis, *, connections: int) -> None:
    """Open connections ahead of need: the first requests then pay no handshake.

    Raises redis.ConnectionError or redis.TimeoutError.
    """
    own = client.topology.primaries if isinstance(client, ClusterClient) else [client]
    for pool in [node.connection_pool for node in own]:
        taken: list[Any] = []
        try:
            taken.extend(pool.get_connection() for _ in range(connections))
        finally:
            for connection in taken:
                pool.release(connection)


def close(client: redis.Redis) -> None:
    """End its breaker and all of its connections."""
    breaker_of(client).end()
    client.close()
    for pool in pools_of(client):
        pool.disconnect()


def pools_of(client: redis.Redis) -> list[Any]:
    """A pool a server: that of a Cluster's client are those of the nodes in use."""
    if isinstance(client, ClusterClient):
        return [node.connection_pool for node in client.topology.known]
    return [client.connection_pool]


def breaker_of(client: Any) -> Breaker:
    breaker: Breaker = client.breaker
    return breaker
