"""The product catalog: the database behind the cache, and the cache in front of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
import redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from webapp import keys
from webapp.connection.roles import breaker_of
from webapp.patterns.cache_aside import CacheAside, Entry, Read
from webapp.shop import outbox, queries

T = TypeVar("T")

_MOST_QUERIES = 4  # at once, while every reader comes to the database
_LONGEST_WAIT_S = 1.0


class DatabaseBusy(Exception):
    """Redis is away and the database has as many readers as it may have."""


@dataclass(frozen=True)
class Edited:
    product: queries.ProductRow
    invalidated: bool  # False: Redis is away; the outbox deletes the copy later


class Catalog:
    def __init__(self, engine: Engine, cache: redis.Redis, namespace: str) -> None:
        self.engine = engine
        self.cache = cache
        self.pattern = CacheAside()
        self._namespace = namespace
        self._breaker = breaker_of(cache)
        self._flights: Flights[queries.ProductPage | None] = Flights(_MOST_QUERIES)

    def entry(self, product_id: int) -> Entry:
        return Entry(
            value=keys.key(self._namespace, keys.PRODUCT, product_id),
            lease=keys.key(self._namespace, keys.LEASE, product_id),
        )

    def product(self, product_id: int) -> Read[queries.ProductPage]:
        """Read through the cache. Raises DatabaseBusy, only while Redis is away."""
        return self.pattern.read(
            self.cache,
            self.entry(product_id),
            load=lambda: self._load(product_id),
            encode=msgspec.json.encode,
            decode=_decode,
        )

    def edit(
        self,
        product_id: int,
        *,
        price_cents: int | None = None,
        stock: int | None = None,
    ) -> Edited | None:
        """Write the row, then delete its copy. None: there is no such product."""
        change = queries.edit_product(
            self.engine, product_id, price_cents=price_cents, stock=stock
        )
        if change is None:
            return None
        try:
            self.pattern.invalidate(self.cache, self.entry(product_id))
        except RedisError:
            return Edited(change.product, invalidated=False)
        outbox.clear(self.engine, [change.outbox_id])
        return Edited(change.product, invalidated=True)

    def replay_outbox(self, client: redis.Redis) -> int:
        """Delete the copies that writers could not delete; returns how many."""
        return replay_outbox(self.engine, client, self._namespace)

    def _load(self, product_id: int) -> queries.ProductPage | None:
        def load() -> queries.ProductPage | None:
            return queries.product(self.engine, product_id)

        if self._breaker.is_open:
            return self._flights.run(product_id, load)
        return load()


def replay_outbox(engine: Engine, client: redis.Redis, namespace: str) -> int:
    """Delete what leftover records name. Raises RedisError; what is left stays."""
    pattern = CacheAside()

    def invalidate(product_id: int) -> None:
        value = keys.key(namespace, keys.PRODUCT, product_id)
        lease = keys.key(namespace, keys.LEASE, product_id)
        pattern.invalidate(client, Entry(value, lease))

    return outbox.replay(engine, invalidate)


def _decode(payload: bytes) -> queries.ProductPage:
    try:
        return msgspec.json.decode(payload, type=queries.ProductPage)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


@dataclass
class _Flight(Generic[T]):
    done: threading.Event = field(default_factory=threading.Event)
    value: T | None = None
    error: BaseException | None = None


class Flights(Generic[T]):
    """Single flight with a bound: few loads at once, and one for all who wait.

    A caller joins only a load that has not begun. One that has might have read the
    row before a write that the caller already knows of.
    """

    def __init__(self, most: int) -> None:
        self._slots = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._waiting: dict[int, _Flight[T]] = {}

    def run(self, name: int, load: Callable[[], T]) -> T:
        """Raises DatabaseBusy after a second without a free place."""
        with self._lock:
            flight = self._waiting.get(name)
            leads = flight is None
            if flight is None:
                flight = self._waiting[name] = _Flight()
        if leads:
            self._lead(name, flight, load)
        elif not flight.done.wait(2 * _LONGEST_WAIT_S):
            raise DatabaseBusy
        if flight.error is not None:
            raise flight.error
        return flight.value  # type: ignore[return-value]

    def _lead(self, name: int, flight: _Flight[T], load: Callable[[], T]) -> None:
        free = self._slots.acquire(timeout=_LONGEST_WAIT_S)
        with self._lock:
            del self._waiting[name]
        try:
            if not free:
                raise DatabaseBusy
            flight.value = load()
        except BaseException as error:  # handed to everyone who waits for this load
            flight.error = error
        finally:
            if free:
                self._slots.release()
            flight.done.set()
