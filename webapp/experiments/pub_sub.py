"""Break publish/subscribe: three ways to miss what was said."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import msgspec
import redis
from redis.exceptions import ConnectionError

from webapp.connection.urls import home
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Run,
    compare,
    running,
)
from webapp.patterns.pub_sub import Bad, Heard, Joined, Lost, Message, PubSub

_PATTERN = PubSub(longest=100, ttl_ms=10_000, wait_ms=50, heartbeat_ms=150)
_WAIT_S = 0.05
_WITHIN = 10  # waits until a listener must have heard
_BROKEN = b'{"price": '


# Publish while nobody listens


def publish_only(client: redis.Redis, channel: str, numbers: range) -> int:
    # Flaw: PUBLISH answers 0, nobody was told, and the message is gone.
    return sum(int(client.publish(channel, n)) for n in numbers)


def publish_and_keep(client: redis.Redis, stream: str, numbers: range) -> int:
    published = (_PATTERN.publish(client, stream, payload=_encode(n)) for n in numbers)
    return sum(p.receivers for p in published)


def run_nobody_listens(bench: Bench, *, messages: int) -> Outcome:
    client, numbers = bench.client, range(messages)
    with running(bench, "away") as run:
        channel, stream = run.key("channel"), run.key("stream")
        with run.recording(f"PUBLISH {messages} times") as only:
            told = publish_only(client, channel, numbers)
            with client.pubsub() as pubsub:
                pubsub.subscribe(channel)
                missed = messages - sum(1 for _ in _until_quiet(pubsub))
        with run.recording(f"Publish {messages} times, and replay") as kept:
            publish_and_keep(client, stream, numbers)
            replay = _PATTERN.replay(client, stream, decode=_decode, after="0-0")
            behind = messages - len(replay.messages)
    only.verdict, kept.verdict = ("no", f"{missed} missed"), ("ok", f"{behind} missed")
    return Outcome(
        rows=compare(
            "Missed", ("PUBLISH", "with a stream"), (missed, behind), most=messages
        ),
        summary=f"{messages} messages told {told} listeners. Who came afterwards "
        f"missed {missed}, and with the stream {behind}.",
        tone="no" if missed else "ok",
        verdict="gone" if missed else "kept",
        recordings=run.recordings,
    )


def _until_quiet(pubsub: Any) -> Iterator[bytes]:
    """What a subscription says until it is silent for two waits."""
    quiet = 0
    while quiet < 2:
        told = pubsub.get_message(timeout=_WAIT_S)
        quiet = quiet + 1 if told is None else 0
        if told is not None and told["type"] == "message":
            yield told["data"]


# Lose the connection


def listen_until_it_breaks(pubsub: Any) -> Generator[bytes | None, None, None]:
    # Flaw: the first lost connection ends this loop, and nobody subscribes again.
    with pubsub:
        while True:
            told = pubsub.get_message(timeout=_WAIT_S)
            yield told["data"] if told and told["type"] == "message" else None


def listen_again(client: redis.Redis, stream: str) -> Generator[Heard[int], None, None]:
    # A loss is one more thing to hear of; joining again brings what was missed.
    return _PATTERN.listen(client, stream, decode=_decode, after="0-0")


def run_lost_connection(bench: Bench) -> Outcome:
    with running(bench, "lost") as run:
        broken, missed = _lose_for_ever(bench, run)
        fixed, behind = _lose_and_join(bench, run)
    return Outcome(
        rows=compare("Missed", ("one loop", "joins again"), (missed, behind)),
        summary=f"After the connection was cut, one loop missed {missed} of 2 "
        f"messages. Who joins again missed {behind}.",
        tone="no" if missed else "ok",
        verdict="lost for ever" if missed else "healed",
        recordings=run.recordings,
        lanes=[broken, fixed],
    )


def _lose_for_ever(bench: Bench, run: Run) -> tuple[Lane, int]:
    channel, replay = run.key("channel"), Replay(run)
    client = home(bench.client, channel)
    tapped = Tapped(client)
    pubsub = tapped.pubsub()
    heard = listen_until_it_breaks(pubsub)
    with closing(heard):
        _join_once(replay, pubsub, channel)
        _publish_one(replay, lambda: int(client.publish(channel, 1)))
        first = _hear(replay, lambda: next((h for h in heard if h), None))
        _cut(replay, client, tapped)
        _hear(replay, lambda: _ended(heard))
        _publish_one(replay, lambda: int(client.publish(channel, 2)))
        second = _hear(replay, lambda: next(heard, None))
    return replay.lane("One loop"), [first, second].count(None)


def _lose_and_join(bench: Bench, run: Run) -> tuple[Lane, int]:
    stream, replay = run.key("stream"), Replay(run)
    client = home(bench.client, stream)
    tapped = Tapped(client)
    heard = listen_again(tapped, stream)

    def publish(n: int) -> int:
        return _PATTERN.publish(client, stream, payload=_encode(n)).receivers

    with closing(heard):
        replay.step("Listener", "joins", lambda: _next(heard), shown=_words)
        _publish_one(replay, lambda: publish(1))
        first = _hear(replay, lambda: _next(heard))
        _cut(replay, client, tapped)
        _hear(replay, lambda: _next(heard))
        _publish_one(replay, lambda: publish(2))
        replay.step("Listener", "joins again", lambda: _next(heard), shown=_words)
        second = _hear(replay, lambda: _next(heard))
    values = [h.value for h in (first, second) if isinstance(h, Message)]
    return replay.lane("Joins again"), 2 - len(values)


def _cut(replay: Replay, client: redis.Redis, tapped: "Tapped") -> None:
    replay.step(
        "Operator",
        "cuts the listener's connection",
        lambda: client.client_kill_filter(_id=str(tapped.connection_id)),
    )


# Send a message that cannot be read


def listen_and_decode(pubsub: Any) -> Generator[int | None, None, None]:
    # Flaw: what decode raises ends the loop, and one bad message silences the rest.
    with pubsub:
        while True:
            told = pubsub.get_message(timeout=_WAIT_S)
            message = told and told["type"] == "message"
            yield _decode(told["data"]) if message else None


def run_bad_message(bench: Bench) -> Outcome:
    with running(bench, "bad") as run:
        broken, missed = _end_at_it(bench, run)
        fixed, behind = _go_on(bench, run)
    return Outcome(
        rows=compare("Good messages missed", ("one loop", "goes on"), (missed, behind)),
        summary=f"After a message that cannot be read, one loop missed {missed} good "
        f"one. Who answers it as bad missed {behind}.",
        tone="no" if missed else "ok",
        verdict="silenced" if missed else "went on",
        recordings=run.recordings,
        lanes=[broken, fixed],
    )


def _end_at_it(bench: Bench, run: Run) -> tuple[Lane, int]:
    client, channel, replay = bench.client, run.key("channel"), Replay(run)
    pubsub = client.pubsub()
    heard = listen_and_decode(pubsub)
    with closing(heard):
        _join_once(replay, pubsub, channel)
        _publish_one(replay, lambda: int(client.publish(channel, _BROKEN)))
        _hear(replay, lambda: _ended(heard))
        _publish_one(replay, lambda: int(client.publish(channel, 2)))
        second = _hear(replay, lambda: next(heard, None))
    return replay.lane("One loop"), int(second is None)


def _go_on(bench: Bench, run: Run) -> tuple[Lane, int]:
    client, stream, replay = bench.client, run.key("stream"), Replay(run)
    heard = listen_again(client, stream)

    def publish(payload: bytes) -> int:
        return _PATTERN.publish(client, stream, payload=payload).receivers

    with closing(heard):
        replay.step("Listener", "joins", lambda: _next(heard), shown=_words)
        _publish_one(replay, lambda: publish(_BROKEN))
        _hear(replay, lambda: _next(heard))
        _publish_one(replay, lambda: publish(_encode(2)))
        second = _hear(replay, lambda: _next(heard))
    return replay.lane("Goes on"), int(not isinstance(second, Message))


# What they share


class Tapped(redis.Redis):
    """The same connections, and which of them its last subscription has."""

    connection_id = 0

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(connection_pool=client.connection_pool)

    def pubsub(self, **options: Any) -> Any:
        pubsub: Any = super().pubsub(**options)  # type: ignore[no-untyped-call]
        pubsub.execute_command("CLIENT", "ID")
        self.connection_id = pubsub.parse_response()
        return pubsub


def _join_once(replay: Replay, pubsub: Any, channel: str) -> None:
    def subscribe() -> bool:
        pubsub.subscribe(channel)
        return any(pubsub.get_message(timeout=_WAIT_S) for _ in range(_WITHIN))

    replay.step(
        "Listener",
        "subscribes",
        subscribe,
        shown=lambda told: "subscribed" if told else "not confirmed",
    )


def _publish_one(replay: Replay, publish: Callable[[], int]) -> None:
    replay.step(
        "Publisher",
        "publishes a message",
        publish,
        shown=lambda told: f"{told} told",
        tone=lambda told: "ok" if told else "wait",
    )


def _hear(replay: Replay, hear: Callable[[], Any]) -> Any:
    return replay.step(
        "Listener",
        "hears",
        hear,
        shown=_words,
        tone=lambda heard: (
            "no"
            if heard is None or isinstance(heard, str)
            else "wait"
            if isinstance(heard, Lost | Bad)
            else "ok"
        ),
    )


def _next(heard: Iterator[Heard[int]]) -> Heard[int]:
    """What a listener hears next; None if it is nothing for a while."""
    return next((one for one in islice(heard, _WITHIN) if one), None)


def _ended(heard: Iterator[Any]) -> str | None:
    """What ended a loop."""
    try:
        for _ in range(_WITHIN):
            next(heard)
    except (ConnectionError, ValueError) as error:
        return f"{type(error).__name__}, the loop is over"
    return None


def _words(heard: Any) -> str:
    if isinstance(heard, Joined):
        return f"joined, {heard.missed} missed"
    if isinstance(heard, Message):
        return f"message {heard.value}"
    if isinstance(heard, Lost):
        return "lost, tries again"
    if isinstance(heard, Bad):
        return "bad message, goes on"
    if isinstance(heard, bytes):
        return f"message {heard.decode()}"
    return str(heard or "nothing, for ever")


def _encode(n: int) -> bytes:
    return msgspec.json.encode(n)


def _decode(payload: bytes) -> int:
    return msgspec.json.decode(payload, type=int)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="nobody-listens",
        title="Publish while nobody listens",
        hypothesis="A message that finds no listener is gone.",
        controls=(
            Control("messages", "Messages", "range", min=5, max=40, step=5, value=10),
        ),
        run=run_nobody_listens,
    ),
    Experiment(
        name="lost-connection",
        title="Lose the connection",
        hypothesis="A listener that does not join again is silent for ever.",
        controls=(),
        run=run_lost_connection,
        replayed=True,
    ),
    Experiment(
        name="bad-message",
        title="Send a message that cannot be read",
        hypothesis="One bad message ends the loop for all that follow.",
        controls=(),
        run=run_bad_message,
        replayed=True,
    ),
)
