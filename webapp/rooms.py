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
        rooms=("cache_aside", "write_through", "tag_invalidation"),
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
        use="Fixed window beside sliding window log",
        group="Patterns",
        rooms=("rate_limiter",),
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
)
