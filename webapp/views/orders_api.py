"""The orders API. Its answers are the public interface: keep them stable."""

from flask import Blueprint, Response

from webapp.http import bodies, delivery, ids, ordering
from webapp.http.errors import Problem
from webapp.http.openapi.orders import OrderAdd, OrderAdded, OrderNow

bp = Blueprint("orders_api", __name__, url_prefix="/api/orders")


@bp.post("")
def place() -> Response:
    """Take an order; a repeated idempotency key answers the first one's id."""
    asked = bodies.parse(OrderAdd)
    quantities: dict[int, int] = {}
    for item in asked.items:
        before = quantities.get(item.product_id, 0)
        quantities[item.product_id] = before + item.quantity
    once = ids.name(asked.idempotency_key, what="idempotency_key")
    placed = ordering.place(ordering.price(quantities), once=once)
    added = OrderAdded(placed.id, placed.number, placed.repeated)
    return delivery.json(added, status=202)


@bp.get("/<order_id>")
def order(order_id: str) -> Response:
    """How far an order is."""
    id = ids.entry(order_id, what="order")
    found = ordering.orders().find(id)
    if found is None:
        raise Problem(404, "No such order", "There is none, or it is a day old.")
    worker, deliveries = found.worker or None, found.deliveries
    return delivery.json(OrderNow(id, found.state, worker, deliveries))
