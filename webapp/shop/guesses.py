"""Tells when somebody asks for one id after the other that does not exist."""

import time
from collections import deque


class Guesses:
    """The last ids that led to no row: in this process, as times alone."""

    def __init__(self, most: int, *, within_s: float) -> None:
        self._within_s = within_s
        self._times: deque[float] = deque(maxlen=most)

    def note(self) -> None:
        self._times.append(time.monotonic())

    @property
    def are_many(self) -> bool:
        """Whether there were as many as may be, in so short a time."""
        if len(self._times) < (self._times.maxlen or 0):
            return False
        return time.monotonic() - self._times[0] < self._within_s
