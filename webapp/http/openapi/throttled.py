"""The throttled endpoints, their baseline, and their report."""

from typing import Annotated, Any, Literal

import msgspec

from webapp.http.openapi.parts import NAME, answer, failures, path, query

ALGORITHMS = ["fixed-window", "sliding-window-log"]

Count = Annotated[int, msgspec.Meta(ge=0)]


class Throttled(msgspec.Struct):
    algorithm: str
    allowed: bool
    remaining: Count
    reset_after_ms: Count  # until the oldest units come back


class Unthrottled(msgspec.Struct):
    algorithm: None
    allowed: Literal[True]
    remaining: None
    reset_after_ms: None


class QuotaProblem(msgspec.Struct):
    """429: quota exceeded."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    violated_policies: list[str] = msgspec.field(name="violated-policies")
    retry_after_ms: Count


class ClientReport(msgspec.Struct):
    client: str
    admitted: Count
    rejected: Count


class Report(msgspec.Struct):
    algorithm: str
    limit: int
    window_ms: int
    admitted: Count
    rejected: Count
    clients: list[ClientReport]


TYPES = (Throttled, Unthrottled, QuotaProblem, ClientReport, Report)
REFINED: dict[str, Any] = {}

_TEXT = {"schema": {"type": "string"}}
_LIMITS = {"RateLimit-Policy": _TEXT, "RateLimit": _TEXT}
_RETRY = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}


def paths() -> dict[str, Any]:
    algorithm = path("algorithm", {"type": "string", "enum": ALGORITHMS})
    api_key = {"name": "X-API-Key", "in": "header", "schema": _api_key()}
    client = query("client", NAME) | {
        "required": True,
        "description": "An admin may leave it out, and gets all clients.",
    }
    report = {"200": answer("The totals", Report)} | failures(400, 404, 503)
    return {
        "/api/throttled/{algorithm}": {
            "parameters": [algorithm],
            "get": {
                "summary": "100 requests in 60 s for each client",
                "parameters": [api_key],
                "responses": {
                    "200": answer("Admitted", Throttled, headers=_LIMITS),
                    "429": answer(
                        "Rejected",
                        QuotaProblem,
                        media="application/problem+json",
                        headers=_LIMITS | _RETRY,
                    ),
                }
                | failures(400, 404),
            },
        },
        "/api/unthrottled": {
            "get": {
                "summary": "The same answer without a limiter",
                "responses": {"200": answer("Admitted", Unthrottled)},
            }
        },
        "/api/throttled/{algorithm}/report": {
            "parameters": [algorithm, client],
            "get": {
                "summary": "What was admitted and rejected for one client, or for all",
                "responses": report,
            },
            "delete": {
                "summary": "Begin the report of one client again at zero",
                "responses": report | failures(403),
            },
        },
    }


def _api_key() -> dict[str, Any]:
    """Any name but those that stand for addresses."""
    return NAME | {"not": {"pattern": "^ip-"}}
