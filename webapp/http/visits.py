"""Counts a page view's visitor, at most once a day, and never fails the page."""

import secrets
from dataclasses import dataclass

import itsdangerous
from flask import Flask, Response, current_app, g, request
from redis.exceptions import RedisError

from webapp.connection import recorder
from webapp.connection.recorder import Recording
from webapp.http import metrics
from webapp.patterns.unique_visitors import Visit
from webapp.shop.visits import Visits

_COOKIE = "visitor"
_YEAR_S = 31_536_000


@dataclass
class Visitor:
    """Who looks, from the signed cookie: a random id and the day last counted."""

    id: str
    counted_on: str = ""
    visit: Visit | None = None  # what counting said, in this request
    receipt: Recording | None = None  # of counting; None: nothing was sent


def init_app(app: Flask) -> None:
    app.after_request(_remember)


def visits() -> Visits:
    """This app's visits."""
    found: Visits = current_app.extensions["visits"]
    return found


def of_page_view(*, again: bool = False) -> Visitor | None:
    """Who views this page, counted on the first view of a day; None: no page view.

    A page that is about counting counts `again`, which changes nothing.
    """
    if request.method != "GET":
        return None
    if "visitor" not in g:
        g.visitor = _visitor()
        if again or g.visitor.counted_on != visits().today.isoformat():
            _count(g.visitor, aside=not again)
    visitor: Visitor = g.visitor
    return visitor


def _count(visitor: Visitor, *, aside: bool) -> None:
    """`aside`: the page is about something else, so its receipt is housekeeping."""
    with recorder.recording(_recording()) as own:
        visitor.receipt, own.housekeeping = own, aside
        try:
            visitor.visit = visits().count(visitor.id)
        except RedisError:
            own.verdict = "no", "not counted"
            return
    own.verdict = ("ok", "new") if visitor.visit.is_new else ("ok", "seen before")
    visitor.counted_on = visits().today.isoformat()
    metrics.EVENTS.labels("visitors", "visits").inc()


def _recording() -> Recording:
    """Named for itself, and seen as the request is."""
    own = Recording("Count the visit")
    if (outer := recorder.current()) is not None:
        own.distance_ms = outer.distance_ms
    return own


def _visitor() -> Visitor:
    try:
        id, counted_on = _signer().loads(request.cookies.get(_COOKIE, ""))
    except (itsdangerous.BadData, ValueError, TypeError):
        return Visitor(secrets.token_hex(8))
    return Visitor(str(id), str(counted_on))


def _remember(response: Response) -> Response:
    visitor: Visitor | None = g.get("visitor")
    if visitor is None or response.mimetype != "text/html":
        return response
    value = _signer().dumps([visitor.id, visitor.counted_on])
    if value != request.cookies.get(_COOKIE):
        response.set_cookie(
            _COOKIE,
            value,
            max_age=_YEAR_S,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )
    return response


def _signer() -> itsdangerous.URLSafeSerializer:
    return itsdangerous.URLSafeSerializer(
        str(current_app.config["SECRET_KEY"]), salt=_COOKIE
    )
