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
DAY_MS = 24 * HOUR_MS


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
    group="product id or list",
    type="string",
    holds="the random token that all who miss now share; a write deletes it",
    ttl_ms=10_000,
    role="cache",
)
LIST = Family(
    page="catalog",
    part="list",
    group="list",
    type="string",
    holds="a static list as JSON: the categories",
    ttl_ms=DAY_MS + DAY_MS // 10,
    role="cache",
)
TAG = Family(
    page="catalog",
    part="tag",
    group="category",
    type="set",
    holds="ids of products with a copy that is registered with their category",
    ttl_ms=2 * (HOUR_MS + HOUR_MS // 10) + 10_000,  # outlives every copy it names
    role="durable",  # a tag that is evicted would leave its copies behind
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

FIXED_WINDOW = Family(
    page="rate-limits",
    part="fixed-window",
    group="client",
    type="string",
    holds="requests of a client in its window; the TTL is the window",
    ttl_ms=60_000,
    role="durable",
)
SLIDING_WINDOW_LOG = Family(
    page="rate-limits",
    part="sliding-window-log",
    group="client",
    type="zset",
    holds="admitted requests of a client, by the server's time",
    ttl_ms=60_000,
    role="durable",
)
TALLY = Family(
    page="rate-limits",
    part="tally",
    group="client",
    rest="algorithm",
    type="hash",
    holds="how many requests of a client were admitted and rejected",
    ttl_ms=HOUR_MS,
    role="durable",
)
LIMITS_LAB = Family(
    page="rate-limits",
    part="lab",
    group="run id",
    rest="name",
    type="string",
    holds="scratch windows of the lab and of Break it",
    ttl_ms=60_000,
    role="durable",
)
LIMITS_LAB_LOG = Family(
    page="rate-limits",
    part="lab-log",
    group="run id",
    rest="name",
    type="zset",
    holds="scratch logs of the lab and of Break it",
    ttl_ms=60_000,
    role="durable",
)
LIMITS_RUN = Family(
    page="rate-limits",
    part="run",
    group="run id",
    type="stream",
    holds="the requests of a run in the lab, and what was said to them",
    ttl_ms=10 * 60_000,
    role="durable",
)

FAMILIES: tuple[Family, ...] = (
    PRODUCT,
    LEASE,
    LIST,
    TAG,
    LAB,
    FIXED_WINDOW,
    SLIDING_WINDOW_LOG,
    TALLY,
    LIMITS_LAB,
    LIMITS_LAB_LOG,
    LIMITS_RUN,
)


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
