"""What the servers say of themselves: INFO, and how its totals grow."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import RedisError

from webapp.connection import probe
from webapp.connection.urls import probe_client
from webapp.settings import Role

_INFO = ("server", "clients", "memory", "stats", "keyspace")
_READ_TIMEOUT_S = 0.5  # two servers that hang still leave one tick a second


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One role's server; what is not known is None."""

    role: Role
    name: str = ""  # "Valkey 9.1.2"; empty while it has never answered
    up: bool
    ops_per_s: int | None = None
    keys: int | None = None
    evicted_per_s: int | None = None
    memory_used_bytes: int | None = None
    memory_max_bytes: int | None = None  # 0: no limit
    maxmemory_policy: str | None = None
    lacks: list[str] = []  # what it refuses that the app would use, and why
    policies: list[str] = []  # for eviction, that it accepts; empty: not known


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """A command that the vitals themselves cost: housekeeping on the tape."""

    node: Role
    name: str
    args: Sequence[str]
    us: int
    reply: str | None = None  # "text 3.4 KB"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What one server did since it started."""

    run_id: str  # another one each time a server starts
    at_s: float  # monotonic
    commands: int
    hits: int
    misses: int
    evicted: int
    expired: int = 0

    def growth(self, before: "Totals | None") -> "Growth | None":
        """What was added; None where these totals do not continue the earlier ones."""
        if before is None or self.run_id != before.run_id:
            return None
        elapsed_s = self.at_s - before.at_s
        added = Growth(
            ops_per_s=round((self.commands - before.commands) / elapsed_s),
            evicted_per_s=round((self.evicted - before.evicted) / elapsed_s),
            hits=self.hits - before.hits,
            misses=self.misses - before.misses,
            evicted=self.evicted - before.evicted,
            expired=self.expired - before.expired,
        )
        parts = added.ops_per_s, added.evicted_per_s, added.hits, added.misses
        return added if min(parts) >= 0 else None  # CONFIG RESETSTAT sets all to 0


@dataclass(frozen=True, slots=True)
class Growth:
    ops_per_s: int
    evicted_per_s: int
    hits: int
    misses: int
    evicted: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    server: Server
    run_id: str = ""
    clients: int = 0
    growth: Growth | None = None
    spent: Spent | None = None


class Probe:
    """Asks the server of one role; remembers its totals from one answer to the next."""

    def __init__(self, role: Role, url: str) -> None:
        self._role: Role = role
        self._client = probe_client(url, timeout_s=_READ_TIMEOUT_S)
        self._client.response_callbacks.pop("INFO", None)  # its size is shown
        self._name = ""
        self._totals: Totals | None = None
        self._lacks: list[str] = []  # found out once for each start of the server
        self._policies: list[str] = []  # likewise

    def ask(self) -> Answer:
        began = time.perf_counter()
        text, info, error = "", {}, None
        try:
            raw: Any = self._client.execute_command("INFO", *_INFO)
            text = raw.decode(errors="replace")
            info = parse_info(text)
            if self._totals is None or self._totals.run_id != info.get("run_id"):
                self._lacks = probe.lacking(self._client)
                self._policies = probe.policies(self._client)
        except (RedisError, OSError) as failure:
            error = str(failure)
        us = round((time.perf_counter() - began) * 1e6)
        spent = Spent(
            node=self._role,
            name="INFO",
            args=_INFO,
            us=us,
            reply=None if error else f"text {len(text) / 1024:.1f} KB",
            error=error,
        )
        if error is not None:
            down = Server(role=self._role, name=self._name, up=False)
            return Answer(down, spent=spent)
        return self._answer(info, spent)

    def _answer(self, info: Mapping[str, str], spent: Spent) -> Answer:
        totals = Totals(
            run_id=info.get("run_id", ""),
            at_s=time.monotonic(),
            commands=_number(info, "total_commands_processed"),
            hits=_number(info, "keyspace_hits"),
            misses=_number(info, "keyspace_misses"),
            evicted=_number(info, "evicted_keys"),
            expired=_number(info, "expired_keys"),
        )
        growth = totals.growth(self._totals)
        self._totals, self._name = totals, server_name(info)
        server = Server(
            role=self._role,
            name=self._name,
            up=True,
            ops_per_s=growth.ops_per_s if growth else None,
            keys=_keys(info),
            evicted_per_s=growth.evicted_per_s if growth else None,
            memory_used_bytes=_number(info, "used_memory"),
            memory_max_bytes=_number(info, "maxmemory"),
            maxmemory_policy=info.get("maxmemory_policy"),
            lacks=self._lacks,
            policies=self._policies,
        )
        clients = _number(info, "connected_clients")
        return Answer(server, totals.run_id, clients, growth, spent)


class Imitation:
    """Stands where a server would be that lives inside a worker."""

    def __init__(self, role: Role) -> None:
        self._answer = Answer(Server(role=role, name="fakeredis", up=True))

    def ask(self) -> Answer:
        return self._answer


def distinct(answers: Iterable[Answer]) -> list[Answer]:
    """One answer a server that is up: two roles may share one."""
    up = (a for a in answers if a.server.up and a.spent)
    return list({a.run_id or a.server.role: a for a in up}.values())


def parse_info(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def server_name(info: Mapping[str, str]) -> str:
    """Valkey says that it is a Redis 7.2.4 too."""
    if version := info.get("valkey_version"):
        return f"Valkey {version}"
    return f"Redis {info.get('redis_version', '')}".strip()


def _number(info: Mapping[str, str], name: str) -> int:
    """A field of INFO; hosted servers leave some out, which then count as 0."""
    return int(info.get(name, 0))


def _keys(info: Mapping[str, str]) -> int:
    """Keys in all databases: `db0:keys=12,expires=3,avg_ttl=0`."""
    databases = (
        v for name, v in info.items() if name[:2] == "db" and name[2:].isdigit()
    )
    return sum(int(v.split(",")[0].removeprefix("keys=")) for v in databases)


def total_ops_per_s(answers: Sequence[Answer]) -> int | None:
    known = [a.growth.ops_per_s for a in distinct(answers) if a.growth]
    return sum(known) if known else None
