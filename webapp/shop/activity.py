"""What visitors do with products: noted as ids, shown with what the shop has now."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.patterns.activity_feed import ActivityFeed
from webapp.shop import queries
from webapp.shop.queries import ProductRow

Kind = Literal["view", "edit"]

_PER_PAGE = 10
_ENTRY = re.compile(r"(view|edit):([1-9][0-9]{0,9}):([0-9]{13})")


@dataclass(frozen=True)
class Act:
    kind: Kind
    product_id: int
    at_ms: int  # since 1970, by this app's clock

    @property
    def entry(self) -> str:
        """What stands on the list: 'view:1042:1795385319442'."""
        return f"{self.kind}:{self.product_id}:{self.at_ms}"

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


@dataclass(frozen=True)
class Shown:
    act: Act
    product: ProductRow | None  # as the shop has it now; None: it is gone


@dataclass(frozen=True)
class Listed:
    """A page of one visitor's acts, the newest first."""

    rows: tuple[Shown, ...]
    next: str | None  # the entry after which older ones begin
    first: int  # how many newer ones there are
    kept: int
    gone: bool  # the entry that was asked for is not there


class Activity:
    def __init__(self, client: redis.Redis, engine: Engine, namespace: str) -> None:
        self.client, self.engine = client, engine
        self.feed = ActivityFeed(ttl_ms=keys.ACTIVITY.ttl_ms or 0)
        self._namespace = namespace

    def key(self, user_id: str) -> str:
        return keys.key(self._namespace, keys.ACTIVITY, user_id)

    def note(self, user_id: str, kind: Kind, product_id: int) -> None:
        """Raises redis.RedisError."""
        act = Act(kind, product_id, time.time_ns() // 1_000_000)
        self.feed.add(self.client, self.key(user_id), entry=act.entry)

    def page(self, user_id: str, *, after: str | None) -> Listed:
        """One round trip, and one query for all products. Raises redis.RedisError."""
        key = self.key(user_id)
        page = self.feed.page(self.client, key, after=after, count=_PER_PAGE)
        acts = [act for entry in page.entries if (act := parse(entry))]
        found = queries.products_by_id(
            self.engine, tuple(sorted({act.product_id for act in acts}))
        )
        rows = tuple(Shown(act, found.get(act.product_id)) for act in acts)
        return Listed(rows, page.next, page.first, page.kept, page.gone)


def parse(entry: str) -> Act | None:
    """None: no entry of ours."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        return None
    return Act(cast("Kind", found[1]), int(found[2]), int(found[3]))
