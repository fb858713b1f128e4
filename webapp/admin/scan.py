"""The keyspace a page at a time: SCAN, then all facts about what it found.

Two round trips a page. SCAN looks at about as many keys as it is told, so a page costs
a bounded time however large the keyspace is. TYPE, PTTL, MEMORY USAGE and OBJECT leave
the keys' LRU and LFU figures alone; they do count as hits in the server's statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import redis
from redis.crc import key_slot

from webapp import keys
from webapp.admin import names

TYPES = ("string", "hash", "list", "set", "zset", "stream")
FIRST_STEP = 100
LARGEST_STEP = 1000
_FEW = 10  # per cent of what SCAN looked at: it may look at more next time

LONGEST_PATTERN = 128
_MOST_STARS = 3
_FACTS = 4  # commands a key


class BadPattern(ValueError):
    """A pattern that could keep the server busy; the text says what is taken."""


@dataclass(frozen=True)
class Query:
    pattern: str
    type: str = ""  # one of TYPES; empty: any
    cursor: int = 0
    step: int = FIRST_STEP
    scanned: int = 0  # keys looked at by the pages before


@dataclass(frozen=True)
class Row:
    name: bytes
    family: keys.Family | None
    type: str  # as TYPE says it; "none": the key has just gone
    ttl_ms: int | None  # None: no expiry
    memory_bytes: int | None  # None: the server cannot tell
    encoding: str
    slot: int
    is_ours: bool  # under our namespace
    breaks: tuple[str, ...]  # of the contract of its family

    @property
    def shown(self) -> str:
        return names.shown(self.name, self.family)

    @property
    def link(self) -> str:
        """What forms and URLs call it; empty: it is secret, or too long."""
        secret = self.family is not None and self.family.secret
        too_long = len(self.name) > names.LONGEST
        return "" if secret or too_long else names.written(self.name)

    @property
    def may_change(self) -> bool:
        """Ours, and not the record of what admins did."""
        return self.is_ours and self.family is not keys.AUDIT

    @property
    def ttl_max_ms(self) -> int:
        longest = (self.family.ttl_ms if self.family else None) or 0
        return max(longest, self.ttl_ms or 0)


@dataclass(frozen=True)
class Page:
    rows: list[Row]
    keys_count: int  # in the whole database, ours and others
    scanned: int
    next: Query | None  # None: all is scanned


@dataclass(frozen=True)
class Place:
    """Whose keys these are, and where they are."""

    namespace: str
    role: str
    shared: bool  # both roles are on one server


def check(pattern: str) -> str:
    """The pattern. Raises BadPattern."""
    if len(pattern) > LONGEST_PATTERN:
        raise BadPattern(f"At most {LONGEST_PATTERN} characters.")
    if pattern.count("*") > _MOST_STARS:
        raise BadPattern(f"At most {_MOST_STARS} stars.")
    return pattern


def page(client: redis.Redis, place: Place, query: Query) -> Page:
    """The next keys that match (two round trips). Raises redis.RedisError."""
    pipeline = client.pipeline(transaction=False)
    pipeline.dbsize()
    pipeline.scan(
        query.cursor,
        match=query.pattern or None,
        count=query.step,
        _type=query.type or None,
    )
    count, (cursor, found) = pipeline.execute()
    found = list(dict.fromkeys(found))  # SCAN may say a key twice
    scanned = min(query.scanned + query.step, count) if cursor else count
    few = len(found) * 100 < query.step * _FEW
    step = min(query.step * 10, LARGEST_STEP) if few else FIRST_STEP
    more = Query(query.pattern, query.type, int(cursor), step, scanned)
    return Page(rows(client, place, found), count, scanned, more if cursor else None)


def rows(client: redis.Redis, place: Place, found: Sequence[bytes]) -> list[Row]:
    """Those of the keys that exist, in the given order (one round trip)."""
    if not found:
        return []
    pipeline = client.pipeline(transaction=False)
    for name in found:
        pipeline.type(name)
        pipeline.pttl(name)
        pipeline.memory_usage(name)
        pipeline.object("ENCODING", name)
    replies = pipeline.execute(raise_on_error=False)
    facts = [replies[i : i + _FACTS] for i in range(0, len(replies), _FACTS)]
    made = (_row(n, place, *fact) for n, fact in zip(found, facts, strict=True))
    return [row for row in made if row.type != "none"]


def _row(
    name: bytes, place: Place, kind: object, ttl: object, memory: object, enc: object
) -> Row:
    family = family_of(place.namespace, name)
    type_ = kind.decode() if isinstance(kind, bytes) else "none"
    ttl_ms = ttl if isinstance(ttl, int) and ttl >= 0 else None
    is_ours = name.startswith(f"{place.namespace}:".encode())
    return Row(
        name=name,
        family=family,
        type="none" if ttl == -2 else type_,
        ttl_ms=ttl_ms,
        memory_bytes=memory if isinstance(memory, int) else None,
        encoding=enc.decode(errors="replace") if isinstance(enc, bytes) else "",
        slot=key_slot(name),
        is_ours=is_ours,
        breaks=_breaks(family, type_, ttl_ms, place) if is_ours else (),
    )


def family_of(namespace: str, name: bytes) -> keys.Family | None:
    return keys.family_of(namespace, name.decode("utf-8", "surrogateescape"))


def _breaks(
    family: keys.Family | None, type_: str, ttl_ms: int | None, place: Place
) -> tuple[str, ...]:
    if family is None:
        return ("unknown family",)
    wanted = "string" if family.type == "hyperloglog" else family.type
    longest = family.ttl_ms
    broken = {
        "no TTL": longest is not None and ttl_ms is None,
        "TTL too long": longest is not None and ttl_ms is not None and ttl_ms > longest,
        f"not a {family.type}": type_ != wanted,
        f"belongs on {family.role}": not place.shared and family.role != place.role,
    }
    return tuple(text for text, holds in broken.items() if holds)
