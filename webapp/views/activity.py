"""A visitor's own activity: what they looked at and edited, and Break it."""

import random
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, request

import webapp.patterns.activity_feed as activity_feed
from webapp import keys, words
from webapp.experiments.activity_feed import EXPERIMENTS
from webapp.http import delivery, keypanel, lab, metrics, session, signin, sources
from webapp.http.activity import activity
from webapp.http.errors import Problem
from webapp.shop.activity import parse
from webapp.shop.seed import FEATURED_IDS, PRODUCTS

bp = Blueprint("activity", __name__, url_prefix="/activity")

_LOOKS = 20  # products that the button looks at

_FILES = (
    sources.python(Path(activity_feed.__file__), start="class ActivityFeed"),
    sources.lua("activity_feed/page"),
)


@bp.get("")
def show() -> Response:
    """The newest entries, or those after an entry; without a session, ways to one."""
    after = request.args.get("after")
    if after is not None and parse(after) is None:
        raise Problem(400, "Not an entry", "after: kind:product:ms, as a link has it.")
    return _respond(after=after)


@bp.post("/guest")
def become_guest() -> Response:
    """A new guest, whose list is empty."""
    signin.as_guest()
    return _respond(signed_in=True)


@bp.post("/look")
def look() -> Response:
    """Twenty products more on the list, noted one by one, as page views would."""
    if not current_app.extensions["settings"].demo:
        raise Problem(403, "Not in demo mode", "Start with DEMO=1 to allow this.")
    visitor = session.require_visitor()
    for product_id in random.sample(range(1, PRODUCTS + 1), _LOOKS):
        activity().note(visitor.id, "view", product_id)
        metrics.EVENTS.labels("activity", "noted").inc()
    delivery.verdict("ok", f"{_LOOKS} noted")
    return _respond()


@bp.get("/keys")
def show_keys() -> str:
    """The visitor's list with its TTL."""

    def find() -> list[keypanel.KeyRow]:
        visitor = session.visitor()
        names = [activity().key(visitor.id)] if visitor else []
        return keypanel.rows(activity().client, names)

    return keypanel.show(find)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.ACTIVITY_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _respond(*, after: str | None = None, **more: Any) -> Response:
    return delivery.answer("activity", **_context(after) | more)


def _context(after: str | None) -> dict[str, Any]:
    visitor = session.visitor()
    return {
        "visitor": visitor,
        "listed": activity().page(visitor.id, after=after) if visitor else None,
        "after": after,
        "longest": activity().feed.longest,
        "ttl_days": activity().feed.ttl_ms // keys.DAY_MS,
        "looks": _LOOKS,
        "first_product": FEATURED_IDS.start,
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.ACTIVITY_FEED,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }
