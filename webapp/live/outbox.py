"""What is sent to sockets: frames, each encoded once, and one outbox a socket."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec
from wsproto.frame_protocol import FrameProtocol

from webapp.live.vitals import VitalsNow

_LONGEST = 256  # messages; who lags behind more misses the oldest


class FeedNow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message of the feed is about, beside its rows."""

    state: Literal["told", "joined", "lost", "dropped"]
    missed: int = 0  # joined: that came while away; dropped: that this page misses
    whole: bool = True  # False: more were missed than the stream still has


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    topic: str
    id: str  # grows with time within a topic
    data: VitalsNow | FeedNow | None = None
    html: str | None = None  # a fragment for htmx to swap


def frame(message: Message) -> bytes:
    """A whole websocket frame: the same bytes for every socket."""
    text = msgspec.json.encode(message).decode()
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(text, fin=True))


class Connection(Protocol):
    def offer(self, frame: bytes) -> bool:
        """Take a frame if that needs no waiting."""


class Outbox:
    """What one socket has still to send.

    A frame goes to the connection at once where nothing waits before it and the
    connection takes it. Else it waits here for the socket's own thread.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self.dropped = 0
        self.closed = False
        self._connection: Connection | None = None
        self._waiting: deque[bytes] = deque()
        self._in_hand = False  # the socket's thread is sending one
        self._woken = False
        self._changed = threading.Condition()

    def attach(self, connection: Connection | None) -> None:
        """From now on frames may go there at once; None: no longer."""
        with self._changed:
            self._connection = connection

    def put(self, frame: bytes) -> None:
        """Never waits: drops the oldest frame where there are too many."""
        with self._changed:
            direct = self._connection if not (self._waiting or self._in_hand) else None
            if direct is not None and direct.offer(frame):
                return
            if len(self._waiting) == _LONGEST:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(frame)
            self._changed.notify()

    def get(self, timeout_s: float) -> bytes | None:
        """The oldest frame; None once closed or woken, or if there is none in time."""
        with self._changed:
            self._in_hand = False
            self._changed.wait_for(
                lambda: self._waiting or self.closed or self._woken, timeout_s
            )
            self._woken = False
            if self.closed or not self._waiting:
                return None
            self._in_hand = True
            return self._waiting.popleft()

    def wake(self) -> None:
        """Let the socket's thread look at its connection."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify()
