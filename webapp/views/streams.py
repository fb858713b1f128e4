"""The order pipeline: entries, workers, pending orders, dead letters, and Break it."""

import secrets
from pathlib import Path
from random import Random
from typing import Any

from flask import (
    Blueprint,
    Response,
    current_app,
    make_response,
    redirect,
    request,
    url_for,
)

from webapp import keys, words
from webapp.experiments.streams import EXPERIMENTS
from webapp.http import delivery, ids, keypanel, lab, metrics, ordering, sources
from webapp.http.errors import Problem
from webapp.http.flow import Flow
from webapp.http.ordering import orders
from webapp.patterns.streams import bounded_stream, consumer_group, dead_letters
from webapp.settings import Settings
from webapp.shop import pace
from webapp.shop.orders import GROUPS
from webapp.shop.pace import BOUNDS, Pace
from webapp.shop.seed import FEATURED_IDS
from webapp.shop.shoppers import read_rate

bp = Blueprint("streams", __name__, url_prefix="/streams")

_COUNTS = ("1", "50")
_MOST_REQUEUED = 100

_FILES = (
    sources.python(Path(consumer_group.__file__), start="class ConsumerGroup"),
    sources.lua("streams/claim"),
    sources.lua("streams/finish"),
    sources.python(Path(bounded_stream.__file__), start="class BoundedStream"),
    sources.lua("streams/append"),
    sources.lua("streams/trim"),
    sources.python(Path(dead_letters.__file__), start="class DeadLetters"),
    sources.lua("streams/bury"),
    sources.lua("streams/requeue"),
)


@bp.get("")
def show() -> Response:
    """Where the orders are, and who works on them."""
    return _respond()


@bp.post("/orders")
def place() -> Response:
    """One order or fifty, each of some featured product."""
    count = request.form.get("count", "1")
    if count not in _COUNTS:
        raise Problem(400, "Out of bounds", f"count: one of {', '.join(_COUNTS)}.")
    random = Random()
    product_id = random.choice(FEATURED_IDS)
    order = ordering.price({product_id: random.randint(1, 3)})
    placed = [
        ordering.place(order, once=secrets.token_hex(8)) for _ in range(int(count))
    ]
    first, last = placed[0].number, placed[-1].number
    numbers = str(first) if first == last else f"{first} to {last}"
    delivery.verdict("ok", f"added {numbers}")
    return _respond(said={"tone": "ok", "text": f"Added {numbers}"})


@bp.post("/workers")
def act() -> Response:
    """Have a worker killed or started again, or another one join."""
    _require_demo()
    verb, _, name = request.form.get("do", "").partition(":")
    fleet = _flow().fleet
    if verb in ("kill", "restart"):
        done = fleet.kill(name) if verb == "kill" else fleet.restart(name)
        if not done:
            raise Problem(409, "Not as things stand", f"Cannot {verb} that worker.")
        said = ("no", f"{name} killed") if verb == "kill" else ("ok", f"{name} is back")
    elif verb == "add":
        added = fleet.add()
        said = ("ok", f"{added} joins") if added else ("wait", "8 workers are the most")
    elif verb == "remove":
        gone = fleet.remove()
        said = ("ok", f"{gone} leaves") if gone else ("wait", "One worker has to stay")
    else:
        raise Problem(400, "No such act", "do: kill:name, restart:name, add, remove.")
    delivery.verdict(*said)
    return _respond(said={"tone": said[0], "text": said[1]})


@bp.post("/letters")
def requeue() -> Response:
    """Put one dead letter back into the stream, or all of them."""
    id = request.form.get("id", "")
    found = orders().letters(_MOST_REQUEUED)
    done = orders().requeue(one for one in found if id in ("", one.id))
    metrics.EVENTS.labels("streams", "requeued").inc(done)
    delivery.verdict("ok" if done else "wait", f"{done} requeued")
    return _respond(said={"tone": "ok" if done else "wait", "text": f"{done} requeued"})


@bp.post("/pace")
def set_pace() -> Response | str:
    """How fast orders come, how long they take, how many fail, when to reclaim."""
    _require_demo()
    asked = {name: _fader(name) for name in _faders(Pace())}
    asked["reclaim_ms"] = asked.pop("reclaim_s") * 1000
    pace.write(_settings().instance_path, Pace(**asked))
    if not delivery.is_htmx():
        return redirect(url_for("streams.show"), 303)  # type: ignore[return-value]
    said = {"tone": "ok", "text": "Set: workers follow within a second"}
    return delivery.fragment("streams/_said.html", said=said)


@bp.get("/keys")
def show_keys() -> str:
    """The keys of the pipeline that are one of a kind."""

    def find() -> list[keypanel.KeyRow]:
        own = orders()
        totals = [own.totals(group) for group in GROUPS]
        names = [own.stream, own.dead, own.counter, own.claims, *totals]
        return keypanel.rows(own.client, names)

    return keypanel.show(find)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.STREAMS_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _respond(**more: Any) -> Response:
    with delivery.beside("Draw the pipeline", housekeeping=True):
        shown = _flow().look()
    return delivery.answer("streams", **_context() | shown | more)


def _context() -> dict[str, Any]:
    return {
        "workers": _flow().has_workers,
        "quiet": _flow().demo and not read_rate(_settings().instance_path),
        "faders": _faders(_flow().pace),
        "bounds": _bounds(),
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.STREAMS,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }


def _faders(now: Pace) -> dict[str, int]:
    """As the page shows them: reclaim in seconds."""
    return {
        "orders_per_min": now.orders_per_min,
        "work_ms": now.work_ms,
        "fail_percent": now.fail_percent,
        "reclaim_s": now.reclaim_ms // 1000,
    }


def _bounds() -> dict[str, tuple[int, int, int]]:
    least, most, step = (ms // 1000 for ms in BOUNDS["reclaim_ms"])
    return BOUNDS | {"reclaim_s": (least, most, step)}


def _fader(name: str) -> int:
    least, most, step = _bounds()[name]
    value = ids.bounded(request.form.get(name, ""), what=name, least=least, most=most)
    if value % step:
        raise Problem(400, "Out of bounds", f"{name}: in steps of {step}.")
    return value


def _require_demo() -> None:
    if not _settings().demo:
        raise Problem(403, "Not in demo mode", "Start with DEMO=1 to allow this.")


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _flow() -> Flow:
    found: Flow = current_app.extensions["flow"]
    return found
