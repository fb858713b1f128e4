"""Local sets of real servers: a primary with replicas and sentinels, and a Cluster.

For demos and tests: on loopback, on free ports, with their files in one folder.
"""

import json
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from webapp import process
from webapp.connection.embedded import ServerError

HOST = "127.0.0.1"
SERVICE = "shop"
PRIMARIES, REPLICAS, SENTINELS = 3, 2, 3
_SLOTS = 16384
_FORMED_S = 30.0
# One that ends is started again by the launcher, but only when a replica has surely
# taken its place: a primary that comes back empty would empty its replicas.
_AWAY_S = 8.0

_COMMON = (f"bind {HOST}", "loglevel notice", "daemonize no")
_DATA = (
    'save ""',
    "appendonly no",
    "maxmemory-policy noeviction",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    "repl-ping-replica-period 1",
)
# A primary that has been replaced, and does not know it yet, has no replica left: it
# refuses writes that would be lost.
_OF_SENTINELS = ("min-replicas-to-write 1", "min-replicas-max-lag 2")
_OF_CLUSTER = (
    "cluster-enabled yes",
    "cluster-node-timeout 2000",
    "cluster-require-full-coverage no",  # one shard away is no harm to the others
    "cluster-replica-validity-factor 0",
    "cluster-allow-replica-migration no",
)


@dataclass
class Member:
    """One server of a set: its configuration, log and data in a folder of its own."""

    name: str  # "primary", "replica-1", "sentinel-2", "node-4"
    binary: Path
    folder: Path
    port: int
    config: Sequence[str]
    child: process.Process | None = field(default=None, init=False)
    _gone_since: float | None = field(default=None, init=False)

    @property
    def is_sentinel(self) -> bool:
        return self.name.startswith("sentinel")

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, only from the main thread; it keeps what it wrote before."""
        file = self.folder / "server.conf"
        if not file.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = {"dir": self.folder, "logfile": self.folder / "server.log"}
            paths = (f"{name} {json.dumps(str(path))}" for name, path in own.items())
            lines = *_COMMON, f"port {self.port}", *paths, *self.config
            file.write_text("\n".join(lines) + "\n")
        mode = ["--sentinel"] if self.is_sentinel else []
        command = [str(self.binary), str(file), *mode]
        self.child = process.start(command, stdout=subprocess.DEVNULL)
        self._gone_since = None

    @property
    def is_running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def trouble(self) -> str | None:
        """That it ended a while ago; None: all is well, or its place is being taken."""
        if self.is_running:
            return None
        self._gone_since = self._gone_since or time.monotonic()
        return "ended" if time.monotonic() - self._gone_since > _AWAY_S else None

    def kill(self) -> None:
        if self.child is not None:
            process.kill(self.child)

    def client(self) -> redis.Redis:
        return redis.Redis(
            HOST,
            self.port,
            socket_connect_timeout=1,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )

    def ask(self, *args: Any) -> Any:
        """Raises redis.RedisError."""
        with self.client() as client:
            return client.execute_command(*args)

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except RedisError:
            return False

    def why(self) -> str:
        """The last line of its log."""
        log = self.folder / "server.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return f"{text.strip().rpartition(chr(10))[2]} ({log})"


class LocalSet(ABC):
    """Servers that are one; `start` returns when they have found each other."""

    members: list[Member]
    url: str

    def start(self, check: Callable[[], None] = lambda: None) -> None:
        """Raises ServerError. `check` is called meanwhile; what it raises ends it."""
        for member in self.members:
            if not member.is_sentinel:
                member.start()
        self._await("answer", lambda: all(m.answers() for m in self._data), check)
        self._join()
        for member in self.members:
            if member.is_sentinel:
                member.start()
        self.await_formed(check)

    def await_formed(self, check: Callable[[], None] = lambda: None) -> None:
        """Until all know of all, and each replica follows. Raises ServerError."""
        self._await("find each other", self._is_formed, check)

    def end(self) -> None:
        """At once: what they hold is for a demo."""
        for member in self.members:
            member.kill()

    @property
    def _data(self) -> list[Member]:
        return [member for member in self.members if not member.is_sentinel]

    @abstractmethod
    def _join(self) -> None:
        """Tell the data servers of each other."""

    @abstractmethod
    def _is_formed(self) -> bool:
        """Whether all know of all. May raise redis.RedisError meanwhile."""

    def _await(
        self, what: str, holds: Callable[[], bool], check: Callable[[], None]
    ) -> None:
        deadline = time.monotonic() + _FORMED_S
        while not _holds(holds):
            check()
            ended = next(
                (m for m in self.members if m.child and not m.is_running), None
            )
            if ended is not None:
                raise ServerError(f"The {ended.name} of the set ended: {ended.why()}")
            if time.monotonic() > deadline:
                raise ServerError(f"The servers of the set do not {what}.")
            time.sleep(0.05)


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except RedisError:
        return False


class SentinelSet(LocalSet):
    """One primary, two replicas, three sentinels."""

    def __init__(self, binary: Path, folder: Path) -> None:
        ports = free_ports(1 + REPLICAS + SENTINELS)
        primary, data, watching = ports[0], ports[: 1 + REPLICAS], ports[1 + REPLICAS :]
        replicaof = f"replicaof {HOST} {primary}"
        names = ["primary", *(f"replica-{n}" for n in range(1, REPLICAS + 1))]
        self.members = [
            Member(
                name,
                binary,
                folder / name,
                port,
                (*_DATA, *_OF_SENTINELS, *([] if port == primary else [replicaof])),
            )
            for name, port in zip(names, data, strict=True)
        ]
        self.members += [
            Member(
                f"sentinel-{n}",
                binary,
                folder / f"sentinel-{n}",
                port,
                _watching(primary),
            )
            for n, port in enumerate(watching, start=1)
        ]
        hosts = ",".join(f"{HOST}:{port}" for port in watching)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"

    def _join(self) -> None:
        """The replicas' configuration says whom they follow."""

    def _is_formed(self) -> bool:
        watching = [member for member in self.members if member.is_sentinel]
        return all(map(_knows_all, watching)) and _following(self._data) == REPLICAS


def _watching(primary: int) -> tuple[str, ...]:
    # Sentinels ping once a second. With no more patience than that, the first ping of
    # a new primary may count as missed, and the next failover follows at once.
    quorum = SENTINELS // 2 + 1
    return (
        f"sentinel monitor {SERVICE} {HOST} {primary} {quorum}",
        f"sentinel down-after-milliseconds {SERVICE} 1500",
        f"sentinel failover-timeout {SERVICE} 3000",
        f"sentinel parallel-syncs {SERVICE} 1",
    )


class ClusterSet(LocalSet):
    """Three primaries that share the slots, and a replica of each."""

    def __init__(self, binary: Path, folder: Path) -> None:
        ports = free_ports(4 * PRIMARIES)
        self.members = [
            Member(
                f"node-{n}",
                binary,
                folder / f"node-{n}",
                port,
                (*_DATA, *_OF_CLUSTER, f"cluster-port {bus}"),
            )
            for n, (port, bus) in enumerate(
                zip(ports[::2], ports[1::2], strict=True), start=1
            )
        ]
        self._buses = dict(zip(ports[::2], ports[1::2], strict=True))
        hosts = ",".join(member.address for member in self.members[:PRIMARIES])
        self.url = f"redis+cluster://{hosts}"

    def _join(self) -> None:
        first, *others = self.members
        for n, member in enumerate(self.members[:PRIMARIES]):
            low, high = n * _SLOTS // PRIMARIES, (n + 1) * _SLOTS // PRIMARIES - 1
            member.ask("CLUSTER", "ADDSLOTSRANGE", low, high)
        for n, member in enumerate(self.members, start=1):
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", n)
        for member in others:
            member.ask("CLUSTER", "MEET", HOST, first.port, self._buses[first.port])
        self._await("meet", self._all_met, lambda: None)
        for n, member in enumerate(self.members[PRIMARIES:]):
            member.ask("CLUSTER", "REPLICATE", _id(self.members[n]))

    def _all_met(self) -> bool:
        return all(
            _cluster_info(m).get("cluster_known_nodes") == str(len(self.members))
            for m in self.members
        )

    def _is_formed(self) -> bool:
        if _following(self.members) != len(self.members) - PRIMARIES:
            return False
        for member in self.members:
            if _cluster_info(member)["cluster_state"] != "ok":
                return False
            shards: Any = member.ask("CLUSTER", "SLOTS")
            if sum(len(shard) - 2 for shard in shards) < len(self.members):
                return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody had a moment ago."""
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()


def _id(member: Member) -> str:
    own: Any = member.ask("CLUSTER", "MYID")
    return own.decode() if isinstance(own, bytes) else str(own)


def _following(members: Sequence[Member]) -> int:
    """How many are replicas whose link to their primary is up."""
    count = 0
    for member in members:
        with member.client() as client:
            facts: Any = client.info("replication")
        count += facts.get("master_link_status") == "up"
    return count


def _cluster_info(member: Member) -> dict[str, str]:
    found: Any = member.ask("CLUSTER", "INFO")
    return dict(line.split(":", 1) for line in found.decode().split("\r\n") if line)


def _knows_all(sentinel: Member) -> bool:
    with sentinel.client() as client:
        facts: Any = client.sentinel_master(SERVICE)
    others, replicas = facts["num-other-sentinels"], facts["num-slaves"]
    return bool(others == SENTINELS - 1 and replicas == REPLICAS)


SETS: dict[str, type[SentinelSet] | type[ClusterSet]] = {
    "sentinel": SentinelSet,
    "cluster": ClusterSet,
}
