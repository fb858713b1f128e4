"""The order pipeline: orders in a stream, billed by one group, counted by another."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import redis

from webapp import keys
from webapp.patterns.streams.bounded_stream import Appended, BoundedStream
from webapp.patterns.streams.consumer_group import ConsumerGroup, Delivery, is_id
from webapp.patterns.streams.dead_letters import DeadLetters, Letter

BILLING, ANALYTICS = "billing", "analytics"
GROUPS = BILLING, ANALYTICS
STREAM = BoundedStream()
LETTERS = DeadLetters()

_PIPELINE = "orders"
_DEAD = "dead"
_CLAIMS_KEPT = 100


class Item(msgspec.Struct, frozen=True):
    product_id: int
    quantity: int
    price_cents: int  # of one, when it was ordered


class Order(msgspec.Struct, frozen=True):
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Progress:
    """How far an order is with its bill."""

    state: Literal["waiting", "pending", "billed", "dead"]
    worker: str = ""
    deliveries: int = 0


class Orders:
    """The keys of the pipeline, all in one slot, and what is done with them."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.client = client
        self._namespace = namespace
        self.stream = self._key(keys.STREAM)
        self.dead = self._key(keys.DEAD)
        self.counter = self._key(keys.NUMBER)
        self.claims = self._key(keys.CLAIMS)

    def outcome(self, group: str, origin: str) -> str:
        return self._key(keys.OUTCOME, f"{group}-{origin}")

    def totals(self, group: str) -> str:
        return self._key(keys.TOTALS, group)

    def place(self, order: Order, *, once: str) -> Appended:
        """Put an order into the pipeline, once for this idempotency key.

        Raises StreamFull, keys.BadName.
        """
        return STREAM.append(
            self.client,
            self.stream,
            once=self._key(keys.ONCE, once),
            counter=self.counter,
            payload=msgspec.json.encode(order),
        )

    def find(self, id: str) -> Progress | None:
        """How far an order is, None where there is none such."""
        outcome: Any = self.client.get(self.outcome(BILLING, id))
        if outcome and not is_id(outcome):
            worker = outcome.decode().split()[0]
            return Progress("dead") if worker == _DEAD else Progress("billed", worker)
        return self._open(outcome.decode() if outcome else id)

    def _open(self, id: str) -> Progress | None:
        """Of an entry that is not done: whether a worker has it."""
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.xpending_range(self.stream, BILLING, id, id, 1)
            pipeline.xrange(self.stream, id, id)
            pending, entry = pipeline.execute(raise_on_error=False)
        if isinstance(entry, Exception):
            raise entry
        if pending and not isinstance(pending, Exception):  # NOGROUP: nobody has read
            [held] = pending
            return Progress(
                "pending", held["consumer"].decode(), held["times_delivered"]
            )
        return Progress("waiting") if entry else None

    def join(self, group: ConsumerGroup) -> None:
        """Make all groups that are missing: what is trimmed is done with by all."""
        for name in GROUPS:
            group.join(self.client, self.stream, group=name)

    def bury(self, delivery: Delivery, *, group: str, reason: str) -> bool:
        return LETTERS.bury(
            self.client,
            self.stream,
            delivery,
            group=group,
            dead=self.dead,
            outcome=self.outcome(group, delivery.origin),
            reason=reason,
        )

    def letters(self, count: int) -> list[Letter]:
        """The newest dead letters."""
        return LETTERS.letters(self.client, self.dead, count=count)

    def requeue(self, letters: Iterable[Letter]) -> int:
        """Put dead letters back; how many of them were still there."""
        added = [
            LETTERS.requeue(
                self.client,
                self.dead,
                letter,
                stream=self.stream,
                outcome=self.outcome(letter.group, letter.origin),
            )
            for letter in letters
            if letter.group in GROUPS
        ]
        return len([id for id in added if id])

    def note_claims(self, worker: str, taken: Iterable[Delivery]) -> None:
        """Remember from whom orders were taken over, for the page (one MULTI)."""
        from_others = [d for d in taken if d.taken_from != worker]
        if not from_others:
            return
        with self.client.pipeline(transaction=True) as multi:
            for delivery in from_others:
                entry: dict[Any, Any] = {
                    "id": delivery.id,
                    "number": delivery.number,
                    "from": delivery.taken_from,
                    "by": worker,
                }
                multi.xadd(self.claims, entry, maxlen=_CLAIMS_KEPT, approximate=False)
            multi.pexpire(self.claims, keys.CLAIMS.ttl_ms or 0)
            multi.execute()

    def _key(self, family: keys.Family, rest: str = "") -> str:
        return keys.key(self._namespace, family, _PIPELINE, rest)
