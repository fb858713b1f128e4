"""How the servers and the app are, once a second, in a file that all workers read.

One process calls `Vitals.tick`; `now` reads what it wrote. So the servers are asked
once a second, however many look.
"""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from webapp.live import counts
from webapp.live.counts import Counts
from webapp.live.nodes import NodeMap, mappers
from webapp.live.servers import (
    Answer,
    Imitation,
    Probe,
    Server,
    Spent,
    distinct,
    total_ops_per_s,
)
from webapp.settings import Settings
from webapp.shop import shoppers

FILE = "vitals.json"
SECONDS = 60  # how long a minute is, in ticks
_OF_CACHE = ("hits", "misses", "evicted", "expired", "memory_bytes")

log = logging.getLogger(__name__)


def _nothing() -> list[int]:
    return [0] * SECONDS


class Strip(msgspec.Struct, frozen=True, kw_only=True):
    """Reads through the cache in each of the last 60 s, oldest first."""

    hits: list[int] = msgspec.field(default_factory=_nothing)
    misses: list[int] = msgspec.field(default_factory=_nothing)
    bypasses: list[int] = msgspec.field(default_factory=_nothing)
    shoppers_share: float = 0.0  # of all these reads, 0 to 1


class PoolNow(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's connections to one server."""

    worker: str = ""  # its process id; empty: the one that is asked
    node: str  # "cache", "durable 127.0.0.1:7001"
    in_use: int
    idle: int
    limit: int
    waits: int  # how often all were in use, since the worker started


class VitalsNow(msgspec.Struct, frozen=True, kw_only=True):
    """One second's vitals; what is not known is None."""

    at: datetime
    ops_per_s: int | None = None  # all servers
    ops_series: list[int] = msgspec.field(default_factory=_nothing)
    hit_rate: float | None = None  # the cache server's lookups of 60 s, 0 to 1
    p99_us: int | None = None  # round trips of all workers in 60 s
    memory_used_bytes: int | None = None  # the cache server's
    memory_max_bytes: int | None = None
    clients: int | None = None  # all servers
    servers: list[Server] = []
    strip: Strip = msgspec.field(default_factory=Strip)
    series: dict[str, list[int]] = {}  # "page.event": how often in each of 60 s
    cache_series: dict[str, list[int]] = {}  # of the cache server, by the second
    shared: bool = False  # both roles are on one server
    down: list[str] = []  # roles whose server does not answer
    limited: bool = False  # an imitation inside a worker: nobody else can ask it
    shoppers_per_s: int | None = None  # None: not in demo mode
    housekeeping: list[Spent] = []
    pools: list[PoolNow] = []  # by worker
    maps: list[NodeMap] = []  # of each set of servers; empty: single servers

    @property
    def age_ms(self) -> int:
        return max(0, round((datetime.now(UTC) - self.at).total_seconds() * 1000))


def now(settings: Settings, *, down: Iterable[str] = ()) -> VitalsNow:
    """The newest vitals; before the first tick, that nothing is known.

    `down` are roles that the caller knows better about: its own breakers are open.
    """
    try:
        known = read(settings.instance_path / FILE)
    except (OSError, msgspec.DecodeError):
        unknown = [Server(role=role, up=True) for role in settings.redis_urls]
        known = VitalsNow(at=datetime.now(UTC), servers=unknown)
    down = set(down)
    servers = [
        msgspec.structs.replace(s, up=s.up and s.role not in down)
        for s in known.servers
    ]
    roles = sorted(down.union(known.down))
    return msgspec.structs.replace(known, servers=servers, down=roles)


def read(file: Path) -> VitalsNow:
    """Raises OSError and msgspec.DecodeError."""
    return msgspec.json.decode(file.read_bytes(), type=VitalsNow)


@dataclass(frozen=True, slots=True)
class Second:
    """What one tick saw added."""

    ops_per_s: int | None = None
    hits: int = 0  # the cache server's lookups
    misses: int = 0
    evicted: int = 0
    expired: int = 0
    memory_bytes: int = 0  # used at its end
    counts: Counts = field(default_factory=Counts)


class Vitals:
    """Asks, adds up the last minute, writes. For one process and one thread of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.instance_path / FILE
        self._metrics = settings.instance_path / "metrics"
        self._limited = any(_is_fake(url) for url in settings.redis_urls.values())
        self._probes = [
            Imitation(role) if _is_fake(url) else Probe(role, url)
            for role, url in settings.redis_urls.items()
        ]
        self._mappers = mappers(settings.redis_urls)
        self._counts: Counts | None = None
        self._minute = deque([Second()] * SECONDS, maxlen=SECONDS)
        self._trouble = ""

    def tick(self) -> None:
        """Write new vitals. Never raises; the same trouble is logged once."""
        try:
            self._write(self._look())
            self._trouble = ""
        except Exception as error:
            if repr(error) != self._trouble:
                log.exception("no vitals")
            self._trouble = repr(error)

    def _look(self) -> VitalsNow:
        answers = [probe.ask() for probe in self._probes]
        before, self._counts = self._counts, counts.read(self._metrics)
        answer = next((a for a in answers if a.server.role == "cache"), None)
        cache = answer.growth if answer else None
        memory = answer.server.memory_used_bytes if answer else None
        self._minute.append(
            Second(
                ops_per_s=total_ops_per_s(answers),
                hits=cache.hits if cache else 0,
                misses=cache.misses if cache else 0,
                evicted=cache.evicted if cache else 0,
                expired=cache.expired if cache else 0,
                memory_bytes=memory or 0,
                counts=self._counts.since(before or self._counts),
            )
        )
        return self._now(answers)

    def _now(self, answers: Sequence[Answer]) -> VitalsNow:
        minute = self._minute
        servers = [answer.server for answer in answers]
        cache = next((s for s in servers if s.role == "cache"), None)
        up = distinct(answers)
        hits, misses = (sum(getattr(s, n) for s in minute) for n in ("hits", "misses"))
        demo, folder = self._settings.demo, self._settings.instance_path
        return VitalsNow(
            at=datetime.now(UTC),
            ops_per_s=minute[-1].ops_per_s,
            ops_series=[s.ops_per_s or 0 for s in minute],
            hit_rate=hits / (hits + misses) if hits + misses else None,
            p99_us=counts.percentile_us((s.counts for s in minute), 0.99),
            memory_used_bytes=cache.memory_used_bytes if cache else None,
            memory_max_bytes=cache.memory_max_bytes if cache else None,
            clients=sum(a.clients for a in up) if up else None,
            servers=servers,
            shared=len(up) < sum(server.up for server in servers),
            strip=_strip([s.counts for s in minute]),
            series=_series([s.counts for s in minute]),
            cache_series={n: [getattr(s, n) for s in minute] for n in _OF_CACHE},
            down=[server.role for server in servers if not server.up],
            limited=self._limited,
            shoppers_per_s=shoppers.read_rate(folder) if demo else None,
            housekeeping=[a.spent for a in answers if a.spent],
            pools=_pools(self._counts) if self._counts else [],
            maps=[mapper.look() for mapper in self._mappers],
        )

    def _write(self, vitals: VitalsNow) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(vitals))
        draft.replace(self._file)


def _strip(seconds: Sequence[Counts]) -> Strip:
    hits = [s.hits for s in seconds]
    misses = [s.misses for s in seconds]
    bypasses = [s.bypasses for s in seconds]
    reads = sum(hits) + sum(misses) + sum(bypasses)
    by_shoppers = sum(s.by_shoppers for s in seconds)
    return Strip(
        hits=hits,
        misses=misses,
        bypasses=bypasses,
        shoppers_share=by_shoppers / reads if reads else 0.0,
    )


def _series(seconds: Sequence[Counts]) -> dict[str, list[int]]:
    names = {name for second in seconds for name in second.events}
    return {name: [s.events.get(name, 0) for s in seconds] for name in sorted(names)}


def _pools(now: Counts) -> list[PoolNow]:
    return [
        PoolNow(
            worker=worker,
            node=node,
            in_use=states.get("in use", 0),
            idle=states.get("idle", 0),
            limit=states.get("limit", 0),
            waits=states.get("waits", 0),
        )
        for (worker, node), states in sorted(now.pools.items())
        if states.get("limit")
    ]


def _is_fake(url: str) -> bool:
    return url.startswith("fake://")
