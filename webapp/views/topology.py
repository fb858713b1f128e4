"""Topology: the servers, the pools to them, the slots of our keys, and a failover."""

from typing import Any

from flask import Blueprint, Response, current_app, make_response, request
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection import recorder
from webapp.connection.roles import Clients
from webapp.connection.urls import server_of
from webapp.experiments import Experiment
from webapp.experiments.persistence import EXPERIMENTS as PERSISTENCE
from webapp.experiments.redlock import server_binary
from webapp.experiments.topology import EXPERIMENTS, fail_over
from webapp.http import delivery, lab, pools, slots, takeover
from webapp.http.errors import Problem
from webapp.live.setfile import SetFile, read_set
from webapp.settings import Settings

bp = Blueprint("topology", __name__, url_prefix="/topology")

_MOST_KEYS = 8
_LONGEST = 512


@bp.get("")
def show() -> Response:
    """Servers, pools, and the slots of the keys that are there now."""
    return _respond()


@bp.get("/slots")
def ask() -> Response:
    """Where the keys of the form lie, and whether one call may span them."""
    asked = _asked()
    if not delivery.is_htmx():
        return _respond(asked=asked)
    return make_response(delivery.fragment("topology/_asked.html", asked=asked))


@bp.post("/failover")
def act() -> Response:
    """Have a primary go, and write until its successor answers."""
    own = _own_set()
    if own is None:
        raise Problem(
            403, "Not a set of ours", "Start with make demo-sentinel or demo-cluster."
        )
    how = request.form.get("how", "")
    if how not in takeover.WAYS:
        ways = ", ".join(takeover.WAYS)
        raise Problem(400, "No such way", f"how: one of {ways}.")
    if (recording := recorder.current()) is not None:
        recording.cause = f"Fail over: {how}"
    with lab.bench_for(keys.TOPOLOGY_LAB, "Fail over") as bench:
        seen = fail_over(bench, trigger=lambda at: takeover.WAYS[how](own, at))
    healed = seen.healed_ms is not None
    delivery.verdict("ok" if healed else "no", "healed" if healed else "not yet")
    picture = takeover.picture(seen)
    if not delivery.is_htmx():
        return _respond(failover=picture)
    return make_response(
        delivery.fragment("topology/_failover.html", failover=picture, can_fail=True)
    )


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(_experiments(), name, keys.TOPOLOGY_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(outcomes=ran.outcomes)


def _respond(**more: Any) -> Response:
    clients: Clients = current_app.extensions["clients"]
    with delivery.beside("Find our keys", housekeeping=True):
        found = slots.of_keys(clients, _settings().namespace)
    context: dict[str, Any] = {
        "found": found,
        "asked": _asked() if "keys" in request.args else None,
        "own_pools": pools.sample(clients),
        "can_fail": _own_set() is not None,
        "failover": None,
        "experiments": _experiments(),
        "outcomes": {},
    }
    return make_response(delivery.page("topology/show.html", **context | more))


def _asked() -> slots.Asked:
    """The keys of the form, apart by white space. 400 as Problem."""
    text = request.args.get("keys", "")
    names = list(dict.fromkeys(text.split()))
    if not names:
        raise Problem(400, "No key", "Give a key, or a few with a space between.")
    if len(names) > _MOST_KEYS or len(text) > _LONGEST:
        raise Problem(
            400, "Too many keys", f"At most {_MOST_KEYS} keys of {_LONGEST} characters."
        )
    return slots.ask(names, _server_of)


def _server_of(name: str) -> str:
    """Where the durable role would keep it; empty: on the one server, or not known."""
    clients: Clients = current_app.extensions["clients"]
    try:
        return server_of(clients.durable, name)
    except RedisError:
        return ""


def _experiments() -> tuple[Experiment, ...]:
    """Those that start servers are for demo mode: not every visitor may."""
    can_start = _settings().demo and server_binary() is not None
    return EXPERIMENTS + (PERSISTENCE if can_start else ())


def _own_set() -> SetFile | None:
    """The set that was started with this app, if it may be harmed."""
    settings = _settings()
    if not settings.demo:
        return None
    return read_set(settings.instance_path, settings.redis_urls["durable"])


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings
