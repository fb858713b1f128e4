"""Attempts at something that could be guessed are counted, and refused over a limit."""

import hashlib
from typing import Literal

from flask import current_app

from webapp import keys
from webapp.connection.roles import Clients
from webapp.http.errors import Problem

Kind = Literal["address", "account", "code", "guest"]

_WINDOW_MS = 60_000
_LIMITS: dict[Kind, int] = {
    "address": 30,  # sign-ins and registrations; a classroom sits behind one address
    "account": 10,  # sign-ins to one name, from wherever
    "code": 10,  # one-time codes from one address
    "guest": 600,  # new guests from one address: they fill memory that evicts nothing
}


def attempt(kind: Kind, name: str) -> None:
    """Count one attempt. Raises Problem 429; without Redis redis.RedisError."""
    clients: Clients = current_app.extensions["clients"]
    namespace = current_app.extensions["settings"].namespace
    hashed = hashlib.sha256(name.encode()).hexdigest()[:32]
    key = keys.key(namespace, keys.ATTEMPTS, f"{kind}-{hashed}")
    with clients.durable.pipeline(transaction=True) as pipeline:
        pipeline.incr(key)
        pipeline.pexpire(key, _WINDOW_MS, nx=True)
        pipeline.pttl(key)
        count, _, left_ms = pipeline.execute()
    if count > _LIMITS[kind]:
        wait_s = max(1, -(-left_ms // 1000))
        raise Problem(
            429,
            "Too many attempts",
            f"Try again in {wait_s} s.",
            retry_after_s=wait_s,
        )
