"""What the pages of the panel share: the server that is asked, and what it cost."""

from dataclasses import dataclass
from typing import Any

from flask import current_app, request
from redis import Redis

from webapp.admin.scan import Place
from webapp.connection import recorder
from webapp.connection.roles import Clients
from webapp.http.errors import Problem
from webapp.live import vitals
from webapp.settings import ROLES, Settings


@dataclass(frozen=True)
class Cost:
    """What this request has asked of Redis so far."""

    commands: int
    round_trips: int
    us: int


def settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def clients() -> Clients:
    found: Clients = current_app.extensions["clients"]
    return found


def place() -> Place:
    """Whose keys of which server. Raises Problem 400."""
    role = request.values.get("role", "cache")
    if role not in ROLES:
        raise Problem(400, "No such role", "role: cache or durable.")
    urls = settings().redis_urls
    shared = urls["cache"] == urls["durable"] or vitals.now(settings()).shared
    return Place(settings().namespace, role, shared)


def client_of(where: Place) -> Redis:
    return clients().cache if where.role == "cache" else clients().durable


def cost() -> Cost:
    own = recorder.current()
    trips: list[Any] = own.trips if own else []
    return Cost(
        commands=sum(len(trip.commands) for trip in trips),
        round_trips=sum(trip.sent for trip in trips),
        us=sum(trip.us for trip in trips),
    )


def name_on_the_tape(cause: str) -> None:
    if (own := recorder.current()) is not None:
        own.cause = cause
