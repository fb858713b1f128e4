"""From an exception to an answer: problem+json for the API, a page for people."""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Flask, Response, current_app, request
from redis.exceptions import ConnectionError, RedisError, TimeoutError
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Response as WSGIResponse

from webapp.connection.budget import BudgetSpent
from webapp.connection.roles import Clients
from webapp.experiments import BadControl
from webapp.http import delivery
from webapp.shop.flights import DatabaseBusy

RETRY_AFTER_S = 1
_OURS = {"Content-Type", "Content-Length"}
_DETAILS = {
    404: "Nothing has this address.",
    405: "This address does not take that method.",
    413: "A body of at most 64 KB is taken.",
}

log = logging.getLogger(__name__)


class Problem(Exception):
    """An answer that says what is wrong; raised by views, turned into HTTP here."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        retry_after_s: int | None = None,
        type: str = "about:blank",
        members: Mapping[str, Any] | None = None,  # more of the JSON body
    ) -> None:
        super().__init__(detail)
        self.type = type
        self.members = members or {}
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after_s = retry_after_s


def init_app(app: Flask) -> None:
    app.register_error_handler(Problem, answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SecurityError, _untrusted_host)
    app.register_error_handler(RedisError, redis_away)
    app.register_error_handler(DatabaseBusy, _busy)
    app.register_error_handler(BadControl, _bad_control)
    app.register_error_handler(Exception, _unexpected)


def answer(problem: Problem) -> Response:
    """The same problem for a program, for htmx, and for a person."""
    if wants_json():
        response = Response(
            msgspec.json.encode(_body(problem)),
            status=problem.status,
            mimetype="application/problem+json",
        )
    else:
        html = delivery.problem(
            title=problem.title, detail=problem.detail, status=problem.status
        )
        response = Response(html, problem.status, mimetype="text/html")
    response.headers["Cache-Control"] = "no-store"
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Cookie realm="shop"'
    return response


def wants_json() -> bool:
    if request.path.startswith(("/api/", "/healthz", "/readyz", "/ws/")):
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json"])
    return best == "application/json"


def _body(problem: Problem) -> dict[str, Any]:
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.path,
        **problem.members,
    }


def _http(error: HTTPException) -> WSGIResponse:
    if error.code is None or error.code < 400:
        return error.get_response()
    detail = _DETAILS.get(error.code) or error.description or error.name
    problem = Problem(error.code, error.name.capitalize(), detail)
    response = answer(problem)
    own = {name: value for name, value in error.get_headers() if name not in _OURS}
    response.headers.update(own)  # Allow, Retry-After, Upgrade
    return response


def _untrusted_host(error: SecurityError) -> Response:
    """No page: its links would point to that host."""
    return Response("This host name is not served here.\n", 400, mimetype="text/plain")


def redis_away(error: RedisError) -> Response:
    log.warning("%s %s: %s", request.method, request.path, error)
    return answer(
        Problem(
            503,
            "Redis does not answer",
            away(error),
            retry_after_s=RETRY_AFTER_S,
        )
    )


def away(error: RedisError) -> str:
    """What failed, for visitors: they know servers by their roles, not by addresses."""
    if isinstance(error, BudgetSpent):
        return "The request's time for Redis calls is used up."
    if not isinstance(error, ConnectionError | TimeoutError):
        return str(error)
    clients: Clients = current_app.extensions["clients"]
    down = [role for role, breaker in clients.breakers.items() if breaker.is_open]
    if len(down) == 1:
        return f"The {down[0]} server is down."
    return "Both servers are down." if down else "A server did not answer in time."


def _bad_control(error: BadControl) -> Response:
    return answer(Problem(400, "Out of bounds", str(error)))


def _busy(_: DatabaseBusy) -> Response:
    return answer(
        Problem(
            503,
            "The database is busy",
            "Redis is away, and the database has as many readers as it may have.",
            retry_after_s=RETRY_AFTER_S,
        )
    )


def _unexpected(error: Exception) -> Response:
    log.exception("%s %s failed", request.method, request.path, exc_info=error)
    return answer(
        Problem(500, "Something went wrong", "The error was logged. Try again.")
    )
