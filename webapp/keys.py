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
_DIGEST = re.compile(r"\{([0-9a-f]{8})[0-9a-f]{56}\}")

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS


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
FILTER = Family(
    page="catalog",
    part="filter",
    group="what",
    type="string",
    holds="a Bloom filter of all product ids, and a bit that says it is whole",
    ttl_ms=DAY_MS,
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

SESSION = Family(
    page="sessions",
    part="session",
    group="hash of the id",
    type="hash",
    holds="who is signed in, on which device; named by the SHA-256 of the cookie's id",
    ttl_ms=DAY_MS,
    role="durable",
    secret=True,
)
USER_SESSIONS = Family(
    page="sessions",
    part="user",
    group="user id",
    type="zset",
    holds="a user's sessions, scored by the ms at which each ends in any case",
    ttl_ms=WEEK_MS,
    role="durable",
    secret=True,
)
CODE = Family(
    page="sessions",
    part="code",
    group="hash of the code",
    type="string",
    holds="the session that a one-time code signs in from",
    ttl_ms=5 * 60_000,
    role="durable",
    secret=True,
)
ATTEMPTS = Family(
    page="sessions",
    part="attempts",
    group="kind and hash",
    type="string",
    holds="how often an address or an account was tried in this window",
    ttl_ms=60_000,
    role="durable",
)
SESSIONS_LAB = Family(
    page="sessions",
    part="lab",
    group="run id",
    rest="name",
    type="hash",
    holds="scratch sessions of Break it",
    ttl_ms=60_000,
    role="durable",
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

LOCK = Family(
    page="locks",
    part="lock",
    group="resource",
    type="string",
    holds="the random token of who holds the lock; the TTL is the lease",
    ttl_ms=30_000,
    role="durable",
)
FENCE = Family(
    page="locks",
    part="fence",
    group="resource",
    type="string",
    holds="the number minted last, never below the server's time in microseconds",
    ttl_ms=DAY_MS,
    role="durable",
)
WAKE = Family(
    page="locks",
    part="wake",
    group="resource",
    type="list",
    holds="a wake-up for one who waits for the lock",
    ttl_ms=30_000,
    role="durable",
)
JOURNAL = Family(
    page="locks",
    part="journal",
    group="resource",
    type="stream",
    holds="who took, wrote and released, the last 200 times: the lanes",
    ttl_ms=10 * 60_000,
    role="durable",
)
LOCKS_LAB = Family(
    page="locks",
    part="lab",
    group="run id",
    rest="name",
    type="string",
    holds="scratch locks, numbers and stocks of Break it",
    ttl_ms=60_000,
    role="durable",
)
LOCKS_LAB_WAKE = Family(
    page="locks",
    part="lab-wake",
    group="run id",
    rest="name",
    type="list",
    holds="scratch wake-ups of Break it",
    ttl_ms=60_000,
    role="durable",
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
WEEK = Family(
    page="leaderboard",
    part="week",
    group="season",
    rest="week",
    type="zset",
    holds="one week's scores, player -> points",
    ttl_ms=WEEK_MS + DAY_MS,
    role="durable",
)
OPERATION = Family(
    page="leaderboard",
    part="op",
    group="season",
    rest="operation id",
    type="string",
    holds="what an operation added, and what was answered",
    ttl_ms=DAY_MS,
    role="durable",
)
ENDED = Family(
    page="leaderboard",
    part="ended",
    group="season",
    rest="quarter",
    type="zset",
    holds="the season's ended weeks added up",
    ttl_ms=16 * WEEK_MS,
    role="durable",
)
SEASON = Family(
    page="leaderboard",
    part="season",
    group="season",
    rest="quarter",
    type="zset",
    holds="ended weeks and running week added up; made anew when it is looked at",
    ttl_ms=60_000,
    role="durable",
)
CROWD = Family(
    page="leaderboard",
    part="crowd",
    group="season",
    type="zset",
    holds="up to a million made-up players, on demand",
    ttl_ms=HOUR_MS,
    role="durable",
)
BOARD_LAB = Family(
    page="leaderboard",
    part="lab",
    group="run id",
    rest="name",
    type="zset",
    holds="scratch boards of Break it",
    ttl_ms=60_000,
    role="cache",
)
DAY_HLL = Family(
    page="visitors",
    part="hll",
    group="visits",
    rest="day",
    type="hyperloglog",
    holds="the visitors of a day, estimated",
    ttl_ms=9 * DAY_MS,
    role="durable",
)
DAY_SET = Family(
    page="visitors",
    part="set",
    group="visits",
    rest="day",
    type="set",
    holds="the visitors of a day, exact: random ids from their cookies",
    ttl_ms=9 * DAY_MS,
    role="durable",
)
WEEK_HLL = Family(
    page="visitors",
    part="week-hll",
    group="visits",
    type="hyperloglog",
    holds="seven days merged; made anew when it is looked at",
    ttl_ms=60_000,
    role="durable",
)
WEEK_SET = Family(
    page="visitors",
    part="week-set",
    group="visits",
    type="set",
    holds="the union of seven days; made anew when it is looked at",
    ttl_ms=60_000,
    role="durable",
)
SIMULATED_HLL = Family(
    page="visitors",
    part="simulated-hll",
    group="run id",
    type="hyperloglog",
    holds="made-up visitors, estimated",
    ttl_ms=600_000,
    role="cache",
)
SIMULATED_SET = Family(
    page="visitors",
    part="simulated-set",
    group="run id",
    type="set",
    holds="made-up visitors, exact",
    ttl_ms=600_000,
    role="cache",
)
CURVE = Family(
    page="visitors",
    part="curve",
    group="run id",
    type="list",
    holds="how the counts of made-up visitors went, a point every thousand",
    ttl_ms=600_000,
    role="cache",
)
VISITORS_LAB = Family(
    page="visitors",
    part="lab",
    group="run id",
    rest="name",
    type="hyperloglog",
    holds="scratch counters of Break it",
    ttl_ms=60_000,
    role="cache",
)
ACTIVITY = Family(
    page="activity",
    part="user",
    group="user id",
    type="list",
    holds="what a visitor did last, at most 50 entries: kind, product id and ms",
    ttl_ms=WEEK_MS,
    role="durable",
)
ACTIVITY_LAB = Family(
    page="activity",
    part="lab",
    group="run id",
    rest="name",
    type="list",
    holds="scratch lists of Break it",
    ttl_ms=60_000,
    role="durable",
)
ACCOUNT = Family(
    page="atomicity",
    part="account",
    group="bank",
    rest="name",
    type="string",
    holds="a shopper's store credit in whole euros",
    ttl_ms=DAY_MS,
    role="durable",
)
ATOMICITY_LAB = Family(
    page="atomicity",
    part="lab",
    group="run id",
    rest="name",
    type="string",
    holds="scratch balances of Break it and of the race",
    ttl_ms=60_000,
    role="durable",
)

TOPOLOGY_LAB = Family(
    page="topology",
    part="lab",
    group="run id",
    rest="name",
    type="list",
    holds="what a client wrote while a primary went, to see what is left",
    ttl_ms=60_000,
    role="durable",
)

AUDIT = Family(
    page="admin",
    part="audit",
    group="log",
    type="stream",
    holds="what admins changed, the last 1,000 times",
    ttl_ms=None,
    forever_because="none: a record that ends by itself is no record; it is capped",
    role="durable",
)

FAMILIES: tuple[Family, ...] = (
    PRODUCT,
    LEASE,
    LIST,
    TAG,
    FILTER,
    LAB,
    SESSION,
    USER_SESSIONS,
    CODE,
    ATTEMPTS,
    SESSIONS_LAB,
    FIXED_WINDOW,
    SLIDING_WINDOW_LOG,
    TALLY,
    LIMITS_LAB,
    LIMITS_LAB_LOG,
    LIMITS_RUN,
    LOCK,
    FENCE,
    WAKE,
    JOURNAL,
    LOCKS_LAB,
    LOCKS_LAB_WAKE,
    FEED,
    FEED_LAB,
    WEEK,
    OPERATION,
    ENDED,
    SEASON,
    CROWD,
    BOARD_LAB,
    DAY_HLL,
    DAY_SET,
    WEEK_HLL,
    WEEK_SET,
    SIMULATED_HLL,
    SIMULATED_SET,
    CURVE,
    VISITORS_LAB,
    ACTIVITY,
    ACTIVITY_LAB,
    ACCOUNT,
    ATOMICITY_LAB,
    TOPOLOGY_LAB,
    AUDIT,
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


def shown(key: str) -> str:
    """The key as people see it: of a digest only the first eight characters."""
    return _DIGEST.sub(r"{\1…}", key)


def hashed(key: str) -> tuple[int, int]:
    """Where the part that chooses the slot begins and ends: in the first braces.

    All of the key counts where there are none, or nothing in them.
    """
    start = key.find("{") + 1
    end = key.find("}", start)
    return (start, end) if start and end > start else (0, len(key))


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
    if ms >= 2 * DAY_MS:
        return f"{ms // DAY_MS} days"
    if ms >= 2 * HOUR_MS:
        return f"{ms // HOUR_MS} h"
    if ms >= 2 * 60_000:
        return f"{ms // 60_000} min"
    return f"{ms // 1000} s"
