"""Dead letters: what nobody can handle leaves the stream with a reason, and may return.

Problem: an entry on which every worker fails comes back for ever. It takes the time of
the others, and if it kills its worker, it stops the queue. The group counts how often
each was delivered, so after some times it is moved aside, where somebody can read why
it failed, repair the cause, and put it back.

Keys, all in one slot
    dead     stream {payload, number, origin, group, reason, deliveries}. No TTL: the
             newest `longest` entries.
    stream   stream {payload, number, origin}.
    outcome  string "dead", then the id of the requeued entry. TTL `outcome_ms`.

Commands (N letters asked for)
    bury     1 round trip  EVALSHA bury: XACK, XRANGE, GET, XADD, SET, O(1)
    letters  1 round trip  XREVRANGE, O(N)
    requeue  1 round trip  EVALSHA requeue: XRANGE, XDEL, XADD, SET, O(1)

Guarantees: no entry is handed to a worker more than `most_deliveries` times. It is in
the stream or among the dead letters, at no moment in both or in none, also if two
requeue it. A requeued entry is new to every group, but keeps its `origin`: the groups
that were done with it are not done with it again.

Limits: of more than `longest` letters the oldest go. Where workers share what fails (a
database that is away), good entries are buried with the bad. Redis down: fails closed,
RedisError reaches the worker, and the entry stays pending.

Source: https://redis.io/docs/latest/commands/xpending/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from webapp.patterns.streams.consumer_group import Delivery, number_of, origin_of
from webapp.scripts import load as load_script

_bury = load_script("streams/bury")
_requeue = load_script("streams/requeue")


@dataclass(frozen=True)
class Letter:
    id: str  # its own, among the dead letters
    origin: str  # the id that the entry had first
    number: int
    group: str  # whose workers failed
    reason: str  # for people
    deliveries: int


@dataclass(frozen=True)
class DeadLetters:
    most_deliveries: int = 5
    longest: int = 1_000  # letters that are kept
    outcome_ms: int = 86_400_000

    def is_last(self, delivery: Delivery) -> bool:
        """Whether this is the last time that it is handed out."""
        return delivery.deliveries >= self.most_deliveries

    def is_spent(self, delivery: Delivery) -> bool:
        """Whether it was handed out often enough before: nobody gets it now."""
        return delivery.deliveries > self.most_deliveries

    def bury(
        self,
        client: redis.Redis,
        stream: str,
        delivery: Delivery,
        *,
        group: str,
        dead: str,
        outcome: str,
        reason: str,
    ) -> bool:
        """Move it to the dead letters (one script); False: it was not pending."""
        times = min(delivery.deliveries, self.most_deliveries)
        told = [group, delivery.id, delivery.origin, reason, times]
        limits = [self.outcome_ms, self.longest]
        return bool(_bury(client, [stream, dead, outcome], [*told, *limits]))

    def letters(self, client: redis.Redis, dead: str, *, count: int) -> list[Letter]:
        """The newest first."""
        found: Any = client.xrevrange(dead, count=count)
        return [letter(id, entry) for id, entry in found]

    def requeue(
        self,
        client: redis.Redis,
        dead: str,
        letter: Letter,
        *,
        stream: str,
        outcome: str,
    ) -> str | None:
        """Put it back (one script); the id of the new entry, None: it is not there."""
        added = _requeue(client, [dead, stream, outcome], [letter.id, self.outcome_ms])
        return added.decode() if added else None


def letter(id: bytes, entry: Mapping[bytes, bytes]) -> Letter:
    return Letter(
        id=id.decode(),
        origin=origin_of(id, entry),
        number=number_of(entry),
        group=entry.get(b"group", b"").decode(errors="replace"),
        reason=entry.get(b"reason", b"").decode(errors="replace"),
        deliveries=number_of(entry, b"deliveries"),
    )
