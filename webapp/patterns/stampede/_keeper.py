"""Looks after the locks of loads that take long."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_BEAT_S = 0.05  # how often a lock is looked after


class Keeper:
    """Does something for each load that takes long: in one thread for all of them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._kept: dict[object, tuple[float, float, Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, extend: Callable[[], None], *, every_s: float) -> Iterator[None]:
        """Call `extend` again and again while the block runs, on the caller's tape."""
        run, own = contextvars.copy_context().run, object()
        with self._mutex:
            due = time.monotonic() + every_s
            self._kept[own] = due, every_s, lambda: run(extend)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._mutex:
                del self._kept[own]

    def _run(self) -> None:
        while True:
            time.sleep(_BEAT_S)
            for extend in self._due():
                extend()
            with self._mutex:
                if not self._kept:
                    self._thread = None
                    return

    def _due(self) -> list[Callable[[], None]]:
        now = time.monotonic()
        with self._mutex:
            due = [own for own, (at, _, _) in self._kept.items() if at <= now]
            for own in due:
                _, every_s, extend = self._kept[own]
                self._kept[own] = now + every_s, every_s, extend
            return [self._kept[own][2] for own in due]
