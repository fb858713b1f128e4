"""The eviction settings of the cache server: as they are, and the two that may change.

Nothing but maxmemory and maxmemory-policy can be set, each within typed bounds. A
change lasts until the server starts again: its configuration file is left alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.connection import probe
from webapp.connection.roles import Clients

POLICY = "maxmemory-policy"
LIMIT = "maxmemory"
MB = 1024 * 1024
LEAST_MB = 1
_HEADROOM = 1.2  # a limit below used memory times this is told before it is set
_SIZE = re.compile(r"([0-9]{1,15})(B?)")
_SECTIONS = ("server", "memory", "stats", "keyspace")
_SETTINGS = (LIMIT, POLICY, "maxmemory-samples")

_LEAVES = {
    "lru": "the key that was idle longest",
    "lfu": "the key that is read least often",
    "lrm": "the key that was written longest ago",
    "random": "any key",
    "ttl": "the key that is closest to its end",
}
BEST_FOR = {
    "noeviction": "queues, and what must not be lost",
    "allkeys-lru": "a general cache",
    "allkeys-lfu": "a cache where a few keys get most reads",
    "allkeys-lrm": "a cache that should keep what was written lately",
    "allkeys-random": "a cache where all keys are read alike",
    "volatile-lru": "a mixed store: only keys with a TTL may go",
    "volatile-lfu": "a mixed store with a few hot keys",
    "volatile-lrm": "a mixed store where old writes may go",
    "volatile-random": "a mixed store where all keys are read alike",
    "volatile-ttl": "long-lived data: what ends soon goes first",
}


class Refused(ValueError):
    """A change that is not made; the text says why."""


@dataclass(frozen=True)
class State:
    used_bytes: int  # of what counts against the limit
    limit_bytes: int  # 0: no limit
    policy: str
    samples: int
    policies: list[str]  # that this server accepts
    keys: int
    with_ttl: int
    system_bytes: int  # of the machine; 0: not known
    totals: Mapping[str, int]  # evicted, expired, hits, misses, since the start
    locked: str = ""  # why nothing can be changed here

    @property
    def each_bytes(self) -> float:
        """What a key takes, all in all."""
        return self.used_bytes / self.keys if self.keys else 0.0

    @property
    def most_mb(self) -> int:
        return (self.system_bytes or 64 * 1024 * MB) // MB


@dataclass(frozen=True)
class Change:
    name: str
    before: str
    after: str
    typed: str  # what confirms it
    effects: list[str]
    evict_bytes: int  # that have to go at once
    severe: bool  # keys go at once, or writes may fail

    @property
    def command(self) -> str:
        return f"CONFIG SET {self.name} {self.after}"


def read(clients: Clients) -> State:
    """The settings of the cache server. Raises redis.RedisError."""
    pipeline = clients.cache.pipeline(transaction=False)
    pipeline.info(*_SECTIONS)
    pipeline.config_get(*_SETTINGS)
    pipeline.execute_command(*probe.ASK_POLICIES)
    info, settings, refusal = pipeline.execute(raise_on_error=False)
    for reply in (info, settings):
        if isinstance(reply, RedisError):
            raise Refused(f"This server does not tell its settings: {reply}")
    policies = probe.policies_in(str(refusal))
    return _state(info, settings, policies, locked=_lock(clients, info, policies))


def _state(
    info: dict[str, Any], settings: dict[str, str], policies: list[str], *, locked: str
) -> State:
    databases = [v for k, v in info.items() if k.startswith("db") and k[2:].isdigit()]
    outside = int(info.get("mem_not_counted_for_evict", 0))
    totals = {
        "evicted": int(info.get("evicted_keys", 0)),
        "expired": int(info.get("expired_keys", 0)),
        "hits": int(info.get("keyspace_hits", 0)),
        "misses": int(info.get("keyspace_misses", 0)),
    }
    return State(
        used_bytes=int(info.get("used_memory", 0)) - outside,
        limit_bytes=int(settings.get(LIMIT, 0)),
        policy=settings.get(POLICY, ""),
        samples=int(settings.get("maxmemory-samples", 0)),
        policies=policies,
        keys=sum(int(d["keys"]) for d in databases),
        with_ttl=sum(int(d["expires"]) for d in databases),
        system_bytes=int(info.get("total_system_memory", 0)),
        totals=totals,
        locked=locked,
    )


def _lock(clients: Clients, info: dict[str, Any], policies: list[str]) -> str:
    if not policies:
        return "This server does not let its settings be changed."
    try:
        other = clients.durable.info("server")
    except RedisError:
        return "The durable server does not answer, so no change could be recorded."
    if other.get("run_id") == info.get("run_id"):
        return (
            "Both roles share this server: what it evicts could be a session or a "
            "lock. Give the cache a server of its own with REDIS_CACHE_URL."
        )
    return ""


def propose(now: State, name: str, value: str) -> Change:
    """What a change would do, before it is made. Raises Refused."""
    if name not in (LIMIT, POLICY):
        raise Refused(f"Only {LIMIT} and {POLICY} can be set here.")
    if now.locked:
        raise Refused(now.locked)
    change = _limit(now, value) if name == LIMIT else _policy(now, value)
    if change.after == change.before:
        raise Refused(f"{name} is {value} already.")
    return change


def allowed(name: str) -> bool:
    """Known before the server is asked anything."""
    return name in (LIMIT, POLICY)


def _limit(now: State, value: str) -> Change:
    """`value` is a number of megabytes, or of bytes if a B follows; 0: no limit."""
    limit = _bytes(value)
    if limit is None:
        raise Refused("A whole number of megabytes.")
    if limit and not LEAST_MB * MB <= limit <= now.most_mb * MB:
        raise Refused(f"From {LEAST_MB} to {now.most_mb:,} MB.")
    evict = max(0, now.used_bytes - limit) if limit else 0
    effects = _effects_of_limit(now, limit, evict)
    severe = limit < now.used_bytes * _HEADROOM
    before = str(now.limit_bytes)
    return Change(LIMIT, before, str(limit), value, effects, evict, severe)


def _bytes(value: str) -> int | None:
    found = _SIZE.fullmatch(value)
    return int(found[1]) * (1 if found[2] else MB) if found else None


def _effects_of_limit(now: State, limit: int, evict: int) -> list[str]:
    if not limit:
        return ["No limit: memory grows until the machine has none left."]
    if evict:
        size = f"{evict / MB:.1f} MB"
        goes = can_go(now, now.policy)
        if not goes:
            return [f"Used memory is {size} over the limit, and no key may go.", _FAILS]
        about = min(goes, round(evict / now.each_bytes)) if now.each_bytes else 0
        effects = [f"{size} leave at once: about {about:,} of {now.keys:,} keys."]
        if goes * now.each_bytes < evict:
            effects.append(f"Only {goes:,} keys may go. {_FAILS}")
        return effects
    room = limit - now.used_bytes
    effects = [f"Nothing leaves now: {room / MB:.1f} MB stay free."]
    if limit < now.used_bytes * _HEADROOM:
        percent = 100 * room / limit
        effects.append(f"That is {percent:.0f} % of the limit: eviction starts soon.")
    return effects


_FAILS = "Writes that need memory fail with OOM."


def _policy(now: State, value: str) -> Change:
    if value not in now.policies:
        raise Refused(f"One of {', '.join(now.policies)}.")
    goes = can_go(now, value)
    evict = max(0, now.used_bytes - now.limit_bytes) if now.limit_bytes else 0
    fails = not goes and bool(now.keys)
    effects = [outlook(now, value)]
    effects.append("No key leaves now." if not evict else f"{evict:,} B leave at once.")
    severe = fails or evict > 0
    return Change(POLICY, now.policy, value, value, effects, evict, severe)


def apply(client: redis.Redis, change: Change) -> None:
    """Set it. Raises Refused with what the server said."""
    try:
        client.config_set(change.name, change.after)
    except ResponseError as error:
        raise Refused(f"The server refused: {error}") from error


def can_go(now: State, policy: str) -> int:
    """How many of the keys this policy may evict."""
    if policy == "noeviction":
        return 0
    return now.with_ttl if policy.startswith("volatile-") else now.keys


def outlook(now: State, policy: str) -> str:
    """What the policy would do to this keyspace, in words."""
    if policy == "noeviction":
        if not now.limit_bytes:
            return "Nothing leaves, and there is no limit."
        room = max(0, now.limit_bytes - now.used_bytes) / MB
        return f"Nothing leaves. After {room:.1f} MB more, writes fail with OOM."
    group, _, kind = policy.partition("-")
    leaves = _LEAVES.get(kind, "a key")
    if group == "allkeys":
        return f"{leaves.capitalize()} leaves, of all {now.keys:,}."
    if not now.with_ttl:
        return "No key has a TTL, so nothing leaves: writes fail with OOM."
    rest = now.keys - now.with_ttl
    text = f"{leaves.capitalize()} leaves, of {now.with_ttl:,} with a TTL."
    return f"{text} {rest:,} without stay." if rest else text
