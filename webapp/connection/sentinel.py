"""A primary that sentinels choose: found anew with each connection, and asked its role.

After a failover the old primary may still answer for a moment. So a new connection
asks ROLE before it is used, and one that is told READONLY is closed and looks again.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from webapp.connection import recorder
from webapp.connection.addresses import Address, SetUrl
from webapp.connection.guarded import GuardedPool

_ASK_EVERY_S = 1.0


class PrimaryConnection(SentinelManagedConnection):
    """Refuses a server that is a primary no more."""

    def connect_to(self, address: Address) -> None:
        super().connect_to(address)  # type: ignore[no-untyped-call]
        self.send_command("ROLE")
        role: Any = self.read_response()
        if role[0] != b"master":
            self.disconnect()
            raise ConnectionError(f"{address[0]}:{address[1]} is a replica now")


class RecordedPrimary(recorder.RecordedConnection, PrimaryConnection):
    """Its node on the tape is the role's, and which server has it now."""

    def connect_to(self, address: Address) -> None:
        self.node = f"{type(self).node} {address[0]}:{address[1]}"
        super().connect_to(address)


class PrimaryPool(SentinelConnectionPool):
    """A few connections to the primary of the moment, for probes."""


class GuardedPrimaryPool(SentinelConnectionPool, GuardedPool):
    """The same, bounded and guarded by a breaker.

    A primary that was replaced while it was well goes on for seconds, and what it
    takes then is lost. So a sentinel is asked once a second, and connections to
    another one are closed.
    """

    _asked_at = 0.0

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        now = time.monotonic()
        if self.master_address and now - self._asked_at > _ASK_EVERY_S:
            self._asked_at = now
            with suppress(ConnectionError):  # no sentinel: it may still be the one
                self.get_master_address()
        return super().get_connection(*args, **kwargs)

    def release(self, connection: Any) -> None:
        is_current = self.owns_connection(connection)
        super().release(connection)  # type: ignore[no-untyped-call]
        if not is_current and connection in self._connections:
            self._connections.remove(connection)  # the pool would keep it for ever


def manager(at: SetUrl, options: Mapping[str, Any]) -> Sentinel:
    """Who to ask for the primary. `options` are the timeouts, for sentinels too."""
    return Sentinel(at.addresses, sentinel_kwargs=dict(options))
