"""Attempts at something that could be guessed are counted, and refused over a limit.

Unlike other limits this one is closed without Redis: who cannot be counted is not
let in.
"""

import hashlib
from typing import Literal

from flask import current_app

from webapp import keys
from webapp.connection.roles import Clients
from webapp.http.errors import Problem
from webapp.http.limiter import QUOTA_EXCEEDED
from webapp.patterns.rate_limiter.fixed_window import FixedWindow

Kind = Literal["address", "account", "code", "guest"]

_LIMITS: dict[Kind, int] = {  # a minute
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
    decision = FixedWindow(_LIMITS[kind]).decide(clients.durable, key)
    if decision.allowed:
        return
    wait_s = -(-decision.retry_after_ms // 1000)
    raise Problem(
        429,
        "Too many attempts",
        f"Try again in {wait_s} s.",
        retry_after_s=wait_s,
        type=QUOTA_EXCEEDED,
        members={
            "violated-policies": [f"sign-in-{kind}"],
            "retry_after_ms": decision.retry_after_ms,
        },
    )
