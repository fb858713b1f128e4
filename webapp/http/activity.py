"""Notes what signed-in visitors do with products; a page never fails by it."""

from flask import current_app
from redis.exceptions import RedisError

from webapp.http import delivery, metrics
from webapp.http.session import Visitor
from webapp.shop.activity import Activity, Kind


def activity() -> Activity:
    """This app's lists."""
    found: Activity = current_app.extensions["activity"]
    return found


def note(visitor: Visitor, kind: Kind, product_id: int) -> None:
    """Put it on the visitor's list, or leave it out while Redis is away."""
    with delivery.beside("Note the activity"):
        try:
            activity().note(visitor.id, kind, product_id)
        except RedisError:
            return
    metrics.EVENTS.labels("activity", "noted").inc()
