"""Orders as the API and the page place them: priced by the database, then queued."""

from collections.abc import Mapping

from flask import current_app

from webapp.http import metrics
from webapp.http.errors import Problem
from webapp.patterns.streams.bounded_stream import Appended, StreamFull
from webapp.shop import queries
from webapp.shop.orders import Item, Order, Orders

_RETRY_S = 5


def orders() -> Orders:
    found: Orders = current_app.extensions["orders"]
    return found


def price(quantities: Mapping[int, int]) -> Order:
    """An order for so much of each product, at today's prices. Raises Problem 404."""
    engine = current_app.extensions["catalog"].engine
    found = queries.products_by_id(engine, tuple(quantities))
    if missing := quantities.keys() - found.keys():
        id = min(missing)
        raise Problem(404, "No such product", f"There is no product {id}.")
    return Order(tuple(Item(i, n, found[i].price_cents) for i, n in quantities.items()))


def place(order: Order, *, once: str) -> Appended:
    """Put it into the pipeline. Raises Problem 503 where too many wait."""
    try:
        appended = orders().place(order, once=once)
    except StreamFull as error:
        metrics.EVENTS.labels("streams", "refused").inc()
        detail = f"Too many orders wait: {error}. Send it again with the same key."
        raise Problem(
            503, "The pipeline is full", detail, retry_after_s=_RETRY_S
        ) from error
    event = "repeated" if appended.repeated else "ordered"
    metrics.EVENTS.labels("streams", event).inc()
    return appended
