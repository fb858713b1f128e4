"""An end for jobs that hang. Only in the main thread, where signals arrive."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(Exception):
    """A job that was not done in time."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the block once so much time has passed."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"not done in {seconds} s")

    handler = signal.signal(signal.SIGALRM, ring)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s)
        signal.signal(signal.SIGALRM, handler)


def hurry(seconds: float) -> None:
    """Let the block that is running, if there is one, end sooner."""
    left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    if left_s > seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
