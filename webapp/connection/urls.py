"""From a URL to a client. Sentinel and Cluster get their lines here when they come."""

from collections.abc import Callable
from functools import cache
from queue import Empty
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError, TimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from webapp.connection import budget, recorder
from webapp.connection.breaker import Breaker, BreakerOpen

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


def _blames_the_server(error: Exception) -> bool:
    """False where only our pool was busy, or the request's own time was up."""
    ours = BreakerOpen, budget.BudgetSpent
    return not isinstance(error, ours) and not isinstance(error.__context__, Empty)


class GuardedPool(BlockingConnectionPool):
    """Refuses at once while the breaker is open, and opens it when it must."""

    breaker: Breaker

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        self.breaker.require_closed()
        try:
            return super().get_connection(*args, **kwargs)  # type: ignore[no-untyped-call]
        except (ConnectionError, TimeoutError) as error:
            if _blames_the_server(error):
                self.breaker.open(str(error))
            raise


class GuardedClient(redis.Redis):
    """Tells the breaker of failures, and the tape of commands that were not sent."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        pool: Any = self.connection_pool
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (ConnectionError, TimeoutError) as error:
            last = recorder.last_command()
            if last is None or last.args != args:
                recorder.note_unsent(node_of(self), args, error)
            if _blames_the_server(error):
                pool.breaker.open(str(error))
            raise

    def pipeline(
        self, transaction: bool = True, shard_hint: str | None = None
    ) -> Pipeline:
        return GuardedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class GuardedPipeline(Pipeline):
    """The same for commands that are sent together."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        pool: Any = self.connection_pool
        queued = [args for args, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except (ConnectionError, TimeoutError) as error:
            last = recorder.last_command()
            if last is None or last.error is None:
                for args in queued:
                    recorder.note_unsent(pool.connection_class.node, args, error)
            if _blames_the_server(error):
                pool.breaker.open(str(error))
            raise


def client_for(
    url: str,
    *,
    role: str,
    max_connections: int,
    on_trip: OnTrip = None,
    timeout_s: float = READ_TIMEOUT_S,
) -> redis.Redis:
    """A client whose commands are recorded, bounded in time, and sent only once."""
    scheme = urlsplit(url).scheme
    if scheme == "fake":
        return _fake(url, role, max_connections, on_trip)
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
    return _guard(pool, _CLASSES[scheme], url, role, on_trip)


def probe_client(url: str) -> redis.Redis:
    """A client of one connection that nobody records and no breaker guards."""
    if urlsplit(url).scheme == "fake":
        import fakeredis

        return fakeredis.FakeRedis(server=fake_server(url))
    return redis.Redis.from_url(url, max_connections=2, **_options())


def node_of(client: redis.Redis) -> str:
    return str(client.connection_pool.connection_class.node)


def _options() -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": READ_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,  # a handshake is one round trip, HELLO
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _guard(
    pool: GuardedPool, connection_class: type, url: str, role: str, on_trip: OnTrip
) -> redis.Redis:
    own = {"node": role, "on_trip": staticmethod(on_trip) if on_trip else None}
    pool.connection_class = type(connection_class.__name__, (connection_class,), own)
    pool.breaker = Breaker(role, probe_client(url))
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
    return _guard(pool, RecordedFake, url, role, on_trip)
