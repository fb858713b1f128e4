"""Many clients move money from one balance: four ways, measured on scratch keys."""

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import redis

from webapp.connection.recorder import Recording, recording
from webapp.experiments import Bench, Control, Run, running
from webapp.experiments.transactions import read_balance, write_balances
from webapp.patterns.transactions import Moved, Pair, TooContended, Transfers

CLIENTS = Control("clients", "Clients", "range", min=2, max=16, step=2, value=8)
EACH = 20  # transfers of € 1 a client wants; the giver can pay for half of them

_TTL_MS = 30_000
_MEET_S = 5.0
_TRANSFERS = Transfers(ttl_ms=_TTL_MS, tries=200)
_OF_CONNECTIONS = {"AUTH", "CLIENT", "HELLO", "PING", "SELECT", "SCRIPT"}

Move = Callable[[redis.Redis, Pair, Callable[[], None]], Moved]


@dataclass(frozen=True)
class Way:
    """What one way did with the transfers."""

    title: str
    asked: int  # transfers
    start: int  # € the giver had
    left: int  # € of the giver
    arrived: int  # € of the taker
    tries: int
    round_trips: int
    given_up: int  # after too many tries
    median_us: int  # of a transfer
    slowest_us: int
    us: int  # of all, side by side

    @property
    def made(self) -> int:
        """€ that came from nowhere; below 0: that are gone."""
        return self.left + self.arrived - self.start

    @property
    def is_right(self) -> bool:
        return self.made == 0 and self.left >= 0 and not self.given_up


@dataclass(frozen=True)
class Race:
    clients: int
    ways: tuple[Way, ...]
    recordings: list[Recording]


@dataclass
class _Done:
    """What one client saw."""

    tries: int = 0
    round_trips: int = 0
    given_up: int = 0
    took_us: tuple[int, ...] = ()


def run(bench: Bench, *, clients: int) -> Race:
    """All four, one after the other; on the tape is the first transfer of each."""
    ways: dict[str, Move] = {
        "Plain commands": _plain,
        "MULTI": lambda c, pair, meet: _TRANSFERS.queued(c, pair, amount=1),
        "WATCH": lambda c, pair, meet: _TRANSFERS.watched(c, pair, amount=1),
        "Script": lambda c, pair, meet: _TRANSFERS.scripted(c, pair, amount=1),
    }
    with running(bench, "race") as own:
        done = [_way(bench, own, *way, clients=clients) for way in ways.items()]
    return Race(clients, tuple(done), own.recordings)


def _plain(client: redis.Redis, pair: Pair, meet: Callable[[], None]) -> Moved:
    """Read, look, write. All clients meet after their first read."""
    balance = read_balance(client, pair)
    meet()
    if balance < 1:
        return Moved(False, balance)
    write_balances(client, pair, balance, 1)
    return Moved(True, balance - 1)


def _way(bench: Bench, run: Run, title: str, move: Move, *, clients: int) -> Way:
    client, asked = bench.client, clients * EACH
    name = title.lower().replace(" ", "-")
    pair, start = Pair(run.key(f"{name}-giver"), run.key(f"{name}-taker")), asked // 2
    client.set(pair.giver, start, px=_TTL_MS)
    doors = threading.Barrier(clients)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):
            doors.wait(_MEET_S)

    def work(n: int) -> _Done:
        return _client(run, title, lambda at: move(client, pair, at), n, meet)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        futures = [
            pool.submit(contextvars.copy_context().run, work, n) for n in range(clients)
        ]
        done = [future.result() for future in futures]
    us = round((time.perf_counter() - began) * 1e6)
    took_us = [us for one in done for us in one.took_us]
    return Way(
        title=title,
        asked=asked,
        start=start,
        left=read_balance(client, pair),
        arrived=int(client.get(pair.taker) or 0),
        tries=sum(one.tries for one in done),
        round_trips=sum(one.round_trips for one in done),
        given_up=sum(one.given_up for one in done),
        median_us=round(median(took_us)),
        slowest_us=max(took_us),
        us=us,
    )


def _client(
    run: Run,
    title: str,
    move: Callable[[Callable[[], None]], Moved],
    n: int,
    meet: Callable[[], None],
) -> _Done:
    done = _Done()
    for transfer in range(EACH):
        own = Recording(f"Transfer 1 of client 1, {title}")
        began = time.perf_counter()
        with recording(own):
            try:
                moved = move(meet if transfer == 0 else lambda: None)
                done.tries += moved.tries
            except TooContended:
                done.tries += _TRANSFERS.tries
                done.given_up += 1
        done.took_us += (round((time.perf_counter() - began) * 1e6),)
        done.round_trips += sum(
            trip.commands[0].args[0] not in _OF_CONNECTIONS for trip in own.trips
        )
        if n == transfer == 0:
            run.recordings.append(own)
    return done
