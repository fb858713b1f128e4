"""Unique visitors: a HyperLogLog beside an exact Set, for real and for made-up ones."""

import secrets
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, redirect, request

import webapp.patterns.unique_visitors as unique_visitors
from webapp import keys, words
from webapp.connection import budget, recorder
from webapp.experiments.unique_visitors import EXPERIMENTS
from webapp.http import curves, delivery, ids, keypanel, lab, sources
from webapp.http.errors import Problem
from webapp.http.visits import of_page_view, visits
from webapp.shop.visits import SIMULATED

bp = Blueprint("visitors", __name__, url_prefix="/visitors")

_FILES = (sources.python(Path(unique_visitors.__file__), start="class UniqueVisitors"),)

_STEP_DEADLINE_S = 5.0  # for thousands of made-up visitors


@bp.get("")
def show() -> Response:
    """Today's visitors, this one among them; the days, and their week."""
    visitor = None if delivery.is_htmx() else of_page_view(again=True)
    return _respond(visit=visitor.visit if visitor else None)


@bp.post("/another")
def another() -> Response:
    """Somebody new comes, as if with another browser."""
    visit = visits().count(secrets.token_hex(8))
    delivery.verdict("ok", "new" if visit.is_new else "seen before")
    return _respond(visit=visit, another=True)


@bp.get("/keys")
def show_keys() -> str:
    """Today's counters, the week's, and those of a simulation."""
    run = request.args.get("run")
    simulated = visits().simulated(ids.name(run, what="run")) if run else ()
    return keypanel.show(
        lambda: [
            *keypanel.rows(visits().scratch, simulated),
            *keypanel.rows(visits().client, visits().key_names()),
        ]
    )


@bp.get("/simulation")
def show_simulation() -> Response:
    """How far a simulation has come; nobody goes on with it."""
    delivery.housekeeping()
    run = ids.name(request.args.get("run", ""), what="run")
    return _simulation(run, going=False)


@bp.post("/simulation")
def simulate() -> Response:
    """The next made-up visitors; the answer asks for more until all have come."""
    if not current_app.extensions["settings"].demo:
        raise Problem(403, "Not in demo mode", "Start with DEMO=1 to allow this.")
    asked = request.form.get("run")
    run = ids.name(asked, what="run") if asked else secrets.token_hex(4)
    if (own := recorder.current()) is not None:
        own.see_inside = False  # thousands of calls are no reading
    with budget.limited_to(_STEP_DEADLINE_S):
        points = visits().simulate(run)
    delivery.verdict("ok", f"{points[-1].count.exact:,} visitors")
    return _simulation(run, going=points[-1].count.exact < SIMULATED)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.VISITORS_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _respond(**more: Any) -> Response:
    return delivery.answer("visitors", **_context() | more)


def _context() -> dict[str, Any]:
    days, week = visits().periods()
    return {
        "today": days[-1],
        "days": days[::-1],
        "week": week,
        "visit": None,
        "another": False,
        "simulated": SIMULATED,
        "standard_error": unique_visitors.STANDARD_ERROR,
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.UNIQUE_VISITORS,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }


def _simulation(run: str, *, going: bool) -> Response:
    if not delivery.is_htmx():
        return redirect("/visitors", 303)  # type: ignore[return-value]
    points = visits().curve(run)
    return make_response(
        delivery.fragment(
            "visitors/_simulation.html",
            run=run,
            going=going,
            last=points[-1] if points else None,
            bytes_of=visits().simulated_bytes(run),
            chart=curves.of_counts(points, most=SIMULATED),
            simulated=SIMULATED,
            standard_error=unique_visitors.STANDARD_ERROR,
        )
    )
