"""The panel that asks the API: the same answer, and what of it would be sent."""

from collections.abc import Mapping
from typing import Any

import msgspec

from webapp.http import lists, response_cache
from webapp.http.openapi.products import ProductList
from webapp.patterns.response_cache import canonical, digest
from webapp.shop.assortment import CATEGORIES, Category

_LIMITS = (5, 20, 50)


class Answered(msgspec.Struct):
    url: str  # "/api/products?after=0&category=kitchen&limit=20"
    digest: str  # of its parameters, in the key's name
    outcome: str  # hit, miss or bypass
    etag: str
    status: int  # 304: who asks has it already
    bytes: int  # of the body
    products: int

    @property
    def sent_bytes(self) -> int:
        return 0 if self.status == 304 else self.bytes


class Asked(msgspec.Struct):
    """What the form offers, where it stands, and what it got."""

    category: str | None = None
    limit: int = _LIMITS[0]
    limits: tuple[int, ...] = _LIMITS
    categories: tuple[Category, ...] = CATEGORIES
    answered: Answered | None = None


def ask(form: Mapping[str, str]) -> Asked:
    """Raises Problem 400 and 404."""
    given = {name: form[name] for name in ("category", "limit") if form.get(name)}
    parameters = lists.parsed(given)
    return Asked(
        category=parameters["category"],
        limit=parameters["limit"],
        answered=_answered(parameters, known=form.get("etag", "")),
    )


def _answered(parameters: dict[str, Any], *, known: str) -> Answered:
    answer = response_cache.read(parameters, lists.page, kind=ProductList)
    found = msgspec.json.decode(answer.body, type=ProductList)
    return Answered(
        url=f"/api/products?{canonical(parameters)}",
        digest=digest(parameters),
        outcome=answer.outcome,
        etag=answer.etag,
        status=304 if known == answer.etag else 200,
        bytes=len(answer.body),
        products=len(found.items),
    )
