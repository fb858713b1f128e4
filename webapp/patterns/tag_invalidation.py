"""Tag invalidation: delete all copies that have something in common.

Problem: a price list changes, and every cached page of a category is wrong at once.
Nobody can name the keys but those who stored them, so each reader writes its key into
the tag's Set. The traps are in between: a key that is stored while the tag is emptied
belongs to no tag any more, and a tag that expires before its members forgets them.

Here a reader registers before it loads, and an invalidation deletes value and lease of
each member, then removes those members, then deletes the same keys once more. A
reader takes its lease first, registers second. So one that registered before the
removal lost its value or its lease to the second delete, and one that came after it
is a member again, and read its row after the invalidation began.

Keys
    tag     set of members, each a name that leads to a value and its lease.
            TTL `tag_ttl_ms`, longer than any value lives, begun anew by each
            registration. Its slot is its own; it may be on another server, and belongs
            on one that evicts nothing.
    value   as in cache-aside
    lease   as in cache-aside

Commands
    hit         1 round trip    as in cache-aside
    miss        3 round trips   EVALSHA fetch; SADD, PEXPIRE; EVALSHA store
    invalidate  4 round trips for each batch of about `batch` members
                SSCAN; DEL value lease of each; SREM; DEL value lease of each

Guarantees: after `invalidate` has returned, no reader gets a value that was loaded
before it began, if that reader's value was registered. No key is lost to its tag,
whatever is stored meanwhile, and an invalidation that dies half way loses no copy
that was there before it: it can run again. No command spans two slots.

Limits: a Set that is lost with its server leaves its values to their TTL. That is why
leases guard a load in flight, and no version of the tag: a lost lease means no store,
a lost version would mean a guess. Between the last two steps of an invalidation, a
value that is stored just then is outside of the tag: another invalidation passes it by,
and if this one dies there, it stays until its TTL. Redis down: reads fail open, also
where only the tag's server is away: nothing is kept then. `invalidate` raises.

Source: https://redis.io/docs/latest/develop/use-cases/ and "Scaling Memcache at
Facebook", NSDI 2013, section 3.2.1 (leases).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import redis
from redis.exceptions import RedisError

from webapp.patterns.cache_aside import CacheAside, Entry, Read

T = TypeVar("T")

_MOST_PAGES = 100_000  # of one scan; a bound, not a limit anyone should meet


@dataclass(frozen=True)
class Tag:
    """A tag's key, and how a member leads to its copy."""

    key: str  # "rpl:catalog:tag:{kitchen}"
    entry: Callable[[str], Entry]  # "1042" -> its value and lease


@dataclass(frozen=True)
class TagInvalidation:
    """How values are cached; `batch` is about how many members one step takes."""

    cache: CacheAside = field(default_factory=CacheAside)
    batch: int = 500

    @property
    def tag_ttl_ms(self) -> int:
        """Longer than any value of the tag lives: TTL, jitter, and a whole lease."""
        return round(self.cache.ttl_ms * (1 + self.cache.jitter)) * 2 + (
            self.cache.lease_ms
        )

    def read(
        self,
        client: redis.Redis,
        tags: redis.Redis,
        member: str,
        *,
        tag_of: Callable[[], Tag | None],
        entry: Entry,
        load: Callable[[], T | None],
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
    ) -> Read[T]:
        """Answer the cached row, or register its key, load it and leave a copy.

        `client` has the values, `tags` the tags. `tag_of` is asked on a miss only;
        None: a row that does not exist belongs to no tag. The rest is as in
        cache-aside; `decode` must refuse a copy that was stored without its tag.
        """

        def registered_load() -> T | None:
            if tag := tag_of():
                self.register(tags, tag, member)
            return load()

        try:
            return self.cache.read(
                client, entry, load=registered_load, encode=encode, decode=decode
            )
        except RedisError:
            return Read(load(), "bypass")

    def register(self, tags: redis.Redis, tag: Tag, member: str) -> None:
        """Add the member, and let the tag live on (one MULTI, one round trip)."""
        with tags.pipeline(transaction=True) as pipeline:
            pipeline.sadd(tag.key, member)
            pipeline.pexpire(tag.key, self.tag_ttl_ms)
            pipeline.execute()

    def invalidate(self, client: redis.Redis, tags: redis.Redis, tag: Tag) -> int:
        """Delete the copies of all members; returns how many keys there were."""
        return sum(
            self.sweep(client, tags, tag, members)
            for members in self.batches(tags, tag)
        )

    def batches(self, tags: redis.Redis, tag: Tag) -> Iterator[Sequence[str]]:
        """The members, page by page. Those that join meanwhile may be missing."""
        cursor = 0
        for _ in range(_MOST_PAGES):
            cursor, page = tags.sscan(tag.key, cursor, count=self.batch)
            if page:
                yield [m.decode() if isinstance(m, bytes) else m for m in page]
            if cursor == 0:
                return

    def sweep(
        self, client: redis.Redis, tags: redis.Redis, tag: Tag, members: Sequence[str]
    ) -> int:
        """Delete their copies, then remove these members; returns the keys deleted.

        Race: a reader that found nothing takes a lease and registers (1), the members
        are removed (2), and it stores (3): a copy without a tag. The second delete
        takes that copy, or its lease. The first one is for an end between the two.
        """
        entries = [tag.entry(member) for member in members]
        deleted = _delete(client, entries)
        tags.srem(tag.key, *members)
        return deleted + _delete(client, entries)


def _delete(client: redis.Redis, entries: Sequence[Entry]) -> int:
    """One DEL for each entry, which is in one slot, in one round trip."""
    with client.pipeline(transaction=False) as pipeline:
        for entry in entries:
            pipeline.delete(entry.value, entry.lease)
        return sum(pipeline.execute())
