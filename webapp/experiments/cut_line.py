"""The same messages by publish/subscribe and by a stream, while a line is cut.

Three subscribers each way: one stays, one loses its connection for a while, and one
comes late. The schedule is fixed, and the commands are real.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import redis

from webapp.connection.recorder import Recording
from webapp.experiments import Bench, Control, Run, running
from webapp.patterns.pub_sub import Message, PubSub

MESSAGES = 20
CUT_AFTER, LATE_AFTER = 5, 10
AWAY = Control(
    "away", "Messages while the line is cut", "range", min=2, max=12, step=2, value=8
)

_PATTERN = PubSub(longest=100, ttl_ms=30_000)
_PATIENCE_S = 2.0  # for a message that was told

State = Literal["at once", "later", "lost"]
Gap = tuple[int, int]  # first and last message of an absence; 0, 0: there is none


@dataclass(frozen=True)
class Lane:
    way: str  # "Pub/sub", "Stream"
    who: str
    away: Gap
    states: tuple[State, ...]  # of each message, in their order

    @property
    def lost(self) -> int:
        return self.states.count("lost")


@dataclass(frozen=True)
class Cut:
    away: int
    lanes: tuple[Lane, ...]
    recordings: list[Recording]

    def lost(self, way: str) -> int:
        return sum(lane.lost for lane in self.lanes if lane.way == way)


class _Subscriber(Protocol):
    heard: dict[int, State]

    def join(self) -> None: ...
    def leave(self) -> None: ...
    def listen(self, n: int) -> None: ...


@dataclass
class _ByChannel:
    """Hears what is told while its subscription stands, and nothing else."""

    client: redis.Redis
    channel: str
    heard: dict[int, State] = field(default_factory=dict)
    _pubsub: Any = None

    def join(self) -> None:
        self._pubsub = self.client.pubsub()
        self._pubsub.subscribe(self.channel)
        self._until("subscribe")

    def leave(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()  # its connection ends with it
            self._pubsub = None

    def listen(self, n: int) -> None:
        if self._pubsub is not None and self._number() == n:
            self.heard[n] = "at once"

    def _number(self) -> int | None:
        told = self._until("message")  # an id, a space, and what was said
        return None if told is None else int(told.rpartition(b" ")[2])

    def _until(self, kind: str) -> Any:
        ends = time.monotonic() + _PATIENCE_S
        while time.monotonic() < ends:
            told = self._pubsub.get_message(timeout=_PATIENCE_S / 10)
            if told is not None and told["type"] == kind:
                return told["data"]
        return None


@dataclass
class _ById:
    """Reads what came after the last id that it has seen."""

    client: redis.Redis
    stream: str
    heard: dict[int, State] = field(default_factory=dict)
    _is_there: bool = False
    _after: str = "0-0"

    def join(self) -> None:
        self._is_there = True

    def leave(self) -> None:
        self._is_there = False

    def listen(self, n: int) -> None:
        if not self._is_there:
            return
        found = _PATTERN.replay(
            self.client, self.stream, decode=int, after=self._after
        ).messages
        for message in found:
            self._after = message.id
            if isinstance(message, Message):
                now = message.value == n
                self.heard[message.value] = "at once" if now else "later"


def run(bench: Bench, *, away: int) -> Cut:
    """All messages, told and kept by the same script, and what each heard."""
    with running(bench, "cut") as own, ExitStack() as ends:
        stream = own.key("feed")
        back = CUT_AFTER + away
        plan = [
            ("stays", (0, 0)),
            ("line cut", (CUT_AFTER + 1, back)),
            ("comes late", (1, LATE_AFTER)),
        ]
        cast: list[tuple[str, str, Gap, _Subscriber]] = []
        for way, kind in (("Pub/sub", _ByChannel), ("Stream", _ById)):
            for who, gap in plan:
                one: _Subscriber = kind(bench.client, stream)
                ends.callback(one.leave)
                cast.append((way, who, gap, one))
        _play(bench, own, stream, [(gap, one) for _, _, gap, one in cast])
    lanes = (Lane(way, who, gap, _states(one.heard)) for way, who, gap, one in cast)
    return Cut(away, tuple(lanes), own.recordings)


def _play(
    bench: Bench,
    run: Run,
    stream: str,
    subscribers: Sequence[tuple[Gap, _Subscriber]],
) -> None:
    """Tell one message after the other; who is away leaves and joins on time."""
    with run.recording("Join"):
        for (first, _), one in subscribers:
            if first != 1:
                one.join()
    for n in range(1, MESSAGES + 1):
        with run.recording(f"Message {n}"):
            for (first, last), one in subscribers:
                if n == first and n > 1:
                    one.leave()
                if n == last + 1 and last:
                    one.join()
            _PATTERN.publish(bench.client, stream, payload=b"%d" % n)
            for _, one in subscribers:
                one.listen(n)


def _states(heard: dict[int, State]) -> tuple[State, ...]:
    return tuple(heard.get(n, "lost") for n in range(1, MESSAGES + 1))
