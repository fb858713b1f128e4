"""Break write-through: two ways to keep an older value, each beside the right one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import redis

from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Row,
    Run,
    compare,
    duration,
    price,
    priced,
    running,
)
from webapp.experiments.priced import NEW_CENTS, Served
from webapp.patterns.cache_aside import CacheAside, Entry
from webapp.patterns.write_through import WriteThrough, Written
from webapp.shop import scratch

_FIRST_CENTS = 2199  # what the first of two writers sets
_TTL_MS = 10_000
_REPLAY_AFTER_MS = 100  # here; the app looks for records once a second
_CACHE = CacheAside(ttl_ms=_TTL_MS)
_THROUGH = WriteThrough(_CACHE)
_SAID: dict[Written, str] = {
    "stored": "1, stored",
    "newer": "0, a newer one stays",
    "absent": "-1, nothing to compare with",
}


class Priced(msgspec.Struct, frozen=True):
    price_cents: int
    version: int


# Race two writers


def store_last(client: redis.Redis, entry: Entry, row: Priced) -> None:
    # Race: writer A commits version 2 (1), writer B commits version 3 (2) and stores
    # it (3), and only then does this line of A run (4). The older price is in Redis
    # until its TTL ends.
    client.set(entry.value, msgspec.json.encode(row), px=_TTL_MS)


def store_newest(client: redis.Redis, entry: Entry, row: Priced) -> Written:
    # B's version 3 is there (3), so A's version 2 (4) changes nothing. Were B's value
    # evicted, A could not know, and would store nothing either.
    payload = msgspec.json.encode(row)
    return _THROUGH.write(client, entry, version=row.version, payload=payload)


def run_two_writers(bench: Bench, *, evicted: int) -> Outcome:
    with running(bench, "writers") as run:
        with priced.row(bench, run):
            title = "Last write stays"
            last, broken = _race(bench, run, evicted, title, store_last, _done)
        with priced.row(bench, run):
            newest, fixed = _race(
                bench,
                run,
                evicted,
                "Newest version stays",
                store_newest,
                _SAID.__getitem__,
            )
    return Outcome(
        rows=[
            Row("Price in the database", price(NEW_CENTS), "ok"),
            Row("Served, last write stays", priced.shown(broken), last.tone),
            Row("Served, newest version stays", priced.shown(fixed), newest.tone),
        ],
        summary=f"Readers get {priced.shown(broken)} after the price became "
        f"{price(NEW_CENTS)}. With versions: {priced.shown(fixed)}.",
        tone="no" if broken != NEW_CENTS else "ok",
        verdict="older value" if broken != NEW_CENTS else "newest value",
        recordings=run.recordings,
        lanes=[last, newest],
    )


def _race(
    bench: Bench,
    run: Run,
    evicted: int,
    title: str,
    store: Callable[[redis.Redis, Entry, Priced], object],
    said: Callable[[Any], str],
) -> tuple[Lane, int | None]:
    """The lane, and the price that a reader gets afterwards."""
    client, entry, replay = bench.client, priced.entry(run), Replay(run)

    def commit(cents: int) -> Priced:
        scratch.set_scratch_price(bench.engine, run.id, cents)
        return Priced(*scratch.scratch_row(bench.engine, run.id))

    def put(row: Priced) -> object:
        return store(client, entry, row)

    def read() -> int | None:
        return _read(bench, entry, run.id)

    replay.step("Anyone", "reads, and leaves a copy", read, shown=priced.shown)
    first = replay.step(
        "Writer A", "commits", lambda: commit(_FIRST_CENTS), shown=_version
    )
    second = replay.step(
        "Writer B", "commits", lambda: commit(NEW_CENTS), shown=_version
    )
    replay.step("Writer B", "stores what it wrote", lambda: put(second), shown=said)
    if evicted:
        replay.step("Redis", "evicts the copy", lambda: client.delete(entry.value))
    replay.step("Writer A", "stores what it wrote", lambda: put(first), shown=said)
    served = replay.step(
        "Anyone",
        "reads the price",
        read,
        shown=priced.shown,
        tone=lambda cents: "ok" if cents == NEW_CENTS else "no",
    )
    return replay.lane(title), served


def _told(written: Any) -> str:
    return _SAID[written]


def _done(_: object) -> str:
    return "OK"


def _version(row: Priced) -> str:
    return f"{price(row.price_cents)}, version {row.version}"


def _read(bench: Bench, entry: Entry, row: str) -> int | None:
    read = _CACHE.read(
        bench.client,
        entry,
        load=lambda: Priced(*scratch.scratch_row(bench.engine, row)),
        encode=msgspec.json.encode,
        decode=lambda payload: msgspec.json.decode(payload, type=Priced),
    )
    found = priced.answered(read)
    return None if found is None else found.price_cents


# Crash between database and cache


class Died(Exception):
    """The writer's process is gone; nothing after this line of it runs."""


def edit_and_die(bench: Bench, row: str) -> None:
    # Flaw: nobody but this writer knew that the copy is old, and it is gone.
    scratch.set_scratch_price(bench.engine, row, NEW_CENTS)
    raise Died


def edit_recorded_and_die(bench: Bench, row: str) -> None:
    scratch.set_scratch_price_recorded(bench.engine, row, NEW_CENTS)
    raise Died


def replay_record(bench: Bench, row: str, entry: Entry) -> None:
    """Delete what the record names, then clear it: always safe, also twice."""
    if scratch.is_recorded(bench.engine, row):
        _CACHE.invalidate(bench.client, entry)
        scratch.clear_record(bench.engine, row)


def run_crash(bench: Bench, *, ttl_ms: int) -> Outcome:
    with running(bench, "crash") as run:
        with _recorded_row(bench, run), run.recording("Die after the commit") as lost:
            broken = _die_and_read(bench, run, edit_and_die, ttl_ms)
        with _recorded_row(bench, run), run.recording("Die with a record") as kept:
            fixed = _die_and_read(bench, run, edit_recorded_and_die, ttl_ms)
    sides = "no record", "outbox record"
    stale_us, wrong = (broken.stale_us, fixed.stale_us), (broken.wrong, fixed.wrong)
    lost.verdict = ("no", "stale") if broken.wrong else ("ok", "fresh")
    kept.verdict = "ok", "replayed"
    return Outcome(
        rows=[
            *compare("Stale", sides, stale_us, shown=duration, most=ttl_ms * 1000),
            *compare("Wrong prices", sides, wrong, most=broken.reads),
        ],
        summary=f"The old price is served for {duration(broken.stale_us)}. With a "
        f"record, replayed after {_REPLAY_AFTER_MS}\u00a0ms: "
        f"{duration(fixed.stale_us)}.",
        tone="no" if broken.stale_us > fixed.stale_us else "ok",
        verdict="stale",
        recordings=run.recordings,
    )


def _die_and_read(
    bench: Bench, run: Run, edit: Callable[[Bench, str], None], ttl_ms: int
) -> Served:
    """Cache the old price, die in an edit, and read until the price is right."""
    cache, entry = CacheAside(ttl_ms=ttl_ms, jitter=0.0), priced.entry(run)
    priced.read_price(bench, cache, entry, run.id)
    with suppress(Died):
        edit(bench, run.id)
    died = time.perf_counter()

    def read() -> int | None:
        if time.perf_counter() - died > _REPLAY_AFTER_MS / 1000:
            replay_record(bench, run.id, entry)
        return priced.read_price(bench, cache, entry, run.id)

    return priced.read_until_right(read, within_s=ttl_ms / 1000 + 0.3)


@contextmanager
def _recorded_row(bench: Bench, run: Run) -> Iterator[None]:
    try:
        with priced.row(bench, run):
            yield
    finally:
        scratch.clear_record(bench.engine, run.id)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="crash",
        title="Crash between database and cache",
        hypothesis="The copy keeps the old price, and nobody knows but its TTL.",
        controls=(
            Control(
                "ttl_ms",
                "TTL",
                "range",
                min=200,
                max=2000,
                step=100,
                value=600,
                unit="ms",
            ),
        ),
        run=run_crash,
    ),
    Experiment(
        name="two-writers",
        title="Race two writers",
        hypothesis="The writer that commits first stores last, and its value stays.",
        controls=(
            Control(
                "evicted",
                "Evict the copy in between",
                "switch",
                min=0,
                max=1,
                step=1,
                value=0,
            ),
        ),
        run=run_two_writers,
        replayed=True,
    ),
)
