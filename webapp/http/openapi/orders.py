"""Orders: place one once, and ask how far it is."""

from typing import Annotated, Any, Literal

import msgspec

from webapp.http.openapi.parts import NAME, answer, body, failures, path

_MOST_ITEMS, _MOST_OF_ONE = 20, 100

ProductId = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=_MOST_OF_ONE)]
Key = Annotated[str, msgspec.Meta(pattern=NAME["pattern"])]


class OrderItem(msgspec.Struct, forbid_unknown_fields=True):
    product_id: ProductId
    quantity: Quantity


class OrderAdd(msgspec.Struct, forbid_unknown_fields=True):
    """An order; the same idempotency key again, within a day, adds nothing."""

    items: Annotated[
        list[OrderItem], msgspec.Meta(min_length=1, max_length=_MOST_ITEMS)
    ]
    idempotency_key: Key


class OrderAdded(msgspec.Struct):
    id: str
    number: int  # for people
    repeated: bool  # the key was known: this is the order that it made


class OrderNow(msgspec.Struct):
    id: str
    state: Literal["waiting", "pending", "billed", "dead"]
    worker: str | None  # that has it or had it
    deliveries: int  # so far, while it is pending


TYPES = (OrderAdd, OrderAdded, OrderNow)
REFINED: dict[str, Any] = {}

_ID = {"type": "string", "pattern": "^[0-9]{1,15}-[0-9]{1,9}$"}


def paths() -> dict[str, Any]:
    return {
        "/api/orders": {
            "post": {
                "summary": "Place an order, once per idempotency key",
                "requestBody": body(OrderAdd),
                "responses": {"202": answer("It is in the pipeline", OrderAdded)}
                | failures(400, 403, 404, 413, 415, 503),
            }
        },
        "/api/orders/{order_id}": {
            "parameters": [path("order_id", _ID)],
            "get": {
                "summary": "How far an order is with its bill",
                "responses": {"200": answer("The order now", OrderNow)}
                | failures(400, 404, 503),
            },
        },
    }
