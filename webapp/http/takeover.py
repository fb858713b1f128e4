"""How a primary of our own set is made to go, and the picture of what followed."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.connection import addresses
from webapp.connection.urls import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from webapp.experiments.topology import Failover
from webapp.http.errors import Problem
from webapp.live.setfile import SetFile

WIDTH = 600


def kill(own: SetFile, address: str) -> None:
    """End the server with SIGKILL. Raises Problem if it is not one of ours."""
    with closing(_client(address)) as client:
        facts: Any = client.info("server")
    pid = own.pids.get(address)
    if pid is None or facts["process_id"] != pid:
        raise Problem(409, "Not a server of ours", f"{address} was not started here.")
    os.kill(pid, signal.SIGKILL)


def hand_over(own: SetFile, address: str) -> None:
    """Ask a sentinel, or a replica in a Cluster, to have the primary replaced."""
    at = addresses.parse(own.url)
    if at.kind == "sentinel":
        with closing(_client("{}:{}".format(*at.addresses[0]))) as sentinel:
            _replace_primary(sentinel, at.service)
        return
    for other in own.pids:
        with closing(_client(other)) as client:
            if _follows(client) == address:
                client.execute_command("CLUSTER", "FAILOVER")
                return
    raise Problem(409, "No replica", f"{address} has no replica that answers.")


def _replace_primary(sentinel: redis.Redis, service: str) -> None:
    """Valkey from 9 on has the primary wait for its heir: no write is lost.

    Else it goes on for a second with a replica that has not heard of it, and what the
    two have agreed on then is lost, WAIT or not.
    """
    ask = "SENTINEL", "FAILOVER", service
    try:
        sentinel.execute_command(*ask, "COORDINATED")
    except ResponseError as error:
        if "wrong number of arguments" not in str(error):
            raise
        sentinel.execute_command(*ask)


WAYS: dict[str, Callable[[SetFile, str], None]] = {"kill": kill, "hand-over": hand_over}


def _follows(client: redis.Redis) -> str:
    """The address of its primary; empty: it is one, or it is away."""
    try:
        facts: Any = client.info("replication")
    except RedisError:
        return ""
    if facts["role"] == "master" or facts["master_link_status"] != "up":
        return ""
    return f"{facts['master_host']}:{facts['master_port']}"


def _client(address: str) -> redis.Redis:
    host, _, port = address.rpartition(":")
    return redis.Redis(
        host,
        int(port),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=READ_TIMEOUT_S,
    )


@dataclass(frozen=True)
class Picture:
    seen: Failover
    took: str  # path of ticks
    refused: str  # path of crosses
    trigger_x: float
    healed_x: float | None
    ticks: list[tuple[float, str]]


def picture(seen: Failover) -> Picture:
    span_ms = max(seen.writes[-1].at_ms, 1)

    def x(ms: int) -> float:
        return round(ms * WIDTH / span_ms, 1)

    healed = seen.healed_ms
    return Picture(
        seen=seen,
        took="".join(f"M{x(w.at_ms)} 10V26" for w in seen.writes if w.took),
        refused="".join(
            f"M{x(w.at_ms) - 2:.1f} 34l4 4m0 -4l-4 4" for w in seen.writes if not w.took
        ),
        trigger_x=x(seen.triggered_ms),
        healed_x=None if healed is None else x(seen.triggered_ms + healed),
        ticks=[(x(ms), f"{ms // 1000} s") for ms in range(0, span_ms + 1, 1000)],
    )
