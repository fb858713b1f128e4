"""The product catalog: list, product, edit, and Break it, in each variant."""

from collections.abc import Sequence
from random import randint
from time import perf_counter
from typing import Any

import msgspec
from flask import Blueprint, Response, make_response, request
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection import recorder
from webapp.http import (
    activity,
    answers,
    crowds,
    delivery,
    edits,
    errors,
    ids,
    keypanel,
    lab,
    reads,
    served,
    session,
    signin,
    sources,
    variants,
)
from webapp.http.errors import Problem
from webapp.http.events import tell_edit, tell_view
from webapp.http.jinja import plural
from webapp.http.reads import catalog
from webapp.http.variants import Variant
from webapp.shop import queries
from webapp.shop.catalog import Edited
from webapp.shop.seed import FEATURED_IDS, PRODUCTS

bp = Blueprint("catalog", __name__, url_prefix="/catalog")

_PER_PAGE = 5
_SHOWN_FIRST = FEATURED_IDS.start  # what an empty page offers to open
_MOST_KEYS = 12  # products whose keys one call may ask about
_ENDING = 0.15  # of its TTL is left: the pill says so
_VERDICTS = {
    "stored": ("ok", "stored"),
    "newer": ("wait", "newer kept"),
    "absent": ("ok", "invalidated"),
    None: ("no", "not invalidated yet"),
}


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
    return _respond(variants.chosen(), None)


@bp.get("/<product_id>")
def product(product_id: str) -> Response:
    """One product, read through the cache, above the list."""
    variant = variants.chosen()
    number = ids.number(product_id, what="product")
    began = perf_counter()
    read = reads.product(number, variant=variant.name)
    took = served.measured(read.outcome, round((perf_counter() - began) * 1e6))
    if read.value is None:
        if variant.name == "bloom-filter" and delivery.is_htmx():
            return _respond(variant, None, denied=(number, read.outcome))
        raise _no_such(number)
    if visitor := session.who().visitor:
        tell_view(visitor.role, read.value)
        activity.note(visitor, "view", number)
    response = _respond(variant, read.value, served=took)
    served.keep(response, took)
    response.headers["X-Cache"] = read.outcome
    return response


@bp.post("/<product_id>")
def edit(product_id: str) -> Response:
    """Price and stock are saved, and the copy in Redis is gone, or new."""
    variant = variants.chosen()
    number = ids.number(product_id, what="product")
    visitor = session.require_visitor()
    price_cents, stock, errors = edits.parse(request.form)
    if errors:
        row = reads.product(number, variant=variant.name).value
        delivery.verdict("no", "not saved")
        form = {**request.form, "errors": errors}
        return _respond(variant, row, form=form, status=422)
    through = variant.name == "write-through"
    save = catalog().edit_through if through else catalog().edit
    edited = save(number, price_cents=price_cents, stock=stock)
    if edited is None:
        raise _no_such(number)
    tell_edit(edited.product)
    activity.note(visitor, "edit", number)
    delivery.verdict(*_verdict(edited, through=through))
    return _respond(variant, edited.product, edited=edited)


@bp.post("/<product_id>/invalidate")
def invalidate(product_id: str) -> Response:
    """The registered copies of the product's whole category are gone."""
    number = ids.number(product_id, what="product")
    with recorder.unrecorded():
        row = queries.product(catalog().engine, number)
    if row is None:
        raise _no_such(number)
    deleted = catalog().invalidate_category(row.category)
    delivery.verdict("ok", f"{plural(deleted, 'key')} deleted")
    return _respond(variants.chosen(), row, deleted=deleted)


@bp.post("/<product_id>/guest")
def become_guest(product_id: str) -> Response:
    """The same product, which its visitor may now edit."""
    number = ids.number(product_id, what="product")
    with recorder.unrecorded():
        row = queries.product(catalog().engine, number)
    if row is None:
        raise _no_such(number)
    signin.as_guest()
    return _respond(variants.chosen(), row, signed_in=True)


@bp.post("/readers")
def read_at_once() -> Response:
    """Many readers of one value, by one method or by all: their timelines."""
    variant = variants.chosen()
    ran = crowds.run(request.form)
    if delivery.is_htmx():
        recordings = [own for one in ran.runs for own in one.recordings]
        html = delivery.fragment(
            "catalog/_readers.html",
            recordings=recordings,
            kept={"variant": variant.in_url},
            crowd=ran.crowd,
            picture=ran.picture,
        )
        return make_response(html)
    return _respond(variant, None, crowd=ran.crowd, picture=ran.picture)


@bp.get("/answers")
def ask() -> Response:
    """What the API answers to these parameters, and what of it is sent."""
    variant = variants.chosen()
    asked = answers.ask(request.args)
    if delivery.is_htmx():
        kept = {"variant": variant.in_url}
        html = delivery.fragment("catalog/_answers.html", kept=kept, asked=asked)
        return make_response(html)
    return _respond(variant, None, asked=asked)


@bp.get("/keys")
def show_keys() -> str:
    """The keys of the products on the page, with their TTLs."""
    delivery.housekeeping()
    asked = request.args.get("ids", "").split(",")[:_MOST_KEYS]
    numbers = [ids.number(i, what="product") for i in asked if i]
    slug = request.args.get("tag", "")
    tag = catalog().tag(ids.name(slug, what="tag")) if slug else None
    entries = [catalog().entry(n) for n in numbers]
    names = [name for e in entries for name in (e.value, e.lease)]
    names += [catalog().list_entry.value, catalog().filter_key]
    names += _more_keys(numbers)
    try:
        rows = keypanel.rows(catalog().cache, names)
        rows += keypanel.rows(catalog().tags, [tag.key]) if tag else []
    except RedisError as error:
        return delivery.fragment("_keys.html", keys=None, error=errors.away(error))
    by_name = {row.name: row for row in rows}
    pills = [
        _pill(n, by_name.get(e.value)) for n, e in zip(numbers, entries, strict=True)
    ]
    return delivery.fragment("catalog/_keys.html", keys=rows, pills=pills)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(variants.EXPERIMENTS, name, keys.LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(variants.of_experiment(name), None, outcomes=ran.outcomes)


def _respond(
    variant: Variant,
    product: queries.ProductPage | queries.ProductRow | None,
    *,
    status: int = 200,
    **more: Any,
) -> Response:
    context = _context(variant, product) | more
    if delivery.is_htmx():
        html = delivery.fragment("catalog/_fragment.html", **context)
    else:
        with delivery.aside("Read the list of categories") as listing:
            context["categories"] = catalog().categories().value
        html = delivery.page("catalog/show.html", recordings=[listing], **context)
    return make_response(html, status)


def _context(
    variant: Variant,
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
        if slug and not queries.has_category(engine, slug):
            raise Problem(404, "No such category", f"There is no category {slug}.")
        rows = queries.products(engine, category=slug, after=first, limit=_PER_PAGE + 1)
    return {
        "variant": variant,
        "variants": variants.VARIANTS,
        "product": product,
        "served": None,
        "denied": None,
        "products": rows[:_PER_PAGE],
        "next_after": rows[_PER_PAGE - 1].id if len(rows) > _PER_PAGE else None,
        "after": after,
        "kept": {"variant": variant.in_url, "category": slug, "after": after or None},
        "crowd": crowds.Crowd(),
        "picture": None,
        "asked": answers.Asked(),
        "experiments": variant.experiments,
        "outcomes": {},
        "words": variant.words,
        "sources": sources.with_badges(variant.files, delivery.own_receipt()),
        "first_product": _SHOWN_FIRST,
        "unknown_id": randint(PRODUCTS + 1, ids.LARGEST),
    }


def _more_keys(numbers: Sequence[int]) -> list[str]:
    """What belongs to the products' locks, and to an answer of the API."""
    if answer := request.args.get("answer", ""):
        own = catalog().answer_names(ids.name(answer, what="answer"))
        return [own.generation, own.answer, own.lease]
    if request.args.get("variant") != "stampede":
        return []
    locks = [catalog().locked_entry(n).lock for n in numbers]
    return [name for lock in locks for name in (lock.fence, lock.wake)]


def _no_such(number: int) -> Problem:
    return Problem(404, "No such product", f"There is no product {number}.")


def _verdict(edited: Edited, *, through: bool) -> tuple[str, str]:
    if through and edited.copy == "absent":
        return "wait", "not stored"
    return _VERDICTS[edited.copy]


def _pill(product_id: int, row: keypanel.KeyRow | None) -> Pill:
    if row is None:
        return Pill(product_id, "", "not cached", None, 0)
    ending = row.ttl_ms is not None and row.ttl_ms < row.ttl_max_ms * _ENDING
    tone, text = ("wait", "expires soon") if ending else ("ok", "cached")
    return Pill(product_id, tone, text, row.ttl_ms, row.ttl_max_ms)
