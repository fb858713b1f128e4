"""A worker in a process of its own, so that it can really be stopped and killed.

It takes a lock when it starts, and writes a report when it is told to. What it said
to Redis and to the database comes back to the experiment, for the tape.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import redis

from webapp import process
from webapp.connection import recorder
from webapp.connection.recorder import Recording, Sql, Trip
from webapp.connection.roles import breaker_of
from webapp.connection.urls import client_for
from webapp.experiments import Bench
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
from webapp.shop import reports
from webapp.shop.database import open_database

WRITER = "A"

_LONGEST_S = 20.0  # that one may live: nobody waits for it longer

Take = Literal["acquire", "setnx"]


class HolderFailed(redis.ConnectionError):
    """The process ended before it answered, as it does without Redis."""


class Order(msgspec.Struct, frozen=True):
    parent: int  # process id; with it the holder ends
    redis_url: str
    database_url: str
    take: Take
    names: LockKeys
    ttl_ms: int
    report: str  # the row that it writes
    checked: bool  # whether the report looks at the number


class Told(msgspec.Struct, frozen=True):
    """What it did, and what it said to the servers for it."""

    answer: int
    trips: list[Trip]
    sql: list[Sql]


class Holder:
    """The other process, as the experiment sees it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.pid = child.pid
        self._child = child

    def hear(self) -> int:
        """Wait for what it did; its commands go on the tape. Raises HolderFailed."""
        line = self._child.stdout.readline() if self._child.stdout else b""
        if not line:
            raise HolderFailed("the worker's process ended before it answered")
        told = msgspec.json.decode(line, type=Told)
        if (own := recorder.current()) is not None:
            own.trips.extend(told.trips)
            own.sql.extend(told.sql)
        return told.answer

    def stop(self) -> None:
        """Returns when the kernel has stopped it."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """Let it run again; it then writes."""
        os.kill(self.pid, signal.SIGCONT)
        self._send(b"\n")

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def _send(self, line: bytes) -> None:
        if self._child.stdin:
            self._child.stdin.write(line)
            self._child.stdin.flush()


@contextmanager
def holder(
    bench: Bench,
    names: LockKeys,
    *,
    take: Take,
    ttl_ms: int,
    report: str = "",
    checked: bool = True,
) -> Iterator[Holder]:
    """A worker that is about to take the lock; killed at the end."""
    order = Order(
        parent=os.getpid(),
        redis_url=bench.redis_url,
        database_url=bench.engine.url.render_as_string(hide_password=False),
        take=take,
        names=names,
        ttl_ms=ttl_ms,
        report=report,
        checked=checked,
    )
    command = [sys.executable, "-m", "webapp.experiments.holder"]
    with subprocess.Popen(  # noqa: S603 - a module of our own
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        worker = Holder(child)
        patience = threading.Timer(_LONGEST_S, child.kill)
        patience.start()
        try:
            worker._send(msgspec.json.encode(order) + b"\n")
            yield worker
        finally:
            patience.cancel()
            worker.kill()


def main() -> None:
    """The other process itself."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    process.die_with(order.parent)
    with recorder.recording(Recording(WRITER)) as own:
        try:
            fence = _take(order)
        except redis.RedisError as error:
            sys.exit(f"The worker of an experiment: {error}")
    _tell(fence, own)
    if not sys.stdin.buffer.readline():
        return
    with recorder.recording(Recording(WRITER)) as own:
        written = _write(order, fence)
    _tell(int(written), own)


def _take(order: Order) -> int:
    """The number of the lease; 1 where the lock knows no numbers, 0 if it is taken."""
    client = client_for(order.redis_url, role="durable", max_connections=1)
    try:
        if order.take == "setnx":
            # Flaw: without a TTL only its holder can ever free it.
            return int(client.setnx(order.names.lock, WRITER))
        lock = DistributedLock(ttl_ms=order.ttl_ms)
        lease = lock.acquire(client, order.names)
        return lease.fence if lease else 0
    finally:
        breaker_of(client).end()
        client.connection_pool.disconnect()


def _write(order: Order, fence: int) -> bool:
    write = reports.write if order.checked else reports.write_unchecked
    engine = open_database(order.database_url)
    try:
        return write(engine, order.report, fence=fence, writer=WRITER)
    finally:
        engine.dispose()


def _tell(answer: int, own: Recording) -> None:
    for trip in own.trips:
        for command in trip.commands:
            command.args = tuple(_plain(argument) for argument in command.args)
            command.reply = _plain(command.reply)
    told = msgspec.json.encode(Told(answer, own.trips, own.sql))
    sys.stdout.buffer.write(told + b"\n")
    sys.stdout.buffer.flush()


def _plain(value: Any) -> Any:
    """As JSON can carry it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


if __name__ == "__main__":
    main()
