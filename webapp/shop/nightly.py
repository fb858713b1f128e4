"""The nightly report: two workers try to run it, and a lock lets one at a time."""

from dataclasses import dataclass
from typing import Any, Literal

import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.patterns.distributed_lock import (
    DistributedLock,
    Lease,
    LockKeys,
    LockNotOwned,
)
from webapp.shop import reports

Act = Literal["took", "busy", "wrote", "refused", "extended", "released", "late"]

WORKERS = ("A", "B")
REPORT = "nightly-report"
LOCK = DistributedLock(ttl_ms=10_000, longest_ms=30_000)

_KEPT = 200  # entries of the journal


@dataclass(frozen=True)
class Entry:
    """What a worker did, by the server's clock."""

    at_ms: int
    worker: str
    act: Act
    fence: int  # 0: the lock was taken by another
    left_ms: int = 0  # of the lease, where it began or was extended


@dataclass(frozen=True)
class Journal:
    now_ms: int  # by the server's clock
    entries: tuple[Entry, ...]  # the oldest first


@dataclass(frozen=True)
class Done:
    """How an act of a worker ended."""

    act: Act
    lease: Lease | None  # what the worker believes to have from now on
    fence: int = 0  # the number it acted under; 0: none
    left_ms: int = 0  # of the lease, where it began or was extended


class Nightly:
    def __init__(self, client: redis.Redis, engine: Engine, namespace: str) -> None:
        self.client, self.engine = client, engine
        families = keys.LOCK, keys.FENCE, keys.WAKE
        self.names = LockKeys(*(keys.key(namespace, f, REPORT) for f in families))
        self.journal_key = keys.key(namespace, keys.JOURNAL, REPORT)

    def take(self, lease: Lease | None) -> Done:
        """Take the lock, or keep what is left of an older lease."""
        taken = LOCK.acquire(self.client, self.names)
        if taken is None:
            return Done("busy", lease)
        return Done("took", taken, taken.fence, LOCK.ttl_ms)

    def write(self, worker: str, lease: Lease) -> Done:
        """Write the report, which asks for the number and not for the lock."""
        taken = reports.write(self.engine, REPORT, fence=lease.fence, writer=worker)
        return Done("wrote" if taken else "refused", lease, lease.fence)

    def extend(self, lease: Lease) -> Done:
        try:
            left_ms = LOCK.extend(self.client, self.names, lease)
        except LockNotOwned:
            return Done("late", lease, lease.fence)
        return Done("extended", lease, lease.fence, left_ms)

    def release(self, lease: Lease) -> Done:
        freed = LOCK.release(self.client, self.names, lease)
        return Done("released" if freed else "late", None, lease.fence)

    def report(self) -> reports.Report | None:
        return reports.find(self.engine, REPORT)

    def note(self, worker: str, done: Done) -> None:
        """Put it into the journal (one MULTI)."""
        with self.client.pipeline(transaction=True) as multi:
            entry: dict[Any, Any] = {
                "worker": worker,
                "act": done.act,
                "fence": done.fence,
                "left_ms": done.left_ms,
            }
            multi.xadd(self.journal_key, entry, maxlen=_KEPT, approximate=False)
            multi.pexpire(self.journal_key, keys.JOURNAL.ttl_ms or 0)
            multi.execute()

    def journal(self) -> Journal:
        """All that is kept, and the time now (one trip)."""
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.xrange(self.journal_key)
            pipeline.time()
            found, (seconds, micros) = pipeline.execute()
        entries = tuple(_entry(id, fields) for id, fields in found)
        return Journal(int(seconds) * 1000 + int(micros) // 1000, entries)


def _entry(id: bytes, fields: dict[bytes, bytes]) -> Entry:
    act: Any = fields[b"act"].decode()
    return Entry(
        at_ms=int(id.partition(b"-")[0]),
        worker=fields[b"worker"].decode(),
        act=act,
        fence=int(fields[b"fence"]),
        left_ms=int(fields[b"left_ms"]),
    )
