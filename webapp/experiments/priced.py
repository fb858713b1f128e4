"""What the experiments of the catalog share: one scratch row with a price, cached."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import redis

from webapp.experiments import Bench, Run, price
from webapp.patterns.cache_aside import CacheAside, Entry, Read
from webapp.shop import scratch

T = TypeVar("T")

OLD_CENTS, NEW_CENTS = 2499, 1999
_POLL_S = 0.025


@contextmanager
def row(bench: Bench, run: Run) -> Iterator[None]:
    """A scratch row with the old price, named after the run."""
    scratch.put_scratch(bench.engine, run.id, OLD_CENTS)
    try:
        yield
    finally:
        scratch.drop_scratch(bench.engine, run.id)


def entry(run: Run) -> Entry:
    """Fresh keys of one copy and its lease."""
    n = len(run.keys)
    return Entry(value=run.key(f"copy-{n}"), lease=run.key(f"lease-{n}"))


def read_price(bench: Bench, cache: CacheAside, entry: Entry, row: str) -> int | None:
    read = cache.read(
        bench.client,
        entry,
        load=lambda: scratch.scratch_price(bench.engine, row),
        encode=encode,
        decode=decode,
    )
    return answered(read)


def encode(cents: int) -> bytes:
    return b"%d" % cents


def decode(payload: bytes) -> int:
    return int(payload)


def shown(cents: int | None) -> str:
    return "nil" if cents is None else price(cents)


def answered(read: Read[T]) -> T | None:
    """Without Redis there is nothing to show. Raises redis.ConnectionError."""
    if read.outcome == "bypass":
        raise redis.ConnectionError("Redis did not answer during the experiment")
    return read.value


def until(done: Callable[[], bool], *, within_s: float) -> int:
    """Ask until it is done or the time is over; returns the µs that took."""
    began = time.perf_counter()
    while not done() and time.perf_counter() - began < within_s:
        time.sleep(_POLL_S)
    return round((time.perf_counter() - began) * 1e6)


@dataclass(frozen=True)
class Served:
    """The reads after an edit, up to the first with the right price."""

    reads: int
    wrong: int
    stale_us: int  # from the edit to the right price; 0 if no price was wrong


def read_until_right(read: Callable[[], int | None], *, within_s: float) -> Served:
    """Read again and again until the new price comes, or the time is over."""
    served: list[int | None] = []

    def is_right() -> bool:
        served.append(read())
        return served[-1] == NEW_CENTS

    waited_us = until(is_right, within_s=within_s)
    wrong = sum(cents != NEW_CENTS for cents in served)
    return Served(len(served), wrong, waited_us if wrong else 0)
