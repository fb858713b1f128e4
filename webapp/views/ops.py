"""What operators and probes ask: alive, ready, counts, policy reports."""

import logging
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, request
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from webapp.connection.roles import Clients
from webapp.http import metrics
from webapp.settings import Settings
from webapp.shop import queries

bp = Blueprint("ops", __name__)
log = logging.getLogger(__name__)

_LONGEST_REPORT = 2000  # characters of it that are logged


@bp.get("/healthz")
def healthz() -> Response:
    """The process answers; nothing else is asked."""
    return _json({"status": "ok"})


@bp.get("/readyz")
def readyz() -> Response:
    """Each part's state. Without Redis the shop still sells, without a database not."""
    clients: Clients = current_app.extensions["clients"]
    parts = {role: _answers(client) for role, client in clients.items()}
    database = _database_answers()
    status = "ready" if all(parts.values()) else "degraded"
    body = {
        "status": status if database else "unavailable",
        "parts": {n: "up" if up else "down" for n, up in parts.items()}
        | {"database": "up" if database else "down"},
    }
    return _json(body, 200 if database else 503)


@bp.get("/metrics")
def exposition() -> Response:
    """All workers' counts as Prometheus text."""
    settings: Settings = current_app.extensions["settings"]
    text, content_type = metrics.exposition(settings.metrics_path)
    return Response(text, content_type=content_type)


@bp.post("/csp")
def report() -> Response:
    """A browser says that a page broke its content security policy."""
    text = request.get_data(as_text=True)[:_LONGEST_REPORT]
    log.warning("content security policy: %s", msgspec.json.encode(text).decode())
    return Response(status=204)


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def _database_answers() -> bool:
    try:
        return bool(queries.categories(current_app.extensions["catalog"].engine))
    except SQLAlchemyError:
        log.exception("the database does not answer")
        return False


def _json(body: dict[str, Any], status: int = 200) -> Response:
    response = Response(msgspec.json.encode(body), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
