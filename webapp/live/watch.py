"""A part of a page that changes by itself: looked at twice a second, for all alike."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from redis.exceptions import RedisError

from webapp.live.outbox import Message, Outbox, frame

_EVERY_S = 0.5

log = logging.getLogger(__name__)


class Watch:
    """Who looks at it, and the thread that looks for them while there is somebody.

    `look` answers a fragment for htmx; while Redis is away `stale` does, from the topic
    and the time of the last look. Both run in that thread, with neither app context nor
    request.
    """

    def __init__(
        self,
        topic: str,
        look: Callable[[], str],
        stale: Callable[[str, datetime | None], str],
    ) -> None:
        self.topic = topic
        self._look = look
        self._stale = stale
        self._looked_at: datetime | None = None
        self._told = ""
        self._lock = threading.Lock()
        self._outboxes: set[Outbox] = set()
        self._running = False
        self._trouble = ""

    def admit(self, outbox: Outbox) -> None:
        with self._lock:
            self._outboxes.add(outbox)
            self._told = ""
            if not self._running:
                self._running, self._looked_at = True, None
                run = threading.Thread(target=self._run, name=self.topic, daemon=True)
                run.start()

    def leave(self, outbox: Outbox) -> None:
        with self._lock:
            self._outboxes.discard(outbox)

    def _run(self) -> None:
        while self._is_wanted():
            began = time.monotonic()
            html = self._try()
            if html and html != self._told:
                self._tell(html)
            time.sleep(max(_EVERY_S - (time.monotonic() - began), _EVERY_S / 5))

    def _is_wanted(self) -> bool:
        with self._lock:
            self._running = bool(self._outboxes)
            return self._running

    def _try(self) -> str:
        try:
            html = self._look()
            self._looked_at = datetime.now(UTC)
        except RedisError:
            html = self._stale(self.topic, self._looked_at)
        except Exception as error:  # the next look may be better
            if repr(error) != self._trouble:
                log.exception("%s cannot be shown", self.topic)
            self._trouble = repr(error)
            return ""
        return "\n".join(line.strip() for line in html.splitlines())

    def _tell(self, html: str) -> None:
        ready = frame(Message(topic=self.topic, id=str(time.time_ns()), html=html))
        with self._lock:
            self._told = html
            for outbox in self._outboxes:
                outbox.put(ready)
