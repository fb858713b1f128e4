"""What Redis knows of the order pipeline at one moment, in two round trips."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from webapp.patterns.streams.consumer_group import number_of, origin_of
from webapp.patterns.streams.dead_letters import Letter, letter
from webapp.shop.orders import BILLING, Orders

_DONE = re.compile(rb"(\S+) (\d{1,9}) (\d{1,9}) (\d{1,15})")
_NEWEST = 200  # entries that are looked at
_PENDING = 100
_LETTERS = 20
_CLAIMS = 50
_CLAIM = ("id", "from", "by")


@dataclass(frozen=True)
class Entry:
    id: str
    number: int
    origin: str

    @property
    def at_ms(self) -> int:
        """When it was added, by the server's clock."""
        return ms_of(self.id)


@dataclass(frozen=True)
class Done:
    """An order that was handled."""

    worker: str
    began_ms: int
    ended_ms: int
    deliveries: int


@dataclass(frozen=True)
class Held:
    """A pending entry."""

    id: str
    consumer: str
    idle_ms: int
    deliveries: int


@dataclass(frozen=True)
class Claim:
    id: str
    at_ms: int
    taken_from: str
    by: str


@dataclass(frozen=True)
class GroupNow:
    name: str
    consumers: int
    pending: int
    last: str  # id delivered last
    lag: int | None  # entries it has not read; None: the server cannot tell


@dataclass(frozen=True)
class Survey:
    now_ms: int = 0  # by the server's clock
    length: int = 0
    entries: list[Entry] = field(default_factory=list)  # the newest first
    done: Mapping[str, Done] = field(default_factory=dict)  # by entry id, billing
    buried: frozenset[str] = frozenset()  # entry ids, billing
    held: list[Held] = field(default_factory=list)  # billing, the oldest first
    groups: Mapping[str, GroupNow] = field(default_factory=dict)
    seen_ms: Mapping[str, int] = field(
        default_factory=dict
    )  # ago, by consumer, billing
    letters_count: int = 0
    letters: list[Letter] = field(default_factory=list)  # the newest first
    claims: list[Claim] = field(default_factory=list)  # the newest first


def ms_of(id: str) -> int:
    """1795385319442-0 -> 1795385319442."""
    return int(id.partition("-")[0])


def survey(orders: Orders) -> Survey:
    """Look at everything. Raises redis.RedisError."""
    with orders.client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.xlen(orders.stream)
        pipeline.xrevrange(orders.stream, count=_NEWEST)
        pipeline.xinfo_groups(orders.stream)
        pipeline.xinfo_consumers(orders.stream, BILLING)
        pipeline.xpending_range(orders.stream, BILLING, "-", "+", _PENDING)
        pipeline.xlen(orders.dead)
        pipeline.xrevrange(orders.dead, count=_LETTERS)
        pipeline.xrevrange(orders.claims, count=_CLAIMS)
        replies = [_or_none(r) for r in pipeline.execute(raise_on_error=False)]
    time, length, found, groups, consumers, pending, dead, letters, claims = replies
    entries = [Entry(id.decode(), number_of(e), origin_of(id, e)) for id, e in found]
    outcomes = _outcomes(orders, entries)
    return Survey(
        now_ms=int(time[0]) * 1000 + int(time[1]) // 1000,
        length=length,
        entries=entries,
        done={id: done for id, text in outcomes.items() if (done := _done(text))},
        buried=frozenset(id for id, text in outcomes.items() if text == b"dead"),
        held=[_held(one) for one in pending],
        groups={name: now for one in groups for name, now in [_group(one)]},
        seen_ms={_name(one["name"]): one["idle"] for one in consumers},
        letters_count=dead,
        letters=[letter(id, fields) for id, fields in letters],
        claims=[_claim(id, fields) for id, fields in claims],
    )


def _or_none(reply: Any) -> Any:
    """Nothing instead of the error that there is no stream or group yet."""
    if isinstance(reply, ResponseError):
        return []
    if isinstance(reply, Exception):
        raise reply
    return reply


def _outcomes(orders: Orders, entries: Sequence[Entry]) -> dict[str, bytes]:
    if not entries:
        return {}
    names = [orders.outcome(BILLING, entry.origin) for entry in entries]
    found: Any = orders.client.mget(names)
    return {e.id: text for e, text in zip(entries, found, strict=True) if text}


def _name(bytes: bytes) -> str:
    """Anybody may call a consumer or a group anything."""
    return bytes.decode(errors="replace")


def _done(text: bytes) -> Done | None:
    """b"worker-1 3004 1 1795385319442"; what is dead has fewer words."""
    found = _DONE.fullmatch(text)
    if found is None:
        return None
    took_ms, deliveries, ended_ms = map(int, found.groups()[1:])
    return Done(_name(found[1]), ended_ms - took_ms, ended_ms, deliveries)


def _held(one: Mapping[str, Any]) -> Held:
    return Held(
        id=one["message_id"].decode(),
        consumer=_name(one["consumer"]),
        idle_ms=one["time_since_delivered"],
        deliveries=one["times_delivered"],
    )


def _group(one: Mapping[str, Any]) -> tuple[str, GroupNow]:
    name = _name(one["name"])
    last = one["last-delivered-id"].decode()
    return name, GroupNow(name, one["consumers"], one["pending"], last, one.get("lag"))


def _claim(id: bytes, fields: Mapping[bytes, bytes]) -> Claim:
    told = {name: _name(fields.get(name.encode(), b"")) for name in _CLAIM}
    return Claim(told["id"], ms_of(id.decode()), told["from"], told["by"])
