"""A product read through the cache, counted, and named on the tape."""

from collections.abc import Callable

from flask import current_app, request

from webapp.http import delivery, metrics
from webapp.patterns.cache_aside import Read
from webapp.shop.catalog import Catalog
from webapp.shop.queries import ProductPage

_VERDICTS = {
    "hit": ("ok", "hit"),
    "miss": ("wait", "miss"),
    "bypass": ("no", "database"),
}


def catalog() -> Catalog:
    """This app's catalog."""
    found: Catalog = current_app.extensions["catalog"]
    return found


def product(product_id: int, *, variant: str) -> Read[ProductPage]:
    """Read as the variant reads, "cache-aside" for example."""
    ways: dict[str, Callable[[int], Read[ProductPage]]] = {
        "cache-aside": catalog().product,
        "write-through": catalog().product,
        "tag-invalidation": catalog().tagged_product,
        "stampede": catalog().protected_product,
        "response-cache": catalog().product,
        "bloom-filter": catalog().filtered_product,
    }
    read = catalog().guarded(product_id, ways[variant])
    count(variant.replace("-", "_"), read.outcome)
    if read.outcome == "hit" and read.value is None:
        delivery.verdict("ok", "not there")
    else:
        delivery.verdict(*_VERDICTS[read.outcome])
    return read


def count(room: str, outcome: str) -> None:
    """Count a read for the room's page, and for who makes it."""
    traffic = "shopper" if request.headers.get("X-Shopper") else "visitor"
    metrics.CACHE_READS.labels(room, outcome, traffic).inc()
