"""One deadline for all Redis calls of a request, however many it makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

from redis.exceptions import TimeoutError

_LEAST_S = 0.001  # a socket timeout of 0 would mean non-blocking


class BudgetSpent(TimeoutError):
    """The request took its time; the server is not to blame."""


@dataclass(slots=True)
class Budget:
    """Seconds that Redis calls may still take; the fader's waits do not count."""

    left_s: float
    _charged_to: float = 0.0  # on the clock of perf_counter

    def require(self) -> None:
        """Raises BudgetSpent, a redis.TimeoutError, if nothing is left."""
        if self.left_s <= 0:
            raise BudgetSpent("the request's time for Redis calls is used up")

    def timeout(self, most_s: float | None) -> float:
        left = max(self.left_s, _LEAST_S)
        return left if most_s is None else min(left, most_s)

    def charge(self, since: float) -> None:
        """Take off the time from then on, once for all who wait beside each other.

        Several nodes of a Cluster, or several threads, are asked at once.
        """
        now = perf_counter()
        self.left_s -= max(0.0, now - max(since, self._charged_to))
        self._charged_to = now


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current() -> Budget | None:
    return _current.get()


@contextmanager
def limited_to(seconds: float) -> Iterator[Budget]:
    token = _current.set(Budget(seconds))
    try:
        yield _current.get()  # type: ignore[misc]
    finally:
        _current.reset(token)
