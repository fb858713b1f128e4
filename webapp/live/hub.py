"""Hands each new message once to every socket of this process.

A thread looks for new vitals while there is a socket, and ends with the last one.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import msgspec

from webapp.live import vitals
from webapp.live.feed import Feed
from webapp.live.outbox import Message, Outbox, frame
from webapp.live.vitals import VitalsNow
from webapp.live.watch import Watch
from webapp.settings import Settings

TOPICS = frozenset({"vitals", "feed", "streams", "locks"})

_POLL_S = 0.25

log = logging.getLogger(__name__)


class Hub:
    """The sockets of one process: at most half as many as it has threads.

    `render` makes the `html` of new vitals. It runs in the hub's thread, once for all
    sockets, with neither an app context nor a request.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        render: Callable[[VitalsNow], str],
        feed: Feed,
        watches: Sequence[Watch] = (),
    ) -> None:
        self._file = settings.instance_path / vitals.FILE
        self._capacity = settings.threads // 2
        self._render = render
        self._feed = feed
        self._watches = watches
        self._lock = threading.Lock()
        self._outboxes: set[Outbox] = set()
        self._latest: dict[str, bytes] = {}  # by topic
        self._seen: tuple[int, int] | None = None  # inode and time of the file
        self._running = False
        self._closing = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._trouble = ""

    def admit(self, topics: Iterable[str], after: str | None = None) -> Outbox | None:
        """A place, to be given back with `leave`; None: all taken, or closing.

        `after` is the id of the last event of the feed that the page has.
        """
        outbox = Outbox(topics)
        with self._lock:
            if self._closing or len(self._outboxes) >= self._capacity:
                return None
            self._outboxes.add(outbox)
            self._greet(outbox)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="hub", daemon=True).start()
        if "feed" in outbox.topics:
            self._feed.admit(outbox, after)
        for watch in self._watches:
            if watch.topic in outbox.topics:
                watch.admit(outbox)
        return outbox

    def leave(self, outbox: Outbox) -> None:
        with self._lock:
            self._outboxes.discard(outbox)
        self._feed.leave(outbox)
        for watch in self._watches:
            watch.leave(outbox)

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
        ready = frame(message)
        with self._lock:
            self._latest[message.topic] = ready
            for outbox in self._outboxes:
                if message.topic in outbox.topics:
                    outbox.put(ready)

    def _complain(self, what: str, error: Exception) -> None:
        """Log a trouble when it is new, not four times a second."""
        if repr(error) != self._trouble:
            log.warning(what, exc_info=error)
        self._trouble = repr(error)
