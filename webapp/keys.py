"""The key registry: every key family this app may write, and how its keys are built.

Grammar: `<namespace>:<page>:<part>:{<group>}[:<rest>]`. The braces choose the Cluster
slot, so whatever must change in one step shares a group.
"""

import re
from typing import Literal

import msgspec
from redis.crc import key_slot

Type = Literal["string", "hash", "list", "set", "zset", "stream", "hyperloglog"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(
    r"(?P<namespace>[^:{}]+):(?P<page>[^:{}]+):(?P<part>[^:{}]+):"
    r"\{(?P<group>[^{}]+)\}(?::(?P<rest>.+))?"
)

HOUR_MS = 3_600_000


class Family(msgspec.Struct, frozen=True, kw_only=True):
    page: str  # whose page it belongs to
    part: str
    group: str  # what stands in the braces, for people
    type: Type
    holds: str  # what is in it, for people
    ttl_ms: int | None  # the longest it can live; None: `forever_because` says why
    role: Literal["cache", "durable"]
    rest: str = ""  # what follows the group, for people; empty: nothing
    forever_because: str = ""
    secret: bool = False  # values are hidden wherever commands or keys are shown

    def grammar(self, namespace: str) -> str:
        tail = f":<{self.rest}>" if self.rest else ""
        return f"{namespace}:{self.page}:{self.part}:{{<{self.group}>}}{tail}"


PRODUCT = Family(
    page="catalog",
    part="product",
    group="product id",
    type="string",
    holds="a product page as JSON; `null` where there is no such product",
    ttl_ms=HOUR_MS + HOUR_MS // 10,
    role="cache",
)
LEASE = Family(
    page="catalog",
    part="lease",
    group="product id",
    type="string",
    holds="the random token that all who miss now share; a write deletes it",
    ttl_ms=10_000,
    role="cache",
)
LAB = Family(
    page="catalog",
    part="lab",
    group="run id",
    rest="name",
    type="string",
    holds="scratch values of Break it",
    ttl_ms=60_000,
    role="cache",
)
FEED = Family(
    page="feed",
    part="events",
    group="feed",
    type="stream",
    holds="the last 1,000 events of a feed; its name is the pub/sub channel too",
    ttl_ms=24 * HOUR_MS,
    role="durable",
)
FEED_LAB = Family(
    page="feed",
    part="lab",
    group="run id",
    rest="name",
    type="stream",
    holds="scratch feeds of Break it",
    ttl_ms=60_000,
    role="durable",
)

FAMILIES: tuple[Family, ...] = (PRODUCT, LEASE, LAB, FEED, FEED_LAB)


class BadName(ValueError):
    """A part of a key that could break its grammar."""


def key(namespace: str, family: Family, group: int | str, rest: str = "") -> str:
    """Build a key. Raises BadName for anything but a plain id or name."""
    if rest and not family.rest:
        raise BadName(f"{family.part} keys end with their group, not with {rest!r}")
    for name in (str(group), rest) if family.rest else (str(group),):
        if not _NAME.fullmatch(name):
            raise BadName(f"not a name: {name[:64]!r}")
    tail = f":{rest}" if family.rest else ""
    return f"{namespace}:{family.page}:{family.part}:{{{group}}}{tail}"


def family_of(namespace: str, key: str) -> Family | None:
    """The family that a key of this namespace belongs to, if any."""
    found = _KEY.fullmatch(key)
    if found is None or found["namespace"] != namespace:
        return None
    for family in FAMILIES:
        same = (family.page, family.part) == (found["page"], found["part"])
        if same and bool(family.rest) == bool(found["rest"]):
            return family
    return None


def slot(key: str) -> int:
    """The Cluster slot, 0 to 16383, also where there is no cluster."""
    return key_slot(key.encode())


def table(namespace: str) -> str:
    """The registry as a Markdown table."""
    rows = ["| key | type | holds | TTL | role |", "|---|---|---|---|---|"]
    for f in FAMILIES:
        ttl = f"at most {_span(f.ttl_ms)}" if f.ttl_ms else f.forever_because
        grammar = f.grammar(namespace)
        rows.append(f"| `{grammar}` | {f.type} | {f.holds} | {ttl} | {f.role} |")
    return "\n".join(rows)


def _span(ms: int) -> str:
    if ms >= 2 * 60_000:
        return f"{ms // 60_000} min"
    return f"{ms // 1000} s"
