"""From a URL to a client that records, is bounded in time, and sends only once."""

from collections.abc import Callable
from functools import cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from webapp.connection import addresses, recorder, sentinel
from webapp.connection.addresses import Address, SetUrl
from webapp.connection.breaker import Breaker
from webapp.connection.cluster import ClusterClient
from webapp.connection.guarded import GuardedClient, GuardedPool
from webapp.connection.topology import ClusterBreaker, Topology

CONNECT_TIMEOUT_S = 0.25
READ_TIMEOUT_S = 1.0
POOL_WAIT_S = 0.2
HEALTH_CHECK_S = 15  # TCP only: a unix socket cannot be half open

OnTrip = Callable[[float], None] | None  # told the seconds of each round trip


class UnusableUrl(ValueError):
    """A Redis URL of a kind this app does not speak."""


class RecordedTCP(recorder.RecordedConnection, Connection):
    pass


class RecordedTLS(recorder.RecordedConnection, SSLConnection):
    pass


class RecordedUnix(recorder.RecordedConnection, UnixDomainSocketConnection):
    pass


_CLASSES: dict[str, type] = {
    "redis": RecordedTCP,
    "rediss": RecordedTLS,
    "unix": RecordedUnix,
}


def client_for(
    url: str,
    *,
    role: str,
    max_connections: int,
    on_trip: OnTrip = None,
    timeout_s: float = READ_TIMEOUT_S,
) -> redis.Redis:
    """A client whose commands are recorded, bounded in time, and sent only once."""
    scheme = url.partition("://")[0]
    if scheme == "fake":
        return _fake(url, role, max_connections, on_trip)
    if addresses.is_set(url):
        limits = {"max_connections": max_connections, "timeout": POOL_WAIT_S}
        options = {**_options(), "socket_timeout": timeout_s, **limits}
        make = _of_sentinels if scheme == "redis+sentinel" else _of_cluster
        return make(url, addresses.parse(url), role, on_trip, options)
    if scheme not in _CLASSES:
        raise UnusableUrl(
            f"{role}: a URL starts with redis://, rediss:// or unix://, not {scheme}://"
        )
    pool = GuardedPool.from_url(
        url,
        max_connections=max_connections,
        timeout=POOL_WAIT_S,
        health_check_interval=0 if scheme == "unix" else HEALTH_CHECK_S,
        **_options() | {"socket_timeout": timeout_s},
    )
    return _guard(pool, _CLASSES[scheme], probe_client(url), role, on_trip)


def probe_client(url: str, *, timeout_s: float = READ_TIMEOUT_S) -> redis.Redis:
    """A client of two connections that nobody records and no breaker guards."""
    scheme = url.partition("://")[0]
    if scheme == "fake":
        import fakeredis

        return fakeredis.FakeRedis(server=fake_server(url))
    options = {**_options(), "socket_timeout": timeout_s, "max_connections": 2}
    if not addresses.is_set(url):
        return redis.Redis.from_url(url, **options)
    at = addresses.parse(url)
    if at.kind == "sentinel":
        pool = sentinel.PrimaryPool(
            at.service,
            sentinel.manager(at, _options()),
            connection_class=sentinel.PrimaryConnection,
            **_credentials(at),
            **options,
        )
        return redis.Redis(connection_pool=pool)

    def connect(address: Address) -> redis.Redis:
        return redis.Redis(
            connection_pool=ConnectionPool(
                host=address[0], port=address[1], **_credentials(at), **options
            )
        )

    return ClusterProber(Topology(at.addresses, connect))


class ClusterProber(ClusterClient):
    """Asks for the layout anew before it says that all primaries answer."""

    def ping(self, **options: Any) -> Any:
        self.topology.refresh()
        return super().ping(**options)


def server_of(client: redis.Redis, key: str) -> str:
    """The address of the server that has this key; empty where it is on a socket.

    Raises redis.ConnectionError.
    """
    pool: Any = home(client, key).connection_pool
    if isinstance(pool, sentinel.GuardedPrimaryPool):
        host, port = pool.master_address or pool.get_master_address()
        return f"{host}:{port}"
    at = pool.connection_kwargs
    return f"{at['host']}:{at['port']}" if "host" in at else ""


def home(client: redis.Redis, key: str) -> redis.Redis:
    """The client of the server that has this key, for what is about a connection."""
    return client.home(key) if isinstance(client, ClusterClient) else client


def _options() -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": READ_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,  # a handshake is one round trip, HELLO
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _credentials(at: SetUrl) -> dict[str, Any]:
    return {"username": at.username, "password": at.password}


def _of_sentinels(
    url: str, at: SetUrl, role: str, on_trip: OnTrip, options: dict[str, Any]
) -> redis.Redis:
    pool = sentinel.GuardedPrimaryPool(
        at.service,
        sentinel.manager(at, _options()),
        health_check_interval=HEALTH_CHECK_S,
        **_credentials(at),
        **options,
    )
    return _guard(pool, sentinel.RecordedPrimary, probe_client(url), role, on_trip)


def _of_cluster(
    url: str, at: SetUrl, role: str, on_trip: OnTrip, options: dict[str, Any]
) -> redis.Redis:
    def connect(address: Address) -> redis.Redis:
        host, port = address
        own = {"host": host, "port": port, **_credentials(at)}
        pool = GuardedPool(health_check_interval=HEALTH_CHECK_S, **own, **options)
        prober = redis.Redis(max_connections=2, **own, **_options())
        return _guard(pool, RecordedTCP, prober, f"{role} {host}:{port}", on_trip)

    topology = Topology(at.addresses, connect)
    breaker = ClusterBreaker(role, probe_client(url), topology)
    return ClusterClient(topology, breaker=breaker)


def _guard(
    pool: GuardedPool,
    connection_class: type,
    prober: redis.Redis,
    node: str,
    on_trip: OnTrip,
) -> redis.Redis:
    own = {"node": node, "on_trip": staticmethod(on_trip) if on_trip else None}
    pool.connection_class = type(connection_class.__name__, (connection_class,), own)
    pool.breaker = Breaker(node, prober)
    return GuardedClient(connection_pool=pool)


@cache
def fake_server(url: str) -> Any:
    """The server behind a `fake://` URL: the same one for the same URL."""
    import fakeredis

    return fakeredis.FakeServer(version=(7, 4))


def _fake(url: str, role: str, max_connections: int, on_trip: OnTrip) -> redis.Redis:
    """fakeredis inside this process: one worker only, and no memory figures."""
    from fakeredis._clients._sync import FakeRedisConnection

    class RecordedFake(recorder.RecordedConnection, FakeRedisConnection):
        pass

    pool = GuardedPool(
        max_connections=max_connections,
        timeout=POOL_WAIT_S,
        server=fake_server(url),
        version=(7, 4),
    )
    return _guard(pool, RecordedFake, probe_client(url), role, on_trip)
