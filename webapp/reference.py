"""The reference tables: what each use case, TTL, policy and pattern is in this app."""

from dataclasses import dataclass

from webapp import keys
from webapp.rooms import PAGES


@dataclass(frozen=True)
class Place:
    """A page, a variant of one, or a part of either."""

    url: str
    title: str


@dataclass(frozen=True)
class UseCase:
    name: str
    structure: str
    example: str  # a key as the reference writes it
    part: tuple[str, ...]  # "page:part" of the key families that play it here


@dataclass(frozen=True)
class SuggestedTtl:
    data: str
    suggested: str
    part: tuple[str, ...]
    reason: str  # why the one set here is what it is


@dataclass(frozen=True)
class Policy:
    name: str
    behaviour: str
    best_for: str


@dataclass(frozen=True)
class AntiPattern:
    name: str
    problem: str
    fix: str
    here: str  # what this app does instead
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Pattern:
    name: str
    use: str
    place: Place


@dataclass(frozen=True)
class KeyName:
    grammar: str
    example: str
    part: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    text: str
    here: str  # how to see it
    places: tuple[Place, ...]


def _page(url: str) -> Place:
    return Place(url, next(page.title for page in PAGES if page.url == url))


CATALOG = _page("/catalog")
RESPONSE_CACHE = Place("/catalog?variant=response-cache", "Response cache")
BLOOM_FILTER = Place("/catalog?variant=bloom-filter", "Bloom filter")
SERVERS = Place("/topology#nodes-title", "Servers and policies")
POOLS = Place("/topology#pools-title", "Connection pools")

# Where a family is used, if not all over its page.
_PLACES = {"catalog:response": RESPONSE_CACHE, "catalog:filter": BLOOM_FILTER}

USE_CASES = (
    UseCase("Simple cache", "String", "product:123", ("catalog:product",)),
    UseCase("User session", "Hash", "session:abc", ("sessions:session",)),
    UseCase("Leaderboard", "Sorted Set", "scores:weekly", ("leaderboard:week",)),
    UseCase("Unique visitors", "Set", "visitors:2024-01-01", ("visitors:set",)),
    UseCase("Activity feed", "List", "feed:user:456", ("activity:user",)),
    UseCase(
        "Event stream", "Stream", "events:orders", ("streams:stream", "feed:events")
    ),
    UseCase(
        "Counters, rate limits",
        "String (INCR)",
        "ratelimit:user:123",
        ("rate-limits:fixed-window",),
    ),
    UseCase(
        "Bloom filter, HyperLogLog",
        "HyperLogLog (a Bloom filter needs a bitmap or a module)",
        "hll:pageviews",
        ("visitors:hll", "catalog:filter"),
    ),
)
TTLS = (
    SuggestedTtl(
        "User session",
        "24 h",
        ("sessions:session",),
        "A day without a click ends it; each use begins the day anew.",
    ),
    SuggestedTtl(
        "Product page",
        "",
        ("catalog:product",),
        "An hour and up to 10 % more, so that pages cached together do not end "
        "together. An edit deletes the copy at once.",
    ),
    SuggestedTtl(
        "API response cache",
        "5 to 15 min",
        ("catalog:response",),
        "Five minutes and up to 10 % more. An edit makes all answers void at once.",
    ),
    SuggestedTtl(
        "Rate-limit window",
        "the window's size",
        ("rate-limits:fixed-window", "rate-limits:sliding-window-log"),
        "Its window, to the millisecond: the key ends with what it counts.",
    ),
    SuggestedTtl(
        "Short-lived tokens",
        "5 to 10 min",
        ("sessions:code",),
        "Five minutes to type a code, and it works once.",
    ),
    SuggestedTtl(
        "Leaderboard",
        "1 h to 24 h",
        ("leaderboard:week",),
        "To the end of its week and a day more, so that the end can be read.",
    ),
    SuggestedTtl(
        "Static or reference data",
        "1 h to 1 week",
        ("catalog:list",),
        "A day: it changes with a release.",
    ),
    SuggestedTtl(
        "Lease of a cache entry",
        "",
        ("catalog:lease",),
        "Longer than a load takes; who loads longer stores nothing.",
    ),
)
POLICIES = (
    Policy("noeviction", "Writes fail when memory is full", "queues, critical data"),
    Policy("allkeys-lru", "Least recently used goes", "general cache"),
    Policy("volatile-lru", "The same among keys with a TTL", "mixed store"),
    Policy("allkeys-lfu", "Least frequently used goes", "skewed access"),
    Policy("volatile-lfu", "The same among keys with a TTL", "mixed store, hot keys"),
    Policy("volatile-ttl", "Soonest to expire goes", "keep long-lived data"),
    Policy("allkeys-random", "Any key goes", "even access"),
    Policy("volatile-random", "Any key with a TTL goes", "mixed store, even access"),
    Policy("allkeys-lrm", "Least recently modified goes", "keep what was written last"),
    Policy("volatile-lrm", "The same among keys with a TTL", "mixed store"),
)
ANTI_PATTERNS = (
    AntiPattern(
        "Keys with no TTL",
        "Memory grows without bound",
        "Always set one",
        "Every family of keys has a TTL or a reason, and a test reads the registry.",
        (Place("/catalog#xp-no-ttl", "Write without a TTL"),),
    ),
    AntiPattern(
        "KEYS * in production",
        "Blocks the server, O(N)",
        "SCAN cursor",
        "The app sends no KEYS. This page found its live keys by SCAN: see its tape.",
        (Place("/topology#slots-title", "Slots of our keys"),),
    ),
    AntiPattern(
        "Blobs over 100 KB",
        "Slow serialisation, memory pressure",
        "A reference in Redis, the blob in an object store",
        "A cached product has some hundred bytes, and lists hold ids, not products.",
        (CATALOG, Place("/activity#xp-bodies", "Keep the product on the list")),
    ),
    AntiPattern(
        "One Redis for everything",
        "No isolation between cache and queue",
        "Separate instances",
        "Two roles, cache and durable, each with a server and a policy of its own.",
        (SERVERS,),
    ),
    AntiPattern(
        "Ignoring pool limits",
        "Connections run out under load",
        "Size the pool to the workload",
        "A blocking pool as large as the threads, and a bounded wait for it.",
        (POOLS, Place("/topology#xp-starved-pool", "Starve the pool")),
    ),
    AntiPattern(
        "No stampede handling",
        "Thundering herd on a cold start",
        "Locks or probabilistic early expiry",
        "One loads under a lock, and the others wait; four more ways are beside it.",
        (Place("/catalog?variant=stampede#readers", "Readers at once"),),
    ),
    AntiPattern(
        "FLUSHALL without thought",
        "Wipes the instance",
        "Delete by key pattern, scoped",
        "Reset demo data takes this namespace only, by SCAN and UNLINK.",
        (Place("/#reset-result", "Reset demo data"),),
    ),
)
PATTERNS = (
    Pattern("Cache-aside", "Read-heavy, slight staleness tolerated", CATALOG),
    Pattern(
        "Write-through",
        "Reads soon after writes; it is no strong consistency",
        Place("/catalog?variant=write-through", "Write-through"),
    ),
    Pattern("Distributed lock", "Keep others from a resource", _page("/locks")),
    Pattern(
        "Sliding-window limit", "Accurate throttling per user", _page("/rate-limits")
    ),
    Pattern("Streams", "Durable events, consumer groups", _page("/streams")),
    Pattern("Pub/sub", "Broadcast without delivery guarantee", _page("/feed")),
    Pattern("Sorted-set leaderboard", "Ranked scores, pages", _page("/leaderboard")),
    Pattern(
        "HyperLogLog",
        "Approximate unique counts in little memory",
        _page("/visitors"),
    ),
)
KEY_NAMES = (
    KeyName("resource:id:field", "user:123:profile", ("activity:user",)),
    KeyName("resource:id:field", "order:456:status", ("streams:outcome",)),
    KeyName("resource:id:field", "cache:product:789", ("catalog:product",)),
    KeyName("namespace:resource:id", "myapp:session:abc123", ("sessions:session",)),
    KeyName(
        "namespace:resource:id",
        "myapp:ratelimit:user:123",
        ("rate-limits:fixed-window",),
    ),
    KeyName("resource:date", "stats:pageviews:2024-01-01", ("visitors:set",)),
)
FACTS = (
    Fact(
        "A single command is atomic; several need Lua, MULTI/EXEC or coordination",
        "One race with plain commands, MULTI, WATCH and a script, side by side.",
        (Place("/atomicity#race", "Many clients, one balance"),),
    ),
    Fact(
        "Data is kept by RDB snapshots or an append-only file",
        "Kill a server with 10,000 writes: without, with a snapshot, with an AOF.",
        (Place("/topology#xp-kill-9", "Kill a server"),),
    ),
    Fact(
        "Clients speak RESP over TCP",
        "The tape prints what is sent and answered, in redis-cli's words.",
        (CATALOG,),
    ),
    Fact(
        "A pool avoids a handshake for each request",
        "Connect for each request, and the tape shows a HELLO before every command.",
        (Place("/topology#xp-handshake", "Connect for each request"),),
    ),
)
REACH_FOR_IT: tuple[tuple[str, tuple[Place, ...]], ...] = (
    ("Caching in an app", (CATALOG, RESPONSE_CACHE)),
    ("Limits", (_page("/rate-limits"),)),
    ("Locks or coordination", (_page("/locks"), _page("/atomicity"))),
    ("Session or token storage", (_page("/sessions"),)),
    ("Messaging by pub/sub", (_page("/feed"),)),
    ("Messaging by Streams, which loses nothing", (_page("/streams"),)),
    (
        "Production settings: pool, eviction, cluster",
        (POOLS, SERVERS, Place("/topology#slots-title", "Slots of our keys")),
    ),
)


def families() -> list[keys.Family]:
    """All that play a part in a table."""
    rows = (*USE_CASES, *TTLS, *KEY_NAMES)
    return families_of(tuple(part for row in rows for part in row.part))


def families_of(parts: tuple[str, ...]) -> list[keys.Family]:
    """Those of the families that this app has."""
    return [f for f in keys.FAMILIES if f"{f.page}:{f.part}" in parts]


def used(parts: tuple[str, ...]) -> dict[Place, list[keys.Family]]:
    """The families of these names that this app has, by where they are used."""
    by_place: dict[Place, list[keys.Family]] = {}
    for family in families_of(parts):
        place = _PLACES.get(f"{family.page}:{family.part}") or _page(f"/{family.page}")
        by_place.setdefault(place, []).append(family)
    return by_place
