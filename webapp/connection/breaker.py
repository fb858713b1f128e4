"""A breaker a role: one failure opens it, one answered PING closes it.

While it is open, calls fail at once, so an outage costs no request its deadline.
A thread of its own asks the server whether it is back; before the breaker closes
it runs `before_close`, so that what was missed is made good first.
"""

import logging
import random
import threading
import time
from collections.abc import Callable

import redis
from redis.exceptions import ConnectionError, RedisError

_PROBE_EVERY_S = 0.25

log = logging.getLogger(__name__)


class BreakerOpen(ConnectionError):
    """The server did not answer a moment ago, so it was not asked again."""


class Breaker:
    def __init__(self, role: str, prober: redis.Redis) -> None:
        self.role = role
        self.before_close: list[Callable[[redis.Redis], None]] = []
        self._prober = prober  # not guarded: it may ask while we are open
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._jitter = random.Random()  # so that workers do not march in step
        self._opened_at: float | None = None
        self._reason = ""

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @property
    def reason(self) -> str:
        """What the failure that opened it said; empty while it is closed."""
        return self._reason

    def require_closed(self) -> None:
        """Raises BreakerOpen while the server is known to be away."""
        if self._opened_at is not None:
            raise BreakerOpen(f"{self.role} is down, not asked: {self._reason}")

    def open(self, reason: str) -> None:
        with self._lock:
            if self._opened_at is not None:
                return
            self._opened_at, self._reason = time.monotonic(), reason
        log.warning("%s is down: %s", self.role, reason)
        threading.Thread(
            target=self._probe, name=f"probe-{self.role}", daemon=True
        ).start()

    def end(self) -> None:
        """Stop asking: the client is about to be closed."""
        self._ended.set()

    def _probe(self) -> None:
        """Ask until it answers."""
        while not self._is_back():
            if self._ended.wait(_PROBE_EVERY_S * self._jitter.uniform(0.7, 1.3)):
                return
        with self._lock:
            away_s = time.monotonic() - (self._opened_at or 0)
            self._opened_at, self._reason = None, ""
        log.warning("%s is back after %.1f s", self.role, away_s)
        self._is_back()  # a write may have come between the replay and the close

    def _is_back(self) -> bool:
        """Whether it answers, and what it missed was made good."""
        try:
            self._prober.ping()
            for callback in self.before_close:
                callback(self._prober)
        except RedisError:
            return False
        except Exception:
            log.exception(
                "%s is back, but the replay of what it missed failed", self.role
            )
            return False
        return True
