"""Consumer group: each entry goes to one worker, comes back if dropped, counts once.

Problem: a list that workers pop loses the job with the worker that popped it. A group
remembers what it gave to whom until XACK, so nothing is lost. But what a dead worker
had must be taken over, and what is delivered twice must not take effect twice: an
acknowledgement before the effect loses it to a kill in between, one after it repeats
it. So acknowledgement and effect are one script, and who comes late finds it done.

Keys, all in one slot
    stream   stream {payload, number}.
    outcome  string "text ms", one an entry and group: it is done. TTL `outcome_ms`.
    totals   hash, one a group: the effect. TTL `outcome_ms` after the last one.

Commands (N entries asked for)
    read     1 round trip  XREADGROUP > BLOCK, O(N)
    resume   1 round trip  XREADGROUP 0 and XPENDING in one pipeline, O(N)
    claim    1 round trip  EVALSHA claim: XPENDING, XAUTOCLAIM, XACK, O(pending)
    finish   1 round trip  EVALSHA finish: XACK, TIME, GET, SET, HINCRBY, PEXPIRE, O(1)
    leave    1 round trip  EVALSHA leave: XPENDING, XGROUP DELCONSUMER, O(1)

Guarantees: an entry takes effect once in each group, whenever workers are killed,
stopped or started again, and also if it is put into the stream again (see dead
letters). What a worker leaves is claimed by another once it was idle for `idle_ms`. A
consumer is removed only with nothing pending, which would be lost with it. Pending
entries that were deleted from the stream are acknowledged and counted as `gone`.

Limits: the effect is in Redis, in the stream's slot; one elsewhere (a mail, a card)
needs an idempotency key of its own, the entry's `origin`. Entries are handed out in
order and finished in any. A worker needs less than `idle_ms`, or another begins the
same entry, and one of the two works in vain. With appendfsync everysec a crash of the
server may cost its last two seconds. Redis down: fails closed, RedisError reaches the
worker, which goes on where it was.

Source: https://redis.io/docs/latest/develop/data-types/streams/ and
https://redis.io/docs/latest/commands/xautoclaim/
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ResponseError

from webapp.scripts import load as load_script

_claim = load_script("streams/claim")
_finish = load_script("streams/finish")
_leave = load_script("streams/leave")

FIRST = "0-0"  # where a claim begins: the oldest entry
_ID = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")
_NUMBER = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True)
class Delivery:
    """An entry that this consumer is to handle."""

    id: str
    payload: bytes
    number: int  # 0 where the producer gave it none
    origin: str  # the id that it had first: another one once it was requeued
    deliveries: int  # 1: nobody had it before
    taken_from: str = ""  # the consumer that had it before; empty: none, or unknown


@dataclass(frozen=True)
class Taken:
    deliveries: list[Delivery]
    gone: int  # pending entries that were deleted from the stream
    cursor: str = FIRST  # where the next claim goes on; FIRST: all were looked at


@dataclass(frozen=True)
class ConsumerGroup:
    """The parameters of a group; times in ms."""

    idle_ms: int = 15_000  # without an acknowledgement, then others may claim it
    block_ms: int = 500  # less than the client's read timeout
    outcome_ms: int = 86_400_000

    def join(self, client: redis.Redis, stream: str, *, group: str) -> None:
        """Make the group unless it is there; it begins with the oldest entry."""
        try:
            client.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def read(
        self,
        client: redis.Redis,
        stream: str,
        *,
        group: str,
        consumer: str,
        count: int = 1,
    ) -> list[Delivery]:
        """What nobody has had yet; waits `block_ms` for it, then answers none."""
        found: Any = client.xreadgroup(
            group, consumer, {stream: ">"}, count=count, block=self.block_ms
        )
        return [_delivery(id, entry, 1) for _, own in found for id, entry in own]

    def resume(
        self,
        client: redis.Redis,
        stream: str,
        *,
        group: str,
        consumer: str,
        count: int = 100,
    ) -> Taken:
        """What this consumer had before it was started again.

        To be asked for once: it begins anew the time after which others may claim.
        """
        with client.pipeline(transaction=False) as pipeline:
            pipeline.xreadgroup(group, consumer, {stream: "0"}, count=count)
            pipeline.xpending_range(stream, group, "-", "+", count, consumer)
            found, pending = pipeline.execute()
        times = {held["message_id"]: held["times_delivered"] for held in pending}
        own = [entry for _, entries in found for entry in entries]
        gone = [id for id, entry in own if not entry]
        if gone:
            client.xack(stream, group, *gone)
        taken = [
            _delivery(id, entry, times[id], consumer)
            for id, entry in own
            if entry and id in times  # claimed by another in between, if not
        ]
        return Taken(taken, len(gone))

    def claim(
        self,
        client: redis.Redis,
        stream: str,
        *,
        group: str,
        consumer: str,
        cursor: str = FIRST,
        count: int = 10,
    ) -> Taken:
        """Take over what was not acknowledged for `idle_ms` (one script)."""
        args = [group, consumer, self.idle_ms, cursor, count]
        after, found, gone = _claim(client, [stream], args)
        taken = [
            _delivery(id, _pairs(entry), times, holder.decode())
            for id, entry, holder, times in found
        ]
        return Taken(taken, gone, after.decode())

    def finish(
        self,
        client: redis.Redis,
        stream: str,
        delivery: Delivery,
        *,
        group: str,
        outcome: str,
        totals: str,
        text: str,
        add: Mapping[str, int],
    ) -> bool:
        """Acknowledge it, and add to the fields of the totals (one script).

        False: it was done or buried before, and nothing was changed.
        """
        args = [group, delivery.id, text, self.outcome_ms, json.dumps(add)]
        return bool(_finish(client, [stream, outcome, totals], args))

    def leave(
        self, client: redis.Redis, stream: str, *, group: str, consumer: str
    ) -> bool:
        """Remove a consumer (one script); False: others must claim first."""
        return bool(_leave(client, [stream], [group, consumer]))


def is_id(text: bytes) -> bool:
    return _ID.fullmatch(text) is not None


def origin_of(id: bytes, entry: Mapping[bytes, bytes]) -> str:
    """Anybody may write into a stream: only what is an id is taken for one."""
    origin = entry.get(b"origin", id)
    return (origin if is_id(origin) else id).decode()


def number_of(entry: Mapping[bytes, bytes], field: bytes = b"number") -> int:
    text = entry.get(field, b"")
    return int(text) if _NUMBER.fullmatch(text) else 0


def _delivery(
    id: bytes, entry: Mapping[bytes, bytes], deliveries: int, taken_from: str = ""
) -> Delivery:
    return Delivery(
        id=id.decode(),
        payload=entry.get(b"payload", b""),
        number=number_of(entry),
        origin=origin_of(id, entry),
        deliveries=deliveries,
        taken_from=taken_from,
    )


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
