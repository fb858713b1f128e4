"""The public interface as an OpenAPI 3.1 document, and the bodies it takes."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from webapp.http.tape import Receipt
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


class Problem(msgspec.Struct):
    type: str
    title: str
    status: int
    detail: str
    instance: str


def document() -> dict[str, Any]:
    """A fresh copy of the whole document."""
    (page, listing, edit, problem, _), components = msgspec.json.schema_components(
        [ProductPage, ProductList, ProductEdit, Problem, Receipt],
        ref_template="#/components/schemas/{name}",
    )
    components["ProductEdit"]["minProperties"] = 1
    failed = {
        str(status): _answer(text, problem, "application/problem+json")
        for status, text in (
            (400, "Not understood"),
            (404, "Nothing there"),
            (503, "Redis is away and the database is busy; see Retry-After"),
        )
    }
    hit = {"X-Cache": {"schema": {"enum": ["hit", "miss", "stale", "bypass"]}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Redis Patterns Live", "version": "1"},
        "paths": {
            "/api/products": {
                "get": {
                    "summary": "Products, ordered by id",
                    "parameters": [
                        _query("category", _NAME),
                        _query("after", _ID | {"minimum": 0}),
                        _query(
                            "limit", {"type": "integer", "minimum": 1, "maximum": 100}
                        ),
                    ],
                    "responses": {"200": _answer("A page", listing, headers=hit)}
                    | failed,
                }
            },
            "/api/products/{id}": {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": _ID}
                ],
                "get": {
                    "summary": "One product, read through the cache",
                    "responses": {"200": _answer("The product", page, headers=hit)}
                    | failed,
                },
                "patch": {
                    "summary": "Change price or stock, and delete the cached copy",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": edit}},
                    },
                    "responses": {
                        "200": _answer("The product as it is now", page),
                        "403": failed["400"] | {"description": "From another site"},
                        "413": failed["400"] | {"description": "Over 64 KB"},
                        "415": failed["400"] | {"description": "Not JSON"},
                    }
                    | failed,
                },
            },
        },
        "components": {"schemas": components},
    }


_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}
_ID = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _answer(
    description: str,
    schema: dict[str, Any],
    media: str = "application/json",
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": description,
        "content": {media: {"schema": schema}},
    }
    return answer | ({"headers": headers} if headers else {})
