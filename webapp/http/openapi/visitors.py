"""Unique visitors: exact and estimated counts, and the bytes of each."""

from typing import Any

import msgspec

from webapp.http.openapi.parts import answer, failures


class VisitorCount(msgspec.Struct):
    date: str  # of the week, its first and last day: "2026-11-16/2026-11-22"
    exact: int
    estimate: int
    error_percent: float  # of the estimate, with its sign
    exact_bytes: int | None  # null: the server cannot tell
    estimate_bytes: int | None


class VisitorCounts(msgspec.Struct):
    days: list[VisitorCount]  # the last seven, oldest first
    week: VisitorCount


TYPES = (VisitorCounts, VisitorCount)
REFINED: dict[str, Any] = {}


def paths() -> dict[str, Any]:
    return {
        "/api/visitors": {
            "get": {
                "summary": "Unique visitors of seven days and of their week",
                "responses": {"200": answer("The counts", VisitorCounts)}
                | failures(503),
            }
        }
    }
