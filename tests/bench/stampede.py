"""Stampede protection beside a plain read: 50 readers of one key in two processes.

A load waits for 200 ms, as for a database. Read the loads, the round trips, and what is
added to 200 ms; absolute times belong to the machine. Then what one miss costs.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from cache_aside import PAYLOAD, _wait, compare

from webapp.connection.roles import warm
from webapp.connection.urls import client_for
from webapp.patterns.distributed_lock import LockKeys
from webapp.patterns.stampede import Entry, Method
from webapp.patterns.stampede.early_expiry import EarlyExpiry
from webapp.patterns.stampede.locked_flight import LockedFlight
from webapp.patterns.stampede.single_flight import SingleFlight
from webapp.patterns.stampede.stale_while_revalidate import StaleWhileRevalidate
from webapp.patterns.stampede.unprotected import Unprotected

ROUNDS, PROCESSES, READERS, LOAD_S = 5, 2, 25, 0.2
LOCK = LockKeys("b:catalog:lease:{1}", "b:catalog:fence:{1}", "b:catalog:wake:{1}")
ENTRY = Entry("b:catalog:product:{1}", LOCK)
METHODS: dict[str, type[Method]] = {
    "no protection": Unprotected,
    "single flight": SingleFlight,
    "lock": LockedFlight,
    "stale while revalidate": StaleWhileRevalidate,
}
Found = tuple[int, list[float]]  # loads, and the ms that each reader waited


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(path)
            _stampedes(path)
            _misses(path)
        finally:
            server.terminate()
            server.wait()


def _stampedes(path: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    doors = spawn.Barrier(PROCESSES)
    print(f"{PROCESSES} x {READERS} readers of one cold key, a load of 200 ms")
    with spawn.Pool(PROCESSES, _open, (path, doors)) as pool:
        for title in METHODS:
            rounds = [_round(pool, path, title) for _ in range(ROUNDS)]
            loads = [loads for loads, _, _ in rounds]
            waits = sorted(wait for _, own, _ in rounds for wait in own)
            p50, p99 = waits[len(waits) // 2], waits[-len(waits) // 100 - 1]
            trips = sorted(count for _, _, count in rounds)[ROUNDS // 2]
            print(
                f"  {title:<24} loads {min(loads)} to {max(loads)}"
                f"  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  {trips} round trips"
            )


def _round(pool: Pool, path: str, title: str) -> tuple[int, list[float], int]:
    client = client_for(f"unix://{path}", role="cache", max_connections=2)
    client.delete(ENTRY.value, LOCK.lock)
    if title == "stale while revalidate":
        client.set(ENTRY.value, PAYLOAD, px=60_000)
    before = client.info("stats")["total_reads_processed"]
    found: list[Found] = pool.map(_readers, [title] * PROCESSES, chunksize=1)
    trips = client.info("stats")["total_reads_processed"] - before
    client.connection_pool.disconnect()
    waits = [wait for _, own in found for wait in own]
    return sum(loads for loads, _ in found), waits, trips


_opened: dict[str, Any] = {}


def _open(path: str, doors: Any) -> None:
    client = client_for(f"unix://{path}", role="cache", max_connections=READERS + 4)
    warm(client, connections=READERS + 2)
    _opened.update(client=client, doors=doors)


def _readers(title: str) -> Found:
    """All readers of one process."""
    loads: list[int] = []
    beside: list[threading.Thread] = []
    method = METHODS[title]()
    if isinstance(method, StaleWhileRevalidate):
        method = StaleWhileRevalidate(start=lambda work: _begin(beside, work))
    doors = threading.Barrier(READERS, action=lambda: _opened["doors"].wait(20))

    def load() -> bytes:
        loads.append(1)
        time.sleep(LOAD_S)
        return PAYLOAD

    def read(_: int) -> float:
        doors.wait(20)
        began = time.perf_counter()
        method.read(_opened["client"], ENTRY, load=load)
        return (time.perf_counter() - began) * 1e3

    with ThreadPoolExecutor(READERS) as pool:
        waits = list(pool.map(read, range(READERS)))
    for thread in beside:
        thread.join()
    return len(loads), waits


def _begin(beside: list[threading.Thread], work: Any) -> None:
    beside.append(threading.Thread(target=work))
    beside[-1].start()


def _misses(path: str) -> None:
    client = client_for(f"unix://{path}", role="cache", max_connections=4)

    def miss(method: Method) -> None:
        client.delete(ENTRY.value)
        method.read(client, ENTRY, load=lambda: PAYLOAD)

    compare(
        "a miss of 1 KB, and its DEL",
        ("GET, SET without protection", lambda: miss(Unprotected())),
        ("single flight", lambda: miss(SingleFlight())),
        ("lock", lambda: miss(LockedFlight())),
        ("early expiry", lambda: miss(EarlyExpiry())),
    )


if __name__ == "__main__":
    main()
