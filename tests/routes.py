"""Every route of the app at an address that exists: for what must hold on all of them.

A route with a part of its own needs a value here, or these tests do not start.
"""

from collections.abc import Iterator
from typing import NamedTuple

from flask import Flask

PARTS = {
    "product_id": "7",
    "name": "no-cache",
    "slug": "kitchen",
    "action": "delete",
    "algorithm": "fixed-window",
    "board": "crowd",
    "player": "ada",
    "order_id": "1795385319442-0",
    "filename": "app.css",
    "number": "1",
    "wish": "kill",
}
_SAFE = {"GET", "HEAD", "OPTIONS"}


class Route(NamedTuple):
    method: str
    path: str
    endpoint: str
    arguments: frozenset[str]
    template: str  # "/api/products/<product_id>"

    def with_part(self, argument: str, value: str) -> str:
        """The path with another value for one of its parts."""
        filled = self.template.replace(f"<{argument}>", value)
        return _filled(filled, self.arguments - {argument})


def routes(app: Flask, *, websocket: bool = False) -> Iterator[Route]:
    for rule in app.url_map.iter_rules():
        if rule.websocket is not websocket:
            continue
        template = rule.rule.replace("<path:", "<")
        path = _filled(template, rule.arguments)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Route(
                method, path, rule.endpoint, frozenset(rule.arguments), template
            )


def safe(app: Flask) -> list[Route]:
    return [route for route in routes(app) if route.method in _SAFE]


def unsafe(app: Flask) -> list[Route]:
    return [route for route in routes(app) if route.method not in _SAFE]


def _filled(template: str, arguments: frozenset[str] | set[str]) -> str:
    for argument in arguments:
        template = template.replace(f"<{argument}>", PARTS[argument])
    return template
