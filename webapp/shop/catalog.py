"""The product catalog: the database behind the cache, and the cache in front of it.

A product has one copy, whichever way it came there. Every write takes its lease away
and deletes it, or puts a newer one in its place; so the ways to read and to write can
be mixed. A copy that was registered with its category says so: only that one will do
for who relies on the category being invalidated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import redis
from prometheus_client import Counter
from redis.exceptions import RedisError
from sqlalchemy import Engine

from webapp import keys
from webapp.connection.budget import limited_to
from webapp.connection.roles import Clients
from webapp.patterns import stampede
from webapp.patterns.bloom_filter import BloomFilter
from webapp.patterns.cache_aside import CacheAside, Entry, Read
from webapp.patterns.distributed_lock import LockKeys
from webapp.patterns.response_cache import Answer, Names, ResponseCache, digest
from webapp.patterns.stampede.locked_flight import LockedFlight
from webapp.patterns.tag_invalidation import Tag, TagInvalidation
from webapp.patterns.write_through import WriteThrough, Written
from webapp.shop import outbox, queries
from webapp.shop.flights import DatabaseBusy, Flights
from webapp.shop.guesses import Guesses
from webapp.shop.seed import PRODUCTS

T = TypeVar("T")

_BESIDE_WAITING_S = 1.0  # for all other Redis calls of who waits for another's load
_MOST_GUESSES = 100  # ids of no product, until the Bloom filter is asked first
_GUESSING_S = 30.0
_MOST_QUERIES = 4  # at once, while every reader comes to the database
POISONED = Counter("rpl_cache_poisoned", "Cached values that were none, and removed")


@dataclass(frozen=True)
class Edited:
    product: queries.ProductRow
    copy: Written | None  # "absent": there is none now; None: the outbox sees to it


class _Registered(queries.ProductPage, frozen=True, kw_only=True):
    """A page in the cache that is a member of this tag."""

    tag: str | None = None  # of none; the pattern then takes it for a miss


class Catalog:
    def __init__(self, engine: Engine, clients: Clients, namespace: str) -> None:
        self.engine = engine
        self.cache = clients.cache
        self.tags = clients.durable  # nothing is evicted there
        self.aside = CacheAside()
        self.tagged = TagInvalidation(self.aside)
        self.through = WriteThrough(self.aside)
        self.flight = LockedFlight()
        self.answers = ResponseCache()
        self.static = CacheAside(ttl_ms=keys.DAY_MS)
        self.known = BloomFilter.sized(PRODUCTS, error_rate=0.01)
        self.filter_key = keys.key(namespace, keys.FILTER, "products")
        self.list_entry = Entry(
            value=keys.key(namespace, keys.LIST, "categories"),
            lease=keys.key(namespace, keys.LEASE, "categories"),
        )
        self._namespace = namespace
        self._breakers = clients.breakers.values()
        self._guesses = Guesses(_MOST_GUESSES, within_s=_GUESSING_S)
        self._flights: Flights[queries.ProductPage | None] = Flights(_MOST_QUERIES)

    def entry(self, product_id: int) -> Entry:
        return _entry(self._namespace, product_id)

    def locked_entry(self, product_id: int) -> stampede.Entry:
        """The same copy; its lease is the lock, so a write takes that away, too."""
        own = self.entry(product_id)
        fence, wake = (
            keys.key(self._namespace, family, product_id)
            for family in (keys.LOAD_FENCE, keys.LOAD_WAKE)
        )
        return stampede.Entry(own.value, LockKeys(own.lease, fence, wake))

    def tag(self, slug: str) -> Tag:
        """A category's tag; its members are product ids."""
        return Tag(
            key=keys.key(self._namespace, keys.TAG, slug),
            entry=lambda member: self.entry(int(member)),
        )

    def product(self, product_id: int) -> Read[queries.ProductPage]:
        """Read through the cache. Raises DatabaseBusy, only while Redis is away."""
        return self.aside.read(
            self.cache,
            self.entry(product_id),
            load=lambda: self._load(product_id),
            encode=msgspec.json.encode,
            decode=lambda payload: _decoded(payload, queries.ProductPage),
        )

    def tagged_product(self, product_id: int) -> Read[queries.ProductPage]:
        """The same with a copy that `invalidate_category` finds."""
        return self.tagged.read(
            self.cache,
            self.tags,
            str(product_id),
            tag_of=lambda: self._tag_of(product_id),
            entry=self.entry(product_id),
            load=lambda: self._load(product_id),
            encode=_encode_registered,
            decode=_decode_registered,
        )

    def filtered_product(self, product_id: int) -> Read[queries.ProductPage]:
        """The same, but an id that the filter does not know goes no further."""
        if not self.may_exist(product_id):
            return Read(None, "hit")
        return self.product(product_id)

    def may_exist(self, product_id: int) -> bool:
        """Whether the filter knows it, or cannot be asked.

        Where there is no filter, this builds one from all ids, and so knows itself.
        """
        try:
            known = self.known.has(self.cache, self.filter_key, str(product_id))
            if known is None:
                ids = queries.product_ids(self.engine)
                self.known.build(self.cache, self.filter_key, ids=map(str, ids))
                known = product_id in ids
        except RedisError:
            return True
        return known

    def guarded(
        self, product_id: int, read: Callable[[int], Read[queries.ProductPage]]
    ) -> Read[queries.ProductPage]:
        """Read in any of these ways, but not whatever id somebody tries.

        After a hundred that do not exist, the filter is asked first: no way to fill
        the cache with what is not there, or to have the database asked for it.
        """
        if self._guesses.are_many and not self.may_exist(product_id):
            return Read(None, "hit")
        found = read(product_id)
        if found.value is None:
            self._guesses.note()
        return found

    def protected_product(self, product_id: int) -> Read[queries.ProductPage]:
        """The same, but of all who miss at once only one loads.

        To wait for that one is a Redis call, too, and no sign that the server is away.
        """
        with limited_to(self.flight.wait_ms / 1000 + _BESIDE_WAITING_S):
            answer = stampede.read(
                self.flight,
                self.cache,
                self.locked_entry(product_id),
                load=lambda: self._load(product_id),
                encode=msgspec.json.encode,
                decode=lambda payload: _decoded(payload, queries.ProductPage),
            )
        outcome = "hit" if answer.outcome == "stale" else answer.outcome
        return Read(answer.value, outcome)

    def edit(
        self,
        product_id: int,
        *,
        price_cents: int | None = None,
        stock: int | None = None,
    ) -> Edited | None:
        """Write the row, then delete its copy. None: there is no such product."""

        def delete() -> Written:
            return self._delete_copy(product_id)

        return self._edit(product_id, delete, price_cents=price_cents, stock=stock)

    def edit_through(
        self,
        product_id: int,
        *,
        price_cents: int | None = None,
        stock: int | None = None,
    ) -> Edited | None:
        """Write the row, then store the whole page as it is now: its queries again."""

        def store() -> Written:
            page = self._load(product_id)
            if page is None:
                return self._delete_copy(product_id)
            return self.through.write(
                self.cache,
                self.entry(product_id),
                version=page.version,
                payload=msgspec.json.encode(page),
            )

        return self._edit(product_id, store, price_cents=price_cents, stock=stock)

    def invalidate_category(self, slug: str) -> int:
        """Delete all registered copies of a category; returns how many keys."""
        return self.tagged.invalidate(self.cache, self.tags, self.tag(slug))

    def categories(self) -> Read[tuple[queries.Category, ...]]:
        """The list of categories, which changes with a reset at most."""
        return self.static.read(
            self.cache,
            self.list_entry,
            load=lambda: tuple(queries.categories(self.engine)),
            encode=msgspec.json.encode,
            decode=lambda payload: _decoded(payload, tuple[queries.Category, ...]),
        )

    def answer_names(self, digest: str) -> Names:
        """The keys of the product list that parameters with this digest ask for."""
        answer, lease = (
            keys.key(self._namespace, family, "products", digest)
            for family in (keys.RESPONSE, keys.RESPONSE_LEASE)
        )
        return Names(_lists(self._namespace), answer, lease)

    def listed(
        self,
        parameters: Mapping[str, str | int | None],
        *,
        compute: Callable[[], bytes],
        kind: type,
    ) -> Answer:
        """A page of products as the API answers it; an edit makes all pages void."""
        return self.answers.read(
            self.cache,
            self.answer_names(digest(parameters)),
            compute=compute,
            check=lambda body: _decoded(body, kind),
        )

    def replay_outbox(self, client: redis.Redis) -> int:
        """Delete the copies that writers could not see to; returns how many."""
        return replay_outbox(self.engine, client, self._namespace)

    def _edit(
        self,
        product_id: int,
        renew: Callable[[], Written],
        *,
        price_cents: int | None,
        stock: int | None,
    ) -> Edited | None:
        """Commit the row with its outbox record, void the lists, renew the copy."""
        change = queries.edit_product(
            self.engine, product_id, price_cents=price_cents, stock=stock
        )
        if change is None:
            return None
        try:
            self.answers.void(self.cache, _lists(self._namespace))
            copy = renew()
        except (RedisError, DatabaseBusy):
            return Edited(change.product, copy=None)
        outbox.clear(self.engine, [change.outbox_id])
        return Edited(change.product, copy)

    def _delete_copy(self, product_id: int) -> Written:
        self.aside.invalidate(self.cache, self.entry(product_id))
        return "absent"

    def _tag_of(self, product_id: int) -> Tag | None:
        slug = queries.category_of(self.engine, product_id)
        return None if slug is None else self.tag(slug)

    def _load(self, product_id: int) -> queries.ProductPage | None:
        def load() -> queries.ProductPage | None:
            return queries.product(self.engine, product_id)

        if any(breaker.is_open for breaker in self._breakers):
            return self._flights.run(product_id, load)
        return load()


def replay_outbox(engine: Engine, client: redis.Redis, namespace: str) -> int:
    """Delete what leftover records name. Raises RedisError; what is left stays."""
    pattern, answers = CacheAside(), ResponseCache()

    def invalidate(product_id: int) -> None:
        answers.void(client, _lists(namespace))
        pattern.invalidate(client, _entry(namespace, product_id))

    return outbox.replay(engine, invalidate)


def _entry(namespace: str, product_id: int) -> Entry:
    return Entry(
        value=keys.key(namespace, keys.PRODUCT, product_id),
        lease=keys.key(namespace, keys.LEASE, product_id),
    )


def _lists(namespace: str) -> str:
    """The generation of all pages of products."""
    return keys.key(namespace, keys.GENERATION, "products")


def _encode_registered(page: queries.ProductPage) -> bytes:
    row = msgspec.structs.asdict(page)
    return msgspec.json.encode(_Registered(**row, tag=page.category))


def _decode_registered(payload: bytes) -> queries.ProductPage:
    registered = _decoded(payload, _Registered)
    if registered.tag is None:
        raise ValueError("no member of its tag")
    return msgspec.convert(registered, queries.ProductPage, from_attributes=True)


def _decoded(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        POISONED.inc()
        raise ValueError(str(error)) from error
