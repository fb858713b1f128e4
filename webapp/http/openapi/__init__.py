"""The public interface as an OpenAPI 3.1 document: one module a part of it."""

from typing import Any

import msgspec

from webapp.http.openapi import (
    categories,
    leaderboard,
    orders,
    products,
    sessions,
    throttled,
    visitors,
)
from webapp.http.openapi.parts import Problem
from webapp.http.tape import Receipt

_PARTS = (products, categories, sessions, throttled, leaderboard, visitors, orders)


def document() -> dict[str, Any]:
    """A fresh copy of the whole document."""
    types = [Problem, Receipt, *(kind for part in _PARTS for kind in part.TYPES)]
    _, schemas = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for part in _PARTS:
        paths |= part.paths()
        for name, more in part.REFINED.items():
            schemas[name] |= more
    return {
        "openapi": "3.1.0",
        "info": {"title": "Redis Patterns Live", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
