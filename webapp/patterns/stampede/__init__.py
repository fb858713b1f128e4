"""Stampede protection: many miss the same value at once, and few of them load it.

A popular value ends, and everyone who wants it in the next moment misses and asks the
database the same slow question. One module a way to answer them, all with one call:

    unprotected             everyone loads
    single_flight           one loads in each process, the others there wait for it
    locked_flight           one loads among all processes, the others wait for the store
    stale_while_revalidate  a value past its soft TTL is served, and one loads beside it
    early_expiry            a reader may load before the end, likelier the nearer it is

`read` is the same for all of them: a value that cannot be decoded, or a key of another
type, is removed and loaded anew; where Redis is down everyone loads, and nothing is
kept. Value and TTL are set in one step, and TTLs are spread, so that values end apart.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.patterns.distributed_lock import LockKeys

T = TypeVar("T")
Outcome = Literal["hit", "miss", "stale", "bypass"]
Load = Callable[[], bytes]

MISSING = b"null"  # the payload of a row that does not exist


@dataclass(frozen=True)
class Entry:
    """The keys of one cached value, in one slot."""

    value: str  # "rpl:catalog:product:{1042}"
    lock: LockKeys


@dataclass(frozen=True)
class Read:
    payload: bytes
    outcome: Outcome  # miss: it was not there, and was loaded by somebody
    stored: bool = False  # whether this reader left it behind


class Method(Protocol):
    """What all five are."""

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer the cached payload, or have it loaded. Errors of `load` propagate."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    value: T | None  # None: there is no such row
    outcome: Outcome  # bypass: Redis did not answer


def read(
    method: Method,
    client: redis.Redis,
    entry: Entry,
    *,
    load: Callable[[], T | None],
    encode: Callable[[T], bytes],
    decode: Callable[[bytes], T],
) -> Answer[T]:
    """Answer a row by any of the methods, whatever Redis holds or does.

    `decode` raises ValueError for bytes that `encode` did not make. What is not
    usable is removed, and read once more. Errors of `load` propagate.
    """

    def loaded() -> bytes:
        row = load()
        return MISSING if row is None else encode(row)

    for _ in range(2):
        try:
            found = _read(method, client, entry, loaded)
            if found.payload == MISSING:
                return Answer(None, found.outcome)
            with suppress(ValueError):
                return Answer(decode(found.payload), found.outcome)
            invalidate(client, entry)
        except RedisError:
            break
    return Answer(load(), "bypass")


def invalidate(client: redis.Redis, entry: Entry) -> int:
    """Delete value and lock (one command): who loads now will not store.

    Returns how many keys there were.
    """
    return int(client.delete(entry.value, entry.lock.lock))


def _read(method: Method, client: redis.Redis, entry: Entry, load: Load) -> Read:
    """Keys that hold another type are removed first (two round trips more)."""
    try:
        return method.read(client, entry, load=load)
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
    own = entry.lock
    client.delete(entry.value, own.lock, own.fence, own.wake)
    return method.read(client, entry, load=load)
