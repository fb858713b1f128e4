"""What every page shows around its own part: navigation, vitals, preferences."""

from typing import Any

import msgspec
from flask import Flask, request

from webapp.connection.roles import Clients
from webapp.http import admin_access, session
from webapp.http.delivery import DISTANCES_MS
from webapp.live import vitals
from webapp.rooms import ADMIN_PAGES, PAGES
from webapp.settings import Settings

_GROUPS = ("Patterns", "Labs", "Admin")


class Preferences(msgspec.Struct, frozen=True):
    """What this browser asked for, from cookies that its own script sets."""

    theme: str  # light, dark, or empty: as the system says
    projector: bool
    inside: bool  # See inside Lua
    distance_ms: int | None  # None: the fader is not offered
    tape_folded: bool


def init_app(app: Flask, settings: Settings, clients: Clients) -> None:
    @app.context_processor
    def shell() -> dict[str, Any]:
        return {
            "page": request.blueprint or "",
            "navigation": _navigation(),
            "prefs": _preferences(demo=settings.demo),
            "vitals": vitals.now(settings, down=_down(clients)),
            "demo": settings.demo,
            "who": session.who,
        }


def _navigation() -> list[dict[str, Any]]:
    here = (request.blueprint or "").rpartition(".")[2]
    start = {"title": "Overview", "url": "/", "current": here == "overview"}
    groups = [{"title": "", "pages": [start]}]
    offered = (*PAGES, *ADMIN_PAGES) if admin_access.is_admin() else PAGES
    for group in _GROUPS:
        pages = [
            {"title": p.title, "url": p.url, "current": here == p.name}
            for p in offered
            if p.group == group
        ]
        if pages:
            groups.append({"title": group, "pages": pages})
    return groups


def _preferences(*, demo: bool) -> Preferences:
    cookies = request.cookies
    theme = cookies.get("theme", "")
    distance = cookies.get("distance", "")
    known = distance in map(str, DISTANCES_MS)
    return Preferences(
        theme=theme if theme in ("light", "dark") else "",
        projector=cookies.get("projector") == "1",
        inside=cookies.get("inside") == "1",
        distance_ms=(int(distance) if known else 0) if demo else None,
        tape_folded=cookies.get("tape", _tape()) == "folded",
    )


def _tape() -> str:
    """Folded where a wide table needs the room, until the visitor says otherwise."""
    return "folded" if request.endpoint == "admin.keys.show" else ""


def _down(clients: Clients) -> list[str]:
    return [role for role, breaker in clients.breakers.items() if breaker.is_open]
