"""Categories: the list, and deleting what is cached of one."""

from typing import Any

import msgspec

from webapp.http.openapi.parts import NAME, answer, body, failures, path
from webapp.http.openapi.products import CACHE
from webapp.shop.queries import Category


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An object without fields."""


class Invalidated(msgspec.Struct):
    category: str  # its slug
    keys: int  # deleted: copies of its products, and leases of those who load one


class CategoryList(msgspec.Struct):
    items: list[Category]
    next: None  # one page has them all


TYPES = (Nothing, Invalidated, CategoryList)
REFINED: dict[str, Any] = {}


def paths() -> dict[str, Any]:
    return {
        "/api/categories": {
            "get": {
                "summary": "All categories by name, from a list cached for a day",
                "responses": {"200": answer("The list", CategoryList, headers=CACHE)}
                | failures(503),
            }
        },
        "/api/categories/{slug}/invalidate": {
            "parameters": [path("slug", NAME)],
            "post": {
                "summary": "Delete the cached copies of a category's products",
                "requestBody": body(Nothing),
                "responses": {"200": answer("How many keys", Invalidated)}
                | failures(400, 403, 404, 413, 415, 503),
            },
        },
    }
