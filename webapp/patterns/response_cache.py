"""Response cache: an API's answers, kept by route and parameters, void all at once.

Problem: an endpoint computes the same answer for the same parameters again and again.
Keep the answer's bytes under a name made of the route and its known parameters, sorted.
Two traps: whatever is left in the name makes a key of its own (`?a=1&b=2`, `?b=2&a=1`,
`?a=1&b=2&utm=x`), and one change of the data makes nobody knows which answers wrong. So
every answer carries the generation it was made under, and a write deletes that one key.

Keys
    generation  string, random, one a route. TTL `generation_ms`; it outlives what it
                guards, and a lost one is a new random one.
    answer      string, `<generation>:<body>`. TTL 5 min and up to a tenth more.
    lease       string, as in cache-aside. All three in one slot.

Commands
    hit    1 round trip   MGET generation answer, O(1)
    miss   3 round trips  MGET; EVALSHA fetch; EVALSHA store (cache-aside)
                          the first of a generation: SET NX GET, too
    void   1 round trip   DEL generation, O(1), however many answers there are

Guarantees: after `void` has returned, nobody who asks from then on gets an answer made
before. Body and TTL are set in one step. The ETag is a hash of the body: equal bodies
have equal ETags, in every process and after every restart. An answer that is not what
`check` takes is removed, and made anew.

Limits: one write voids all answers of its route, also those it did not touch. Void ones
stay until they are asked for or their TTL ends. What depends on the visitor must not be
kept here: it would be everyone's. Many who miss at once all compute (see stampede
protection). Redis down: fails open; the answer is computed, and `void` raises.

Source: https://redis.io/docs/latest/develop/use-cases/ and RFC 9110, section 8.8.3.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.patterns.cache_aside import CacheAside, Entry


@dataclass(frozen=True)
class Names:
    """The keys of one answer, in one slot."""

    generation: str  # "rpl:catalog:generation:{products}"
    answer: str  # "rpl:catalog:response:{products}:5d41402abc4b2a76b9719d911017c592"
    lease: str  # "rpl:catalog:response-lease:{products}:5d41402abc4b2a76b9719d911..."


@dataclass(frozen=True)
class Answer:
    body: bytes
    outcome: Literal["hit", "miss", "bypass"]  # bypass: Redis did not answer

    @property
    def etag(self) -> str:
        """A strong validator: of exactly these bytes."""
        return hashlib.sha256(self.body).hexdigest()[:32]


def canonical(parameters: Mapping[str, str | int | None]) -> str:
    """'category=kitchen&limit=20', whatever the order; None is left out."""
    known = {name: value for name, value in parameters.items() if value is not None}
    return urlencode(sorted(known.items()))


def digest(parameters: Mapping[str, str | int | None]) -> str:
    """What an answer's key ends with: 32 hex digits."""
    return hashlib.sha256(canonical(parameters).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ResponseCache:
    cache: CacheAside = field(default_factory=lambda: CacheAside(ttl_ms=300_000))
    generation_ms: int = 3_600_000

    def read(
        self,
        client: redis.Redis,
        names: Names,
        *,
        compute: Callable[[], bytes],
        check: Callable[[bytes], object],
    ) -> Answer:
        """Answer the kept body, or compute it and leave it behind.

        `check` raises ValueError for a body that `compute` did not make. `compute`
        runs at most once, and its errors propagate.
        """
        entry = Entry(value=names.answer, lease=names.lease)
        try:
            found: list[Any] = client.mget([names.generation, names.answer])
            generation, kept = found
            mark = (generation or self._begin(client, names)) + b":"
            if kept is not None:
                try:
                    return Answer(_body(kept, mark, check), "hit")
                except ValueError:
                    self.cache.invalidate(client, entry)
        except RedisError:
            return Answer(compute(), "bypass")
        read = self.cache.read(
            client,
            entry,
            load=compute,
            encode=lambda body: mark + body,
            decode=lambda payload: _body(payload, mark, check),
        )
        if read.value is None:  # somebody else wrote `null` just now
            return Answer(compute(), "bypass")
        return Answer(read.value, read.outcome)

    def void(self, client: redis.Redis, generation: str) -> None:
        """No answer of the route counts any more (one command)."""
        client.delete(generation)

    def _begin(self, client: redis.Redis, names: Names) -> bytes:
        """A new generation, or the one that another began meanwhile (one command)."""
        token = secrets.token_hex(8).encode()
        try:
            return self._set(client, names, token)
        except ResponseError:  # a key of another type
            client.delete(names.generation)
            return self._set(client, names, token)

    def _set(self, client: redis.Redis, names: Names, token: bytes) -> bytes:
        before = client.set(
            names.generation, token, nx=True, get=True, px=self.generation_ms
        )
        return before if isinstance(before, bytes) else token


def _body(payload: bytes, mark: bytes, check: Callable[[bytes], object]) -> bytes:
    """What follows the mark. Raises ValueError for another generation's answer."""
    if not payload.startswith(mark):
        raise ValueError("made under another generation")
    body = payload[len(mark) :]
    check(body)
    return body
