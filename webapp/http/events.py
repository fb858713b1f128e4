"""What happens in the shop, for the live feed: one line for whoever has news.

`tell` costs the request that calls it nothing: it leaves the event in a short queue,
and a thread of this process publishes it. When Redis is away, or there is more news
than anyone could read, events are dropped and counted. What that thread sends is not
on the tape of a request. Simulated shoppers make no news.
"""

import logging
import threading
from collections import deque

import redis
from flask import Flask, current_app, has_request_context, request
from redis.exceptions import RedisError

from webapp.http import metrics
from webapp.live.feed import PATTERN, Event, encode, stream
from webapp.shop.queries import ProductRow

_LONGEST = 16  # events that wait, at most
_EVERY_S = 0.1  # so at most 160 events a second come from one process
_TEXT = 200  # characters of an event that is told

log = logging.getLogger(__name__)


class Teller:
    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._stream = stream(namespace)
        self._lock = threading.Lock()
        self._waiting: deque[Event] = deque()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, event: Event) -> None:
        """Never waits and never raises."""
        with self._lock:
            if len(self._waiting) == _LONGEST:
                metrics.EVENTS.labels("feed", "dropped").inc()
                return
            self._waiting.append(event)
            if self._thread is None:
                run = threading.Thread(target=self._run, name="teller", daemon=True)
                self._thread = run
                run.start()

    def close(self, within_s: float = 2.0) -> None:
        """Publish what waits, before the client is closed."""
        self._closing.set()
        if (thread := self._thread) is not None:
            thread.join(within_s)

    def _run(self) -> None:
        while events := self._take():
            for event in events:
                self._publish(event)
            self._closing.wait(_EVERY_S)

    def _take(self) -> list[Event]:
        """What waits; nothing: this thread ends."""
        with self._lock:
            events = list(self._waiting)
            self._waiting.clear()
            if not events:
                self._thread = None
            return events

    def _publish(self, event: Event) -> None:
        try:
            PATTERN.publish(self._client, self._stream, payload=encode(event))
        except ValueError:
            log.exception("an event that nobody could read")
        except RedisError:
            metrics.EVENTS.labels("feed", "dropped").inc()
        else:
            metrics.EVENTS.labels("feed", "published").inc()


def init_app(app: Flask, client: redis.Redis, namespace: str) -> None:
    app.extensions["teller"] = Teller(client, namespace)


def tell(kind: str, text: str, url: str = "") -> None:
    """Put news on the feed: tell("edit", "Kettle: € 39.95", "/catalog/7").

    Never raises and never waits. `kind` is a lower-case word, `url` a page of this app.
    """
    if has_request_context() and request.headers.get("X-Shopper"):
        return
    teller: Teller = current_app.extensions["teller"]
    teller.put(Event(kind=kind, text=text[:_TEXT], url=url))


def tell_edit(product: ProductRow) -> None:
    """A product has another price, or other stock."""
    price = f"€\u00a0{product.price_cents / 100:,.2f}"
    tell(
        "edit",
        f"{product.name}: {price}, {product.stock:,} in stock",
        f"/catalog/{product.id}",
    )
