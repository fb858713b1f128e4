"""Break cache-aside: five ways to get it wrong, each run beside the right one."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

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
from webapp.patterns.cache_aside import CacheAside, Entry, Fetched
from webapp.shop import queries, scratch

T = TypeVar("T")

_SALE_CENTS = 1000  # a cheaper product has a badge
_VALUE = b"x" * 32  # small, so that a pipeline of them is one packet
_TTL_MS = 10_000
_SHORT_TTL_MS = 300  # of values whose end is waited for
_CACHE = CacheAside(ttl_ms=_TTL_MS, missing_ttl_ms=_TTL_MS)


# Read without a cache


def read_uncached(bench: Bench) -> queries.ProductPage | None:
    # Flaw: the same question was answered a moment ago, and is paid for again.
    return queries.product(bench.engine, bench.product_id)


def read_cached(bench: Bench, entry: Entry) -> queries.ProductPage | None:
    read = _CACHE.read(
        bench.client,
        entry,
        load=lambda: queries.product(bench.engine, bench.product_id),
        encode=msgspec.json.encode,
        decode=lambda payload: msgspec.json.decode(payload, type=queries.ProductPage),
    )
    return priced.answered(read)


def run_no_cache(bench: Bench, *, reads: int) -> Outcome:
    with running(bench, "no-cache") as run:
        entry = priced.entry(run)
        with run.recording("Read without a cache") as bare:
            slow_us = _repeat(lambda: read_uncached(bench), reads, within_s=1.6)
        with run.recording("Read with a cache") as cached:
            quick_us = _repeat(
                lambda: read_cached(bench, entry), len(slow_us), within_s=0.7
            )
    bare.verdict, cached.verdict = ("no", "no cache"), ("ok", "cache-aside")
    asked = len(bare.sql), len(cached.sql)
    sides = f"{len(slow_us)} reads without", f"{len(quick_us)} reads with"
    means_us = sum(slow_us) // len(slow_us), sum(quick_us) // len(quick_us)
    return Outcome(
        rows=[
            *compare("Queries", sides, asked),
            *compare("Mean time", sides, means_us, shown=duration),
        ],
        summary=f"{sides[0]}: {asked[0]} queries, {duration(sum(slow_us))}. "
        f"{sides[1]}: {asked[1]}, {duration(sum(quick_us))}.",
        tone="no" if asked[0] > asked[1] else "ok",
        verdict="no cache",
        recordings=run.recordings,
    )


# Write without a TTL


def write_without_ttl(client: redis.Redis, keys: Sequence[str]) -> None:
    # Flaw: nothing ends these values. One that nobody reads again keeps its memory,
    # and one that somebody forgot to invalidate is wrong for ever.
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.set(key, _VALUE)
        pipeline.execute()


def write_with_ttl(client: redis.Redis, keys: Sequence[str]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.set(key, _VALUE, px=_SHORT_TTL_MS)
        pipeline.execute()


def run_no_ttl(bench: Bench, *, values: int) -> Outcome:
    client = bench.client
    with running(bench, "no-ttl") as run:
        plain = [run.key(f"plain-{n}") for n in range(values)]
        ending = [run.key(f"ending-{n}") for n in range(values)]
        with run.recording(f"SET {values} values") as forgot:
            write_without_ttl(client, plain)
            plain_expiry = _expiry(client.pttl(plain[0]))
        with run.recording(f"SET {values} values with PX") as told:
            write_with_ttl(client, ending)
            ending_expiry = _expiry(client.pttl(ending[0]))
        with run.recording("Wait for the TTL"):
            waited_us = priced.until(lambda: client.exists(*ending) == 0, within_s=0.9)
            kept, left = int(client.exists(*plain)), int(client.exists(*ending))
            memory = _memory(client, plain)
    forgot.verdict, told.verdict = ("no", plain_expiry), ("ok", ending_expiry)
    return Outcome(
        rows=[
            Row("Expiry, SET", plain_expiry, "no"),
            Row("Expiry, SET PX", ending_expiry, "ok"),
            *compare("Left", ("SET", "SET PX"), (kept, left), most=values),
            Row("Memory they keep", memory, "no"),
        ],
        summary=f"{kept} values have no expiry. {values - left} with a TTL are gone "
        f"after {duration(waited_us)}.",
        tone="no" if kept else "ok",
        verdict="no expiry",
        recordings=run.recordings,
    )


def _expiry(pttl: int) -> str:
    """A reply of PTTL in words."""
    return "no expiry" if pttl == -1 else duration(max(pttl, 0) * 1000)


def _memory(client: redis.Redis, keys: Sequence[str]) -> str:
    """What Redis says the keys take. fakeredis cannot say."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key)
        sizes = pipeline.execute(raise_on_error=False)
    if any(isinstance(size, redis.ResponseError) for size in sizes):
        return "not known here"
    return f"{sum(size or 0 for size in sizes):,}\u00a0B"


# Edit and forget the cache


def edit_and_forget(bench: Bench, row: str, entry: Entry) -> None:
    # Flaw: the copy in Redis keeps the old price, and only its TTL ends that.
    scratch.set_scratch_price(bench.engine, row, NEW_CENTS)


def edit_and_invalidate(bench: Bench, row: str, entry: Entry) -> None:
    scratch.set_scratch_price(bench.engine, row, NEW_CENTS)
    _CACHE.invalidate(bench.client, entry)


def run_forgotten_edit(bench: Bench, *, ttl_ms: int) -> Outcome:
    with running(bench, "edit") as run:
        with (
            priced.row(bench, run),
            run.recording("Edit and forget the cache") as forgot,
        ):
            broken = _edit_and_read(bench, run, edit_and_forget, ttl_ms)
        with priced.row(bench, run), run.recording("Edit and invalidate") as told:
            fixed = _edit_and_read(bench, run, edit_and_invalidate, ttl_ms)
    sides = "forgotten", "invalidated"
    stale_us, wrong = (broken.stale_us, fixed.stale_us), (broken.wrong, fixed.wrong)
    for own, count in zip((forgot, told), wrong, strict=True):
        own.verdict = ("no", "stale") if count else ("ok", "fresh")
    return Outcome(
        rows=[
            *compare("Stale", sides, stale_us, shown=duration, most=ttl_ms * 1000),
            *compare("Wrong prices", sides, wrong, most=broken.reads),
        ],
        summary=f"{broken.wrong} of {broken.reads} reads got the old price, for "
        f"{duration(broken.stale_us)}. With invalidation: {fixed.wrong}.",
        tone="no" if broken.wrong else "ok",
        verdict="stale" if broken.wrong else "fresh",
        recordings=run.recordings,
    )


def _edit_and_read(
    bench: Bench, run: Run, edit: Callable[[Bench, str, Entry], None], ttl_ms: int
) -> Served:
    """Cache the old price, edit, and read until the price is right."""
    cache = CacheAside(ttl_ms=ttl_ms, jitter=0.0)
    entry = priced.entry(run)

    def read() -> int | None:
        return priced.read_price(bench, cache, entry, run.id)

    read()
    edit(bench, run.id, entry)
    return priced.read_until_right(read, within_s=ttl_ms / 1000 + 0.3)


# Race a reader against a writer


def store_whatever_was_read(client: redis.Redis, key: str, cents: int) -> None:
    # Race: the reader misses (1) and selects the old price (2), the writer updates
    # the row (3) and deletes the copy (4), and only then does this line run (5).
    # The old price is in Redis again, and nobody is left to delete it.
    client.set(key, cents, px=_TTL_MS)


def store_with_lease(
    client: redis.Redis, entry: Entry, cents: int, fetched: Fetched
) -> bool:
    # The writer's DEL (4) took the lease as well, so this store (5) is refused.
    return _CACHE.store(
        client, entry, lease=fetched.lease or b"", payload=priced.encode(cents)
    )


def run_stale_set(bench: Bench) -> Outcome:
    with running(bench, "stale") as run:
        with priced.row(bench, run):
            unguarded, broken = _race_without_lease(bench, run)
        with priced.row(bench, run):
            guarded, fixed = _race_with_lease(bench, run)
    return Outcome(
        rows=[
            Row("Price in the database", price(NEW_CENTS), "ok"),
            Row("Served without a lease", priced.shown(broken), unguarded.tone),
            Row("Served with a lease", priced.shown(fixed), guarded.tone),
        ],
        summary=f"Without a lease readers get {priced.shown(broken)} after the edit to "
        f"{price(NEW_CENTS)}. With a lease: {priced.shown(fixed)}.",
        tone="no" if broken != NEW_CENTS else "ok",
        verdict="stale set" if broken != NEW_CENTS else "fresh",
        recordings=run.recordings,
        lanes=[unguarded, guarded],
    )


def _race_without_lease(bench: Bench, run: Run) -> tuple[Lane, int | None]:
    """The lane, and the price that a reader gets afterwards."""
    client, key, replay = bench.client, run.key("copy"), Replay(run)

    def cached() -> int | None:
        copy = client.get(key)
        return None if copy is None else int(copy)

    replay.step("Reader", "looks for a copy", cached, shown=priced.shown)
    old = _reader_selects(bench, run, replay)
    _writer_updates(bench, run, replay)
    replay.step("Writer", "deletes the copy", lambda: client.delete(key))
    replay.step(
        "Reader",
        "stores the price it read",
        lambda: store_whatever_was_read(client, key, old),
        tone=lambda _: "no",
    )
    served = replay.step(
        "Anyone",
        "reads the price",
        cached,
        shown=priced.shown,
        tone=lambda cents: "ok" if cents == NEW_CENTS else "no",
    )
    return replay.lane("Without a lease"), served


def _race_with_lease(bench: Bench, run: Run) -> tuple[Lane, int | None]:
    """The same schedule through the pattern."""
    client, entry, replay = bench.client, priced.entry(run), Replay(run)
    fetched = replay.step(
        "Reader",
        "looks for a copy, and gets a lease",
        lambda: _CACHE.fetch(client, entry),
        shown=lambda fetched: f"lease {(fetched.lease or b'none').decode()}",
    )
    old = _reader_selects(bench, run, replay)
    _writer_updates(bench, run, replay)
    replay.step(
        "Writer",
        "deletes copy and lease",
        lambda: _CACHE.invalidate(client, entry),
    )
    replay.step(
        "Reader",
        "wants to store the price it read",
        lambda: store_with_lease(client, entry, old, fetched),
        shown=lambda stored: "1, stored" if stored else "0, refused",
        tone=lambda stored: "no" if stored else "wait",
    )
    served = replay.step(
        "Anyone",
        "reads the price",
        lambda: priced.read_price(bench, _CACHE, entry, run.id),
        shown=priced.shown,
        tone=lambda cents: "ok" if cents == NEW_CENTS else "no",
    )
    return replay.lane("With a lease"), served


def _reader_selects(bench: Bench, run: Run, replay: Replay) -> int:
    cents = replay.step(
        "Reader",
        "reads the row",
        lambda: scratch.scratch_price(bench.engine, run.id),
        shown=priced.shown,
    )
    return cents or 0


def _writer_updates(bench: Bench, run: Run, replay: Replay) -> None:
    replay.step(
        "Writer",
        "commits a new price",
        lambda: scratch.set_scratch_price(bench.engine, run.id, NEW_CENTS),
    )


# Cache an empty value


def read_if_true(
    client: redis.Redis, key: str, load: Callable[[], bytes | None]
) -> bytes | str | None:
    cached = client.get(key)
    if cached:  # Flaw: b"" is cached but not true, so it is loaded every time.
        return cached
    value = load()
    if value is not None:  # Flaw: that there is no such row is not kept at all.
        client.set(key, value, px=_TTL_MS)
    return value


def read_if_not_none(
    client: redis.Redis, entry: Entry, load: Callable[[], bytes | None]
) -> bytes | None:
    return priced.answered(
        _CACHE.read(client, entry, load=load, encode=bytes, decode=bytes)
    )


def run_empty_value(bench: Bench, *, reads: int, missing: int) -> Outcome:
    client = bench.client
    with running(bench, "empty") as run:
        key, entry = run.key("badge"), priced.entry(run)

        def badge() -> bytes | None:
            """The product's badge, empty for most; None if there is no product."""
            cents = scratch.scratch_price(bench.engine, run.id)
            if cents is None:
                return None
            return b"Sale" if cents < _SALE_CENTS else b""

        with priced.row(bench, run):
            if missing:
                scratch.drop_scratch(bench.engine, run.id)
            with run.recording("Read with if cached") as by_truth:
                turns = _repeat(
                    lambda: read_if_true(client, key, badge), reads, within_s=1.1
                )
            with run.recording("Read with is not None") as by_none:
                _repeat(
                    lambda: read_if_not_none(client, entry, badge),
                    len(turns),
                    within_s=1.1,
                )
    asked = len(by_truth.sql), len(by_none.sql)
    by_truth.verdict = "no", "asked again"
    by_none.verdict = "ok", "cached"
    what = "missing row" if missing else "empty value"
    return Outcome(
        rows=compare("Queries", ("if cached", "is not None"), asked, most=len(turns)),
        summary=f"{asked[0]} queries for {len(turns)} reads of one {what}. "
        f"With is not None: {asked[1]}.",
        tone="no" if asked[0] > asked[1] else "ok",
        verdict="not cached",
        recordings=run.recordings,
    )


def _repeat(do: Callable[[], object], times: int, *, within_s: float) -> list[int]:
    """The µs of each turn, at least of one; fewer turns where they take too long."""
    took_us: list[int] = []
    while len(took_us) < times and sum(took_us) < within_s * 1e6:
        began = time.perf_counter()
        do()
        took_us.append(round((time.perf_counter() - began) * 1e6))
    return took_us


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="no-cache",
        title="Read without a cache",
        hypothesis="Every reader pays for the same slow query again.",
        controls=(Control("reads", "Reads", "range", min=5, max=40, step=5, value=10),),
        run=run_no_cache,
    ),
    Experiment(
        name="no-ttl",
        title="Write without a TTL",
        hypothesis="Values nobody reads again keep their memory for ever.",
        controls=(
            Control("values", "Values", "range", min=5, max=40, step=5, value=20),
        ),
        run=run_no_ttl,
    ),
    Experiment(
        name="forgotten-edit",
        title="Edit and forget the cache",
        hypothesis="Readers get the old price until the TTL of its copy ends.",
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
        run=run_forgotten_edit,
    ),
    Experiment(
        name="empty-value",
        title="Cache an empty value",
        hypothesis="A cached empty value is taken for a miss, on every read.",
        controls=(
            Control("reads", "Reads", "range", min=5, max=40, step=5, value=10),
            Control(
                "missing", "Row is missing", "switch", min=0, max=1, step=1, value=0
            ),
        ),
        run=run_empty_value,
    ),
    Experiment(
        name="stale-set",
        title="Race a reader against a writer",
        hypothesis="A slow reader stores the old price after the writer deleted it.",
        controls=(),
        run=run_stale_set,
        replayed=True,
    ),
)
