"""FAULTS K2: scores stay exact while replies are lost and clients repeat.

`make test` sends 1,200 adds from 4 processes; the 100,000 of 8 are behind `slow`.
"""

import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import redis

from tests.conftest import RedisProcess, wait_until
from webapp import keys
from webapp.connection.urls import client_for
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


class LossyLine:
    """A proxy that drops every tenth reply, after the server ran the command."""

    def __init__(self, server: RedisProcess) -> None:
        self.lost = 0
        self._server, self._replies = server, 0
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            self._ends += [near, far]
            far.connect(str(self._server.socket))
            for work in (self._forward, self._answer):
                threading.Thread(target=work, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        self._pump(near, far, lossy=False)

    def _answer(self, near: socket.socket, far: socket.socket) -> None:
        self._pump(far, near, lossy=True)

    def _pump(self, source: socket.socket, to: socket.socket, *, lossy: bool) -> None:
        try:
            while data := source.recv(65536):
                self._replies += lossy
                if lossy and self._replies % _EVERY == 0:
                    self.lost += 1
                    break
                to.sendall(data)
        except OSError:
            pass  # the other direction has closed both
        for end in (source, to):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            end.close()


@pytest.fixture
def lossy(redis_process: RedisProcess) -> Iterator[LossyLine]:
    line = LossyLine(redis_process)
    yield line
    line.close()


def add_all(port: int, process: int, adds: int) -> None:
    """Add 3 points a time, and repeat each operation until it is answered."""
    client = client_for(f"redis://127.0.0.1:{port}", role="durable", max_connections=2)
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


def _run(server: RedisProcess, line: LossyLine, *, processes: int, adds: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        jobs = [pool.submit(add_all, line.port, p, adds) for p in range(processes)]
        for job in jobs:
            job.result()
    assert line.lost > processes * adds / _EVERY / 2
    with server.client() as client:
        found = client.zrange(_week().board, 0, -1, withscores=True)
    each = processes * adds * 3 / _PLAYERS
    assert dict(found) == {f"player-{n}".encode(): each for n in range(_PLAYERS)}


def test_k2_sums_are_exact_though_replies_are_lost(
    redis_process: RedisProcess, lossy: LossyLine
) -> None:
    _run(redis_process, lossy, processes=4, adds=300)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_k2_sums_are_exact_for_100_000_adds(
    redis_process: RedisProcess, lossy: LossyLine
) -> None:
    _run(redis_process, lossy, processes=8, adds=12_500)


def test_without_operation_ids_points_would_be_doubled(
    redis_process: RedisProcess, lossy: LossyLine
) -> None:
    """What K2 guards against, so that its line is known to lose replies."""
    with redis.Redis(host="127.0.0.1", port=lossy.port, retry=None) as client:
        for _ in range(60):
            wait_until(lambda: _incremented(client))
    with redis_process.client() as direct:
        assert direct.zscore("plain", "ada") > 60


def _incremented(client: redis.Redis) -> bool:
    try:
        client.zincrby("plain", 1, "ada")
    except redis.RedisError:
        return False
    return True
