"""The nightly report: two workers try to run it, and a lock lets one at a time."""

from dataclasses import dataclass
from typing import Any, Literal

import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
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


class Nightly:
    def __init__(self, client: redis.Redis, engine: Engine, namespace: str) -> None:
        self.client, self.engine = client, engine
        families = keys.LOCK, keys.FENCE, keys.WAKE
        self.names = LockKeys(*(keys.key(namespace, f, REPORT) for f in families))
        self.journal_key = keys.key(namespace, keys.JOURNAL, REPORT)

    def write(self, worker: str, fence: int) -> bool:
        """Whether the report took it: a number below the highest seen is refused."""
        return reports.write(self.engine, REPORT, fence=fence, writer=worker)

    def report(self) -> reports.Report | None:
        return reports.find(self.engine, REPORT)

    def note(self, worker: str, act: Act, *, fence: int, left_ms: int = 0) -> None:
        """Put it into the journal (one trip)."""
        with self.client.pipeline(transaction=True) as multi:
            entry: dict[Any, Any] = {
                "worker": worker,
                "act": act,
                "fence": fence,
                "left_ms": left_ms,
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
