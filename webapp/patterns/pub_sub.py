"""Publish/subscribe: tell everybody who listens now, and let who was away catch up.

Problem: one event, many who want to hear of it at once. PUBLISH reaches every
subscriber in a millisecond, but at most once: whoever is not connected at that moment
never hears of it, and a subscription whose connection is lost is over. So each message
is also kept in a capped stream, and a listener joins again after every loss and reads
from there what it missed. Pub/sub makes it fast, the stream makes it whole.

Keys
    stream   stream, {message: bytes}, the newest `longest` entries.
             TTL `ttl_ms` after the last message. The channel has the same name.

Commands
    publish  1 round trip   EVALSHA publish: XREVRANGE 1, XADD, PEXPIRE, PUBLISH,
                            O(subscribers of this server)
    join     3 round trips  XREVRANGE 1, SUBSCRIBE, then XRANGE twice in one pipeline
    listen   none           the server sends; a PING every `heartbeat_ms` of silence
    replay   1 round trip   XRANGE twice, O(messages missed)
    facts    1 round trip   PUBSUB NUMSUB, XLEN, O(1)

Guarantees: a listener gets messages in the order of their ids, each once, also across
lost connections and a restart of the server, as far back as the stream reaches; where
it does not, `whole` is False. Each message names the one before it, so a listener that
was not told of one joins again. A message that cannot be decoded is answered as such,
and the next one comes. Every wait has an end: a listener hears at least None every
`wait_ms`, and a silent connection is found out by its missing PONG.

Limits: without the stream, pub/sub promises nothing to who is away. A subscriber that
reads too slowly is cut off by the server (32 MB, or 8 MB for 60 s), and catches up from
the stream. In Cluster PUBLISH goes to all nodes, and its count is of one; what a node
does not pass on is missed only when the next message comes. Redis down:
`publish` and `replay` raise; a listener says that it lost the server, and keeps trying.

Source: https://redis.io/docs/latest/develop/pubsub/ and
https://redis.io/docs/latest/develop/data-types/streams/
"""

import random
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import redis
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from webapp.scripts import load as load_script

T = TypeVar("T")

_publish = load_script("pub_sub/publish")

_ID = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")
_FIELD = b"message"
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 50, 1_000  # between two tries to join


@dataclass(frozen=True)
class Published:
    id: str  # "1795385319442-0"; its first part is the server's clock in ms
    receivers: int  # subscriptions that were told, 3


@dataclass(frozen=True)
class Message(Generic[T]):
    id: str
    value: T


@dataclass(frozen=True)
class Bad:
    """A message that could not be decoded."""

    id: str
    reason: str


@dataclass(frozen=True)
class Joined:
    """The subscription stands; what was missed follows."""

    after: str  # the id that it continues from
    missed: int  # messages that came since then
    whole: bool  # False: there may have been more, which the stream has dropped


@dataclass(frozen=True)
class Lost:
    """The subscription is gone; the listener tries again by itself."""

    reason: str


@dataclass(frozen=True)
class Replay(Generic[T]):
    """What came after an id, oldest first."""

    messages: list[Message[T] | Bad]
    whole: bool  # False: there may have been more, which the stream has dropped


@dataclass(frozen=True)
class Facts:
    subscribers: int  # subscriptions on this server, one a process
    kept: int  # messages in the stream


Heard: TypeAlias = Message[T] | Bad | Joined | Lost | None


@dataclass(frozen=True)
class PubSub:
    """The parameters of one feed; times in ms."""

    longest: int = 1_000  # entries the stream keeps
    ttl_ms: int = 86_400_000
    wait_ms: int = 250  # less than the client's read timeout
    heartbeat_ms: int = 5_000  # of silence, then PING; as long for its PONG

    def publish(self, client: redis.Redis, stream: str, *, payload: bytes) -> Published:
        """Keep a message and tell it, in one step."""
        id, receivers = _publish(client, [stream], [payload, self.longest, self.ttl_ms])
        return Published(id.decode(), receivers)

    def latest(
        self,
        client: redis.Redis,
        stream: str,
        *,
        decode: Callable[[bytes], T],
        count: int,
    ) -> list[Message[T] | Bad]:
        """The last messages, newest first."""
        entries: Any = client.xrevrange(stream, count=count)
        return [_decoded(id, fields.get(_FIELD), decode) for id, fields in entries]

    def facts(self, client: redis.Redis, stream: str) -> Facts:
        """Who listens, and what is kept (one round trip)."""
        with client.pipeline(transaction=False) as pipeline:
            pipeline.pubsub_numsub(stream)
            pipeline.xlen(stream)
            counted, kept = pipeline.execute()
        return Facts(subscribers=counted[0][1], kept=kept)

    def replay(
        self,
        client: redis.Redis,
        stream: str,
        *,
        decode: Callable[[bytes], T],
        after: str,
    ) -> Replay[T]:
        """What came after an id. `decode` raises ValueError for foreign bytes."""
        with client.pipeline(transaction=False) as pipeline:
            pipeline.xrange(stream, min=f"({after}", count=self.longest)
            pipeline.xrange(stream, count=1)
            missed, oldest = pipeline.execute()
        messages = [_decoded(id, f.get(_FIELD), decode) for id, f in missed]
        if place(after) == (0, 0):
            return Replay(messages, whole=len(messages) < self.longest)
        kept = bool(oldest) and place(oldest[0][0].decode()) <= place(after)
        return Replay(messages, whole=kept)

    def listen(
        self,
        client: redis.Redis,
        stream: str,
        *,
        decode: Callable[[bytes], T],
        after: str | None = None,
    ) -> Generator[Heard[T], None, None]:
        """Join and answer what comes, for ever; close the generator to leave.

        None: nothing came in `wait_ms`. Without `after` it begins with what is new.
        The client needs a connection for this alone.
        """
        pause_ms = _FIRST_PAUSE_MS
        while True:
            try:
                after = after or self._end(client, stream)
                for heard in self._join(client, stream, decode, after):
                    pause_ms = _FIRST_PAUSE_MS
                    if isinstance(heard, Message | Bad) and heard.id:
                        after = heard.id
                    yield heard
            except RedisError as error:
                yield Lost(str(error))
            time.sleep(pause_ms * random.uniform(0.7, 1.3) / 1000)
            pause_ms = min(pause_ms * 2, _LONGEST_PAUSE_MS)

    def _end(self, client: redis.Redis, stream: str) -> str:
        """The newest id. Asked for before SUBSCRIBE, so that nothing falls between."""
        newest: Any = client.xrevrange(stream, count=1)
        return newest[0][0].decode() if newest else "0-0"

    def _join(
        self,
        client: redis.Redis,
        stream: str,
        decode: Callable[[bytes], T],
        after: str,
    ) -> Iterator[Heard[T]]:
        # Listener: SUBSCRIBE (1), XRANGE (3). Publisher: publish (2), publish (4).
        # (2) comes twice, by the stream and by the channel, so ids are compared; the
        # other way round, a message between XRANGE and SUBSCRIBE would be lost.
        with client.pubsub() as pubsub:
            pubsub.subscribe(stream)
            self._await_confirmation(pubsub)
            replay = self.replay(client, stream, decode=decode, after=after)
            yield Joined(after, len(replay.messages), replay.whole)
            for message in replay.messages:
                after = message.id
                yield message
            for told in self._told(pubsub):
                before, heard = _parsed(told, decode) if told else ("0-0", None)
                if place(before) > place(after):
                    raise ConnectionError("a message did not come")
                if heard is None or not heard.id or place(heard.id) > place(after):
                    after = heard.id if heard and heard.id else after
                    yield heard

    def _await_confirmation(self, pubsub: Any) -> None:
        deadline = time.monotonic() + self.heartbeat_ms / 1000
        while time.monotonic() < deadline:
            told = pubsub.get_message(timeout=self.wait_ms / 1000)
            if told and told["type"] == "subscribe":
                return
        raise TimeoutError("SUBSCRIBE was not confirmed")

    def _told(self, pubsub: Any) -> Iterator[bytes | None]:
        """What the channel says; None: nothing in time. Raises if nobody is there."""
        heard_at, asked_at = time.monotonic(), None
        while True:
            told = pubsub.get_message(timeout=self.wait_ms / 1000)
            now = time.monotonic()
            if told is not None:
                heard_at, asked_at = now, None
                yield told["data"] if told["type"] == "message" else None
                continue
            if asked_at is None and self._is_long(now - heard_at):
                pubsub.ping()
                asked_at = now
            elif asked_at is not None and self._is_long(now - asked_at):
                raise ConnectionError("no PONG from the server")
            yield None

    def _is_long(self, seconds: float) -> bool:
        return seconds * 1000 > self.heartbeat_ms


def place(id: str) -> tuple[int, int]:
    """The parts of an id as numbers, which compare as the ids do."""
    ms, _, number = id.partition("-")
    return int(ms), int(number)


def _parsed(told: bytes, decode: Callable[[bytes], T]) -> tuple[str, Message[T] | Bad]:
    """The id of the message before, and the message."""
    id, before, payload = (*told.split(b" ", 2), b"", b"")[:3]
    if not (_ID.fullmatch(id) and _ID.fullmatch(before)):
        return "0-0", Bad("", "not from publish")
    return before.decode(), _decoded(id, payload, decode)


def _decoded(
    id: bytes, payload: bytes | None, decode: Callable[[bytes], T]
) -> Message[T] | Bad:
    try:
        return Message(id.decode(), decode(payload or b""))
    except ValueError as error:
        return Bad(id.decode(), str(error))
