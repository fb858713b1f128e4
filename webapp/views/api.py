"""The products API. Its answers are the public interface: keep them stable."""

from typing import Any

import msgspec
from flask import Blueprint, Response

from webapp.http import (
    activity,
    bodies,
    delivery,
    ids,
    lists,
    openapi,
    reads,
    response_cache,
    session,
)
from webapp.http.errors import Problem
from webapp.http.events import tell_edit
from webapp.http.openapi.categories import Invalidated, Nothing
from webapp.http.openapi.products import ProductEdit, ProductList
from webapp.http.reads import catalog
from webapp.shop import queries

bp = Blueprint("api", __name__, url_prefix="/api")


@bp.get("/products")
@response_cache.cached(lists.asked, kind=ProductList)
def products(**asked: Any) -> ProductList:
    """Products ordered by id, a page at a time; kept for five minutes at most."""
    return lists.page(**asked)


@bp.get("/products/<product_id>")
def product(product_id: str) -> Response:
    """One product, read through the cache; its copy is a member of its category."""
    number = ids.number(product_id, what="product")
    read = reads.product(number, variant="tag-invalidation")
    if read.value is None:
        raise Problem(404, "No such product", f"There is no product {number}.")
    response = delivery.json(read.value)
    response.headers["X-Cache"] = read.outcome
    return response


@bp.patch("/products/<product_id>")
def edit(product_id: str) -> Response:
    """Change price or stock, signed in; answers the product as it is now."""
    number = ids.number(product_id, what="product")
    visitor = session.require_visitor()
    change = bodies.parse(ProductEdit)
    given = {
        name: value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not msgspec.UNSET
    }
    if not given:
        raise Problem(400, "Nothing to change", "Name price_cents, stock or both.")
    edited = catalog().edit(number, **given)
    if edited is None:
        raise Problem(404, "No such product", f"There is no product {number}.")
    tell_edit(edited.product)
    activity.note(visitor, "edit", number)
    page = queries.product(catalog().engine, number)
    row = msgspec.structs.asdict(
        edited.product
    )  # as this edit left it, not a later one
    return delivery.json(page and msgspec.structs.replace(page, **row))


@bp.get("/categories")
def categories() -> Response:
    """All categories by name, from a list that is cached for a day."""
    read = catalog().categories()
    response = delivery.json({"items": read.value, "next": None})
    response.headers["X-Cache"] = read.outcome
    return response


@bp.post("/categories/<slug>/invalidate")
def invalidate(slug: str) -> Response:
    """Delete the registered copies of a category's products."""
    ids.name(slug, what="category")
    bodies.parse(Nothing)
    if not queries.has_category(catalog().engine, slug):
        raise Problem(404, "No such category", f"There is no category {slug}.")
    deleted = catalog().invalidate_category(slug)
    return delivery.json(Invalidated(category=slug, keys=deleted))


@bp.get("/openapi.json")
def document() -> Response:
    """This interface as an OpenAPI 3.1 document."""
    body = msgspec.json.encode(openapi.document())
    return Response(body, mimetype="application/json")
