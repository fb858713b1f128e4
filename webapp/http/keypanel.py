"""Keys on this page: rows for the panel that every pattern page has."""

from collections.abc import Callable, Sequence

import msgspec
from flask import current_app
from redis import Redis
from redis.exceptions import RedisError

from webapp import keys
from webapp.admin import keyspace
from webapp.http import delivery, errors

_BADGES = {"list": "LIST", "set": "SET", "zset": "ZSET", "hash": "HASH"} | {
    "string": "STR",
    "stream": "STRM",
    "hyperloglog": "HLL",
}


class KeyRow(msgspec.Struct):
    namespace: str  # the quiet part of the name, "rpl:catalog:product:"
    last: str  # the strong part, "{1042}"
    name: str
    type: str  # "STR"
    bytes: int | None
    ttl_ms: int | None  # None: no expiry
    ttl_max_ms: int  # the longest that its family may live
    slot: int
    node: str


def show(find: Callable[[], Sequence[KeyRow]]) -> str:
    """The panel with the rows found, or why there are none."""
    delivery.housekeeping()
    try:
        found = find()
    except RedisError as error:
        return delivery.fragment("_keys.html", keys=None, error=errors.away(error))
    return delivery.fragment("_keys.html", keys=found)


def rows(client: Redis, names: Sequence[str]) -> list[KeyRow]:
    """Those of the keys that exist (one round trip). Raises redis.RedisError."""
    if not names:
        return []
    namespace = current_app.extensions["settings"].namespace
    return [_row(state) for state in keyspace.states(client, namespace, names)]


def _row(state: keyspace.KeyState) -> KeyRow:
    name = keys.shown(state.key)
    head, brace, tail = name.partition("{")
    family = state.family
    return KeyRow(
        namespace=head,
        last=brace + tail,
        name=name,
        type=_BADGES[family.type] if family else "KEY",
        bytes=state.memory_bytes,
        ttl_ms=state.ttl_ms,
        ttl_max_ms=(family.ttl_ms if family else None) or state.ttl_ms or 0,
        slot=state.slot,
        node=family.role if family else "",
    )
