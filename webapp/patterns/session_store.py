"""Session store: who is signed in, on the server, behind a random id in a cookie.

Problem: a browser that signed in must be known again, and must be forgotten on the
word of its user, of a clock, or of an administrator. The state lies in Redis and the
cookie holds nothing but an id. The traps: an id that an attacker chose is adopted
(fixation); whoever reads the keyspace can use what stands there (the id as key); two
tabs write the whole session and one loses; a slow request writes after the sign-out
and the session is back; a session without an end.

Keys
    session  hash, `ends_ms` and the caller's fields. Named by the SHA-256 of its id,
             so that no dump, log or panel holds anything a cookie could hold.
             TTL `idle_ms`, never past `ends_ms`.
    index    sorted set, a user's sessions scored by `ends_ms`. TTL `absolute_ms`.
    code     string, what a one-time code stands for. TTL `ttl_ms`. Named by an HMAC of
             the code: eight characters could be found again from a plain hash.

Commands
    load     1 round trip   EVALSHA load: HGET, PTTL, HGETALL, O(fields);
                            and TIME, PEXPIREAT once `refresh_ms` have passed
    write    1 round trip   EVALSHA write: HEXISTS, HSET or HDEL for each change
    sign in  2 round trips  EVALSHA enlist: ZREMRANGEBYSCORE, ZADD, PEXPIRE, ZRANGE
                            EVALSHA start: EXISTS, TIME, HSET, PEXPIRE
    end      1 round trip   DEL and ZREM in one pipeline
    devices  2 round trips  ZRANGE, then HGETALL and PTTL of each; 3 if one is gone
    code     1 round trip   SET NX PX, or GETDEL

Guarantees: an id that this store did not hand out is never taken over. A write
touches the changed fields only, and only while the session exists: neither a sign-out
nor an expiry is undone. Idle and absolute end are kept by the server's clock, and a
session has both from its first moment. A code works once.

Limits: a user's list may name a session that idled out, until it is looked at. The
idle end is up to `refresh_ms` early. Session and index lie in two slots, so ending
both is no transaction: the session dies first. Redis down: fails closed. Nobody is
signed in or out, the error reaches the caller, and cookies stay as they are.

Source: https://redis.io/docs/latest/develop/use-cases/ and OWASP ASVS 5.0, chapter V7.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from webapp.scripts import load as load_script

_load = load_script("session_store/load")
_start = load_script("session_store/start")
_write = load_script("session_store/write")
_enlist = load_script("session_store/enlist")

_ENDS = "ends_ms"
_LETTERS = "34679ACDEFGHJKMNPQRTVWXY"  # none of 0O 1IL 2Z 5S 8B UV, which look alike
_CODE_LENGTH = 8


class ReservedField(ValueError):
    """A field that only the store itself writes."""


class KeyTaken(Exception):
    """A session was to start under a key that exists."""


@dataclass(frozen=True)
class Loaded:
    fields: dict[str, bytes]  # the caller's, as they were written
    ends_ms: int  # when it ends in any case, ms since 1970 by the server's clock


@dataclass(frozen=True)
class Device:
    """One of a user's sessions."""

    member: str  # the digest of its id
    fields: dict[str, bytes]
    ends_ms: int
    ttl_ms: int  # until its idle end


def new_id() -> str:
    """256 random bits for the cookie, 43 characters."""
    return secrets.token_urlsafe(32)


def digest(session_id: str) -> str:
    """What names a session on the server; useless as an id. 64 hex digits."""
    return hashlib.sha256(session_id.encode()).hexdigest()


@dataclass(frozen=True)
class SessionStore:
    """The rules of one kind of session; times in ms."""

    idle_ms: int = 24 * 3_600_000
    absolute_ms: int = 7 * 24 * 3_600_000
    refresh_ms: int = 60_000
    most: int = 5  # sessions of one user; the oldest makes room

    def load(self, client: redis.Redis, key: str) -> Loaded | None:
        """Answer and touch a session (one script); None: there is no such session."""
        reply: list[bytes] = _load(client, [key], [self.idle_ms, self.refresh_ms])
        return _loaded(dict(zip(reply[::2], reply[1::2], strict=True)))

    def start(
        self, client: redis.Redis, key: str, *, fields: Mapping[str, str]
    ) -> None:
        """Start a session under a key that nothing has (one script).

        Raises KeyTaken, and ReservedField.
        """
        args = [_encode(fields), self.idle_ms, self.absolute_ms]
        if not _start(client, [key], args):
            raise KeyTaken(key)

    def write(
        self, client: redis.Redis, key: str, *, changes: Mapping[str, str | None]
    ) -> bool:
        """Set fields, or remove them by None (one script).

        False: the session ended, and nothing was written. Raises ReservedField.
        """
        return bool(_write(client, [key], [_encode(changes)]))

    def enlist(self, client: redis.Redis, index: str, *, member: str) -> list[str]:
        """Enter a session before it starts, so that none is ever out of reach.

        Returns the members that are now over the limit; the caller ends them.
        """
        over = _enlist(client, [index], [member, self.absolute_ms, self.most])
        return [name.decode() for name in over]

    def end(self, client: redis.Redis, index: str, *, ended: Mapping[str, str]) -> int:
        """End sessions, given as key by member (one pipeline); how many there were."""
        if not ended:
            return 0
        with client.pipeline(transaction=False) as pipeline:
            for key in ended.values():
                pipeline.delete(key)
            pipeline.zrem(index, *ended)
            return sum(pipeline.execute()[:-1])

    def devices(
        self, client: redis.Redis, index: str, *, key_of: Callable[[str], str]
    ) -> list[Device]:
        """A user's sessions, the newest first; members of dead ones are removed."""
        listed: Any = client.zrange(index, 0, -1)
        members = [name.decode() for name in reversed(listed)]
        with client.pipeline(transaction=False) as pipeline:
            for member in members:
                pipeline.hgetall(key_of(member))
                pipeline.pttl(key_of(member))
            replies = pipeline.execute() if members else []
        found = [
            Device(member, loaded.fields, loaded.ends_ms, ttl_ms)
            for member, fields, ttl_ms in zip(
                members, replies[::2], replies[1::2], strict=True
            )
            if (loaded := _loaded(fields))
        ]
        if dead := set(members) - {device.member for device in found}:
            client.zrem(index, *dead)
        return found


@dataclass(frozen=True)
class OneTimeCode:
    """A short code that stands for a longer secret, once."""

    ttl_ms: int = 5 * 60_000

    @staticmethod
    def new() -> str:
        """Eight characters that nobody mistakes for others, 36 bits."""
        return "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LENGTH))

    @staticmethod
    def digest(code: str, *, pepper: str) -> str:
        """What names a code on the server. `pepper` is a secret that Redis lacks."""
        return hmac.new(pepper.encode(), code.encode(), hashlib.sha256).hexdigest()

    def issue(self, client: redis.Redis, key: str, *, payload: str) -> bool:
        """Keep what the code stands for (one command); False: the key is taken."""
        return bool(client.set(key, payload, px=self.ttl_ms, nx=True))

    def redeem(self, client: redis.Redis, key: str) -> str | None:
        """Take it (one command); None: expired, used, or never issued."""
        payload: Any = client.getdel(key)
        return None if payload is None else payload.decode()


def _loaded(fields: dict[bytes, bytes]) -> Loaded | None:
    named = {name.decode(): value for name, value in fields.items()}
    ends_ms = named.pop(_ENDS, None)
    return None if ends_ms is None else Loaded(named, int(ends_ms))


def _encode(changes: Mapping[str, str | None]) -> str:
    if _ENDS in changes:
        raise ReservedField(f"{_ENDS} is the store's own")
    return json.dumps(dict(changes))
