"""The product catalog: list, product, edit, and Break it."""

from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, make_response, request
from redis.exceptions import RedisError

import webapp.patterns.cache_aside as cache_aside
from webapp import words
from webapp.connection import recorder
from webapp.experiments import Bench
from webapp.experiments.cache_aside import EXPERIMENTS
from webapp.http import delivery, ids, keypanel, lab, reads, sources
from webapp.http.errors import Problem
from webapp.http.events import tell, tell_edit
from webapp.http.reads import catalog
from webapp.shop import queries
from webapp.shop.seed import FEATURED_IDS

bp = Blueprint("catalog", __name__, url_prefix="/catalog")

_PER_PAGE = 5
_SHOWN_FIRST = FEATURED_IDS.start  # what an empty page offers to open
_MOST_KEYS = 12  # products whose keys one call may ask about
_ENDING = 0.15  # of its TTL is left: the pill says so

_FILES = (
    sources.python(Path(cache_aside.__file__), start="class CacheAside"),
    sources.lua("cache_aside/fetch"),
    sources.lua("cache_aside/store"),
)


class Served(msgspec.Struct):
    """How long reads took, as this visitor saw them, in µs; None: not seen yet."""

    verdict: str  # of this read: hit, miss or bypass
    us: int  # of this read
    last_miss_us: int | None
    last_hit_us: int | None

    @property
    def ratio(self) -> float | None:
        """How many times faster a hit was."""
        if not self.last_miss_us or not self.last_hit_us:
            return None
        return self.last_miss_us / self.last_hit_us


class Pill(msgspec.Struct):
    """Whether a product of the list has a copy in Redis."""

    id: int
    tone: str
    text: str
    ttl_ms: int | None
    ttl_max_ms: int


@bp.get("")
def show() -> Response:
    """The list, and an invitation to open a product."""
    return _respond(None)


@bp.get("/<product_id>")
def product(product_id: str) -> Response:
    """One product, read through the cache, above the list."""
    number = ids.number(product_id, what="product")
    began = perf_counter()
    read = reads.product(number)
    served = _served(read.outcome, round((perf_counter() - began) * 1e6))
    if read.value is None:
        raise Problem(404, "No such product", f"There is no product {number}.")
    tell("view", read.value.name, request.path)
    response = _respond(read.value, served=served)
    response.set_cookie("served", _kept(served), samesite="Lax", path="/catalog")
    response.headers["X-Cache"] = read.outcome
    return response


@bp.post("/<product_id>")
def edit(product_id: str) -> Response:
    """Price and stock are saved, and the copy in Redis is gone."""
    number = ids.number(product_id, what="product")
    price_cents, stock, errors = _parse_edit()
    if errors:
        row = reads.product(number).value
        delivery.verdict("no", "not saved")
        return _respond(row, form={**request.form, "errors": errors}, status=422)
    edited = catalog().edit(number, price_cents=price_cents, stock=stock)
    if edited is None:
        raise Problem(404, "No such product", f"There is no product {number}.")
    tell_edit(edited.product)
    if edited.invalidated:
        delivery.verdict("ok", "invalidated")
    else:
        delivery.verdict("no", "not invalidated yet")
    return _respond(edited.product, edited=edited)


@bp.get("/keys")
def show_keys() -> str:
    """The keys of the products on the page, with their TTLs."""
    delivery.housekeeping()
    asked = request.args.get("ids", "").split(",")[:_MOST_KEYS]
    numbers = [ids.number(i, what="product") for i in asked if i]
    entries = [catalog().entry(n) for n in numbers]
    names = [name for e in entries for name in (e.value, e.lease)]
    try:
        rows = keypanel.rows(catalog().cache, names)
    except RedisError as error:
        return delivery.fragment("_keys.html", keys=None, error=str(error))
    by_name = {row.name: row for row in rows}
    pills = [
        _pill(n, by_name.get(e.value)) for n, e in zip(numbers, entries, strict=True)
    ]
    return delivery.fragment("catalog/_keys.html", keys=rows, pills=pills)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    shop = catalog()
    namespace = current_app.extensions["settings"].namespace
    bench = Bench(shop.cache, shop.engine, namespace, _SHOWN_FIRST)
    ran = lab.run(EXPERIMENTS, name, bench)
    if request.headers.get("HX-Request"):
        return make_response(ran.card())
    return _respond(None, outcomes={name: ran.outcome})


def _respond(
    product: queries.ProductPage | queries.ProductRow | None,
    *,
    status: int = 200,
    **more: Any,
) -> Response:
    context = _context(product) | more
    if request.headers.get("HX-Request"):
        html = delivery.fragment("catalog/_fragment.html", **context)
    else:
        html = delivery.page("catalog/show.html", **context)
    return make_response(html, status)


def _context(
    product: queries.ProductPage | queries.ProductRow | None,
) -> dict[str, Any]:
    engine = catalog().engine
    slug = request.args.get("category") or None
    if slug:
        ids.name(slug, what="category")
    after = ids.number(request.args.get("after") or "0", what="after")
    whole = not slug and "after" not in request.args
    first = FEATURED_IDS.start - 1 if whole else after
    with recorder.unrecorded():  # the shelf around the product is not the lesson
        categories = queries.categories(engine)
        if slug and slug not in {c.slug for c in categories}:
            raise Problem(404, "No such category", f"There is no category {slug}.")
        rows = queries.products(engine, category=slug, after=first, limit=_PER_PAGE + 1)
    return {
        "product": product,
        "served": None,
        "products": rows[:_PER_PAGE],
        "next_after": rows[_PER_PAGE - 1].id if len(rows) > _PER_PAGE else None,
        "after": after,
        "categories": categories,
        "category": slug or "",
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.CACHE_ASIDE,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
        "first_product": _SHOWN_FIRST,
    }


def _parse_edit() -> tuple[int | None, int | None, dict[str, str]]:
    """Price in cents, stock, and what is wrong with which field."""
    errors: dict[str, str] = {}
    price_cents = _cents(request.form.get("price", ""))
    least, most = queries.PRICE_CENTS
    if price_cents is None or not least <= price_cents <= most:
        errors["price"] = f"A price from 0.01 to {most // 100:,}, for example 48.50."
    text = request.form.get("stock", "").strip()
    stock = int(text) if text.isdecimal() and len(text) < 10 else None
    if stock is None or stock > queries.STOCK[1]:
        errors["stock"] = f"A whole number from 0 to {queries.STOCK[1]:,}."
    return price_cents, stock, errors


def _cents(text: str) -> int | None:
    whole, _, part = text.strip().partition(".")
    if not (whole.isdecimal() and len(whole) < 10 and len(part) <= 2):
        return None
    if part and not part.isdecimal():
        return None
    return int(whole) * 100 + int(part.ljust(2, "0") or 0)


def _served(outcome: str, us: int) -> Served:
    """This read, beside the visitor's last ones from their own cookie."""
    miss, _, hit = request.cookies.get("served", "").partition(".")
    served = Served(outcome, us, _us(miss), _us(hit))
    if outcome == "hit":
        served.last_hit_us = us
    elif outcome == "miss":
        served.last_miss_us = us
    return served


def _kept(served: Served) -> str:
    return f"{served.last_miss_us or ''}.{served.last_hit_us or ''}"


def _us(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _pill(product_id: int, row: keypanel.KeyRow | None) -> Pill:
    if row is None:
        return Pill(product_id, "", "not cached", None, 0)
    ending = row.ttl_ms is not None and row.ttl_ms < row.ttl_max_ms * _ENDING
    tone, text = ("wait", "expires soon") if ending else ("ok", "cached")
    return Pill(product_id, tone, text, row.ttl_ms, row.ttl_max_ms)
