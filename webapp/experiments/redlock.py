"""Break Redlock on five servers of its own: lose some, and restart one empty."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import redis

from webapp import keys
from webapp.connection.embedded import EmbeddedServer, find_binary
from webapp.connection.roles import breaker_of
from webapp.connection.urls import client_for, probe_client
from webapp.experiments import (
    Bench,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Row,
    Run,
    Tone,
    compare,
    duration,
    running,
    span,
)
from webapp.patterns.distributed_lock import DistributedLock, LockKeys
from webapp.patterns.redlock import Attempt, Redlock
from webapp.scripts import SCRIPTS

_SERVERS = 5
_TIMEOUT_S = 0.25  # of a server that does not answer; more than a busy machine takes
_BACK_S = 5.0  # within which one that goes on has to answer
_REDLOCK = Redlock(ttl_ms=10_000)
_LOCK = DistributedLock(ttl_ms=10_000)


@dataclass
class Node:
    """One scratch server, and the only client of it."""

    server: EmbeddedServer
    client: redis.Redis

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)
        self.await_answer()

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()
        self.server.await_answer()
        self.await_answer()

    def await_answer(self) -> None:
        """Until its client asks it again, at most five seconds."""
        deadline = time.monotonic() + _BACK_S
        breaker = breaker_of(self.client)
        while breaker.is_open and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self) -> None:
        self.server.kill()
        breaker_of(self.client).end()
        self.client.connection_pool.disconnect()

    @property
    def _pid(self) -> int:
        if self.server.child is None:
            raise redis.ConnectionError("the scratch server is not running")
        return self.server.child.pid


@cache
def server_binary() -> Path | None:
    """What scratch servers are started from; None: nothing here can be."""
    return find_binary()


@contextmanager
def nodes(count: int) -> Iterator[list[Node]]:
    """So many empty servers in a folder that ends with them."""
    binary = server_binary()
    if binary is None:
        raise redis.ConnectionError("there is no server to start here")
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        made = [_node(binary, Path(folder) / str(n + 1), n + 1) for n in range(count)]
        try:
            for node in made:
                node.server.start()
            for node in made:
                node.server.await_answer()
                _tell_scripts(node.server)
            yield made
        finally:
            for node in made:
                node.end()


def _tell_scripts(server: EmbeddedServer) -> None:
    """As the app's own servers are at its start, so that no EVALSHA is repeated.

    By a client of its own: what the lock's clients connect to is up to the replay.
    """
    with closing(probe_client(f"unix://{server.socket}")) as client:
        for script in set(SCRIPTS.values()):
            if script.name.startswith("distributed_lock/"):
                client.script_load(script.text)


def _node(binary: Path, folder: Path, n: int) -> Node:
    folder.mkdir(mode=0o700)
    server = EmbeddedServer("lab", binary, folder, folder)
    url = f"unix://{server.socket}"
    client = client_for(url, role=f"node {n}", max_connections=2, timeout_s=_TIMEOUT_S)
    return Node(server, client)


# Lose servers


def run_lose(bench: Bench) -> Outcome:
    with running(bench, "lose") as run:
        with nodes(1) as alone:
            single, got = _lose_one(bench, run, alone[0])
        with nodes(_SERVERS) as five:
            redlock, attempt = _lose_two(bench, run, five)
    return Outcome(
        rows=[
            Row("B gets the lock, one server", "yes" if got else "no", single.tone),
            Row(
                f"B gets the lock, {_SERVERS} servers",
                _granted(attempt),
                "ok" if attempt.held else "no",
            ),
        ],
        summary="The only server is killed: nobody gets the lock. Of five, two are "
        f"killed: {_granted(attempt)} grant it, for "
        f"{span(attempt.validity_ms)}. Without a third it is refused.",
        tone=single.tone,
        verdict="nobody gets it" if not got else "taken",
        recordings=run.recordings,
        lanes=[single, redlock],
    )


def _lose_one(bench: Bench, run: Run, node: Node) -> tuple[Lane, bool]:
    names, replay = _names(bench, run), Replay(run)
    replay.step(
        "Worker A",
        "takes and releases the lock",
        lambda: _take_and_release(node.client, names),
        shown=lambda freed: "released" if freed else "not released",
    )
    replay.step("You", "kill the server", node.kill, shown=lambda _: "killed")
    got = replay.step(
        "Worker B",
        "tries",
        lambda: _try_one(node.client, names),
        shown=lambda held: "taken" if held else "no answer",
        tone=lambda held: "ok" if held else "no",
    )
    return replay.lane("One server"), got


def _take_and_release(client: redis.Redis, names: LockKeys) -> bool:
    lease = _LOCK.acquire(client, names)
    return lease is not None and _LOCK.release(client, names, lease)


def _try_one(client: redis.Redis, names: LockKeys) -> bool:
    try:
        return _LOCK.acquire(client, names) is not None
    except redis.RedisError:
        return False


def _lose_two(bench: Bench, run: Run, five: list[Node]) -> tuple[Lane, Attempt]:
    """The lane, and the try with two of five servers down."""
    names, replay = _names(bench, run), Replay(run)
    clients = [node.client for node in five]

    def ask() -> Attempt:
        attempt = _REDLOCK.acquire(clients, names)
        _REDLOCK.release(clients, names, token=attempt.token)
        return attempt

    def kill_two() -> None:
        five[3].kill()
        five[4].kill()

    replay.step("Worker A", "asks all, then releases", ask, shown=_told, tone=_held)
    replay.step("You", "kill servers 4 and 5", kill_two, shown=lambda _: "killed")
    attempt = replay.step(
        "Worker B", "asks all, then releases", ask, shown=_told, tone=_held
    )
    replay.step("You", "stop server 3", five[2].stop, shown=lambda _: "stopped")
    replay.step(
        "Worker C",
        "asks all: no majority",
        ask,
        shown=_told,
        tone=lambda c: "no" if c.held else "ok",
    )
    return replay.lane("Five servers"), attempt


# Restart a server empty


def start_at_once(node: Node) -> None:
    # Flaw: it forgot that it had granted the lock to A, and grants it to B.
    node.start()


def stay_out(node: Node) -> None:
    """It stays out for longer than any lease it may have granted."""


def run_restart(bench: Bench) -> Outcome:
    with running(bench, "restart") as run:
        at_once, broken = _restart(bench, run, "Starts at once", start_at_once)
        later, fixed = _restart(bench, run, "Stays out for a lease", stay_out)
    return Outcome(
        rows=compare("Holders at once", ("back empty", "stays out"), (broken, fixed)),
        summary="A holds the lock on servers 1 to 3, and server 3 loses its memory. "
        f"If it starts at once {broken} hold the lock, if it stays out {fixed}.",
        tone="no" if broken > 1 else "ok",
        verdict="two holders" if broken > 1 else "one holder",
        recordings=run.recordings,
        lanes=[at_once, later],
    )


def _restart(
    bench: Bench, run: Run, title: str, restart: Callable[[Node], None]
) -> tuple[Lane, int]:
    """The lane, and how many hold the lock at its end."""
    names, replay = _names(bench, run), Replay(run)
    with nodes(_SERVERS) as five:
        clients = [node.client for node in five]

        def stop_two() -> None:
            five[3].stop()
            five[4].stop()

        def go_on() -> None:
            five[3].go_on()
            five[4].go_on()
            five[2].kill()
            restart(five[2])

        replay.step("You", "stop servers 4 and 5", stop_two, shown=lambda _: "stopped")
        first = replay.step(
            "Worker A",
            "asks all, and holds it",
            lambda: _REDLOCK.acquire(clients, names),
            shown=_told,
            tone=_held,
        )
        replay.step(
            "You",
            "let 4 and 5 go on, and kill server 3, which "
            + ("stays out" if restart is stay_out else "starts empty"),
            go_on,
            shown=lambda _: "done",
        )
        second = replay.step(
            "Worker B",
            "asks all, while A works",
            lambda: _REDLOCK.acquire(clients, names),
            shown=_told,
            tone=lambda attempt: "no" if attempt.held else "ok",
        )
    return replay.lane(title), first.held + second.held


def _told(attempt: Attempt) -> str:
    """'3 of 5, 9.89 s left: 210 µs, 180 µs, 190 µs, no, no'."""
    times = ", ".join(duration(g.us) if g.granted else "no" for g in attempt.grants)
    left = f"{span(attempt.validity_ms)} left" if attempt.held else "not held"
    return f"{_granted(attempt)}, {left}: {times}"


def _granted(attempt: Attempt) -> str:
    return f"{attempt.granted} of {len(attempt.grants)}"


def _held(attempt: Attempt) -> Tone:
    return "ok" if attempt.held else "no"


def _names(bench: Bench, run: Run) -> LockKeys:
    """On scratch servers, with which they end."""
    parts = "lock", "fence", "wake"
    return LockKeys(*(keys.key(bench.namespace, bench.lab, run.id, p) for p in parts))


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="lose-servers",
        title="Lose servers",
        hypothesis="A lock on one server is gone with it. Redlock on five goes on "
        "without two, and refuses without three.",
        controls=(),
        run=run_lose,
        replayed=True,
    ),
    Experiment(
        name="restart-empty",
        title="Restart a server empty",
        hypothesis="A server that forgot what it granted makes a second majority. One "
        "that stays out for a lease does not.",
        controls=(),
        run=run_restart,
        replayed=True,
    ),
)
