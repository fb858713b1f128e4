"""The lab of rate limits: each request is put to both algorithms, on scratch keys.

What was said to it is kept in a stream, whose ids are the server's time; the lanes
are drawn from that alone.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from webapp import keys
from webapp.patterns.rate_limiter import Decision
from webapp.patterns.rate_limiter.fixed_window import FixedWindow
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog

Shape = Literal["steady", "edge", "spike"]

LIMITS = range(5, 41, 5)
WINDOWS_MS = range(1_000, 2_001, 500)
SHAPES: dict[Shape, str] = {"steady": "Steady", "edge": "Window edge", "spike": "Spike"}
WINDOWS_SHOWN = 2.4  # how many windows a run takes

_RUN = re.compile(r"[0-9a-f]{6}-([0-9]{1,2})-([0-9]{4})")
_MOST_REQUESTS = 400  # that a run keeps
_KEPT_MS = 10 * 60_000


class BadRun(ValueError):
    """Not the name of a run, or one with a limit or window out of bounds."""


@dataclass(frozen=True)
class Run:
    """One run; its name carries the limit and the window it was made with."""

    name: str  # "3f09ab-20-2000"
    limit: int
    window_ms: int

    @property
    def duration_ms(self) -> int:
        return round(self.window_ms * WINDOWS_SHOWN)


@dataclass(frozen=True)
class Answered:
    """One request, and what each algorithm said to it."""

    at_ms: int  # after the first of its run, by the server's clock
    fixed: bool
    log: bool


@dataclass(frozen=True)
class Names:
    fixed: str
    log: str
    answers: str


def new_run(limit: int, window_ms: int) -> Run:
    """Raises BadRun."""
    return parse_run(f"{secrets.token_hex(3)}-{limit}-{window_ms}")


def parse_run(text: str) -> Run:
    """Raises BadRun."""
    found = _RUN.fullmatch(text)
    if found is None:
        raise BadRun("run: not the name of a run.")
    limit, window_ms = int(found[1]), int(found[2])
    if limit not in LIMITS or window_ms not in WINDOWS_MS:
        raise BadRun("run: its limit or its window is out of bounds.")
    return Run(text, limit, window_ms)


def names(namespace: str, run: Run) -> Names:
    return Names(
        fixed=keys.key(namespace, keys.LIMITS_LAB, run.name, "fixed"),
        log=keys.key(namespace, keys.LIMITS_LAB_LOG, run.name, "log"),
        answers=keys.key(namespace, keys.LIMITS_RUN, run.name),
    )


def plan(shape: Shape, run: Run) -> list[int]:
    """When to send, in ms after the answer to the first request, which is not in it.

    That first request opens the fixed window, so its end is known: `window_ms` later.
    """
    limit, window = run.limit, run.window_ms
    if shape == "steady":
        count = round(limit * 1.5 * WINDOWS_SHOWN)
        return [run.duration_ms * n // count for n in range(1, count)]
    quiet = [run.duration_ms * n // 8 for n in range(1, 8)]
    if shape == "spike":
        return sorted(quiet + _burst(window * 6 // 10, 2 * limit, window // 4))
    before = _burst(window * 70 // 100, limit, window // 5)
    after = _burst(window + 60, limit, window // 5)
    return sorted(before + after + [window * 18 // 10, window * 22 // 10])


def _burst(start_ms: int, count: int, lasts_ms: int) -> list[int]:
    return [start_ms + lasts_ms * n // count for n in range(count)]


def send(client: redis.Redis, namespace: str, run: Run) -> tuple[Decision, Decision]:
    """Put one request to the fixed window and to the log, and keep what they said."""
    own = names(namespace, run)
    fixed = FixedWindow(run.limit, run.window_ms).decide(client, own.fixed)
    log = SlidingWindowLog(run.limit, run.window_ms).decide(client, own.log)
    said: dict[str | bytes, int] = {"fixed": fixed.allowed, "log": log.allowed}
    with client.pipeline(transaction=True) as multi:
        multi.xadd(
            own.answers,
            {field: int(allowed) for field, allowed in said.items()},
            maxlen=_MOST_REQUESTS,
            approximate=False,
        )
        multi.pexpire(own.answers, _KEPT_MS)
        multi.execute()
    return fixed, log


def answers(client: redis.Redis, namespace: str, run: Run) -> list[Answered]:
    """All requests of a run in the order they were answered (one round trip)."""
    entries: Any = client.xrange(names(namespace, run).answers)
    times = [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]
    return [
        Answered(at - times[0], fields[b"fixed"] == b"1", fields[b"log"] == b"1")
        for at, (_, fields) in zip(times, entries, strict=True)
    ]


def most_within(times_ms: Sequence[int], window_ms: int) -> int:
    """The largest number of times that any window of that length holds."""
    most = first = 0
    for last, at in enumerate(times_ms):
        while times_ms[first] <= at - window_ms:
            first += 1
        most = max(most, last - first + 1)
    return most
