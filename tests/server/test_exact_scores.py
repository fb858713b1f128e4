"""FAULTS K2: scores stay exact while replies are lost and clients repeat.

`make test` sends 1,200 adds from 4 processes; the 100,000 of 8 are behind `slow`.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from typing import Any

import pytest
import redis

from tests.conftest import wait_until
from webapp import keys
from webapp.connection.recorder import RecordedConnection
from webapp.connection.roles import close
from webapp.connection.urls import client_for, probe_client
from webapp.patterns.leaderboard import Added, Leaderboard, Week

pytestmark = pytest.mark.server

_NOW_MS = round(time.time() * 1000)
_HOUR_MS = 3_600_000
_PLAYERS = 5
_EVERY = 10  # one in so many replies is lost


def _week() -> Week:
    board, last = (keys.key("rpl", keys.WEEK, "season", w) for w in ("now", "last"))
    ended = keys.key("rpl", keys.ENDED, "season", "all")
    times = (_NOW_MS + n * _HOUR_MS for n in (1, 2, 3))
    return Week(board, last, ended, *times)


def lossy(lost: list[str]) -> Callable[..., Any]:
    """To read a reply, but every tenth is lost, and its connection with it.

    The server has run the command then; who sent it cannot know.
    """
    read, replies = RecordedConnection.read_response, count(1)

    def read_response(connection: Any, *args: Any, **options: Any) -> Any:
        reply = read(connection, *args, **options)
        if next(replies) % _EVERY:
            return reply
        lost.append(str(reply))
        connection.disconnect()
        raise redis.ConnectionError("The reply is lost")

    return read_response


def add_all(url: str, process: int, adds: int) -> int:
    """Add 3 points a time, and repeat each operation until it is answered.

    How many replies were lost meanwhile.
    """
    lost: list[str] = []
    RecordedConnection.read_response = lossy(lost)  # type: ignore[method-assign]
    client = client_for(url, role="durable", max_connections=2)
    board, week = Leaderboard(), _week()
    for n in range(adds):
        key = keys.key("rpl", keys.OPERATION, "season", f"p{process}-{n}")
        player = f"player-{n % _PLAYERS}"
        while True:
            try:
                added = board.add(client, week, key, player=player, points=3)
            except redis.RedisError:
                time.sleep(0.001)  # its breaker asks whether the server is back
                continue
            assert isinstance(added, Added)
            break
    return len(lost)


def _run(redis_url: str, *, processes: int, adds: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        jobs = [pool.submit(add_all, redis_url, p, adds) for p in range(processes)]
        lost = sum(job.result() for job in jobs)
    assert lost > processes * adds / _EVERY / 2
    with probe_client(redis_url) as client:
        found = client.zrange(_week().board, 0, -1, withscores=True)
    each = processes * adds * 3 / _PLAYERS
    assert dict(found) == {f"player-{n}".encode(): each for n in range(_PLAYERS)}


def test_k2_sums_are_exact_though_replies_are_lost(redis_url: str) -> None:
    _run(redis_url, processes=4, adds=300)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_k2_sums_are_exact_for_100_000_adds(redis_url: str) -> None:
    _run(redis_url, processes=8, adds=12_500)


def test_without_operation_ids_points_would_be_doubled(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What K2 guards against, so that replies are known to be lost."""
    monkeypatch.setattr(RecordedConnection, "read_response", lossy([]))
    client = client_for(redis_url, role="durable", max_connections=2)
    for _ in range(60):
        wait_until(lambda: _incremented(client))
    close(client)
    with probe_client(redis_url) as direct:
        assert direct.zscore("plain", "ada") > 60


def _incremented(client: redis.Redis) -> bool:
    try:
        client.zincrby("plain", 1, "ada")
    except redis.RedisError:
        return False
    return True
