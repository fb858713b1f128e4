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
        use="Cache-aside with leases and TTLs",
        group="Patterns",
        rooms=("cache_aside",),
    ),
    Page(
        name="feed",
        url="/feed",
        title="Live feed",
        use="Pub/sub to a websocket, whole by a stream",
        group="Patterns",
        rooms=("pub_sub",),
    ),
)
