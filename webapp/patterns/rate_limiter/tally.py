"""Tally: what a limiter said to one client, to the request.

Problem: a load test counts its 200s and 429s, and wants to hear the same numbers from
the server. Counted after the decision, in a step of its own, they differ as soon as
somebody dies in between. So they are added in the step that decides: in the script
of the sliding window log, and in the MULTI of the fixed window.

Keys
    tally   hash {admitted, rejected}, requests. TTL one hour from the last one.
            Same {group} as the limiter's own key.

Commands
    read    1 round trip   HMGET, O(1)
    of all  1 round trip   HMGET of each, for at most as many as the caller names
    reset   1 round trip   DEL, O(1)

Guarantees: admitted plus rejected is the number of decisions that Redis took since
the last reset, over all processes and however many windows.

Limits: it counts decisions, also those whose answer was lost on the way. Redis down:
raises RedisError; what a fallback lets pass meanwhile is not in it.

Source: https://redis.io/docs/latest/commands/hincrby/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from webapp.scripts import load as load_script

TTL_MS = 3_600_000
_FIELDS = ["admitted", "rejected"]

_tally = load_script("rate_limiter/tally")


@dataclass(frozen=True)
class Tally:
    admitted: int  # requests, 100
    rejected: int  # requests, 4_211


def add(multi: Any, window: str, key: str, *, limit: int, cost: int) -> None:
    """Queue in a fixed window's MULTI, before its INCRBY, to count what that says."""
    _tally.queue(multi, [window, key], [limit, cost, TTL_MS])


def read(client: redis.Redis, key: str) -> Tally:
    """Zeros for a client that never asked."""
    return read_all(client, [key])[0]


def read_all(client: redis.Redis, keys: Sequence[str]) -> list[Tally]:
    """Those of several clients, in the given order (one pipeline)."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, _FIELDS)
        replies = pipeline.execute()
    return [
        Tally(int(admitted or 0), int(rejected or 0)) for admitted, rejected in replies
    ]


def reset(client: redis.Redis, key: str) -> None:
    """Begin again at zero. The limiter itself forgets nothing."""
    client.delete(key)
