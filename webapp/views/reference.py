"""The reference tables: each row beside its page and a live key that plays it."""

from dataclasses import dataclass, field
from typing import Any, cast

from flask import Blueprint, current_app
from redis.exceptions import RedisError

from webapp import keys, reference
from webapp.admin import keyspace
from webapp.admin.keyspace import KeyState
from webapp.connection.roles import Clients
from webapp.http import delivery, errors
from webapp.live import vitals
from webapp.settings import Settings

bp = Blueprint("reference", __name__, url_prefix="/reference")

_PAGE = 1000  # keys a round trip
_PAGES = 20  # of each server, in the hope for a key of each family


@bp.get("")
def show() -> str:
    """Every table, with live keys where there are some now."""
    settings: Settings = current_app.extensions["settings"]
    trouble = ""
    found = _Found()
    try:
        _look(current_app.extensions["clients"], settings.namespace, found)
    except RedisError as error:
        trouble = errors.away(error)
    servers = vitals.now(settings).servers
    accepted = next((s.policies for s in servers if s.role == "cache"), [])
    policies: dict[str | None, list[str]] = {}
    for server in servers:
        policies.setdefault(server.maxmemory_policy, []).append(server.role)
    missing = "none now" if found.is_all else f"none in {_PAGE * _PAGES:,} keys"
    return delivery.page(
        "reference/show.html",
        tables=reference,
        namespace=settings.namespace,
        live=found.live,
        missing="not known" if trouble else missing,
        trouble=trouble,
        accepted=accepted,
        policies=policies,
    )


@dataclass
class _Found:
    live: dict[str, KeyState] = field(default_factory=dict)  # by "page:part"
    is_all: bool = True  # False: a server has more keys than were looked at


def _look(clients: Clients, namespace: str, found: _Found) -> None:
    """Find a key of each family of the tables, but for secret ones."""
    for role, client in clients.items():
        wanted = {f for f in reference.families() if f.role == role and not f.secret}
        names: dict[keys.Family, str] = {}
        cursor: Any = 0
        for _ in range(_PAGES):
            cursor, page = cast(Any, client.scan(cursor, f"{namespace}:*", _PAGE))
            for name in (raw.decode(errors="replace") for raw in page):
                family = keys.family_of(namespace, name)
                if family in wanted:
                    names.setdefault(family, name)
            if not cursor or wanted <= names.keys():
                break
        found.is_all = found.is_all and not cursor
        there = {
            s.key: s for s in keyspace.states(client, namespace, [*names.values()])
        }
        found.live |= {
            f"{f.page}:{f.part}": there[n] for f, n in names.items() if n in there
        }
