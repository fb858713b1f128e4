"""Simulated shoppers: a process that uses the shop over HTTP, as people would.

They mostly look at products, few of them often and many rarely, sometimes at a
list, and now and then one sells out or is delivered, or somebody gets points. They
leave the featured ones alone: a newcomer's first click there is a miss. One connection
carries all of it: an app that is slower than the pace gets fewer requests, not more at
once. Another one carries the orders, at the pace of the order pipeline's fader.
"""

import json
import os
import signal
import sys
import time
from bisect import bisect
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import accumulate
from pathlib import Path
from random import Random
from threading import Thread
from urllib.parse import urlsplit

from webapp.settings import Settings, from_environ
from webapp.shop import pace
from webapp.shop.assortment import CATEGORIES
from webapp.shop.scores import SAMPLES, week_name
from webapp.shop.seed import FEATURED_IDS, PRODUCTS

RATES = (0, 2, 50)  # requests a second
DEFAULT_RATE = 2

Choose = Callable[[Random], tuple[str, str, str | None]]  # method, path and body

_EDITS = 1 / 50  # share of the requests
_SCORES = 1 / 50
_LISTS = 1 / 10
_POINTS = (5, 50)  # least and most
_HEADERS = {
    "X-Shopper": "1",
    "Sec-Fetch-Site": "same-origin",
    "Content-Type": "application/json",
}
_TIMEOUT_S = 10.0
_LONGEST_NAP_S = 0.1  # how late a stop or a new rate may be noticed, at most
_LATEST_S = 1.0  # an app that was slow is not flooded with what was missed
_FIRST_BACKOFF_S = 0.25  # while the app is away, doubled each time
_LONGEST_BACKOFF_S = 5.0
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
_FAVOURITES = 400  # how many products they care for
_POPULARITY = list(accumulate(rank**-1.2 for rank in range(1, _FAVOURITES + 1)))


def read_rate(instance: Path) -> int:
    """Requests a second as last chosen; the default where nobody chose."""
    try:
        rate = int((instance / "shoppers").read_text())
    except (OSError, ValueError):
        return DEFAULT_RATE
    return rate if rate in RATES else DEFAULT_RATE


def write_rate(instance: Path, rate: int) -> None:
    """Choose a rate; the shoppers notice within a second. Raises ValueError."""
    if rate not in RATES:
        raise ValueError(f"shoppers: one of {RATES}, not {rate}")
    draft = instance / f"shoppers.{os.getpid()}"
    draft.write_text(f"{rate}\n")
    draft.replace(instance / "shoppers")


def order_rate(instance: Path) -> float:
    """Orders a second; shoppers who are off order nothing either."""
    wanted = pace.read(instance).orders_per_min
    return wanted / 60 if read_rate(instance) else 0.0


def run(
    base_url: str,
    read_rate: Callable[[], float],
    stop: Callable[[], bool],
    ask: Choose = lambda rng: choose(rng),
) -> None:
    """Send what `ask` says at the rate that `read_rate` says, until `stop`."""
    rate, read_at = 0.0, 0.0
    due = time.monotonic()
    backoff = _FIRST_BACKOFF_S
    with closing(Shopper(base_url, ask)) as shopper:
        while not stop():
            now = time.monotonic()
            if now >= read_at:
                rate, read_at = read_rate(), now + 1
            if now < due:
                time.sleep(min(due - now, _LONGEST_NAP_S))
            elif rate == 0:
                due = now + _LONGEST_NAP_S
            elif shopper.visit():
                due = max(due + 1 / rate, now - _LATEST_S)
                backoff = _FIRST_BACKOFF_S
            else:
                due = now + backoff
                backoff = min(2 * backoff, _LONGEST_BACKOFF_S)


class Shopper:
    """One connection to the shop, and what to do next on it."""

    def __init__(self, base_url: str, ask: Choose) -> None:
        parts = urlsplit(base_url)
        self._connection = HTTPConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_S
        )
        self._rng = Random()
        self._ask = ask
        self._cookie = ""  # of a guest's session, once there was something to edit

    def visit(self) -> bool:
        """Make one request; false if the app is away or asks to come back later."""
        method, path, body = self._ask(self._rng)
        if method == "PATCH" and not self._cookie:
            method, path, body = "POST", "/api/session/guest", None
        try:
            response = self._send(method, path, body)
        except (OSError, HTTPException):
            self._connection.close()
            return False
        if response.status == 401:  # the session ended
            self._cookie = ""
        elif cookie := response.getheader("Set-Cookie"):
            self._cookie = cookie.partition(";")[0]
        return response.status < 500

    def _send(self, method: str, path: str, body: str | None) -> HTTPResponse:
        personal = {"Cookie": self._cookie} if method == "PATCH" else {}
        self._connection.request(method, path, body, _HEADERS | personal)
        response = self._connection.getresponse()
        response.read()
        return response

    def close(self) -> None:
        self._connection.close()


def order(rng: Random) -> tuple[str, str, str | None]:
    """One or two products, once."""
    products = {rng.randint(FEATURED_IDS.stop, PRODUCTS) for _ in range(2)}
    body = {
        "items": [{"product_id": p, "quantity": rng.randint(1, 3)} for p in products],
        "idempotency_key": f"{rng.getrandbits(64):016x}",
    }
    return "POST", "/api/orders", json.dumps(body)


def choose(rng: Random) -> tuple[str, str, str | None]:
    """Method, path and body of a request."""
    what = rng.random()
    if what < _EDITS:
        # Any product alike, so that the one somebody looks at seldom changes.
        body = json.dumps({"stock": rng.randrange(100)})
        product_id = rng.randint(FEATURED_IDS.stop, PRODUCTS)
        return "PATCH", f"/api/products/{product_id}", body
    if what < _EDITS + _SCORES:
        score = {
            "player": rng.choice(SAMPLES),
            "points": rng.randint(*_POINTS),
            "operation_id": f"{rng.getrandbits(64):016x}",
        }
        board = week_name(datetime.now(UTC).date())
        return "POST", f"/api/leaderboard/{board}/scores", json.dumps(score)
    if what < _EDITS + _SCORES + _LISTS:
        slug = rng.choice(CATEGORIES).slug
        return "GET", f"/api/products?category={slug}&limit=20", None
    return "GET", f"/api/products/{_popular(rng)}", None


def _popular(rng: Random) -> int:
    """A product id: the first after the featured ones most of all (Zipf)."""
    return FEATURED_IDS.stop + bisect(_POPULARITY, rng.random() * _POPULARITY[-1])


def main(settings: Settings) -> None:
    """Shop at the app of these settings until SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    url, instance = _base_url(settings), settings.instance_path
    orders = Thread(
        target=run,
        args=(url, lambda: order_rate(instance), lambda: False, order),
        daemon=True,
    )
    orders.start()
    run(url, lambda: read_rate(instance), stop=lambda: False)


def _base_url(settings: Settings) -> str:
    host = _WILDCARDS.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


if __name__ == "__main__":
    main(from_environ())
