"""Every page as a tile, and the controls of the demo as a whole."""

from typing import Any

from flask import Blueprint, Response, current_app, redirect, request, url_for

from webapp.admin import keyspace
from webapp.connection import budget
from webapp.connection.roles import Clients
from webapp.http import delivery, ids
from webapp.http.errors import Problem
from webapp.rooms import PAGES
from webapp.settings import Settings
from webapp.shop import seed, shoppers
from webapp.shop.catalog import Catalog

bp = Blueprint("overview", __name__)

_RESET_DEADLINE_S = 20.0


@bp.get("/")
def show() -> str:
    """A tile for each page that exists."""
    settings = _settings()
    return delivery.page(
        "overview/show.html",
        pages=PAGES,
        namespace=settings.namespace,
        shoppers_rate=shoppers.read_rate(settings.instance_path),
        rates=shoppers.RATES,
    )


@bp.post("/shoppers")
def set_shoppers() -> Response | str:
    """How many requests a second the simulated shoppers make."""
    _require_demo()
    most = max(shoppers.RATES)
    rate = ids.bounded(request.form.get("rate", ""), what="rate", least=0, most=most)
    if rate not in shoppers.RATES:
        allowed = ", ".join(map(str, shoppers.RATES))
        raise Problem(400, "Out of bounds", f"rate: one of {allowed}.")
    shoppers.write_rate(_settings().instance_path, rate)
    return _back("overview/_traffic.html", shoppers_rate=rate, rates=shoppers.RATES)


@bp.post("/reset")
def reset() -> Response | str:
    """Prices and stock as seeded, and no key of this namespace left."""
    _require_demo()
    catalog: Catalog = current_app.extensions["catalog"]
    clients: Clients = current_app.extensions["clients"]
    with budget.limited_to(_RESET_DEADLINE_S):
        restored = seed.restore(catalog.engine)
        namespace = _settings().namespace
        servers = {id(c.connection_pool): c for _, c in clients.items()}.values()
        removed = sum(keyspace.remove_namespace(c, namespace) for c in servers)
        catalog.replay_outbox(clients.cache)
    delivery.verdict("ok", f"{removed} keys removed")
    return _back("overview/_reset.html", removed=removed, restored=len(restored))


def _back(template: str, **context: Any) -> Response | str:
    """The fragment for htmx, the page again for a browser without it."""
    if delivery.is_htmx():
        return delivery.fragment(template, **context)
    return redirect(url_for("overview.show"), 303)  # type: ignore[return-value]


def _require_demo() -> None:
    if not _settings().demo:
        raise Problem(403, "Not in demo mode", "Start with DEMO=1 to allow this.")


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings
