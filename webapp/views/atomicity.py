"""Atomicity: transfers between three accounts, a race of many clients, and Break it."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, request

import webapp.patterns.transactions as transactions
from webapp import keys, words
from webapp.experiments import contention
from webapp.experiments.transactions import EXPERIMENTS
from webapp.http import delivery, keypanel, lab, metrics, sources
from webapp.http.errors import Problem
from webapp.patterns.transactions import Moved, TooContended
from webapp.shop.accounts import NAMES, START, WAYS, Accounts, Way

bp = Blueprint("atomicity", __name__, url_prefix="/atomicity")

_MOST = 200  # € of one transfer
_LABELS = {
    "scripted": "Lua script",
    "watched": "WATCH with retries",
    "queued": "MULTI, no look",
}

_FILES = (
    sources.python(Path(transactions.__file__), start="class Transfers"),
    sources.lua("transactions/transfer"),
)


@bp.get("")
def show() -> Response:
    """All accounts, and the form of a transfer."""
    return _respond()


@bp.post("/transfer")
def transfer() -> Response:
    """Move an amount in the way that was chosen; refused where it is not there."""
    way, giver, taker, amount = _asked()
    with delivery.beside("Open accounts", housekeeping=True):
        _accounts().open()
    try:
        moved = _accounts().move(way, giver, taker, amount)
    except TooContended as error:
        raise Problem(503, "Too contended", str(error)) from error
    done = "moved" if moved.done else "refused"
    metrics.EVENTS.labels("atomicity", done).inc()
    delivery.verdict("ok" if moved.done else "wait", done)
    return _respond(moved=moved, way=way, giver=giver, taker=taker, amount=amount)


@bp.post("/again")
def start_again() -> Response:
    """Everybody has the first amount again."""
    _accounts().start_again()
    delivery.verdict("ok", "begun again")
    return _respond()


@bp.post("/race")
def run_race() -> Response:
    """Many clients at one balance, in all four ways."""
    clients = contention.CLIENTS.parse(request.form.get("clients", ""))
    with lab.bench_for(keys.ATOMICITY_LAB, "Race") as bench:
        race = contention.run(bench, clients=clients)
    lab.name_on_the_tape("Race", replayed=True)
    wrong = sum(not way.is_right for way in race.ways)
    delivery.verdict("no" if wrong else "ok", f"{wrong} of {len(race.ways)} wrong")
    if delivery.is_htmx():
        html = delivery.fragment(
            "atomicity/_race.html",
            recordings=race.recordings,
            race=race,
            clients=contention.CLIENTS,
            each=contention.EACH,
        )
        return make_response(html)
    return _respond(race=race)


@bp.get("/keys")
def show_keys() -> str:
    """The three accounts with their TTLs."""
    return keypanel.show(
        lambda: keypanel.rows(_accounts().client, list(_accounts().keys))
    )


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.ATOMICITY_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _asked() -> tuple[Way, str, str, int]:
    form = request.form
    way, giver, taker = form.get("way"), form.get("giver", ""), form.get("taker", "")
    if way not in WAYS:
        raise Problem(400, "No such way", f"way: one of {', '.join(WAYS)}.")
    if giver not in NAMES or taker not in NAMES:
        raise Problem(400, "No such account", f"One of {', '.join(NAMES)}.")
    if giver == taker:
        raise Problem(400, "One account", "Choose two different accounts.")
    amount = form.get("amount", "")
    if not (amount.isascii() and amount.isdecimal() and 1 <= int(amount[:4]) <= _MOST):
        raise Problem(400, "Out of bounds", f"Amount: whole euros, 1 to {_MOST}.")
    return way, giver, taker, int(amount[:4])


def _respond(*, moved: Moved | None = None, **more: Any) -> Response:
    with delivery.beside("Read the balances", housekeeping=True):
        balances = _accounts().balances()
    context = {
        "balances": balances,
        "moved": moved,
        "start": START,
        "most": _MOST,
        "labels": _LABELS,
        "way": WAYS[0],
        "giver": NAMES[0],
        "taker": NAMES[1],
        "amount": START // 2,
        "race": None,
        "clients": contention.CLIENTS,
        "each": contention.EACH,
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.TRANSACTIONS,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }
    return delivery.answer("atomicity", **context | more)


def _accounts() -> Accounts:
    found: Accounts = current_app.extensions["accounts"]
    return found
