"""Products: list, read through the cache, edit."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from webapp.http.openapi.parts import ID, NAME, answer, body, failures, path, query
from webapp.shop.queries import PRICE_CENTS, STOCK, ProductPage, ProductRow

Price = Annotated[int, msgspec.Meta(ge=PRICE_CENTS[0], le=PRICE_CENTS[1])]
Stock = Annotated[int, msgspec.Meta(ge=STOCK[0], le=STOCK[1])]


class ProductEdit(msgspec.Struct, forbid_unknown_fields=True):
    """What may be changed; what is left out stays."""

    price_cents: Price | UnsetType = UNSET
    stock: Stock | UnsetType = UNSET


class ProductList(msgspec.Struct):
    items: list[ProductRow]
    next: str | None  # the URL of the next page


TYPES = (ProductPage, ProductList, ProductEdit)
REFINED: dict[str, Any] = {"ProductEdit": {"minProperties": 1}}

CACHE = {"X-Cache": {"schema": {"enum": ["hit", "miss", "stale", "bypass"]}}}
ETAG = {"ETag": {"schema": {"type": "string"}}}


def paths() -> dict[str, Any]:
    return {
        "/api/products": {
            "get": {
                "summary": "Products, by id; an answer is kept until one is edited",
                "parameters": [
                    query("category", NAME),
                    query("after", ID | {"minimum": 0}),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                ],
                "responses": {
                    "200": answer("A page", ProductList, headers=CACHE | ETAG),
                    "304": {"description": "Unchanged, as If-None-Match has it"},
                }
                | failures(400, 404, 503),
            }
        },
        "/api/products/{id}": {
            "parameters": [path("id", ID)],
            "get": {
                "summary": "One product, read through the cache",
                "responses": {"200": answer("The product", ProductPage, headers=CACHE)}
                | failures(400, 404, 503),
            },
            "patch": {
                "summary": "Signed in: change price or stock, and delete the copy",
                "requestBody": body(ProductEdit),
                "responses": {"200": answer("The product as it is now", ProductPage)}
                | failures(400, 401, 403, 404, 413, 415, 503),
            },
        },
    }
