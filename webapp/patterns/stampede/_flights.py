"""What threads of one process do for each other."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Flights:
    """One does it, the others who want the same wait. Share one object."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._under_way: dict[Hashable, Future[Any]] = {}

    def share(
        self, name: Hashable, do: Callable[[], T], *, wait_s: float
    ) -> tuple[T | None, bool]:
        """What `do` answers, and whether we did it; None: who does it is not done yet.

        Errors of `do` reach all who wait.
        """
        with self._mutex:
            flight = self._under_way.get(name)
            if leads := flight is None:
                flight = self._under_way[name] = Future()
        if not leads:
            with suppress(TimeoutError):
                return flight.result(wait_s), False
            return None, False
        try:
            flight.set_result(found := do())
            return found, True
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._mutex:
                del self._under_way[name]
