"""Locks: two workers that try to run the nightly report, Redlock, and Break it."""

import re
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, request

import webapp.patterns.distributed_lock as distributed_lock
import webapp.patterns.redlock as redlock
from webapp import keys, words
from webapp.experiments import Experiment
from webapp.experiments import redlock as redlock_experiments
from webapp.experiments.distributed_lock import EXPERIMENTS, PROCESS_EXPERIMENTS
from webapp.http import delivery, holders, keypanel, lab, metrics, sources
from webapp.http.errors import Problem
from webapp.patterns.distributed_lock import Lease
from webapp.settings import Settings
from webapp.shop.nightly import LOCK, WORKERS, Done, Nightly

bp = Blueprint("locks", __name__, url_prefix="/locks")

_VERBS = ("take", "write", "extend", "release")
_LEASE = re.compile(r"([0-9a-f]{32}):([1-9][0-9]{0,15}):([1-9][0-9]{12})")

_FILES = (
    sources.python(Path(distributed_lock.__file__), start="class DistributedLock"),
    sources.lua("distributed_lock/acquire"),
    sources.lua("distributed_lock/release"),
    sources.lua("distributed_lock/extend"),
    sources.python(Path(redlock.__file__), start="class Redlock"),
)


@bp.get("")
def show() -> Response:
    """Both workers, with the lanes of the last minute."""
    return _respond({})


@bp.post("/report")
def act() -> Response:
    """What one worker does. The form carries the leases, as workers keep theirs."""
    worker, verb = _asked()
    leases = {w: _lease(request.form.get(f"lease_{w}", "")) for w in WORKERS}
    done = _do(worker, verb, leases[worker])
    _note(worker, done)
    tone, text = holders.SAID[done.act]
    delivery.verdict(tone, done.act)
    said = {"tone": tone, "text": f"Worker {worker} {text}."}
    return _respond(leases | {worker: done.lease}, said=said)


@bp.get("/keys")
def show_keys() -> str:
    """The lock with its number and its wake-ups."""

    def find() -> list[keypanel.KeyRow]:
        own = _nightly().names
        names = [own.lock, own.fence, own.wake, _nightly().journal_key]
        return keypanel.rows(_nightly().client, names)

    return keypanel.show(find)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(_experiments(), name, keys.LOCKS_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond({}, outcomes=ran.outcomes)


def _asked() -> tuple[str, str]:
    worker, _, verb = request.form.get("do", "").partition(":")
    if worker not in WORKERS or verb not in _VERBS:
        raise Problem(400, "No such act", "do: a worker and a verb, as in A:take.")
    return worker, verb


def _lease(text: str) -> Lease | None:
    """The lease that the form carries; empty: none."""
    if not text:
        return None
    found = _LEASE.fullmatch(text)
    if found is None:
        raise Problem(400, "Not a lease", "A lease is kept as this page gave it.")
    token, fence, taken_ms = found.groups()
    return Lease(token, int(fence), int(taken_ms))


def _do(worker: str, verb: str, lease: Lease | None) -> Done:
    if verb == "take":
        return _nightly().take(lease)
    if lease is None:
        raise Problem(409, "No lease", f"Worker {worker} has to take the lock first.")
    if verb == "write":
        return _nightly().write(worker, lease)
    return _nightly().extend(lease) if verb == "extend" else _nightly().release(lease)


def _note(worker: str, done: Done) -> None:
    metrics.EVENTS.labels("locks", done.act).inc()
    with delivery.beside("Note it in the journal", housekeeping=True):
        _nightly().note(worker, done)


def _respond(leases: dict[str, Lease | None], **more: Any) -> Response:
    with delivery.beside("Draw the lanes", housekeeping=True):
        picture = holders.picture(_nightly().journal())
    return delivery.answer("locks", **_context(leases, picture) | more)


def _context(
    leases: dict[str, Lease | None], picture: holders.Picture
) -> dict[str, Any]:
    return {
        "workers": [
            (worker, f"{lease.token}:{lease.fence}:{lease.taken_ms}" if lease else "")
            for worker in WORKERS
            for lease in (leases.get(worker),)
        ],
        "picture": picture,
        "report": _nightly().report(),
        "short": holders.short,
        "lease_s": LOCK.ttl_ms // 1000,
        "longest_s": LOCK.longest_ms // 1000,
        "five": current_app.extensions["five"],
        "experiments": _experiments(),
        "outcomes": {},
        "words": words.DISTRIBUTED_LOCK,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }


def _experiments() -> tuple[Experiment, ...]:
    """Processes need a server they can reach, Redlock one that can be started.

    Both are for demo mode: not every visitor may start processes.
    """
    settings: Settings = current_app.extensions["settings"]
    found = EXPERIMENTS
    if settings.demo and not settings.redis_urls["durable"].startswith("fake:"):
        found += PROCESS_EXPERIMENTS
    if settings.demo and redlock_experiments.server_binary() is not None:
        found += redlock_experiments.EXPERIMENTS
    return found


def _nightly() -> Nightly:
    found: Nightly = current_app.extensions["nightly"]
    return found
