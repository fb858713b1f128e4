"""Rate limits: a lab that puts the same requests to both algorithms, and Break it."""

from pathlib import Path
from typing import Any, cast

import redis
from flask import (
    Blueprint,
    Response,
    current_app,
    make_response,
    redirect,
    request,
    url_for,
)
from redis.exceptions import RedisError

from webapp import keys, words
from webapp.experiments import limits_lab
from webapp.experiments.limits_lab import LIMITS, SHAPES, WINDOWS_MS, BadRun, Run
from webapp.experiments.rate_limiter import EXPERIMENTS
from webapp.http import (
    delivery,
    errors,
    ids,
    keypanel,
    lab,
    lanes,
    limiter,
    metrics,
    sources,
)
from webapp.http.errors import Problem
from webapp.patterns.rate_limiter import fixed_window, sliding_window_log

bp = Blueprint("rate_limits", __name__, url_prefix="/rate-limits")

_FIRST_LIMIT, _FIRST_WINDOW_MS, _FIRST_SHAPE = 20, 2_000, "edge"
_FILES = (
    sources.python(Path(fixed_window.__file__), start="class FixedWindow"),
    sources.lua("rate_limiter/tally"),
    sources.python(Path(sliding_window_log.__file__), start="class SlidingWindowLog"),
    sources.lua("rate_limiter/sliding_window_log"),
)


@bp.get("")
def show() -> Response:
    """The lab, with the run that the URL names."""
    return make_response(delivery.page("rate_limits/show.html", **_context()))


@bp.get("/plan")
def plan() -> dict[str, Any]:
    """A new run, and when its requests are to be sent, in ms after the first."""
    run = _new_run()
    shape = request.args.get("shape", _FIRST_SHAPE)
    if shape not in SHAPES:
        raise Problem(400, "Out of bounds", f"shape: one of {', '.join(SHAPES)}.")
    at_ms = limits_lab.plan(shape, run)
    return {"run": run.name, "at_ms": at_ms}


@bp.post("/requests")
def send() -> Response:
    """One request, or a burst as large as the limit, put to both algorithms."""
    run = _run(request.form.get("run", "")) or _new_run()
    count = run.limit if request.form.get("burst") else 1
    for _ in range(count):
        said = limits_lab.send(_client(), _namespace(), run)
        _count(said[0].allowed, said[1].allowed)
    delivery.verdict(*_verdict(said[0].allowed, said[1].allowed))
    if not delivery.is_htmx():
        return _see(run)
    return make_response(delivery.fragment("rate_limits/_sent.html", run=run))


@bp.get("/lanes")
def show_lanes() -> str:
    """What was said to the requests of a run so far."""
    delivery.housekeeping()
    run = _run(request.args.get("run", ""))
    return delivery.fragment("rate_limits/_lanes.html", **_drawn(run))


@bp.get("/keys")
def show_keys() -> str:
    """The keys of a run, and those of this visitor's own API requests."""
    names = _api_keys()
    if run := _run(request.args.get("run", "")):
        own = limits_lab.names(_namespace(), run)
        names = [own.fixed, own.log, own.answers, *names]
    return keypanel.show(lambda: keypanel.rows(_client(), names))


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.LIMITS_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    context = _context() | {"outcomes": ran.outcomes}
    return make_response(delivery.page("rate_limits/show.html", **context))


def _context() -> dict[str, Any]:
    run = _run(request.args.get("run", ""))
    shape = request.args.get("shape", _FIRST_SHAPE)
    return {
        **_drawn(run),
        "limit": run.limit if run else _FIRST_LIMIT,
        "window_ms": run.window_ms if run else _FIRST_WINDOW_MS,
        "limits": LIMITS,
        "windows_ms": WINDOWS_MS,
        "shape": shape if shape in SHAPES else _FIRST_SHAPE,
        "shapes": SHAPES,
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.RATE_LIMITER,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }


def _drawn(run: Run | None) -> dict[str, Any]:
    """The picture of a run; without Redis, why there is none."""
    if run is None:
        return {"run": None, "picture": None, "failed": None}
    try:
        answers = limits_lab.answers(_client(), _namespace(), run)
    except RedisError as error:
        return {"run": run, "picture": None, "failed": errors.away(error)}
    picture = lanes.picture(run, answers) if answers else None
    return {"run": run, "picture": picture, "failed": None}


def _run(name: str) -> Run | None:
    """The run of that name; an empty name is none."""
    if not name:
        return None
    try:
        return limits_lab.parse_run(name)
    except BadRun as error:
        raise Problem(400, "No such run", str(error)) from error


def _new_run() -> Run:
    """A run with the limit and the window that were asked for."""
    limit = request.values.get("limit", str(_FIRST_LIMIT))
    window_ms = request.values.get("window_ms", str(_FIRST_WINDOW_MS))
    try:
        return limits_lab.new_run(
            ids.bounded(limit, what="limit", least=LIMITS[0], most=LIMITS[-1]),
            ids.bounded(
                window_ms, what="window_ms", least=WINDOWS_MS[0], most=WINDOWS_MS[-1]
            ),
        )
    except BadRun as error:
        raise Problem(400, "Out of bounds", str(error)) from error


def _see(run: Run) -> Response:
    """Back to the page, for a browser without htmx."""
    shape = request.form.get("shape", _FIRST_SHAPE)
    there = url_for("rate_limits.show", run=run.name, shape=shape)
    return cast(Response, redirect(there, 303))


def _count(*said: bool) -> None:
    for allowed in said:
        event = "admitted" if allowed else "rejected"
        metrics.EVENTS.labels("rate_limits", event).inc()


def _verdict(fixed: bool, log: bool) -> tuple[str, str]:
    if fixed == log:
        return ("ok", "admitted") if fixed else ("no", "429")
    return "wait", "log 429" if fixed else "fixed 429"


def _api_keys() -> list[str]:
    """What this visitor's address may have left in the throttled API."""
    client_id = limiter.address_id(request.remote_addr)
    families = keys.FIXED_WINDOW, keys.SLIDING_WINDOW_LOG
    return [keys.key(_namespace(), family, client_id) for family in families]


def _client() -> redis.Redis:
    return limiter.limiter().client


def _namespace() -> str:
    return str(current_app.extensions["settings"].namespace)
