"""Bounds what reaches the database while Redis is away."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST_WAIT_S = 1.0


class DatabaseBusy(Exception):
    """Redis is away and the database has as many readers as it may have."""


@dataclass
class _Flight(Generic[T]):
    done: threading.Event = field(default_factory=threading.Event)
    value: T | None = None
    error: BaseException | None = None


class Flights(Generic[T]):
    """Single flight with a bound: few loads at once, and one for all who wait.

    A caller joins only a load that has not begun. One that has might have read the
    row before a write that the caller already knows of.
    """

    def __init__(self, most: int) -> None:
        self._slots = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._waiting: dict[int, _Flight[T]] = {}

    def run(self, name: int, load: Callable[[], T]) -> T:
        """Raises DatabaseBusy after a second without a free place."""
        with self._lock:
            flight = self._waiting.get(name)
            leads = flight is None
            if flight is None:
                flight = self._waiting[name] = _Flight()
        if leads:
            self._lead(name, flight, load)
        elif not flight.done.wait(2 * _LONGEST_WAIT_S):
            raise DatabaseBusy
        if flight.error is not None:
            raise flight.error
        return flight.value  # type: ignore[return-value]

    def _lead(self, name: int, flight: _Flight[T], load: Callable[[], T]) -> None:
        free = self._slots.acquire(timeout=_LONGEST_WAIT_S)
        with self._lock:
            del self._waiting[name]
        try:
            if not free:
                raise DatabaseBusy
            flight.value = load()
        except BaseException as error:  # handed to everyone who waits for this load
            flight.error = error
        finally:
            if free:
                self._slots.release()
            flight.done.set()
