"""The product list of the API: what was asked for, and a page of it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import request

from webapp.http import ids
from webapp.http.errors import Problem
from webapp.http.openapi.products import ProductList
from webapp.http.reads import catalog
from webapp.shop import queries
from webapp.shop.assortment import CATEGORIES

MOST_ITEMS = 100
_ITEMS = 20
_SLUGS = {category.slug for category in CATEGORIES}


def asked() -> dict[str, Any]:
    """Category, after and limit of the URL, checked; what is left out has its value."""
    return parsed(request.args)


def parsed(given: Mapping[str, str]) -> dict[str, Any]:
    """Raises Problem 400, and 404 for a category that the shop has never had."""
    slug = given.get("category")
    if slug is not None and ids.name(slug, what="category") not in _SLUGS:
        raise Problem(404, "No such category", f"There is no category {slug}.")
    limit = given.get("limit", str(_ITEMS))
    return {
        "category": slug,
        "after": ids.number(given.get("after", "0"), what="after"),
        "limit": ids.bounded(limit, what="limit", least=1, most=MOST_ITEMS),
    }


def page(*, category: str | None, after: int, limit: int) -> ProductList:
    """Straight from the database."""
    engine = catalog().engine
    rows = queries.products(engine, category=category, after=after, limit=limit + 1)
    if not rows[limit:]:
        return ProductList(items=rows, next=None)
    same = {"category": category} if category else {}
    following = same | {"after": rows[limit - 1].id, "limit": limit}
    return ProductList(rows[:limit], next=f"/api/products?{urlencode(following)}")
