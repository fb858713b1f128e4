"""Hands each new message once to every socket of this process.

A thread looks for new vitals while there is a socket, and ends with the last one.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

import msgspec

from webapp.live import vitals
from webapp.live.vitals import VitalsNow
from webapp.settings import Settings

TOPICS = frozenset({"vitals"})

_POLL_S = 0.25
_LONGEST_OUTBOX = 16  # messages; who lags behind more misses the oldest

log = logging.getLogger(__name__)


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    topic: str
    id: str  # grows with time within a topic
    data: VitalsNow
    html: str | None = None  # a fragment for htmx to swap


class Outbox:
    """What one socket has still to send."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self.dropped = 0
        self.closed = False
        self._waiting: deque[str] = deque()
        self._changed = threading.Condition()

    def put(self, message: str) -> None:
        """Never waits: drops the oldest message where there are too many."""
        with self._changed:
            if len(self._waiting) == _LONGEST_OUTBOX:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(message)
            self._changed.notify()

    def get(self, timeout_s: float) -> str | None:
        """The oldest message; None once closed, or if there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed, timeout_s)
            return None if self.closed or not self._waiting else self._waiting.popleft()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify()


class Hub:
    """The sockets of one process: at most half as many as it has threads.

    `render` makes the `html` of new vitals. It runs in the hub's thread, once for all
    sockets, with neither an app context nor a request.
    """

    def __init__(
        self, settings: Settings, *, render: Callable[[VitalsNow], str]
    ) -> None:
        self._file = settings.instance_path / vitals.FILE
        self._capacity = settings.threads // 2
        self._render = render
        self._lock = threading.Lock()
        self._outboxes: set[Outbox] = set()
        self._latest: dict[str, str] = {}  # by topic
        self._seen: tuple[int, int] | None = None  # inode and time of the file
        self._running = False
        self._closing = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._trouble = ""

    def admit(self, topics: Iterable[str]) -> Outbox | None:
        """A place, to be given back with `leave`; None: all taken, or closing."""
        outbox = Outbox(topics)
        with self._lock:
            if self._closing or len(self._outboxes) >= self._capacity:
                return None
            self._outboxes.add(outbox)
            self._greet(outbox)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="hub", daemon=True).start()
        return outbox

    def leave(self, outbox: Outbox) -> None:
        with self._lock:
            self._outboxes.discard(outbox)

    def close(self) -> None:
        """Close every socket and take no more. A signal handler may call it.

        So it takes no lock: the code that the signal interrupted may hold it.
        """
        self._closing = True
        self._bell.put(None)

    def _greet(self, outbox: Outbox) -> None:
        for topic in outbox.topics & self._latest.keys():
            outbox.put(self._latest[topic])

    def _run(self) -> None:
        while self._is_wanted():
            if self._closing:
                self._close_all()
            else:
                self._look()
            with suppress(Empty):
                self._bell.get(timeout=_POLL_S)

    def _is_wanted(self) -> bool:
        with self._lock:
            if not self._outboxes:
                self._running, self._seen = False, None
                self._latest.clear()
            return self._running

    def _close_all(self) -> None:
        with self._lock:
            for outbox in self._outboxes:
                outbox.close()

    def _look(self) -> None:
        try:
            status = self._file.stat()
            if (seen := (status.st_ino, status.st_mtime_ns)) == self._seen:
                return
            self._seen = seen
            now = vitals.read(self._file)
        except (OSError, msgspec.DecodeError) as error:
            self._complain("the vitals cannot be read", error)
            return
        self._publish(
            Message(
                topic="vitals", id=now.at.isoformat(), data=now, html=self._html(now)
            )
        )

    def _html(self, now: VitalsNow) -> str | None:
        try:
            html = self._render(now)
        except Exception as error:  # numbers without a fragment are better than none
            self._complain("the vitals cannot be rendered", error)
            return None
        self._trouble = ""
        return html

    def _publish(self, message: Message) -> None:
        text = msgspec.json.encode(message).decode()
        with self._lock:
            self._latest[message.topic] = text
            for outbox in self._outboxes:
                if message.topic in outbox.topics:
                    outbox.put(text)

    def _complain(self, what: str, error: Exception) -> None:
        """Log a trouble when it is new, not four times a second."""
        if repr(error) != self._trouble:
            log.warning(what, exc_info=error)
        self._trouble = repr(error)
