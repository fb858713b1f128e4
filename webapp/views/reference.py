"""The reference tables: each row beside its page and a live key that plays it."""

from typing import Any

from flask import Blueprint, current_app
from redis.exceptions import RedisError

from webapp import keys, reference
from webapp.admin import keyspace
from webapp.admin.keyspace import KeyState
from webapp.connection.roles import Clients
from webapp.http import delivery
from webapp.live import vitals
from webapp.settings import Settings

bp = Blueprint("reference", __name__, url_prefix="/reference")

_LOOKED_AT = 1000  # keys of each server, in the hope for one of each family


@bp.get("")
def show() -> str:
    """Every table, with live keys where there are some now."""
    settings: Settings = current_app.extensions["settings"]
    trouble = ""
    live: dict[str, KeyState] = {}
    try:
        live = _live_keys(current_app.extensions["clients"], settings.namespace)
    except RedisError as error:
        trouble = str(error)
    now = vitals.now(settings)
    cache = next((s for s in now.servers if s.role == "cache"), None)
    return delivery.page(
        "reference/show.html",
        tables=reference,
        namespace=settings.namespace,
        live=live,
        trouble=trouble,
        accepted=cache.policies if cache else [],
        policy=cache.maxmemory_policy if cache else None,
    )


def _live_keys(clients: Clients, namespace: str) -> dict[str, KeyState]:
    """By "page:part", a key of that family that is there now; none of a secret one.

    Two round trips a server.
    """
    found: dict[str, KeyState] = {}
    for role, client in clients.items():
        reply: Any = client.scan(match=f"{namespace}:*", count=_LOOKED_AT)
        names: dict[str, str] = {}
        for raw in reply[1]:
            name = raw.decode(errors="replace")
            family = keys.family_of(namespace, name)
            if family and not family.secret and family.role == role:
                names.setdefault(f"{family.page}:{family.part}", name)
        states = keyspace.states(client, namespace, list(names.values()))
        there = {state.key: state for state in states}
        found |= {part: there[n] for part, n in names.items() if n in there}
    return found
