"""Break stampede protection: have none, or one that holds in one place only."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import redis

from webapp.connection import recorder
from webapp.connection.budget import limited_to
from webapp.connection.recorder import Recording
from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Outcome,
    Run,
    compare,
    duration,
    priced,
    running,
)
from webapp.experiments.stampede_lab import crowd_client, entry
from webapp.patterns.distributed_lock import DistributedLock
from webapp.patterns.stampede import MISSING, Entry, Load, Method, Read
from webapp.patterns.stampede.locked_flight import LockedFlight
from webapp.patterns.stampede.single_flight import SingleFlight
from webapp.patterns.stampede.unprotected import Unprotected
from webapp.shop import scratch

_TTL_MS = 10_000
_PATIENCE_MS = 8_000  # nobody gives up because the machine is busy
_DEADLINE_S = 10.0
_DEAD_MS = 250  # what the lock of the killed one has left
_GIVE_UP_MS = 500  # who waits for a lock that never ends
_LOCK = DistributedLock(ttl_ms=_PATIENCE_MS, keep_ms=_TTL_MS)
_LOCKED = LockedFlight(_TTL_MS, _PATIENCE_MS, _LOCK)


@dataclass(frozen=True)
class Crowd:
    """What some readers did who came together."""

    loads: int
    longest_us: int  # that one of them took


def read_together(
    run: Run,
    title: str,
    methods: Sequence[Method],
    client: redis.Redis,
    names: Entry,
    load: Load,
) -> Crowd:
    """One reader a method; on the tape is the first of them."""
    doors = threading.Barrier(len(methods))

    def read_one(n: int) -> tuple[int, int]:
        own = Recording(f"{title}: reader {n + 1} of {len(methods)}")
        if n == 0:
            run.recordings.append(own)
        doors.wait(_DEADLINE_S)
        with recorder.recording(own), limited_to(_DEADLINE_S):
            methods[n].read(client, names, load=load)
        own.verdict = ("wait", "loads") if own.sql else ("ok", "does not load")
        return len(own.sql), own.now_us()

    with ThreadPoolExecutor(len(methods)) as pool:
        done = list(pool.map(read_one, range(len(methods))))
    return Crowd(sum(loads for loads, _ in done), max(us for _, us in done))


def price_of(bench: Bench, run: Run) -> bytes:
    """The load: a real query for the run's own row."""
    cents = scratch.scratch_price(bench.engine, run.id)
    return MISSING if cents is None else priced.encode(cents)


def after(wait_for: Callable[[], object], load: Load) -> Load:
    """A load that is as slow as what it waits for."""

    def slow() -> bytes:
        with suppress(threading.BrokenBarrierError):
            wait_for()
        return load()

    return slow


def everyone(count: int) -> Callable[[], object]:
    """Returns when so many are loading: none of them has stored yet."""
    barrier = threading.Barrier(count)
    return lambda: barrier.wait(_DEADLINE_S)


# Let a popular key end


def run_cold_key(bench: Bench, *, readers: int) -> Outcome:
    """Everyone misses before anyone has loaded, as with a load that takes a while."""
    with (
        running(bench, "cold") as run,
        priced.row(bench, run),
        crowd_client(bench, readers) as client,
    ):

        def load() -> bytes:
            return price_of(bench, run)

        # Flaw: what all of them miss, each of them loads.
        bare = read_together(
            run,
            "No protection",
            [Unprotected(_TTL_MS)] * readers,
            client,
            entry(run, "bare"),
            after(everyone(readers), load),
        )
        locked = read_together(
            run, "Lock", [_LOCKED] * readers, client, entry(run, "locked"), load
        )
    loads = bare.loads, locked.loads
    return Outcome(
        rows=compare("Loads", ("no protection", "lock"), loads, most=readers),
        summary=f"{readers} readers of one key that has just ended: {loads[0]} loads "
        f"without protection, {loads[1]} under the lock.",
        tone="no" if loads[0] > loads[1] else "ok",
        verdict=f"{loads[0]} loads",
        recordings=run.recordings,
    )


# Protect one process only


def run_processes(bench: Bench, *, processes: int) -> Outcome:
    """Each reader has a flight of its own, as the first of each process has."""
    with (
        running(bench, "processes") as run,
        priced.row(bench, run),
        crowd_client(bench, processes) as client,
    ):

        def load() -> bytes:
            return price_of(bench, run)

        # Flaw: the other processes do not know this dictionary of flights.
        apart = read_together(
            run,
            "Single flight",
            [SingleFlight(_TTL_MS, _PATIENCE_MS) for _ in range(processes)],
            client,
            entry(run, "apart"),
            after(everyone(processes), load),
        )
        locked = read_together(
            run,
            "Lock",
            [LockedFlight(_TTL_MS, _PATIENCE_MS, _LOCK) for _ in range(processes)],
            client,
            entry(run, "locked"),
            load,
        )
    loads = apart.loads, locked.loads
    sides = "a flight in each process", "one lock"
    return Outcome(
        rows=compare("Loads", sides, loads, most=processes),
        summary=f"{processes} processes with a flight each: {loads[0]} loads. With one "
        f"lock in Redis: {loads[1]}.",
        tone="no" if loads[0] > loads[1] else "ok",
        verdict=f"{loads[0]} loads",
        recordings=run.recordings,
    )


# Kill the one who loads


def run_killed(bench: Bench, *, readers: int) -> Outcome:
    """The lock is left as a process leaves it that was killed while it loaded."""
    give_up = LockedFlight(_TTL_MS, _GIVE_UP_MS, _LOCK)
    with (
        running(bench, "killed") as run,
        priced.row(bench, run),
        crowd_client(bench, readers) as client,
    ):

        def load() -> bytes:
            return price_of(bench, run)

        eternal, ending = entry(run, "eternal"), entry(run, "ending")
        with run.recording("A loader takes a lock without a TTL, and is killed"):
            # Flaw: nobody but its holder can end this lock, and nobody is the holder.
            client.set(eternal.lock.lock, "of the dead", nx=True)
        stuck = read_together(run, "No TTL", [give_up] * readers, client, eternal, load)
        with run.recording("A loader takes a lock with a TTL, and is killed"):
            client.set(ending.lock.lock, "of the dead", nx=True, px=_DEAD_MS)
        replaced = read_together(
            run, "With a TTL", [_LOCKED] * readers, client, ending, load
        )
    sides, loads = ("no TTL", "with a TTL"), (stuck.loads, replaced.loads)
    waits = stuck.longest_us, replaced.longest_us
    return Outcome(
        rows=[
            *compare("Loads", sides, loads, most=readers),
            *compare("Longest wait", sides, waits, shown=duration),
        ],
        summary=f"The holder is killed. Without a TTL each of {readers} readers waits "
        f"in vain, and all {loads[0]} load. With one the lock runs out, and "
        f"{loads[1]} loads.",
        tone="no" if loads[0] > loads[1] else "ok",
        verdict=f"{loads[0]} loads",
        recordings=run.recordings,
    )


# Forget that there is nothing


@dataclass(frozen=True)
class Forgetful:
    """A lock around a load that keeps only what it found."""

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        with _LOCK.holding(client, entry.lock, wait_ms=_PATIENCE_MS):
            found = client.get(entry.value)
            if isinstance(found, bytes):
                return Read(found, "hit")
            payload = load()
            # Flaw: the next in the queue finds nothing again, and asks again.
            if payload != MISSING:
                client.set(entry.value, payload, px=_TTL_MS)
        return Read(payload, "miss")


def run_missing_row(bench: Bench, *, readers: int) -> Outcome:
    """A product that does not exist; every reader has to wait for all before it."""
    with running(bench, "missing") as run, crowd_client(bench, readers) as client:

        def load() -> bytes:
            return price_of(bench, run)

        queued = read_together(
            run,
            "Keeps rows only",
            [Forgetful()] * readers,
            client,
            entry(run, "queued"),
            load,
        )
        kept = read_together(
            run,
            "Keeps that there is none",
            [_LOCKED] * readers,
            client,
            entry(run, "kept"),
            load,
        )
    sides, loads = ("rows only", "missing ones, too"), (queued.loads, kept.loads)
    return Outcome(
        rows=compare("Loads", sides, loads, most=readers),
        summary=f"{readers} readers of a row that does not exist: {loads[0]} loads, "
        f"one after the other. With a kept null: {loads[1]}.",
        tone="no" if loads[0] > loads[1] else "ok",
        verdict=f"{loads[0]} loads",
        recordings=run.recordings,
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="cold-key",
        title="Let a popular key end",
        hypothesis="Everyone misses at once, and everyone asks the database.",
        controls=(Control("readers", "Readers", "range", 10, 50, 10, 30),),
        run=run_cold_key,
    ),
    Experiment(
        name="processes",
        title="Protect one process only",
        hypothesis="A flight inside a process knows nothing of the other processes.",
        controls=(Control("processes", "Processes", "range", 2, 10, 1, 4),),
        run=run_processes,
    ),
    Experiment(
        name="killed-loader",
        title="Kill the one who loads",
        hypothesis="A lock without a TTL outlives its holder. Everyone waits for "
        "nothing, then everyone loads.",
        controls=(Control("readers", "Readers", "range", 5, 25, 5, 10),),
        run=run_killed,
    ),
    Experiment(
        name="missing-row",
        title="Forget that there is nothing",
        hypothesis="Where a missing row is not kept, each who waited loads it again.",
        controls=(Control("readers", "Readers", "range", 5, 25, 5, 10),),
        run=run_missing_row,
    ),
)
