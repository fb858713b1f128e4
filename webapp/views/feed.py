"""The live feed: what happens in the shop, as it happens, and Break it."""

from pathlib import Path
from typing import Any

import redis
from flask import Blueprint, Response, current_app, make_response, request
from redis.exceptions import RedisError

import webapp.patterns.pub_sub as pub_sub
from webapp import keys, words
from webapp.connection.roles import Clients
from webapp.experiments import cut_line
from webapp.experiments.pub_sub import EXPERIMENTS
from webapp.http import delivery, errors, keypanel, lab, metrics, sources
from webapp.live import feed
from webapp.live.feed import PATTERN, Event

bp = Blueprint("feed", __name__, url_prefix="/feed")

_LONGEST_TEXT = 200

_FILES = (
    sources.python(Path(pub_sub.__file__), start="class PubSub"),
    sources.lua("pub_sub/publish"),
)


@bp.get("")
def show() -> Response:
    """The last events, and a line to say something to everybody."""
    return _respond()


@bp.post("")
def publish() -> Response:
    """The message is on the feed of everyone who looks, in this browser too."""
    text = " ".join(request.form.get("text", "").split())
    if not text.isprintable() or not 0 < len(text) <= _LONGEST_TEXT:
        error = f"1 to {_LONGEST_TEXT} printable characters."
        return _respond(text=text, error=error, status=422)
    payload = feed.encode(Event(kind="message", text=text))
    published = PATTERN.publish(_client(), _stream(), payload=payload)
    metrics.EVENTS.labels("feed", "published").inc()
    delivery.verdict("ok", f"{published.receivers} told")
    return _respond(published=published)


@bp.post("/cut")
def cut() -> Response:
    """The same messages by pub/sub and by a stream, while a line is cut."""
    away = cut_line.AWAY.parse(request.form.get("away", ""))
    with lab.bench_for(keys.FEED_LAB, "Cut the line") as bench:
        done = cut_line.run(bench, away=away)
    lab.name_on_the_tape("Cut the line", replayed=True)
    lost = done.lost("Pub/sub")
    delivery.verdict("no" if lost else "ok", f"{lost} lost")
    if delivery.is_htmx():
        html = delivery.fragment(
            "feed/_cut.html",
            recordings=done.recordings,
            cut=done,
            away=cut_line.AWAY,
            messages=cut_line.MESSAGES,
        )
        return make_response(html)
    return _respond(cut=done)


@bp.get("/keys")
def show_keys() -> str:
    """The feed's stream with its TTL, and how many processes subscribe to it."""
    delivery.housekeeping()
    try:
        rows = keypanel.rows(_client(), [_stream()])
        facts = PATTERN.facts(_client(), _stream())
    except RedisError as error:
        return delivery.fragment(
            "feed/_keys.html",
            keys=None,
            error=errors.away(error),
            most=PATTERN.longest,
        )
    return delivery.fragment(
        "feed/_keys.html", keys=rows, facts=facts, most=PATTERN.longest
    )


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.FEED_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _respond(*, status: int = 200, **more: Any) -> Response:
    """The sender for htmx, the whole page for a browser without it."""
    context: dict[str, Any] = {
        "longest": _LONGEST_TEXT,
        "text": "",
        "error": None,
    } | more
    if delivery.is_htmx():
        context["sources"] = sources.with_badges(_FILES, delivery.own_receipt())
        return make_response(
            delivery.fragment("feed/_fragment.html", **context), status
        )
    context |= {
        "entries": feed.entries(
            PATTERN.latest(_client(), _stream(), decode=feed.decode, count=feed.SHOWN)
        ),
        "experiments": EXPERIMENTS,
        "words": words.PUB_SUB,
        "most": PATTERN.longest,
        "away": cut_line.AWAY,
        "messages": cut_line.MESSAGES,
    }
    context = {"outcomes": {}} | context
    context["sources"] = sources.with_badges(_FILES, delivery.own_receipt())
    return make_response(delivery.page("feed/show.html", **context), status)


def _client() -> redis.Redis:
    clients: Clients = current_app.extensions["clients"]
    return clients.durable


def _stream() -> str:
    return feed.stream(_namespace())


def _namespace() -> str:
    namespace: str = current_app.extensions["settings"].namespace
    return namespace
