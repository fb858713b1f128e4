"""What the order pipeline's page shows, for a request and for the websocket alike."""

from typing import Any

from webapp.http import pipeline, tape
from webapp.live import vitals
from webapp.settings import Settings
from webapp.shop import pace
from webapp.shop.orders import Orders
from webapp.shop.pipeline import survey
from webapp.workers.fleet import Fleet
from webapp.workers.receipts import Reader


class Flow:
    def __init__(self, settings: Settings, orders: Orders) -> None:
        self._settings = settings
        self._orders = orders
        self.fleet = Fleet(settings.instance_path)
        self._receipts = Reader(settings.instance_path)
        self.has_workers = not settings.redis_urls["durable"].startswith("fake:")

    @property
    def pace(self) -> pace.Pace:
        return pace.read(self._settings.instance_path) if self.demo else pace.PLAIN

    @property
    def demo(self) -> bool:
        return self._settings.demo

    def look(self) -> dict[str, Any]:
        """What the moving parts of the page take. Raises redis.RedisError."""
        now = survey(self._orders)
        billed = vitals.now(self._settings).series.get("streams.billing_done", [])
        reclaim_ms = self.pace.reclaim_ms
        return {
            "board": pipeline.picture(now, self.fleet, reclaim_ms=reclaim_ms),
            "stream": self._orders.stream,
            "per_min": sum(billed),
            "demo": self.demo,
            "tail": pipeline.tail,
        }

    def frame(self) -> dict[str, Any]:
        """The same, and what workers have said to Redis since the last frame.

        For one thread. Raises redis.RedisError.
        """
        namespace = self._settings.namespace
        receipts = [
            tape.receipt(own, page="streams", namespace=namespace)
            for own in self._receipts.new()
        ]
        return self.look() | {"receipts": receipts}
