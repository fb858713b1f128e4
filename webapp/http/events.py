"""What happens in the shop, told on the live feed: one line for whoever has news.

It is published in the request that made the news, with a receipt of its own. News that
comes while Redis is away, or faster than anyone could read, is left out and counted.
"""

import threading
import time
from collections import deque

import redis
from flask import Flask, current_app
from redis.exceptions import RedisError

from webapp.http import delivery, metrics
from webapp.live.feed import PATTERN, Event, encode, stream
from webapp.shop.queries import ProductRow

_MOST_A_SECOND = 20  # from one process
_TEXT = 200  # characters of an event that is told


class Newsroom:
    """Publishes, as far as there is room."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._stream = stream(namespace)
        self._lock = threading.Lock()
        self._told_at: deque[float] = deque(maxlen=_MOST_A_SECOND)

    def publish(self, event: Event) -> bool:
        """Whether it was told. Never raises for a Redis that is away."""
        if not self._has_room():
            return False
        try:
            PATTERN.publish(self._client, self._stream, payload=encode(event))
        except RedisError:
            return False
        return True

    def _has_room(self) -> bool:
        now = time.monotonic()
        with self._lock:
            full = len(self._told_at) == _MOST_A_SECOND
            if full and now - self._told_at[0] < 1:
                return False
            self._told_at.append(now)
            return True


def init_app(app: Flask, client: redis.Redis, namespace: str) -> None:
    app.extensions["newsroom"] = Newsroom(client, namespace)


def tell(kind: str, text: str, url: str = "") -> None:
    """Put news on the feed: tell("edit", "Kettle: € 39.95", "/catalog/7").

    `kind` is a lower-case word, `url` a page of this app.
    """
    newsroom: Newsroom = current_app.extensions["newsroom"]
    with delivery.beside("Tell the feed"):
        told = newsroom.publish(Event(kind=kind, text=text[:_TEXT], url=url))
    metrics.EVENTS.labels("feed", "published" if told else "dropped").inc()


def tell_view(role: str, product: ProductRow) -> None:
    """A guest or a shopper looks at a product. Nobody is named: names sign in."""
    tell("view", f"A {role} looks at {product.name}", f"/catalog/{product.id}")


def tell_edit(product: ProductRow) -> None:
    """A product has another price, or other stock."""
    price = f"€\u00a0{product.price_cents / 100:,.2f}"
    tell(
        "edit",
        f"{product.name}: {price}, {product.stock:,} in stock",
        f"/catalog/{product.id}",
    )


def tell_score(player: str, points: int, board: str) -> None:
    """A player got points on the page; what loads the API is no news."""
    tell("score", f"{player}: {points:,} points on {board}", "/leaderboard")


def tell_sign_in(role: str) -> None:
    """A guest or a shopper came."""
    tell("sign-in", f"A {role} signed in", "/sessions")
