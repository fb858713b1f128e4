"""Every page and its rooms, in the order of the navigation. Pages appear when built."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Page:
    name: str  # names its view, templates, script and test
    url: str
    title: str  # in the navigation and on the tile
    use: str  # one line on the tile
    group: Literal["Patterns", "Labs", "Admin"]
    rooms: tuple[str, ...]


PAGES: tuple[Page, ...] = (
    Page(
        name="catalog",
        url="/catalog",
        title="Catalog cache",
        use="Cache-aside, write-through, tags",
        group="Patterns",
        rooms=("cache_aside", "write_through", "tag_invalidation", "bloom_filter"),
    ),
    Page(
        name="sessions",
        url="/sessions",
        title="Sessions",
        use="Sign-in, devices, one-time codes",
        group="Patterns",
        rooms=("session_store",),
    ),
    Page(
        name="rate_limits",
        url="/rate-limits",
        title="Rate limits",
        use="Fixed window, sliding window log",
        group="Patterns",
        rooms=("rate_limiter",),
    ),
    Page(
        name="locks",
        url="/locks",
        title="Locks",
        use="One holder, numbered writes",
        group="Patterns",
        rooms=("distributed_lock", "redlock"),
    ),
    Page(
        name="feed",
        url="/feed",
        title="Live feed",
        use="Pub/sub, kept in a stream",
        group="Patterns",
        rooms=("pub_sub",),
    ),
    Page(
        name="leaderboard",
        url="/leaderboard",
        title="Leaderboard",
        use="Sorted set, ranks at any depth",
        group="Patterns",
        rooms=("leaderboard",),
    ),
    Page(
        name="visitors",
        url="/visitors",
        title="Unique visitors",
        use="HyperLogLog against an exact Set",
        group="Patterns",
        rooms=("unique_visitors",),
    ),
    Page(
        name="activity",
        url="/activity",
        title="Activity",
        use="A capped list, paged by id",
        group="Patterns",
        rooms=("activity_feed",),
    ),
    Page(
        name="atomicity",
        url="/atomicity",
        title="Atomicity",
        use="MULTI, WATCH and Lua",
        group="Patterns",
        rooms=("transactions",),
    ),
    Page(
        name="topology",
        url="/topology",
        title="Topology",
        use="Pools, nodes, failover, slots",
        group="Labs",
        rooms=(),
    ),
    Page(
        name="reference",
        url="/reference",
        title="Reference",
        use="Structures, TTLs and policies",
        group="Labs",
        rooms=(),
    ),
)

# For admins only: in their navigation, and without a tile.
ADMIN_PAGES: tuple[Page, ...] = (
    Page(
        name="keys",
        url="/admin/keys",
        title="Keys",
        use="Every key, its TTL, and its contract",
        group="Admin",
        rooms=(),
    ),
    Page(
        name="memory",
        url="/admin/memory",
        title="Memory",
        use="Namespaces by memory",
        group="Admin",
        rooms=(),
    ),
    Page(
        name="eviction",
        url="/admin/eviction",
        title="Eviction settings",
        use="The limit, the policy, and what they do",
        group="Admin",
        rooms=(),
    ),
    Page(
        name="record",
        url="/admin/record",
        title="Record",
        use="What admins changed",
        group="Admin",
        rooms=(),
    ),
)
