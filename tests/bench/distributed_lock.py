"""Locks beside their floor and a peer, interleaved in one run; then a hand-off.

The floor of a lock is two round trips, of Redlock two on one of its servers. Read the
ratios, absolute times belong to the machine.
"""

import statistics
import sys
import threading
import time
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.bench.cache_aside import compare
from webapp.experiments.redlock import nodes
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
from webapp.patterns.redlock import Redlock

NAMES = LockKeys(*(f"bench:locks:{part}:{{1}}" for part in ("lock", "fence", "wake")))
LOCK, REDLOCK = DistributedLock(), Redlock()
HAND_OFFS = 60


def main() -> None:
    with nodes(3) as three:
        clients = [node.client for node in three]
        first = clients[0]
        peer = redis.Redis(unix_socket_path=str(three[0].server.socket))

        def pings() -> None:
            first.ping()
            first.ping()

        def ours() -> None:
            lease = LOCK.acquire(first, NAMES)
            assert lease is not None
            LOCK.release(first, NAMES, lease)

        def theirs() -> None:
            with peer.lock("bench:peer", timeout=10):
                pass

        def redlock() -> None:
            attempt = REDLOCK.acquire(clients, NAMES)
            REDLOCK.release(clients, NAMES, token=attempt.token)

        compare(
            "acquire and release",
            ("two PINGs, same client", pings),
            ("with a number", ours),
            ("redis-py's lock", theirs),
            ("Redlock on three servers", redlock),
        )
        _hand_over(first)


def _hand_over(client: redis.Redis) -> None:
    """From a release until one who waits has the lock."""
    took_ms = []
    for _ in range(HAND_OFFS):
        lease = LOCK.acquire(client, NAMES)
        assert lease is not None
        had: list[float] = []

        def wait(had: list[float] = had) -> None:
            got = LOCK.wait(client, NAMES, for_ms=9_000)
            had.append(time.perf_counter())
            assert got is not None
            LOCK.release(client, NAMES, got)

        waiter = threading.Thread(target=wait)
        waiter.start()
        while not client.info("clients")["blocked_clients"]:
            time.sleep(0.001)
        released = time.perf_counter()
        LOCK.release(client, NAMES, lease)
        waiter.join()
        took_ms.append((had[0] - released) * 1000)
    took_ms.sort()
    print(
        f"\nhand-off to one who waits: median {statistics.median(took_ms):.2f} ms, "
        f"p95 {took_ms[int(HAND_OFFS * 0.95)]:.2f} ms"
    )


if __name__ == "__main__":
    main()
