"""The leaderboard of a million players beside a bare EVALSHA on the same client.

Every comparison is interleaved, round after round: ratios hold, absolute times belong
to the machine. The page at depth is what FAULTS K1 asks to stay within 50 ms.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from webapp.connection.urls import client_for
from webapp.patterns.leaderboard import Leaderboard, Week
from webapp.shop.scores import fill

ROUNDS, TURNS = 9, 1000
PLAYERS = 1_000_000
BOARD = Leaderboard()
HAND = """
redis.call('ZINCRBY', KEYS[1], 5, ARGV[1])
local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
local first = math.max(rank - 3, 0)
return {rank, redis.call('ZRANGE', KEYS[1], first, rank + 3, 'REV', 'WITHSCORES'),
  redis.call('ZRANGE', KEYS[1], 0, 9, 'REV', 'WITHSCORES')}
"""
DAY_MS = 86_400_000
MIDDLE, DEEP = "player-0500000", {"after": 500_000, "limit": 10}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(path)
            _run(path)
        finally:
            server.terminate()
            server.wait()


def _run(path: str) -> None:
    client = client_for(f"unix://{path}", role="durable", max_connections=4)
    now_ms = round(time.time() * 1000)
    times = (now_ms + n * DAY_MS for n in (1, 2, 3))
    week = Week("b:{s}:week", "b:{s}:last", "b:{s}:ended", *times)
    began = time.perf_counter()
    while fill(client, week.board, size=PLAYERS, ttl_ms=DAY_MS) < PLAYERS:
        pass
    print(f"{PLAYERS:,} players in {time.perf_counter() - began:.1f} s")
    sha = client.script_load("return 1")
    numbers, players = count(), count(1)

    by_hand = client.script_load(HAND)

    def someone() -> str:
        return f"player-{next(players) * 7919 % PLAYERS + 1:07}"

    def add() -> None:
        operation = f"b:{{s}}:op:{next(numbers)}"
        BOARD.add(client, week, operation, player=someone(), points=5)

    compare(
        f"{PLAYERS:,} players; add: operation id, rank, neighbours, top 10",
        ("bare EVALSHA", lambda: client.evalsha(sha, 0)),
        ("no id, raw reply", lambda: client.evalsha(by_hand, 1, week.board, someone())),
        ("add", add),
        ("standing", lambda: BOARD.standing(client, week.board, player=MIDDLE)),
        ("page after 500,000", lambda: BOARD.page(client, week.board, **DEEP)),
    )


def compare(title: str, *variants: tuple[str, Callable[[], object]]) -> None:
    """Time all variants in turn; ratios of medians are to the first."""
    times: dict[str, list[float]] = {name: [] for name, _ in variants}
    for _ in range(ROUNDS):
        for name, do in variants:
            for _ in range(TURNS):
                began = time.perf_counter()
                do()
                times[name].append((time.perf_counter() - began) * 1e6)
    floor = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    for name, us in times.items():
        median, p99 = statistics.median(us), statistics.quantiles(us, n=100)[98]
        print(
            f"  {name:<20} {median:8.1f} µs  {median / floor:5.2f}x  p99 {p99:8.1f} µs"
        )


def _wait(path: str) -> None:
    deadline = time.monotonic() + 5
    client = redis.Redis(unix_socket_path=path)
    while time.monotonic() < deadline:
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("the server does not answer")


if __name__ == "__main__":
    main()
