"""Bounded stream: producers add each entry once, and old ones go when all are done.

Problem: a producer whose reply was lost sends again, and the job is there twice. A
stream that nobody trims grows for ever; one that is capped with MAXLEN drops what no
worker has read yet, and nobody notices. So an idempotency key belongs to each entry, a
full stream refuses what is new, and a trim asks every group how far it is.

Keys, all in one slot
    stream   stream {payload, number}. No TTL: bounded by `cap`.
    once     string "id number", one an idempotency key. TTL `once_ms`.
    counter  string, the number of the newest entry. TTL `count_ms`.

Commands (G groups)
    append   1 round trip  EVALSHA append: GET, XLEN, INCR, XADD, SET, O(1)
    trim     1 round trip  EVALSHA trim: XREVRANGE, XINFO GROUPS, XPENDING,
                           XTRIM MINID, O(keep + G + dropped)

Guarantees: one idempotency key adds one entry, also when two send it at once; the
second gets the id of the first. No entry is dropped before every group has
acknowledged it, and none where there is no group. Memory is bounded: at `cap` entries
a producer is told to come later.

Limits: a key that is repeated after `once_ms` adds again. A group that is made later
misses what was dropped. The slowest group decides what can go, so one that stands
still fills the stream. Numbers are for people: they begin anew if the counter is lost.
Redis down: fails closed, RedisError reaches the producer, who may send again.

Source: https://redis.io/docs/latest/develop/data-types/streams/
"""

from dataclasses import dataclass

import redis

from webapp.scripts import load as load_script

_append = load_script("streams/append")
_trim = load_script("streams/trim")


class StreamFull(Exception):
    """As many entries as there may be: nothing was added."""


@dataclass(frozen=True)
class Appended:
    id: str  # "1795385319442-0"
    number: int  # what people call it by, 4801
    repeated: bool  # the idempotency key was known, and nothing was added


@dataclass(frozen=True)
class BoundedStream:
    """The parameters of one stream; times in ms."""

    cap: int = 10_000  # entries that it may hold
    keep: int = 200  # newest entries that stay though they are done
    once_ms: int = 86_400_000
    count_ms: int = 7 * 86_400_000

    def append(
        self,
        client: redis.Redis,
        stream: str,
        *,
        once: str,
        counter: str,
        payload: bytes,
    ) -> Appended:
        """Add an entry, once for this idempotency key (one script).

        Raises StreamFull.
        """
        limits = self.cap, self.once_ms, self.count_ms
        reply = _append(client, [stream, once, counter], [payload, *limits])
        if not reply:
            raise StreamFull(f"{self.cap:,} entries are in the stream")
        id, number, added = reply
        return Appended(id.decode(), number, repeated=not added)

    def trim(self, client: redis.Redis, stream: str) -> int:
        """Drop what every group is done with, but for the newest (one script)."""
        return int(_trim(client, [stream], [self.keep]))
