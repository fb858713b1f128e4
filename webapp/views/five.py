"""Redlock on five scratch servers, a part of the page of locks. For demo mode."""

import re
from typing import Any

from flask import Blueprint, Response, current_app, make_response, request

from webapp.connection.scratch import NUMBERS, State
from webapp.http import delivery
from webapp.http.errors import Problem
from webapp.live.five import LOCK, TIMEOUT_S, WORKERS, Five, Hold

bp = Blueprint("five", __name__, url_prefix="/locks/five")

_HOLD = re.compile(r"([0-9a-f]{32}):([1-9][0-9]{12})")
_WISHES: dict[str, State] = {"kill": "down", "pause": "paused", "restart": "up"}


@bp.before_request
def _shown_there() -> None:
    delivery.part_of("locks")


@bp.post("/start")
def start() -> Response:
    """Have five servers for a while."""
    _five().wishes.want()
    return _respond()


@bp.post("/nodes/<int:n>/<wish>")
def change(n: int, wish: str) -> Response:
    """Kill, stop or restart one server; one that was killed comes back empty."""
    if n not in NUMBERS or wish not in _WISHES:
        raise Problem(404, "No such server", "A server from 1 to 5, and a wish.")
    _five().wishes.want()
    _five().wishes.ask(n, _WISHES[wish])
    return _respond()


@bp.post("/lock")
def act() -> Response:
    """What one worker does; the form carries what both believe to hold."""
    worker, _, verb = request.form.get("do", "").partition(":")
    if worker not in WORKERS or verb not in ("take", "release"):
        raise Problem(400, "No such act", "do: a worker and a verb, as in A:take.")
    _five().wishes.want()
    holds = _holds()
    with _five().clients() as clients:
        with delivery.beside("Connect to those that should answer", housekeeping=True):
            _five().look(clients)
        if verb == "take":
            attempt, hold = _five().take(clients)
            holds[worker] = hold or holds[worker]
            said = "ok" if hold else "no", f"{attempt.granted} of {len(NUMBERS)}"
            delivery.verdict(*said)
            return _respond(clients, holds, worker=worker, attempt=attempt)
        if (old := holds[worker]) is None:
            raise Problem(409, "No lock", f"Worker {worker} has to take it first.")
        freed = _five().release(clients, old)
        holds[worker] = None
        delivery.verdict("ok", f"{freed} freed")
        return _respond(clients, holds, worker=worker, freed=freed)


@bp.post("/nodes")
def show() -> Response:
    """What each server says now; a form carries what both believe to hold."""
    delivery.housekeeping()
    return _respond()


def _respond(
    clients: list[Any] | None = None,
    holds: dict[str, Hold | None] | None = None,
    **more: Any,
) -> Response:
    nodes = []
    if _five().wishes.wanted:
        with delivery.beside("Ask who holds the lock", housekeeping=True):
            if clients is not None:
                nodes = _five().look(clients)
            else:
                with _five().clients() as own:
                    nodes = _five().look(own)
    shown: dict[str, Any] = {
        "five": _five(),
        "nodes": nodes,
        "holds": holds or _holds(),
        "ttl_s": LOCK.ttl_ms // 1000,
        "timeout_ms": round(TIMEOUT_S * 1000),
        "attempt": None,
        "freed": None,
    }
    return make_response(delivery.fragment("locks/_five.html", **shown | more))


def _holds() -> dict[str, Hold | None]:
    """By worker, from the form; what has ended is held no longer."""
    found: dict[str, Hold | None] = dict.fromkeys(WORKERS)
    for worker in WORKERS:
        text = request.form.get(f"hold_{worker}", "")
        if not text:
            continue
        parts = _HOLD.fullmatch(text)
        if parts is None:
            raise Problem(400, "Not a lock", "It is kept as this page gave it.")
        hold = Hold(parts[1], int(parts[2]))
        found[worker] = hold if hold.left_ms else None
    return found


def _five() -> Five:
    five: Five = current_app.extensions["five"]
    if not five.is_there:
        raise Problem(403, "Not in demo mode", "`make run` starts servers for this.")
    return five
